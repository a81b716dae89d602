//! What the owner does with its VM: start it, let it run, start it again when it died, shut it down when asked, and
//! give it up when it cannot run here.

use std::time::Duration;

use zsha_crds::EventReason;
use zsha_crds::document::GuestPowerOff;
use zsha_crds::records::{StartFailures, StartRecord, VmPhase, VmRecord};
use zsha_runtime::Moment;
use zsha_runtime::lease::Expectation;

use super::decision::Plan;
use super::heard::Heard;
use super::notes::{LeftAs, Notes};
use super::others::{Guard, LOOK, nobody_else_has_a_copy};
use super::owner::{Upkeep, kill};
use super::shutdown::SHUTDOWN_PATIENCE;
use super::step::{ResumeBecause, Step, Write};
use super::{departed, ended, expecting, fitness, placement};
use crate::desired::Desired;
use crate::hypervisor::libvirt_log::UNREAD_PATIENCE;
use crate::hypervisor::{LocalVm, OffReason, PauseReason};
use crate::keeper::Verdict;
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::World;

/// Starts within the window that are not slowed down: a second is worth more than the heat of five starts.
const AT_ONCE: usize = 5;
/// Starts older than this no longer slow the next one down.
const CRASH_WINDOW: Duration = Duration::from_secs(600);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What cannot be looked at for so long is not only being restarted.
const BLIND_PATIENCE: Duration = Duration::from_secs(15);
/// What QEMU paused for a fault of its own is let go on once a second for so long, and then started afresh: it
/// executes nothing meanwhile.
pub const FAULT_PATIENCE: Duration = Duration::from_secs(5);
/// A guest may follow a request to power off so long after it, though that was taken back.
const STILL_MAY_FOLLOW: Duration = Duration::from_secs(5 * SHUTDOWN_PATIENCE.as_secs());

/// Called only when this node owns the VM, its lease is valid, and this process wrote the record.
pub fn keep(world: &World, notes: &mut Notes, epoch: u64, plan: &mut Plan) {
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
    if local != (LocalVm::Off { reason: OffReason::Unread }) {
        notes.seen.unread_since = None;
    }
    if !local.is_incoming() {
        notes.seen.left = None;
    }
    if !matches!(local, LocalVm::Paused { reason: PauseReason::Incoming | PauseReason::Fault, .. }) {
        notes.seen.migration.left_by_ours = false;
    }
    if let Some(migration) = &stored.record.migration {
        if migration.to.node == world.me {
            owner.arrived(local, notes, plan);
        } else {
            owner.moving(migration, local, notes, plan);
        }
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
        // Also for a moment while a process that was killed goes.
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

/// The record names this node and epoch, and an earlier process wrote it: write it again, so that a write of that
/// process still on its way fails, and only then act on it. Touches no VM. Without a copy here the record proves
/// little (it may have come back with a snapshot, and the VM run elsewhere by now), so the others are asked first.
pub fn adopt(world: &World, notes: &mut Notes, epoch: u64, plan: &mut Plan) {
    let Some(stored) = world.stored() else { return };
    if planted::is_planted(Bug::RestartKills) && world.local.known().is_some_and(|local| local.has_process())
    {
        plan.step(kill("a bug is planted"));
    }
    let is_unexplained =
        |reason| matches!(reason, PauseReason::Asked | PauseReason::Incoming | PauseReason::Other);
    // What it stood by for, and has not settled since, is what is here.
    let expected = stored.record.migration.as_ref().is_some_and(|migration| {
        migration.to.node == world.me && notes.seen.migration.expected == Some(migration.id)
    });
    // Nor can the VM have gone on elsewhere where the copy is this node's own in the present life of its lease.
    let own = world.expects_own();
    // It was to take in a guest in this very life, of which the record says nothing: that is of another time.
    let of_another_time = world.expects() == Some(Expectation::Arrival) && stored.record.migration.is_none();
    if (world.went_back || of_another_time)
        && !expected
        && !own
        && let Some(LocalVm::Paused { reason, .. }) = world.local.known()
        && is_unexplained(*reason)
    {
        plan.step(kill(
            "the store has gone back in time, and nothing there says any more what this paused copy is (a migration \
             may have brought it, and the VM have gone on elsewhere)",
        ));
        return;
    }
    let seen = |verdict: &Verdict| verdict.copies.is_some_and(|copies| copies > 0);
    // The keeper's count may be as old as its last renewal: it stands in only where the hypervisor says nothing.
    let copy_here = match &world.local {
        Observed::Known(local) => local.has_process(),
        Observed::Unknown(_) => world.lease.known().is_some_and(seen),
    };
    let target = stored.record.migration.as_ref().map(|migration| &migration.to.node);
    let guard = Guard { fenced: &[], strict: world.went_back, target, starts: true };
    notes.seen.ask_others |= !copy_here;
    if !copy_here
        && world.frozen().is_none()
        && (Upkeep { world, stored, epoch }).hands_to_heir(Vec::new(), plan)
    {
        return;
    }
    let rests_on = if copy_here || planted::is_planted(Bug::AdoptedUnasked) {
        Vec::new()
    } else {
        let Some(rests_on) = nobody_else_has_a_copy(world, &guard, plan) else { return };
        rests_on
    };
    let message = match &stored.record.migration {
        Some(migration) if migration.to.node == world.me => {
            format!("{} was handed the VM and takes it over", world.me)
        }
        // A process that had written it before has not restarted.
        _ if world.vm_before.is_some() => format!(
            "{} was shown an older state of the store (its server lags, or a snapshot was restored) and writes down \
             again that the VM is its own",
            world.me
        ),
        _ => format!("the controller of {} has restarted and goes on with what is there", world.me),
    };
    // What this process had written later, in the same life, is how things are.
    let later =
        |before: &&VmRecord| before.revision > stored.record.revision && before.owner == stored.record.owner;
    let known = world.vm_before.as_ref().filter(later).unwrap_or(&stored.record);
    let mut record = VmRecord { revision: known.revision + 1, ..known.clone() };
    if world.went_back
        && own
        && record.migration.is_none()
        && let Some(LocalVm::Paused { reason: PauseReason::Asked, .. }) = world.local.known()
    {
        // It was being started, or let in, when the store went back: that is finished.
        record.phase = VmPhase::Starting;
    }
    if !copy_here && record.departed.is_none() {
        record.departed = world.departed_before.clone();
    }
    notes.seen.unexplained = world.went_back && !own;
    let write = Write::over(stored.index, world, epoch, record, (EventReason::Adopted, message));
    plan.step(Write { rests_on, ..write }.step());
}

/// The store went back to a time before this node became the owner, and its copy runs: what it had written is written
/// again. Whoever is named instead cannot have started one meanwhile: this node's lease says that it has a copy.
pub fn reclaim(world: &World, epoch: u64, plan: &mut Plan) {
    let (Some(stored), Some(before)) = (world.stored(), &world.vm_before) else {
        return;
    };
    let message = format!(
        "the store has gone back in time (a snapshot was restored?); {} goes on with the VM and writes that down again",
        world.me
    );
    let record = VmRecord {
        revision: before.revision.max(stored.record.revision) + 1,
        note: message.clone(),
        ..before.clone()
    };
    plan.step(Write::over(stored.index, world, epoch, record, (EventReason::Reclaimed, message)).step());
}

impl Upkeep<'_> {
    /// Once the VM has left, what has ended here since was another, which somebody had made in its place: how that has ended says
    /// nothing of the VM. It takes the store to write down that it has left, which may be away.
    fn as_it_left(&self, local: LocalVm, notes: &mut Notes) -> LocalVm {
        let record = self.record();
        let runs =
            record.phase == VmPhase::Running && record.migration.is_none() && record.departed.is_none();
        let before = notes.seen.left_as.filter(|left| runs && left.epoch == self.epoch);
        let (at, unexpected) = (self.world.now, self.unexpected());
        notes.seen.left_as = match (local, before) {
            // What could not be read says nothing against what was.
            (
                LocalVm::Off { reason: how },
                None | Some(LeftAs { how: OffReason::Unread, followed: false, .. }),
            ) if runs && local.may_have_moved() => {
                Some(LeftAs { epoch: self.epoch, how, at, unexpected, followed: false })
            }
            // It can be read by now, and says how the VM has ended.
            (
                LocalVm::Absent | LocalVm::Off { .. },
                Some(LeftAs { how: OffReason::Unread, followed: false, .. }),
            ) if self.is_told_how(local) => None,
            (_, before) => before,
        };
        match notes.seen.left_as.filter(|_| !local.has_process()) {
            Some(left) => LocalVm::Off { reason: left.how },
            None => local,
        }
    }

    /// Whether libvirt says how the copy that was here has ended, and that it was not moved away. That it says nothing is no
    /// such word: its log may be empty, or begin with another start.
    fn is_told_how(&self, local: LocalVm) -> bool {
        let by_log = matches!(self.world.last_end, Observed::Known(Some(_)));
        let by_itself = matches!(local, LocalVm::Off { reason } if reason != OffReason::Unknown);
        !local.may_have_moved() && (by_itself || by_log)
    }

    /// Once there was another process in the place of a VM that may have left, how the last one has ended says nothing of it.
    fn sees_another(&self, notes: &mut Notes) {
        let here = self.world.local.known().is_some_and(LocalVm::has_process);
        let unexpected = self.unexpected();
        let verdict = self.world.lease.known();
        let Some(left) = &mut notes.seen.left_as else { return };
        let counted = verdict.is_some_and(|verdict| {
            verdict.copies.is_some_and(|copies| copies > 0)
                && verdict.counted_at.is_some_and(|at| at > left.at)
        });
        left.followed |= here || counted || left.unexpected != unexpected;
    }

    /// How many copies the keeper has ended as unexpected.
    fn unexpected(&self) -> u64 {
        let ended = self.world.lease.known().and_then(|verdict| verdict.unexpected);
        ended.map_or(0, |ended| ended.count)
    }

    /// The hypervisor does not answer. A VM that runs is left as it is; one that surely does not is set free after a
    /// while for a node that can start it.
    fn blind(&self, why: &str, notes: &mut Notes, plan: &mut Plan) {
        let since = *notes.seen.blind_since.get_or_insert(self.world.now);
        // A keeper that was seen not to count what is here says nothing by counting none.
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

    /// The hypervisor cannot be asked how the copy that was here has ended, and libvirt's log says that it was moved away, or
    /// cannot be read. Once that is written down the VM may be given up: the record keeps everybody from starting it. Before its
    /// first start here the last end is that of an earlier copy.
    fn may_have_left(&self, notes: &mut Notes, plan: &mut Plan) -> bool {
        let record = self.record();
        // Of one by zsha's own migration the record says where it went.
        let is_plain = record.departed.is_none() && record.migration.is_none();
        if !is_plain || record.phase != VmPhase::Running || planted::is_planted(Bug::GivenUpUnread) {
            return false;
        }
        let left = notes.seen.left_as.filter(|left| left.epoch == self.epoch);
        let has_left = left.is_some_and(|left| left.how == OffReason::Migrated || left.followed);
        match &self.world.last_end {
            Observed::Known(Some(OffReason::Migrated)) => {}
            // It was seen before libvirt fell silent; since then its log may tell of another.
            _ if has_left => {}
            Observed::Known(_) => return false,
            Observed::Unknown(_) if self.waits_for_log(notes, plan) => return true,
            Observed::Unknown(_) => {}
        }
        self.has_moved_away(notes, plan)
    }

    /// Whether libvirt's log, which cannot be read, may still say how the VM has ended here.
    pub(super) fn waits_for_log(&self, notes: &mut Notes, plan: &mut Plan) -> bool {
        let due = *notes.seen.unread_since.get_or_insert(self.world.now) + UNREAD_PATIENCE;
        if self.world.now >= due {
            return false;
        }
        plan.recheck_at(due);
        let secs = self.world.now.until(due).as_secs();
        let why = match &self.world.last_end {
            Observed::Unknown(why) => why,
            Observed::Known(_) => "it was not asked for",
        };
        plan.wait(
            "LogUnread",
            format!(
                "it is not known how the VM has ended here ({why}), so it may have been moved away: if that stays so for \
                 {secs} s more, it is started nowhere before `zsha start`. See that libvirt runs, and that \
                 `libvirtLogDirectory` is where it keeps the log of the VM"
            ),
        );
        true
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
            // Else it would start the VM once more, whenever that is left off.
            let message = format!("{} said `zsha start`, and the VM runs", start.by);
            let id = start.id;
            plan.step(
                self.change(EventReason::StartTakenUp, message, |record| record.start_taken_up = Some(id)),
            );
        } else if let Some(desired) = self.world.document() {
            self.move_on(desired, notes, plan);
        }
    }

    /// The VM has left, and a guest runs here that is another, or of which it is not known yet how it came.
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

    pub(super) fn paused(&self, reason: PauseReason, notes: &mut Notes, plan: &mut Plan) {
        if self.count_failure(notes, plan) {
            return;
        }
        if self.too_many_failures() {
            plan.step(kill("it does not start here"));
            return;
        }
        if let Some(at) = notes.tried.retry_at.filter(|at| self.world.now < *at) {
            plan.recheck_at(at);
            return;
        }
        match reason {
            PauseReason::Asked if self.record().phase == VmPhase::Starting => {
                plan.step(Step::Resume { epoch: self.epoch, because: ResumeBecause::Started });
            }
            PauseReason::IoError => {
                plan.wait(
                    "IoError",
                    "the guest is paused: its disk gave an error. It goes on when the share does",
                );
                self.try_on(ResumeBecause::IoErrorOver, plan);
            }
            PauseReason::Leaving => plan.wait(
                "MovedByHand",
                "the guest is paused by a migration that is under way, and that zsha has not begun or has given up: it is \
                 left alone until that has ended. `virsh domjobinfo mnvm` says how far it is, `virsh domjobabort mnvm` ends it",
            ),
            PauseReason::Fault => self.faulted(notes, plan),
            PauseReason::Incoming => self.left_paused(notes, plan),
            PauseReason::Asked | PauseReason::Other if notes.seen.unexplained => plan.step(kill(
                "nothing says what this paused copy is: the store has gone back in time, or a migration is said to \
                 have ended elsewhere",
            )),
            PauseReason::Asked | PauseReason::Other => plan.wait(
                "Paused",
                "the guest was paused by a command that was not zsha's; `virsh resume mnvm` lets it go on",
            ),
        }
    }

    /// QEMU stopped the guest because something went wrong in it or around it.
    fn faulted(&self, notes: &mut Notes, plan: &mut Plan) {
        let since = *notes.seen.faulted_since.get_or_insert(self.world.now);
        if self.world.now >= since + FAULT_PATIENCE {
            plan.step(kill("QEMU has paused the guest for a fault of its own, and it does not go on"));
            return;
        }
        plan.wait(
            "Faulted",
            "QEMU has paused the guest for a fault of its own; it is let go on, or started afresh",
        );
        self.try_on(ResumeBecause::FaultOver, plan);
    }

    /// No migration from here is under way: one by hand is coming back, or one has ended and left the guest paused. It may have gone on
    /// where it went, seen or not, and then its memory here is older than its disk. So what zsha's own has not left is never let
    /// go on: where nobody else has the guest it is started afresh.
    fn left_paused(&self, notes: &mut Notes, plan: &mut Plan) {
        if notes.seen.migration.left_by_ours || planted::is_planted(Bug::SourceGoesOnUnasked) {
            // The target of zsha's own is let run by the record only, which does not name it.
            self.faulted(notes, plan);
            return;
        }
        let heard = notes.seen.left.get_or_insert_with(|| Heard::now(self.world)).clone();
        plan.recheck_at(self.world.now + LOOK);
        if self.record().departed.is_some() && self.world.start_asked().is_none() {
            plan.wait(
                "Arriving",
                "the VM had left this node, and is being moved back by hand. Where nothing comes any more, see that it runs \
                 nowhere else, and say `zsha start`",
            );
            return;
        }
        if self.world.frozen().is_none()
            && let Some(heir) = departed::heir(self.world)
        {
            plan.step(kill(format!("the VM was moved to {} by hand, and runs there", heir.node)));
            return;
        }
        let guard = Guard { fenced: &[], strict: true, target: None, starts: true };
        if nobody_else_has_a_copy(self.world, &guard, plan).is_none() {
            return;
        }
        match heard.silent(self.world) {
            Some(node) => plan.wait(
                "CopiesNotConfirmed",
                format!(
                    "a migration has left the guest paused; {node} has to renew its lease, to show that it does not \
                     go on there"
                ),
            ),
            None => plan.step(kill(
                "a migration that was not zsha's has left it paused, and it may have gone on with its disk elsewhere since",
            )),
        }
    }

    /// Lets go on what QEMU has stopped.
    fn try_on(&self, because: ResumeBecause, plan: &mut Plan) {
        if let Some(pause) = because.again_after() {
            plan.recheck_at(self.world.now + pause);
        }
        plan.step(Step::Resume { epoch: self.epoch, because });
    }

    fn not_running(&self, reason: OffReason, notes: &mut Notes, plan: &mut Plan) {
        let Some(desired) = self.world.document().cloned() else {
            plan.wait("DocumentUnknown", "the VM is not started: the document is not known");
            return;
        };
        if self.record().phase == VmPhase::Running
            && self.left_off(reason, &desired, notes.tried.shutdown_asked.is_some(), plan)
        {
            return;
        }
        if self.is_elsewhere(reason, notes, plan) {
            return;
        }
        if self.count_failure(notes, plan) {
            return;
        }
        if let Some(unknown) = fitness::first_unknown(&plan.conditions) {
            let since = *notes.seen.blind_since.get_or_insert(self.world.now);
            if self.world.now < since + BLIND_PATIENCE {
                plan.recheck_at(since + BLIND_PATIENCE);
                plan.wait("NotLookedYet", unknown);
                return;
            }
        } else {
            notes.seen.blind_since = None;
        }
        if self.give_up(&desired, plan) {
            return;
        }
        let due = next_start(notes, self.world.now).max(notes.tried.retry_at.unwrap_or_default());
        if self.world.now < due {
            plan.recheck_at(due);
            let why = notes
                .tried
                .blocked
                .clone()
                .unwrap_or_else(|| "it died soon after its last starts".to_owned());
            let secs = self.world.now.until(due).as_secs_f64();
            plan.wait("StartDelayed", format!("the next try is in {secs:.0} s: {why}"));
            return;
        }
        if self.is_to_ask(notes) {
            let guard = Guard { fenced: &[], strict: self.asks_strictly(notes), target: None, starts: true };
            let asked = match planted::is_planted(Bug::StartWithoutLease) {
                true => Some(Vec::new()),
                false => nobody_else_has_a_copy(self.world, &guard, plan),
            };
            let Some(rests_on) = asked else { return };
            // With the others' word in the write: whoever has a copy by then makes it fail.
            let mut step = self.starting(reason, notes, &desired);
            if let Step::Write(write) = &mut step {
                write.rests_on = rests_on;
            }
            plan.step(step);
        } else if [Bug::CopyElsewhereIgnored, Bug::StartWithoutLease].into_iter().any(planted::is_planted)
            || !self.is_with_another(plan)
        {
            // They had none as it was written that the VM is to be started; what has come since is not started beside.
            plan.step(Step::Start {
                domain: desired.domain.clone(),
                seed: desired.seeds.get(&self.world.me).cloned(),
                epoch: self.epoch,
            });
        }
    }

    fn starting(&self, off: OffReason, notes: &Notes, desired: &Desired) -> Step {
        let killed = matches!(off, OffReason::Died | OffReason::Destroyed);
        let by_keeper = ended::by_keeper(self.world, self.record(), notes).filter(|_| killed);
        let by_keeper = by_keeper.map(|how| format!("{} starts the VM again: {how}", self.world.me));
        let (reason, message) = match (off, &by_keeper) {
            (_, Some(message)) => (EventReason::LeaseEnded, message.as_str()),
            (OffReason::Died, None) => (EventReason::QemuDied, "QEMU died; the VM is started again"),
            (OffReason::Shutdown, None) => {
                (EventReason::GuestPoweredOff, "the guest powered itself off; it is started again")
            }
            (OffReason::Destroyed, None) => {
                (EventReason::Destroyed, "the VM was destroyed from outside; it is started again")
            }
            (OffReason::Migrated | OffReason::Unread | OffReason::Unknown, None) => {
                (EventReason::NotRunning, "the VM does not run here; it is started")
            }
        };
        let start = StartRecord {
            node: self.world.me.clone(),
            at: self.world.wall,
            reason: reason.as_str().to_owned(),
            generation: desired.generation,
        };
        self.change(reason, message.to_owned(), |record| {
            record.phase = VmPhase::Starting;
            record.last_start = Some(start);
            record.departed = None;
        })
    }

    /// A guest that powered itself off is left so where the document says so; not one that was `asked` to, by a stop
    /// that was taken back since.
    fn left_off(&self, reason: OffReason, desired: &Desired, asked: bool, plan: &mut Plan) -> bool {
        let left = reason == OffReason::Shutdown && desired.power_off == GuestPowerOff::StayOff && !asked;
        if left {
            let message = "the guest powered itself off, and `GuestPowerOff` is 'StayOff'".to_owned();
            plan.step(self.change(EventReason::PoweredOff, message, |record| {
                record.owner = None;
                record.phase = VmPhase::PoweredOff;
            }));
        }
        left
    }

    /// A start that failed goes into the record before anything else is tried.
    fn count_failure(&self, notes: &mut Notes, plan: &mut Plan) -> bool {
        let Some(reason) = notes.tried.failed.clone() else { return false };
        let me = self.world.me.clone();
        let generation = self.world.document().map_or(0, |d| d.generation);
        plan.step(self.change(
            EventReason::StartFailed,
            format!("starting the VM on {me} failed: {reason}"),
            |record| {
                if record.failures_generation != generation {
                    record.failures.clear();
                    record.failures_generation = generation;
                }
                let failures =
                    record.failures.entry(me).or_insert(StartFailures { count: 0, reason: String::new() });
                failures.count += 1;
                failures.reason = reason;
            },
        ));
        true
    }

    fn too_many_failures(&self) -> bool {
        self.world
            .document()
            .is_some_and(|desired| placement::failures(self.record(), desired, &self.world.me).is_some())
    }

    /// Whether the VM cannot be started here but perhaps elsewhere: then nobody owns it, and the others try.
    fn give_up(&self, desired: &Desired, plan: &mut Plan) -> bool {
        let line = placement::candidates(self.world, desired, self.record());
        let Some(why) = line.unfit.get(&self.world.me) else { return false };
        let failed_everywhere =
            desired.order.iter().all(|node| placement::failures(self.record(), desired, node).is_some());
        if failed_everywhere {
            let message = format!("the VM could not be started on any node: {}", line.why_not());
            plan.step(self.change(EventReason::Failed, message, |record| {
                record.owner = None;
                record.phase = VmPhase::Failed;
            }));
        } else if line.fit.is_empty() && placement::is_only_drained(self.world, desired, self.record()) {
            // It was to leave, and has nowhere to go: it is no worse off here than nowhere.
            return false;
        } else if line.fit.is_empty() && !self.too_many_failures() {
            plan.wait("NoNodeFit", format!("the VM waits for a fit node. {}", line.why_not()));
        } else {
            let message = format!("{} gives the VM up: {why}", self.world.me);
            plan.step(self.change(EventReason::GaveUp, message, |record| {
                record.owner = None;
                record.phase = VmPhase::Stopped;
            }));
        }
        true
    }
}

/// A VM that dies soon after each start is started ever more slowly: a few times at once, then after 1, 2, 4 ... 60 s.
fn next_start(notes: &Notes, now: Moment) -> Moment {
    let lately: Vec<_> = notes.tried.starts.iter().filter(|at| now.since(**at) < CRASH_WINDOW).collect();
    match (lately.len(), lately.last()) {
        (_, None) => Moment::default(),
        (n, _) if n <= AT_ONCE => Moment::default(),
        (n, Some(last)) => {
            let doublings = u32::try_from(n - AT_ONCE - 1).unwrap_or(u32::MAX).min(6);
            **last + (Duration::from_secs(1) * 2u32.pow(doublings)).min(LONGEST_PAUSE)
        }
    }
}
