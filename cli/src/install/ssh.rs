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
    NotRoot { user: String, why: WhyNotRoot },
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
            Self::NotRoot { user, why } => Some(why.hint(user)),
            _ => None,
        }
    }
}

/// Why a user has not root's rights there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(not(feature = "ssh"), allow(dead_code, reason = "nothing is met that is not tried"))]
pub(crate) enum WhyNotRoot {
    #[error("sudo asks for a password there, and none was given")]
    AsksForPassword,
    /// What sudo, or the shell in its place, has said.
    #[error("{0}")]
    Said(String),
}

impl WhyNotRoot {
    /// Reads what `sudo true` has said. None: it has done it.
    #[cfg_attr(not(feature = "ssh"), allow(dead_code, reason = "nothing is met that is not tried"))]
    pub(crate) fn of(printed: &Printed) -> Option<Self> {
        if printed.status == 0 {
            return None;
        }
        // A shell that lets nobody in says so on its output.
        let (errors, output) = (one_line(&printed.stderr), one_line(&printed.text()));
        Some(match (errors.as_str(), output.as_str()) {
            (errors, _) if errors.contains("a password is required") => Self::AsksForPassword,
            ("", "") => Self::Said(format!("`sudo true` ended with {} and said nothing", printed.status)),
            ("", output) => Self::Said(output.to_owned()),
            (errors, _) => Self::Said(errors.to_owned()),
        })
    }

    fn hint(&self, user: &str) -> String {
        let said = match self {
            Self::AsksForPassword => {
                return "give it: -p, --password-file or --password-stdin; or give --user root".into();
            }
            Self::Said(said) => said.as_str(),
        };
        let first = if said.contains("must have a tty") {
            format!(
                "`Defaults:{user} !requiretty` in a file below /etc/sudoers.d there lets sudo do without a terminal"
            )
        } else if said.contains("not found") || said.contains("No such file") {
            "install sudo there".to_owned()
        } else if said.contains("not in the sudoers file") || said.contains("not allowed to") {
            format!(
                "`{user} ALL=(root) NOPASSWD: ALL` in a file below /etc/sudoers.d there lets that user use sudo"
            )
        } else {
            "see that this user can type `sudo true` there".to_owned()
        };
        format!("{first}; or give --user root")
    }
}

/// The lines of a text in one, without what is only space.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
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

    fn sudo(status: u32, stderr: &str, stdout: &str) -> Option<WhyNotRoot> {
        WhyNotRoot::of(&Printed { status, stdout: stdout.as_bytes().to_vec(), stderr: stderr.to_owned() })
    }

    #[test]
    fn what_sudo_said_is_told_and_a_password_is_asked_for_only_where_sudo_asks_for_one() {
        assert_eq!(sudo(0, "", ""), None);
        assert_eq!(sudo(1, "sudo: a password is required\n", ""), Some(WhyNotRoot::AsksForPassword));
        for (stderr, stdout, told, hint) in [
            ("sudo: sorry, you must have a tty to run sudo\n", "", "you must have a tty", "!requiretty"),
            ("bash: line 1: sudo: command not found\n", "", "command not found", "install sudo"),
            ("env: 'sudo': No such file or directory\n", "", "No such file", "install sudo"),
            ("op is not in the sudoers file.\n", "", "not in the sudoers", "NOPASSWD"),
            (
                "Sorry, try again.\nsudo: 1 incorrect password attempt\n",
                "",
                "try again.; sudo: 1",
                "sudo true",
            ),
            ("", "This account is currently not available.\n", "not available", "sudo true"),
            ("", "", "said nothing", "sudo true"),
        ] {
            let why = sudo(1, stderr, stdout).unwrap();
            let error = SshError::NotRoot { user: "op".into(), why };
            let (text, way_out) = (error.to_string(), error.hint().unwrap());
            assert!(text.contains(told) && !text.contains('\n'), "{text}");
            assert!(way_out.contains(hint) && way_out.contains("--user root"), "{way_out}");
        }
    }

    #[test]
    fn a_word_stays_one_word_of_a_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
