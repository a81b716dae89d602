//! Deals with an unnamed copy: it is here, and the ownership record does not name this node.
//!
//! The copy may be the VM: the record is of another time (a snapshot was restored, the store was emptied and a document
//! applied), or somebody has moved the guest here past zsha. Then it is kept, and claimed where it runs, once everybody
//! who is named is dead and nobody else has a copy; while the owner lives, the owner hands it over (`departed`). Or the
//! copy is nobody's (started by hand, by what was left on disk, from a file), and is ended.
//!
//! Claiming in place starts nothing, so it can make no second copy. A copy that may be the VM is ended only once
//! another node says that it has one.

use std::time::Duration;

use zsha_crds::records::{Owner, StartRecord, VmPhase, VmRecord};
use zsha_crds::{EventReason, LocalState, NodeName};
use zsha_runtime::Moment;
use zsha_runtime::lease::{Expectation, Sight};

use super::decision::Plan;
use super::freed::freed;
use super::heard::Heard;
use super::notes::Notes;
use super::others::{Guard, LOOK, nobody_else_has_a_copy};
use super::owner::kill;
use super::step::Write;
use crate::hypervisor::{LocalVm, Origin, PauseReason};
use crate::planted::{self, Bug};
use crate::world::{StoredVm, World};

/// The time for which an unnamed copy must be seen to be what it is, and another node must say that it has the VM: the
/// guest has perhaps just left that node, or it is about to end what it has.
const SETTLED: Duration = Duration::from_secs(10);
/// The time for which a node counts as having a copy where nobody can say whether the guest executes there (no
/// controller, or a libvirt that hangs). A guest that arrives by hand has arrived by then.
const UNSEEN: Duration = Duration::from_secs(60);

/// The kinds of copies that can be here unnamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    /// The copy is this node's own in the present life of its lease, by what its keeper was told; or one of an earlier
    /// life that was kept.
    Ours,
    /// The copy was brought by a migration that was not zsha's, and is whole.
    Brought,
    /// The copy is being brought, and does not execute: its source still has the guest, or goes on with it after all.
    Arriving,
    /// The copy is nobody's: no node of zsha has started it, and no migration has brought it.
    Nobodys,
    /// Nobody has looked yet since the copy came.
    NotKnown,
}

fn what_it_is(world: &World, local: LocalVm, heard: &Heard) -> Is {
    let Some(verdict) = world.lease.known() else { return Is::Nobodys };
    let origin = world.domain.known().map(|facts| facts.origin);
    // The copy was made from a file. That is as old as the moment in which it was saved: the VM has gone on since.
    let restored = origin == Some(Origin::Restored) && !planted::is_planted(Bug::SavedFileIsTheVm);
    // The keeper's last look may be older than the copy.
    let counted = counted_since(world, heard).is_some_and(|n| n > 0);
    let brought = match origin {
        Some(Origin::Migrated) => Some(true),
        Some(Origin::Booted) => Some(false),
        Some(Origin::Restored | Origin::None | Origin::Unknown) | None => counted.then_some(verdict.incoming),
    };
    match (local, verdict.expects) {
        // QEMU is there and does not work, so there is nothing to keep.
        (LocalVm::Crashed, _) => Is::Nobodys,
        _ if planted::is_planted(Bug::RecordOutweighsTheCopy) => Is::Nobodys,
        (_, Some(Expectation::Own | Expectation::Unsaid)) => Is::Ours,
        // The copy came with a migration of zsha's that is over. The source goes on, or has gone on, with the disk.
        (_, Some(Expectation::Arrival) | None) if !local.executes() => Is::Nobodys,
        _ if restored => Is::Nobodys,
        (LocalVm::Paused { reason: PauseReason::Incoming, .. }, _) => Is::Arriving,
        (_, Some(Expectation::Nothing | Expectation::Arrival) | None) => match brought {
            Some(true) if local.executes() => Is::Brought,
            // The copy, whole or not, has never run here, and its source may have gone on with the disk.
            Some(true) => Is::Arriving,
            Some(false) => Is::Nobodys,
            None => Is::NotKnown,
        },
    }
}

/// Deals with the copy; returns true if there is one. `because`: why it is not this node's, in the words of a reason to
/// end it.
pub(super) fn deal(world: &World, because: &str, notes: &mut Notes, plan: &mut Plan) -> bool {
    let Some(local) = world.local.known().copied().filter(LocalVm::has_process) else {
        notes.seen.unnamed = None;
        notes.seen.also = None;
        return false;
    };
    let Some(stored) = world.stored() else { return true };
    let heard = here_since(world, local, notes);
    let elsewhere = elsewhere(world, &heard);
    let settled = heard.at + SETTLED;
    let since = elsewhere_since(world, elsewhere, notes);
    let stays = elsewhere.filter(|other| stays_there(world, stored, other, since));
    let is = what_it_is(world, local, &heard);
    match (is, elsewhere) {
        // The keeper looks every R.
        (Is::NotKnown, _) if world.now < settled => {
            plan.recheck_at(world.now + LOOK);
            plan.wait(
                "CopyNotKnown",
                "a copy of the VM is here that nobody is named for; it is seen how it came",
            );
        }
        (Is::Nobodys | Is::NotKnown, _)
            if world.frozen().is_some() && !world.others().any(|sight| world.has_copy(sight)) =>
        {
            frozen(world, "is not ended", plan);
        }
        (Is::NotKnown, Some(other)) if stays.is_some() => {
            plan.step(kill(format!("{because}, and {other} has it too")));
        }
        // This node's keeper looks and sees no copy, so it could not end it.
        (Is::NotKnown, None) if counted_since(world, &heard) == Some(0) => plan.step(kill(because)),
        (Is::Nobodys, _) => plan.step(kill(because)),
        (Is::Arriving, None) if has_left_for_here(world, stored, local) => {
            arrived_paused(world, stored, &heard, plan);
        }
        (Is::Arriving, other) => arriving(world, stored, (&heard, other), plan),
        (Is::Ours | Is::Brought, Some(other))
            if stays.is_some() && is_named(stored, other) && !is_post_copy(world) =>
        {
            plan.step(kill(format!("{because}, and has it too")));
        }
        (Is::Ours | Is::Brought | Is::NotKnown, Some(other)) => {
            // The other node is named and has only the remains of a migration. It is told that the VM is here, and
            // makes this node the owner.
            plan.runs_unnamed =
                is == Is::Brought && is_named(stored, other) && executes_there(world, other) == Some(false);
            plan.recheck_at(world.now + LOOK);
            plan.wait(
                "TwoCopies",
                format!(
                    "a copy of the VM is on {}, where nobody is named for it, and {other} says that it has one; it is \
                     seen which of them stays",
                    world.me
                ),
            );
        }
        // Nobody could look how the copy came, which is no evidence against it. It is kept where it is, like one that
        // was brought.
        (Is::NotKnown, None) if !local.executes() => {
            plan.recheck_at(world.now + LOOK);
            plan.wait(
                "CopyNotKnown",
                "a copy of the VM is here that nobody is named for, and it does not execute",
            );
        }
        (Is::Ours | Is::Brought | Is::NotKnown, None) => {
            plan.runs_unnamed = true;
            match world.frozen() {
                Some(_) => frozen(world, "is not claimed", plan),
                None => claim_in_place(world, stored, &heard, plan),
            }
        }
    }
    true
}

/// The moment since which a copy has been here that executes, or does not, as this one. What the source of a migration
/// says of its process counts only once the guest executes here.
fn here_since(world: &World, local: LocalVm, notes: &mut Notes) -> Heard {
    let since = match notes.seen.unnamed.take() {
        Some((heard, executed)) if executed == local.executes() => heard,
        Some(_) | None => Heard::now(world),
    };
    notes.seen.unnamed.insert((since, local.executes())).0.clone()
}

/// The moment since which this same other node has said that it has a copy as well.
fn elsewhere_since(world: &World, elsewhere: Option<&NodeName>, notes: &mut Notes) -> Moment {
    let since = match (notes.seen.also.take(), elsewhere) {
        (Some((before, since)), Some(other)) if before == *other => since,
        _ => world.now,
    };
    notes.seen.also = elsewhere.map(|other| (other.clone(), since));
    since
}

/// The number of processes that the keeper has counted since the copy was first seen here. None: it has not counted, or
/// could not.
fn counted_since(world: &World, heard: &Heard) -> Option<u32> {
    let verdict = world.lease.known()?;
    verdict.copies.filter(|_| verdict.counted_at.is_some_and(|at| at > heard.at))
}

fn frozen(world: &World, what: &str, plan: &mut Plan) {
    if let Some(asked) = world.frozen() {
        let me = &world.me;
        plan.wait(
            "Frozen",
            format!("a copy of the VM is on {me}, which the record does not name. It {what}: frozen {asked}"),
        );
    }
}

/// The node that has said since then that it has a copy as well. The last word of a node that is about to be fenced is
/// of no use: what it had may be here.
fn elsewhere<'w>(world: &'w World, heard: &Heard) -> Option<&'w NodeName> {
    let has_one =
        |sight: &&Sight| world.has_copy(sight) && sight.is_renewed(world.now) && heard.is_before(sight);
    world.others().find(has_one).map(|sight| &sight.record.node)
}

/// True if the other node has said for long enough that it has a copy, and that the guest executes there. A copy that
/// is arriving there, or is left there of a guest that is gone, is no reason to end one that runs.
fn stays_there(world: &World, stored: &StoredVm, other: &NodeName, since: Moment) -> bool {
    if planted::is_planted(Bug::AnyCopyElsewhereStays) {
        return true;
    }
    let after = match executes_there(world, other) {
        Some(true) => SETTLED,
        // A copy that hangs as it ends looks the same, where the record says that the VM has left.
        None if stored.record.departed.is_none() => UNSEEN,
        Some(false) | None => return false,
    };
    world.now >= since + after
}

/// True if the guest executes there, as that node's controller says. None: the controller is down, or does not see it.
fn executes_there(world: &World, node: &NodeName) -> Option<bool> {
    let lives = world.sights.get(node).is_some_and(|sight| sight.record.controller_alive);
    match world.said_of_vm(node).filter(|_| lives)?.local_vm {
        LocalState::Running | LocalState::ShuttingDown => Some(true),
        LocalState::Absent | LocalState::Off | LocalState::Paused | LocalState::Crashed => Some(false),
        LocalState::Unmanaged | LocalState::Unknown => None,
    }
}

/// True while half of the guest's memory is still at its source, whose process counts as a copy for as long as that
/// takes.
fn is_post_copy(world: &World) -> bool {
    world.domain.known().is_none_or(|facts| facts.post_copy)
}

fn is_named(stored: &StoredVm, node: &NodeName) -> bool {
    stored.record.owner.as_ref().is_some_and(|owner| owner.node == *node)
}

/// True if the guest was paused by a command, and is whole: its owner has written down that it has left, and has seen
/// it here.
fn has_left_for_here(world: &World, stored: &StoredVm, local: LocalVm) -> bool {
    let seen_here =
        stored.record.departed.as_ref().is_some_and(|departed| departed.seen_on.contains(&world.me));
    seen_here && matches!(local, LocalVm::Paused { reason: PauseReason::Asked, .. })
}

/// Keeps a guest that was paused by a command as it was moved: it is claimed where it is, once nobody who is named may
/// run it.
fn arrived_paused(world: &World, stored: &StoredVm, heard: &Heard, plan: &mut Plan) {
    plan.runs_unnamed = true;
    plan.recheck_at(world.now + LOOK);
    if world.frozen().is_none() && freed(world, stored, &mut Plan::default()).is_some() {
        claim_in_place(world, stored, heard, plan);
        return;
    }
    plan.wait(
        "Paused",
        "the VM was moved here past zsha while it was paused; `virsh resume mnvm` lets it go on once this node is \
         named for it",
    );
}

/// Deals with a copy that executes nothing while its source lives, since the source has the guest. It is ended where
/// nothing can come of it any more, and not before: a kill in the moment of the change would end the VM.
fn arriving(
    world: &World,
    stored: &StoredVm,
    (heard, elsewhere): (&Heard, Option<&NodeName>),
    plan: &mut Plan,
) {
    let mut aside = Plan::default();
    let source_is_dead = freed(world, stored, &mut aside).is_some() && stored.record.owner.is_some();
    let spoken = world.sees_the_leases() && heard.silent(world).is_none();
    // The source may be a host that is no node. Then libvirt ends the copy, or whoever moves it back; or an operator
    // does, who has looked and wants the VM started.
    let is_coming = world.local.known().is_some_and(LocalVm::is_incoming);
    let from_afar = stored.record.departed.is_some() && is_coming && world.start_asked().is_none();
    let nowhere = elsewhere.is_none() && world.now >= heard.at + SETTLED && spoken && !from_afar;
    if world.frozen().is_none() && (source_is_dead && !from_afar || nowhere) {
        plan.step(kill("what began to arrive here by a migration will not get further"));
        return;
    }
    plan.recheck_at(world.now + LOOK);
    plan.wait("Arriving", "a copy of the VM arrives here by a migration that no record names");
}

/// Makes this node the owner of the copy that runs here. It takes the same as any claim, except the word of members
/// that have no lease: nothing is started.
fn claim_in_place(world: &World, stored: &StoredVm, heard: &Heard, plan: &mut Plan) {
    let Some(freed) = freed(world, stored, plan) else {
        let owner = stored.record.owner.as_ref().map_or("its owner", |owner| owner.node.as_str());
        plan.recheck_at(world.now + LOOK);
        plan.wait(
            "RunsUnnamed",
            format!(
                "the VM runs on {}, and the record names {owner}. It is left running; {owner} hands it over once its \
                 controller sees that, and if {owner} is dead it is claimed where it runs",
                world.me
            ),
        );
        return;
    };
    let guard = Guard { fenced: &freed.fence, strict: true, target: None, starts: false };
    let Some(rests_on) = nobody_else_has_a_copy(world, &guard, plan) else { return };
    if heard.silent(world).is_some() {
        plan.recheck_at(world.now + LOOK);
        plan.wait(
            "CopiesNotConfirmed",
            "the VM runs here, where the record does not name anybody who lives; the other nodes have to renew their \
             leases, to show that they have no copy",
        );
        return;
    }
    let Some(epoch) = world.valid_epoch() else { return };
    let before = &stored.record;
    let message = format!(
        "{} goes on with the VM, which runs here already, and writes down that it is its own ({})",
        world.me,
        if before.owner.is_some() { freed.because.as_str() } else { "nobody was named" }
    );
    // A copy that a start of this node has made and not let run yet is let run by the usual step.
    let is_starting = world.expects_own()
        && matches!(world.local.known(), Some(LocalVm::Paused { reason: PauseReason::Asked, .. }));
    let record = VmRecord {
        owner: Some(Owner { node: world.me.clone(), epoch }),
        migration: None,
        phase: if is_starting { VmPhase::Starting } else { VmPhase::Running },
        departed: None,
        last_start: Some(StartRecord {
            node: world.me.clone(),
            at: world.wall,
            reason: StartRecord::FOUND.to_owned(),
            generation: world.local.known().and_then(LocalVm::generation).unwrap_or_default(),
        }),
        note: message.clone(),
        revision: before.revision + 1,
        ..before.clone()
    };
    let write = Write::over(stored.index, world, epoch, record, (EventReason::ClaimedInPlace, message));
    plan.step(Write { rests_on, fence: freed.fence, ..write }.step());
}
