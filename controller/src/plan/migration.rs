//! Live migration: what its source does at each moment. `destination` decides whether the VM moves, and `arrival` what
//! is done with the copy that it brings.
//!
//! - The owner writes the target into the record, and begins. Only the owner's copy executes; the one that arrives at
//!   the target is paused.
//! - When its own copy is gone, and only then, the owner makes the target the owner in one write.
//! - The new owner lets the copy that came run, or, where there is none any more, starts the VM afresh.
//!
//! So a migration that breaks at any step leaves the one copy of the source, or the one of the target, or none, which
//! is a restart. libvirt alone would not: when the answer of the target is lost, it lets the guest go on at the source
//! while the target has it too.

use std::time::Duration;

use zsha_crds::EventReason;
use zsha_crds::records::{Answer, LeaseState, Migration, Outcome, VmPhase};
use zsha_runtime::Moment;

use super::decision::Plan;
use super::heard::Heard;
use super::notes::Notes;
use super::owner::{Upkeep, kill};
use super::step::Step;
use crate::hypervisor::{LocalVm, MigrationJob, MigrationOrder, OffReason, PauseReason};
use crate::planted::{self, Bug};

/// The time that a migration may take: a guest that dirties its memory faster than the network takes it is not moved.
const PATIENCE: Duration = Duration::from_secs(900);
/// The time for which the target's controller may be away: a keeper that was started anew renews once before its
/// controller has asked it anything.
const CONTROLLER_AWAY: Duration = Duration::from_secs(6);
/// An abort that has not ended the migration is asked for again after this.
const ABORT_AGAIN: Duration = Duration::from_secs(5);

/// The time within which libvirt puts the source's process away at the end; the target knows of the end by then.
pub(super) const SOON: Duration = Duration::from_millis(200);
/// The time after which a copy that was handed over and has not arrived will not come.
pub(super) const ARRIVAL: Duration = Duration::from_secs(10);

impl Upkeep<'_> {
    /// Decides for the source while the record says that the VM is being moved from here.
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
            self.without_a_copy(migration, local, notes, plan);
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
                    // The guest is at the target, whole. The remains of it here must not take it from there.
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

    /// Decides where the source's copy is gone: it has left for the target, or has ended on its way.
    fn without_a_copy(&self, migration: &Migration, local: LocalVm, notes: &mut Notes, plan: &mut Plan) {
        let moved = local == LocalVm::Off { reason: OffReason::Migrated };
        let is_this = self.world.job.id() == Some(migration.id);
        let done = is_this && matches!(self.world.job, MigrationJob::Done { .. });
        match self.target(migration) {
            Target::Lives if done => self.hand_over(migration, plan),
            // The guest was moved, and this process has not seen where to: an operator may have done it.
            Target::Lives if moved => self.find_where_it_went(migration, notes, plan),
            // The target has the guest, whole. Claiming it from the target now would put it away.
            Target::Late { until, why } if done || moved => {
                plan.recheck_at(until.unwrap_or(self.world.now + SOON));
                plan.wait("Migrating", format!("the VM has left for {}: {why}", migration.to.node));
            }
            Target::Lives | Target::Late { .. } => {
                self.go_back("the VM ended during its migration", notes, plan);
            }
            Target::Lost(why) => self.go_back(&why, notes, plan),
        }
    }

    /// Waits after an abort, which may come when the guest is about to leave all the same. That it stays is known once
    /// it goes on here.
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

    /// Decides where this process has not begun the migration: it is to begin now, or an earlier process began it.
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

    /// Asks libvirt to abort the migration. libvirt takes its time; it is asked once more where nothing has come of it.
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

    /// The reason why there is no sense in going on with the migration, if there is one.
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
            // The leases are being listed anew, which says nothing about any of them.
            Target::Late { .. } if !self.world.sees_the_leases() => None,
            Target::Late { why, .. } | Target::Lost(why) => Some(why),
        }
    }

    /// The state of the target, as far as it is known.
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

    /// Hands the VM over to the node of the record, if that says that it has a copy. If that has none, the guest has
    /// gone to a node of which nothing is known.
    fn find_where_it_went(&self, migration: &Migration, notes: &mut Notes, plan: &mut Plan) {
        let heard = notes.seen.gone.get_or_insert_with(|| Heard::now(self.world)).clone();
        let target = self.world.sights.get(&migration.to.node);
        match target.map(|sight| (self.world.copies(sight), heard.is_before(sight))) {
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

    /// Ends the migration: the VM stays here, or is started afresh here.
    fn go_back(&self, why: &str, notes: &mut Notes, plan: &mut Plan) {
        // The target puts away what had arrived there, once it is no longer named.
        notes.seen.ask_others |= !self.world.local.known().is_some_and(LocalVm::has_process);
        // The guest left by this very migration, as this process has seen. Nobody else has moved it, so it may be
        // started once the others have been asked.
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

    /// The answer to an operator's request that names the target of the migration under way and was not answered yet.
    pub(super) fn answer(&self, outcome: Outcome, message: &str) -> Option<Answer> {
        let to = &self.record().migration.as_ref()?.to.node;
        let request = self.world.migrate.as_ref().filter(|request| request.to == *to)?;
        let answered = self.record().answered.as_ref().is_some_and(|answer| answer.id == request.id);
        (!answered).then(|| Answer { id: request.id, outcome, message: message.to_owned() })
    }
}

/// True if the process is the remains of a guest that has moved, and not a copy that a start has made since.
fn is_left_over(local: LocalVm) -> bool {
    match local {
        LocalVm::Unmanaged | LocalVm::Crashed => true,
        LocalVm::Paused { reason, .. } => reason != PauseReason::Asked,
        LocalVm::Absent | LocalVm::Off { .. } | LocalVm::Running { .. } | LocalVm::ShuttingDown { .. } => {
            false
        }
    }
}

/// The state of the node to which the VM is being moved.
enum Target {
    Lives,
    /// The target may live: it is late, or the leases cannot be seen just now.
    Late {
        until: Option<Moment>,
        why: String,
    },
    /// The target cannot have a copy any more, or soon.
    Lost(String),
}
