//! What is asked of Consul on a node, by its own agent: that it follows a leader, that one server can be spared, and that
//! a node which is no server any more is counted as none.

use std::cell::RefCell;

use super::acl::ENVIRONMENT;
use super::layout;
use super::peers::{self, Peer};
use super::ssh::SshError;
use super::steps::OnRemote;
use super::waits::{CONSUL, SHORT, until};

/// Stands between the two lists of one look.
const BETWEEN: &str = "--- members";

impl OnRemote<'_> {
    /// Waits until the node's own agent follows a leader: a server as one that votes, a client as one that knows of any.
    pub(crate) async fn see_consul(&self) -> Result<(), SshError> {
        until(CONSUL, || async {
            let peers = self.peers().await?.unwrap_or_default();
            let seen = match self.is_server() {
                true => self.among(&peers).is_some_and(|peer| peer.votes),
                false => !peers.is_empty(),
            };
            Ok(seen.then_some(()))
        })
        .await
    }

    /// Waits until Consul keeps its quorum while this node's agent is down; and where that is to be a server no more, until
    /// all that are to stay vote.
    pub(crate) async fn see_spare(&self) -> Result<(), SshError> {
        let host = self.node.address.to_string();
        let servers = self.document.servers();
        let stay = servers.iter().filter(|_| !self.is_server()).map(|server| server.address.to_string());
        let stay: Vec<String> = stay.collect();
        let script =
            format!("{ENVIRONMENT}set -e\nconsul operator raft list-peers\necho '{BETWEEN}'\nconsul members");
        let why = RefCell::new("Consul has no leader there, or does not answer".to_owned());
        let seen = until(CONSUL, || async {
            let printed = self.remote.attempt(&script, &[], SHORT).await?;
            let text = printed.text();
            let lists = text.split_once(BETWEEN).filter(|_| printed.status == 0);
            let read = lists.and_then(|(all, members)| Some((peers::listed(all)?, peers::alive(members)?)));
            let Some((all, alive)) = read else { return Ok(None) };
            match peers::not_spared(&all, &alive, &host, &stay) {
                None => Ok(Some(())),
                Some(not) => {
                    why.replace(not);
                    Ok(None)
                }
            }
        });
        seen.await.map_err(|error| because(error, why.take()))
    }

    /// Takes a node whose agent is a client from Consul's servers, and what it has of their log from the disk: it would
    /// come back with it as one of long ago.
    pub(crate) async fn leave_peers(&self) -> Result<(), SshError> {
        let why = RefCell::new("Consul does not say whom it counts as a server".to_owned());
        let gone = until(CONSUL, || async {
            let Some(peers) = self.peers().await? else { return Ok(None) };
            let Some(Peer { host, port, .. }) = self.among(&peers) else { return Ok(Some(())) };
            let script = format!("{ENVIRONMENT}consul operator raft remove-peer -address={host}:{port}");
            let removed = self.remote.attempt(&script, &[], SHORT).await?;
            why.replace(format!("Consul counts it as a server still: {}", removed.stderr.trim()));
            Ok(None)
        });
        gone.await.map_err(|error| because(error, why.take()))?;
        let script = format!("rm -rf {}/raft", layout::CONSUL_DATA);
        self.remote.run(&script, &[], SHORT).await.map(drop)
    }

    /// Consul's servers; none where its agent does not say.
    async fn peers(&self) -> Result<Option<Vec<Peer>>, SshError> {
        let script = format!("{ENVIRONMENT}consul operator raft list-peers");
        let printed = self.remote.attempt(&script, &[], SHORT).await?;
        Ok(peers::listed(&printed.text()).filter(|_| printed.status == 0))
    }

    fn among<'p>(&self, peers: &'p [Peer]) -> Option<&'p Peer> {
        let host = self.node.address.to_string();
        peers.iter().find(|peer| peer.host == host)
    }

    fn is_server(&self) -> bool {
        self.document.is_server(&self.node.name)
    }
}

/// What was waited for in vain says why.
fn because(error: SshError, why: String) -> SshError {
    match error {
        SshError::TooLong(limit) => SshError::NotSo { limit, why },
        error => error,
    }
}
