//! Settles one value after the other: where it is taken from, and what it must look like. It is pure; every problem is
//! collected, and none stops the rest from being checked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use uuid::Uuid;
use zsha_crds::InvalidName;
use zsha_runtime::store::consul::{self, Endpoint};

use super::file::{Addresses, FileSettings};
use super::{
    ConsulAccess, DEFAULT_CONSUL, DEFAULT_LIBVIRT, DEFAULT_LIBVIRT_LOGS, DEFAULT_LISTEN,
    DEFAULT_MIGRATION_URI, DEFAULT_RUN_DIR, DEFAULT_STATE_DIR, Environment, Flags, Origin, Problem, Settings,
    set,
};
use crate::hypervisor::domain_xml::CephLogin;
use crate::logs::{LogFileSettings, LogFormat, LogSettings};

/// The placeholder for a node's address in `migrationUri`.
const ADDRESS: &str = "{address}";

pub(super) struct Values<'a> {
    pub(super) environment: &'a Environment,
    pub(super) path: Option<PathBuf>,
    pub(super) problems: Vec<Problem>,
}

/// The ways by which one value may come: the flag's name and what it says, the variable's name, the key and what it
/// says.
struct Ways<'a> {
    flag: Option<(&'static str, &'a Option<String>)>,
    variable: &'static str,
    key: (&'static str, Option<&'a str>),
}

impl Values<'_> {
    /// The settings. None where something needed is missing; then there is a problem too.
    pub(super) fn settings(&mut self, flags: &Flags, file: &FileSettings) -> Option<Settings> {
        let cluster = self.needed(
            "cluster's name",
            Ways {
                flag: Some(("cluster", &flags.cluster)),
                variable: "ZSHA_CLUSTER",
                key: ("cluster", file.cluster.as_deref()),
            },
        );
        let node = self.needed(
            "node's name",
            Ways {
                flag: Some(("node", &flags.node)),
                variable: "ZSHA_NODE",
                key: ("node", file.node.as_deref()),
            },
        );
        let consul = self.consul(flags, file);
        let libvirt = self.libvirt(flags, file);
        let listen = self.listen(flags, file);
        let run_dir = self.run_dir(flags, file);
        let log = self.log(flags, file);
        let migration_uri = self.migration_uri(file);
        let state_dir = self.state_dir(file);
        let libvirt_logs = self.libvirt_logs(file);
        let ceph = self.ceph(file);
        Some(Settings {
            cluster: cluster?,
            node: node?,
            consul: consul?,
            libvirt: libvirt?,
            libvirt_logs: libvirt_logs?,
            listen: listen?,
            run_dir: run_dir?,
            state_dir: state_dir?,
            domain_type: file.domain_type.unwrap_or_default(),
            migration_uri: migration_uri?,
            unsafe_migration: file.unsafe_migration.unwrap_or(false),
            watchdog_device: file.watchdog_device.clone(),
            ceph: ceph?,
            log: log?,
        })
    }

    /// The URI of this node's libvirt.
    fn libvirt(&mut self, flags: &Flags, file: &FileSettings) -> Option<String> {
        self.text(
            Ways {
                flag: Some(("libvirt", &flags.libvirt)),
                variable: "ZSHA_LIBVIRT",
                key: ("libvirt", file.libvirt.as_deref()),
            },
            DEFAULT_LIBVIRT,
            libvirt_uri,
        )
    }

    /// The address that the page is served at.
    fn listen(&mut self, flags: &Flags, file: &FileSettings) -> Option<SocketAddr> {
        self.text(
            Ways {
                flag: Some(("listen", &flags.listen)),
                variable: "ZSHA_LISTEN",
                key: ("listen", file.listen.as_deref()),
            },
            DEFAULT_LISTEN,
            socket_address,
        )
    }

    /// The directory of the keepers of this host.
    fn run_dir(&mut self, flags: &Flags, file: &FileSettings) -> Option<PathBuf> {
        self.text(
            Ways {
                flag: Some(("run-dir", &flags.run_dir)),
                variable: "ZSHA_RUN_DIR",
                key: ("runDir", file.run_dir.as_deref()),
            },
            DEFAULT_RUN_DIR,
            absolute_path,
        )
    }

    /// The state directory. Only the file can set it.
    fn state_dir(&mut self, file: &FileSettings) -> Option<PathBuf> {
        let given = self.only_in_file("stateDir", file.state_dir.clone(), absolute_path)?;
        Some(given.unwrap_or_else(|| DEFAULT_STATE_DIR.into()))
    }

    /// The directory of libvirt's logs. Only the file can set it.
    fn libvirt_logs(&mut self, file: &FileSettings) -> Option<PathBuf> {
        let given =
            self.only_in_file("libvirtLogDirectory", file.libvirt_log_directory.clone(), absolute_path)?;
        Some(given.unwrap_or_else(|| DEFAULT_LIBVIRT_LOGS.into()))
    }

    /// The URI for migrations. Only the file can set it.
    fn migration_uri(&mut self, file: &FileSettings) -> Option<String> {
        let given = self.only_in_file("migrationUri", file.migration_uri.clone(), migration_uri)?;
        Some(given.unwrap_or_else(|| DEFAULT_MIGRATION_URI.to_owned()))
    }

    /// The login to Ceph. Only the file can set it, and both keys or neither.
    fn ceph(&mut self, file: &FileSettings) -> Option<Option<CephLogin>> {
        let user = self.only_in_file("cephUser", file.ceph_user.clone(), ceph_user);
        let secret = self.only_in_file("cephSecret", file.ceph_secret.clone(), secret);
        let config = self.only_in_file("cephConfig", file.ceph_config.clone(), absolute_path);
        let (user, secret, config) = (user?, secret?, config?);
        if user.is_some() != secret.is_some() {
            self.problems.push(Problem::Together {
                what: "of cephUser and cephSecret only one is set".to_owned(),
                hint: "set both: the Ceph user without 'client.', and the UUID of libvirt's secret that holds its key \
                       (`virsh secret-list`); or neither, where Ceph asks for no key"
                    .to_owned(),
            });
            return None;
        }
        Some(user.zip(secret).map(|(user, secret)| CephLogin { user, secret, config }))
    }

    fn consul(&mut self, flags: &Flags, file: &FileSettings) -> Option<ConsulAccess> {
        let in_file = file.consul.as_ref().map(Addresses::joined);
        let encrypted =
            set(self.environment, "CONSUL_HTTP_SSL").is_some_and(|value| value == "true" || value == "1");
        let endpoints = self.text(
            Ways {
                flag: Some(("consul", &flags.consul)),
                variable: "CONSUL_HTTP_ADDR",
                key: ("consul", in_file.as_deref()),
            },
            DEFAULT_CONSUL,
            |text| consul_endpoints(text, encrypted),
        );
        let token_file =
            self.path("CONSUL_HTTP_TOKEN_FILE", "consulTokenFile", file.consul_token_file.as_deref());
        if token_file.is_none() && set(self.environment, "CONSUL_HTTP_TOKEN").is_some() {
            self.problems.push(Problem::Together {
                what: "CONSUL_HTTP_TOKEN is set, and a token is not taken from the environment, where every process of \
                       the user can read it"
                    .to_owned(),
                hint: "write it to a file that only zsha may read and set CONSUL_HTTP_TOKEN_FILE to its path".to_owned(),
            });
        }
        let ca_cert = self.path("CONSUL_CACERT", "consulCaCert", file.consul_ca_cert.as_deref());
        let client_cert =
            self.path("CONSUL_CLIENT_CERT", "consulClientCert", file.consul_client_cert.as_deref());
        let client_key = self.path("CONSUL_CLIENT_KEY", "consulClientKey", file.consul_client_key.as_deref());
        if client_cert.is_some() != client_key.is_some() {
            self.problems.push(Problem::Together {
                what: "of Consul's client certificate and its key only one is set".to_owned(),
                hint: "set both of CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY, or neither".to_owned(),
            });
        }
        let said = self.said(&Ways {
            flag: None,
            variable: "CONSUL_TLS_SERVER_NAME",
            key: ("consulTlsServerName", file.consul_tls_server_name.as_deref()),
        });
        let tls_server_name = said.and_then(|(origin, given)| self.checked(origin, given, tls_name));
        for one in consul::not_obeyed(|name| set(self.environment, name).map(str::to_owned)) {
            self.problems.push(Problem::Together {
                what: format!("{} is set, {}", one.variable, one.why),
                hint: one.hint.to_owned(),
            });
        }
        Some(ConsulAccess {
            endpoints: endpoints?,
            token_file,
            ca_cert,
            client_cert,
            client_key,
            tls_server_name,
        })
    }

    fn log(&mut self, flags: &Flags, file: &FileSettings) -> Option<LogSettings> {
        let filter = self.text(
            Ways { flag: Some(("log", &flags.log)), variable: "RUST_LOG", key: ("log", file.log.as_deref()) },
            LogSettings::DEFAULT_FILTER,
            LogSettings::check_filter,
        );
        let format = self.text(
            Ways {
                flag: Some(("log-format", &flags.log_format)),
                variable: "ZSHA_LOG_FORMAT",
                key: ("logFormat", file.log_format.as_deref()),
            },
            "text",
            LogFormat::from_str,
        );
        let files = self.log_files(flags, file);
        Some(LogSettings { filter: filter?, format: format?, files: files? })
    }

    /// The log files. The outer None means that something is wrong, the inner one that no directory is named.
    fn log_files(&mut self, flags: &Flags, file: &FileSettings) -> Option<Option<LogFileSettings>> {
        let said = self.said(&Ways {
            flag: Some(("log-directory", &flags.log_directory)),
            variable: "ZSHA_LOG_DIRECTORY",
            key: ("logDirectory", file.log_directory.as_deref()),
        });
        let mib = file.log_total_mib.map(|mib| mib.to_string());
        let total = self.only_in_file("logTotalMiB", mib, LogFileSettings::total_of)?;
        let Some((origin, given)) = said else { return Some(None) };
        let mut files = LogFileSettings::new(self.checked(origin, given, absolute_path)?);
        files.total = total.unwrap_or(files.total);
        Some(Some(files))
    }

    /// The value that was given, by the way that has precedence.
    fn said(&self, ways: &Ways<'_>) -> Option<(Origin, String)> {
        if let Some((name, Some(value))) = ways.flag {
            return Some((Origin::Flag(name), value.clone()));
        }
        if let Some(value) = set(self.environment, ways.variable) {
            return Some((Origin::Environment(ways.variable), value.to_owned()));
        }
        let (key, value) = ways.key;
        let path = self.path.clone()?;
        Some((Origin::File { path, key }, value?.to_owned()))
    }

    /// A value that no flag and no variable sets. The outer None means that it is wrong, the inner one that it is not
    /// given.
    fn only_in_file<T>(
        &mut self,
        key: &'static str,
        given: Option<String>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match (self.path.clone(), given) {
            (Some(path), Some(given)) => self.checked(Origin::File { path, key }, given, check).map(Some),
            (None, _) | (_, None) => Some(None),
        }
    }

    fn checked<T>(
        &mut self,
        origin: Origin,
        given: String,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match check(&given) {
            Ok(value) => Some(value),
            Err(must) => {
                self.problems.push(Problem::Wrong { origin, given, must });
                None
            }
        }
    }

    fn text<T>(
        &mut self,
        ways: Ways<'_>,
        default: &str,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match self.said(&ways) {
            Some((origin, given)) => self.checked(origin, given, check),
            None => check(default).ok(),
        }
    }

    fn needed<T>(&mut self, what: &'static str, ways: Ways<'_>) -> Option<T>
    where
        T: FromStr<Err = InvalidName>,
    {
        match self.said(&ways) {
            Some((origin, given)) => self.checked(origin, given, |text| {
                text.parse().map_err(|name: InvalidName| name.must().to_owned())
            }),
            None => {
                let (key, _) = ways.key;
                let ways = format!(
                    "give --{key} NAME, set {} or write `{key}: NAME` in {}",
                    ways.variable,
                    super::DEFAULT_FILE
                );
                self.problems.push(Problem::Missing { what, ways });
                None
            }
        }
    }

    /// A path that no flag sets, and that may be left out.
    fn path(&mut self, variable: &'static str, key: &'static str, in_file: Option<&str>) -> Option<PathBuf> {
        let (origin, given) = self.said(&Ways { flag: None, variable, key: (key, in_file) })?;
        self.checked(origin, given, absolute_path)
    }
}

fn tls_name(text: &str) -> Result<consul::TlsName, String> {
    text.parse()
        .map_err(|_| "must be a name that Consul's certificate bears, such as 'server.dc1.consul'".to_owned())
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("must be an absolute path, such as '/run/zsha'".to_owned())
    }
}

fn ceph_user(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.chars().all(fits) && !text.starts_with("client.") {
        return Ok(text.to_owned());
    }
    Err("must be the name of a Ceph user without 'client.' before it, such as 'zsha'".to_owned())
}

fn secret(text: &str) -> Result<Uuid, String> {
    let must = "must be the UUID of a secret of libvirt's, as `virsh secret-list` shows it";
    Uuid::parse_str(text).map_err(|_| must.to_owned())
}

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "must be an IP address and a port, such as '127.0.0.1:7717', '[::1]:7717', or '0.0.0.0:7717' for every network"
            .to_owned()
    })
}

fn libvirt_uri(text: &str) -> Result<String, String> {
    match text.split_once(":/") {
        Some((scheme, _)) if scheme == "qemu" || scheme.starts_with("qemu+") => Ok(text.to_owned()),
        _ => Err("must be a libvirt URI of the QEMU driver, such as 'qemu:///system'".to_owned()),
    }
}

/// Checks `qemu+TRANSPORT://[USER@]{address}[:PORT]/PATH`. Without the placeholder every migration would go to one
/// host, and a URI that libvirt does not take would show only when the first migration is asked for.
fn migration_uri(text: &str) -> Result<String, String> {
    let leads_to_a_node = || {
        let (scheme, rest) = text.split_once("://")?;
        let transport = scheme.strip_prefix("qemu+")?;
        let (authority, path) = rest.split_once('/')?;
        let host = authority.rsplit('@').next()?;
        let port = match host.strip_prefix(ADDRESS)? {
            "" => true,
            port => port.strip_prefix(':')?.parse::<u16>().is_ok_and(|port| port > 0),
        };
        let plain = |c: char| c.is_ascii_graphic() && c != '{' && c != '}';
        let rest_is_plain = text.replacen(ADDRESS, "", 1).chars().all(plain);
        (port && rest_is_plain && !transport.is_empty() && !path.is_empty()).then_some(())
    };
    match leads_to_a_node() {
        Some(()) => Ok(text.to_owned()),
        None => Err(format!(
            "must be the libvirt URI of another node, with {ADDRESS} in the place of its address: \
             qemu+TRANSPORT://{ADDRESS}/system, such as '{DEFAULT_MIGRATION_URI}', which it is where this is left out"
        )),
    }
}

/// Reads endpoints as Consul's own tools take them: scheme and port may be left out.
fn consul_endpoints(text: &str, encrypted: bool) -> Result<Vec<Endpoint>, String> {
    let endpoint = |part: &str| {
        let plain = encrypted && !part.contains("://");
        let whole = if plain { format!("https://{part}") } else { part.to_owned() };
        whole
            .parse::<Endpoint>()
            .map_err(|error| format!("must be addresses of Consul joined by commas: {error}"))
    };
    text.split(',').map(|part| endpoint(part.trim())).collect()
}
