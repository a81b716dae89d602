//! Which copy the keeper is to find here. It is told before there is one, and ends whatever else appears, also while
//! this controller is down: see `zsha_runtime::lease::Expectation`.

use zsha_runtime::lease::Expectation;

use super::ownership::Right;
use super::{Plan, Step};
use crate::world::World;

/// Puts it first: a start must not come before it.
pub(super) fn tell(world: &World, right: &Right, plan: &mut Plan) {
    // A keeper from before this was told does not understand it.
    let Some(told) = world.lease.known().and_then(|verdict| verdict.expects) else { return };
    if let Some(what) = expected(world, right).filter(|what| *what != told) {
        plan.steps.insert(0, Step::Expect(what));
    }
}

/// None: what was said stands. A copy that is here and not named is dealt with first (`unnamed`).
fn expected(world: &World, right: &Right) -> Option<Expectation> {
    let copy_here = world.local.known().map(|local| local.has_process());
    match right {
        Right::Mine { .. } | Right::Overtaken { .. } => Some(Expectation::Own),
        // Whether it may be started here is still to be seen.
        Right::Unconfirmed { .. } => (copy_here == Some(true)).then_some(Expectation::Own),
        Right::Target => Some(Expectation::Arrival),
        Right::NotMine { .. } => (copy_here == Some(false)).then_some(Expectation::Nothing),
        Right::NoLease { .. } | Right::Missing | Right::Unknown { .. } => None,
    }
}
