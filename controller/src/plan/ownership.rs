//! Decides whether this node may run the VM, and whether the VM may be claimed from a node that is named.
//!
//! A node may run the VM only while its own lease is valid and the record names it with the epoch of that lease. The VM
//! may be claimed only when every node that the record names is fenced, or has begun a later life, or has released its
//! lease.

use std::time::Duration;

use zsha_crds::NodeName;
use zsha_crds::records::{LeaseState, Owner, VmRecord};
use zsha_runtime::Moment;
use zsha_runtime::lease::Sight;

use crate::hypervisor::LocalVm;
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::{UnreadableLease, World};

/// The time after which nonsense in the place of a lease is nobody's: a living holder writes over it within its next
/// renewal, and a lease that a newer zsha keeps in a form that is not known here changes with each.
pub const LEFT_ALONE: Duration = Duration::from_secs(10);

/// The right of this node, by record and lease together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Right {
    /// The lease is valid, the record names this node and epoch, and this process wrote it while its lease was renewed
    /// without a break.
    Mine { epoch: u64 },
    /// The same, but an earlier process of this node wrote the record, and a write of that process may still be on its
    /// way: the record is written once more before anything is started.
    Unconfirmed { epoch: u64 },
    /// The record is of a time before this node became the owner: the store went back. The truth is what this node
    /// wrote then, and lives by with a copy that is here.
    Overtaken { epoch: u64 },
    /// The VM is being moved here, and is not this node's yet.
    Target,
    /// The record is known, and does not name this node and epoch.
    NotMine { because: String },
    /// This node's lease is not valid.
    NoLease { because: String },
    /// There is no record, and nothing follows from that.
    Missing,
    /// It cannot be told: everything stays as it is.
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
        // A record that was written before the keeper saw the store go back may not be there any more.
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

/// True if the VM is being moved to this node, and what arrives here is not yet its own.
fn is_target(world: &World, epoch: u64) -> bool {
    world
        .record()
        .and_then(|record| record.migration.as_ref())
        .is_some_and(|migration| migration.to.node == world.me && migration.to.epoch == epoch)
}

/// True if the record is of a time before this node became the owner, and a copy runs here. A VM that does not run
/// loses nothing by whatever the record says now, and one that stands still may be what a migration has brought since.
fn is_overtaken(world: &World, stored: &VmRecord, epoch: u64) -> bool {
    let Some(before) = &world.vm_before else { return false };
    let mine = before.owner.as_ref().is_some_and(|owner| owner.node == world.me && owner.epoch == epoch);
    let runs_here = world.local.known().is_some_and(LocalVm::executes);
    mine && runs_here && stored.revision < before.revision
}

/// True if the copy that runs here is this node's own in the present life of its lease. A record by which it has still
/// to be handed over is of an earlier time.
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

/// The standing of a node that the record names: what is known of the copy it was named for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The copy is proven dead.
    Dead { because: String },
    /// The node has not renewed its lease for D, so it may be fenced.
    Expired { sight: Box<Sight> },
    /// The lease is not in the store, so nobody can wait for it to run out. The same holds for what was put in its
    /// place (at this index) by somebody who did not know the epoch, or wrote nonsense.
    Gone { over: Option<u64> },
    /// The node may live. Nothing can be said before `until` (None: no limit is known).
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
        // This node's own lease is there, so the list of leases can be read, and the other lease is not in it.
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

/// The standing of a node that is named in a later epoch than its lease is in: one of the two is of another time.
fn of_an_earlier_epoch(world: &World, named: &Owner, sight: &Sight) -> Standing {
    let lease = &sight.record;
    if lease.state == LeaseState::Lost {
        return Standing::Gone { over: Some(sight.index) };
    }
    // A node has one life at a time. One that is seen to renew in this epoch does not live in a later one, which is of
    // another time.
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

/// True if an unreadable lease has been left alone for a while. It then counts as gone: nobody can wait for what it
/// does not say. Only a node that sees its own lease may conclude that.
pub(super) fn is_abandoned(world: &World, lease: &UnreadableLease) -> bool {
    world.sights.contains_key(&world.me) && world.now >= lease.since + LEFT_ALONE
}

/// Every node that the record names: the owner, and the target of a migration where that is another.
pub fn named(record: &VmRecord) -> impl Iterator<Item = &Owner> {
    let target = record.migration.as_ref().map(|migration| &migration.to);
    record.owner.iter().chain(target.filter(|target| record.owner.as_ref() != Some(target)))
}
