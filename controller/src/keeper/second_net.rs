//! The controller's own enforcement, for when its keeper is gone: it kills when the last deadline that is known has
//! passed.
//!
//! It never acts while the keeper answers, and never on a deadline it made up. It may not know of the keeper's own
//! restart, or of a renewal, so it reads the keeper's state file before it decides. Where this process lacks what it
//! takes to ask or to read (descriptors, memory, the right to), nothing is learnt, and no copy is killed on that.
//!
//! A keeper that this process has never heard of, neither by a verdict nor by a state file, need not be dead: it may
//! work in another directory, or behind another mount. No deadline of it is known, only that no lease is longer than a
//! document may ask for. So no copy is killed before no keeper could be found for that long, nor while this node's
//! lease is seen to be renewed in the store by a process of this boot.

mod decision;

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::Duration;

use zsha_crds::records::{LeaseRecord, LeaseState};
use zsha_runtime::lease::Memory;
use zsha_runtime::store::{Read, Store};
use zsha_runtime::{Clock, Moment};

use super::copies::Copies;
use super::enforce::Enforce;
use super::killing::{self, Killing};
use super::{KeeperError, Lease, StateFile};
use crate::limits;
use decision::{SecondNet, UNHEARD_KEEPER};

/// The pause between two looks while no deadline is known.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The time for an answer. A keeper answers from memory, and one that has not answered by then is taken to be gone.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// A keeper that has not renewed by this long before its deadline is asked how it is. So the answer, or the lack of
/// one, is there at the deadline: between that and the moment when others may fence there is not a second in `Fast`.
const ASK_BEFORE: Duration = Duration::from_millis(600);

/// A keeper that is started together with this controller is heard of by then.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// The pause between two questions to the store about the lease of a keeper that was never heard of.
const RENEWED_ASKED_EVERY: Duration = Duration::from_secs(5);

/// This node's lease as the store has it. It shows a keeper that works where this process does not look.
#[derive(Debug, Clone, Copy)]
pub struct OwnLease<'a> {
    pub store: &'a dyn Store,
    pub key: &'a str,
    pub boot_id: &'a str,
}

impl OwnLease<'_> {
    /// The index of its last renewal, and D. None where the lease could not be read, or is not held by a process of
    /// this boot.
    async fn renewal(&self) -> Option<(u64, Duration)> {
        let entry = self.store.get(self.key, Read::Consistent).await.ok()??;
        let record: LeaseRecord = serde_json::from_str(&entry.value).ok()?;
        let is_ours = record.state == LeaseState::Held && record.boot_id == self.boot_id;
        is_ours.then(|| (entry.modify_index, record.timings.fence_after()))
    }
}

/// Kills when the keeper is gone and the last deadline it wrote down has passed. While that deadline is far the keeper
/// is not asked, since it takes a question for a sign that the passes of this controller go on.
pub async fn watch(
    file: &StateFile,
    lease: &dyn Lease,
    own: OwnLease<'_>,
    copies: &dyn Copies,
    clock: Clock,
) -> Infallible {
    watch_by(Memories { path: file.path(), read: || file.read() }, lease, own, copies, clock).await
}

/// The keeper's state file: where it lies, and how it is read.
struct Memories<'a, R> {
    path: &'a Path,
    read: R,
}

async fn watch_by(
    memories: Memories<'_, impl Fn() -> anyhow::Result<Option<Memory>>>,
    lease: &dyn Lease,
    own: OwnLease<'_>,
    copies: &dyn Copies,
    clock: Clock,
) -> Infallible {
    let begun = clock.now();
    let mut net = SecondNet::default();
    let mut killing = Killing::default();
    let mut said = None;
    let mut asked_store = begun;
    loop {
        let read = (memories.read)();
        let now = clock.now();
        if read.as_ref().is_err_and(is_a_lack) {
            net.not_asked();
            clock.sleep_until(now + LOOK_EVERY).await;
            continue;
        }
        let memory = read.as_ref().ok().and_then(Option::as_ref);
        if memory.is_some() {
            net.found();
        }
        let remembered = memory.and_then(|memory| memory.deadline);
        if let Some(deadline) = remembered.filter(|deadline| now + ASK_BEFORE < *deadline) {
            net.remembered(deadline);
            clock.sleep_until((deadline - ASK_BEFORE).min(now + LOOK_EVERY)).await;
            continue;
        }
        // A keeper of which nothing was heard the last time, and nothing is written since, is not waited for again.
        if net.is_lost() {
            net.unanswered(now, remembered);
        }
        if read.as_ref().is_err_and(is_denied) {
            net.not_asked();
        }
        kill_if_right(&net, &mut killing, copies, now);
        let answer =
            tokio::time::timeout(ANSWER_WITHIN, lease.verdict()).await.unwrap_or_else(|_| Err(hangs()));
        let now = clock.now();
        match &answer {
            Ok(verdict) => net.answered(verdict),
            Err(KeeperError::NotAsked { .. }) => net.not_asked(),
            Err(_) => net.unanswered(now, remembered),
        }
        if let Err(error) = &answer
            && !net.has_heard()
        {
            if now.since(asked_store) >= RENEWED_ASKED_EVERY {
                asked_store = now;
                let renewal = tokio::time::timeout(ANSWER_WITHIN, own.renewal()).await.ok().flatten();
                net.in_store(now, renewal);
            }
            if now.since(begun) >= TOLD_AFTER {
                tell_unheard(&mut said, error, memories.path, &read, net.is_renewed_elsewhere(now));
            }
        }
        kill_if_right(&net, &mut killing, copies, now);
        let next = match net.decide(now) {
            Some(Enforce::Valid { until }) => until.min(now + LOOK_EVERY),
            Some(Enforce::Kill { .. }) | None => now + LOOK_EVERY,
        };
        clock.sleep_until(next).await;
    }
}

fn is_a_lack(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(limits::is_a_lack)
}

/// True for what is not permitted, by the rights of this process or by what else decides that: it says nothing of the
/// file.
fn is_denied(error: &anyhow::Error) -> bool {
    let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    error.downcast_ref::<io::Error>().is_some_and(denied)
}

fn hangs() -> KeeperError {
    let reason = format!("no answer within {} ms", ANSWER_WITHIN.as_millis());
    KeeperError::Unreachable { operation: "verdict", reason }
}

/// Logs why nothing is done while no keeper was ever heard of. It logs again only for another reason.
fn tell_unheard(
    said: &mut Option<String>,
    asked: &KeeperError,
    path: &Path,
    read: &anyhow::Result<Option<Memory>>,
    renewed: bool,
) {
    let file = match read {
        Ok(_) => format!("there is no state file {}", path.display()),
        Err(error) => format!("{error:#}"),
    };
    let renewed = if renewed {
        "; but the store shows that this node's lease is renewed, so a keeper works here, in another run directory"
    } else {
        ""
    };
    let why = format!("{asked}; {file}{renewed}");
    if said.as_ref() != Some(&why) {
        tracing::warn!(
            why,
            "nothing was ever heard of this node's keeper. It may live all the same, so no copy is ended for \
             that before none could be found for {} s. Is it started, and in this controller's run directory?",
            UNHEARD_KEEPER.as_secs()
        );
        *said = Some(why);
    }
}

fn kill_if_right(net: &SecondNet, killing: &mut Killing, copies: &dyn Copies, now: Moment) {
    if let Some(Enforce::Kill { .. }) = net.decide(now) {
        let round = killing.round(copies, now, LOOK_EVERY);
        round.reports.iter().for_each(killing::log);
    }
}

#[cfg(test)]
mod tests;
