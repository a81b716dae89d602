//! Reads the settings of one node's processes at their start: flags, environment and the node's own file, in that order
//! of precedence. Each value is remembered with where it came from, so that an error can name the place.
//!
//! [`resolve`] is a plain function of those three; only [`read_file`] looks at the disk. Desired state is never here:
//! the document in Consul says what the cluster should be.

mod file;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use zsha_crds::{ClusterName, NodeName};
use zsha_runtime::store::consul::{self, Endpoint};

use crate::hypervisor::domain_xml::CephLogin;
use crate::keeper::process::{self, KeeperSettings};
use crate::logs::LogSettings;
pub use file::DomainType;
use file::FileSettings;
use values::Values;

/// The file that is read when none is named, and only if it is there.
pub const DEFAULT_FILE: &str = "/etc/zsha/controller.yaml";
pub const DEFAULT_CONSUL: &str = "http://127.0.0.1:8500";
pub const DEFAULT_LIBVIRT: &str = "qemu:///system";
/// The directory of the QEMU driver's logs; a distribution may have moved them.
pub const DEFAULT_LIBVIRT_LOGS: &str = "/var/log/libvirt/qemu";
/// The address is on loopback: the status names hosts and addresses, so an operator who wants it on the network says
/// so.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:7717";
pub const DEFAULT_MIGRATION_URI: &str = "qemu+tls://{address}/system";
pub const DEFAULT_RUN_DIR: &str = "/run/zsha";
pub const DEFAULT_STATE_DIR: &str = "/var/lib/zsha";

/// Everything `run` and `keeper` need to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub cluster: ClusterName,
    pub node: NodeName,
    pub consul: ConsulAccess,
    pub libvirt: String,
    /// The directory in which that libvirt writes how each of its domains ended.
    pub libvirt_logs: PathBuf,
    pub listen: SocketAddr,
    /// The directory for sockets and the keeper's memory of its last deadline.
    pub run_dir: PathBuf,
    /// The directory for the guest's seed disk. It has the same path on every node, or the VM cannot be moved live;
    /// QEMU's user must be able to read what is in it.
    pub state_dir: PathBuf,
    pub domain_type: DomainType,
    /// True for live migration between domains that share no storage lock, as the lab's do. Never in production.
    pub unsafe_migration: bool,
    /// Another node's libvirt as this one's reaches it; `{address}` stands for that node's.
    pub migration_uri: String,
    /// The watchdog that the keeper arms, where one is named; see [`Settings::for_keeper`].
    pub watchdog_device: Option<PathBuf>,
    /// The login of QEMU to Ceph, where the image is there. None: without a key.
    pub ceph: Option<CephLogin>,
    pub log: LogSettings,
}

impl Settings {
    /// The socket on which this cluster's keeper listens on this node.
    pub fn keeper_socket(&self) -> PathBuf {
        process::socket_path(&self.run_dir, &self.cluster)
    }

    /// The directory in which the keeper keeps what it remembers.
    pub fn keeper_directory(&self) -> PathBuf {
        process::directory(&self.run_dir, &self.cluster)
    }

    /// The path of the seed disk that tells this cluster's guest its configuration on this node.
    pub fn seed(&self) -> PathBuf {
        self.state_dir.join(self.cluster.as_str()).join("seed.img")
    }

    /// The settings of the keeper. This reads the token's file. A watchdog resets the machine when it is not petted, so
    /// only one that was named is armed.
    pub fn for_keeper(&self) -> Result<KeeperSettings, consul::ConnectError> {
        Ok(KeeperSettings {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            consul: self.consul.for_store()?,
            run_dir: self.run_dir.clone(),
            machine_id: PathBuf::from("/etc/machine-id"),
            boot_id: PathBuf::from("/proc/sys/kernel/random/boot_id"),
            watchdog: self.watchdog_device.clone(),
            libvirt_logs: self.libvirt_logs.clone(),
        })
    }
}

/// How Consul is reached: addresses and the names of files, none of them read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsulAccess {
    /// The endpoints, the local agent first. Never empty.
    pub endpoints: Vec<Endpoint>,
    pub token_file: Option<PathBuf>,
    pub ca_cert: Option<PathBuf>,
    /// The client's certificate. It is set together with `client_key`, or neither is.
    pub client_cert: Option<PathBuf>,
    pub client_key: Option<PathBuf>,
    /// The name that Consul's certificate bears, where that is another than the host's in its address.
    pub tls_server_name: Option<consul::TlsName>,
}

impl ConsulAccess {
    /// The settings of the store. This reads the token's file.
    pub fn for_store(&self) -> Result<consul::ConsulSettings, consul::ConnectError> {
        let identity = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => Some(consul::Identity { cert: cert.clone(), key: key.clone() }),
            _ => None,
        };
        let mut settings = consul::ConsulSettings::new(self.endpoints.clone());
        settings.token = self.token_file.as_deref().map(consul::Token::from_file).transpose()?;
        settings.tls =
            consul::Tls { ca: self.ca_cert.clone(), identity, server_name: self.tls_server_name.clone() };
        Ok(settings)
    }
}

/// The flags that `run` and `keeper` share. Unparsed: what is in them is checked beside what the environment and
/// the file say, with the same words.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// Cluster this node belongs to: `metadata.name` of its document [env: ZSHA_CLUSTER]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// This node, by the host name the document gives it [env: ZSHA_NODE]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Consul's HTTP addresses, the local agent first [env: CONSUL_HTTP_ADDR] [default: http://127.0.0.1:8500]
    #[arg(long, value_name = "URL[,URL...]")]
    pub consul: Option<String>,
    /// Libvirt's connection [env: ZSHA_LIBVIRT] [default: qemu:///system]
    #[arg(long, value_name = "URI")]
    pub libvirt: Option<String>,
    /// Address of the read-only page, status and metrics [env: ZSHA_LISTEN] [default: 127.0.0.1:7717]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// The node's own file [env: ZSHA_CONFIG] [default: /etc/zsha/controller.yaml where it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
    /// Directory for sockets and the keeper's state, gone after a reboot [env: ZSHA_RUN_DIR] [default: /run/zsha]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<String>,
    /// Log filter: a level, or `target=level` joined by commas [env: RUST_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Log format: text or json [env: ZSHA_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Directory for log files beside stderr, cut by day and size [env: ZSHA_LOG_DIRECTORY] [default: none]
    #[arg(long, value_name = "DIR")]
    pub log_directory: Option<String>,
}

pub type Environment = BTreeMap<String, String>;

/// Every variable that [`read_file`] or [`resolve`] looks at.
pub const VARIABLES: [&str; 23] = [
    "CONSUL_CACERT",
    "CONSUL_CAPATH",
    "CONSUL_CLIENT_CERT",
    "CONSUL_CLIENT_KEY",
    "CONSUL_GRPC_ADDR",
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_AUTH",
    "CONSUL_HTTP_SSL",
    "CONSUL_HTTP_SSL_VERIFY",
    "CONSUL_HTTP_TOKEN",
    "CONSUL_HTTP_TOKEN_FILE",
    "CONSUL_NAMESPACE",
    "CONSUL_PARTITION",
    "CONSUL_TLS_SERVER_NAME",
    "RUST_LOG",
    "ZSHA_CLUSTER",
    "ZSHA_CONFIG",
    "ZSHA_LIBVIRT",
    "ZSHA_LISTEN",
    "ZSHA_LOG_DIRECTORY",
    "ZSHA_LOG_FORMAT",
    "ZSHA_NODE",
    "ZSHA_RUN_DIR",
];

/// Takes those of [`VARIABLES`] from the variables of the process. The others may hold anything: they are not ours.
pub fn environment(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment, SettingsError> {
    let mut environment = Environment::new();
    let mut problems = Vec::new();
    for (name, value) in variables {
        let Some(name) = VARIABLES.into_iter().find(|ours| name == *ours) else { continue };
        match value.into_string() {
            Ok(value) => {
                environment.insert(name.to_owned(), value);
            }
            Err(value) => problems.push(not_text(name, &value)),
        }
    }
    if problems.is_empty() { Ok(environment) } else { Err(SettingsError { problems }) }
}

fn not_text(name: &'static str, value: &OsStr) -> Problem {
    // The bytes of a token are nobody's business.
    let given = if name == "CONSUL_HTTP_TOKEN" { "***".to_owned() } else { value.display().to_string() };
    Problem::Wrong { origin: Origin::Environment(name), given, must: "must be UTF-8 text".to_owned() }
}

/// The node's file as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    pub path: PathBuf,
    pub text: String,
}

/// The origin of a value, in words an operator can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Flag(&'static str),
    Environment(&'static str),
    File { path: PathBuf, key: &'static str },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "--{name}"),
            Self::Environment(name) => write!(f, "{name} in the environment"),
            Self::File { path, key } => write!(f, "`{key}` in {}", path.display()),
        }
    }
}

/// Everything that is wrong, not only the first problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError {
    pub problems: Vec<Problem>,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            write!(f, "error: {problem}")?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    Missing {
        what: &'static str,
        ways: String,
    },
    /// A value is wrong. `must` says what is allowed.
    Wrong {
        origin: Origin,
        given: String,
        must: String,
    },
    /// The file as a whole is wrong: it is not readable, is not YAML, or has a key that does not exist.
    File {
        path: PathBuf,
        reason: String,
        hint: String,
    },
    /// Settings do not go together.
    Together {
        what: String,
        hint: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { what, ways } => write!(f, "the {what} is not set\n  hint: {ways}"),
            Self::Wrong { origin, given, must } => write!(f, "{origin}: '{given}' {must}"),
            Self::File { path, reason, hint } => write!(f, "{}: {reason}\n  hint: {hint}", path.display()),
            Self::Together { what, hint } => write!(f, "{what}\n  hint: {hint}"),
        }
    }
}

/// Reads the file named by flag or environment, or the default one where it exists.
pub fn read_file(flags: &Flags, environment: &Environment) -> Result<Option<FileText>, SettingsError> {
    let named = flags.config.as_deref().or_else(|| set(environment, "ZSHA_CONFIG"));
    let path = Path::new(named.unwrap_or(DEFAULT_FILE)).to_owned();
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(FileText { path, text })),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SettingsError {
            problems: vec![Problem::File {
                path,
                reason: format!("cannot be read: {error}"),
                hint: "name another file with --config, or leave it out: every key has a flag or a default"
                    .to_owned(),
            }],
        }),
    }
}

/// The value of a variable. An empty variable counts as unset.
fn set<'a>(environment: &'a Environment, name: &str) -> Option<&'a str> {
    debug_assert!(VARIABLES.contains(&name), "{name} is not among the variables that are taken");
    environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// The settings, or everything that is wrong with them.
pub fn resolve(
    flags: &Flags,
    environment: &Environment,
    file: Option<&FileText>,
) -> Result<Settings, SettingsError> {
    let mut problems = Vec::new();
    let from_file = file.map_or_else(FileSettings::default, |file| {
        file::parse(file).unwrap_or_else(|problem| {
            problems.push(problem);
            FileSettings::default()
        })
    });
    let mut values = Values { environment, path: file.map(|file| file.path.clone()), problems };
    let settings = values.settings(flags, &from_file);
    match settings {
        Some(settings) if values.problems.is_empty() => Ok(settings),
        _ => Err(SettingsError { problems: values.problems }),
    }
}
