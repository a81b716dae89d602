//! Consul's servers as Consul itself counts them: who votes, who is alive, and whether one of them can be spared. Pure.

use std::collections::BTreeSet;

/// A server that Consul counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The address without the port.
    pub(crate) host: String,
    pub(crate) port: String,
    pub(crate) votes: bool,
}

impl Peer {
    /// The words behind `consul` that take it from the servers.
    pub(crate) fn removal(&self) -> String {
        format!("operator raft remove-peer -address={}:{}", self.host, self.port)
    }
}

/// The words that follow such a command where a person types it, and Consul has tokens.
pub(crate) const WITH_TOKENS: &str = "with tokens add -token-file=/etc/zsha/management.token";

/// True if an agent that was asked for the servers says that it follows no leader.
pub(crate) fn has_no_leader(stderr: &str) -> bool {
    stderr.contains("No cluster leader")
}

/// The servers that `consul operator raft list-peers` has printed; none where it is no such list.
pub(crate) fn listed(text: &str) -> Option<Vec<Peer>> {
    rows(text, ["Address", "Voter"])?
        .map(|[address, voter]| {
            let (host, port) = address.rsplit_once(':')?;
            let votes = match voter {
                "true" => true,
                "false" => false,
                _ => return None,
            };
            Some(Peer { host: host.to_owned(), port: port.to_owned(), votes })
        })
        .collect()
}

/// The addresses of the servers that are alive, by what `consul members` has printed; none where it is no such list.
pub(crate) fn alive(text: &str) -> Option<BTreeSet<String>> {
    let rows = rows(text, ["Address", "Status", "Type"])?;
    let alive = rows.filter(|[_, status, kind]| (*status, *kind) == ("alive", "server"));
    alive.map(|[address, ..]| address.rsplit_once(':').map(|(host, _)| host.to_owned())).collect()
}

/// These columns of a table whose words have no blanks in them, up to the last of these columns.
fn rows<'a, const N: usize>(text: &'a str, columns: [&str; N]) -> Option<impl Iterator<Item = [&'a str; N]>> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let head: Vec<&str> = lines.next()?.split_whitespace().collect();
    let mut places = [0; N];
    for (place, column) in places.iter_mut().zip(columns) {
        *place = head.iter().position(|word| *word == column)?;
    }
    Some(lines.map(move |line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        places.map(|place| words.get(place).copied().unwrap_or_default())
    }))
}

/// Why Consul cannot spare the server at `host` now; none where it can. More than half of all that vote have to be left
/// alive. `needed`: servers that have to vote, and be alive, beside that.
pub(crate) fn not_spared(
    peers: &[Peer],
    alive: &BTreeSet<String>,
    host: &str,
    needed: &[String],
) -> Option<String> {
    let votes = |host: &String| peers.iter().any(|peer| peer.votes && peer.host == *host);
    if let Some(down) = needed.iter().find(|host| !alive.contains(*host)) {
        return Some(format!(
            "the server {down} is to stay, and Consul does not see it alive: start Consul there, or see why it does not join"
        ));
    }
    if let Some(missing) = needed.iter().find(|host| !votes(host)) {
        return Some(format!("the server {missing} does not vote yet"));
    }
    let voters = peers.iter().filter(|peer| peer.votes).count();
    let left =
        peers.iter().filter(|peer| peer.votes && peer.host != host && alive.contains(&peer.host)).count();
    let majority = voters / 2 + 1;
    let lost = peers.iter().filter(|peer| peer.votes && peer.host != host && !alive.contains(&peer.host));
    let lost: Vec<&Peer> = lost.collect();
    (left < majority).then(|| {
        let lost = match lost.as_slice() {
            [] => String::new(),
            lost => format!(
                "; start Consul on {}, or take away what is lost for good: `consul {}` ({WITH_TOKENS})",
                lost.iter().map(|peer| peer.host.as_str()).collect::<Vec<_>>().join(", "),
                lost.iter().map(|peer| peer.removal()).collect::<Vec<_>>().join("`, `consul ")
            ),
        };
        format!("without {host} {left} of Consul's {voters} voting servers are alive, and {majority} are its quorum{lost}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list as Consul 1.8.7 prints it. Later ones print a column more.
    const PEERS: &str = "Node   ID                                    Address             State     Voter  RaftProtocol\n\
        nfs-1  2f8f0c9e-7f0e-5d0e-9a43-2c1d5d0b7a01  192.168.10.11:8300  leader    true   3\n\
        nfs-2  2f8f0c9e-7f0e-5d0e-9a43-2c1d5d0b7a02  192.168.10.12:8300  follower  true   3\n\
        (unknown)  2f8f0c9e-7f0e-5d0e-9a43-2c1d5d0b7a03  192.168.10.13:8300  follower  false  <=1\n";
    const MEMBERS: &str = "Node   Address             Status  Type    Build       Protocol  DC   Segment\n\
        nfs-1  192.168.10.11:8301  alive   server  1.8.7+dfsg1  2        dc1  <all>\n\
        nfs-2  192.168.10.12:8301  failed  server  1.8.7+dfsg1  2        dc1  <all>\n\
        nfs-4  192.168.10.14:8301  alive   client  1.8.7+dfsg1  2        dc1  <default>\n";

    fn peer(host: &str, votes: bool) -> Peer {
        Peer { host: host.into(), port: "8300".into(), votes }
    }

    fn hosts(hosts: &[&str]) -> Vec<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    #[test]
    fn what_consul_prints_is_read_and_anything_else_is_no_list() {
        let read = [("192.168.10.11", true), ("192.168.10.12", true), ("192.168.10.13", false)];
        assert_eq!(listed(PEERS), Some(read.map(|(host, votes)| peer(host, votes)).into()));
        let later = PEERS.replace("RaftProtocol", "RaftProtocol  Commit Index  Trails Leader By");
        assert_eq!(listed(&later), listed(PEERS));
        assert_eq!(
            alive(MEMBERS),
            Some(BTreeSet::from(["192.168.10.11".to_owned()])),
            "a client is no server"
        );
        for other in ["", "Error getting peers: No cluster leader", MEMBERS] {
            assert_eq!(listed(other), None, "{other}");
        }
        assert_eq!(alive(PEERS), None);
        assert_eq!(listed(&format!("{PEERS}broken off")), None);
        let cut = PEERS.replace("follower  true", "follower");
        assert_eq!(listed(&cut), None, "a row without its vote is no server without one");
    }

    #[test]
    fn an_agent_without_a_leader_is_told_from_one_that_was_not_asked() {
        let said = "Error getting peers: Failed to retrieve raft configuration: Unexpected response code: 500 (No cluster leader)";
        assert!(has_no_leader(said));
        for other in [
            "",
            "Error getting peers: Failed to retrieve raft configuration: Get \"http://127.0.0.1:8500/v1/operator/raft/configuration\": \
             dial tcp 127.0.0.1:8500: connect: connection refused",
            "Error getting peers: Failed to retrieve raft configuration: Unexpected response code: 403 (Permission denied)",
        ] {
            assert!(!has_no_leader(other), "{other}");
        }
    }

    #[test]
    fn a_server_is_spared_where_more_than_half_of_the_voters_stay_alive() {
        let not = |voters: &[&str], dead: &str, one: &str| {
            let peers: Vec<_> = voters.iter().map(|host| peer(host, true)).collect();
            let alive = voters.iter().filter(|host| **host != dead).map(|host| (*host).to_owned()).collect();
            not_spared(&peers, &alive, one, &[])
        };
        assert_eq!(not(&["a", "b", "c"], "", "a"), None);
        assert_eq!(not(&["a", "b", "c"], "a", "a"), None, "it has gone already");
        let said = "without a 1 of Consul's 3 voting servers are alive, and 2 are its quorum; start Consul on b, or take \
                    away what is lost for good: `consul operator raft remove-peer -address=b:8300` (with tokens add \
                    -token-file=/etc/zsha/management.token)";
        assert_eq!(not(&["a", "b", "c"], "b", "a").as_deref(), Some(said));
        assert_eq!(not(&["a", "b", "c", "d", "e"], "b", "a"), None);
        assert!(not(&["a", "b", "c", "d"], "b", "a").is_some(), "3 of 4 are a quorum, not 2");
        assert!(not(&["a", "b"], "", "a").is_some());
    }

    #[test]
    fn those_who_are_to_stay_have_to_vote_and_to_be_alive_first() {
        let peers = [peer("a", true), peer("b", true), peer("c", true), peer("d", false)];
        let all: BTreeSet<_> = hosts(&["a", "b", "c", "d"]).into_iter().collect();
        let needed =
            |needed: &[&str], alive: &BTreeSet<String>| not_spared(&peers, alive, "c", &hosts(needed));
        assert_eq!(needed(&["a", "b"], &all), None);
        let joins = Some("the server d does not vote yet".to_owned());
        assert_eq!(needed(&["a", "b", "d"], &all), joins);
        let without_b: BTreeSet<_> = hosts(&["a", "c"]).into_iter().collect();
        let down = needed(&["a", "b"], &without_b);
        assert!(down.as_deref().is_some_and(|why| why.starts_with("the server b is to stay")), "{down:?}");
    }
}
