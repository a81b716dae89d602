//! Leads the owner to a start of its VM: whether the VM may be started here, when, and what becomes of starts that
//! fail.

use std::time::Duration;

use zsha_crds::EventReason;
use zsha_crds::document::GuestPowerOff;
use zsha_crds::records::{StartFailures, StartRecord, VmPhase};
use zsha_runtime::Moment;

use super::decision::Plan;
use super::devices::image_to_start;
use super::notes::Notes;
use super::others::{Guard, nobody_else_has_a_copy};
use super::owner::Upkeep;
use super::step::Step;
use super::{ended, fitness, placement};
use crate::desired::Desired;
use crate::hypervisor::{DomainSpec, OffReason};
use crate::planted::{self, Bug};

/// The number of starts within the window that are not slowed down: a second is worth more than the heat of five
/// starts.
const AT_ONCE: usize = 5;
/// The age after which a start no longer slows the next one down.
const CRASH_WINDOW: Duration = Duration::from_secs(600);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The time after which a hypervisor that does not answer is more than just being restarted.
pub(super) const BLIND_PATIENCE: Duration = Duration::from_secs(15);

impl Upkeep<'_> {
    pub(super) fn not_running(&self, reason: OffReason, notes: &mut Notes, plan: &mut Plan) {
        let Some(desired) = self.world.document().cloned() else {
            plan.wait("DocumentUnknown", "the VM is not started: the document is not known");
            return;
        };
        if self.record().phase == VmPhase::Running
            && self.left_off(reason, &desired, notes.tried.shutdown_asked.is_some(), plan)
        {
            return;
        }
        if self.is_elsewhere(reason, notes, plan) {
            return;
        }
        if self.count_failure(notes, plan) {
            return;
        }
        if let Some(unknown) = fitness::first_unknown(&plan.conditions) {
            let since = *notes.seen.blind_since.get_or_insert(self.world.now);
            if self.world.now < since + BLIND_PATIENCE {
                plan.recheck_at(since + BLIND_PATIENCE);
                plan.wait("NotLookedYet", unknown);
                return;
            }
        } else {
            notes.seen.blind_since = None;
        }
        if self.give_up(&desired, plan) {
            return;
        }
        let due = next_start(notes, self.world.now).max(notes.tried.retry_at.unwrap_or_default());
        if self.world.now < due {
            plan.recheck_at(due);
            let why = notes
                .tried
                .blocked
                .clone()
                .unwrap_or_else(|| "it died soon after its last starts".to_owned());
            let secs = self.world.now.until(due).as_secs_f64();
            plan.wait("StartDelayed", format!("the next try is in {secs:.0} s: {why}"));
            return;
        }
        self.begin_start(reason, &desired, notes, plan);
    }

    /// Begins the start, where nothing here stands in the way. First it is written that the VM is to be started, then
    /// it is started.
    fn begin_start(&self, reason: OffReason, desired: &Desired, notes: &Notes, plan: &mut Plan) {
        if self.is_to_ask(notes) {
            let guard = Guard { fenced: &[], strict: self.asks_strictly(notes), target: None, starts: true };
            let asked = match planted::is_planted(Bug::StartWithoutLease) {
                true => Some(Vec::new()),
                false => nobody_else_has_a_copy(self.world, &guard, plan),
            };
            let Some(rests_on) = asked else { return };
            // The others' word goes into the write: a node that has a copy by then makes it fail.
            let mut step = self.starting(reason, notes, desired);
            if let Step::Write(write) = &mut step {
                write.rests_on = rests_on;
            }
            plan.step(step);
        } else if [Bug::CopyElsewhereIgnored, Bug::StartWithoutLease].into_iter().any(planted::is_planted)
            || !self.is_with_another(plan)
        {
            // The others had no copy as it was written that the VM is to be started. No copy is started beside one that
            // has come since.
            let image = match image_to_start(self.world, desired) {
                Ok(image) => image,
                Err(why) => {
                    plan.wait("DiskNotUnderstood", why);
                    return;
                }
            };
            plan.step(Step::Start {
                domain: DomainSpec { image, ..desired.domain.clone() },
                seed: desired.seeds.get(&self.world.me).cloned(),
                epoch: self.epoch,
            });
        }
    }

    fn starting(&self, off: OffReason, notes: &Notes, desired: &Desired) -> Step {
        let killed = matches!(off, OffReason::Died | OffReason::Destroyed);
        let by_keeper = ended::by_keeper(self.world, self.record(), notes).filter(|_| killed);
        let by_keeper = by_keeper.map(|how| format!("{} starts the VM again: {how}", self.world.me));
        let (reason, message) = match (off, &by_keeper) {
            (_, Some(message)) => (EventReason::LeaseEnded, message.as_str()),
            (OffReason::Died, None) => (EventReason::QemuDied, "QEMU died; the VM is started again"),
            (OffReason::Shutdown, None) => {
                (EventReason::GuestPoweredOff, "the guest powered itself off; it is started again")
            }
            (OffReason::Destroyed, None) => {
                (EventReason::Destroyed, "the VM was destroyed from outside; it is started again")
            }
            (OffReason::Migrated | OffReason::Unread | OffReason::Unknown, None) => {
                (EventReason::NotRunning, "the VM does not run here; it is started")
            }
        };
        let start = StartRecord {
            node: self.world.me.clone(),
            at: self.world.wall,
            reason: reason.as_str().to_owned(),
            generation: desired.generation,
        };
        let disk = self.world.disk().cloned();
        self.change(reason, message.to_owned(), |record| {
            record.phase = VmPhase::Starting;
            record.last_start = Some(start);
            record.departed = None;
            record.disk = disk;
        })
    }

    /// Leaves a guest off that powered itself off, where the document says so. A guest that was `asked` to, by a stop
    /// that was taken back since, is not left off.
    fn left_off(&self, reason: OffReason, desired: &Desired, asked: bool, plan: &mut Plan) -> bool {
        let left = reason == OffReason::Shutdown && desired.power_off == GuestPowerOff::StayOff && !asked;
        if left {
            let message = "the guest powered itself off, and `GuestPowerOff` is 'StayOff'".to_owned();
            plan.step(self.change(EventReason::PoweredOff, message, |record| {
                record.owner = None;
                record.phase = VmPhase::PoweredOff;
            }));
        }
        left
    }

    /// Writes a start that failed into the record before anything else is tried.
    pub(super) fn count_failure(&self, notes: &mut Notes, plan: &mut Plan) -> bool {
        let Some(reason) = notes.tried.failed.clone() else { return false };
        let me = self.world.me.clone();
        let generation = self.world.document().map_or(0, |d| d.generation);
        plan.step(self.change(
            EventReason::StartFailed,
            format!("starting the VM on {me} failed: {reason}"),
            |record| {
                if record.failures_generation != generation {
                    record.failures.clear();
                    record.failures_generation = generation;
                }
                let failures =
                    record.failures.entry(me).or_insert(StartFailures { count: 0, reason: String::new() });
                failures.count += 1;
                failures.reason = reason;
            },
        ));
        true
    }

    pub(super) fn too_many_failures(&self) -> bool {
        self.world
            .document()
            .is_some_and(|desired| placement::failures(self.record(), desired, &self.world.me).is_some())
    }

    /// Gives the VM up where it cannot be started here but perhaps elsewhere: then nobody owns it, and the others try.
    /// Returns true if it is given up.
    pub(super) fn give_up(&self, desired: &Desired, plan: &mut Plan) -> bool {
        let line = placement::candidates(self.world, desired, self.record());
        let Some(why) = line.unfit.get(&self.world.me) else { return false };
        let failed_everywhere =
            desired.order.iter().all(|node| placement::failures(self.record(), desired, node).is_some());
        if failed_everywhere {
            let message = format!("the VM could not be started on any node: {}", line.why_not());
            plan.step(self.change(EventReason::Failed, message, |record| {
                record.owner = None;
                record.phase = VmPhase::Failed;
            }));
        } else if line.fit.is_empty() && placement::is_only_drained(self.world, desired, self.record()) {
            // The VM was to leave, and has nowhere to go. It is no worse off here than nowhere.
            return false;
        } else if line.fit.is_empty() && !self.too_many_failures() {
            plan.wait("NoNodeFit", format!("the VM waits for a fit node. {}", line.why_not()));
        } else {
            let message = format!("{} gives the VM up: {why}", self.world.me);
            plan.step(self.change(EventReason::GaveUp, message, |record| {
                record.owner = None;
                record.phase = VmPhase::Stopped;
            }));
        }
        true
    }
}

/// The moment of the next start. A VM that dies soon after each start is started ever more slowly: a few times at once,
/// then after 1, 2, 4 ... 60 s.
fn next_start(notes: &Notes, now: Moment) -> Moment {
    let lately: Vec<_> = notes.tried.starts.iter().filter(|at| now.since(**at) < CRASH_WINDOW).collect();
    match (lately.len(), lately.last()) {
        (_, None) => Moment::default(),
        (n, _) if n <= AT_ONCE => Moment::default(),
        (n, Some(last)) => {
            let doublings = u32::try_from(n - AT_ONCE - 1).unwrap_or(u32::MAX).min(6);
            **last + (Duration::from_secs(1) * 2u32.pow(doublings)).min(LONGEST_PAUSE)
        }
    }
}
