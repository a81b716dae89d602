//! Live migrations, as the daemons of two hosts carry them out.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use zsha_crds::NodeName;

use super::host::{Activity, Process};
use super::request::Request;
use super::state::{Due, State};
use super::{Fault, MigrationFault};
use crate::hypervisor::{HypervisorError, MigrationJob, MigrationOrder, OffReason, Origin, PauseReason};

/// The time for which the source stands still and has not heard of the target yet.
const SWITCH: Duration = Duration::from_millis(60);

/// A migration as the two daemons have it, whichever process remembers having asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moving {
    id: Uuid,
    pub(super) to: NodeName,
    source: u64,
    target: u64,
    /// True if the source is stopped, and its memory is at the target.
    switched: bool,
    /// True if the guest was not asked to be paused where it arrives.
    pub(super) runs_on_arrival: bool,
}

impl Moving {
    /// True if the guest stands still, and only the daemons may let it go on, here or there.
    pub(super) fn is_switched(&self) -> bool {
        self.switched
    }

    /// The process that waits for it.
    pub(super) fn target(&self) -> u64 {
        self.target
    }
}

impl State {
    /// Begins to move the guest. A paused process that waits for it comes into being at the target.
    pub(super) fn migrate(
        &mut self,
        node: &NodeName,
        order: &MigrationOrder,
        request: &Request,
        now: Instant,
    ) -> Result<(), HypervisorError> {
        let host = self.host(node);
        let (delays, fault) = (host.delays, host.migration_fault);
        let source = host.process.as_ref().filter(|process| process.executing());
        let Some((source, generation, devices)) =
            source.map(|process| (process.number, process.generation, process.devices.clone()))
        else {
            return Err(request.refused("the domain is not running"));
        };
        if host.moving.is_some() {
            return Err(request.refused("another migration job is already running"));
        }
        let target = self.host(&order.to);
        if !target.powered
            || target.suspended
            || matches!(target.fault, Some(Fault::Unreachable | Fault::Hangs))
        {
            return Err(request.refused("unable to connect to server at the target"));
        }
        if target.process.is_some() {
            return Err(request.refused("the domain is already active at the target"));
        }
        self.counter += 1;
        let number = self.counter;
        let made = (Activity::Paused(PauseReason::Incoming), Origin::Migrated);
        let incoming = Process { devices, ..Process::new(number, generation, made, now) };
        let target = self.host(&order.to);
        target.process = Some(incoming);
        target.changed();
        let to = order.to.clone();
        let moving =
            Moving { id: order.id, to, source, target: number, switched: false, runs_on_arrival: false };
        self.host(node).moving = Some(moving);
        let takes =
            if fault == Some(MigrationFault::Breaks) { delays.migration / 2 } else { delays.migration };
        self.later(now + takes, Due::Switch { from: node.clone(), id: order.id });
        Ok(())
    }

    pub(super) fn abort(&mut self, node: &NodeName, reason: &str) {
        let Some(moving) = self.host(node).moving.clone().filter(|moving| !moving.switched) else { return };
        self.give_up_moving(node, &moving, reason);
    }

    /// Lets the guest go on at the source, and puts away what has come to the target.
    fn give_up_moving(&mut self, node: &NodeName, moving: &Moving, reason: &str) {
        let target = self.host(&moving.to);
        if target.process.as_ref().is_some_and(|process| process.number == moving.target) {
            target.ended(OffReason::Unknown);
        }
        self.over(node, moving.id, MigrationJob::Failed { id: moving.id, reason: reason.to_owned() });
    }

    fn over(&mut self, node: &NodeName, id: Uuid, job: MigrationJob) {
        let host = self.host(node);
        host.moving = None;
        if host.job.id() == Some(id) {
            host.job = job;
        }
        host.changed();
    }

    pub(super) fn switch(&mut self, from: &NodeName, id: Uuid, now: Instant) {
        let Some(moving) = self.host(from).moving.clone().filter(|moving| moving.id == id) else { return };
        let fault = self.host(from).migration_fault;
        let source = self.process_at(from, moving.source).is_some_and(|process| process.executing());
        let target = self.process_at(&moving.to, moving.target).is_some();
        // What is stuck cannot write out what it has under way, nor take anything in.
        let stuck = self.host(from).unkillable || self.host(&moving.to).unkillable;
        if !source || !target || stuck || fault == Some(MigrationFault::Breaks) {
            self.give_up_moving(from, &moving, "the migration broke");
            return;
        }
        self.executed_until_now(from);
        if let Some(process) = self.process_at(from, moving.source) {
            process.activity = Activity::Paused(PauseReason::Incoming);
        }
        if let Some(process) = self.process_at(&moving.to, moving.target) {
            process.memory_of = Some(now);
            // Until the source's daemon says that it is over, where nobody has asked for it to be paused.
            let stands = if moving.runs_on_arrival { PauseReason::Incoming } else { PauseReason::Asked };
            process.activity = Activity::Paused(stands);
        }
        self.host(from).moving = Some(Moving { switched: true, ..moving.clone() });
        self.host(from).changed();
        self.host(&moving.to).changed();
        self.later(now + SWITCH, Due::Finish { from: from.clone(), id });
    }

    /// Ends a migration. libvirt at the source hears of the target, or does not: then it lets the guest go on there.
    pub(super) fn finish(&mut self, from: &NodeName, id: Uuid, now: Instant) {
        let Some(moving) = self.host(from).moving.clone().filter(|moving| moving.id == id) else { return };
        let lost = self.host(from).migration_fault == Some(MigrationFault::AnswerLost);
        let arrived = self.process_at(&moving.to, moving.target).is_some();
        let there = self.process_at(from, moving.source).is_some();
        if there && (lost || !arrived) {
            if let Some(process) = self.process_at(from, moving.source) {
                process.activity = Activity::Running;
            }
            self.executes_beside_others(from, now);
            let reason = "the answer of the target was lost".to_owned();
            self.over(from, id, MigrationJob::Failed { id, reason });
            return;
        }
        if there {
            self.host(from).ended(OffReason::Migrated);
        }
        if there && moving.runs_on_arrival {
            if let Some(process) = self.process_at(&moving.to, moving.target) {
                process.activity = Activity::Running;
                process.ran = true;
                process.memory_of = None;
            }
            self.host(&moving.to).changed();
            self.executes_beside_others(&moving.to, now);
        }
        let job = if there && arrived {
            MigrationJob::Done { id }
        } else {
            MigrationJob::Failed { id, reason: "the source's process is gone".to_owned() }
        };
        self.over(from, id, job);
    }
}
