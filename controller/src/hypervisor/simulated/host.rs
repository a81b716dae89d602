//! One host of the simulated world, with the process on it, and what is to be seen of both. This is synchronous: it
//! never waits, and reads no clock. Never here: what several hosts have in common.

use tokio::sync::watch;
use tokio::time::Instant;

use super::moving::Moving;
use super::state::Due;
use super::{Delays, Fault, MigrationFault};
use crate::hypervisor::{
    Devices, DomainFacts, HypervisorError, LocalVm, MigrationJob, OffReason, Offer, Origin, PauseReason,
};
use crate::observed::Observed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Paused(PauseReason),
    Running,
    ShuttingDown,
}

#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) activity: Activity,
    pub(super) origin: Origin,
    pub(super) started: Instant,
    /// The moment when its memory was taken from another process. It is stale if any copy has executed since.
    pub(super) memory_of: Option<Instant>,
    /// True if it has executed, so that a write to the disk may be under way.
    pub(super) ran: bool,
    /// True if SIGKILL was sent to it in uninterruptible sleep. Its threads that execute the guest are gone. The thread
    /// that sleeps goes when it wakes, and until then its write may still land.
    pub(super) killed: bool,
    /// True if its host is suspended.
    pub(super) asleep: bool,
    /// Its devices. Unknown where somebody else defined it.
    pub(super) devices: Observed<Devices>,
}

impl Process {
    pub(super) fn new(
        number: u64,
        generation: u64,
        (activity, origin): (Activity, Origin),
        started: Instant,
    ) -> Self {
        Self {
            number,
            generation,
            activity,
            origin,
            started,
            memory_of: None,
            ran: false,
            killed: false,
            asleep: false,
            devices: Observed::unknown("an administrator's own definition"),
        }
    }

    pub(super) fn executing(&self) -> bool {
        let stands = self.killed || self.asleep;
        !stands && matches!(self.activity, Activity::Running | Activity::ShuttingDown)
    }
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) powered: bool,
    /// True if nothing runs there; things that fall due wait until the host wakes.
    pub(super) suspended: bool,
    pub(super) postponed: Vec<Due>,
    /// The count of boots: a call from before a boot never happens after it.
    pub(super) boot: u64,
    pub(super) offer: Offer,
    /// True if a definition is on its disk, by an administrator's hand.
    pub(super) defined: bool,
    pub(super) autostart: bool,
    /// The way the last process ended, if one has.
    pub(super) ended: Option<OffReason>,
    pub(super) process: Option<Process>,
    pub(super) fault: Option<Fault>,
    pub(super) moving: Option<Moving>,
    /// The migration as the process knows it that asked for it.
    pub(super) job: MigrationJob,
    /// The way the next migrations from here end.
    pub(super) migration_fault: Option<MigrationFault>,
    pub(super) delays: Delays,
    pub(super) start_failure: Option<String>,
    pub(super) unkillable: bool,
    /// True if whatever executes is paused again by its first access to the disk.
    pub(super) disk_gone: bool,
    /// True if the side that counts processes there cannot read the table.
    pub(super) uncounted: bool,
    /// True if the log there does not say how the VM has ended.
    pub(super) log_unreadable: bool,
    pub(super) changes: watch::Sender<u64>,
}

impl Host {
    /// The number of the VM's process, if there is one.
    pub(super) fn number(&self) -> Option<u64> {
        self.process.as_ref().map(|process| process.number)
    }

    pub(super) fn new() -> Self {
        Self {
            powered: true,
            // Of a large host, so that no document asks for too much.
            offer: Offer {
                accelerated: true,
                memory_mib: 1 << 20,
                most_vcpus: 288,
                refuses: None,
                namesake: None,
            },
            suspended: false,
            postponed: Vec::new(),
            boot: 0,
            defined: false,
            autostart: false,
            ended: None,
            process: None,
            fault: None,
            moving: None,
            job: MigrationJob::None,
            migration_fault: None,
            delays: Delays::default(),
            start_failure: None,
            unkillable: false,
            disk_gone: false,
            uncounted: false,
            log_unreadable: false,
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Notes that its process has ended, or will once it can.
    pub(super) fn ended(&mut self, reason: OffReason) {
        self.ended = Some(reason);
        match &mut self.process {
            Some(process) if self.unkillable => process.killed = true,
            _ => self.process = None,
        }
        self.changed();
    }

    pub(super) fn set_unkillable(&mut self, unkillable: bool) {
        self.unkillable = unkillable;
        if !unkillable && self.process.as_ref().is_some_and(|process| process.killed) {
            self.process = None;
            self.changed();
        }
    }

    pub(super) fn local(&self) -> LocalVm {
        match (&self.process, self.ended) {
            (Some(process), _) => {
                let generation = process.generation;
                match process.activity {
                    Activity::Paused(reason) => LocalVm::Paused { reason, generation },
                    Activity::Running => LocalVm::Running { generation },
                    Activity::ShuttingDown => LocalVm::ShuttingDown { generation },
                }
            }
            (None, Some(reason)) => LocalVm::Off { reason },
            (None, None) => LocalVm::Absent,
        }
    }

    pub(super) fn domain(&self) -> DomainFacts {
        DomainFacts {
            defined: self.defined,
            autostart: self.autostart,
            ..self.process.as_ref().map_or(DomainFacts::new(Origin::None), |process| DomainFacts {
                devices: process.devices.clone(),
                ..DomainFacts::new(process.origin)
            })
        }
    }

    /// Says whether a call from `boot` gets as far as the hypervisor, and what its fault is if so.
    pub(super) fn reachable(
        &self,
        boot: u64,
        operation: &'static str,
    ) -> Result<Option<Fault>, HypervisorError> {
        let unreachable =
            |reason: &str| Err(HypervisorError::Unreachable { operation, reason: reason.to_owned() });
        if !self.powered || self.boot != boot {
            return unreachable("the host has no power, or lost it meanwhile");
        }
        match self.fault {
            Some(Fault::Unreachable) => unreachable("connection refused"),
            fault => Ok(fault),
        }
    }
}
