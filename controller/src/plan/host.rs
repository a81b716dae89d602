//! What this node keeps as the document has it, beside the VM: the keeper's timings and watchdog, the mounts, and the
//! guest's seed disk.

use std::sync::Arc;

use zsha_crds::document::Watchdog;

use super::decision::Plan;
use super::notes::Notes;
use super::step::Step;
use crate::host::{MountFact, MountWant, SeedFact};
use crate::keeper::WatchdogState;
use crate::observed::Observed;
use crate::world::World;

pub(super) fn keep_timings(world: &World, plan: &mut Plan) {
    if let (Some(desired), Some(verdict)) = (world.document(), world.lease.known())
        && desired.names(&world.me)
        && verdict.timings != desired.timings
    {
        plan.step(Step::SetTimings(desired.timings));
    }
}

/// Tells the keeper whether a watchdog is wanted. A keeper that names no watchdog has none, or does not understand the
/// question yet.
pub(super) fn keep_watchdog(world: &World, plan: &mut Plan) {
    let (Some(desired), Some(verdict)) = (world.document(), world.lease.known()) else { return };
    let wanted = desired.watchdog != Watchdog::Off;
    let differs = match verdict.watchdog {
        WatchdogState::None => false,
        WatchdogState::Off => wanted,
        WatchdogState::Petted { .. } | WatchdogState::Refused { .. } => !wanted,
    };
    if differs && desired.names(&world.me) {
        plan.step(Step::SetWatchdog(wanted));
    }
}

/// Plans one mount at a time, each in its turn: a server that does not answer keeps no other share from being mounted.
pub(super) fn keep_mounts(world: &World, notes: &mut Notes, plan: &mut Plan) {
    let (Some(desired), Some(facts)) = (world.document(), world.host.known()) else { return };
    let is_missing = |want: &&MountWant| {
        matches!(facts.mounts.get(&want.target), Some(Observed::Known(MountFact::NotMounted)))
    };
    let missing: Vec<&MountWant> = desired.wants.mounts.iter().filter(is_missing).collect();
    notes.tried.mount_at.retain(|target, _| missing.iter().any(|want| want.target == *target));
    if world.mounting {
        return;
    }
    let due = |want: &MountWant| notes.tried.mount_at.get(&want.target).copied().unwrap_or(world.now);
    let Some(next) = missing.into_iter().min_by_key(|want| due(want)) else { return };
    if world.now < due(next) {
        plan.recheck_at(due(next));
        return;
    }
    plan.step(Step::Mount(next.clone()));
}

/// Keeps the seed disk ready. Every node needs it, also for a guest that is moved there live: the process at the target
/// opens it. A guest that runs here keeps the one it began with.
pub(super) fn keep_seed(world: &World, notes: &mut Notes, plan: &mut Plan) {
    let (Some(desired), Some(facts)) = (world.document(), world.host.known()) else { return };
    let Some(seed) = desired.seeds.get(&world.me) else { return };
    match &facts.seed {
        Some(Observed::Known(SeedFact::NotWritten | SeedFact::Refused { .. })) => {}
        Some(Observed::Known(SeedFact::Written)) => {
            notes.tried.seed_at = None;
            return;
        }
        Some(Observed::Unknown(_)) | None => return,
    }
    if let Some(at) = notes.tried.seed_at.filter(|at| world.now < *at) {
        plan.recheck_at(at);
        return;
    }
    plan.step(Step::WriteSeed(Arc::clone(seed)));
}
