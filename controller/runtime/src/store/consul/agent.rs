//! Reads what Consul's agent and servers say about themselves, for checks and `status`. It changes nothing, and nothing
//! that keeps a VM safe rests on it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::connection::parse;
use super::failure::Failure;

/// raft's heartbeat timeout at `raft_multiplier` 1.
const RAFT_HEARTBEAT: Duration = Duration::from_secs(1);

/// The agent behind an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub node: String,
    pub version: String,
    pub server: bool,
    /// 1 is fast, 5 is Consul's default; none if the agent does not say, or is a client, which elects nobody.
    pub raft_multiplier: Option<u32>,
    pub cleanup_dead_servers: Option<bool>,
    pub leave_on_terminate: Option<bool>,
    pub rpc_hold_timeout: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentSelf {
    config: AgentConfig,
    #[serde(default)]
    debug_config: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentConfig {
    node_name: String,
    version: String,
    server: bool,
}

impl Agent {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        let AgentSelf { config, debug_config } = parse(body)?;
        let duration = |name: &str| debug_config.get(name).and_then(Value::as_str).and_then(go_duration);
        let flag = |name: &str| debug_config.get(name).and_then(Value::as_bool);
        Ok(Self {
            node: config.node_name,
            version: config.version,
            server: config.server,
            raft_multiplier: duration("ConsulRaftHeartbeatTimeout")
                .filter(|_| config.server)
                .and_then(|timeout| u32::try_from(timeout.as_millis() / RAFT_HEARTBEAT.as_millis()).ok()),
            cleanup_dead_servers: flag("AutopilotCleanupDeadServers"),
            leave_on_terminate: flag("LeaveOnTerm"),
            rpc_hold_timeout: duration("RPCHoldTimeout"),
        })
    }
}

/// One agent, as another's gossip knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub node: String,
    /// `ADDRESS:PORT` of its gossip.
    pub address: String,
    pub status: MemberStatus,
    pub server: bool,
    pub version: String,
    pub protocol: String,
    pub datacenter: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MemberStatus {
    Alive,
    Leaving,
    Left,
    Failed,
    /// A state that Consul has and this build does not know.
    Other,
}

impl MemberStatus {
    /// The word that `consul members` prints.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Failed => "failed",
            Self::Other => "unknown",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawMember {
    name: String,
    addr: String,
    port: u16,
    status: u8,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

impl Member {
    /// Reads the members, in the order of their names.
    pub(super) fn parse(body: &[u8]) -> Result<Vec<Self>, Failure> {
        let raw: Vec<RawMember> = parse(body)?;
        let mut members: Vec<_> = raw.into_iter().map(Self::from_raw).collect();
        members.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(members)
    }

    fn from_raw(raw: RawMember) -> Self {
        let tag = |name: &str| raw.tags.get(name).cloned().unwrap_or_default();
        Self {
            address: format!("{}:{}", raw.addr, raw.port),
            status: match raw.status {
                1 => MemberStatus::Alive,
                2 => MemberStatus::Leaving,
                3 => MemberStatus::Left,
                4 => MemberStatus::Failed,
                _ => MemberStatus::Other,
            },
            server: tag("role") == "consul",
            // What follows the colon is the commit it was built from.
            version: tag("build").split(':').next().unwrap_or_default().to_owned(),
            protocol: tag("vsn"),
            datacenter: tag("dc"),
            node: raw.name,
        }
    }
}

/// Reads a duration as Go prints it: `1m30s`, `500ms`, `1.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += amount * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raft_multiplier_is_read_off_the_heartbeat_timeout() {
        let body = br#"{"Config":{"NodeName":"n1","Version":"1.8.7","Server":true},
            "DebugConfig":{"ConsulRaftHeartbeatTimeout":"5s","AutopilotCleanupDeadServers":true,
                           "LeaveOnTerm":false,"RPCHoldTimeout":"7s"}}"#;
        let agent = Agent::parse(body).unwrap();
        assert_eq!(agent.raft_multiplier, Some(5));
        assert_eq!(agent.cleanup_dead_servers, Some(true));
        assert_eq!(agent.rpc_hold_timeout, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_client_elects_nobody_however_it_is_set() {
        let body = br#"{"Config":{"NodeName":"n1","Version":"1.8.7","Server":false},
            "DebugConfig":{"ConsulRaftHeartbeatTimeout":"5s"}}"#;
        let agent = Agent::parse(body).unwrap();
        assert_eq!((agent.server, agent.raft_multiplier), (false, None));
    }

    #[test]
    fn an_agent_that_does_not_show_its_settings_leaves_them_unknown() {
        let body = br#"{"Config":{"NodeName":"n1","Version":"1.20.0","Server":false}}"#;
        assert_eq!(Agent::parse(body).unwrap().raft_multiplier, None);
    }

    #[test]
    fn members_are_listed_by_name_with_what_their_tags_say() {
        let body = br#"[
            {"Name":"nfs-2","Addr":"10.0.0.2","Port":8301,"Status":4,"Tags":{"role":"node","build":"1.8.7","vsn":"2","dc":"dc1"}},
            {"Name":"nfs-1","Addr":"10.0.0.1","Port":8301,"Status":1,"Tags":{"role":"consul","build":"1.8.7:a1b2","vsn":"2","dc":"dc1"}},
            {"Name":"nfs-3","Addr":"10.0.0.3","Port":8301,"Status":9}]"#;
        let members = Member::parse(body).unwrap();
        let told: Vec<_> = members
            .iter()
            .map(|m| (m.node.as_str(), m.status.word(), m.server, m.version.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("nfs-1", "alive", true, "1.8.7"),
                ("nfs-2", "failed", false, "1.8.7"),
                ("nfs-3", "unknown", false, "")
            ]
        );
        assert_eq!(members[0].address, "10.0.0.1:8301");
    }

    #[test]
    fn durations_are_read_as_go_prints_them() {
        assert_eq!(go_duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(go_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(go_duration("1.5s"), Some(Duration::from_millis(1_500)));
        assert_eq!(go_duration("soon"), None);
    }
}
