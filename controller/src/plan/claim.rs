//! What a node does about a VM that is not its own: nothing while the owner may live; fence and claim when the owner
//! may not; and the order in which the nodes try.

use std::time::Duration;

use zsha_crds::EventReason;
use zsha_crds::document::GuestPowerOff;
use zsha_crds::records::{Owner, StartRecord, VmPhase, VmRecord};

use super::decision::Plan;
use super::freed::{Freed, freed};
use super::notes::Notes;
use super::others::{Guard, nobody_else_has_a_copy};
use super::owner::Upkeep;
use super::step::{ResumeBecause, Step, Write};
use super::{departed, ended, fitness, placement, unnamed};
use crate::desired::Desired;
use crate::hypervisor::{LocalVm, PauseReason};
use crate::intents::Intents;
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::{StoredVm, World};

/// The time by which each next node in line tries later. So a first in line that cannot act delays a failover and does
/// not prevent it.
pub const STAGGER: Duration = Duration::from_secs(2);

const FIRST_COOL_DOWN: Duration = Duration::from_secs(30);
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(600);

/// Decides for the node to which the VM is being moved. While the owner may live, a copy that arrives is left alone and
/// does not run. When the owner is dead the VM is claimed like any other, and the copy that had arrived is not trusted.
pub fn stand_by(world: &World, notes: &mut Notes, plan: &mut Plan) {
    let Some(stored) = world.stored() else { return };
    let Some(local) = world.local.known().copied() else {
        plan.wait(
            "HypervisorUnknown",
            "the VM is being moved here, and this node cannot see its own hypervisor",
        );
        return;
    };
    notes.seen.migration.expected = stored.record.migration.as_ref().map(|migration| migration.id);
    if local.executes() {
        let because = "it runs before it was handed over";
        let was_whole = notes.seen.migration.whole.is_some()
            && notes.seen.migration.whole == notes.seen.migration.expected;
        if was_whole || planted::is_planted(Bug::NotHandedOverIsEnded) {
            // Somebody has let the copy run by hand. The source may go on with the guest.
            plan.step(Step::KillCopy { because: because.to_owned(), if_still: None });
        } else {
            // The guest was moved here by hand as well, or somebody has started it.
            unnamed::deal(world, because, notes, plan);
        }
        return;
    }
    notes.seen.unnamed = None;
    notes.seen.also = None;
    let is_whole = matches!(local, LocalVm::Paused { reason: PauseReason::Asked, .. });
    notes.seen.migration.whole = notes.seen.migration.expected.filter(|_| is_whole);
    let mut looked = Plan::default();
    if let Some(freed) = freed(world, stored, &mut looked) {
        if local.has_process() {
            let because =
                "the node it was being moved from is dead, and nobody knows how far it had gone".to_owned();
            plan.step(Step::KillCopy { because, if_still: None });
        } else if !hands_on(world, stored, freed, plan) {
            consider(world, notes, plan);
        }
    } else {
        if planted::is_planted(Bug::ResumeEarly)
            && local
                == (LocalVm::Paused {
                    reason: PauseReason::Asked,
                    generation: local.generation().unwrap_or(0),
                })
            && let Some(epoch) = world.valid_epoch()
        {
            plan.step(Step::Resume { epoch, because: ResumeBecause::Arrived });
        }
        if let Some(at) = looked.recheck {
            plan.recheck_at(at);
        }
        plan.wait("Arriving", "the VM is being moved here");
    }
}

/// Hands the VM to its heir where a record of another time moves the VM here from a node that is dead, while it runs on
/// a third node. The third cannot claim it, since this node lives, and this node has no copy to let go on.
fn hands_on(world: &World, stored: &StoredVm, freed: Freed, plan: &mut Plan) -> bool {
    let Some(epoch) = world.valid_epoch().filter(|_| world.frozen().is_none()) else { return false };
    (Upkeep { world, stored, epoch }).hands_to_heir(freed.fence, plan)
}

/// Decides whether to claim the VM. It is called only with a valid lease and a known record that does not name this
/// node.
pub fn consider(world: &World, notes: &mut Notes, plan: &mut Plan) {
    let Some(stored) = world.stored() else { return };
    let Some((freed, desired)) = is_to_be_had(world, stored, plan) else {
        notes.seen.claimable_since = None;
        if stored.record.owner.is_some() {
            // It is being tried again.
            notes.seen.failed_since = None;
        }
        return;
    };
    if world.local.known().is_none() {
        plan.wait("HypervisorUnknown", "this node cannot see its own hypervisor, so it claims nothing");
        return;
    }
    let line = placement::candidates(world, desired, &stored.record);
    let forgive = match forgiven(world, desired, &stored.record, &line, notes, plan) {
        Forgiven::NothingToForgive => false,
        Forgiven::NotYet => return,
        Forgiven::Now => true,
    };
    let rank = if forgive { Some(0) } else { line.rank(&world.me) };
    let Some(rank) = rank else {
        if line.fit.is_empty() {
            plan.wait("NoNodeFit", format!("the VM waits for a fit node. {}", line.why_not()));
        }
        return;
    };
    let unnamed = stored.record.owner.is_none() || world.went_back;
    let strict = unnamed || stored.record.departed.is_some();
    let guard = Guard { fenced: &freed.fence, strict, target: None, starts: true };
    let Some(rests_on) = nobody_else_has_a_copy(world, &guard, plan) else { return };
    let since = *notes.seen.claimable_since.get_or_insert(world.now);
    let due = since + STAGGER * rank;
    if world.now < due {
        plan.recheck_at(due);
        plan.wait("NotFirstInLine", format!("{} is first in line to take the VM", line.fit[0]));
        return;
    }
    if let Some(at) = notes.tried.retry_at.filter(|at| world.now < *at) {
        plan.recheck_at(at);
        return;
    }
    let Some(epoch) = world.valid_epoch() else { return };
    let mut write = claim(world, desired, stored, epoch, (freed, notes));
    write.rests_on = rests_on;
    if forgive {
        write.record.failures.clear();
    }
    plan.step(write.step());
}

/// Returns what frees the VM and the document, if the VM is free and wanted.
fn is_to_be_had<'w>(world: &'w World, stored: &StoredVm, plan: &mut Plan) -> Option<(Freed, &'w Desired)> {
    if departed::is_first_written_down(world, stored, plan) {
        return None;
    }
    if let Some(asked) = world.frozen().filter(|_| !planted::is_planted(Bug::TakenWhileFrozen)) {
        plan.wait("Frozen", format!("the VM is not taken over whatever happens: frozen {asked}"));
        return None;
    }
    let freed = freed(world, stored, plan)?;
    Some((freed, wanted(world, &stored.record, plan)?))
}

/// The outcome for failed starts that keep the VM from running anywhere: whether they are old enough to be tried again.
enum Forgiven {
    NothingToForgive,
    NotYet,
    Now,
}

/// Decides when a VM that has failed everywhere is tried again. The cause (a share, a switch) often passes by itself,
/// and giving up for good would make an outage of it. The nodes try in the order of the document, ever more slowly.
fn forgiven(
    world: &World,
    desired: &Desired,
    record: &VmRecord,
    line: &placement::Candidates,
    notes: &mut Notes,
    plan: &mut Plan,
) -> Forgiven {
    let failed_here = placement::failures(record, desired, &world.me).is_some();
    let fit = fitness::first_fault(&plan.conditions).is_none();
    if !line.fit.is_empty() || !failed_here || !fit {
        notes.seen.failed_since = None;
        return Forgiven::NothingToForgive;
    }
    let place = desired.order.iter().position(|node| *node == world.me).unwrap_or_default();
    let place = u32::try_from(place).unwrap_or_default();
    let since = *notes.seen.failed_since.get_or_insert(world.now);
    let pause = (FIRST_COOL_DOWN * 2u32.pow(notes.tried.failed_rounds.min(8))).min(LONGEST_COOL_DOWN);
    // An operator who says `start` has looked after the cause.
    let pause = if world.start_asked().is_some() { Duration::ZERO } else { pause };
    let due = since + pause + STAGGER * place;
    if world.now >= due {
        return Forgiven::Now;
    }
    plan.recheck_at(due);
    plan.wait(
        "Failed",
        format!(
            "the VM could not be started on any node: {}. Mend that; it is tried again in {} s, and at once after \
             `zsha start` or the next change of the document",
            line.why_not(),
            world.now.until(due).as_secs()
        ),
    );
    Forgiven::NotYet
}

/// The document, if it and the operators want the VM to run.
fn wanted<'w>(world: &'w World, record: &VmRecord, plan: &mut Plan) -> Option<&'w Desired> {
    match &world.intents {
        Observed::Known(Intents { stop: None, .. }) => {}
        Observed::Known(_) => {
            plan.wait("Stopped", "the VM was stopped by command; `zsha start` starts it again");
            return None;
        }
        Observed::Unknown(why) => {
            plan.wait("IntentUnknown", format!("it is not known whether the VM is to run: {why}"));
            return None;
        }
    }
    if let Some(departed) = &record.departed
        && !departed::has_died_there(world, departed)
        && world.start_asked().is_none()
    {
        plan.wait("MovedAway", departed::moved_away(departed));
        return None;
    }
    let desired = world.document()?;
    match record.phase {
        VmPhase::PoweredOff
            if desired.power_off == GuestPowerOff::StayOff && world.start_asked().is_none() =>
        {
            plan.wait(
                "PoweredOff",
                "the guest powered itself off, and `GuestPowerOff` is 'StayOff'; `zsha start` starts it again",
            );
            None
        }
        VmPhase::Failed
        | VmPhase::PoweredOff
        | VmPhase::Stopped
        | VmPhase::Starting
        | VmPhase::Running
        | VmPhase::Stopping => Some(desired),
    }
}

fn claim(
    world: &World,
    desired: &Desired,
    stored: &StoredVm,
    epoch: u64,
    (freed, notes): (Freed, &Notes),
) -> Write {
    let before = &stored.record;
    let reason = match (&before.owner, &before.last_start) {
        (Some(owner), _) if owner.node == world.me => EventReason::Returned,
        (Some(_), _) => EventReason::Failover,
        (None, Some(_)) => EventReason::Placed,
        (None, None) => EventReason::FirstStart,
    };
    let message = match &before.owner {
        Some(owner) if owner.node == world.me => {
            let why = ended::by_keeper(world, before, notes).unwrap_or_else(|| {
                "the node, its keeper or its controller was restarted, or it was fenced".to_owned()
            });
            format!("{} starts the VM again, by a new lease: {why}", world.me)
        }
        Some(owner) => format!("{} takes the VM over from {}: {}", world.me, owner.node, freed.because),
        None => match world.start_asked() {
            Some(start) => format!("{} takes the VM: {} said `zsha start`", world.me, start.by),
            None => format!("{} takes the VM: {}", world.me, before.note),
        },
    };
    let same_document = before.failures_generation == desired.generation;
    let record = VmRecord {
        owner: Some(Owner { node: world.me.clone(), epoch }),
        migration: None,
        departed: None,
        disk: world.disk().cloned(),
        phase: VmPhase::Starting,
        failures: if same_document { before.failures.clone() } else { Default::default() },
        failures_generation: desired.generation,
        start_taken_up: world.start_asked().map(|start| start.id).or(before.start_taken_up),
        last_start: Some(StartRecord {
            node: world.me.clone(),
            at: world.wall,
            reason: reason.as_str().to_owned(),
            generation: desired.generation,
        }),
        note: message.clone(),
        revision: before.revision + 1,
        ..before.clone()
    };
    let write = Write::over(stored.index, world, epoch, record, (reason, message));
    Write { fence: freed.fence, ..write }
}
