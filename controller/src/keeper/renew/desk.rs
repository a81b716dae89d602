//! The desk at which the loop is spoken to: it holds what the loop shows, what the loop is asked, and when its
//! controller was last heard of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};
use zsha_crds::records::LeaseTimings;
use zsha_runtime::lease::{Expectation, Memory};
use zsha_runtime::{Clock, Moment};

use crate::keeper::enforce::Enforcement;
use crate::keeper::watchdog::Watchdog;
use crate::keeper::{KeeperError, Lease, Verdict};

/// The time after which a silent controller counts as down. It is several times the pause between two verdicts that the
/// controller asks for, and less than it takes to fail over, so that a node without a controller is not given the VM.
pub const CONTROLLER_SILENCE: Duration = Duration::from_secs(6);

/// The number of questions that may wait for the loop.
const WAITING_COMMANDS: usize = 16;

#[derive(Debug)]
pub(super) enum Command {
    SetTimings(LeaseTimings, Reply),
    Expect(Expectation, Reply),
    Release(Reply),
}

#[derive(Debug)]
pub(super) struct Reply(oneshot::Sender<Result<(), String>>);

impl Reply {
    pub(super) fn say(self, outcome: Result<(), String>) {
        // Whoever asked may have gone.
        let _ = self.0.send(outcome);
    }
}

/// The loop's side.
#[derive(Debug)]
pub(super) struct Desk {
    clock: Clock,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<Verdict>,
    memory: watch::Sender<Option<Memory>>,
    changes: watch::Sender<u64>,
    heard: Arc<AtomicU64>,
}

/// The line to a keeper in this process.
#[derive(Debug, Clone)]
pub struct LocalLease {
    clock: Clock,
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Verdict>,
    memory: watch::Receiver<Option<Memory>>,
    changes: watch::Sender<u64>,
    heard: Arc<AtomicU64>,
    enforcement: Arc<Enforcement>,
    watchdog: Watchdog,
}

impl Desk {
    pub(super) fn new(
        clock: Clock,
        first: Verdict,
        enforcement: Arc<Enforcement>,
        watchdog: Watchdog,
    ) -> (Self, LocalLease) {
        let (say, commands) = mpsc::channel(WAITING_COMMANDS);
        let (view, seen) = watch::channel(first);
        let (memory, remembered) = watch::channel(None);
        let changes = watch::Sender::new(0);
        let heard = Arc::new(AtomicU64::new(0));
        let desk =
            Self { clock, commands, view, memory, changes: changes.clone(), heard: Arc::clone(&heard) };
        let line = LocalLease {
            clock,
            commands: say,
            view: seen,
            memory: remembered,
            changes,
            heard,
            enforcement,
            watchdog,
        };
        (desk, line)
    }

    /// Returns the next command. It waits for ever when no process can ask any more.
    pub(super) async fn next(&mut self) -> Command {
        match self.commands.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }

    pub(super) fn try_next(&mut self) -> Option<Command> {
        self.commands.try_recv().ok()
    }

    pub(super) fn controller_alive(&self) -> bool {
        let heard = self.heard.load(Ordering::SeqCst);
        heard > 0 && self.clock.now().since(Moment::from_nanos(heard)) < CONTROLLER_SILENCE
    }

    pub(super) fn view(&self) -> watch::Receiver<Verdict> {
        self.view.subscribe()
    }

    pub(super) fn show(&self, verdict: Verdict) {
        self.view.send_replace(verdict);
    }

    pub(super) fn keep(&self, memory: Option<Memory>) {
        self.memory.send_replace(memory);
    }

    pub(super) fn changes(&self) -> watch::Sender<u64> {
        self.changes.clone()
    }

    pub(super) fn bump(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // The line is lost.
        self.bump();
    }
}

impl LocalLease {
    async fn ask(
        &self,
        operation: &'static str,
        command: impl FnOnce(Reply) -> Command,
    ) -> Result<(), KeeperError> {
        let lost = || KeeperError::Unreachable { operation, reason: "the keeper has ended".to_owned() };
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(Reply(reply))).await.map_err(|_| lost())?;
        match answer.await.map_err(|_| lost())? {
            Ok(()) => Ok(()),
            Err(reason) => Err(KeeperError::Refused { operation, reason }),
        }
    }

    /// The memory in force, whether it could be written down or not.
    pub(in crate::keeper) fn memory(&self) -> Option<Memory> {
        self.memory.borrow().clone()
    }

    /// The verdict as it stands. Reading it does not count as a sign of life of the controller.
    pub fn overheard(&self) -> Verdict {
        // What was killed is told at once, not with the next renewal: the controller asks why its VM is gone.
        let (ended, watchdog) = (self.enforcement.ended(), self.watchdog.state());
        let view = self.view.borrow().clone();
        // So is a deadline that has moved closer by itself, since this host was paused.
        let valid_until = view.valid_until.min(self.enforcement.deadline());
        Verdict { ended, watchdog, valid_until, ..view }
    }
}

#[async_trait]
impl Lease for LocalLease {
    async fn verdict(&self) -> Result<Verdict, KeeperError> {
        if self.view.has_changed().is_err() {
            let reason = "the keeper has ended".to_owned();
            return Err(KeeperError::Unreachable { operation: "verdict", reason });
        }
        self.heard.store(self.clock.now().as_nanos(), Ordering::SeqCst);
        Ok(self.overheard())
    }

    async fn set_timings(&self, timings: LeaseTimings) -> Result<(), KeeperError> {
        self.ask("setTimings", |reply| Command::SetTimings(timings, reply)).await
    }

    async fn set_watchdog(&self, wanted: bool) -> Result<(), KeeperError> {
        let refused = |reason| KeeperError::Refused { operation: "setWatchdog", reason };
        self.watchdog.want(wanted).await.map_err(refused)
    }

    async fn expect(&self, what: Expectation) -> Result<(), KeeperError> {
        self.ask("expect", |reply| Command::Expect(what, reply)).await
    }

    async fn release(&self) -> Result<(), KeeperError> {
        self.ask("release", Command::Release).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
