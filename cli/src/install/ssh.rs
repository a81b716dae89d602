//! The one edge to a node: a connection over SSH, and scripts run through it as root. It decides nothing.
//!
//! What is secret travels on a script's standard input or output, never in a command line, where every process of
//! the node can read it. Every script has a time limit. A host's key is checked against the operator's known_hosts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::ChannelMsg;
use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse as Asked};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::known_hosts::{known_host_keys_path, learn_known_hosts_path};
use russh::keys::{
    Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key,
};
use thiserror::Error;

/// To be answered on TCP, to agree on keys, to be let in.
const CONNECT: Duration = Duration::from_secs(20);
/// What a script may print before it is taken to have gone wrong.
const MOST_OUTPUT: usize = 16 << 20;

/// Nothing is signed or checked with an RSA key here, since the one library for it has an open advisory: the time it takes
/// tells of the key (RUSTSEC-2023-0071). An agent signs by itself.
const RSA_KEYS: &str = "an RSA key is used only where an agent has it (`ssh-add`)";

/// Who we are to the nodes, the same on each.
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

#[derive(Debug, Error)]
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
    NothingInCommon(russh::Error),
    #[error("{} cannot be used", .file.display())]
    KnownHosts { file: PathBuf, source: russh::keys::Error },
    #[error("it does not let {user} in: {tried}")]
    Refused { user: String, tried: String },
    #[error("{user} may not become root there: {why}")]
    NotRoot { user: String, why: String },
    #[error("SSH failed: {0}")]
    Protocol(#[from] russh::Error),
    #[error("not done within {} s", .0.as_secs())]
    TooLong(Duration),
    #[error("{}", said(*.status, .stderr))]
    Script { status: u32, stderr: String },
    #[error("the connection was lost while it ran: whether it did its work is not known")]
    Lost,
    #[error("it printed more than {} MiB", MOST_OUTPUT >> 20)]
    TooMuch,
}

impl SshError {
    /// What to do about it.
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

/// How root's rights are had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    Root,
    Sudo,
    SudoWithPassword,
}

pub(crate) struct Remote {
    handle: Handle<HostKey>,
    rights: Rights,
    password: Option<String>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("rights", &self.rights).finish_non_exhaustive()
    }
}

/// What a script has printed.
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

impl Remote {
    pub(crate) async fn connect(host: &str, login: &Login) -> Result<Self, SshError> {
        let no_answer = || SshError::NoAnswer { host: host.to_owned(), port: login.port };
        match tokio::time::timeout(CONNECT, Self::reach(host, login)).await {
            Ok(Err(SshError::Protocol(russh::Error::IO(_) | russh::Error::ConnectionTimeout))) => {
                Err(no_answer())
            }
            Ok(Err(SshError::Protocol(error @ russh::Error::NoCommonAlgo { .. }))) => {
                Err(SshError::NothingInCommon(error))
            }
            Ok(done) => done,
            Err(_) => Err(no_answer()),
        }
    }

    async fn reach(host: &str, login: &Login) -> Result<Self, SshError> {
        let check = HostKey::of(host, login)?;
        let mut config = client::Config {
            // A node that dies in the middle is noticed, and not waited for to the end of the script's own limit.
            keepalive_interval: Some(Duration::from_secs(5)),
            nodelay: true,
            ..client::Config::default()
        };
        config.preferred.key = check.kinds(&config.preferred.key)?.into();
        let mut handle = client::connect(Arc::new(config), (host, login.port), check).await?;
        authenticate(&mut handle, login).await?;
        let mut remote = Self { handle, rights: Rights::Root, password: login.password.clone() };
        remote.rights = remote.rights_of(&login.user).await?;
        Ok(remote)
    }

    async fn rights_of(&self, user: &str) -> Result<Rights, SshError> {
        if user == "root" || self.raw("id -u", &[], CONNECT).await?.text().trim() == "0" {
            return Ok(Rights::Root);
        }
        if self.raw("sudo -n true", &[], CONNECT).await?.status == 0 {
            return Ok(Rights::Sudo);
        }
        let not_root = |why: String| SshError::NotRoot { user: user.to_owned(), why };
        let Some(password) = &self.password else {
            return Err(not_root("sudo asks for a password there, and none was given".into()));
        };
        let tried = self.raw("sudo -k -S -p '' true", format!("{password}\n").as_bytes(), CONNECT).await?;
        if tried.status == 0 { Ok(Rights::SudoWithPassword) } else { Err(not_root(tried.stderr)) }
    }

    /// Runs a script as root to its end; it must succeed.
    pub(crate) async fn run(&self, script: &str, input: &[u8], limit: Duration) -> Result<Printed, SshError> {
        let printed = self.attempt(script, input, limit).await?;
        if printed.status == 0 {
            return Ok(printed);
        }
        Err(SshError::Script { status: printed.status, stderr: printed.stderr })
    }

    /// Runs a script as root to its end, however that is. `script` is seen by every process of the node.
    pub(crate) async fn attempt(
        &self,
        script: &str,
        input: &[u8],
        limit: Duration,
    ) -> Result<Printed, SshError> {
        let whole = format!(
            "export LC_ALL=C PATH=\"$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin\"\n{script}"
        );
        let shell = format!("sh -c {}", quoted(&whole));
        match (self.rights, &self.password) {
            (Rights::SudoWithPassword, Some(password)) => {
                // Never from sudo's memory of an earlier password: it reads this line, and the script what follows.
                let input = [password.as_bytes(), b"\n", input].concat();
                self.raw(&format!("sudo -k -S -p '' {shell}"), &input, limit).await
            }
            (Rights::Sudo, _) => self.raw(&format!("sudo -n {shell}"), input, limit).await,
            (Rights::Root | Rights::SudoWithPassword, _) => self.raw(&shell, input, limit).await,
        }
    }

    async fn raw(&self, command: &str, input: &[u8], limit: Duration) -> Result<Printed, SshError> {
        tokio::time::timeout(limit, self.unlimited(command, input))
            .await
            .unwrap_or(Err(SshError::TooLong(limit)))
    }

    async fn unlimited(&self, command: &str, input: &[u8]) -> Result<Printed, SshError> {
        let channel = self.handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        let (mut heard, to) = channel.split();
        let mut say = Box::pin(async {
            // Whoever ends without reading its input is judged by its exit status, and not by this.
            if to.data(input).await.is_ok() {
                let _ = to.eof().await;
            }
        });
        let (mut said_all, mut status) = (false, None);
        let mut printed = Printed { status: 0, stdout: Vec::new(), stderr: String::new() };
        loop {
            let message = tokio::select! {
                biased;
                message = heard.wait() => message,
                () = &mut say, if !said_all => {
                    said_all = true;
                    continue;
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => printed.stdout.extend_from_slice(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    printed.stderr.push_str(&String::from_utf8_lossy(&data));
                }
                Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                Some(ChannelMsg::Close) | None => break,
                Some(_) => {}
            }
            if printed.stdout.len() + printed.stderr.len() > MOST_OUTPUT {
                return Err(SshError::TooMuch);
            }
        }
        // Without one it was killed by a signal, or the connection is gone.
        printed.status = status.ok_or(SshError::Lost)?;
        Ok(printed)
    }
}

/// As one word of a shell.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

// --- the host's key

/// Checks the key that a host shows.
struct HostKey {
    host: String,
    port: u16,
    file: PathBuf,
    recorded: Vec<PublicKey>,
    accept_new: bool,
}

impl HostKey {
    fn of(host: &str, login: &Login) -> Result<Self, SshError> {
        let file = login.known_hosts.clone();
        let recorded = recorded(host, login.port, &file)?;
        Ok(Self {
            host: host.to_owned(),
            port: login.port,
            file,
            recorded,
            accept_new: login.accept_new_host_keys,
        })
    }

    /// The kinds of key that the host is to show: one that has several keys is asked for one that is known.
    fn kinds(&self, all: &[Algorithm]) -> Result<Vec<Algorithm>, SshError> {
        let checked: Vec<Algorithm> = all.iter().filter(|kind| !(*kind).clone().is_rsa()).cloned().collect();
        if self.recorded.is_empty() {
            return Ok(checked);
        }
        if self.recorded.iter().all(|key| key.algorithm().is_rsa()) {
            let (host, file) = (self.host.clone(), self.file.clone());
            return Err(SshError::OnlyRsaKnown { host, port: self.port, file });
        }
        let is_known = |kind: &&Algorithm| self.recorded.iter().any(|key| key.algorithm() == **kind);
        Ok(checked.iter().filter(is_known).cloned().collect())
    }
}

fn recorded(host: &str, port: u16, file: &Path) -> Result<Vec<PublicKey>, SshError> {
    let unusable = |source| SshError::KnownHosts { file: file.to_owned(), source };
    // The library takes a file that it may not read for one that names nobody.
    if let Err(error) = std::fs::File::open(file)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(unusable(error.into()));
    }
    let keys = known_host_keys_path(host, port, file).map_err(unusable)?;
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}

impl client::Handler for HostKey {
    type Error = SshError;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, SshError> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let fingerprint = key.fingerprint(russh::keys::HashAlg::Sha256).to_string();
        let file = self.file.clone();
        if self.recorded.iter().any(|known| known.key_data() == key.key_data()) {
            return Ok(true);
        }
        // A known host with a key of another kind is not a new host.
        if !self.recorded.is_empty() {
            return Err(SshError::ChangedHost { file, fingerprint });
        }
        if !self.accept_new {
            return Err(SshError::UnknownHost { file, fingerprint });
        }
        learn_known_hosts_path(&self.host, self.port, key, &file)
            .map_err(|source| SshError::KnownHosts { file, source })?;
        Ok(true)
    }
}

// --- being let in

async fn authenticate(handle: &mut Handle<HostKey>, login: &Login) -> Result<(), SshError> {
    let mut tried = Vec::new();
    if let Some(password) = &login.password {
        if handle.authenticate_password(&login.user, password).await?.success()
            || by_questions(handle, &login.user, password).await?
        {
            return Ok(());
        }
        tried.push("password".to_owned());
    } else {
        for file in &login.identities {
            match private_key(file) {
                Ok(key) => {
                    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
                    if handle.authenticate_publickey(&login.user, key).await?.success() {
                        return Ok(());
                    }
                    tried.push(format!("key {}", file.display()));
                }
                Err(why) => tried.push(format!("key {} {why}", file.display())),
            }
        }
        match by_agent(handle, &login.user).await? {
            Agent::LetIn => return Ok(()),
            Agent::Refused(keys) => tried.push(format!("{keys} keys of the agent")),
            Agent::None => tried.push("no agent".to_owned()),
        }
    }
    Err(SshError::Refused { user: login.user.clone(), tried: tried.join(", ") })
}

/// A key that can be signed with here; or why there is none.
fn private_key(file: &Path) -> Result<PrivateKey, String> {
    let rsa = || "not offered, being an RSA key".to_owned();
    match load_secret_key(file, None) {
        Ok(key) if key.algorithm().is_rsa() => Err(rsa()),
        Ok(key) => Ok(key),
        Err(russh::keys::Error::UnsupportedKeyType { key_type_string, .. }) if key_type_string == "RSA" => {
            Err(rsa())
        }
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

/// Some servers take a password only as the answer to a question.
async fn by_questions(handle: &mut Handle<HostKey>, user: &str, password: &str) -> Result<bool, SshError> {
    /// A server that goes on asking wants something else.
    const MOST_ROUNDS: usize = 4;
    let mut asked = handle.authenticate_keyboard_interactive_start(user, None).await?;
    for _ in 0..MOST_ROUNDS {
        match asked {
            Asked::Success => return Ok(true),
            Asked::Failure { .. } => return Ok(false),
            Asked::InfoRequest { prompts, .. } => {
                let answers = prompts.iter().map(|_| password.to_owned()).collect();
                asked = handle.authenticate_keyboard_interactive_respond(answers).await?;
            }
        }
    }
    Ok(false)
}

enum Agent {
    LetIn,
    Refused(usize),
    None,
}

async fn by_agent(handle: &mut Handle<HostKey>, user: &str) -> Result<Agent, SshError> {
    let Ok(mut agent) = AgentClient::connect_env().await else { return Ok(Agent::None) };
    let Ok(identities) = agent.request_identities().await else { return Ok(Agent::None) };
    let hash = handle.best_supported_rsa_hash().await?.flatten();
    let mut offered = 0;
    for identity in identities {
        let AgentIdentity::PublicKey { key, .. } = identity else { continue };
        offered += 1;
        let hash = if key.algorithm().is_rsa() { hash } else { None };
        let done = handle.authenticate_publickey_with(user, key, hash, &mut agent).await;
        // An agent that will not sign with one key may with the next.
        if matches!(done, Ok(AuthResult::Success)) {
            return Ok(Agent::LetIn);
        }
    }
    Ok(Agent::Refused(offered))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn key(base64: &str) -> PublicKeyOrCertificate {
        let key = russh::keys::parse_public_key_base64(base64).unwrap();
        PublicKeyOrCertificate::PublicKey { key, hash_alg: None }
    }

    fn login(file: &Path, accept_new_host_keys: bool) -> Login {
        Login {
            user: "root".into(),
            port: 22,
            password: None,
            identities: Vec::new(),
            known_hosts: file.to_owned(),
            accept_new_host_keys,
        }
    }

    async fn shown(host: &str, base64: &str, login: &Login) -> Result<bool, SshError> {
        use client::Handler;
        HostKey::of(host, login)?.check_server_key(&key(base64)).await
    }

    #[tokio::test]
    async fn a_host_is_taken_by_its_key_and_a_new_one_only_where_that_was_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ssh/known_hosts");
        let unknown = shown("10.0.0.1", ED, &login(&file, false)).await;
        assert!(matches!(unknown, Err(SshError::UnknownHost { .. })), "{unknown:?}");
        assert!(!file.exists(), "nothing is learnt by a refusal");
        assert!(shown("10.0.0.1", ED, &login(&file, true)).await.unwrap());
        assert!(shown("10.0.0.1", ED, &login(&file, false)).await.unwrap(), "it was learnt");
        let changed = shown("10.0.0.1", OTHER, &login(&file, true)).await;
        assert!(
            matches!(changed, Err(SshError::ChangedHost { .. })),
            "not by --accept-new-host-keys: {changed:?}"
        );
        let another = shown("10.0.0.2", ED, &login(&file, false)).await;
        assert!(matches!(another, Err(SshError::UnknownHost { .. })), "{another:?}");
    }

    #[tokio::test]
    async fn a_host_of_which_only_an_rsa_key_is_known_is_said_to_be_one_and_another_is_asked_for_no_such_key()
    {
        const RSA: &str = "AAAAB3NzaC1yc2EAAAADAQABAAABAQCuPQpxR/nEcxYYWkj+WyhMKpT0FRjJWBOjv77tj+aSL4Vf1jyXkPKaH2Fob5zWA0ha87T4wu9gTpEQ63hyYtHmoBwoWJdxuzQKDz0vObsYDyzNpjfPF9IOAG/nBhV1q2YCwyJsj5bMZsGuTCKhZbd8If2m9p3zVk1izB/OoWm9lPIdaJVScw5l1QzEfqcEvfKKy6ES+lI6GT4Q+686VeZIxgZEoWsHhk7SpnwkICkqg7Xs3/r+S5KoIbD2MemERk8JPOZSZYKefozTRNr8Yaxw7n5USwpXXUz7PsQUkZfN2L25TsvIhfX1yYOxFcIbjzVS1LBQ/UMzLZUR2nbI/H5B";
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        let kinds = |lines: &str| {
            std::fs::write(&file, lines).unwrap();
            HostKey::of("10.0.0.1", &login(&file, false)).unwrap().kinds(&russh::Preferred::DEFAULT.key)
        };
        let of_a_new_host = kinds("").unwrap();
        assert!(of_a_new_host.contains(&Algorithm::Ed25519));
        assert!(!of_a_new_host.iter().any(|kind| kind.clone().is_rsa()));
        let rsa = format!("10.0.0.1 ssh-rsa {RSA}\n");
        let only_rsa = kinds(&rsa).unwrap_err();
        assert!(matches!(only_rsa, SshError::OnlyRsaKnown { .. }), "{only_rsa:?}");
        assert!(only_rsa.hint().unwrap().contains("ssh-keyscan -p 22 -t ed25519 10.0.0.1 >> "));
        assert_eq!(kinds(&format!("{rsa}10.0.0.1 ssh-ed25519 {ED}\n")).unwrap(), [Algorithm::Ed25519]);
    }

    #[test]
    fn an_rsa_key_in_a_file_is_said_to_be_one() {
        let dir = tempfile::tempdir().unwrap();
        for (file, form) in [("id_rsa", "RFC4716"), ("old_rsa", "PEM")] {
            let file = dir.path().join(file);
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-m", form, "-f"])
                .arg(&file)
                .status()
                .expect("ssh-keygen is there: `make setup` brings it");
            assert!(made.success());
            assert_eq!(private_key(&file).unwrap_err(), "not offered, being an RSA key", "{form}");
        }
    }

    #[test]
    fn a_word_stays_one_word_of_a_shell() {
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }
}
