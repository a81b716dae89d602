//! Drives zsha for the lab: only through its commands and what they print.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::command::Finished;
use crate::guest::DOMAIN;
use crate::host::Host;
use crate::{net, services};

const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// The time for the first start after `apply`: three cold controllers, and QEMU under TCG on a small machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A desired-state document, made for the lab.
#[derive(Debug, Clone, PartialEq)]
pub struct Document(pub Value);

impl Document {
    pub fn new(profile: &str, hosts: usize) -> Self {
        let node = |number| format!("{} {}", net::address(0, number), services::host_name(number));
        Self(json!({
            "apiVersion": "zsha.io/v1",
            "kind": "HaCluster",
            "metadata": { "name": services::CLUSTER },
            "spec": {
                "Node": (1..=hosts).map(node).collect::<Vec<_>>(),
                "MemorySizeInGB": 8,
                "CPU": 4,
                "Type": "FileConf",
                "MonAddrs": null,
                "ChronyServers": [],
                "PoolName": "",
                "ImageFolder": "/opt/smp/mngt/",
                "DNS": [],
                "Network": [{
                    "Bridge": "br_mgmt",
                    "MacAddress": "02:98:54:4b:a5:c0",
                    "Ipaddr": "10.93.0.100",
                    "Netmask": "255.255.255.0",
                    "Gateway": "10.93.0.1",
                    "IsMgmt": true,
                    "IsDefRoute": true
                }],
                "ConsoleProxyOverriddenIP": "",
                "AllowResetRootPassword": false,
                "Availability": { "Profile": profile }
            }
        }))
    }

    pub fn names(&self, host: &Host) -> bool {
        let nodes = self.0["spec"]["Node"].as_array().into_iter().flatten().filter_map(Value::as_str);
        nodes.filter_map(|node| node.split(' ').nth(1)).any(|name| name == host.name)
    }

    /// The same document with one field of `spec` changed.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0["spec"][field] = value.into();
        self
    }
}

/// The part of `zsha status -o json` that is promised to stay.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub vm: VmStatus,
    pub nodes: Vec<NodeStatus>,
    /// Absent where there is no document yet.
    pub generation: Option<u64>,
    /// Absent while no controller has said which it acts on.
    pub observed_generation: Option<u64>,
    /// Absent where no timings are known.
    pub failover_bound_seconds: Option<f64>,
    pub conditions: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct VmStatus {
    pub name: String,
    pub node: Option<String>,
    pub state: String,
    pub uuid: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    pub address: Option<String>,
    /// Shown in failures only; its words are the product's own affair.
    pub lease: Value,
    pub ready: bool,
    /// The reasons why it is not ready.
    #[serde(default)]
    pub reasons: Vec<String>,
}

impl Status {
    pub fn node(&self, name: &str) -> Option<&NodeStatus> {
        self.nodes.iter().find(|node| node.name == name)
    }
}

impl Host {
    /// Runs `zsha` on this host, with its local agent.
    pub fn zsha(&self, words: &[&str], input: &str) -> Result<Finished> {
        self.exec_with(&[&["zsha"], words].concat(), input, COMMAND_LIMIT)
    }

    pub fn status(&self) -> Result<Status> {
        let text = self.zsha(&["status", "-o", "json"], "")?.success().with_context(|| self.name.clone())?;
        serde_json::from_str(&text)
            .with_context(|| format!("decode `zsha status -o json` of {}: {text}", self.name))
    }
}

/// The end of a recovery: the VM runs again.
#[derive(Debug)]
pub struct Recovery<'a> {
    pub host: &'a Host,
    pub pid: i32,
    pub took: Duration,
}

impl Cluster {
    /// Runs `zsha apply` on the first host that is on.
    pub fn apply(&self, document: &Document, message: &str) -> Result<String> {
        let host = self.any_host()?;
        let said = host.zsha(&["apply", "-f", "-", "-m", message], &document.0.to_string())?.success()?;
        self.remember(document);
        Ok(said)
    }

    /// The status as the first host that is on and can answer sees it.
    pub fn status(&self) -> Result<Status> {
        let mut last = anyhow!("every host is off");
        for host in self.hosts().iter().filter(|host| host.is_on()) {
            match host.status() {
                Ok(status) => return Ok(status),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Applies the lab's document and waits until the VM runs. Returns the host that it runs on.
    pub fn start_vm(&self) -> Result<&Host> {
        self.apply(&self.document(), "the lab's first start")?;
        self.running_host(START_LIMIT)
    }

    /// Waits until status says that the VM runs, on the host where the independent check sees its one copy.
    pub fn running_host(&self, limit: Duration) -> Result<&Host> {
        self.until("the VM runs on one host, and status says so", limit, || {
            let status = self.status()?;
            let copies = self.check().alive();
            let seen = copies.iter().map(|copy| copy.host.as_str()).collect::<Vec<_>>();
            let said = status.vm.node.as_deref();
            if status.vm.state == "Running" && seen.len() == 1 && said == Some(seen[0]) {
                return self.named(seen[0]).map(Some);
            }
            Err(anyhow!("status says {} on {said:?}, copies are on {seen:?}", status.vm.state))
        })
    }

    /// Waits until the VM runs, every host of the document that is on is ready, and the document in force is the one
    /// last applied.
    pub fn settled(&self, limit: Duration) -> Result<&Host> {
        self.until("the cluster has settled", limit, || {
            let status = self.status()?;
            let (wanted, observed) = (status.generation, status.observed_generation);
            ensure!(
                wanted.is_some() && wanted == observed,
                "generation {wanted:?} is wanted, {observed:?} in force"
            );
            let document = self.document();
            for host in self.hosts().iter().filter(|host| host.is_on() && document.names(host)) {
                let node =
                    status.node(&host.name).ok_or_else(|| anyhow!("status has no node {}", host.name))?;
                ensure!(node.ready, "{} is not ready: {node:?}", host.name);
            }
            Ok(Some(()))
        })?;
        self.running_host(limit)
    }

    /// Waits until a QEMU first seen after `since` runs the VM (libvirt says so on its host; the guest may still boot).
    pub fn recovered(&self, since: Instant, limit: Duration) -> Result<Recovery<'_>> {
        self.until("the VM runs again", limit, || {
            let copy = self.check().alive().into_iter().find(|copy| copy.first_seen > since);
            let copy = copy.ok_or_else(|| anyhow!("no new copy"))?;
            let host = self.named(&copy.host)?;
            let state = host.virsh(&["domstate", DOMAIN])?;
            ensure!(state.trim() == "running", "on {} it is {}", host.name, state.trim());
            Ok(Some(Recovery { host, pid: copy.pid, took: since.elapsed() }))
        })
    }

    /// The bound that the product itself computes for a failover.
    pub fn failover_bound(&self) -> Result<Duration> {
        let seconds = self.status()?.failover_bound_seconds;
        seconds.map(Duration::from_secs_f64).ok_or_else(|| anyhow!("status computes no bound for a failover"))
    }

    fn any_host(&self) -> Result<&Host> {
        self.hosts().iter().find(|host| host.is_on()).ok_or_else(|| anyhow!("every host is off"))
    }
}
