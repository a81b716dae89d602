//! The steps that a pass may plan: values, for `act` to carry out.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use zsha_crds::EventReason;
use zsha_crds::records::{LeaseTimings, Owner, VmRecord};
use zsha_runtime::lease::{Expectation, Sight};

use crate::guest::Seed;
use crate::host::MountWant;
use crate::hypervisor::{DomainSpec, MigrationOrder};
use crate::world::World;

/// One thing to do. Its result is looked at before the next step that depends on it is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tell the keeper the timings of the document.
    SetTimings(LeaseTimings),
    /// Write the seed disk that the guest is told by if it starts here.
    WriteSeed(Arc<Seed>),
    /// Tell the keeper whether the document wants its watchdog.
    SetWatchdog(bool),
    Mount(MountWant),
    /// Tell the keeper which copy is to be found here.
    Expect(Expectation),
    /// End the local copy now.
    KillCopy {
        because: String,
        if_still: Option<Still>,
    },
    /// Put a record in the place of an owner's lease that is gone, so that the lease can be renewed over it, or fenced.
    ReplaceLease {
        of: Owner,
        /// The index of such a record of a lower epoch, put there by somebody who did not know this one.
        over: Option<u64>,
    },
    /// Write the ownership record by cas, resting on this node's own lease.
    Write(Box<Write>),
    /// Make the process of the domain, paused, if the lease of this epoch still holds.
    Start {
        domain: DomainSpec,
        /// The seed disk for the guest there. None: nothing new, since the document no longer names this node.
        seed: Option<Arc<Seed>>,
        epoch: u64,
    },
    /// Let the copy run, if the lease of this epoch still holds.
    Resume {
        epoch: u64,
        because: ResumeBecause,
    },
    /// Remove the definition of the domain from the disk, so that neither a hand nor a boot starts it here.
    Undefine {
        because: String,
    },
    /// Ask the guest to power off, if that is still wanted.
    Shutdown {
        because: String,
        if_still: Still,
    },
    /// Begin to move the running guest.
    Migrate(MigrationOrder),
    AbortMigration {
        id: Uuid,
        because: String,
    },
    /// Give root in the guest the default password, for this request.
    SetPassword {
        id: Uuid,
        by: String,
    },
}

/// The thing that must still be so when a copy is ended or a guest asked to power off, where it may have changed since
/// the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Still {
    /// This node's lease is not valid.
    Lapsed,
    /// An operator wants the VM stopped.
    ToStop,
    /// This node's host shuts down.
    HostGoesDown,
}

impl Step {
    /// The step's name in one word, for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SetTimings(_) => "SetTimings",
            Self::SetWatchdog(_) => "SetWatchdog",
            Self::Mount(_) => "Mount",
            Self::Expect(_) => "Expect",
            Self::WriteSeed(_) => "WriteSeed",
            Self::KillCopy { .. } => "KillCopy",
            Self::ReplaceLease { .. } => "ReplaceLease",
            Self::Write(_) => "Write",
            Self::Start { .. } => "Start",
            Self::Resume { .. } => "Resume",
            Self::Undefine { .. } => "Undefine",
            Self::Shutdown { .. } => "Shutdown",
            Self::Migrate(_) => "Migrate",
            Self::AbortMigration { .. } => "AbortMigration",
            Self::SetPassword { .. } => "SetPassword",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeBecause {
    Started,
    IoErrorOver,
    FaultOver,
    Arrived,
}

impl ResumeBecause {
    /// The pause before a guest that QEMU has stopped is let go on again. None: a try that fails says when.
    pub fn again_after(self) -> Option<Duration> {
        match self {
            Self::IoErrorOver => Some(IO_ERROR_RETRY),
            Self::FaultOver => Some(FAULT_RETRY),
            Self::Started | Self::Arrived => None,
        }
    }
}

/// The pause between tries to let a guest go on after an I/O error.
const IO_ERROR_RETRY: Duration = Duration::from_secs(5);
const FAULT_RETRY: Duration = Duration::from_secs(1);

/// A change of the ownership record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub record: VmRecord,
    /// The index of the record that this one replaces; None: it is written anew.
    pub index: Option<u64>,
    /// The lease of this node on which the write rests: its epoch, and its very life.
    pub epoch: u64,
    pub incarnation: Uuid,
    /// The leases of other nodes on which the decision rests, exactly as they were seen.
    pub rests_on: Vec<Sight>,
    /// The leases to fence in the same transaction.
    pub fence: Vec<Sight>,
    /// The reason and the sentence of the event.
    pub reason: EventReason,
    pub message: String,
}

impl Write {
    /// A write in the place of what is stored at this index, by this node's lease in this epoch, resting on no other
    /// node.
    pub(super) fn over(
        index: u64,
        world: &World,
        epoch: u64,
        record: VmRecord,
        told: (EventReason, String),
    ) -> Self {
        let (reason, message) = told;
        Self {
            record,
            index: Some(index),
            epoch,
            incarnation: world.incarnation(),
            rests_on: Vec::new(),
            fence: Vec::new(),
            reason,
            message,
        }
    }

    pub(super) fn step(self) -> Step {
        Step::Write(Box::new(self))
    }
}
