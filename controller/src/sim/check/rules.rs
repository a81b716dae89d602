//! The rules of the promise, each held against what is so: I1, I2 and I3, and where a rule holds nothing against anybody.
//! Never here: how it is seen what is so.

use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::NodeName;
use zsha_crds::records::{LeaseRecord, LeaseState};

use super::{Checker, Executing};
use crate::hypervisor::simulated::{Copy, StaleResume};
use crate::sim::reasons;

impl Checker {
    /// Checks what the hosts have noted since the last look: two copies that executed at once, and a guest that was let
    /// run although its memory was older than its disk.
    pub(super) fn check_what_hosts_saw(&mut self) {
        for double in self.hosts.double_executions().iter().skip(self.doubles) {
            self.doubles += 1;
            let [first, second] = [&double.first, &double.second];
            if [first, second]
                .into_iter()
                .any(|node| self.has_just_woken(node) || self.by_hand.excuses(node, double.at))
            {
                continue;
            }
            self.violations
                .push(format!("I1: {} and {} executed the VM at once", double.first, double.second));
        }
        for StaleResume { node, newer } in self.hosts.stale_resumes().iter().skip(self.stale) {
            self.stale += 1;
            // The promise does not cover a copy that a host executes for K after it was suspended.
            if newer.iter().all(|(other, until)| {
                self.had_just_woken(other, *until) || self.by_hand.excused(other, *until)
            }) {
                self.note(format_args!("excused: {node} resumes what is older than a host that woke, or than what was made to run by hand"));
                continue;
            }
            self.violations.push(format!("I1: {node} let a guest run whose memory is older than its disk"));
        }
    }

    /// Checks copies that were killed in uninterruptible sleep. Such a copy executes nothing, but what it was writing
    /// may land for as long as it is there. Where a watchdog is petted, the host is reset before another may execute.
    /// No promise covers a copy without a watchdog, nor one whose host was suspended, and its watchdog with it.
    pub(super) fn check_stuck(&mut self, copies: &[Copy]) {
        for stuck in copies.iter().filter(|copy| copy.may_write && !self.by_hand.is(copy.process)) {
            let other = copies
                .iter()
                .filter(|copy| copy.executing && copy.node != stuck.node && !self.has_just_woken(&copy.node))
                .find(|copy| !self.by_hand.excuses(&copy.node, Instant::now()));
            let Some(other) = other.filter(|_| self.stuck.insert(stuck.process)) else { continue };
            let guarded = self.watchdogs.get(&stuck.node).is_some_and(|device| device.is_armed());
            if guarded && !self.slept.contains(&stuck.node) {
                self.violations.push(format!(
                    "I1: {} executes the VM while a copy on {} that was killed may still write",
                    other.node, stuck.node
                ));
            }
        }
    }

    /// Checks a copy that executes: one that begins to needs a valid lease there and then, one that has `already`
    /// executed must be dead K after its end.
    pub(super) fn may_execute(&mut self, node: &NodeName, already: bool) {
        let now = self.validity.now(node);
        if self.has_just_woken(node) {
            return;
        }
        let Some(grant) = self.validity.grant(node) else {
            self.violations.push(format!("I2: {node} executes the VM without a lease"));
            return;
        };
        let until = grant.until();
        let epoch = grant.epoch;
        let grace = if already { grant.kill } else { Duration::ZERO };
        if now >= until && now > until + grace {
            self.violations
                .push(format!("I2: {node} executes the VM at {now:?} and its lease ended at {until:?}"));
        }
        if self.is_unsettled() {
            return;
        }
        let owner = self.vm.value.as_ref().and_then(|record| record.owner.as_ref());
        if !owner.is_some_and(|owner| owner.node == *node && owner.epoch == epoch) {
            let named =
                owner.map_or_else(|| "nobody".to_owned(), |owner| format!("{} {}", owner.node, owner.epoch));
            self.violations
                .push(format!("I2: {node} executes the VM in epoch {epoch}, and {named} is named"));
        }
        let lease = self.leases.get(node).and_then(|lease| lease.value.as_ref());
        let stands = |lease: &LeaseRecord| {
            // Whoever puts a record in the place of one that is gone may not know its epoch.
            match lease.state {
                LeaseState::Held => lease.epoch == epoch,
                LeaseState::Lost => lease.epoch <= epoch,
                LeaseState::Released | LeaseState::Fenced => false,
            }
        };
        if let Some(lease) = lease.filter(|lease| !stands(lease)) {
            let (state, other) = (lease.state, lease.epoch);
            self.violations.push(format!(
                "I2: {node} executes the VM in epoch {epoch}, and its lease is {state:?} in epoch {other}"
            ));
        }
    }

    /// A copy has ended now. That must not have been later than K after the end of the lease.
    pub(super) fn too_late(&mut self, node: &NodeName) {
        let now = self.validity.now(node);
        let Some(grant) = self.validity.grant(node) else { return };
        if now > grant.until() + grant.kill && !self.has_just_woken(node) {
            let until = grant.until();
            self.violations
                .push(format!("I2: {node} executed the VM until {now:?} and its lease ended at {until:?}"));
        }
    }

    /// True if the owner's copy is being moved away from there: it stands still at the end of the move.
    fn is_moving_from(&self, node: &NodeName) -> bool {
        self.vm.value.as_ref().is_some_and(|record| {
            record.migration.as_ref().is_some_and(|migration| migration.to.node != *node)
                && record.owner.as_ref().is_some_and(|owner| owner.node == *node)
        })
    }

    /// A copy has ended now, or was paused: there must be a reason.
    pub(super) fn harmed(&mut self, node: &NodeName, it: Executing) {
        let ending = reasons::ending(node);
        let for_its_disk = ending.as_deref().is_some_and(reasons::is_for_want_of_its_disk);
        if for_its_disk && !self.without_disk.contains(node) {
            self.violations.push(format!("R2: {node} ends the VM for want of its disk, which it reaches"));
        }
        // A copy that stands still may be moved by a migration of which the store does not tell any more.
        let is_gone = self.hosts.copies_on(node).iter().all(|copy| copy.process != it.process);
        let excused_by_restore = self.is_unsettled() && !(it.held && is_gone);
        if excused_by_restore
            || self.excused.contains(node)
            || self.without_disk.contains(node)
            || self.going_down.contains(node)
            || it.stop_asked
            || self.stop_in_force()
            || self.is_moving_from(node)
        {
            return;
        }
        let process = it.process;
        let Some(grant) = self.validity.grant(node) else { return };
        let until = grant.surely_until();
        if self.validity.now(node) < until && !self.validity.was_renewed_too_late(node) {
            self.violations.push(format!(
                "I3: process {process} on {node} no longer executes, and its lease was valid until {until:?} ({})",
                ending.unwrap_or_else(|| "its controller has not ended it".to_owned())
            ));
        } else if let Some(quiet) = self.validity.lapsed_in_vain(node) {
            self.violations.push(format!(
                "I3: process {process} on {node} was killed, and its lease could have been renewed for {quiet:?}"
            ));
        }
    }
}
