//! Does what was decided, one step at a time, and reports what came of it. It decides nothing: a step that no longer
//! holds is refused, never repaired.

use std::sync::Arc;

use uuid::Uuid;
use zsha_crds::records::{Answer, EventType, Intent, LeaseRecord, LeaseTimings, Outcome, Owner};
use zsha_crds::{EventReason, Keys, NodeName};
use zsha_runtime::store::{Op, Read, Store, StoreError, Txn};
use zsha_runtime::{Clock, Moment};

use crate::guest::{self, Seed};
use crate::heard::Doing;
use crate::host::{Host, HostError};
use crate::hypervisor::{DomainSpec, Hypervisor, HypervisorError};
use crate::keeper::{KeeperError, Lease};
use crate::plan::notes::StartFault;
use crate::plan::{Notes, ResumeBecause, Step, Still, Write};
use crate::planted::{self, Bug};
use crate::views::Views;

mod write;

/// The edges of one node.
#[derive(Debug, Clone)]
pub struct Edges {
    pub me: NodeName,
    pub keys: Keys,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub hypervisor: Arc<dyn Hypervisor>,
    pub host: Arc<dyn Host>,
    pub lease: Arc<dyn Lease>,
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    /// The world has moved on since the decision; the next pass sees it.
    #[error("no longer so: {0}")]
    Moved(String),
}

/// Something that happened and is worth an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    pub reason: EventReason,
    pub kind: EventType,
    pub message: String,
}

fn happened(reason: EventReason, message: impl Into<String>) -> Happened {
    Happened { reason, kind: reason.severity(), message: message.into() }
}

/// Makes an event of a reason that can be good or bad.
fn happened_as(kind: EventType, reason: EventReason, message: impl Into<String>) -> Happened {
    Happened { kind, ..happened(reason, message) }
}

/// Does one step. `notes` learns what came of it.
pub async fn act(
    edges: &Edges,
    views: &Views,
    step: &Step,
    notes: &mut Notes,
) -> Result<Vec<Happened>, ActError> {
    let _heard = Doing::begin(&edges.me, step);
    let done = match step {
        Step::SetTimings(timings) => {
            edges.lease.set_timings(*timings).await?;
            vec![]
        }
        Step::SetWatchdog(wanted) => {
            edges.lease.set_watchdog(*wanted).await?;
            vec![]
        }
        Step::Mount(want) => {
            edges.host.mount(want).await?;
            vec![happened(EventReason::Mounted, format!("{} on {}", want.source, want.target.display()))]
        }
        Step::WriteSeed(seed) => {
            let written = edges.host.write_seed(seed).await;
            notes.tried_to_write_seed(edges.clock.now());
            written?;
            vec![]
        }
        Step::Expect(what) => {
            edges.lease.expect(*what).await?;
            vec![]
        }
        Step::KillCopy { because, if_still } => {
            kill(edges, views, *if_still).await?;
            vec![happened(EventReason::Killed, format!("the copy on {} was ended: {because}", edges.me))]
        }
        Step::ReplaceLease { of, over } => replace_lease(edges, of, *over).await?,
        Step::Write(write) => return Box::pin(write::write_record(edges, views, write, notes)).await,
        Step::Start { domain, seed, epoch } => {
            let started = start(edges, views, (domain, seed.as_deref()), *epoch).await;
            return settle_start(edges, started, notes);
        }
        Step::Resume { epoch, because } => {
            let resumed = resume(edges, views, *epoch).await;
            return settle_resume(edges, resumed, *because, notes);
        }
        Step::Migrate(order) => {
            edges.hypervisor.migrate(order).await?;
            vec![]
        }
        Step::AbortMigration { id, because } => {
            edges.hypervisor.abort_migration().await?;
            notes.aborted(*id, edges.clock.now());
            let message = format!("the migration of the VM was ended: {because}");
            vec![happened(EventReason::MigrationAborted, message)]
        }
        Step::SetPassword { id, by } => {
            notes.tried.password = Some(set_password(edges, *id, by).await);
            vec![]
        }
        Step::Undefine { because } => {
            edges.hypervisor.undefine().await?;
            let message =
                format!("the definition of the VM on the disk of {} was removed: {because}", edges.me);
            vec![happened(EventReason::Undefined, message)]
        }
        Step::Shutdown { because, if_still } => {
            if !ask_to_power_off(edges, views, *if_still, notes).await? {
                return Ok(vec![]);
            }
            vec![happened(EventReason::ShuttingDown, format!("the guest was asked to power off: {because}"))]
        }
    };
    Ok(done)
}

/// Fails unless the lease is valid at this very moment, in this epoch, and has been so without a break since the
/// ownership record was written.
async fn still_holds(edges: &Edges, views: &Views, epoch: u64) -> Result<(), ActError> {
    let verdict = edges.lease.verdict().await?;
    if planted::is_planted(Bug::StartWithoutLease) || planted::is_planted(Bug::ResumeEarly) {
        return Ok(());
    }
    if !verdict.valid(edges.clock.now()) || verdict.epoch != epoch {
        let lapsed = format!("the lease of {} in epoch {epoch} is not valid any more", edges.me);
        return Err(ActError::Moved(lapsed));
    }
    let counts = |written| verdict.covers(written) || planted::is_planted(Bug::OldWriteStartedBy);
    if views.written().is_some_and(counts) {
        return Ok(());
    }
    Err(ActError::Moved("the store has gone back to before this node became the owner".to_owned()))
}

async fn still_so(edges: &Edges, views: &Views, still: Still) -> Result<(), ActError> {
    match still {
        Still::Lapsed => still_lapsed(edges).await,
        Still::ToStop => still_to_stop(edges).await,
        Still::HostGoesDown => still_goes_down(edges, views).await,
    }
}

/// Fails unless the lease is over still: a renewal may have come in since the decision. Only the keeper can tell. Where
/// it does not answer nothing is known, and others obey its last deadline (`keeper::guard`, `keeper::second_net`).
async fn still_lapsed(edges: &Edges) -> Result<(), ActError> {
    let valid = edges.lease.verdict().await?.valid(edges.clock.now());
    if valid && !planted::is_planted(Bug::EndedThoughRenewed) {
        return Err(ActError::Moved(format!("the lease of {} is valid again", edges.me)));
    }
    Ok(())
}

/// Fails unless the stop is in force still. It may have been taken back since this node last saw it: the node may have
/// been cut off, or be shown old data.
async fn still_to_stop(edges: &Edges) -> Result<(), ActError> {
    if planted::is_planted(Bug::StoppedThoughTakenBack) {
        return Ok(());
    }
    let entry = edges.store.get(&edges.keys.intent(Intent::POWER), Read::Consistent).await?;
    match entry.as_ref().map(|entry| serde_json::from_str(&entry.value)) {
        Some(Ok(Intent::Stop { .. })) => Ok(()),
        _ => Err(ActError::Moved("no operator wants the VM stopped any more".to_owned())),
    }
}

/// Fails unless the drain that the host has asked for, as it is in the store now, is of the host's present boot.
async fn still_goes_down(edges: &Edges, views: &Views) -> Result<(), ActError> {
    let boot = views.sights().get(&edges.me).map(|sight| sight.record.boot_id.clone());
    let key = edges.keys.intent(&Intent::drain_of(&edges.me));
    let entry = edges.store.get(&key, Read::Consistent).await?;
    match entry.as_ref().map(|entry| serde_json::from_str(&entry.value)) {
        Some(Ok(Intent::Drain { shutdown: Some(shutdown), .. }))
            if Some(&shutdown.boot_id) == boot.as_ref() =>
        {
            Ok(())
        }
        _ => Err(ActError::Moved("it is not known any more that this host shuts down".to_owned())),
    }
}

async fn kill(edges: &Edges, views: &Views, if_still: Option<Still>) -> Result<(), ActError> {
    if let Some(still) = if_still {
        still_so(edges, views, still).await?;
    }
    Ok(edges.hypervisor.kill().await?)
}

/// Asks the guest to power off. Returns true if it was asked for the first time.
async fn ask_to_power_off(
    edges: &Edges,
    views: &Views,
    if_still: Still,
    notes: &mut Notes,
) -> Result<bool, ActError> {
    still_so(edges, views, if_still).await?;
    let asked = edges.hypervisor.shutdown().await;
    // The guest's time runs even where it could not be asked.
    let first = notes.asked_to_power_off(edges.clock.now());
    asked?;
    Ok(first)
}

/// Sets the guest's password, and makes the answer for the record: a request that failed is answered, too.
async fn set_password(edges: &Edges, id: Uuid, by: &str) -> Answer {
    let set = edges.hypervisor.set_password(guest::ROOT, guest::DEFAULT_PASSWORD).await;
    let (outcome, message) = match set {
        Ok(()) => (Outcome::Done, format!("the password of root in the guest was reset: {by} asked for it")),
        Err(error @ (HypervisorError::Unanswered { .. } | HypervisorError::Unreachable { .. })) => {
            let what = "it is not known whether the password of root in the guest was reset";
            (Outcome::Failed, format!("{what}: {error}"))
        }
        Err(error) => (Outcome::Failed, format!("the password of root in the guest was not reset: {error}")),
    };
    Answer { id, outcome, message }
}

async fn start(
    edges: &Edges,
    views: &Views,
    (domain, seed): (&DomainSpec, Option<&Seed>),
    epoch: u64,
) -> Result<(), ActError> {
    // The last look at the seed disk may be as old as the last look at the host.
    if let Some(seed) = seed {
        edges.host.write_seed(seed).await?;
    }
    still_holds(edges, views, epoch).await?;
    Ok(edges.hypervisor.start_paused(domain).await?)
}

async fn resume(edges: &Edges, views: &Views, epoch: u64) -> Result<(), ActError> {
    if !planted::is_planted(Bug::ResumeUnasked) {
        still_holds(edges, views, epoch).await?;
    }
    Ok(edges.hypervisor.resume().await?)
}

fn settle_start(
    edges: &Edges,
    result: Result<(), ActError>,
    notes: &mut Notes,
) -> Result<Vec<Happened>, ActError> {
    let now = edges.clock.now();
    match result {
        Ok(()) => {
            notes.started(now);
            Ok(vec![])
        }
        Err(error) => {
            note_failure(now, &error, notes);
            Err(error)
        }
    }
}

fn settle_resume(
    edges: &Edges,
    result: Result<(), ActError>,
    because: ResumeBecause,
    notes: &mut Notes,
) -> Result<Vec<Happened>, ActError> {
    let now = edges.clock.now();
    // A try that was refused before the hypervisor was asked may be made again as soon as it no longer is refused.
    if !matches!(result, Err(ActError::Moved(_))) {
        notes.resumed(because, result.is_ok(), now);
    }
    if let Err(error) = result {
        if matches!(because, ResumeBecause::Started | ResumeBecause::Arrived) {
            note_failure(now, &error, notes);
        }
        return Err(error);
    }
    Ok(match because {
        ResumeBecause::Started => {
            vec![happened(EventReason::Started, format!("the VM runs on {}", edges.me))]
        }
        ResumeBecause::IoErrorOver => {
            vec![happened(EventReason::Resumed, "the guest goes on after an I/O error of its disk")]
        }
        ResumeBecause::FaultOver => vec![happened_as(
            EventType::Warning,
            EventReason::Resumed,
            "QEMU had paused the guest for a fault of its own; it goes on",
        )],
        // The write that follows tells it.
        ResumeBecause::Arrived => vec![],
    })
}

/// Notes what a failed start costs: a refusal counts against this node, any other failure is only waited for.
fn note_failure(now: Moment, error: &ActError, notes: &mut Notes) {
    let fault = match error {
        ActError::Hypervisor(HypervisorError::Refused { reason, .. }) => StartFault::Refused(reason.clone()),
        ActError::Hypervisor(HypervisorError::ImageLocked { reason, .. }) => {
            StartFault::ImageLocked(reason.clone())
        }
        ActError::Hypervisor(HypervisorError::Unreachable { .. } | HypervisorError::Unanswered { .. })
        | ActError::Store(_)
        | ActError::Host(_)
        | ActError::Keeper(_) => StartFault::NotAnswered(error.to_string()),
        ActError::Moved(_) => return,
    };
    notes.start_failed(fault, now);
}

/// Writes a lost record in the place of a lease, only where there is none or still the one at the index `over`: a node
/// that renews meanwhile wins.
async fn replace_lease(edges: &Edges, owner: &Owner, over: Option<u64>) -> Result<Vec<Happened>, ActError> {
    let key = edges.keys.lease(&owner.node);
    let value = json(&LeaseRecord::lost(owner, edges.clock.wall()))?;
    let (op, what) = match over {
        None => (Op::Create { key, value }, "was gone from the store"),
        Some(index) => (Op::Cas { key, value, index }, "was gone from the store, or could not be read"),
    };
    match edges.store.txn(vec![op]).await? {
        Txn::Committed { .. } => Ok(vec![happened(
            EventReason::LeaseReplaced,
            format!(
                "the lease of {} {what}; if the node lives it goes on with the new one, if not its \
                 VM is taken over {} s from now",
                owner.node,
                LeaseTimings::LONGEST.fence_after().as_secs()
            ),
        )]),
        Txn::Conflict { .. } => {
            Err(ActError::Moved(format!("the lease of {} is there, though perhaps unreadable", owner.node)))
        }
    }
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, ActError> {
    serde_json::to_string(value)
        .map_err(|error| ActError::Moved(format!("cannot be written as JSON: {error}")))
}

fn events_of(edges: &Edges, write: &Write) -> Vec<Happened> {
    let mut events: Vec<_> = write
        .fence
        .iter()
        .map(|sight| {
            let node = &sight.record.node;
            happened(EventReason::Fenced, format!("{} fenced {node}: it does not renew its lease", edges.me))
        })
        .collect();
    // "Running" is told by the step that let it run.
    if write.reason != EventReason::Running {
        events.push(happened_as(severity(write), write.reason, write.message.clone()));
    }
    events
}

fn severity(write: &Write) -> EventType {
    match (write.reason, &write.record.password_reset) {
        (EventReason::PasswordAnswered, Some(answer)) if answer.outcome != Outcome::Done => {
            EventType::Warning
        }
        (reason, _) => reason.severity(),
    }
}

#[cfg(test)]
mod tests;
