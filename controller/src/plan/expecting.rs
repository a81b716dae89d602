//! Decides which copy the keeper is to find here. The keeper is told before there is one, and ends any other that
//! appears, also while this controller is down: see `zsha_runtime::lease::Expectation`.

use zsha_crds::records::VmPhase;
use zsha_runtime::lease::Expectation;

use super::decision::Plan;
use super::notes::Notes;
use super::ownership::Right;
use super::step::Step;
use crate::hypervisor::Origin;
use crate::planted::{self, Bug};
use crate::world::World;

/// Plans to tell the keeper, as the first step. It must come before a start, and every start has one: the keeper knows
/// the own copy by its process, and takes the next one that it sees for it.
pub(super) fn tell(world: &World, right: &Right, notes: &Notes, plan: &mut Plan) {
    // A keeper of an earlier build does not understand it.
    let Some(told) = world.expects() else { return };
    let starts = plan.steps.iter().any(|step| matches!(step, Step::Start { .. }));
    let expected = if starts { Some(Expectation::Own) } else { expected(world, right, notes) };
    let anew = starts && !planted::is_planted(Bug::StartWithoutLease);
    if let Some(what) = expected.filter(|what| anew || *what != told) {
        plan.steps.insert(0, Step::Expect(what));
    }
}

/// True if the VM that this node owns is, or may be, somewhere else: the record says so, or this process has seen it
/// and could not write it down yet. Where zsha moves the VM, the record says where it is.
fn has_left(world: &World, notes: &Notes) -> bool {
    let departed =
        world.record().is_some_and(|record| record.migration.is_none() && record.departed.is_some());
    (departed || notes.seen.left_as.is_some_and(|left| Some(left.epoch) == world.valid_epoch()))
        && !planted::is_planted(Bug::OwnWhereItHasLeft)
}

/// Tells, for an owner whose keeper was told to expect nothing, whether the copy that is here now is the VM, brought
/// back. A copy that somebody has made here since is not, no more than on any other node. None: it is not known how it
/// came.
pub(super) fn is_the_vm(world: &World) -> Option<bool> {
    if !matches!(world.expects(), Some(Expectation::Nothing | Expectation::Arrival))
        || planted::is_planted(Bug::OwnWhereItHasLeft)
    {
        return Some(true);
    }
    match world.domain.known().map(|facts| facts.origin) {
        Some(Origin::Migrated) => Some(true),
        Some(Origin::Booted | Origin::Restored) => Some(false),
        // The keeper knows it from the process's command line.
        Some(Origin::None | Origin::Unknown) | None => {
            let verdict = world.lease.known()?;
            verdict.copies.filter(|copies| *copies > 0).map(|_| verdict.incoming)
        }
    }
}

fn is_being_started(world: &World) -> bool {
    let starting =
        world.record().is_some_and(|record| record.phase == VmPhase::Starting && record.departed.is_none());
    // The keeper was told of every start before it began.
    starting && matches!(world.expects(), Some(Expectation::Own | Expectation::Unsaid))
}

/// The expectation to tell; None where the last one stands. A copy that is here and not named is dealt with first
/// (`unnamed`).
fn expected(world: &World, right: &Right, notes: &Notes) -> Option<Expectation> {
    let copy_here = world.local.known().map(|local| local.has_process());
    // A copy that was made here after the keeper was told of none is nobody's: the keeper ends it.
    let own_if_the_vm = || (is_the_vm(world) == Some(true)).then_some(Expectation::Own);
    match right {
        Right::Mine { .. } => match copy_here {
            Some(true) => own_if_the_vm(),
            Some(false) if has_left(world, notes) => Some(Expectation::Nothing),
            None if has_left(world, notes) => None,
            Some(false) | None => Some(Expectation::Own),
        },
        Right::Overtaken { .. } => Some(Expectation::Own),
        // It is still open whether the VM may be started here. A start that an earlier process has asked for may come
        // late; the keeper was told of that one.
        Right::Unconfirmed { .. } => match copy_here? {
            true => own_if_the_vm(),
            false if is_being_started(world) && !world.others().any(|sight| world.has_copy(sight)) => None,
            false => Some(Expectation::Nothing),
        },
        Right::Target => Some(Expectation::Arrival),
        Right::NotMine { .. } => (copy_here == Some(false)).then_some(Expectation::Nothing),
        Right::NoLease { .. } | Right::Missing | Right::Unknown { .. } => None,
    }
}
