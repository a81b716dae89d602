//! Tells whether the keeper ended the VM for want of a lease, which looks like a crash to libvirt.

use zsha_crds::records::VmRecord;

use super::notes::Notes;
use crate::world::World;

/// Says when and why, in half a sentence, if the keeper ended the copy that was last started here.
pub fn by_keeper(world: &World, record: &VmRecord, notes: &Notes) -> Option<String> {
    let ended = world.lease.known()?.ended?;
    let ago = world.now.since(ended.at);
    let at = world.wall - jiff::SignedDuration::try_from(ago).ok()?;
    let is_of_last = match notes.tried.starts.last() {
        Some(start) => ended.at > *start,
        // The controller has restarted since, so only the wall clock can tell. It is good enough for a sentence.
        None => record.last_start.as_ref().is_some_and(|start| start.node == world.me && start.at < at),
    };
    let at = at.round(jiff::Unit::Second).unwrap_or(at);
    is_of_last.then(|| {
        format!(
            "the keeper ended it at {at}, when the lease could not be renewed in time (Consul out of reach, or {} cut off)",
            world.me
        )
    })
}
