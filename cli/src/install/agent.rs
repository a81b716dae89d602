//! What is asked of Consul on a node, by its own agent: that it follows a leader, that one server can be spared, and that
//! a node which is no server any more is counted as none.

use std::cell::{Cell, RefCell};

use super::acl::ENVIRONMENT;
use super::peers::{self, Peer};
use super::ssh::SshError;
use super::steps::OnRemote;
use super::waits::{CONSUL, SHORT, until};

/// Stands between the two lists of one look.
const BETWEEN: &str = "--- members";

impl OnRemote<'_> {
    /// Waits until the node's own agent follows a leader: a server as one that votes, a client as one that knows of any.
    pub(crate) async fn see_consul(&self) -> Result<(), SshError> {
        let why = RefCell::new(String::new());
        let seen = until(CONSUL, || async {
            let Some(peers) = self.peers(&why).await? else { return Ok(None) };
            why.replace("it does not vote yet".to_owned());
            let seen = match self.is_server() {
                true => self.among(&peers).is_some_and(|peer| peer.votes),
                false => !peers.is_empty(),
            };
            Ok(seen.then_some(()))
        });
        seen.await.map_err(|error| because(error, why.take()))
    }

    /// Waits until Consul keeps its quorum while this node's agent is down; and where that is to be a server no more, until
    /// all that are to stay vote. An agent that follows no leader all that time is no part of a quorum, and nothing is lost
    /// with it.
    pub(crate) async fn see_spare(&self) -> Result<(), SshError> {
        let host = self.node.address.to_string();
        let servers = self.document.servers();
        let stay = servers.iter().filter(|_| !self.is_server()).map(|server| server.address.to_string());
        let stay: Vec<String> = stay.collect();
        let script =
            format!("{ENVIRONMENT}set -e\nconsul operator raft list-peers\necho '{BETWEEN}'\nconsul members");
        let (why, leaderless) = (RefCell::new(String::new()), Cell::new(None));
        let seen = until(CONSUL, || async {
            let printed = self.remote.attempt(&script, &[], SHORT).await?;
            let text = printed.text();
            let lists = text.split_once(BETWEEN).filter(|_| printed.status == 0);
            let read = lists.and_then(|(all, members)| Some((peers::listed(all)?, peers::alive(members)?)));
            let Some((all, alive)) = read else {
                let alone = peers::has_no_leader(&printed.stderr);
                leaderless.set(Some(alone && leaderless.get().unwrap_or(true)));
                why.replace(not_said(&printed.stderr));
                return Ok(None);
            };
            leaderless.set(Some(false));
            match peers::not_spared(&all, &alive, &host, &stay) {
                None => Ok(Some(())),
                Some(not) => {
                    why.replace(not);
                    Ok(None)
                }
            }
        });
        match seen.await {
            Err(SshError::TooLong(_)) if leaderless.get() == Some(true) => Ok(()),
            seen => seen.map_err(|error| because(error, why.take())),
        }
    }

    /// Takes a node whose agent is a client from Consul's servers. What it has of their log stays until it is to be one
    /// again.
    pub(crate) async fn leave_peers(&self) -> Result<(), SshError> {
        let why = RefCell::new(String::new());
        let gone = until(CONSUL, || async {
            let Some(peers) = self.peers(&why).await? else { return Ok(None) };
            let Some(peer) = self.among(&peers) else { return Ok(Some(())) };
            let script = format!("{ENVIRONMENT}consul {}", peer.removal());
            let removed = self.remote.attempt(&script, &[], SHORT).await?;
            why.replace(format!("Consul counts it as a server still: {}", removed.stderr.trim()));
            Ok(None)
        });
        gone.await.map_err(|error| because(error, why.take()))
    }

    /// Consul's servers. None where its agent does not say, and then `why` is what it said instead.
    async fn peers(&self, why: &RefCell<String>) -> Result<Option<Vec<Peer>>, SshError> {
        let script = format!("{ENVIRONMENT}consul operator raft list-peers");
        let printed = self.remote.attempt(&script, &[], SHORT).await?;
        let peers = peers::listed(&printed.text()).filter(|_| printed.status == 0);
        if peers.is_none() {
            why.replace(not_said(&printed.stderr));
        }
        Ok(peers)
    }

    fn among<'p>(&self, peers: &'p [Peer]) -> Option<&'p Peer> {
        let host = self.node.address.to_string();
        peers.iter().find(|peer| peer.host == host)
    }

    fn is_server(&self) -> bool {
        self.document.is_server(&self.node.name)
    }
}

fn not_said(stderr: &str) -> String {
    format!("Consul's agent there does not say whom it counts as a server: {}", stderr.trim())
}

/// Turns a wait that was in vain into the reason why, where a look gave one.
fn because(error: SshError, why: String) -> SshError {
    match error {
        SshError::TooLong(limit) if !why.is_empty() => SshError::NotSo { limit, why },
        error => error,
    }
}
