//! Decides for the owner's guest that is paused: it is let go on, left alone, or ended.

use std::time::Duration;

use zsha_crds::records::VmPhase;

use super::decision::Plan;
use super::departed;
use super::heard::Heard;
use super::notes::Notes;
use super::others::{Guard, LOOK, nobody_else_has_a_copy};
use super::owner::{Upkeep, kill};
use super::step::{ResumeBecause, Step};
use crate::hypervisor::PauseReason;
use crate::planted::{self, Bug};

/// The time for which QEMU, paused by a fault of its own, is let go on once a second; then the VM is started afresh.
/// The guest executes nothing meanwhile.
pub const FAULT_PATIENCE: Duration = Duration::from_secs(5);

impl Upkeep<'_> {
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

    /// Deals with a guest that QEMU stopped because something went wrong in it or around it.
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

    /// Deals with a guest that is paused while no migration from here is under way: one by hand is coming back, or one
    /// has ended and left the guest paused. The guest may have gone where it went, seen or not, and then its memory
    /// here is older than its disk. So it is let go on only where zsha's own migration left it; otherwise it is started
    /// afresh, once nobody else has it.
    fn left_paused(&self, notes: &mut Notes, plan: &mut Plan) {
        if notes.seen.migration.left_by_ours || planted::is_planted(Bug::SourceGoesOnUnasked) {
            // The record decides whether the target of zsha's own migration is let run, and it does not name the
            // target.
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

    /// Plans to let the guest go on that QEMU has stopped.
    fn try_on(&self, because: ResumeBecause, plan: &mut Plan) {
        if let Some(pause) = because.again_after() {
            plan.recheck_at(self.world.now + pause);
        }
        plan.step(Step::Resume { epoch: self.epoch, because });
    }
}
