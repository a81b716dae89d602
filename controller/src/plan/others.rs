//! What the other nodes have to say before one starts a copy: that they have none.

use std::time::Duration;

use zsha_crds::NodeName;
use zsha_crds::records::{LEASE_LOOK_MILLIS, LeaseState, LeaseTimings, Owner, VmPhase};
use zsha_runtime::Moment;
use zsha_runtime::lease::Sight;

use super::decision::Plan;
use super::notes::Notes;
use super::owner::Upkeep;
use super::step::Step;
use super::unreadable;
use crate::planted::{self, Bug};
use crate::world::World;

/// The time between two looks at the leases.
pub(super) const LOOK: Duration = Duration::from_millis(LEASE_LOOK_MILLIS);

/// The questions to the other nodes before this one starts a copy.
pub(super) struct Guard<'a> {
    /// The leases that are fenced in the same write: those nodes need not be asked.
    pub fenced: &'a [Sight],
    /// True if a living node that cannot look at its processes stands in the way as well. It does where the record
    /// itself proves nothing. Where the record names an owner that is dead, only that owner could have had a copy.
    pub strict: bool,
    /// The target of the migration under way, which may have a copy that does not run.
    pub target: Option<&'a NodeName>,
    /// True if a copy is to be started by the write. A write that only says what runs already does not wait for members
    /// of which there is no trace.
    pub starts: bool,
}

/// The second guard of a start, for a record that is not what it was (deleted, restored from a snapshot). Every other
/// node that holds a lease must have been seen to renew it, and say by it that it sees no process of the VM; or must
/// not have renewed it for D, and then its copy is dead whatever the records say. Returns the leases on which this
/// rests.
pub(super) fn nobody_else_has_a_copy(
    world: &World,
    guard: &Guard<'_>,
    plan: &mut Plan,
) -> Option<Vec<Sight>> {
    if !sees_every_lease(world, guard, plan) {
        return None;
    }
    let mut rests_on = Vec::new();
    for (node, sight) in &world.sights {
        let fenced = guard.fenced.iter().any(|fenced| fenced.record.node == *node);
        if *node == world.me || fenced || guard.target == Some(node) {
            continue;
        }
        match word_of(world, guard.strict, sight) {
            Word::Nothing => {}
            Word::NoCopy => rests_on.push(sight.clone()),
            Word::InTheWay { reason, why, until } => {
                if let Some(at) = until {
                    plan.recheck_at(at);
                }
                plan.wait(reason, why);
                return None;
            }
        }
    }
    Some(rests_on)
}

/// True if the leases that are seen are those of now, and those of all nodes: none has vanished with an older state of the
/// store, none that counts is unreadable, and no node of the document lacks one.
fn sees_every_lease(world: &World, guard: &Guard<'_>, plan: &mut Plan) -> bool {
    if let Some((node, epoch)) = world.vanished_leases.iter().find(|(node, _)| **node != world.me) {
        let of = Owner { node: node.clone(), epoch: *epoch };
        match world.unreadable_leases.get(node) {
            Some(lease) => unreadable::put_record_in_place(world, of, lease, plan),
            None => {
                let why = format!(
                    "the store has gone back in time and shows no lease of {node}, which may run the VM"
                );
                ask_for_lease(of, &why, plan);
            }
        }
        return false;
    }
    if !world.sees_the_leases() && !planted::is_planted(Bug::ListNotShownToBeNow) {
        // An empty list may not have been read yet, and a list without this life may be of a time before it.
        plan.recheck_at(world.now + LOOK);
        plan.wait(
            "LeasesNotSeen",
            "this node does not see its own lease yet, and so may not see the others'",
        );
        return false;
    }
    let record = world.record();
    if (guard.strict || has_returned(world)) && unreadable::is_in_the_way(world, record, plan) {
        return false;
    }
    has_every_member(world, guard, plan)
}

/// True if every node that the document names has a lease, or a cluster may be begun without the one that has none.
fn has_every_member(world: &World, guard: &Guard<'_>, plan: &mut Plan) -> bool {
    match (silent_member(world, guard), first_start_waits_until(world)) {
        (None, _) => true,
        (Some(node), None) => {
            let why = format!("{node} has no lease, so nobody knows whether it runs the VM");
            ask_for_lease(Owner { node: node.clone(), epoch: 0 }, &why, plan);
            false
        }
        (Some(node), Some(until)) if world.now < until => {
            plan.recheck_at(until);
            let secs = world.now.until(until).as_secs_f64();
            plan.wait(
                "MemberNotSeen",
                format!(
                    "{node} has no lease. A new cluster is begun without it in {secs:.0} s: were this one whose store \
                     was emptied, whoever lives by it has written its lease again by then, or has ended its copy"
                ),
            );
            false
        }
        (Some(_), Some(_)) => true,
    }
}

impl Upkeep<'_> {
    /// True if the other nodes are to say that they have no copy before one is started here: wherever the last one has
    /// ended by no step of zsha's, and where it is not known what became of it.
    pub(super) fn is_to_ask(&self, notes: &Notes) -> bool {
        self.record().phase != VmPhase::Starting || self.record().departed.is_some() || notes.seen.ask_others
    }

    /// True if a node that cannot see its own processes stands in the way.
    pub(super) fn asks_strictly(&self, notes: &Notes) -> bool {
        self.world.went_back || self.record().departed.is_some() || notes.seen.gone.is_some()
    }
}

/// The moment until which the first start of a cluster waits for nodes that have no lease; None where this is no first
/// start.
///
/// The first document of a cluster finds nodes that have still to come, and is not kept waiting for them for as long as
/// the longest lease. But a store that was emptied looks the same to a node that has just booted. Whoever ran the VM
/// then renewed last before the store was emptied, and so before this node's own life: by D after that it has written
/// its lease again, or is dead. (The D of the earlier document is gone with the store. It is taken to be that of the
/// present one, or of the most patient profile where that is longer.)
fn first_start_waits_until(world: &World) -> Option<Moment> {
    let record = world.record()?;
    let is_first = record.last_start.is_none() && record.owner.is_none() && !world.went_back;
    let since = world.lease.known()?.unbroken_since.unwrap_or(world.now);
    is_first.then(|| {
        let d = world.document().map_or(LeaseTimings::LONGEST, |desired| desired.timings).fence_after();
        since + d.max(LeaseTimings::PATIENT.fence_after())
    })
}

/// Has a record put in the place of a lease that is not there, and says what comes of it.
fn ask_for_lease(of: Owner, why: &str, plan: &mut Plan) {
    let secs = LeaseTimings::LONGEST.fence_after().as_secs();
    plan.wait(
        "LeaseGone",
        format!(
            "{why}. If it lives it writes it anew; if not, it counts as dead {secs} s after a record is put in its place"
        ),
    );
    plan.step(Step::ReplaceLease { of, over: None });
}

/// True if the record names this node, which has begun a new lease since. It was away, and the record may be of a time
/// before others had the VM.
fn has_returned(world: &World) -> bool {
    let owner = world.record().and_then(|record| record.owner.as_ref());
    owner.is_some_and(|owner| owner.node == world.me && world.valid_epoch() != Some(owner.epoch))
}

/// A node of the document that has no lease at all, where that matters: where the record may be of another time. A
/// lease may have been deleted by hand, and the record of a VM that has never run may be that of a store which was
/// emptied.
fn silent_member<'w>(world: &'w World, guard: &Guard<'_>) -> Option<&'w NodeName> {
    let matters = guard.starts && (guard.strict || has_returned(world));
    if !matters || planted::is_planted(Bug::SilentMemberIgnored) {
        return None;
    }
    let has_none = |node: &&NodeName| {
        **node != world.me
            && guard.target != Some(*node)
            && !world.sights.contains_key(*node)
            && !world.unreadable_leases.contains_key(*node)
    };
    world.document()?.order.iter().find(has_none)
}

/// The sentence on a node that does not own the VM and has a copy, and on what comes of it.
pub(super) fn has_a_copy(sight: &Sight) -> String {
    let node = &sight.record.node;
    if sight.record.controller_alive {
        return format!(
            "{node} still has a process of the VM, which it does not own; it ends it by itself, or is given the VM where \
             that runs"
        );
    }
    format!(
        "{node} has a process of the VM, which it does not own, and its zsha-controller does not run: start that, and it is \
         ended, or {node} is given the VM where that runs (`virsh migrate` may have brought it)"
    )
}

/// The word: what a node's lease says of copies there.
enum Word {
    /// The node has no copy to lose, and need not be asked.
    Nothing,
    /// The node says that it has no copy, or has been silent for so long that it has none. It may speak again, unseen;
    /// so this word becomes part of the write.
    NoCopy,
    /// The node may have a copy. `until`: when that may be otherwise, if time alone can make it so.
    InTheWay { reason: &'static str, why: String, until: Option<Moment> },
}

fn word_of(world: &World, strict: bool, sight: &Sight) -> Word {
    let node = &sight.record.node;
    let in_the_way = |reason, until, why| Word::InTheWay { reason, why, until };
    match sight.record.state {
        // A node whose lease is of a restored snapshot may live by a later life that is not written down again yet.
        LeaseState::Fenced | LeaseState::Released
            if world.went_back && !sight.is_news && !sight.is_silent(world.now) =>
        {
            let why = format!(
                "the store has gone back in time, so {node} may live by a lease that it has still to write again"
            );
            in_the_way("CopiesNotConfirmed", Some(sight.silent_at()), why)
        }
        LeaseState::Fenced | LeaseState::Released if world.went_back => Word::NoCopy,
        LeaseState::Fenced | LeaseState::Released => Word::Nothing,
        LeaseState::Held | LeaseState::Lost if sight.is_expired(world.now) => Word::NoCopy,
        LeaseState::Held => match world.copies(sight) {
            Some(0) if sight.is_news => Word::NoCopy,
            Some(0) => {
                let why = format!("{node} has to renew its lease once, to show that it lives");
                in_the_way("CopiesNotConfirmed", sight.fence_due(), why)
            }
            Some(_) if planted::is_planted(Bug::CopyElsewhereIgnored) => Word::Nothing,
            Some(_) => in_the_way("CopyElsewhere", None, has_a_copy(sight)),
            None if strict => {
                let why = format!(
                    "{node} cannot see whether it has a process of the VM; its keeper's log says why, and a restart of \
                     zsha-keeper there may mend it"
                );
                in_the_way("CopiesUnknown", None, why)
            }
            None => Word::Nothing,
        },
        LeaseState::Lost if strict || has_returned(world) => {
            let why = format!("the lease of {node} was gone, and it has not written it anew");
            in_the_way("CopiesUnknown", sight.fence_due(), why)
        }
        LeaseState::Lost => Word::Nothing,
    }
}
