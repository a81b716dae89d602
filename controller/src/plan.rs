//! Decides. A synchronous function of what was observed: steps to take now, what is not done and why, and when
//! time alone could change the answer. It does nothing and asks nobody.
//!
//! Two passes in a row over the same world plan the same; once everything is as wanted, nothing.
//!
//! - `ownership`: may this node run the VM, and may it take it over.
//! - `placement`: which nodes are fit, in what order, and what the others lack.
//! - `fitness`: the conditions of this node.
//! - `upkeep`: what the owner does with its VM: start, resume, restart, shut down, give up.
//! - `orders`: what the owner does because an operator asked: shut the VM down, or begin nothing.
//! - `host_down`: what the owner does as its host shuts down: the VM leaves live, or the guest is shut down.
//! - `storage`: when it is ended for want of its disk.
//! - `migration`: how the VM moves to another node while it runs.
//! - `ended`: whether it was the keeper that ended the VM.
//! - `claim`: what the others do when nobody may run it any more.
//! - `unnamed`: a copy that is here, where the record names another node, or none.
//! - `departed`: the owner's copy has gone by no step of ours.
//! - `expecting`: what the keeper is told of all that.
//! - `stability`: whether this node loses its lease again and again.
//! - `unreadable`: what is done about records that make no sense.

pub mod blindness;
pub mod claim;
pub mod departed;
pub mod ended;
mod expecting;
pub mod fitness;
pub mod heard;
pub mod host_down;
mod looked;
pub mod migration;
pub mod news;
pub mod orders;
pub mod ownership;
pub mod password;
pub mod placement;
pub mod stability;
pub mod storage;
mod unnamed;
pub mod unreadable;
pub mod upkeep;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use zsha_crds::document::Watchdog;
use zsha_crds::records::{Answer, LeaseTimings, Owner, VmRecord, Waiting};
use zsha_crds::{Condition, NodeName};
use zsha_runtime::Moment;
use zsha_runtime::lease::{Expectation, Sight};

use crate::guest::Seed;
use crate::host::{MountFact, MountWant, SeedFact};
use crate::hypervisor::{DomainSpec, LocalVm, MigrationJob, MigrationOrder, OffReason, PauseReason};
use crate::in_force::SpecProblem;
use crate::keeper::WatchdogState;
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::World;
use blindness::Blindness;
use heard::Heard;
use host_down::HostDownNotes;
use looked::Looked;
use migration::MigrationNotes;
use ownership::Right;

/// With nothing due, look again after this long: a safety net under the events, and a sign of life to the keeper.
pub const SAFETY_NET: Duration = Duration::from_secs(2);

/// A server that did not let itself be mounted is asked again after this.
const MOUNT_RETRY: Duration = Duration::from_secs(5);

/// A disk that did not take the guest's seed is asked again after this.
const SEED_RETRY: Duration = Duration::from_secs(2);

/// One thing to do. Each is looked at again before the next that depends on it is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tell the keeper the timings of the document.
    SetTimings(LeaseTimings),
    /// Have ready what the guest is told if it starts here.
    WriteSeed(Arc<Seed>),
    /// Tell the keeper whether the document wants its watchdog.
    SetWatchdog(bool),
    Mount(MountWant),
    /// Tell the keeper which copy is to be found here.
    Expect(Expectation),
    /// End the local copy now.
    KillCopy {
        because: String,
        if_still: Option<Still>,
    },
    /// Put a record in the place of an owner's lease that is gone, so that it can be renewed over, or fenced.
    ReplaceLease {
        of: Owner,
        /// Index of such a record of a lower epoch, put there by somebody who did not know this one.
        over: Option<u64>,
    },
    /// Write the ownership record by cas, resting on this node's own lease.
    Write(Box<Write>),
    /// Make the process of the domain, paused, if the lease of this epoch still holds.
    Start {
        domain: DomainSpec,
        /// What the guest is told there. None: nothing new, the document no longer names this node.
        seed: Option<Arc<Seed>>,
        epoch: u64,
    },
    /// Let it run, if the lease of this epoch still holds.
    Resume {
        epoch: u64,
        because: ResumeBecause,
    },
    /// Remove the definition of the domain from the disk: neither a hand nor a boot is to start it here.
    Undefine {
        because: String,
    },
    /// Ask the guest to power off, if that is still wanted.
    Shutdown {
        because: String,
        if_still: Still,
    },
    /// Begin to move the running guest.
    Migrate(MigrationOrder),
    AbortMigration {
        id: Uuid,
        because: String,
    },
    /// Give root in the guest the default password, for this request.
    SetPassword {
        id: Uuid,
        by: String,
    },
}

/// What must still be so when a copy is ended or a guest asked to power off, where that may have changed since it was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Still {
    /// This node's lease is not valid.
    Lapsed,
    /// An operator wants the VM stopped.
    ToStop,
    /// This node's host shuts down.
    HostGoesDown,
}

impl Step {
    /// One word, for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SetTimings(_) => "SetTimings",
            Self::SetWatchdog(_) => "SetWatchdog",
            Self::Mount(_) => "Mount",
            Self::Expect(_) => "Expect",
            Self::WriteSeed(_) => "WriteSeed",
            Self::KillCopy { .. } => "KillCopy",
            Self::ReplaceLease { .. } => "ReplaceLease",
            Self::Write(_) => "Write",
            Self::Start { .. } => "Start",
            Self::Resume { .. } => "Resume",
            Self::Undefine { .. } => "Undefine",
            Self::Shutdown { .. } => "Shutdown",
            Self::Migrate(_) => "Migrate",
            Self::AbortMigration { .. } => "AbortMigration",
            Self::SetPassword { .. } => "SetPassword",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResumeBecause {
    Started,
    IoErrorOver,
    FaultOver,
    Arrived,
}

/// A change of the ownership record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub record: VmRecord,
    /// Index of the record this replaces; None: it is written anew.
    pub index: Option<u64>,
    /// The lease of this node the write rests on: its epoch, and its very life.
    pub epoch: u64,
    pub incarnation: Uuid,
    /// Other nodes' leases the decision rests on, exactly as they were seen.
    pub rests_on: Vec<Sight>,
    /// Leases to fence in the same transaction.
    pub fence: Vec<Sight>,
    /// For the event: one CamelCase word, and a sentence.
    pub reason: &'static str,
    pub message: String,
}

impl Write {
    /// In the place of what is stored at this index, by this node's lease in this epoch, resting on nobody else.
    fn over(index: u64, world: &World, epoch: u64, record: VmRecord, told: (&'static str, String)) -> Self {
        let (reason, message) = told;
        Self {
            record,
            index: Some(index),
            epoch,
            incarnation: world.incarnation(),
            rests_on: Vec::new(),
            fence: Vec::new(),
            reason,
            message,
        }
    }

    fn step(self) -> Step {
        Step::Write(Box::new(self))
    }
}

/// What is to be done, what is not and why, and when to think again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub waiting: Vec<Waiting>,
    pub recheck: Option<Moment>,
    /// The conditions of this node.
    pub conditions: Vec<Condition>,
    /// The VM is here, and the record names another: told to the one that is named.
    pub runs_unnamed: bool,
    /// The host is to be looked at now.
    pub look: bool,
    /// As in this node's status.
    pub looked_after: Option<u64>,
}

impl Plan {
    pub(crate) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(crate) fn wait(&mut self, reason: &str, message: impl Into<String>) {
        self.waiting.push(Waiting { reason: reason.to_owned(), message: message.into() });
    }

    pub(crate) fn recheck_at(&mut self, at: Moment) {
        self.recheck = Some(self.recheck.map_or(at, |r| r.min(at)));
    }
}

/// What a node remembers between passes and nobody else needs to know. Changed here, and by the outcome of steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// Whether the keeper sees the VM's process.
    pub blindness: Blindness,
    /// Since when this node has seen that the VM could be claimed.
    pub claimable_since: Option<Moment>,
    /// Nothing is started, resumed or claimed before this.
    pub retry_at: Option<Moment>,
    /// What stood in the way of the last try, if it costs no restart budget.
    pub blocked: Option<String>,
    /// A start that failed and is not yet in the record.
    pub failed: Option<String>,
    /// When this node has started the VM lately, oldest first.
    pub starts: Vec<Moment>,
    /// When the guest was first asked to power off, and last.
    pub shutdown_asked: Option<(Moment, Moment)>,
    /// By which stop: when that was asked for.
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
    /// What could not be mounted is not tried again before this.
    pub mount_at: BTreeMap<PathBuf, Moment>,
    /// No seed is written before this.
    pub seed_at: Option<Moment>,
    /// Since when this node has seen the VM failed everywhere, and how often it was tried again since.
    pub failed_since: Option<Moment>,
    pub failed_rounds: u32,
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
    /// The epoch in which it was seen to have left, or that it may have, and how: until that is written down.
    pub left_in: Option<(u64, OffReason)>,
    /// Whether the copy that this process has started last was let run: before the record says so.
    pub ran: bool,
    /// Whether a paused copy here may be one that a migration brought and nothing tells of any more.
    pub unexplained: bool,
    pub migration: MigrationNotes,
    /// After which orders it has been looked.
    pub looked: Looked,
    /// What was last told of the stored document.
    pub spec_problem: Option<SpecProblem>,
    /// Whether this node was told to be unstable. None: not asked yet.
    pub unstable_told: Option<bool>,
    /// How many late renewals of the lease are told already. None: not asked yet.
    pub late_told: Option<u64>,
    /// How many copies that the keeper has ended as unexpected are told already. None: not asked yet.
    pub unexpected_told: Option<u64>,
    /// What came of the last request to reset the guest's password, until it is in the record.
    pub password: Option<Answer>,
    /// Why the guest stands still, as it was last told.
    pub paused_told: Option<PauseReason>,
}

/// The decision.
pub fn plan(world: &World, notes: &mut Notes) -> Plan {
    let mut plan = Plan { conditions: fitness::conditions(world), ..Plan::default() };
    looked::begin(world, notes);
    let right = ownership::right(world);
    let not_mine = match &right {
        Right::NotMine { because } => Some(because.clone()),
        _ => None,
    };
    if !matches!(right, Right::NotMine { .. } | Right::Target) {
        notes.claimable_since = None;
    }
    if not_mine.is_none() {
        notes.migration.unnamed = None;
    }
    if not_mine.is_none() && right != Right::Target {
        notes.unnamed = None;
        notes.also = None;
    }
    if matches!(right, Right::NotMine { .. } | Right::NoLease { .. }) {
        // What ran by another right than the present one is no copy of this one.
        notes.ran = false;
        notes.gone = None;
        notes.left = None;
    }
    if !matches!(right, Right::Mine { .. }) {
        notes.migration.left_by_ours = false;
        notes.unread_since = None;
    }
    match right.clone() {
        Right::Mine { epoch } => upkeep::keep(world, notes, epoch, &mut plan),
        Right::Unconfirmed { epoch } => upkeep::adopt(world, notes, epoch, &mut plan),
        Right::NotMine { because } => {
            if !migration::comes_before_its_record(world, notes, &mut plan)
                && !unnamed::deal(world, &because, notes, &mut plan)
            {
                claim::consider(world, notes, &mut plan);
            }
        }
        Right::Overtaken { epoch } => upkeep::reclaim(world, epoch, &mut plan),
        Right::Target => claim::stand_by(world, notes, &mut plan),
        Right::NoLease { because } => {
            kill_if_there(world, &because, Some(Still::Lapsed), &mut plan);
            plan.wait("NoLease", because);
        }
        Right::Missing => upkeep::missing(world, &mut plan),
        Right::Unknown { because } => unreadable::hold(world, because, &mut plan),
    }
    // Last: a mount that fails must not keep the VM from what it needs.
    keep_timings(world, &mut plan);
    keep_watchdog(world, &mut plan);
    keep_mounts(world, notes, &mut plan);
    keep_seed(world, notes, &mut plan);
    looked::end(world, notes, &mut plan);
    forget_definition(world, &mut plan);
    expecting::tell(world, &right, notes, &mut plan);
    plan
}

/// A start leaves no definition behind, so one that is there was put there by hand or by an earlier version: one `virsh
/// start`, or with its autostart flag one boot, away from a second copy. It goes wherever it is, also beside the copy
/// that runs, which is not touched by it. Only when there is nothing else to do: it must never keep a recovery waiting.
fn forget_definition(world: &World, plan: &mut Plan) {
    let Some(facts) = world.domain.known().filter(|facts| facts.defined) else { return };
    if planted::is_planted(Bug::DefinitionLeft) {
        return;
    }
    let leaves = matches!(world.job, MigrationJob::Going { .. });
    let arrives = world.local.known().is_some_and(LocalVm::is_incoming);
    if plan.steps.is_empty() && !leaves && !arrives {
        let how = if facts.autostart { " with the boot of this node, or" } else { "" };
        let because =
            format!("it could be started{how} by hand past zsha from there, which keeps none itself");
        plan.step(Step::Undefine { because });
    }
}

/// A process of the VM that may not be here is ended. Whether there is one must be known.
fn kill_if_there(world: &World, because: &str, if_still: Option<Still>, plan: &mut Plan) -> bool {
    let there = world.local.known().is_some_and(|local| local.has_process());
    if there {
        plan.step(Step::KillCopy { because: because.to_owned(), if_still });
    }
    there
}

fn keep_timings(world: &World, plan: &mut Plan) {
    if let (Some(desired), Some(verdict)) = (world.document(), world.lease.known())
        && desired.names(&world.me)
        && verdict.timings != desired.timings
    {
        plan.step(Step::SetTimings(desired.timings));
    }
}

/// A keeper that names no watchdog has none to be told of, or does not understand it yet.
fn keep_watchdog(world: &World, plan: &mut Plan) {
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

/// One at a time, and each in its turn: a server that does not answer keeps no other share from being mounted.
fn keep_mounts(world: &World, notes: &mut Notes, plan: &mut Plan) {
    let (Some(desired), Some(facts)) = (world.document(), world.host.known()) else { return };
    let is_missing = |want: &&MountWant| {
        matches!(facts.mounts.get(&want.target), Some(Observed::Known(MountFact::NotMounted)))
    };
    let missing: Vec<&MountWant> = desired.wants.mounts.iter().filter(is_missing).collect();
    notes.mount_at.retain(|target, _| missing.iter().any(|want| want.target == *target));
    if world.mounting {
        return;
    }
    let due = |want: &MountWant| notes.mount_at.get(&want.target).copied().unwrap_or(world.now);
    let Some(next) = missing.into_iter().min_by_key(|want| due(want)) else { return };
    if world.now < due(next) {
        plan.recheck_at(due(next));
        return;
    }
    notes.mount_at.insert(next.target.clone(), world.now + MOUNT_RETRY);
    plan.step(Step::Mount(next.clone()));
}

/// Every node has it ready, also for a guest that is moved there live: the process at the target opens it. What runs here
/// keeps the one it began with.
fn keep_seed(world: &World, notes: &mut Notes, plan: &mut Plan) {
    let (Some(desired), Some(facts)) = (world.document(), world.host.known()) else { return };
    let Some(seed) = desired.seeds.get(&world.me) else { return };
    match &facts.seed {
        Some(Observed::Known(SeedFact::NotWritten | SeedFact::Refused { .. })) => {}
        Some(Observed::Known(SeedFact::Written)) => {
            notes.seed_at = None;
            return;
        }
        Some(Observed::Unknown(_)) | None => return,
    }
    if let Some(at) = notes.seed_at.filter(|at| world.now < *at) {
        plan.recheck_at(at);
        return;
    }
    notes.seed_at = Some(world.now + SEED_RETRY);
    plan.step(Step::WriteSeed(Arc::clone(seed)));
}
