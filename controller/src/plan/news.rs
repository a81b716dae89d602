//! The events that tell people of something though nothing is done about it.

use zsha_crds::EventReason;
use zsha_crds::records::VmPhase;

use super::stability;
use crate::hypervisor::{LocalVm, PauseReason};
use crate::in_force::SpecProblem;
use crate::world::World;

/// The value that people were last told of each thing; None: not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The problem of the stored document.
    pub spec_problem: Option<SpecProblem>,
    /// True if this node is unstable.
    pub unstable: Option<bool>,
    /// The number of late renewals of the lease.
    pub late: Option<u64>,
    /// The number of copies that the keeper has ended as unexpected.
    pub unexpected: Option<u64>,
    /// The reason why the guest stands still.
    pub paused: Option<PauseReason>,
}

/// One thing to tell: its reason, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub reason: EventReason,
    pub message: String,
}

/// The things to tell now, each once. Whatever was so before this controller began is not told.
pub fn news(world: &World, told: &mut Told) -> Vec<News> {
    let all = [
        (EventReason::LeaseAtRisk, late(world, told)),
        (EventReason::Paused, paused(world, told)),
        (EventReason::UnexpectedCopyEnded, unexpected(world, told)),
        (EventReason::Unstable, unstable(world, told)),
    ];
    all.into_iter().filter_map(|(reason, message)| Some(News { reason, message: message? })).collect()
}

/// Tells that the lease of the node that runs the VM was in danger, and that nothing came of it.
fn late(world: &World, told: &mut Told) -> Option<String> {
    let late = world.lease.known()?.late;
    let count = late.map_or(0, |late| late.count);
    let before = told.late.replace(count)?;
    let late = late.filter(|late| late.count > before)?;
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

/// Tells that the keeper has ended a copy that zsha has not started.
fn unexpected(world: &World, told: &mut Told) -> Option<String> {
    let verdict = world.lease.known()?;
    let count = verdict.unexpected.map_or(0, |ended| ended.count);
    let before = told.unexpected.replace(count)?;
    (count > before).then(|| {
        format!(
            "a copy of the VM was started on {} by somebody else than zsha (`virsh start`, a definition that was left, a \
             QEMU by hand), and the keeper has ended it: the VM was not to run there",
            world.me
        )
    })
}

/// Tells that this node has lost its lease too often.
fn unstable(world: &World, told: &mut Told) -> Option<String> {
    let said = world.nodes.get(&world.me).is_some_and(|status| stability::says_unstable(status));
    let (stable, _, message) = stability::stable(world);
    let before = told.unstable.replace(!stable).unwrap_or(said);
    (!stable && !before).then_some(message)
}

/// Tells that the guest of the VM's owner stands still, and not because zsha wanted it.
fn paused(world: &World, told: &mut Told) -> Option<String> {
    let local = world.local.known()?;
    let LocalVm::Paused { reason, .. } = local else {
        told.paused = None;
        return None;
    };
    let record = world.record()?;
    if !world.owns() || record.migration.is_some() || told.paused == Some(*reason) {
        return None;
    }
    let why = match reason {
        PauseReason::IoError => "its disk gives errors. It goes on when the share does",
        PauseReason::Fault => "of a fault of QEMU's own. It is let go on, or started afresh",
        // zsha starts the guest paused, too.
        PauseReason::Asked if record.phase != VmPhase::Running => return None,
        PauseReason::Asked | PauseReason::Other => {
            "of a command that was not zsha's. `virsh resume mnvm` lets it go on"
        }
        PauseReason::Leaving => "of a migration that was not zsha's and is under way",
        PauseReason::Incoming => return None,
    };
    told.paused = Some(*reason);
    Some(format!("the guest on {} is paused, because {why}", world.me))
}
