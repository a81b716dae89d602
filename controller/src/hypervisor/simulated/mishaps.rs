//! The mishaps of a process or a host: it dies, its disk fails, its power goes and comes back. This is synchronous: it
//! never waits, and reads no clock. Never here: what a controller asks for.

use tokio::time::Instant;
use zsha_crds::NodeName;

use super::Fault;
use super::host::{Activity, Process};
use super::state::{Due, State};
use crate::hypervisor::{MigrationJob, OffReason, Origin, PauseReason};

/// The way a process ends that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is ended through the hypervisor.
    Destroyed,
    /// It is ended past the hypervisor, or ends by itself.
    Killed,
}

impl State {
    /// Ends the process of `node`, if there is one and it can be ended. Returns how many were ended.
    pub(super) fn end(&mut self, node: &NodeName, ending: Ending) -> usize {
        self.executed_until_now(node);
        let host = self.host(node);
        if host.process.as_ref().is_none_or(|process| process.killed) {
            return 0;
        }
        host.ended(match ending {
            Ending::Destroyed => OffReason::Destroyed,
            Ending::Killed => OffReason::Died,
        });
        usize::from(host.process.is_none())
    }

    /// Powers the guest of `node` off by its own doing (that very process, if one is named).
    pub(super) fn guest_off(&mut self, node: &NodeName, number: Option<u64>) -> bool {
        self.executed_until_now(node);
        let host = self.host(node);
        let it = host.process.as_ref().filter(|process| number.is_none_or(|number| number == process.number));
        let executing = it.is_some_and(Process::executing);
        if executing {
            host.ended(OffReason::Shutdown);
        }
        executing
    }

    pub(super) fn disk_fails(&mut self, node: &NodeName) -> bool {
        self.executed_until_now(node);
        let host = self.host(node);
        let Some(process) = host.process.as_mut().filter(|process| process.executing()) else {
            return false;
        };
        process.activity = Activity::Paused(PauseReason::IoError);
        host.changed();
        true
    }

    /// Suspends the host: nothing runs there any more, and no time passes for what is there.
    pub(super) fn suspend(&mut self, node: &NodeName) {
        self.executed_until_now(node);
        let host = self.host(node);
        host.suspended = host.powered;
        let suspended = host.suspended;
        if let Some(process) = &mut host.process {
            process.asleep = suspended;
        }
        host.changed();
    }

    /// Wakes the host. The guest is the first to go on.
    pub(super) fn wake(&mut self, node: &NodeName, now: Instant) {
        let host = self.host(node);
        if !std::mem::replace(&mut host.suspended, false) {
            return;
        }
        if let Some(process) = &mut host.process {
            process.asleep = false;
        }
        host.changed();
        let executes = host.process.as_ref().is_some_and(Process::executing);
        for due in std::mem::take(&mut self.host(node).postponed) {
            self.later(now, due);
        }
        if executes {
            self.executes_beside_others(node, now);
        }
    }

    pub(super) fn power_loss(&mut self, node: &NodeName) {
        self.executed_until_now(node);
        let host = self.host(node);
        host.suspended = false;
        host.unkillable = false;
        let postponed = std::mem::take(&mut host.postponed);
        host.job = MigrationJob::None;
        host.powered = false;
        host.boot += 1;
        if host.process.take().is_some() {
            host.ended = None;
        }
        host.changed();
        for due in postponed {
            self.later(self.now, due);
        }
        self.due.retain(|_, due| match due {
            Due::Request { node: of, .. } | Due::GuestOff { node: of, .. } => of != node,
            // What it meets then decides what becomes of it.
            Due::Switch { .. } | Due::Finish { .. } => true,
        });
    }

    /// Boots the host. A domain that is defined to start with it runs before anything of ours does.
    pub(super) fn power_on(&mut self, node: &NodeName, now: Instant) {
        self.counter += 1;
        let number = self.counter;
        let host = self.host(node);
        host.powered = true;
        let starts = host.defined && host.autostart && host.process.is_none();
        if starts {
            // Somebody else's definition: it says no generation of ours.
            host.process = Some(Process {
                ran: true,
                ..Process::new(number, 0, (Activity::Running, Origin::Booted), now)
            });
        }
        host.changed();
        if starts {
            self.executes_beside_others(node, now);
        }
    }

    pub(super) fn set_fault(&mut self, node: &NodeName, fault: Option<Fault>) {
        let host = self.host(node);
        let connection = |fault: Option<Fault>| fault != Some(Fault::Unreachable);
        if connection(host.fault) != connection(fault) {
            host.changed();
        }
        host.fault = fault;
    }
}
