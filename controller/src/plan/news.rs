//! What people should hear of though nothing is done about it.

use zsha_crds::records::VmPhase;

use super::{Notes, stability};
use crate::hypervisor::{LocalVm, PauseReason};
use crate::world::World;

/// A warning: one word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub reason: &'static str,
    pub message: String,
}

/// Each once. What was so before this controller began is no news.
pub fn news(world: &World, notes: &mut Notes) -> Vec<News> {
    let late = late(world, notes).map(|message| News { reason: "LeaseAtRisk", message });
    let paused = paused(world, notes).map(|message| News { reason: "Paused", message });
    let unexpected = unexpected(world, notes).map(|message| News { reason: "UnexpectedCopyEnded", message });
    let unstable = unstable(world, notes).map(|message| News { reason: "Unstable", message });
    late.into_iter().chain(paused).chain(unexpected).chain(unstable).collect()
}

/// The lease of the node that runs the VM was in danger, and nothing came of it.
fn late(world: &World, notes: &mut Notes) -> Option<String> {
    let late = world.lease.known()?.late;
    let count = late.map_or(0, |late| late.count);
    let told = notes.late_told.replace(count)?;
    let late = late.filter(|late| late.count > told)?;
    let has_copy = world.local.known().is_some_and(|local| local.has_process());
    has_copy.then(|| {
        format!(
            "the lease of {} could not be renewed for {:.1} s; after {} s the VM would have been ended. It is renewed again. \
             Look at Consul's load and leader, and at the network between the nodes",
            world.me,
            late.gap.as_secs_f64(),
            late.of.as_secs_f64()
        )
    })
}

/// The keeper has ended a copy that zsha has not started.
fn unexpected(world: &World, notes: &mut Notes) -> Option<String> {
    let verdict = world.lease.known()?;
    let count = verdict.unexpected.map_or(0, |ended| ended.count);
    let told = notes.unexpected_told.replace(count)?;
    (count > told).then(|| {
        format!(
            "a copy of the VM was started on {} by somebody else than zsha (`virsh start`, a definition that was left, a \
             QEMU by hand), and the keeper has ended it: the VM was not to run there",
            world.me
        )
    })
}

/// This node has lost its lease too often.
fn unstable(world: &World, notes: &mut Notes) -> Option<String> {
    let said = world.nodes.get(&world.me).is_some_and(|status| stability::says_unstable(status));
    let (stable, _, message) = stability::stable(world);
    let told = notes.unstable_told.replace(!stable).unwrap_or(said);
    (!stable && !told).then_some(message)
}

/// The guest of the VM's owner stands still, and not because zsha wanted it.
fn paused(world: &World, notes: &mut Notes) -> Option<String> {
    let local = world.local.known()?;
    let LocalVm::Paused { reason, .. } = local else {
        notes.paused_told = None;
        return None;
    };
    let record = &world.vm.known()?.as_ref()?.record;
    let mine = record.owner.as_ref().is_some_and(|owner| owner.node == world.me);
    if !mine || record.migration.is_some() || notes.paused_told == Some(*reason) {
        return None;
    }
    let why = match reason {
        PauseReason::IoError => "its disk gives errors. It goes on when the share does",
        PauseReason::Fault => "of a fault of QEMU's own. It is let go on, or started afresh",
        // As zsha starts it, it is paused as well.
        PauseReason::Asked if record.phase != VmPhase::Running => return None,
        PauseReason::Asked | PauseReason::Other => {
            "of a command that was not zsha's. `virsh resume mnvm` lets it go on"
        }
        PauseReason::Leaving => "of a migration that was not zsha's and is under way",
        PauseReason::Incoming => return None,
    };
    notes.paused_told = Some(*reason);
    Some(format!("the guest on {} is paused, because {why}", world.me))
}
