//! What a node remembers from pass to pass, and nobody else needs to know.
//!
//! It has three owners. What was *seen*, above all since when, is returned by deciding (`Plan::notes`). What was *tried* is
//! noted here by the outcome of steps, so that a step which was planned and not done, or a write that lost its cas, costs
//! its retry and nothing else; deciding may forget it, once it is over. What was *told* belongs to `news`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;
use zsha_crds::records::Answer;
use zsha_crds::{EventReason, NodeName};
use zsha_runtime::Moment;

use super::blindness::Blindness;
use super::heard::Heard;
use super::news::Told;
use super::step::{ResumeBecause, Write};
use crate::hypervisor::OffReason;

/// A server that did not let itself be mounted is asked again after this.
const MOUNT_RETRY: Duration = Duration::from_secs(5);
/// A disk that did not take the guest's seed is asked again after this.
const SEED_RETRY: Duration = Duration::from_secs(2);
/// After a start that failed for a reason that time may mend.
const RETRY: Duration = Duration::from_secs(1);
/// An image lock of a dead client ends by the server's clock; asking more often does not help.
const LOCK_RETRY: Duration = Duration::from_secs(2);
/// A migration that was not asked for by command is tried again after this, and ever more slowly.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(1_800);
/// More than a day of restarts need not be remembered.
const MOST_STARTS: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// Whether the keeper sees the VM's process: fed with every look.
    pub blindness: Blindness,
    pub seen: Seen,
    pub tried: Tried,
    pub told: Told,
}

/// What was seen in earlier passes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Since when this node has seen that the VM could be claimed.
    pub claimable_since: Option<Moment>,
    /// Which stop the guest is being shut down by: when that was asked for.
    pub stopping: Option<jiff::Timestamp>,
    /// What this node remembers as its host shuts down.
    pub host_down: HostDownNotes,
    /// Since when QEMU has been seen paused by a fault of its own.
    pub faulted_since: Option<Moment>,
    /// Since when the guest has been seen paused by a migration that is not under way any more.
    pub left: Option<Heard>,
    /// Since when libvirt's log could not be read that would say how the VM has ended.
    pub unread_since: Option<Moment>,
    /// Since when the VM's disk has not been reached from here while another node is fit.
    pub storage_lost_since: Option<Moment>,
    /// Since when this node has seen the VM failed everywhere.
    pub failed_since: Option<Moment>,
    /// Since when the hypervisor has not answered.
    pub blind_since: Option<Moment>,
    /// Whether another node may have a copy (a controller that restarted without one, a migration that broke): the
    /// others are asked before the next start.
    pub ask_others: bool,
    /// Since when a copy has been here that the record does not name, and whether it executes.
    pub unnamed: Option<(Heard, bool)>,
    /// Which other node says then that it has one as well, and since when.
    pub also: Option<(NodeName, Moment)>,
    /// Since when the owner's copy has been gone, where it may have been moved away past zsha.
    pub gone: Option<Heard>,
    /// That it was seen to have left, or that it may have: until that is written down.
    pub left_as: Option<LeftAs>,
    /// Whether a paused copy here may be one that a migration brought and nothing tells of any more.
    pub unexplained: bool,
    pub migration: MigrationNotes,
    /// After which orders it has been looked.
    pub looked: Looked,
}

/// How the VM has left its owner, or may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftAs {
    /// Of the owner's lease.
    pub epoch: u64,
    /// Migrated, or unread.
    pub how: OffReason,
    /// When that was first seen, and how many copies the keeper had ended by then as unexpected.
    pub at: Moment,
    pub unexpected: u64,
    /// A process was here since: how the last one has ended here says nothing of the VM any more.
    pub followed: bool,
}

/// What a node remembers of the orders it has looked after.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// The newest order that was seen.
    pub order: Option<u64>,
    /// When what waited for another try was over, since then.
    pub tried: Option<Moment>,
    /// The order after which the host has been looked at since.
    pub after: Option<u64>,
}

/// What a node remembers as its host shuts down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostDownNotes {
    /// Since when no other node could take the VM.
    pub nowhere_since: Option<Moment>,
    /// Why the guest is being shut down because of it: that is not taken back, whoever could take the VM by now.
    pub powering_off: Option<String>,
}

/// What a node has seen of migrations from here and to here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigrationNotes {
    /// The one that an operator asked for last, and since when that is known.
    pub asked: Option<(Uuid, Moment)>,
    /// The preferred node that is fit, and since when.
    pub preferred: Option<(NodeName, Moment)>,
    /// Since when a copy that was handed over has been waited for.
    pub arriving: Option<Moment>,
    /// Since when the process that is said to have left has been seen here.
    pub lingering: Option<Moment>,
    /// The one that this node has stood by for, as its target.
    pub expected: Option<Uuid>,
    /// It has failed, and the guest has not been seen to go on here since.
    pub left_by_ours: bool,
    /// The one with which a whole guest was seen here, paused.
    pub whole: Option<Uuid>,
    /// The one whose target's controller is seen to be down, and since when.
    pub uncontrolled: Option<(Uuid, Moment)>,
    /// Since when a copy has been arriving here by a migration of which this node has read nothing.
    pub unnamed: Option<Moment>,
}

/// What came of the steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tried {
    /// Nothing is started, resumed or claimed before this.
    pub retry_at: Option<Moment>,
    /// What stood in the way of the last try, if it costs no restart budget.
    pub blocked: Option<String>,
    /// A start that failed and is not yet in the record.
    pub failed: Option<String>,
    /// When this node has started the VM lately, oldest first.
    pub starts: Vec<Moment>,
    /// Whether the copy that this process has started last was let run: before the record says so.
    pub ran: bool,
    /// When the guest was first asked to power off, and last.
    pub shutdown_asked: Option<(Moment, Moment)>,
    /// How often starts that failed everywhere were tried again.
    pub failed_rounds: u32,
    /// What could not be mounted is not tried again before this.
    pub mount_at: BTreeMap<PathBuf, Moment>,
    /// No seed is written before this.
    pub seed_at: Option<Moment>,
    /// What came of the last request to reset the guest's password, until it is in the record.
    pub password: Option<Answer>,
    /// The migration whose intent this process has written, and when.
    pub begun: Option<(Uuid, Moment)>,
    /// The migration that was ended by an abort, and when.
    pub aborted: Option<(Uuid, Moment)>,
    /// No migration is begun before this by itself, and how often in a row one went wrong.
    pub move_at: Option<Moment>,
    pub moves_failed: u32,
}

/// What is known of a write to the ownership record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    Surely,
    /// It was not answered: it is in force, will be, or never.
    Perhaps,
}

/// Why a start or a resume failed, as far as the next try goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartFault {
    /// The hypervisor said no: that counts against this node.
    Refused(String),
    /// Somebody has the image.
    ImageLocked(String),
    /// Something did not answer, or not in time.
    NotAnswered(String),
}

impl Notes {
    /// A write to the ownership record was sent. One that lost its cas has changed nothing, here neither.
    pub fn wrote(&mut self, write: &Write, landed: Landed, now: Moment) {
        let surely = landed == Landed::Surely;
        if surely {
            self.tried.failed = None;
        }
        match write.reason {
            EventReason::MigrationBegun => {
                self.tried.begun = write.record.migration.as_ref().map(|migration| (migration.id, now));
                self.tried.aborted = None;
                self.seen.migration.lingering = None;
            }
            EventReason::MigrationFailed => {
                self.tried.move_at = Some(now + pause(self.tried.moves_failed));
                if surely {
                    self.tried.moves_failed = self.tried.moves_failed.saturating_add(1);
                    self.seen.migration.lingering = None;
                }
            }
            EventReason::Migrated => {
                self.seen.migration = MigrationNotes::default();
                (self.tried.begun, self.tried.aborted) = (None, None);
                (self.tried.move_at, self.tried.moves_failed) = (None, 0);
            }
            EventReason::FirstStart | EventReason::Placed | EventReason::Failover | EventReason::Returned
                if surely && self.seen.failed_since.take().is_some() =>
            {
                self.tried.failed_rounds += 1;
            }
            reason if reason.starts_again() => {
                // What ran before is no copy of the one that is to be started now.
                self.tried.ran = false;
                // Their word was in the write.
                self.seen.ask_others &= !surely;
            }
            EventReason::Stopped | EventReason::HostShutDown if surely => self.tried.shutdown_asked = None,
            _ => {}
        }
    }

    /// A copy was made here, paused.
    pub fn started(&mut self, now: Moment) {
        self.tried.ran = false;
        self.tried.blocked = None;
        self.tried.retry_at = None;
        self.tried.shutdown_asked = None;
        self.seen.faulted_since = None;
        self.tried.starts.push(now);
        if self.tried.starts.len() > MOST_STARTS {
            self.tried.starts.remove(0);
        }
    }

    /// The hypervisor was asked to let the copy run.
    pub fn resumed(&mut self, because: ResumeBecause, done: bool, now: Moment) {
        self.tried.ran |= done;
        if let Some(pause) = because.again_after() {
            self.tried.retry_at = Some(now + pause);
        }
    }

    pub fn start_failed(&mut self, fault: StartFault, now: Moment) {
        let pause = match &fault {
            StartFault::ImageLocked(_) => LOCK_RETRY,
            StartFault::Refused(_) | StartFault::NotAnswered(_) => RETRY,
        };
        self.tried.retry_at = Some(now + pause);
        match fault {
            StartFault::Refused(reason) => self.tried.failed = Some(reason),
            StartFault::ImageLocked(reason) => {
                self.tried.blocked =
                    Some(format!("the image is locked by another process or host: {reason}"));
            }
            StartFault::NotAnswered(reason) => self.tried.blocked = Some(reason),
        }
    }

    /// The guest was asked to power off. Whether for the first time.
    pub fn asked_to_power_off(&mut self, now: Moment) -> bool {
        let first = self.tried.shutdown_asked.map(|(first, _)| first);
        self.tried.shutdown_asked = Some((first.unwrap_or(now), now));
        first.is_none()
    }

    pub fn aborted(&mut self, migration: Uuid, now: Moment) {
        self.tried.aborted = Some((migration, now));
    }

    /// Whether it was mounted or not is for the next look to say.
    pub fn tried_to_mount(&mut self, target: &Path, now: Moment) {
        self.tried.mount_at.insert(target.to_owned(), now + MOUNT_RETRY);
    }

    pub fn tried_to_write_seed(&mut self, now: Moment) {
        self.tried.seed_at = Some(now + SEED_RETRY);
    }
}

/// How long none is begun by itself, after so many that went wrong in a row and one more.
fn pause(failed: u32) -> Duration {
    (FIRST_PAUSE * 2u32.pow(failed.min(8))).min(LONGEST_PAUSE)
}
