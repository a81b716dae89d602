//! Which copy the keeper is to find here. It is told before there is one, and ends whatever else appears, also while
//! this controller is down: see `zsha_runtime::lease::Expectation`.

use zsha_runtime::lease::Expectation;

use super::ownership::Right;
use super::{Plan, Step};
use crate::hypervisor::Origin;
use crate::planted::{self, Bug};
use crate::world::World;

/// Puts it first: a start must not come before it, and every start has one: the keeper knows the own copy by the process, and
/// the next one that it sees is it.
pub(super) fn tell(world: &World, right: &Right, plan: &mut Plan) {
    // A keeper from before this was told does not understand it.
    let Some(told) = world.expects() else { return };
    let starts = plan.steps.iter().any(|step| matches!(step, Step::Start { .. }));
    let expected = if starts { Some(Expectation::Own) } else { expected(world, right) };
    if let Some(what) = expected.filter(|what| starts || *what != told) {
        plan.steps.insert(0, Step::Expect(what));
    }
}

/// Whether the VM that this node owns is somewhere else, as the record says. Where zsha moves it, it says where.
fn has_left(world: &World) -> bool {
    let record = world.vm.known().and_then(Option::as_ref).map(|vm| &vm.record);
    record.is_some_and(|record| record.migration.is_none() && record.departed.is_some())
        && !planted::is_planted(Bug::OwnWhereItHasLeft)
}

/// Of an owner whose VM has left: whether what is here now is that, brought back. What somebody has made here since is not,
/// no more than on any other node. None: it is not known how it came.
pub(super) fn is_the_vm(world: &World) -> Option<bool> {
    if !matches!(world.expects(), Some(Expectation::Nothing | Expectation::Arrival))
        || planted::is_planted(Bug::OwnWhereItHasLeft)
    {
        return Some(true);
    }
    match world.domain.known().map(|facts| facts.origin) {
        Some(Origin::Migrated) => Some(true),
        Some(Origin::Booted | Origin::Restored) => Some(false),
        // The keeper tells by its command line.
        Some(Origin::None | Origin::Unknown) | None => {
            let verdict = world.lease.known()?;
            verdict.copies.filter(|copies| *copies > 0).map(|_| verdict.incoming)
        }
    }
}

/// None: what was said stands. A copy that is here and not named is dealt with first (`unnamed`).
fn expected(world: &World, right: &Right) -> Option<Expectation> {
    let copy_here = world.local.known().map(|local| local.has_process());
    match right {
        Right::Mine { .. } if has_left(world) => match copy_here {
            Some(false) => Some(Expectation::Nothing),
            // What was made here since is none of this node's: its keeper ends it.
            Some(true) => (is_the_vm(world) == Some(true)).then_some(Expectation::Own),
            None => None,
        },
        Right::Mine { .. } | Right::Overtaken { .. } => Some(Expectation::Own),
        // Whether it may be started here is still to be seen.
        Right::Unconfirmed { .. } => match copy_here? {
            true => (!has_left(world) || is_the_vm(world) == Some(true)).then_some(Expectation::Own),
            false => Some(Expectation::Nothing),
        },
        Right::Target => Some(Expectation::Arrival),
        Right::NotMine { .. } => (copy_here == Some(false)).then_some(Expectation::Nothing),
        Right::NoLease { .. } | Right::Missing | Right::Unknown { .. } => None,
    }
}
