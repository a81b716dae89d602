//! What the owner does with a VM whose disk is not reached from its node.

use std::time::Duration;

use zsha_crds::{Condition, ConditionStatus, NodeName};

use super::upkeep::{Upkeep, kill};
use super::{Notes, Plan, fitness, placement};
use crate::hypervisor::{LocalVm, PauseReason};
use crate::planted::{self, Bug};

/// A disk that is not reached from here for so long, while another node is fit, is not reached again soon: three looks at
/// the host, and longer than the others need to find that they do not reach it either.
const STORAGE_PATIENCE: Duration = Duration::from_secs(30);

impl Upkeep<'_> {
    /// The host says that the VM's disk is not reached from here. Such a guest is of no use and cannot be moved live; where
    /// another node is fit, and so reaches the disk, it is ended after a while, and started there. Where nobody is, that
    /// would help nobody, and a guest that is paused for it is let go on when the share is back. Whether this is all that
    /// is to be done.
    pub(super) fn without_storage(&self, local: LocalVm, notes: &mut Notes, plan: &mut Plan) -> bool {
        let waits_for_it = matches!(local, LocalVm::Paused { reason: PauseReason::IoError, .. });
        // What QEMU has open it may still reach where a look at the path finds something wrong, unless that hangs.
        let counts = |c: &&Condition| {
            waits_for_it
                || c.status == ConditionStatus::Unknown
                || planted::is_planted(Bug::AnyFaultIsLostStorage)
        };
        let fault = fitness::storage_fault(&plan.conditions).filter(counts);
        let why = fault.filter(|_| local.has_process()).map(|fault| fault.message.clone());
        let (Some(why), Some(desired)) = (why, self.world.document()) else {
            notes.storage_lost_since = None;
            return false;
        };
        let line = placement::candidates(self.world, desired, self.record());
        let ready = |node: &&NodeName| **node != self.world.me && placement::says_ready(self.world, node);
        let Some(other) = line.fit.iter().find(ready) else {
            notes.storage_lost_since = None;
            plan.wait(
                "StorageLost",
                format!("the VM's disk is not reached, and no other node is fit. {}", line.why_not()),
            );
            return waits_for_it;
        };
        let since = *notes.storage_lost_since.get_or_insert(self.world.now);
        let due = since + STORAGE_PATIENCE;
        if self.world.now >= due || planted::is_planted(Bug::StorageNeedsNoPatience) {
            // Nothing is waited for a second time once it is dead.
            notes.blind_since = Some(since);
            plan.step(kill(format!("its disk is not reached from here ({why}), and {other} is fit")));
            return true;
        }
        plan.recheck_at(due);
        let secs = STORAGE_PATIENCE.as_secs();
        plan.wait(
            "StorageLost",
            format!("the VM's disk is not reached ({why}); after {secs} s of that it is started on {other}"),
        );
        waits_for_it
    }
}
