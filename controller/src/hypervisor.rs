//! The hypervisor of this node, as far as one VM is concerned: look at it, and do to it what was decided.
//!
//! What every implementation promises (one suite of contract tests runs on all of them):
//!
//! - It is bound to one VM (name and UUID) when it is made, and never touches another domain.
//! - [`Hypervisor::look`] tells what is so, or fails; it never answers "absent" because it could not look, and it says
//!   that there is no process only where the process table shows none either.
//! - Every call has a deadline of its own. [`HypervisorError::Unanswered`] means that it may or may not have
//!   happened: look again.
//! - Nothing that it starts is left on the node's disk: a host that boots, or a `virsh start`, finds nothing to start.
//! - Calls are idempotent towards the state they are for: killing a process that is dead, or undefining a domain that
//!   is not defined, is no error. The exceptions are [`Hypervisor::start_paused`] and [`Hypervisor::resume`], which say
//!   what stood in the way.
//! - [`Hypervisor::changes`] moves whenever anything about the VM may have changed, its guest's agent has come or gone,
//!   or the connection to the hypervisor was lost or made again. It carries no data: look.

#[cfg(test)]
mod contract;
pub mod devices;
pub mod domain_xml;
#[cfg(feature = "libvirt")]
pub mod libvirt;
pub(crate) mod libvirt_log;
pub mod simulated;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;
use zsha_crds::document::ImageFormat;
use zsha_crds::records::DiskSource;
use zsha_crds::{LocalState, NodeName, VmName};

pub use devices::{Devices, Disk};

use crate::guest::GuestWants;
use crate::observed::Observed;

/// The wish of a domain. It is a function of the document alone, so equal documents make equal domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSpec {
    pub name: VmName,
    pub uuid: Uuid,
    /// Generation of the document this was read from; kept in the domain's metadata.
    pub generation: u64,
    pub memory_mib: u64,
    pub vcpus: u32,
    pub image: DomainImage,
    pub nics: Vec<DomainNic>,
    /// The configuration of the guest from inside, which the seed disk of the node it boots on tells it.
    pub guest: GuestWants,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainImage {
    /// A file on the share.
    File { path: PathBuf, format: ImageFormat },
    /// A Ceph block device.
    Rbd { monitors: Vec<String>, pool: String, image: String },
}

impl DomainImage {
    /// A qcow2 file on the share.
    pub fn qcow2(path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), format: ImageFormat::Qcow2 }
    }

    /// The place of the image, as the ownership record has it.
    pub fn source(&self) -> DiskSource {
        match self {
            Self::File { path, .. } => DiskSource::file(path),
            Self::Rbd { pool, image, .. } => DiskSource::Rbd(format!("{pool}/{image}")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainNic {
    pub bridge: String,
    pub mac: String,
}

/// The way the last process of the VM on this node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OffReason {
    /// The guest powered itself off, or followed a request to.
    Shutdown,
    /// QEMU died, or was killed from outside.
    Died,
    /// It was destroyed through the hypervisor.
    Destroyed,
    /// It was migrated away.
    Migrated,
    /// It has ended, and the way is not known: a start that failed, for instance, or a process that an administrator
    /// saved.
    Unknown,
    /// It has ended, and the log that tells how could not be read: it may have been migrated away.
    Unread,
}

/// The way in which the present process came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// There is no process.
    None,
    /// The guest was booted on this node, by zsha or by hand.
    Booted,
    /// It came from another node, or is just arriving.
    Migrated,
    /// It came from memory that an administrator had saved to a file.
    Restored,
    /// It did not boot here, and nothing says any more whether it was moved here or restored.
    Unknown,
}

/// The things that the hypervisor keeps of the VM beside the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainFacts {
    /// True if a definition is on this node's disk, from which the VM could be started by hand or by a boot. zsha
    /// leaves none.
    pub defined: bool,
    /// True if it is started when the host boots.
    pub autostart: bool,
    pub origin: Origin,
    /// True if it executes here while a part of its memory is still at the source of a migration: neither side is
    /// whole.
    pub post_copy: bool,
    /// The devices of the process, as they are now. Unknown also where there is none that the hypervisor knows.
    pub devices: Observed<Devices>,
}

impl DomainFacts {
    /// The facts of a process that came to be so, with no definition on the disk and its devices not seen yet.
    pub fn new(origin: Origin) -> Self {
        let devices = Observed::unknown("no process of the VM has been looked at");
        Self { defined: false, autostart: false, origin, post_copy: false, devices }
    }
}

/// What a hypervisor has to run the VM on, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// True if the processor executes the guest (KVM), and it is not emulated.
    pub accelerated: bool,
    pub memory_mib: u64,
    /// The most virtual processors that a guest of this kind of machine may have.
    pub most_vcpus: u32,
    /// The hypervisor's word against this kind of machine, where it has one.
    pub refuses: Option<String>,
    /// Another domain that has the VM's name, by its UUID.
    pub namesake: Option<Uuid>,
}

/// The reason why a QEMU that exists does not execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PauseReason {
    /// It was started paused, or paused by a command: the two look the same to libvirt.
    Asked,
    /// The disk gave an error, and QEMU stopped the guest so that it does not see it.
    IoError,
    /// QEMU or libvirt stopped it for a fault: an internal error, the guest's own watchdog, a step that failed.
    Fault,
    /// It is the target of a migration that is not over, or its source where nothing is under way any more.
    Incoming,
    /// It is the source of a migration that is under way, by zsha or by hand.
    Leaving,
    /// Any other reason, with no need to tell it apart.
    Other,
}

/// The VM on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LocalVm {
    /// There is no process, and nothing is known of an earlier one's end.
    Absent,
    /// There is no process. `reason` says how the last one on this node ended, whether or not this program ran at that
    /// time.
    Off {
        reason: OffReason,
    },
    /// A process does not execute the guest. `generation` is that of the *running* definition, here and below. It is 0,
    /// which no document has, where that does not say it (somebody else defined it).
    Paused {
        reason: PauseReason,
        generation: u64,
    },
    Running {
        generation: u64,
    },
    /// The guest runs, and was asked to shut down.
    ShuttingDown {
        generation: u64,
    },
    /// There is a process, and it is crashed or dying.
    Crashed,
    /// There is a process, and the hypervisor's daemon does not know it: it may well be healthy.
    Unmanaged,
}

impl LocalVm {
    /// True if there is a process at all, executing or not.
    pub fn has_process(&self) -> bool {
        !matches!(self, Self::Absent | Self::Off { .. })
    }

    /// True if nothing says how the last process here has ended, if there was one.
    pub fn is_gone_without_a_word(&self) -> bool {
        matches!(self, Self::Absent | Self::Off { reason: OffReason::Unknown })
    }

    /// True if the guest that was here runs elsewhere, by a migration, or may.
    pub fn may_have_moved(&self) -> bool {
        matches!(self, Self::Off { reason: OffReason::Migrated | OffReason::Unread })
    }

    /// True if the process takes in a guest from elsewhere, or is left of a migration that is not under way any more.
    pub fn is_incoming(&self) -> bool {
        matches!(self, Self::Paused { reason: PauseReason::Incoming, .. })
    }

    /// True if the guest executes.
    pub fn executes(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::ShuttingDown { .. })
    }

    /// The generation of the definition that runs, where one does.
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::Running { generation }
            | Self::Paused { generation, .. }
            | Self::ShuttingDown { generation } => Some(*generation),
            Self::Absent | Self::Off { .. } | Self::Crashed | Self::Unmanaged => None,
        }
    }

    /// The state in one word, for the status.
    pub fn word(&self) -> LocalState {
        match self {
            Self::Absent => LocalState::Absent,
            Self::Off { .. } => LocalState::Off,
            Self::Paused { .. } => LocalState::Paused,
            Self::Running { .. } => LocalState::Running,
            Self::ShuttingDown { .. } => LocalState::ShuttingDown,
            Self::Crashed => LocalState::Crashed,
            Self::Unmanaged => LocalState::Unmanaged,
        }
    }
}

/// The order to move the running guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationOrder {
    pub id: Uuid,
    pub to: NodeName,
    pub address: Ipv4Addr,
}

/// A live migration as this process, at its source, has seen it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MigrationJob {
    /// This process has begun none.
    #[default]
    None,
    Going {
        id: Uuid,
        percent: Option<u8>,
    },
    /// The whole guest is at the target, paused. The copy here is ended, or about to be.
    Done {
        id: Uuid,
    },
    /// The guest goes on here. Whatever has arrived at the target is stale.
    Failed {
        id: Uuid,
        reason: String,
    },
}

impl MigrationJob {
    pub fn id(&self) -> Option<Uuid> {
        match self {
            Self::None => None,
            Self::Going { id, .. } | Self::Done { id } | Self::Failed { id, .. } => Some(*id),
        }
    }
}

/// The outcome of a script in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestRan {
    /// The script ended well, and printed this.
    Printed(String),
    /// The script ended otherwise, or not in time.
    Failed(String),
    /// The agent answers that it may not run the script.
    NotAllowed(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HypervisorError {
    /// There is no connection to the hypervisor, or nothing to ask by (no process table, no thread). The VM may well be
    /// running. Where the connection broke during the call, the call may have had its effect.
    #[error("{operation}: the hypervisor cannot be reached: {reason}")]
    Unreachable { operation: &'static str, reason: String },
    /// No answer came before the deadline: it may or may not have happened.
    #[error("{operation}: no answer from the hypervisor within {waited_secs} s")]
    Unanswered { operation: &'static str, waited_secs: u64 },
    /// Another process, perhaps on another host, has the image open for writing (or an NFS server still thinks so).
    #[error("{operation}: the image is locked by another process or host: {reason}")]
    ImageLocked { operation: &'static str, reason: String },
    /// The hypervisor answered, and said no.
    #[error("{operation}: {reason}")]
    Refused { operation: &'static str, reason: String },
}

#[async_trait]
pub trait Hypervisor: Send + Sync + fmt::Debug + 'static {
    async fn look(&self) -> Result<LocalVm, HypervisorError>;

    /// Reads what is kept of the VM beside its process.
    async fn domain(&self) -> Result<DomainFacts, HypervisorError>;

    /// Says what is here to run the VM on. It may be some seconds old, and starts nothing.
    async fn offer(&self) -> Result<Offer, HypervisorError>;

    /// Makes the process of this domain, and nothing else. No definition is left on the disk. A definition that was
    /// there is put away first, as it would make a lasting one of the domain that is started. The guest executes
    /// nothing yet.
    async fn start_paused(&self, domain: &DomainSpec) -> Result<(), HypervisorError>;

    /// Lets the paused guest run.
    async fn resume(&self) -> Result<(), HypervisorError>;

    /// Asks the guest to power off (ACPI, and the agent where it answers). Returns at once.
    async fn shutdown(&self) -> Result<(), HypervisorError>;

    /// Sets a user's password in the running guest, through its agent. An error where the agent does not answer, or
    /// cannot.
    async fn set_password(&self, user: &str, password: &str) -> Result<(), HypervisorError>;

    /// Runs a script by `/bin/sh` in the running guest, through its agent. An error where no agent answers.
    async fn run_in_guest(&self, script: &str) -> Result<GuestRan, HypervisorError>;

    /// Ends the process now. When this returns `Ok`, the process is gone.
    async fn kill(&self) -> Result<(), HypervisorError>;

    /// Begins to move the running guest to another node, and returns at once: [`Hypervisor::migration`] says how it
    /// goes. The copy that arrives there stays paused, whatever becomes of this process.
    async fn migrate(&self, order: &MigrationOrder) -> Result<(), HypervisorError>;

    /// Ends a migration under way, also one that an earlier process began. No error where there is none. It may come
    /// too late.
    async fn abort_migration(&self) -> Result<(), HypervisorError>;

    /// The last migration that this process began.
    fn migration(&self) -> MigrationJob;

    /// Removes the definition from the disk, so that the VM is not started with the host. A process goes on as it was.
    async fn undefine(&self) -> Result<(), HypervisorError>;

    /// Reads on this host how the process that was started last has ended, also where the hypervisor itself does not
    /// answer. None: it is not written that it has ended.
    async fn last_end(&self) -> Result<Option<OffReason>, HypervisorError>;

    /// A counter that moves with every change. See the head of this file.
    fn changes(&self) -> watch::Receiver<u64>;
}
