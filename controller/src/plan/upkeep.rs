//! Decides what the owner does with its VM, by what is seen of it: in which order its duties come, what it does with a
//! guest that runs, and with one that cannot be seen.

use std::time::Duration;

use zsha_crds::EventReason;
use zsha_crds::records::{StartRecord, VmPhase};

use super::decision::Plan;
use super::expecting;
use super::notes::Notes;
use super::owner::{Upkeep, kill};
use super::shutdown::SHUTDOWN_PATIENCE;
use super::start::BLIND_PATIENCE;
use crate::hypervisor::{LocalVm, OffReason, PauseReason};
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::World;

/// The time for which a guest may still follow a request to power off that was taken back.
const STILL_MAY_FOLLOW: Duration = Duration::from_secs(5 * SHUTDOWN_PATIENCE.as_secs());

/// Keeps the VM as it should be. It is called only when this node owns the VM, its lease is valid, and this process
/// wrote the record.
pub(super) fn keep(world: &World, notes: &mut Notes, epoch: u64, plan: &mut Plan) {
    let Some(stored) = world.stored() else { return };
    let owner = Upkeep { world, stored, epoch };
    owner.sees_another(notes);
    let local = match &world.local {
        Observed::Unknown(_)
            if planted::is_planted(Bug::HandedOverBlind) && stored.record.migration.is_some() =>
        {
            LocalVm::Absent
        }
        Observed::Unknown(why) => {
            owner.blind(why, notes, plan);
            return;
        }
        Observed::Known(local) => owner.as_it_left(*local, notes),
    };
    forget_what_is_over(local, notes);
    if let Some(migration) = &stored.record.migration {
        if migration.to.node == world.me {
            owner.arrived(local, notes, plan);
        } else {
            owner.moving(migration, local, notes, plan);
        }
        return;
    }
    if owner.notes_disk(local, plan) {
        return;
    }
    if owner.goes_down(local, notes, plan) {
        return;
    }
    if owner.holds_still(local, notes, plan) {
        return;
    }
    if let Some(stop) = world.stop() {
        owner.stop(local, stop, notes, plan);
        return;
    }
    if owner.reset_password(local, notes, plan) {
        return;
    }
    if owner.without_storage(local, notes, plan) {
        return;
    }
    match local {
        LocalVm::Absent => owner.not_running(OffReason::Unknown, notes, plan),
        LocalVm::Off { reason } => owner.not_running(reason, notes, plan),
        LocalVm::Paused { reason, .. } => owner.paused(reason, notes, plan),
        LocalVm::Running { generation } => owner.running(generation, notes, plan),
        LocalVm::ShuttingDown { .. } => plan.wait("ShuttingDown", "the guest is shutting down"),
        LocalVm::Crashed => plan.step(kill("QEMU is there and does not work")),
        // This is so for a moment as well while a process that was killed goes.
        LocalVm::Unmanaged => plan.wait(
            "Unmanaged",
            format!(
                "a QEMU of the VM runs that libvirt does not know. It is left alone; is this controller's --libvirt the \
                 daemon that started it? Its keeper says: {}",
                world.lease.known().map_or("nothing", |verdict| &verdict.message)
            ),
        ),
    }
}

/// Forgets notes on a copy that looked otherwise than this one.
fn forget_what_is_over(local: LocalVm, notes: &mut Notes) {
    if local != (LocalVm::Off { reason: OffReason::Unread }) {
        notes.seen.unread_since = None;
    }
    if !local.is_incoming() {
        notes.seen.left = None;
    }
    if !matches!(local, LocalVm::Paused { reason: PauseReason::Incoming | PauseReason::Fault, .. }) {
        notes.seen.migration.left_by_ours = false;
    }
}

impl Upkeep<'_> {
    /// Decides where the hypervisor does not answer. A VM that runs is left as it is. One that surely does not run is
    /// given up after a while, for a node that can start it.
    fn blind(&self, why: &str, notes: &mut Notes, plan: &mut Plan) {
        let since = *notes.seen.blind_since.get_or_insert(self.world.now);
        // A keeper that was seen not to count what is here proves nothing by counting none.
        let counted = self.world.lease.known().and_then(|verdict| verdict.copies);
        let no_copy = counted == Some(0) && !self.world.keeper_blind;
        if self.world.last_end.known().is_some() {
            notes.seen.unread_since = None;
        }
        plan.wait("HypervisorUnknown", format!("the VM is left as it is: {why}"));
        if !no_copy {
            return;
        }
        let due = since + BLIND_PATIENCE;
        match self.world.document() {
            Some(desired) if self.world.now >= due => {
                if !self.may_have_left(notes, plan) {
                    self.give_up(desired, plan);
                }
            }
            _ => plan.recheck_at(due),
        }
    }

    /// True where the hypervisor cannot be asked how the copy that was here has ended, and libvirt's log says that it
    /// was moved away, or cannot be read. Once that is written down the VM may be given up: the record keeps everybody
    /// from starting it. Before its first start here the last end is that of an earlier copy.
    fn may_have_left(&self, notes: &mut Notes, plan: &mut Plan) -> bool {
        let record = self.record();
        // A copy that zsha's own migration has moved is where the record says.
        let is_plain = record.departed.is_none() && record.migration.is_none();
        if !is_plain || record.phase != VmPhase::Running || planted::is_planted(Bug::GivenUpUnread) {
            return false;
        }
        let left = notes.seen.left_as.filter(|left| left.epoch == self.epoch);
        let has_left = left.is_some_and(|left| left.how == OffReason::Migrated || left.followed);
        match &self.world.last_end {
            Observed::Known(Some(OffReason::Migrated)) => {}
            // It was seen before libvirt fell silent; since then the log may tell of another copy.
            _ if has_left => {}
            Observed::Known(_) => return false,
            Observed::Unknown(_) if self.waits_for_log(notes, plan) => return true,
            Observed::Unknown(_) => {}
        }
        self.has_moved_away(notes, plan)
    }

    fn running(&self, generation: u64, notes: &mut Notes, plan: &mut Plan) {
        notes.tried.blocked = None;
        notes.tried.failed = None;
        notes.tried.retry_at = None;
        notes.seen.blind_since = None;
        notes.tried.failed_rounds = 0;
        notes.seen.faulted_since = None;
        notes.seen.unexplained = false;
        if let Some((first, _)) = notes.tried.shutdown_asked
            && self.world.now >= first + STILL_MAY_FOLLOW
        {
            notes.tried.shutdown_asked = None;
        }
        let departed = self.record().departed.is_some();
        let is_the_vm = expecting::is_the_vm(self.world);
        if is_the_vm != Some(true) {
            self.stands_in_its_place(is_the_vm.is_some(), plan);
            return;
        }
        (notes.seen.left_as, notes.seen.gone) = (None, None);
        if self.record().phase != VmPhase::Running {
            let message = format!("the VM runs on {}", self.world.me);
            let me = self.world.me.clone();
            let at = self.world.wall;
            let taken_up = self.world.start_asked().map(|start| start.id);
            plan.step(self.change(EventReason::Running, message, |record| {
                record.phase = VmPhase::Running;
                record.start_taken_up = taken_up.or(record.start_taken_up);
                record.failures.clear();
                record.departed = None;
                let reason = record
                    .last_start
                    .take()
                    .map_or_else(|| StartRecord::FOUND.to_owned(), |start| start.reason);
                record.last_start = Some(StartRecord { node: me, at, reason, generation });
            }));
        } else if departed {
            let message = format!("the VM that was moved away is back on {}", self.world.me);
            plan.step(self.change(EventReason::FoundAgain, message, |record| record.departed = None));
        } else if let Some(start) = self.world.start_asked().filter(|_| notes.tried.shutdown_asked.is_none())
        {
            // Without an answer the order would start the VM once more, whenever it is left off.
            let message = format!("{} said `zsha start`, and the VM runs", start.by);
            let id = start.id;
            plan.step(
                self.change(EventReason::StartTakenUp, message, |record| record.start_taken_up = Some(id)),
            );
        } else if let Some(desired) = self.world.document() {
            self.move_on(desired, notes, plan);
        }
    }

    /// Deals with a guest that runs here after the VM has left: it is another, or it is not known yet how it came.
    fn stands_in_its_place(&self, known: bool, plan: &mut Plan) {
        let me = &self.world.me;
        if known {
            plan.step(kill(format!(
                "somebody has started it on {me} by hand, and the VM has left {me} before: it may run where it went"
            )));
        } else {
            plan.wait(
                "CopyNotKnown",
                format!("a copy of the VM is on {me}, which the VM has left; it is seen how it came"),
            );
        }
    }
}
