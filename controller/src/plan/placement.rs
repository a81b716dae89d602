//! Decides which nodes could take the VM, in what order, and what the others lack. Every node runs the same function
//! over nearly the same world; where two nodes differ for a moment, the cas settles it.

use std::collections::BTreeMap;

use zsha_crds::records::{LeaseState, VmRecord};
use zsha_crds::{ConditionKind, NodeName, condition};

use super::{fitness, stability};
use crate::desired::Desired;
use crate::world::World;

/// The number of failed starts after which a node is passed over.
pub const MAX_START_FAILURES: u32 = 2;

/// The line of candidates, and the reasons why the others are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidates {
    pub fit: Vec<NodeName>,
    pub unfit: BTreeMap<NodeName, String>,
}

impl Candidates {
    /// The number of nodes before `node` in the line; None if it is not fit.
    pub fn rank(&self, node: &NodeName) -> Option<u32> {
        self.fit.iter().position(|n| n == node).and_then(|p| u32::try_from(p).ok())
    }

    /// The reasons why nodes are not in the line, in one sentence.
    pub fn why_not(&self) -> String {
        let parts: Vec<_> = self.unfit.iter().map(|(node, why)| format!("{node}: {why}")).collect();
        parts.join("; ")
    }
}

pub fn candidates(world: &World, desired: &Desired, record: &VmRecord) -> Candidates {
    let mut candidates = Candidates::default();
    // The last choice: fit, and better than nothing.
    let (mut emulating, mut last) = (Vec::new(), Vec::new());
    for node in &desired.order {
        let unfit = if *node == world.me { own_unfitness(world) } else { unfitness(world, desired, node) };
        let unfit = unfit.or_else(|| world.cordon(node).map(ToString::to_string));
        match unfit.or_else(|| failures(record, desired, node)) {
            None if is_unstable(world, node) => last.push(node.clone()),
            None if is_emulating(world, node) => emulating.push(node.clone()),
            None => candidates.fit.push(node.clone()),
            Some(why) => {
                candidates.unfit.insert(node.clone(), why);
            }
        }
    }
    candidates.fit.append(&mut emulating);
    candidates.fit.append(&mut last);
    candidates
}

/// True if the VM would be emulated there: it is slow, and a live move from a node with KVM is refused.
fn is_emulating(world: &World, node: &NodeName) -> bool {
    if *node == world.me {
        return world.offer.known().is_some_and(|offer| !offer.accelerated);
    }
    world.nodes.get(node).is_some_and(|status| fitness::says_emulated(&status.conditions))
}

/// True if the node loses its lease again and again, as it says itself.
pub(super) fn is_unstable(world: &World, node: &NodeName) -> bool {
    if *node == world.me {
        return !stability::stable(world).0;
    }
    world.nodes.get(node).is_some_and(|status| stability::says_unstable(status))
}

/// The reason why this node has failed too often under the document in force, if it has.
pub fn failures(record: &VmRecord, desired: &Desired, node: &NodeName) -> Option<String> {
    if record.failures_generation != desired.generation {
        return None;
    }
    record
        .failures
        .get(node)
        .filter(|f| f.count >= MAX_START_FAILURES)
        .map(|f| format!("the VM failed to start there {} times: {}", f.count, f.reason))
}

/// True if this node would be fit if no operator had drained it.
pub fn is_only_drained(world: &World, desired: &Desired, record: &VmRecord) -> bool {
    world.cordon(&world.me).is_some()
        && fitness::first_fault_of_its_own(&fitness::conditions(world)).is_none()
        && failures(record, desired, &world.me).is_none()
}

/// True if the node's last status says that the VM may be placed there, whatever has changed since.
pub fn says_ready(world: &World, node: &NodeName) -> bool {
    let said =
        world.nodes.get(node).and_then(|status| condition::find(&status.conditions, ConditionKind::Ready));
    said.is_some_and(zsha_crds::Condition::is_true)
}

fn own_unfitness(world: &World) -> Option<String> {
    fitness::first_fault(&fitness::conditions(world))
}

/// The reason why the node is unfit, where its own status is the only reason.
pub(super) fn is_unfit_by_its_word(
    world: &World,
    desired: &Desired,
    record: &VmRecord,
    node: &NodeName,
) -> Option<String> {
    let by_others = unfit_by_its_lease(world, node).is_some()
        || world.cordon(node).is_some()
        || failures(record, desired, node).is_some()
        || !desired.order.contains(node);
    unfit_by_its_word(world, desired, node).filter(|_| !by_others)
}

fn unfitness(world: &World, desired: &Desired, node: &NodeName) -> Option<String> {
    unfit_by_its_lease(world, node).or_else(|| unfit_by_its_word(world, desired, node))
}

fn unfit_by_its_lease(world: &World, node: &NodeName) -> Option<String> {
    let Some(sight) = world.sights.get(node) else {
        let unreadable = world.unreadable_leases.get(node);
        return Some(unreadable.map_or_else(
            || "its lease cannot be seen".to_owned(),
            |lease| format!("its lease cannot be read: {}", lease.why),
        ));
    };
    match sight.record.state {
        LeaseState::Fenced => return Some("it is fenced".to_owned()),
        LeaseState::Released => return Some("it has released its lease".to_owned()),
        LeaseState::Lost => return Some("its lease was gone and it has not renewed it since".to_owned()),
        LeaseState::Held => {}
    }
    if !sight.is_renewed(world.now) {
        return Some("it does not renew its lease".to_owned());
    }
    if !sight.record.controller_alive {
        return Some("its controller is down".to_owned());
    }
    None
}

fn unfit_by_its_word(world: &World, desired: &Desired, node: &NodeName) -> Option<String> {
    let Some(status) = world.nodes.get(node) else { return Some("it has not reported yet".to_owned()) };
    if status.observed_generation < desired.generation {
        // The node lives, and has not yet said what it thinks of this document: it keeps its place in the line.
        return None;
    }
    match condition::find(&status.conditions, ConditionKind::Ready) {
        Some(ready) if ready.is_true() => None,
        // This node knows better than the other's status whether the other is drained.
        Some(_) if fitness::lacks_only_its_operators(&status.conditions) => None,
        Some(ready) => Some(ready.message.clone()),
        None => Some("it has not said whether it is ready".to_owned()),
    }
}
