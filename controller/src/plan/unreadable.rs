//! What is done about records that somebody has written nonsense over. It says nothing: neither that a node lives or is
//! dead, nor whose the VM is. Where it can be mended, it is.

use std::time::Duration;

use zsha_crds::records::{Owner, VmRecord};
use zsha_crds::{EventReason, NodeName};

use super::decision::Plan;
use super::ownership::{self, Standing};
use super::step::{Step, Write};
use crate::world::{Overwritten, UnreadableLease, World};

/// Whoever keeps a lease writes over nonsense within its next renewal, and one that is kept by a newer zsha in a form that
/// is not known here changes with each. What has not changed for so long is nobody's any more.
pub const LEFT_ALONE: Duration = Duration::from_secs(10);

/// What is known of a node that is named, and whose lease cannot be read.
pub fn standing(world: &World, node: &NodeName, lease: &UnreadableLease) -> Standing {
    if is_abandoned(world, lease) {
        return Standing::Gone { over: Some(lease.index) };
    }
    Standing::MayLive {
        until: world.sights.contains_key(&world.me).then_some(lease.since + LEFT_ALONE),
        because: format!(
            "the lease of {node} is there and cannot be read ({}), so nothing is known of its copy. If it lives it writes \
             it anew; if a newer zsha wrote it, upgrade this node",
            lease.why
        ),
    }
}

/// As a lease that is gone, once it has been left alone for a while: nobody can wait for what it does not say. Only by
/// whoever sees its own.
fn is_abandoned(world: &World, lease: &UnreadableLease) -> bool {
    world.sights.contains_key(&world.me) && world.now >= lease.since + LEFT_ALONE
}

/// Has a record put in the place of the first lease of another node that cannot be read, and says what comes of it. Whether
/// there is one.
pub fn is_in_the_way(world: &World, record: Option<&VmRecord>, plan: &mut Plan) -> bool {
    let Some((node, lease)) = world.unreadable_leases.iter().find(|(node, _)| **node != world.me) else {
        return false;
    };
    let named = record.and_then(|record| ownership::named(record).find(|owner| owner.node == *node));
    let of = Owner { node: node.clone(), epoch: named.map_or(0, |owner| owner.epoch) };
    let why = &lease.why;
    plan.wait(
        "CopiesUnknown",
        format!(
            "the lease of {node} cannot be read, so nobody knows whether it has a copy: {why}. If it lives it writes it \
             anew; if not, a record is put in its place and waited for"
        ),
    );
    if is_abandoned(world, lease) {
        plan.step(Step::ReplaceLease { of, over: Some(lease.index) });
    } else {
        plan.recheck_at(lease.since + LEFT_ALONE);
    }
    true
}

/// It cannot be told whether this node may run the VM: what is stays so. Where that is because its record was written
/// over, and this node is surely the owner still, it writes it down again.
pub fn hold(world: &World, because: String, plan: &mut Plan) {
    match world.vm_overwritten.as_ref().and_then(|overwritten| written_again(world, overwritten)) {
        Some(write) => {
            plan.wait("RecordOverwritten", write.message.clone());
            plan.step(write.step());
        }
        None => plan.wait("Unknown", because),
    }
}

/// The record as this node wrote it, once more. Nobody can have claimed the VM since: that takes a fence or the release of
/// this node's lease, and that has been renewed without a break; or a word of this process, and this was its last.
fn written_again(world: &World, overwritten: &Overwritten) -> Option<Write> {
    let epoch = world.valid_epoch()?;
    world.lease.known().filter(|verdict| verdict.covers(overwritten.sent))?;
    let ours = &overwritten.ours;
    let mine = ours.owner.as_ref().is_some_and(|owner| owner.node == world.me && owner.epoch == epoch);
    if !mine {
        return None;
    }
    let message = format!(
        "the ownership record was written over with something that cannot be read; {} owns the VM and writes that down \
         again",
        world.me
    );
    let record = VmRecord { revision: ours.revision + 1, note: message.clone(), ..ours.clone() };
    Some(Write::over(overwritten.index, world, epoch, record, (EventReason::Reclaimed, message)))
}
