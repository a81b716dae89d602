//! The host around the hypervisor, for the controller: bridges, mounts, the image, the guest's seed disk. It looks,
//! mounts what was decided, and puts the seed disk in its place; it decides nothing.
//!
//! What every implementation promises (one suite of contract tests runs on all of them):
//!
//! - [`Host::look`] answers every question it was asked and no other, and changes nothing. It always returns within a
//!   bounded time, whatever hangs below a mount. A thing that could not be looked at is [`Observed::Unknown`] with a
//!   reason, never "absent", and hides no other.
//! - Storage that does not answer is a fact of its own (`NotAnswering`), and evidence: a look at it ran and hangs, or
//!   was told an error by the storage itself. A look that could not be had (no descriptor, no memory, no process, no
//!   time on the processor) leaves it unknown, and says nothing about the storage.
//! - [`Host::mount`] mounts only where it is known that nothing is mounted. A file system that is mounted already is no
//!   error and is not mounted twice; another one that is mounted there is an error, and is left alone.
//! - [`Host::write_seed`] puts the seed disk in its place whole or not at all: a QEMU that opens the file has this one
//!   or the one before. If it was refused, a look tells that until it is written, or another is wanted.
//! - [`Host::changes`] moves whenever a link or a mount may have changed, or a seed disk was written or refused. It
//!   carries no data: look.

mod barred;
mod child;
pub mod content;
#[cfg(test)]
mod contract;
mod links;
mod linux;
mod monitors;
mod mounts;
mod opened;
pub mod probe;
mod seed_file;
mod simulated;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

pub use barred::Barred;
pub use content::{Content, Qcow2};
pub use linux::LinuxHost;
pub(crate) use mounts::{differing as differing_options, read_only as is_read_only};
pub use simulated::SimulatedHost;

use crate::guest::Seed;
use crate::observed::Observed;

/// The wishes of the document for the host: the questions of one look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostWants {
    pub bridges: Vec<BridgeWant>,
    pub mounts: Vec<MountWant>,
    pub image: Option<ImageWant>,
    /// The seed disk for a guest that starts here. The host itself decides where it lies.
    pub seed: Option<Arc<Seed>>,
}

/// The place of the VM's image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageWant {
    File(PathBuf),
    /// The image is in Ceph. The monitors are as the document names them. Only a login shows whether the image itself
    /// is there, and QEMU does the login.
    Ceph(Vec<String>),
}

impl From<&str> for ImageWant {
    fn from(path: &str) -> Self {
        Self::File(path.into())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeWant {
    pub name: String,
    pub require_carrier: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MountWant {
    /// The source as in fstab: `10.0.0.9:/share/mngt`.
    pub source: String,
    pub target: PathBuf,
    pub fs_type: String,
    pub options: String,
}

/// The answers of one look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFacts {
    pub bridges: BTreeMap<String, Observed<BridgeFact>>,
    pub mounts: BTreeMap<PathBuf, Observed<MountFact>>,
    pub image: Option<Observed<ImageFact>>,
    pub seed: Option<Observed<SeedFact>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeFact {
    Missing,
    /// There is a link of that name which is no bridge; `kind` says what it is.
    NotABridge {
        kind: String,
    },
    Bridge {
        up: bool,
        /// True if a port of the bridge has a carrier and is no guest's. The kernel says that a bridge has a carrier as
        /// soon as a guest is plugged into it, whatever became of its cable.
        carrier: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountFact {
    NotMounted,
    /// Another file system is mounted there.
    Other {
        source: String,
        fs_type: String,
    },
    Mounted {
        fs_type: String,
        options: String,
    },
    /// The file system there, or on the way there, hangs or gives errors.
    NotAnswering {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFact {
    Missing,
    NotAFile,
    NotReadable {
        reason: String,
    },
    Present(Content),
    /// The image is there, and QEMU may not use it.
    Barred(Barred),
    /// The image is there, and a file that it rests on is not, or cannot be read.
    BackingMissing {
        path: String,
        reason: String,
    },
    /// The way to the image hangs or gives errors, but the VM that runs here has the image open, and reaches it all the
    /// same.
    Hidden {
        reason: String,
    },
    /// The file system of the image hangs or gives errors.
    NotAnswering {
        reason: String,
    },
    /// A monitor of Ceph takes connections: this one.
    Reached {
        monitor: String,
    },
    /// No monitor takes connections.
    NotReached {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedFact {
    /// The seed disk that is wanted is in its place.
    Written,
    /// The seed disk is not in its place, and was not tried yet.
    NotWritten,
    /// The seed disk is not in its place: the last try failed.
    Refused { reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("mounting {target}: {reason}")]
    Mount { target: String, reason: String },
    #[error("writing the guest's configuration: {reason}")]
    Seed { reason: String },
}

#[async_trait]
pub trait Host: Send + Sync + fmt::Debug + 'static {
    async fn look(&self, wants: &HostWants) -> HostFacts;

    /// Mounts one file system where nothing is mounted. Returns when it is mounted, refused, or its deadline passed. Do
    /// not call it again for the same target before that, since there is a gap between a look and a mount(8).
    async fn mount(&self, want: &MountWant) -> Result<(), HostError>;

    /// Puts the guest's seed disk in its place. One that is there already is left as it is.
    async fn write_seed(&self, seed: &Seed) -> Result<(), HostError>;

    /// A counter that moves when anything of the host may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}
