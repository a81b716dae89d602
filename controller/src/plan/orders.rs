//! What the owner does because operators asked for it by command: it shuts the VM down, or begins nothing at all.
//! Drains and migrations are in `migration`.

use zsha_crds::EventReason;
use zsha_crds::records::VmPhase;

use super::decision::Plan;
use super::notes::Notes;
use super::owner::Upkeep;
use super::shutdown::SHUTDOWN_PATIENCE;
use super::step::{Step, Still};
use crate::hypervisor::{LocalVm, OffReason, PauseReason};
use crate::intents::{Cordon, Stop};
use crate::observed::Observed;
use crate::planted::{self, Bug};

impl Upkeep<'_> {
    /// Holds still where operators want nothing to be begun, or where it is not known whether they do: a VM that runs
    /// is left as it is, and one that does not is not started. What is under way is finished.
    pub(super) fn holds_still(&self, local: LocalVm, notes: &mut Notes, plan: &mut Plan) -> bool {
        if self.is_under_way(notes) {
            return false;
        }
        let (reason, why) = match (&self.world.intents, self.world.frozen()) {
            (Observed::Unknown(why), _) => {
                ("IntentUnknown", format!("it is not known what operators want: {why}"))
            }
            (Observed::Known(_), Some(asked)) => ("Frozen", format!("frozen {asked}")),
            (Observed::Known(_), None) => return false,
        };
        match local {
            LocalVm::Running { .. } => match self.pending() {
                Some(what) => plan.wait(reason, format!("the VM is {what}, and is not: {why}")),
                None if self.world.frozen().is_none() => {
                    plan.wait(reason, format!("the VM is left as it is: {why}"));
                }
                None => {}
            },
            LocalVm::ShuttingDown { .. } => plan.wait("ShuttingDown", "the guest is shutting down"),
            // Letting this guest go on is no start: the share is back, and the guest goes on where it was.
            LocalVm::Paused { reason: PauseReason::IoError, .. } => {
                self.paused(PauseReason::IoError, notes, plan);
            }
            LocalVm::Unmanaged => plan.wait(
                reason,
                format!("a QEMU of the VM runs that libvirt does not know; it is left as it is: {why}"),
            ),
            // A VM that has left and is not written down would be taken for one that died with this node, once
            // something may be begun again.
            LocalVm::Off { reason: OffReason::Migrated | OffReason::Unread }
                if self.has_moved_away(notes, plan) => {}
            LocalVm::Absent | LocalVm::Off { .. } | LocalVm::Paused { .. } | LocalVm::Crashed => {
                plan.wait(reason, format!("the VM does not run, and is not started: {why}"));
            }
        }
        true
    }

    /// True while a start is under way, or a shutdown that the guest was asked for by a stop that stands. Another stop
    /// begins anew.
    fn is_under_way(&self, notes: &Notes) -> bool {
        let starting = matches!(self.record().phase, VmPhase::Starting | VmPhase::Stopping);
        let same = self.world.stop().is_some_and(|stop| notes.seen.stopping == Some(stop.at));
        starting || (same && notes.tried.shutdown_asked.is_some())
    }

    /// The thing that operators want of the VM that runs here, in words that follow "the VM is ...".
    fn pending(&self) -> Option<String> {
        let answered = self.record().answered.as_ref().map(|answer| answer.id);
        let migrate = self.world.migrate.as_ref().filter(|request| answered != Some(request.id));
        match (self.world.stop(), self.world.cordon(&self.world.me), migrate) {
            (Some(_), _, _) => Some("to be stopped".to_owned()),
            (None, Some(Cordon::Drained(_)), _) => Some(format!("to leave {}", self.world.me)),
            (None, _, Some(request)) => Some(format!("to be moved to {}", request.to)),
            (None, None | Some(Cordon::Unreadable(_)), None) => None,
        }
    }

    pub(super) fn stop(&self, local: LocalVm, stop: &Stop, notes: &mut Notes, plan: &mut Plan) {
        if planted::is_planted(Bug::ReleaseBeforeStop) {
            plan.step(self.stopped());
            return;
        }
        // A stop other than the one that the guest was asked for has its own time.
        if notes.seen.stopping.replace(stop.at) != Some(stop.at) {
            notes.tried.shutdown_asked = None;
        }
        match local {
            // The VM may run where it was moved to: being away does not stop it.
            LocalVm::Absent | LocalVm::Off { .. } if self.runs_elsewhere(local, notes, plan) => {}
            LocalVm::Absent | LocalVm::Off { .. } => plan.step(self.stopped()),
            LocalVm::Crashed | LocalVm::Paused { .. } | LocalVm::Unmanaged => {
                plan.step(end("it is to stop, and executes nothing"));
            }
            LocalVm::Running { .. } | LocalVm::ShuttingDown { .. } => {
                let limit = stop.limit.unwrap_or(SHUTDOWN_PATIENCE);
                self.shut_down(limit, ("an operator asked for it", Still::ToStop), notes, plan);
            }
        }
    }

    /// True if the guest that is to be stopped is, or may be, on another host.
    fn runs_elsewhere(&self, local: LocalVm, notes: &mut Notes, plan: &mut Plan) -> bool {
        (local.may_have_moved() || self.record().departed.is_some()) && self.has_moved_away(notes, plan)
            || self.hands_to_heir(Vec::new(), plan)
            || self.is_with_another(plan)
    }

    fn stopped(&self) -> Step {
        self.change(EventReason::Stopped, "stopped by command".to_owned(), |record| {
            record.owner = None;
            record.phase = VmPhase::Stopped;
        })
    }
}

fn end(because: impl Into<String>) -> Step {
    Step::KillCopy { because: because.into(), if_still: Some(Still::ToStop) }
}
