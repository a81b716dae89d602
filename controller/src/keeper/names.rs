//! Names in the kernel's own list of sockets ("abstract" ones): they live with their process, need no disk, and cannot
//! be wiped. Any user of this host may take any of them, so a process that answers to a name is asked who it is.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use uuid::Uuid;

/// The time for an answer. The process that holds a name is on this host.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// The name of the keeper that works in this directory.
pub(super) fn keeper(directory: &Path) -> String {
    named("zsha-keeper", directory)
}

/// The name of the guard that a keeper of this directory has left behind.
pub(super) fn guard(directory: &Path) -> String {
    named("zsha-guard", directory)
}

/// Makes a name of a path, which may be longer than a name can be.
fn named(what: &str, directory: &Path) -> String {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, directory.as_os_str().as_encoded_bytes());
    format!("{what}-{}", digest.simple())
}

/// The process that listens under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its number. None in another PID namespace.
    pub(super) process: Option<i32>,
    pub(super) user: u32,
}

impl Holder {
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        Ok(Self { process: peer.pid(), user: peer.uid() })
    }

    /// True if the same user started it: for a real keeper, root.
    pub(super) fn is_ours(&self) -> bool {
        self.user == rustix::process::geteuid().as_raw()
    }
}

/// Connects to the process that listens under a name.
pub(super) async fn connect(name: &str) -> io::Result<UnixStream> {
    match tokio::time::timeout(ANSWER_WITHIN, UnixStream::connect(format!("\0{name}"))).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
pub(super) mod stranger;
