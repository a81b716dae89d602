//! Decides for an owner whose VM's disk is not reached from its node.
//!
//! That disk is the image and the file system that it lies on, and nothing else: another mount, a bridge or the guest's
//! seed disk may be as broken as it likes. And only a look that ran counts: what could not be looked at is told as a
//! condition, and ends nothing.

use std::time::Duration;

use zsha_crds::NodeName;

use super::decision::Plan;
use super::notes::Notes;
use super::owner::{Upkeep, kill};
use super::{fitness, placement};
use crate::host::{HostFacts, HostWants, ImageFact, ImageWant, MountFact, MountWant};
use crate::hypervisor::{LocalVm, PauseReason};
use crate::observed::Observed;
use crate::planted::{self, Bug};

/// The time after which a disk that is not reached from here, while another node is fit, will not be reached again
/// soon: three looks at the host, and longer than the others need to find that they do not reach it either.
const STORAGE_PATIENCE: Duration = Duration::from_secs(30);

impl Upkeep<'_> {
    /// Decides once the host has seen that the VM's disk is not reached from here. Such a guest is of no use and cannot
    /// be moved live. Where another node is fit, and so reaches the disk, the guest is ended after a while and started
    /// there. Where none is, that would help nobody, and a guest that is paused for its disk is let go on when the
    /// share is back. Returns true if nothing else is to be done.
    pub(super) fn without_storage(&self, local: LocalVm, notes: &mut Notes, plan: &mut Plan) -> bool {
        let waits_for_it = matches!(local, LocalVm::Paused { reason: PauseReason::IoError, .. });
        let looked = self.world.questions().zip(self.world.host.known()).filter(|_| local.has_process());
        let all_counts = waits_for_it || planted::is_planted(Bug::AnyFaultIsLostStorage);
        let why = looked.and_then(|(wants, facts)| fault(&wants, facts, all_counts));
        let (Some(why), Some(desired)) = (why, self.world.document()) else {
            notes.seen.storage_lost_since = None;
            return false;
        };
        let line = placement::candidates(self.world, desired, self.record());
        let ready = |node: &&NodeName| **node != self.world.me && placement::says_ready(self.world, node);
        let Some(other) = line.fit.iter().find(ready) else {
            notes.seen.storage_lost_since = None;
            plan.wait(
                "StorageLost",
                format!("the VM's disk is not reached, and no other node is fit. {}", line.why_not()),
            );
            return waits_for_it;
        };
        let since = *notes.seen.storage_lost_since.get_or_insert(self.world.now);
        let due = since + STORAGE_PATIENCE;
        if self.world.now >= due || planted::is_planted(Bug::StorageNeedsNoPatience) {
            // Once the copy is dead, nothing is waited for a second time.
            notes.seen.blind_since = Some(since);
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

/// The fault that a look has found with the VM's disk. For a guest that runs, only an image that does not answer
/// counts, which its own file system says: QEMU may still reach what it has open where something else is wrong at the
/// path. A guest that `waits_for_it` has had the same from its disk.
fn fault(wants: &HostWants, facts: &HostFacts, waits_for_it: bool) -> Option<String> {
    let image = match facts.image.as_ref()? {
        Observed::Known(ImageFact::NotAnswering { .. }) => true,
        Observed::Known(
            ImageFact::Missing
            | ImageFact::NotAFile
            | ImageFact::NotReadable { .. }
            | ImageFact::Barred(_)
            | ImageFact::BackingMissing { .. }
            | ImageFact::NotReached { .. },
        ) => waits_for_it,
        Observed::Known(ImageFact::Present(_) | ImageFact::Reached { .. }) => false,
        // The very file that QEMU has open answers, whatever is on the way to it; or nobody has looked.
        Observed::Known(ImageFact::Hidden { .. }) | Observed::Unknown(_) => return None,
    };
    if image {
        return Some(fitness::image(wants.image.as_ref(), facts).2);
    }
    // Another image may lie where the share is to be mounted.
    let want = carrying(wants).filter(|_| waits_for_it)?;
    match facts.mounts.get(&want.target)? {
        Observed::Known(MountFact::NotMounted | MountFact::Other { .. }) => {
            Some(fitness::mount(want, facts).2)
        }
        // The mount hangs and the image does not, so the image does not lie on it.
        Observed::Known(MountFact::NotAnswering { .. } | MountFact::Mounted { .. })
        | Observed::Unknown(_) => None,
    }
}

/// The mount of the document on which the image lies: the nearest of those above it.
fn carrying(wants: &HostWants) -> Option<&MountWant> {
    let Some(ImageWant::File(image)) = &wants.image else { return None };
    let above = wants.mounts.iter().filter(|want| image.starts_with(&want.target));
    above.max_by_key(|want| want.target.components().count())
}
