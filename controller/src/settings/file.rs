//! The node's own file: its keys, and what is said about one that does not exist. Values that a flag can set too
//! stay text here and are checked with the flags' words. It never opens a file.

use std::path::PathBuf;

use serde::Deserialize;

use super::{FileText, Problem};

/// The way the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainType {
    Kvm,
    /// QEMU emulates them: slow, and everywhere.
    Qemu,
    /// KVM executes them where the node has it, else QEMU emulates them.
    #[default]
    Auto,
}

/// The file. Every key is optional.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileSettings {
    pub(super) cluster: Option<String>,
    pub(super) node: Option<String>,
    pub(super) consul: Option<Addresses>,
    pub(super) consul_token_file: Option<String>,
    pub(super) consul_ca_cert: Option<String>,
    pub(super) consul_client_cert: Option<String>,
    pub(super) consul_client_key: Option<String>,
    pub(super) consul_tls_server_name: Option<String>,
    pub(super) libvirt: Option<String>,
    pub(super) libvirt_log_directory: Option<String>,
    pub(super) listen: Option<String>,
    pub(super) run_dir: Option<String>,
    pub(super) state_dir: Option<String>,
    pub(super) log: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) log_directory: Option<String>,
    #[serde(rename = "logTotalMiB")]
    pub(super) log_total_mib: Option<u64>,
    pub(super) domain_type: Option<DomainType>,
    pub(super) unsafe_migration: Option<bool>,
    pub(super) migration_uri: Option<String>,
    pub(super) watchdog_device: Option<PathBuf>,
    pub(super) ceph_user: Option<String>,
    pub(super) ceph_secret: Option<String>,
    pub(super) ceph_config: Option<String>,
}

/// One address, several joined by commas as in the flag, or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "must be a URL or a list of URLs")]
pub(super) enum Addresses {
    Joined(String),
    List(Vec<String>),
}

impl Addresses {
    pub(super) fn joined(&self) -> String {
        match self {
            Self::Joined(text) => text.clone(),
            Self::List(urls) => urls.join(","),
        }
    }
}

pub(super) fn parse(file: &FileText) -> Result<FileSettings, Problem> {
    // A file of comments only is a null document.
    match serde_yaml::from_str::<Option<FileSettings>>(&file.text) {
        Ok(settings) => Ok(settings.unwrap_or_default()),
        Err(error) => Err(Problem::File {
            path: file.path.clone(),
            reason: error.to_string(),
            hint: "mend the file; what the cluster should be does not belong here but in the document: `zsha apply`"
                .to_owned(),
        }),
    }
}
