//! What a node does with a copy that a migration brings: before this node has read the record of it, and once the VM is
//! its own. In between it stands by (`claim`).

use std::time::Duration;

use zsha_crds::EventReason;
use zsha_crds::records::{Outcome, StartRecord, VmPhase, VmRecord};

use super::decision::Plan;
use super::migration::{ARRIVAL, SOON};
use super::notes::Notes;
use super::owner::Upkeep;
use super::step::{ResumeBecause, Step};
use crate::hypervisor::{LocalVm, PauseReason};
use crate::world::World;

/// The time after which every node has read the record of a migration that has begun. It is less than a failover has to
/// spare.
const UNNAMED: Duration = Duration::from_secs(1);

/// True if the copy that is here may come with a migration whose record is on its way to this node. It does not
/// execute, and a kill that the hypervisor is slow to do would end the VM after it was handed over.
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

impl Upkeep<'_> {
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
            // The guest has run here, so an error of its disk is no fault of the migration.
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

    /// True if an operator or the host itself wants the VM off.
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
