//! Tells how the copy that is gone from its owner's node has ended, by what libvirt and its log say, and by what was
//! seen.

use zsha_crds::records::VmPhase;

use super::decision::Plan;
use super::notes::{LeftAs, Notes};
use super::owner::Upkeep;
use crate::hypervisor::libvirt_log::UNREAD_PATIENCE;
use crate::hypervisor::{LocalVm, OffReason};
use crate::observed::Observed;

impl Upkeep<'_> {
    /// Tells how the VM has left. Once it has, a copy that ends here is another, which somebody had made in its place,
    /// and its end says nothing of the VM. Writing down that the VM has left takes the store, which may be away.
    pub(super) fn as_it_left(&self, local: LocalVm, notes: &mut Notes) -> LocalVm {
        let record = self.record();
        let runs =
            record.phase == VmPhase::Running && record.migration.is_none() && record.departed.is_none();
        let before = notes.seen.left_as.filter(|left| runs && left.epoch == self.epoch);
        let (at, unexpected) = (self.world.now, self.unexpected());
        notes.seen.left_as = match (local, before) {
            // A log that could not be read says nothing against what was seen.
            (
                LocalVm::Off { reason: how },
                None | Some(LeftAs { how: OffReason::Unread, followed: false, .. }),
            ) if runs && local.may_have_moved() => {
                Some(LeftAs { epoch: self.epoch, how, at, unexpected, followed: false })
            }
            // The log can be read by now, and says how the VM has ended.
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

    /// True if libvirt says how the copy that was here has ended, and that it was not moved away. Where libvirt says
    /// nothing, that proves nothing: its log may be empty, or begin with another start.
    fn is_told_how(&self, local: LocalVm) -> bool {
        let by_log = matches!(self.world.last_end, Observed::Known(Some(_)));
        let by_itself = matches!(local, LocalVm::Off { reason } if reason != OffReason::Unknown);
        !local.may_have_moved() && (by_itself || by_log)
    }

    /// Notes another process in the place of a VM that may have left: from now on the last end here says nothing of the
    /// VM.
    pub(super) fn sees_another(&self, notes: &mut Notes) {
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

    /// The number of copies that the keeper has ended as unexpected.
    fn unexpected(&self) -> u64 {
        let ended = self.world.lease.known().and_then(|verdict| verdict.unexpected);
        ended.map_or(0, |ended| ended.count)
    }

    /// True if libvirt's log, which cannot be read, may still say how the VM has ended here.
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
}
