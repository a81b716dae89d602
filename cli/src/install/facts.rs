//! What a node says of itself: one script, run there as root, and its answer as types. It reads and changes nothing.
//!
//! `answer` makes types of what the script printed.

pub(crate) mod abilities;
mod answer;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zsha_crds::HaCluster;

use super::acl::ENVIRONMENT;
use super::ceph::CephLogin;
use super::layout;
use super::peers::Peer;
use super::ssh::quoted;
pub(crate) use abilities::{Abilities, Barrier, Listener};
pub(crate) use answer::parse;

const SCRIPT: &str = include_str!("facts.sh");

/// Everything that is asked of a node before anything is done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) hostname: String,
    pub(crate) system: String,
    pub(crate) machine: String,
    /// 0: systemd is not there.
    pub(crate) systemd: u32,
    /// The version of libvirt's daemon; none where there is none.
    pub(crate) libvirt: Option<String>,
    pub(crate) qemu: Option<String>,
    /// The domain of libvirt's that has the VM's name, whosever it is. An error says why libvirt does not tell.
    pub(crate) domain: Result<Option<DomainFact>, String>,
    /// Everything that has the VM's disk there beside the domain of its name; the VM itself is among the processes.
    pub(crate) disk_users: Vec<DiskUser>,
    /// Seconds since 1970 by the node's clock.
    pub(crate) now: i64,
    /// When the node was asked, and when it had answered: seconds since 1970 by the clock here. The script may take long,
    /// and it is not known when in that time the node's clock was read. None: the answer came from nowhere.
    pub(crate) asked: Option<RangeInclusive<i64>>,
    /// True if something keeps its clock; none where it does not say.
    pub(crate) synchronized: Option<bool>,
    /// None where the image is in Ceph.
    pub(crate) image: Option<Image>,
    pub(crate) bridges: BTreeMap<String, Link>,
    pub(crate) abilities: Abilities,
    /// KiB by directory.
    pub(crate) free: BTreeMap<String, u64>,
    /// The files of ours that are there, by path.
    pub(crate) files: BTreeMap<String, FileFact>,
    pub(crate) units: BTreeMap<String, UnitFact>,
    pub(crate) consul: Option<ConsulProgram>,
    /// True if there is a process of that name.
    pub(crate) consul_runs: bool,
    /// What answers at Consul's address on the node itself; none where the node could not ask.
    pub(crate) consul_answers: Option<Answers>,
    pub(crate) consul_user: bool,
    /// Consul's servers, as its agent there knows them; none where it did not say.
    pub(crate) peers: Option<Vec<Peer>>,
    pub(crate) firewalls: Vec<Firewall>,
    pub(crate) installed: Option<Installed>,
    /// The text of the controller's settings.
    pub(crate) settings: Option<String>,
    /// None where the image is not in Ceph.
    pub(crate) ceph: Option<CephFacts>,
}

/// A domain of libvirt's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainFact {
    pub(crate) uuid: String,
    /// Its definition is on the disk, beside a process or without one.
    pub(crate) defined: bool,
    /// It is started when the host boots.
    pub(crate) autostart: bool,
}

/// A process or a domain that has the VM's disk, or may have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DiskUser {
    Process {
        pid: String,
        program: String,
        /// The UUID it was started with; empty where it was with none.
        uuid: String,
    },
    /// A domain of libvirt's of another name than the VM's.
    Domain { name: String, state: String },
    /// A domain of which libvirt does not say what disks it has, and why.
    Unknown(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Image {
    There,
    Missing,
    /// The share does not answer, or something that is no file is there.
    Unknown(String),
}

/// A node and Ceph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CephFacts {
    /// True if its QEMU can read images in Ceph; none where that was not found out.
    pub(crate) driver: Option<bool>,
    /// Why it cannot administer Ceph, where it cannot.
    pub(crate) no_admin: Option<String>,
    /// The image as an administrator sees it; none where the node is none.
    pub(crate) image: Option<Image>,
    /// True if a client that takes the image over shuts the one before it out, as an administrator sees it.
    pub(crate) locks: bool,
    /// True if the cluster's user may do what it needs, and no more, as an administrator sees it.
    pub(crate) caps_fit: bool,
    /// SHA-256 of the key that the cluster's user has there; none where there is no such user, or none was asked.
    pub(crate) key: Option<String>,
    /// SHA-256 of the key that its libvirt holds.
    pub(crate) held: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Yes,
    No,
    /// A device of this name, and no bridge.
    NoBridge,
    /// A bridge of Open vSwitch's.
    OpenVSwitch,
    Missing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileFact {
    /// Octal, as `stat` prints it.
    pub(crate) mode: String,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct UnitFact {
    pub(crate) load: String,
    pub(crate) active: String,
    pub(crate) enabled: String,
}

impl UnitFact {
    pub(crate) fn exists(&self) -> bool {
        self.load == "loaded" || self.load == "masked"
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active == "active"
    }

    /// True if it runs, is about to, or is to be started with the host.
    pub(crate) fn is_in_use(&self) -> bool {
        self.exists()
            && (matches!(self.active.as_str(), "active" | "activating" | "reloading" | "failed")
                || self.enabled.starts_with("enabled"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    Consul,
    /// Something that is no Consul.
    Other,
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsulProgram {
    pub(crate) path: String,
    pub(crate) version: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Firewall {
    Firewalld,
    Iptables,
    Nftables,
}

/// The things that install has made on a node, kept there: uninstall takes away these and no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Installed {
    pub(crate) cluster: String,
    pub(crate) node: String,
    /// The agent's unit, settings and data are ours.
    pub(crate) consul: bool,
    /// True if Consul's program is ours, too.
    pub(crate) consul_program: bool,
    pub(crate) consul_user: bool,
    pub(crate) acl: bool,
    pub(crate) masked_libvirt_guests: bool,
    /// libvirt was given a key of Ceph.
    #[serde(default)]
    pub(crate) ceph: bool,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Unread {
    #[error("the node's answer breaks off: it lacks '{0}'")]
    Lacks(&'static str),
    #[error("the node's answer has a line that means nothing: {0:?}")]
    Line(String),
    #[error("{0} there cannot be read: {1}")]
    File(&'static str, String),
}

/// The script for a cluster of this document, of which the nodes are to have these TCP ports.
pub(crate) fn script(document: &HaCluster, ports: &[u16]) -> String {
    let words = |words: Vec<&str>| quoted(&words.join(" "));
    let image = document.image_path().map(|path| path.display().to_string()).unwrap_or_default();
    let bridges = document.bridges_named();
    let ceph = CephLogin::of(document);
    let of_ceph = |word: fn(&CephLogin) -> String| quoted(&ceph.as_ref().map(word).unwrap_or_default());
    let disk = ceph.as_ref().map_or_else(|| image.clone(), CephLogin::image);
    format!(
        "DOMAIN={}\nIMAGE={}\nDISK={}\nBRIDGES={}\nPORTS={}\nFILES={}\nUNITS={}\nCEPH_CLIENT={}\nCEPH_SECRET={}\nCEPH_IMAGE={}\n\
         CEPH_CAPS={}\nCEPH_MONITORS={}\n{ENVIRONMENT}{SCRIPT}",
        quoted(document.vm().name.as_str()),
        quoted(&image),
        quoted(&disk),
        words(bridges.iter().map(String::as_str).collect()),
        words(ports.iter().map(u16::to_string).collect::<Vec<_>>().iter().map(String::as_str).collect()),
        words(layout::FILES.to_vec()),
        words(layout::UNITS_ASKED.to_vec()),
        of_ceph(CephLogin::client),
        of_ceph(|login| login.secret.to_string()),
        of_ceph(CephLogin::image),
        of_ceph(CephLogin::caps),
        of_ceph(|login| login.monitors.clone()),
    )
}

#[cfg(test)]
mod tests;
