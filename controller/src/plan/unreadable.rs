//! Deals with records that somebody has written nonsense over, or deleted. Such a record says nothing: neither whether
//! a node lives nor whose the VM is. Where it can be mended, it is.

use std::time::Duration;

use zsha_crds::EventReason;
use zsha_crds::records::{LEASE_LOOK_MILLIS, Owner, VmRecord};

use super::decision::Plan;
use super::ownership::{self, LEFT_ALONE, is_abandoned};
use super::step::{Step, Write};
use crate::world::{Overwritten, UnreadableLease, World};

/// The time between two looks at the leases.
const AGAIN: Duration = Duration::from_millis(LEASE_LOOK_MILLIS);

/// Has a record put in the place of the first lease of another node that cannot be read, and says what comes of it.
/// Returns true if there is one.
pub fn is_in_the_way(world: &World, record: Option<&VmRecord>, plan: &mut Plan) -> bool {
    let Some((node, lease)) = world.unreadable_leases.iter().find(|(node, _)| **node != world.me) else {
        return false;
    };
    let named = record.and_then(|record| ownership::named(record).find(|owner| owner.node == *node));
    let of = Owner { node: node.clone(), epoch: named.map_or(0, |owner| owner.epoch) };
    put_record_in_place(world, of, lease, plan);
    true
}

/// Says that nothing is known of the copies of a node whose lease cannot be read, and puts a record in the place of that lease
/// once it has been left alone for a while.
pub(super) fn put_record_in_place(world: &World, of: Owner, lease: &UnreadableLease, plan: &mut Plan) {
    plan.wait(
        "CopiesUnknown",
        format!(
            "the lease of {} cannot be read, so nobody knows whether it has a copy: {}. If it lives it writes it anew; if \
             not, a record is put in its place and waited for",
            of.node, lease.why
        ),
    );
    if is_abandoned(world, lease) {
        plan.step(Step::ReplaceLease { of, over: Some(lease.index) });
    } else {
        // A node that does not see its own lease can only look again.
        let sees_itself = world.sights.contains_key(&world.me);
        plan.recheck_at(if sees_itself { lease.since + LEFT_ALONE } else { world.now + AGAIN });
    }
}

/// Decides where there is no ownership record. That proves nothing, so nothing is started or ended.
pub fn missing(world: &World, plan: &mut Plan) {
    if world.document().is_none() {
        plan.wait("NoDocument", "there is no document yet: `zsha apply -f FILE` writes one");
        return;
    }
    plan.wait(
        "RecordMissing",
        "the ownership record of the VM is missing from the store (deleted by hand?), so nobody starts it and a \
         running VM is left alone; see 'The ownership record is missing' in docs/3am.md",
    );
}

/// Decides where it cannot be told whether this node may run the VM: everything stays as it is. Where the record was
/// written over, and this node is surely the owner still, it writes the record again.
pub fn hold(world: &World, because: String, plan: &mut Plan) {
    match world.vm_overwritten.as_ref().and_then(|overwritten| written_again(world, overwritten)) {
        Some(write) => {
            plan.wait("RecordOverwritten", write.message.clone());
            plan.step(write.step());
        }
        None => plan.wait("Unknown", because),
    }
}

/// The record as this node wrote it, to be written once more. Nobody can have claimed the VM since. That takes a fence
/// or the release of this node's lease, which has been renewed without a break; or a write of this process, and this
/// record was its last.
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
