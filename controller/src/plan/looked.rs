//! Keeps an order from being judged by what a node said before it was given. So an order makes every node try at once
//! what it waits to try again, and look at its host; the node's status says after which order it has done so.

use std::time::Duration;

use zsha_crds::NodeName;
use zsha_runtime::Moment;

use super::decision::Plan;
use super::notes::{Looked, Notes};
use super::step::Step;
use crate::world::{MigrateRequest, World};

/// The time after which a node that has not looked is judged by what it said last: it runs an earlier build, or
/// something hangs there. A look takes up to 7 s where a share hangs, and the status is read every half second.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Takes in a new order: what failed before is tried at once.
pub(super) fn begin(world: &World, notes: &mut Notes) {
    if world.orders == notes.seen.looked.order {
        return;
    }
    // After a restore the next order may have the number of one that was looked after before.
    let after = notes.seen.looked.after.filter(|after| Some(*after) <= world.orders);
    notes.seen.looked = Looked { order: world.orders, tried: None, after };
    notes.tried.mount_at.clear();
    notes.tried.seed_at = None;
}

/// Notes whether this node has looked since the order, with nothing left to try. While something is being mounted that
/// is not known, nor is before the first look what there is to try.
pub(super) fn end(world: &World, notes: &mut Notes, plan: &mut Plan) {
    let tries = plan.steps.iter().any(|step| matches!(step, Step::Mount(_) | Step::WriteSeed(_)));
    let is_known = world.host.known().is_some() && !world.mounting && !tries;
    if is_known && notes.seen.looked.after != notes.seen.looked.order {
        let tried = *notes.seen.looked.tried.get_or_insert(world.now);
        match world.host_looked {
            Some(looked) if looked >= tried => notes.seen.looked.after = notes.seen.looked.order,
            Some(_) => plan.look = true,
            // That is being done.
            None => {}
        }
    }
    plan.looked_after = notes.seen.looked.after;
}

/// The moment until which `node` is waited for, where its status does not say that it has looked since the order.
pub(super) fn until(
    world: &World,
    node: &NodeName,
    request: &MigrateRequest,
    notes: &mut Notes,
) -> Option<Moment> {
    let since = match notes.seen.migration.asked {
        Some((id, since)) if id == request.id => since,
        Some(_) | None => world.now,
    };
    notes.seen.migration.asked = Some((request.id, since));
    let due = since + PATIENCE;
    let after = world.nodes.get(node).and_then(|status| status.looked_after);
    let has_looked = after.is_some_and(|after| after >= request.index);
    (!has_looked && world.now < due).then_some(due)
}
