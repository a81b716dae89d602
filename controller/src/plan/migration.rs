//! Live migration: whether the VM moves, and what each side does at each moment of it.
//!
//! - The owner writes whom it moves to, and begins. Only its own copy executes; what arrives at the target is paused.
//! - When its copy is gone, and only then, the owner makes the target the owner in one write.
//! - The new owner lets the copy that came run, or, where there is none any more, starts the VM afresh.
//!
//! So a migration that breaks at any step leaves the one copy of the source, or the one of the target, or none, which is
//! a restart. libvirt alone would not: when the answer of the target is lost, it lets the guest go on at the source
//! while the target has it too.

use std::time::Duration;

use uuid::Uuid;
use zsha_crds::records::{Answer, LeaseState, Migration, Outcome, Owner, StartRecord, VmPhase, VmRecord};
use zsha_crds::{EventReason, NodeName};
use zsha_runtime::Moment;

use super::decision::Plan;
use super::heard::Heard;
use super::notes::Notes;
use super::owner::{Upkeep, kill};
use super::step::{ResumeBecause, Step};
use super::{looked, placement};
use crate::desired::Desired;
use crate::hypervisor::{LocalVm, MigrationJob, MigrationOrder, OffReason, PauseReason};
use crate::intents::Cordon;
use crate::planted::{self, Bug};
use crate::world::World;

/// A preferred node has to be fit for so long before the VM is moved back to it: a node that comes and goes is no
/// reason to move a healthy VM.
const CALM: Duration = Duration::from_secs(10);
/// A guest that dirties its memory faster than the network takes it is not moved.
const PATIENCE: Duration = Duration::from_secs(900);
/// libvirt puts the source's process away within moments of the end; the target knows of the end by then.
const SOON: Duration = Duration::from_millis(200);
/// A keeper that was started anew renews once before its controller has asked it anything.
const CONTROLLER_AWAY: Duration = Duration::from_secs(6);
/// An abort that has not ended the migration is asked for again after this.
const ABORT_AGAIN: Duration = Duration::from_secs(5);
/// A copy that was handed over and has still not arrived will not.
const ARRIVAL: Duration = Duration::from_secs(10);

/// The record of a migration that has begun has been read everywhere by then. Less than a failover has to spare.
const UNNAMED: Duration = Duration::from_secs(1);

/// Whether what is here may come with a migration whose record is on its way to this node. It does not execute, and a
/// kill that the hypervisor is slow to do would end the VM after it was handed over.
pub(super) fn comes_before_its_record(world: &World, notes: &mut Notes, plan: &mut Plan) -> bool {
    if !world.local.known().is_some_and(LocalVm::is_incoming) {
        notes.seen.migration.unnamed = None;
        return false;
    }
    let until = *notes.seen.migration.unnamed.get_or_insert(world.now) + UNNAMED;
    let may = world.now < until;
    if may {
        plan.recheck_at(until);
        plan.wait("Arriving", "a copy of the VM arrives here by a migration that no record names yet");
    }
    may
}

/// Where the VM should go, and why.
struct Wish {
    to: NodeName,
    because: String,
}

impl Upkeep<'_> {
    /// With the VM running here and nothing else to do: begins a migration where one is wanted.
    pub(super) fn move_on(&self, desired: &Desired, notes: &mut Notes, plan: &mut Plan) {
        let line = placement::candidates(self.world, desired, self.record());
        let wish = match self.asked(desired, &line, notes, plan) {
            Asked::Answered => return,
            Asked::Waits if !self.is_to_leave(desired) => return,
            Asked::For(wish) => wish,
            Asked::Waits | Asked::Nothing => match self.better_place(desired, &line, notes, plan) {
                Some(wish) => wish,
                None => return,
            },
        };
        if !matches!(self.world.local.known(), Some(LocalVm::Running { .. })) {
            plan.wait("MigrationWaits", format!("the VM moves to {} once it runs", wish.to));
            return;
        }
        self.begin(&wish, plan);
    }

    fn begin(&self, wish: &Wish, plan: &mut Plan) {
        let Some(sight) = self.world.sights.get(&wish.to) else { return };
        if sight.record.copies != Some(0) {
            plan.wait("MigrationWaits", format!("{} has not said that it has no process of the VM", wish.to));
            return;
        }
        let id =
            Uuid::new_v5(&self.record().uuid, format!("migration {}", self.record().revision).as_bytes());
        let to = Owner { node: wish.to.clone(), epoch: sight.record.epoch };
        let message = format!("the VM is moved live from {} to {}: {}", self.world.me, wish.to, wish.because);
        let mut step = self.change(EventReason::MigrationBegun, message, |record| {
            record.migration = Some(Migration { to, id });
        });
        if let Step::Write(write) = &mut step {
            write.rests_on.push(sight.clone());
        }
        plan.step(step);
    }

    /// What an operator asked for, if it has not been answered yet.
    fn asked(
        &self,
        desired: &Desired,
        line: &placement::Candidates,
        notes: &mut Notes,
        plan: &mut Plan,
    ) -> Asked {
        let Some(request) = &self.world.migrate else { return Asked::Nothing };
        if self.record().answered.as_ref().is_some_and(|answer| answer.id == request.id) {
            return Asked::Nothing;
        }
        let (outcome, message) = if request.to == self.world.me {
            (Outcome::Done, format!("the VM runs on {} already", request.to))
        } else if line.fit.contains(&request.to) {
            let because = format!("{} asked for it", request.by);
            return Asked::For(Wish { to: request.to.clone(), because });
        } else if let Some(said) =
            placement::is_unfit_by_its_word(self.world, desired, self.record(), &request.to)
            && let Some(due) = looked::until(self.world, &request.to, request, notes)
        {
            plan.recheck_at(due);
            let status = self.world.nodes.get(&request.to);
            let at = status.map(|status| status.updated_at.strftime(", at %Y-%m-%d %H:%M:%SZ").to_string());
            plan.wait(
                "TargetLooks",
                format!(
                    "the VM is to move to {}, which looks whether it is fit, and has not said so since that was asked for. \
                     Before that it said{}: {said}",
                    request.to,
                    at.unwrap_or_default(),
                ),
            );
            return Asked::Waits;
        } else {
            let why = line.unfit.get(&request.to).map_or("it is no node of this cluster", String::as_str);
            (Outcome::Refused, format!("the VM is not moved to {}: {why}", request.to))
        };
        let answer = Answer { id: request.id, outcome, message: message.clone() };
        plan.step(
            self.change(EventReason::MigrationAnswered, message, |record| record.answered = Some(answer)),
        );
        Asked::Answered
    }

    /// Whether the VM is not to stay here, wherever it goes.
    fn is_to_leave(&self, desired: &Desired) -> bool {
        let me = &self.world.me;
        !desired.names(me) || matches!(self.world.cordon(me), Some(Cordon::Drained(_)))
    }

    /// Without anybody asking: this node has left the document, or a preferred one is back and the document says so.
    fn better_place(
        &self,
        desired: &Desired,
        line: &placement::Candidates,
        notes: &mut Notes,
        plan: &mut Plan,
    ) -> Option<Wish> {
        let me = &self.world.me;
        let drained = self.world.cordon(me).filter(|cordon| matches!(cordon, Cordon::Drained(_)));
        let leaving = self.is_to_leave(desired);
        let place = desired.order.iter().position(|node| node == me);
        let better = |node: &&NodeName| {
            let at = desired.order.iter().position(|other| other == *node);
            let calls_back = at < place && at.is_some_and(|at| at < desired.fail_back_to);
            leaving || (calls_back && !placement::is_unstable(self.world, node))
        };
        let Some(to) = line.fit.iter().find(|node| *node != me && better(node)) else {
            notes.seen.migration.preferred = None;
            if let Some(drained) = drained {
                let why = format!(
                    "the VM does not leave {me}, though {drained}: no other node is fit. {}",
                    line.why_not()
                );
                plan.wait("DrainWaits", why);
            }
            return None;
        };
        let since = match &notes.seen.migration.preferred {
            Some((node, since)) if node == to => *since,
            _ => self.world.now,
        };
        notes.seen.migration.preferred = Some((to.clone(), since));
        // Whoever drains a node waits for it.
        let calm = if drained.is_some() { Duration::ZERO } else { CALM };
        let due = (since + calm).max(notes.tried.move_at.unwrap_or_default());
        if self.world.now < due {
            plan.recheck_at(due);
            plan.wait("MigrationWaits", format!("the VM moves to {to} if that stays fit"));
            return None;
        }
        let because = match drained {
            Some(drained) => drained.to_string(),
            None if leaving => format!("the document no longer names {me}"),
            None => format!("{to} is preferred, and fit again"),
        };
        Some(Wish { to: to.clone(), because })
    }

    /// The record says that the VM is being moved from here.
    pub(super) fn moving(&self, migration: &Migration, local: LocalVm, notes: &mut Notes, plan: &mut Plan) {
        let job = &self.world.job;
        if planted::is_planted(Bug::HandOverEarly) && matches!(job, MigrationJob::Going { .. }) {
            self.hand_over(migration, plan);
            return;
        }
        let is_this = job.id() == Some(migration.id);
        let target = self.world.sights.get(&migration.to.node);
        let before = notes.seen.migration.uncontrolled.filter(|(id, _)| *id == migration.id);
        notes.seen.migration.uncontrolled = target
            .filter(|sight| !sight.record.controller_alive)
            .map(|_| before.unwrap_or((migration.id, self.world.now)));
        if !local.has_process() {
            let moved = local == LocalVm::Off { reason: OffReason::Migrated };
            let done = is_this && matches!(job, MigrationJob::Done { .. });
            match self.target(migration) {
                Target::Lives if done => self.hand_over(migration, plan),
                // Moved it was, and nobody in this process has seen where to: an operator may have done it.
                Target::Lives if moved => self.find_where_it_went(migration, notes, plan),
                // The guest is there, whole. Were it taken from the target now, that would put it away.
                Target::Late { until, why } if done || moved => {
                    plan.recheck_at(until.unwrap_or(self.world.now + SOON));
                    plan.wait("Migrating", format!("the VM has left for {}: {why}", migration.to.node));
                }
                Target::Lives | Target::Late { .. } => {
                    self.go_back("the VM ended during its migration", notes, plan);
                }
                Target::Lost(why) => self.go_back(&why, notes, plan),
            }
            return;
        }
        match job {
            MigrationJob::Failed { reason, .. } if is_this => self.go_back(reason, notes, plan),
            MigrationJob::Done { .. } if is_this => {
                let since = *notes.seen.migration.lingering.get_or_insert(self.world.now);
                if self.world.now >= since + ARRIVAL
                    && is_left_over(local)
                    && !planted::is_planted(Bug::LeftoverEndsTheMove)
                {
                    // The guest is at the target, whole: what is left of it here must not take it from there.
                    plan.recheck_at(self.world.now + SOON);
                    plan.step(kill("the VM has moved, and what is left of it here does not end by itself"));
                } else if self.world.now >= since + ARRIVAL {
                    // A restored store may tell of a migration that was over long ago.
                    notes.seen.unexplained = true;
                    self.go_back("it is said to have left, and a copy is here", notes, plan);
                } else {
                    plan.recheck_at(self.world.now + SOON);
                    plan.wait("Migrating", "the VM has moved; its process here is about to end");
                }
            }
            MigrationJob::Going { percent, .. } if is_this => match self.hopeless(migration, notes) {
                Some(why) => self.abort(migration, why, notes, plan),
                None => {
                    let done = percent.map_or_else(String::new, |percent| format!(" ({percent} %)"));
                    plan.recheck_at(self.world.now + Duration::from_secs(1));
                    plan.wait("Migrating", format!("the VM moves to {}{done}", migration.to.node));
                }
            },
            _ => match notes.tried.aborted.filter(|(id, _)| *id == migration.id) {
                Some((_, at)) => self.after_abort(at, local, notes, plan),
                None => self.not_begun(migration, local, notes, plan),
            },
        }
    }

    /// An abort may come when the guest is about to leave all the same: that it stays is known once it goes on here.
    fn after_abort(&self, at: Moment, local: LocalVm, notes: &mut Notes, plan: &mut Plan) {
        let stays = matches!(local, LocalVm::Running { .. }) || self.world.now >= at + ARRIVAL;
        if stays {
            self.go_back("it was ended by the restart of the controller", notes, plan);
        } else {
            plan.recheck_at(self.world.now + SOON);
            plan.wait(
                "Migrating",
                "the migration was ended; it is seen whether the guest stays or has left already",
            );
        }
    }

    /// Nobody in this process has begun it: it is to begin now, or an earlier process did.
    fn not_begun(&self, migration: &Migration, local: LocalVm, notes: &Notes, plan: &mut Plan) {
        let mine = notes.tried.begun.is_some_and(|(id, _)| id == migration.id);
        let address = self.world.document().and_then(|desired| desired.addresses.get(&migration.to.node));
        match (mine, local, address) {
            (true, LocalVm::Running { .. }, Some(address)) if self.hopeless(migration, notes).is_none() => {
                let order =
                    MigrationOrder { id: migration.id, to: migration.to.node.clone(), address: *address };
                plan.step(Step::Migrate(order));
            }
            _ => plan.step(Step::AbortMigration {
                id: migration.id,
                because: "it is not known how far an earlier try got".to_owned(),
            }),
        }
    }

    /// libvirt takes its time with an abort: it is asked once more where nothing has come of it.
    fn abort(&self, migration: &Migration, because: String, notes: &Notes, plan: &mut Plan) {
        let asked = notes.tried.aborted.filter(|(id, _)| *id == migration.id);
        match asked.map(|(_, at)| at + ABORT_AGAIN).filter(|due| self.world.now < *due) {
            Some(due) => {
                plan.recheck_at(due);
                plan.wait("Migrating", format!("the migration is being ended: {because}"));
            }
            None => plan.step(Step::AbortMigration { id: migration.id, because }),
        }
    }

    /// Why there is no sense in going on.
    fn hopeless(&self, migration: &Migration, notes: &Notes) -> Option<String> {
        let late = notes.tried.begun.is_some_and(|(_, since)| self.world.now >= since + PATIENCE);
        if self.world.stop().is_some() {
            return Some("the VM is to stop".to_owned());
        }
        if self.world.shutdown_of(&self.world.me).is_some()
            && self.world.shutdown_of(&migration.to.node).is_some()
        {
            return Some(format!("{} shuts down as well", migration.to.node));
        }
        if self.world.shutdown_of(&self.world.me).is_some_and(|shutdown| shutdown.no_time_to_move) {
            return Some(format!("{} shuts down, and the time for a move is over", self.world.me));
        }
        if late {
            return Some(format!("it was not over after {} s", PATIENCE.as_secs()));
        }
        let to = &migration.to.node;
        let uncontrolled = notes.seen.migration.uncontrolled.map(|(_, since)| since + CONTROLLER_AWAY);
        match self.target(migration) {
            Target::Lives if uncontrolled.is_some_and(|until| self.world.now >= until) => {
                Some(format!("the controller of {to}, which would let the guest go on there, is down"))
            }
            Target::Lives => None,
            // The leases are being listed anew: that says nothing of any of them.
            Target::Late { .. } if !self.world.sees_the_leases() => None,
            Target::Late { why, .. } | Target::Lost(why) => Some(why),
        }
    }

    /// What is known of the target, as it was named.
    fn target(&self, migration: &Migration) -> Target {
        let to = &migration.to;
        let Some(sight) = self.world.sights.get(&to.node) else {
            let why = format!("the lease of {} cannot be seen", to.node);
            return match self.world.sees_the_leases() {
                true => Target::Lost(why),
                false => Target::Late { until: None, why },
            };
        };
        if sight.record.epoch != to.epoch || sight.record.state != LeaseState::Held {
            return Target::Lost(format!("{} does not hold its lease any more", to.node));
        }
        if sight.is_renewed(self.world.now) {
            return Target::Lives;
        }
        let why = format!("{} has not renewed its lease in time", to.node);
        match sight.is_expired(self.world.now) {
            true => Target::Lost(why),
            false => Target::Late { until: sight.fence_due(), why },
        }
    }

    /// To the node of the record, if that says so; else to one of which nothing is known.
    fn find_where_it_went(&self, migration: &Migration, notes: &mut Notes, plan: &mut Plan) {
        let heard = notes.seen.gone.get_or_insert_with(|| Heard::now(self.world)).clone();
        let target = self.world.sights.get(&migration.to.node);
        match target.map(|sight| (sight.record.copies, heard.is_before(sight))) {
            Some((Some(copies), _)) if copies > 0 => self.hand_over(migration, plan),
            Some((Some(0), true)) => {
                self.is_elsewhere(OffReason::Migrated, notes, plan);
            }
            _ => {
                plan.recheck_at(self.world.now + SOON);
                plan.wait(
                    "Migrating",
                    format!("the VM has left; {} has to say that it has it", migration.to.node),
                );
            }
        }
    }

    fn hand_over(&self, migration: &Migration, plan: &mut Plan) {
        let to = migration.to.clone();
        let message = format!("the VM has left {}; {} lets it go on", self.world.me, to.node);
        plan.step(self.change(EventReason::HandedOver, message, |record| record.owner = Some(to)));
    }

    /// The VM stays, or is started afresh, here.
    fn go_back(&self, why: &str, notes: &mut Notes, plan: &mut Plan) {
        // What had arrived there is put away by that node, once it is no longer named.
        notes.seen.ask_others |= !self.world.local.known().is_some_and(LocalVm::has_process);
        // By this very migration, as this process has seen: nobody else has moved it, so that it may be started once the
        // others have been asked.
        let id = self.record().migration.as_ref().map(|migration| migration.id);
        let done = matches!(&self.world.job, MigrationJob::Done { id: done } if Some(*done) == id);
        notes.seen.migration.left_by_ours = matches!(self.world.local.known(), Some(LocalVm::Paused { .. }));
        let left = done && self.world.local.known() == Some(&LocalVm::Off { reason: OffReason::Migrated });
        notes.tried.ran &= !left;
        let to = self.record().migration.as_ref().map(|migration| migration.to.node.to_string());
        let message = format!("the VM was not moved to {}: {why}", to.unwrap_or_default());
        let answer = self.answer(Outcome::Failed, &message);
        plan.step(self.change(EventReason::MigrationFailed, message, |record| {
            record.migration = None;
            if left && record.phase == VmPhase::Running {
                record.phase = VmPhase::Starting;
            }
            record.answered = answer.or(record.answered.take());
        }));
    }

    /// To an operator's request that names the target of the migration under way, and was not answered yet.
    fn answer(&self, outcome: Outcome, message: &str) -> Option<Answer> {
        let to = &self.record().migration.as_ref()?.to.node;
        let request = self.world.migrate.as_ref().filter(|request| request.to == *to)?;
        let answered = self.record().answered.as_ref().is_some_and(|answer| answer.id == request.id);
        (!answered).then(|| Answer { id: request.id, outcome, message: message.to_owned() })
    }

    /// This node is the new owner, and the copy that came with the migration is the VM.
    pub(super) fn arrived(&self, local: LocalVm, notes: &mut Notes, plan: &mut Plan) {
        match local {
            LocalVm::Paused { reason: PauseReason::Asked, .. } => {
                notes.seen.migration.arriving = None;
                if let Some(at) = notes.tried.retry_at.filter(|at| self.world.now < *at) {
                    plan.recheck_at(at);
                    return;
                }
                plan.step(Step::Resume { epoch: self.epoch, because: ResumeBecause::Arrived });
            }
            // It has run here: that its disk gives an error is no fault of the migration.
            LocalVm::Running { .. }
            | LocalVm::ShuttingDown { .. }
            | LocalVm::Paused { reason: PauseReason::IoError, .. } => {
                notes.seen.migration.arriving = None;
                self.settled(plan);
            }
            LocalVm::Unmanaged if !self.is_to_end() => {
                plan.recheck_at(self.world.now + SOON);
                plan.wait(
                    "Unmanaged",
                    "libvirt does not know the QEMU that came with the migration, and it may run: it is left alone. \
                     Restart libvirt here, or say `zsha stop`",
                );
            }
            LocalVm::Paused { .. } | LocalVm::Crashed | LocalVm::Unmanaged => {
                let since = *notes.seen.migration.arriving.get_or_insert(self.world.now);
                if self.world.now >= since + ARRIVAL {
                    plan.step(Step::KillCopy {
                        because: "what came with the migration does not run".to_owned(),
                        if_still: None,
                    });
                } else {
                    plan.recheck_at(self.world.now + SOON);
                    plan.wait("Arriving", "the copy that came with the migration is not ready yet");
                }
            }
            LocalVm::Absent | LocalVm::Off { .. } => {
                let message = "what came with the migration is gone; the VM is started afresh".to_owned();
                notes.seen.migration.arriving = None;
                let answer = self.answer(Outcome::Failed, &message);
                plan.step(self.change(EventReason::MigrationLost, message, |record| {
                    record.migration = None;
                    record.answered = answer.or(record.answered.take());
                }));
            }
        }
    }

    /// An operator or the host itself wants it off.
    fn is_to_end(&self) -> bool {
        self.world.stop().is_some() || self.world.shutdown_of(&self.world.me).is_some()
    }

    fn settled(&self, plan: &mut Plan) {
        let me = self.world.me.clone();
        let message = format!("the VM has moved to {me} and goes on there");
        let answer = self.answer(Outcome::Done, &message);
        let (at, generation) = (self.world.wall, self.world.local.known().and_then(LocalVm::generation));
        plan.step(self.change(EventReason::Migrated, message, |record: &mut VmRecord| {
            record.migration = None;
            record.phase = VmPhase::Running;
            record.failures.clear();
            record.answered = answer.or(record.answered.take());
            record.last_start = Some(StartRecord {
                node: me,
                at,
                reason: StartRecord::MIGRATED.to_owned(),
                generation: generation.unwrap_or_default(),
            });
        }));
    }
}

/// Whether it is what a guest leaves behind that has moved; a copy that a start has made since is not.
fn is_left_over(local: LocalVm) -> bool {
    match local {
        LocalVm::Unmanaged | LocalVm::Crashed => true,
        LocalVm::Paused { reason, .. } => reason != PauseReason::Asked,
        LocalVm::Absent | LocalVm::Off { .. } | LocalVm::Running { .. } | LocalVm::ShuttingDown { .. } => {
            false
        }
    }
}

/// The node that the VM is being moved to.
enum Target {
    Lives,
    /// It may live: it is late, or the leases are not seen just now.
    Late {
        until: Option<Moment>,
        why: String,
    },
    /// It cannot have a copy any more, or soon.
    Lost(String),
}

enum Asked {
    Nothing,
    /// With a write that is planned.
    Answered,
    /// The node that it is to go to has not looked since.
    Waits,
    For(Wish),
}
