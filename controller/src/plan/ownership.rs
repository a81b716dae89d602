//! May this node run the VM? May it be taken from the node that is named?
//!
//! A node may run the VM iff its own lease is valid and the record names it with the epoch of that lease. It may be
//! claimed iff every node named in the record is fenced, or has begun a later life, or has released its lease.

use std::time::Duration;

use zsha_crds::NodeName;
use zsha_crds::records::{LeaseState, Owner, VmRecord};
use zsha_runtime::Moment;
use zsha_runtime::lease::Sight;

use crate::hypervisor::LocalVm;
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::{UnreadableLease, World};

/// Whoever keeps a lease writes over nonsense within its next renewal, and one that is kept by a newer zsha in a form that
/// is not known here changes with each. What has not changed for so long is nobody's any more.
pub const LEFT_ALONE: Duration = Duration::from_secs(10);

/// What the record and the lease together say of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// Lease valid, record names this node and epoch, and this process wrote it while its lease was renewed without a
    /// break.
    Mine { epoch: u64 },
    /// As `Mine`, but the record was written by an earlier process of this node, of which a write may still be on
    /// its way: write it once more before anything is started.
    Unconfirmed { epoch: u64 },
    /// The record is of a time before this node became the owner: the store went back. What this node wrote then, and
    /// lives by with a copy that is here, is the truth.
    Overtaken { epoch: u64 },
    /// The VM is being moved here, and is not this node's yet.
    Target,
    /// The record is known, and does not name this node and epoch.
    NotMine { because: String },
    /// This node's lease is not valid.
    NoLease { because: String },
    /// There is no record. Nothing follows from that.
    Missing,
    /// It cannot be told: hold what is.
    Unknown { because: String },
}

pub fn right(world: &World) -> Right {
    let verdict = match &world.lease {
        Observed::Known(verdict) => verdict,
        Observed::Unknown(why) => return Right::Unknown { because: why.clone() },
    };
    if !verdict.valid(world.now) && !planted::is_planted(Bug::StartWithoutLease) {
        return Right::NoLease { because: format!("this node's lease is not valid: {}", verdict.message) };
    }
    let stored = match &world.vm {
        Observed::Unknown(why) => return Right::Unknown { because: why.clone() },
        Observed::Known(None) => return Right::Missing,
        Observed::Known(Some(stored)) => stored,
    };
    if is_overtaken(world, &stored.record, verdict.epoch) {
        return Right::Overtaken { epoch: verdict.epoch };
    }
    let named = stored.record.owner.as_ref();
    if named.is_some_and(|o| o.node == world.me && o.epoch == verdict.epoch) {
        // What was written before the keeper saw the store go back may not be there any more.
        return if stored.written.is_some_and(|written| verdict.covers(written))
            || planted::is_planted(Bug::OldWritePlannedBy) && stored.written.is_some()
            || planted::is_planted(Bug::AdoptedUnwritten)
        {
            Right::Mine { epoch: verdict.epoch }
        } else {
            Right::Unconfirmed { epoch: verdict.epoch }
        };
    }
    if is_target(world, verdict.epoch) && !runs_as_its_own(world) {
        return Right::Target;
    }
    Right::NotMine { because: not_mine(named, world, verdict.epoch) }
}

/// Whether this node is where the VM is being moved to, with what arrives here not yet its own.
fn is_target(world: &World, epoch: u64) -> bool {
    world
        .record()
        .and_then(|record| record.migration.as_ref())
        .is_some_and(|migration| migration.to.node == world.me && migration.to.epoch == epoch)
}

/// Only with a copy that runs here: a VM that does not run loses nothing by whatever the record says now, and one that
/// stands still may be what a migration has brought since.
fn is_overtaken(world: &World, stored: &VmRecord, epoch: u64) -> bool {
    let Some(before) = &world.vm_before else { return false };
    let mine = before.owner.as_ref().is_some_and(|owner| owner.node == world.me && owner.epoch == epoch);
    let runs_here = world.local.known().is_some_and(LocalVm::executes);
    mine && runs_here && stored.revision < before.revision
}

/// Whether what runs here is this node's own in the present life of its lease: a record by which it has still to be handed
/// over is of an earlier time.
fn runs_as_its_own(world: &World) -> bool {
    world.expects_own() && world.local.known().is_some_and(LocalVm::executes)
}

fn not_mine(named: Option<&Owner>, world: &World, epoch: u64) -> String {
    match named {
        None => "nobody owns the VM".to_owned(),
        Some(owner) if owner.node == world.me => {
            format!("the record names this node in epoch {}, and its lease is in epoch {epoch}", owner.epoch)
        }
        Some(owner) => format!("the VM belongs to {}", owner.node),
    }
}

/// What is known of a node's right to the copy it was named for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its copy is proven dead.
    Dead { because: String },
    /// It has not renewed for D: it may be fenced.
    Expired { sight: Box<Sight> },
    /// Its lease is not in the store, so nobody can wait for it to run out; nor what was put in its place (at this index)
    /// by somebody who did not know the epoch, or wrote nonsense.
    Gone { over: Option<u64> },
    /// It may live; not before `until` can anything be said (None: no limit is known).
    MayLive { until: Option<Moment>, because: String },
}

/// The standing of one named node.
pub fn standing(world: &World, named: &Owner) -> Standing {
    if named.node == world.me {
        // This node's own lease is valid (the caller has checked) in another epoch: an epoch begins only when no
        // copy of an earlier one is alive here.
        return Standing::Dead {
            because: format!("this node has begun a new lease since epoch {}", named.epoch),
        };
    }
    let Some(sight) = world.sights.get(&named.node) else {
        if let Some(lease) = world.unreadable_leases.get(&named.node) {
            if planted::is_planted(Bug::UnreadableIsDead) {
                return Standing::Dead { because: "a bug is planted".to_owned() };
            }
            return of_unreadable(world, &named.node, lease);
        }
        if planted::is_planted(Bug::MissingIsDead) {
            return Standing::Dead { because: "a bug is planted".to_owned() };
        }
        // One's own lease is there, so the list of leases can be read, and it is not in it.
        if world.sights.contains_key(&world.me) {
            return Standing::Gone { over: None };
        }
        return Standing::MayLive {
            until: None,
            because: format!("the lease of {} cannot be seen, so nothing is known of its copy", named.node),
        };
    };
    let lease = &sight.record;
    if lease.epoch > named.epoch {
        let because = match (&lease.state, &lease.fenced_by) {
            (LeaseState::Fenced, Some(by)) => format!("{} was fenced by {by}", named.node),
            _ => format!("{} has begun a new lease since", named.node),
        };
        return Standing::Dead { because };
    }
    if lease.epoch < named.epoch {
        return of_an_earlier_epoch(world, named, sight);
    }
    match lease.state {
        LeaseState::Released => Standing::Dead { because: format!("{} has released its lease", named.node) },
        LeaseState::Fenced => Standing::Dead { because: format!("{} is fenced", named.node) },
        LeaseState::Held | LeaseState::Lost
            if sight.is_expired(world.now) || planted::is_planted(Bug::FenceOnFirstSight) =>
        {
            Standing::Expired { sight: Box::new(sight.clone()) }
        }
        LeaseState::Lost => Standing::MayLive {
            until: sight.fence_due(),
            because: format!(
                "the lease of {} was gone, so its copy may live for up to {} s more; if you know that the node is \
                 off, that is how long to wait, and if it is on, it renews by itself",
                named.node,
                sight.fence_due().map_or(0, |due| world.now.until(due).as_secs()),
            ),
        },
        LeaseState::Held => {
            Standing::MayLive { until: sight.fence_due(), because: format!("{} holds its lease", named.node) }
        }
    }
}

/// Of a node that is named in a later epoch than its lease is in: one of the two is of another time.
fn of_an_earlier_epoch(world: &World, named: &Owner, sight: &Sight) -> Standing {
    let lease = &sight.record;
    if lease.state == LeaseState::Lost {
        return Standing::Gone { over: Some(sight.index) };
    }
    // One life at a time: who is seen to renew in this epoch does not live in a later one, which is of another time.
    if lease.state == LeaseState::Held && sight.is_news && sight.is_renewed(world.now) {
        return Standing::Dead {
            because: format!(
                "{} lives in epoch {}, and was named in epoch {} before the store was emptied or put back",
                named.node, lease.epoch, named.epoch
            ),
        };
    }
    if sight.is_expired(world.now) {
        return Standing::Gone { over: Some(sight.index) };
    }
    Standing::MayLive {
        until: None,
        because: format!(
            "the lease of {} is in epoch {}, older than the epoch {} it was named in: the store went backwards",
            named.node, lease.epoch, named.epoch
        ),
    }
}

/// The standing of a node that is named, and whose lease cannot be read.
fn of_unreadable(world: &World, node: &NodeName, lease: &UnreadableLease) -> Standing {
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
pub(super) fn is_abandoned(world: &World, lease: &UnreadableLease) -> bool {
    world.sights.contains_key(&world.me) && world.now >= lease.since + LEFT_ALONE
}

/// Everybody the record names: the owner, and the target of a migration where that is another.
pub fn named(record: &VmRecord) -> impl Iterator<Item = &Owner> {
    let target = record.migration.as_ref().map(|migration| &migration.to);
    record.owner.iter().chain(target.filter(|target| record.owner.as_ref() != Some(target)))
}
