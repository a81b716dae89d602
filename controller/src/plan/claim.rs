//! What a node does about a VM that is not its own: nothing while its owner may live; fence and claim when it may
//! not; and in what order the nodes try.

use std::time::Duration;

use zsha_crds::document::GuestPowerOff;
use zsha_crds::records::{
    LEASE_LOOK_MILLIS, LeaseState, LeaseTimings, Owner, StartRecord, VmPhase, VmRecord,
};
use zsha_crds::{EventReason, NodeName};
use zsha_runtime::Moment;
use zsha_runtime::lease::Sight;

use super::decision::Plan;
use super::notes::Notes;
use super::ownership::{self, Standing};
use super::step::{ResumeBecause, Step, Write};
use super::upkeep::Upkeep;
use super::{departed, ended, fitness, placement, unnamed, unreadable};
use crate::desired::Desired;
use crate::hypervisor::{LocalVm, PauseReason};
use crate::intents::Intents;
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::{StoredVm, World};

/// The next in line tries this much later, so that a first in line that cannot act delays a failover and does not
/// prevent it.
pub const STAGGER: Duration = Duration::from_secs(2);

/// Between two looks at the leases.
pub(super) const LOOK: Duration = Duration::from_millis(LEASE_LOOK_MILLIS);

const FIRST_COOL_DOWN: Duration = Duration::from_secs(30);
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(600);

/// What the node does that the VM is being moved to. What arrives here is left alone, and does not run, while its
/// owner may live; when that is dead the VM is taken like any other, and what had arrived is not trusted.
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
            // Let run by hand: its source may go on with it.
            plan.step(Step::KillCopy { because: because.to_owned(), if_still: None });
        } else {
            // It was moved here by hand as well, or somebody has started it.
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

/// A record of another time may have the VM moved here from a node that is dead, while it runs on a third: that one cannot
/// claim it, since this node lives, and this one has no copy to let go on.
fn hands_on(world: &World, stored: &StoredVm, freed: Freed, plan: &mut Plan) -> bool {
    let Some(epoch) = world.valid_epoch().filter(|_| world.frozen().is_none()) else { return false };
    (Upkeep { world, stored, epoch }).hands_to_heir(freed.fence, plan)
}

/// Whether to take the VM, called only with a valid lease and a known record that does not name this node.
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

/// Whether the VM is free, and wanted: what frees it, and the document.
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

/// Whether failed starts that keep the VM from running anywhere are old enough to be tried again.
enum Forgiven {
    NothingToForgive,
    NotYet,
    Now,
}

/// What made every start fail (a share, a switch) is often mended by itself; giving up for good would make an
/// outage of it. The nodes try in the order of the document, ever more slowly.
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
    // An operator who says `start` has looked after it.
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

/// What is asked of the other nodes before this one starts a copy.
pub(super) struct Guard<'a> {
    /// Leases fenced in the same write: those nodes need not be asked.
    pub fenced: &'a [Sight],
    /// Whether a living node that cannot look at its processes stands in the way as well. It does where the record
    /// itself proves nothing; where it names an owner that is dead, only that owner could have had a copy.
    pub strict: bool,
    /// Where the VM is being moved to: that node may have a copy, which does not run.
    pub target: Option<&'a NodeName>,
    /// Whether a copy is to be started by it. What only writes down what runs already does not wait for members of which
    /// there is no trace.
    pub starts: bool,
}

/// Second guard of a start, for when the record is not what it was (deleted, restored from a snapshot): every other node
/// that holds a lease must have been seen to renew it, with the word that it sees no process of the VM; or not to have
/// renewed it for D, and then its copy is dead whatever the records say. Those whose word or silence this rests on.
pub(super) fn nobody_else_has_a_copy(
    world: &World,
    guard: &Guard<'_>,
    plan: &mut Plan,
) -> Option<Vec<Sight>> {
    if let Some((node, epoch)) = world.vanished_leases.iter().find(|(node, _)| **node != world.me) {
        let why =
            format!("the store has gone back in time and shows no lease of {node}, which may run the VM");
        ask_for_lease(Owner { node: node.clone(), epoch: *epoch }, &why, plan);
        return None;
    }
    if !world.sees_the_leases() && !planted::is_planted(Bug::ListNotShownToBeNow) {
        // An empty list may be one that has not been read yet, and a list without this life may be one of before it.
        plan.recheck_at(world.now + LOOK);
        plan.wait(
            "LeasesNotSeen",
            "this node does not see its own lease yet, and so may not see the others'",
        );
        return None;
    }
    let record = world.record();
    if (guard.strict || has_returned(world)) && unreadable::is_in_the_way(world, record, plan) {
        return None;
    }
    match (silent_member(world, guard), first_start_waits_until(world)) {
        (None, _) => {}
        (Some(node), None) => {
            let why = format!("{node} has no lease, so nobody knows whether it runs the VM");
            ask_for_lease(Owner { node: node.clone(), epoch: 0 }, &why, plan);
            return None;
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
            return None;
        }
        (Some(_), Some(_)) => {}
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

/// The first document of a cluster finds nodes that have still to come, and is not kept waiting for them for as long as
/// the longest lease; but to a node that has just booted a store that was emptied looks the same. Whoever ran the VM then
/// renewed last before the store was emptied, and so before this node's own life: by D after that it has written its
/// lease again, or is dead. (The D of the document before is gone with the store: it is taken to be that of the present one, or of
/// the most patient profile where that is longer.) None where it is no first start.
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

/// Whether the record names this node, which has begun a new life since: it was away, and the record may be of a time before
/// others had the VM.
fn has_returned(world: &World) -> bool {
    let owner = world.record().and_then(|record| record.owner.as_ref());
    owner.is_some_and(|owner| owner.node == world.me && world.valid_epoch() != Some(owner.epoch))
}

/// A node of the document that has no lease at all, where that matters: the record is one that may be of another time. A
/// lease may have been deleted by hand; and a record of a VM that has never run may be that of a store which was emptied.
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

/// That a node which does not own the VM has a copy, and what comes of it.
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

/// What a node's lease says of copies there.
enum Word {
    /// It has none to lose, and need not be asked.
    Nothing,
    /// It says that it has none, or has been silent for so long that it has none. It may speak again, unseen: so this
    /// becomes part of the write.
    NoCopy,
    /// It may have one; when that may be otherwise, if time alone can make it so.
    InTheWay { reason: &'static str, why: String, until: Option<Moment> },
}

fn word_of(world: &World, strict: bool, sight: &Sight) -> Word {
    let node = &sight.record.node;
    let in_the_way = |reason, until, why| Word::InTheWay { reason, why, until };
    match sight.record.state {
        // Of a restored snapshot, it may live by a later life that is not written down again yet.
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
        LeaseState::Held => match sight.record.copies {
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

/// What frees the VM from everybody who is named: the leases to fence, and why. None: somebody may still run it.
pub(super) struct Freed {
    pub(super) fence: Vec<Sight>,
    pub(super) because: String,
}

pub(super) fn freed(world: &World, stored: &StoredVm, plan: &mut Plan) -> Option<Freed> {
    let mut freed = Freed { fence: Vec::new(), because: String::new() };
    for owner in ownership::named(&stored.record) {
        // Where the VM was being moved to this very node, and no copy is here, nobody else can have one by that.
        if owner.node == world.me && world.valid_epoch() == Some(owner.epoch) {
            continue;
        }
        match ownership::standing(world, owner) {
            Standing::Dead { because } => freed.because = because,
            Standing::Expired { .. } if planted::is_planted(Bug::NeverFence) => return None,
            Standing::Expired { sight } => {
                let secs = world.now.since(sight.sent_by).as_secs_f64();
                freed.because = match sight.record.state {
                    LeaseState::Lost => {
                        format!(
                            "the lease of {} was gone, and it has not written it anew for {secs:.0} s",
                            owner.node
                        )
                    }
                    _ => format!("{} has not renewed its lease for {secs:.1} s", owner.node),
                };
                freed.fence.push(*sight);
            }
            Standing::Gone { over } => {
                plan.wait(
                    "LeaseGone",
                    format!(
                        "the lease of {} is gone, or cannot be read; a record is put in its place",
                        owner.node
                    ),
                );
                plan.step(Step::ReplaceLease { of: owner.clone(), over });
                return None;
            }
            Standing::MayLive { until, because } => {
                if let Some(at) = until {
                    plan.recheck_at(at);
                }
                if until.is_none()
                    || is_lost(world, owner)
                    || world.unreadable_leases.contains_key(&owner.node)
                {
                    plan.wait("OwnerUnknown", because);
                }
                return None;
            }
        }
    }
    Some(freed)
}

fn is_lost(world: &World, owner: &Owner) -> bool {
    world.sights.get(&owner.node).is_some_and(|sight| sight.record.state == LeaseState::Lost)
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
