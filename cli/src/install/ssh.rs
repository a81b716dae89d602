//! The one edge to a node: a connection over SSH, and scripts run through it as root. It decides nothing.
//!
//! What is secret travels on a script's standard input or output, never in a command line, where every process of
//! the node can read it. Every script has a time limit. A host's key is checked against the operator's known_hosts.
//!
//! Only `session` and what is below it know the SSH library. A build without the feature `ssh` has `left_out` in its place,
//! which connects to nothing and says so.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

#[cfg(not(feature = "ssh"))]
mod left_out;
#[cfg(feature = "ssh")]
mod session;

#[cfg(not(feature = "ssh"))]
pub(crate) use left_out::Remote;
#[cfg(feature = "ssh")]
pub(crate) use session::Remote;

/// The time to be answered on TCP, to agree on keys, and to be let in.
const CONNECT: Duration = Duration::from_secs(20);
/// The most that a script may print before it is taken to have gone wrong, in bytes.
const MOST_OUTPUT: usize = 16 << 20;

/// Nothing is signed or checked with an RSA key here, since the one library for it has an open advisory: the time it takes
/// tells of the key (RUSTSEC-2023-0071). An agent signs by itself.
const RSA_KEYS: &str = "an RSA key is used only where an agent has it (`ssh-add`)";

/// The user and the proofs with which we come to the nodes, the same on each.
#[cfg_attr(not(feature = "ssh"), allow(dead_code, reason = "nobody is met"))]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) port: u16,
    pub(crate) password: Option<String>,
    /// Private keys to offer, before those of the agent.
    pub(crate) identities: Vec<PathBuf>,
    pub(crate) known_hosts: PathBuf,
    pub(crate) accept_new_host_keys: bool,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("port", &self.port).finish_non_exhaustive()
    }
}

/// An error of the SSH library, which not every build has.
type Source = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Error)]
#[cfg_attr(not(feature = "ssh"), allow(dead_code, reason = "nothing is met that is not tried"))]
pub(crate) enum SshError {
    #[error("{host} does not answer on port {port} within {} s", CONNECT.as_secs())]
    NoAnswer { host: String, port: u16 },
    #[error("its host key is not in {}", .file.display())]
    UnknownHost { file: PathBuf, fingerprint: String },
    #[error("its host key is another than in {}: somebody may be in between", .file.display())]
    ChangedHost { file: PathBuf, fingerprint: String },
    #[error("of its host keys only an RSA key is in {}, and zsha checks none of that kind", .file.display())]
    OnlyRsaKnown { host: String, port: u16, file: PathBuf },
    #[error("it agrees on no way to speak with zsha: {0}")]
    NothingInCommon(String),
    #[error("{} cannot be used", .file.display())]
    KnownHosts { file: PathBuf, source: Source },
    #[error("it does not let {user} in: {tried}")]
    Refused { user: String, tried: String },
    #[error("{user} may not become root there: {why}")]
    NotRoot { user: String, why: String },
    #[error("SSH failed: {0}")]
    Protocol(Source),
    #[error("not done within {} s", .0.as_secs())]
    TooLong(Duration),
    #[error("not so within {} s: {why}", .limit.as_secs())]
    NotSo { limit: Duration, why: String },
    #[error("{}", said(*.status, .stderr))]
    Script { status: u32, stderr: String },
    #[error("the connection was lost while it ran: whether it did its work is not known")]
    Lost,
    #[error("it printed more than {} MiB", MOST_OUTPUT >> 20)]
    TooMuch,
    #[cfg(not(feature = "ssh"))]
    #[error("this zsha was built without SSH, for `make run`")]
    LeftOut,
}

impl SshError {
    /// Says what to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::NoAnswer { .. } => Some("is sshd running there, and port 22 open? --ssh-port names another".into()),
            Self::UnknownHost { fingerprint, .. } => Some(format!(
                "compare its fingerprint {fingerprint} with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` there; \
                 --accept-new-host-keys then adds the keys of hosts seen for the first time"
            )),
            Self::ChangedHost { file, fingerprint } => Some(format!(
                "a host that was installed anew has a new key: compare {fingerprint} there, then remove the old line \
                 from {}",
                file.display()
            )),
            Self::OnlyRsaKnown { host, port, file } => Some(format!(
                "`ssh-keyscan -p {port} -t ed25519 {host} >> {}` adds its other key; compare that with `ssh-keygen -lf \
                 /etc/ssh/ssh_host_ed25519_key.pub` there",
                file.display()
            )),
            Self::NothingInCommon(_) => Some(
                "has its sshd only an RSA key? `ssh-keygen -A` there makes those of the other kinds, and sshd offers \
                 them once it is restarted"
                    .into(),
            ),
            Self::Refused { .. } => Some(format!(
                "give -p, --password-file or --password-stdin; or --identity FILE, or an agent (SSH_AUTH_SOCK); {RSA_KEYS}"
            )),
            Self::Protocol(_) | Self::Lost => Some(
                "does `ssh -v` get in there from here? What answers may be no sshd, or one that hangs up at once".into(),
            ),
            #[cfg(not(feature = "ssh"))]
            Self::LeftOut => Some("`cargo build --release -p zsha` builds it whole".into()),
            Self::NotRoot { .. } => Some("let that user use sudo, or give --user root".into()),
            _ => None,
        }
    }
}

fn said(status: u32, stderr: &str) -> String {
    match stderr.trim() {
        "" => format!("it ended with {status} and said nothing"),
        text => text.to_owned(),
    }
}

/// The end of a script, and what it has printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) status: u32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Printed {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Quotes a text as one word of a shell.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word_of_a_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
