//! The node around the hypervisor: bridges, mounts, the image, the guest's seed. Looks, mounts what was decided, and puts
//! the seed in its place; decides nothing.
//!
//! What every implementation promises (one suite of contract tests runs on all of them):
//!
//! - [`Host::look`] answers every question it was asked and no other, and changes nothing. It always returns within a
//!   bounded time, whatever hangs below a mount; what could not be looked at is [`Observed::Unknown`] with a reason,
//!   never "absent", and hides nothing else.
//! - Storage that does not answer is a fact of its own (`NotAnswering`), and evidence: a look at it ran and hangs, or was told
//!   an error by the storage itself. That no look could be had (no descriptor, no memory, no process, no time on the
//!   processor) is unknown, and says nothing about the storage.
//! - [`Host::mount`] mounts only where it is known that nothing is mounted. What is mounted already is no error and is
//!   not mounted twice; something else that is mounted there is one, and is left alone.
//! - [`Host::write_seed`] puts the seed in its place whole or not at all: whoever opens the file has this one or the one
//!   before. That it was refused is what a look tells until it is written, or another is wanted.
//! - [`Host::changes`] moves whenever a link or a mount may have changed, or a seed was written or refused. It carries no data: look.

mod child;
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

pub use linux::LinuxHost;
pub use simulated::SimulatedHost;

use crate::guest::Seed;
use crate::observed::Observed;

/// What the document wants of the host: the questions of one look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostWants {
    pub bridges: Vec<BridgeWant>,
    pub mounts: Vec<MountWant>,
    pub image: Option<ImageWant>,
    /// What a guest that starts here is told; where it lies is the host's own affair.
    pub seed: Option<Arc<Seed>>,
}

/// Where the VM's image is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageWant {
    File(PathBuf),
    /// In Ceph: its monitors, as the document names them. Whether the image itself is there only a login shows, which is
    /// QEMU's.
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
    /// As in fstab: `10.0.0.9:/share/mngt`.
    pub source: String,
    pub target: PathBuf,
    pub fs_type: String,
    pub options: String,
}

/// The answers.
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
    /// There is a link of that name which is no bridge; its kind.
    NotABridge {
        kind: String,
    },
    Bridge {
        up: bool,
        /// Whether a port of it has one that is no guest's. The kernel says that a bridge has a carrier as soon as a
        /// guest is plugged into it, whatever became of its cable.
        carrier: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountFact {
    NotMounted,
    /// Something else is mounted there.
    Other {
        source: String,
        fs_type: String,
    },
    Mounted {
        fs_type: String,
        options: String,
    },
    /// What is there, or leads there, hangs or gives errors.
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
    Present {
        bytes: u64,
    },
    /// The way to it hangs or gives errors; and the VM that runs here has it open, and reaches it all the same.
    Hidden {
        reason: String,
    },
    /// Its file system hangs or gives errors.
    NotAnswering {
        reason: String,
    },
    /// A monitor of Ceph takes connections; which one.
    Reached {
        monitor: String,
    },
    /// None of them does.
    NotReached {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeedFact {
    /// The one that is wanted is in its place.
    Written,
    /// It is not, and nobody has tried yet.
    NotWritten,
    /// It is not: the last try failed.
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

    /// Mounts one file system where nothing is mounted. Returns when it is mounted, refused, or its deadline passed.
    /// Not to be called again for the same target before that: between a look and a mount(8) is a gap.
    async fn mount(&self, want: &MountWant) -> Result<(), HostError>;

    /// Puts the guest's seed in its place. One that is there already is left as it is.
    async fn write_seed(&self, seed: &Seed) -> Result<(), HostError>;

    /// A counter that moves when anything of the host may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}
