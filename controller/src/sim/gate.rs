//! The gate every call of every node passes on its way to the store, the hypervisor or the keeper. It counts them, so
//! that "call 217" is the same call in every run of a seed, and does to one of them what was asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use zsha_crds::NodeName;
use zsha_crds::records::LeaseTimings;
use zsha_runtime::store::{Entry, Listing, Op, Read, Store, StoreError, Txn};

use crate::hypervisor::{DomainSpec, Hypervisor, HypervisorError, LocalVm, MigrationJob, MigrationOrder};
use crate::keeper::{KeeperError, Lease, Verdict};

/// What happens to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFault {
    /// It is not done, and that is said.
    Refused,
    /// It is done, and the answer never comes.
    ReplyLost,
    /// The node loses power before it is done.
    CrashBefore,
    /// The node loses power when it is done, before it hears of it.
    CrashAfter,
    /// The controller dies before it is done. (So does a call of the keeper, with its controller.)
    ControllerDies,
    /// It is done a good while later, and the answer never comes.
    Late,
    /// The answer is an empty list, as for a token without rights.
    Empty,
}

impl CallFault {
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::ReplyLost,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::ControllerDies,
        Self::Late,
        Self::Empty,
    ];
}

/// What a call does to its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    Power,
    Controller,
}

/// Later than any deadline of a call.
const LATE: Duration = Duration::from_secs(4);
/// After this the store's callers give up.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct State {
    passed: u64,
    target: Option<(u64, CallFault)>,
    met: Option<String>,
    crash: Option<(NodeName, Crash)>,
}

#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    crashed: Notify,
}

impl Gate {
    /// Does this to the call of this number, counted from 0.
    pub fn arm(&self, call: u64, fault: CallFault) {
        self.state().target = Some((call, fault));
    }

    pub fn disarm(&self) {
        self.state().target = None;
    }

    /// How many calls there were.
    pub fn passed(&self) -> u64 {
        self.state().passed
    }

    /// Which call was met, in words.
    pub fn met(&self) -> Option<String> {
        self.state().met.clone()
    }

    /// Waits until a call takes its node down.
    pub async fn crash(&self) -> (NodeName, Crash) {
        loop {
            let crashed = self.crashed.notified();
            if let Some(crash) = self.state().crash.take() {
                return crash;
            }
            crashed.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is what happens to the next call.
    fn is_next(&self, fault: CallFault) -> bool {
        let state = self.state();
        state.target == Some((state.passed, fault))
    }

    fn meet(&self, node: &NodeName, call: &str) -> Option<CallFault> {
        let mut state = self.state();
        let number = state.passed;
        state.passed += 1;
        let (_, fault) = state.target.filter(|(target, _)| *target == number)?;
        state.met = Some(format!("{call} of {node}"));
        Some(fault)
    }

    async fn take_down<T>(&self, node: &NodeName, crash: Crash) -> T {
        self.state().crash = Some((node.clone(), crash));
        self.crashed.notify_one();
        std::future::pending().await
    }

    /// One call. `refused` and `unanswered` are the words of its edge.
    async fn pass<T: Send + 'static, E>(
        &self,
        (node, name): (&NodeName, &'static str),
        call: impl Future<Output = Result<T, E>>,
        (refused, unanswered, deadline): (E, E, Duration),
    ) -> Result<T, E> {
        match self.meet(node, name) {
            // What cannot be empty is as if nothing had happened.
            None | Some(CallFault::Empty) => call.await,
            Some(CallFault::Refused) => Err(refused),
            Some(CallFault::ReplyLost) => {
                // Done, whatever came of it.
                let _ = call.await;
                tokio::time::sleep(deadline).await;
                Err(unanswered)
            }
            Some(CallFault::CrashBefore) => self.take_down(node, Crash::Power).await,
            Some(CallFault::ControllerDies) => self.take_down(node, Crash::Controller).await,
            Some(CallFault::CrashAfter) => {
                let _ = call.await;
                self.take_down(node, Crash::Power).await
            }
            Some(CallFault::Late) => {
                tokio::time::sleep(LATE).await;
                let _ = call.await;
                Err(unanswered)
            }
        }
    }
}

/// A node's way to the store through the gate.
#[derive(Debug)]
pub struct GatedStore {
    pub node: NodeName,
    pub inner: Arc<dyn Store>,
    pub gate: Arc<Gate>,
}

impl GatedStore {
    fn words(operation: &str) -> (StoreError, StoreError, Duration) {
        let (operation, reason) = (operation.to_owned(), "by the simulator".to_owned());
        (
            StoreError::Unavailable { operation: operation.clone(), reason: reason.clone() },
            StoreError::Unknown { operation, reason },
            TIMEOUT,
        )
    }

    /// A list can also come back empty.
    async fn listed(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<Listing, StoreError>>,
    ) -> Result<Listing, StoreError> {
        let empty = self.gate.is_next(CallFault::Empty);
        let mut listing = self.gate.pass((&self.node, operation), call, Self::words(operation)).await?;
        if empty {
            listing.entries.clear();
        }
        Ok(listing)
    }
}

#[async_trait]
impl Store for GatedStore {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.gate.pass((&self.node, "get"), self.inner.get(key, read), Self::words("get")).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.listed("list", self.inner.list(prefix, read)).await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.listed("watch", self.inner.watch(prefix, after, wait)).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.gate.pass((&self.node, "txn"), self.inner.txn(ops), Self::words("txn")).await
    }
}

/// A node's hypervisor behind the gate.
#[derive(Debug)]
pub struct GatedHypervisor {
    pub node: NodeName,
    pub inner: Arc<dyn Hypervisor>,
    pub gate: Arc<Gate>,
}

impl GatedHypervisor {
    async fn pass<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, HypervisorError>>,
    ) -> Result<T, HypervisorError> {
        let refused = HypervisorError::Unreachable { operation, reason: "by the simulator".to_owned() };
        let unanswered = HypervisorError::Unanswered { operation, waited_secs: LATE.as_secs() };
        self.gate.pass((&self.node, operation), call, (refused, unanswered, LATE)).await
    }
}

#[async_trait]
impl Hypervisor for GatedHypervisor {
    async fn look(&self) -> Result<LocalVm, HypervisorError> {
        self.pass("look", self.inner.look()).await
    }

    async fn define(&self, domain: &DomainSpec) -> Result<(), HypervisorError> {
        self.pass("define", self.inner.define(domain)).await
    }

    async fn start_paused(&self) -> Result<(), HypervisorError> {
        self.pass("start", self.inner.start_paused()).await
    }

    async fn resume(&self) -> Result<(), HypervisorError> {
        self.pass("resume", self.inner.resume()).await
    }

    async fn shutdown(&self) -> Result<(), HypervisorError> {
        self.pass("shutdown", self.inner.shutdown()).await
    }

    async fn kill(&self) -> Result<(), HypervisorError> {
        self.pass("kill", self.inner.kill()).await
    }

    async fn migrate(&self, order: &MigrationOrder) -> Result<(), HypervisorError> {
        self.pass("migrate", self.inner.migrate(order)).await
    }

    async fn abort_migration(&self) -> Result<(), HypervisorError> {
        self.pass("abort migration", self.inner.abort_migration()).await
    }

    fn migration(&self) -> MigrationJob {
        self.inner.migration()
    }

    async fn undefine(&self) -> Result<(), HypervisorError> {
        self.pass("undefine", self.inner.undefine()).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }
}

/// A controller's line to its keeper through the gate.
#[derive(Debug)]
pub struct GatedLease {
    pub node: NodeName,
    pub inner: Arc<dyn Lease>,
    pub gate: Arc<Gate>,
}

impl GatedLease {
    async fn pass<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, KeeperError>>,
    ) -> Result<T, KeeperError> {
        let unreachable = || KeeperError::Unreachable { operation, reason: "by the simulator".to_owned() };
        self.gate.pass((&self.node, operation), call, (unreachable(), unreachable(), TIMEOUT)).await
    }
}

#[async_trait]
impl Lease for GatedLease {
    async fn verdict(&self) -> Result<Verdict, KeeperError> {
        self.pass("verdict", self.inner.verdict()).await
    }

    async fn set_timings(&self, timings: LeaseTimings) -> Result<(), KeeperError> {
        self.pass("timings", self.inner.set_timings(timings)).await
    }

    async fn set_watchdog(&self, wanted: bool) -> Result<(), KeeperError> {
        self.pass("watchdog", self.inner.set_watchdog(wanted)).await
    }

    async fn release(&self) -> Result<(), KeeperError> {
        self.pass("release", self.inner.release()).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }
}
