//! The notes: what a node remembers from pass to pass, and nobody else needs to know.
//!
//! Three parts of zsha write them. Decisions return what was *seen*, above all since when (`Plan::notes`). The outcome
//! of steps is noted here as what was *tried*: a step that was planned and not done, or a write that lost its cas, then
//! costs its retry and nothing else; a decision may forget what is over. What people were *told* belongs to `news`.

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

/// The pause before a server that did not let itself be mounted is asked again.
const MOUNT_RETRY: Duration = Duration::from_secs(5);
/// The pause before a disk that did not take the guest's seed disk is asked again.
const SEED_RETRY: Duration = Duration::from_secs(2);
/// The pause after a start that failed for a reason that time may mend.
const RETRY: Duration = Duration::from_secs(1);
/// The pause while the image is locked. The lock of a dead client ends by the server's clock; asking more often does
/// not help.
const LOCK_RETRY: Duration = Duration::from_secs(2);
/// The first pause before a migration that no command asked for is tried again; each further one is longer.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(1_800);
/// The number of starts that are remembered: a day of restarts is enough.
const MOST_STARTS: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// Tells whether the keeper sees the VM's process; it is fed with every look.
    pub blindness: Blindness,
    pub seen: Seen,
    pub tried: Tried,
    pub told: Told,
}

/// The things that were seen in earlier passes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The moment since which this node has seen that the VM could be claimed.
    pub claimable_since: Option<Moment>,
    /// The stop by which the guest is being shut down, named by the time when it was asked for.
    pub stopping: Option<jiff::Timestamp>,
    /// The notes on a shutdown of this node's host.
    pub host_down: HostDownNotes,
    /// The moment since which QEMU has been seen paused by a fault of its own.
    pub faulted_since: Option<Moment>,
    /// The moment since which the guest has been seen paused by a migration that is not under way any more.
    pub left: Option<Heard>,
    /// The moment since which libvirt's log, which would say how the VM has ended, could not be read.
    pub unread_since: Option<Moment>,
    /// The moment since which the VM's disk has not been reached from here while another node is fit.
    pub storage_lost_since: Option<Moment>,
    /// The moment since which this node has seen the VM failed everywhere.
    pub failed_since: Option<Moment>,
    /// The moment since which the hypervisor has not answered.
    pub blind_since: Option<Moment>,
    /// True if another node may have a copy (a controller that restarted without one, a migration that broke): the
    /// others are asked before the next start.
    pub ask_others: bool,
    /// The moment since which a copy has been here that the record does not name, and whether it executes.
    pub unnamed: Option<(Heard, bool)>,
    /// The other node that says then that it has a copy as well, and since when.
    pub also: Option<(NodeName, Moment)>,
    /// The moment since which the owner's copy has been gone, where it may have been moved away past zsha.
    pub gone: Option<Heard>,
    /// The way in which the VM was seen to have left, or may have, until that is written down.
    pub left_as: Option<LeftAs>,
    /// True if a paused copy here may be one that a migration brought and nothing tells of any more.
    pub unexplained: bool,
    pub migration: MigrationNotes,
    /// The orders after which this node has looked.
    pub looked: Looked,
}

/// The way in which the VM has left its owner, or may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftAs {
    /// The epoch of the owner's lease.
    pub epoch: u64,
    /// `Migrated`, or `Unread`.
    pub how: OffReason,
    /// The moment when that was first seen, and the number of copies that the keeper had ended as unexpected by then.
    pub at: Moment,
    pub unexpected: u64,
    /// True if a process was here since: how the last one has ended here says nothing of the VM any more.
    pub followed: bool,
}

/// The notes on the orders after which this node has looked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looked {
    /// The newest order that was seen.
    pub order: Option<u64>,
    /// The moment since then when nothing waited for another try any more.
    pub tried: Option<Moment>,
    /// The order after which the host has been looked at since.
    pub after: Option<u64>,
}

/// The notes on a shutdown of this node's host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostDownNotes {
    /// The moment since which no other node could take the VM.
    pub nowhere_since: Option<Moment>,
    /// The reason why the guest is being shut down for it. That is not taken back, whoever could take the VM by now.
    pub powering_off: Option<String>,
}

/// The notes on migrations from here and to here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MigrationNotes {
    /// The migration that an operator asked for last, and since when that is known.
    pub asked: Option<(Uuid, Moment)>,
    /// The preferred node that is fit, and since when.
    pub preferred: Option<(NodeName, Moment)>,
    /// The moment since which a copy that was handed over has been waited for.
    pub arriving: Option<Moment>,
    /// The moment since which the process that is said to have left has been seen here.
    pub lingering: Option<Moment>,
    /// The migration that this node has stood by for, as its target.
    pub expected: Option<Uuid>,
    /// True if zsha's own migration has failed, and the guest has not been seen to go on here since.
    pub left_by_ours: bool,
    /// The migration with which a whole guest was seen here, paused.
    pub whole: Option<Uuid>,
    /// The migration whose target's controller is seen to be down, and since when.
    pub uncontrolled: Option<(Uuid, Moment)>,
    /// The moment since which a copy has been arriving here by a migration of which this node has read nothing.
    pub unnamed: Option<Moment>,
}

/// The outcome of the steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tried {
    /// The moment before which nothing is started, resumed or claimed.
    pub retry_at: Option<Moment>,
    /// The obstacle of the last try, if it costs no restart budget.
    pub blocked: Option<String>,
    /// The reason of a failed start that is not yet in the record.
    pub failed: Option<String>,
    /// The moments at which this node has started the VM lately, oldest first.
    pub starts: Vec<Moment>,
    /// True if the copy that this process has started last was let run. The record says so only later.
    pub ran: bool,
    /// The moments when the guest was asked to power off for the first time, and for the last.
    pub shutdown_asked: Option<(Moment, Moment)>,
    /// The number of times that starts which failed everywhere were tried again.
    pub failed_rounds: u32,
    /// The moment for each mount before which it is not tried again.
    pub mount_at: BTreeMap<PathBuf, Moment>,
    /// The moment before which no seed disk is written.
    pub seed_at: Option<Moment>,
    /// The answer to the last request to reset the guest's password, until it is in the record.
    pub password: Option<Answer>,
    /// The migration whose intent this process has written, and when.
    pub begun: Option<(Uuid, Moment)>,
    /// The migration that was ended by an abort, and when.
    pub aborted: Option<(Uuid, Moment)>,
    /// The moment before which no migration is begun unless a command asks, and the number of those that went wrong in
    /// a row.
    pub move_at: Option<Moment>,
    pub moves_failed: u32,
}

/// The fate of a write to the ownership record, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Landed {
    Surely,
    /// It was not answered: it is in force, will be, or never.
    Perhaps,
}

/// The reason why a start or a resume failed, as far as the next try goes.
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
    /// Notes that a write to the ownership record was sent. A write that lost its cas has changed nothing, and changes
    /// nothing here.
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
                // A copy that ran before is not the one that is to be started now.
                self.tried.ran = false;
                // The others' word was in the write.
                self.seen.ask_others &= !surely;
            }
            EventReason::Stopped | EventReason::HostShutDown if surely => self.tried.shutdown_asked = None,
            _ => {}
        }
    }

    /// Notes that a copy was made here, paused.
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

    /// Notes that the hypervisor was asked to let the copy run.
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

    /// Notes that the guest was asked to power off. Returns true if it was the first time.
    pub fn asked_to_power_off(&mut self, now: Moment) -> bool {
        let first = self.tried.shutdown_asked.map(|(first, _)| first);
        self.tried.shutdown_asked = Some((first.unwrap_or(now), now));
        first.is_none()
    }

    pub fn aborted(&mut self, migration: Uuid, now: Moment) {
        self.tried.aborted = Some((migration, now));
    }

    /// Notes a try to mount. The next look says whether it was mounted.
    pub fn tried_to_mount(&mut self, target: &Path, now: Moment) {
        self.tried.mount_at.insert(target.to_owned(), now + MOUNT_RETRY);
    }

    pub fn tried_to_write_seed(&mut self, now: Moment) {
        self.tried.seed_at = Some(now + SEED_RETRY);
    }
}

/// The pause before another migration is begun unasked, after so many that went wrong in a row and one more.
fn pause(failed: u32) -> Duration {
    (FIRST_PAUSE * 2u32.pow(failed.min(8))).min(LONGEST_PAUSE)
}
