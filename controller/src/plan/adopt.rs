//! Adopts: writes the record that names this node once more before it is acted on, and writes a record again that the
//! store has lost.

use zsha_crds::EventReason;
use zsha_crds::records::{VmPhase, VmRecord};
use zsha_runtime::lease::Expectation;

use super::decision::Plan;
use super::notes::Notes;
use super::others::{Guard, nobody_else_has_a_copy};
use super::owner::{Upkeep, kill};
use super::step::Write;
use crate::hypervisor::{LocalVm, PauseReason};
use crate::keeper::Verdict;
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::{StoredVm, World};

/// Adopts the record, which names this node and epoch and was written by an earlier process: a write of that process
/// that is still on its way then fails. Only after that is the record acted on. It touches no VM. Where no copy is here
/// the record proves little (it may have come back with a snapshot, and the VM run elsewhere by now), so the others are
/// asked first.
pub(super) fn adopt(world: &World, notes: &mut Notes, epoch: u64, plan: &mut Plan) {
    let Some(stored) = world.stored() else { return };
    if planted::is_planted(Bug::RestartKills) && world.local.known().is_some_and(|local| local.has_process())
    {
        plan.step(kill("a bug is planted"));
    }
    let own = world.expects_own();
    if nothing_explains_it(world, stored, notes) {
        plan.step(kill(
            "the store has gone back in time, and nothing there says any more what this paused copy is (a migration \
             may have brought it, and the VM have gone on elsewhere)",
        ));
        return;
    }
    let copy_here = has_copy_here(world);
    let target = stored.record.migration.as_ref().map(|migration| &migration.to.node);
    let guard = Guard { fenced: &[], strict: world.went_back, target, starts: true };
    notes.seen.ask_others |= !copy_here;
    if !copy_here
        && world.frozen().is_none()
        && (Upkeep { world, stored, epoch }).hands_to_heir(Vec::new(), plan)
    {
        return;
    }
    let rests_on = if copy_here || planted::is_planted(Bug::AdoptedUnasked) {
        Vec::new()
    } else {
        let Some(rests_on) = nobody_else_has_a_copy(world, &guard, plan) else { return };
        rests_on
    };
    // A record that this process wrote later, in the same life, says how things are.
    let later =
        |before: &&VmRecord| before.revision > stored.record.revision && before.owner == stored.record.owner;
    let known = world.vm_before.as_ref().filter(later).unwrap_or(&stored.record);
    let mut record = VmRecord { revision: known.revision + 1, ..known.clone() };
    if world.went_back
        && own
        && record.migration.is_none()
        && let Some(LocalVm::Paused { reason: PauseReason::Asked, .. }) = world.local.known()
    {
        // The copy was being started, or let in, when the store went back; that is finished now.
        record.phase = VmPhase::Starting;
    }
    if !copy_here && record.departed.is_none() {
        record.departed = world.departed_before.clone();
    }
    notes.seen.unexplained = world.went_back && !own;
    let write = Write::over(stored.index, world, epoch, record, (EventReason::Adopted, why(world, stored)));
    plan.step(Write { rests_on, ..write }.step());
}

/// True if a copy here is paused, and neither the record nor the keeper says any more what it is.
fn nothing_explains_it(world: &World, stored: &StoredVm, notes: &Notes) -> bool {
    let is_unexplained =
        |reason| matches!(reason, PauseReason::Asked | PauseReason::Incoming | PauseReason::Other);
    // A copy that this node stood by for, and has not settled since, is the one that is here.
    let expected = stored.record.migration.as_ref().is_some_and(|migration| {
        migration.to.node == world.me && notes.seen.migration.expected == Some(migration.id)
    });
    // A copy that is this node's own in the present life of its lease is explained: the VM cannot have gone on
    // elsewhere.
    let own = world.expects_own();
    // The keeper was told in this very life that a guest arrives, and the record names no migration: the record is of
    // another time.
    let of_another_time = world.expects() == Some(Expectation::Arrival) && stored.record.migration.is_none();
    let Some(LocalVm::Paused { reason, .. }) = world.local.known() else { return false };
    (world.went_back || of_another_time) && !expected && !own && is_unexplained(*reason)
}

/// True if a copy is here. The keeper's count may be as old as its last renewal, so it counts only where the hypervisor
/// says nothing.
fn has_copy_here(world: &World) -> bool {
    let seen = |verdict: &Verdict| verdict.copies.is_some_and(|copies| copies > 0);
    match &world.local {
        Observed::Known(local) => local.has_process(),
        Observed::Unknown(_) => world.lease.known().is_some_and(seen),
    }
}

/// The reason why the record is written again, for people.
fn why(world: &World, stored: &StoredVm) -> String {
    match &stored.record.migration {
        Some(migration) if migration.to.node == world.me => {
            format!("{} was handed the VM and takes it over", world.me)
        }
        // This process had written the record before, so it has not restarted.
        _ if world.vm_before.is_some() => format!(
            "{} was shown an older state of the store (its server lags, or a snapshot was restored) and writes down \
             again that the VM is its own",
            world.me
        ),
        _ => format!("the controller of {} has restarted and goes on with what is there", world.me),
    }
}

/// Writes again what this node had written, where the store went back to a time before it became the owner and its copy
/// runs. Whoever is named instead cannot have started a copy meanwhile: this node's lease says that it has one.
pub(super) fn reclaim(world: &World, epoch: u64, plan: &mut Plan) {
    let (Some(stored), Some(before)) = (world.stored(), &world.vm_before) else {
        return;
    };
    let message = format!(
        "the store has gone back in time (a snapshot was restored?); {} goes on with the VM and writes that down again",
        world.me
    );
    let record = VmRecord {
        revision: before.revision.max(stored.record.revision) + 1,
        note: message.clone(),
        ..before.clone()
    };
    plan.step(Write::over(stored.index, world, epoch, record, (EventReason::Reclaimed, message)).step());
}
