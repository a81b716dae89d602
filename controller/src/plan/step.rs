//! What a pass may decide to do: values, for `act` to carry out.

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

/// One thing to do. Each is looked at again before the next that depends on it is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tell the keeper the timings of the document.
    SetTimings(LeaseTimings),
    /// Have ready what the guest is told if it starts here.
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
    /// Put a record in the place of an owner's lease that is gone, so that it can be renewed over, or fenced.
    ReplaceLease {
        of: Owner,
        /// Index of such a record of a lower epoch, put there by somebody who did not know this one.
        over: Option<u64>,
    },
    /// Write the ownership record by cas, resting on this node's own lease.
    Write(Box<Write>),
    /// Make the process of the domain, paused, if the lease of this epoch still holds.
    Start {
        domain: DomainSpec,
        /// What the guest is told there. None: nothing new, the document no longer names this node.
        seed: Option<Arc<Seed>>,
        epoch: u64,
    },
    /// Let it run, if the lease of this epoch still holds.
    Resume {
        epoch: u64,
        because: ResumeBecause,
    },
    /// Remove the definition of the domain from the disk: neither a hand nor a boot is to start it here.
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

/// What must still be so when a copy is ended or a guest asked to power off, where that may have changed since it was decided.
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
    /// One word, for metrics and logs.
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
    /// What QEMU has stopped is let go on, and not again before this has passed. None: a try that fails says when.
    pub fn again_after(self) -> Option<Duration> {
        match self {
            Self::IoErrorOver => Some(IO_ERROR_RETRY),
            Self::FaultOver => Some(FAULT_RETRY),
            Self::Started | Self::Arrived => None,
        }
    }
}

/// After an I/O error pause, try to go on this often.
const IO_ERROR_RETRY: Duration = Duration::from_secs(5);
const FAULT_RETRY: Duration = Duration::from_secs(1);

/// A change of the ownership record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub record: VmRecord,
    /// Index of the record this replaces; None: it is written anew.
    pub index: Option<u64>,
    /// The lease of this node the write rests on: its epoch, and its very life.
    pub epoch: u64,
    pub incarnation: Uuid,
    /// Other nodes' leases the decision rests on, exactly as they were seen.
    pub rests_on: Vec<Sight>,
    /// Leases to fence in the same transaction.
    pub fence: Vec<Sight>,
    /// For the event: why, and a sentence.
    pub reason: EventReason,
    pub message: String,
}

impl Write {
    /// In the place of what is stored at this index, by this node's lease in this epoch, resting on nobody else.
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
