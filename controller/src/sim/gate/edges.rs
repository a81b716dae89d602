//! The three ways through the gate: to the store, to the hypervisor, to the keeper.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use zsha_crds::NodeName;
use zsha_crds::records::LeaseTimings;
use zsha_runtime::lease::Expectation;
use zsha_runtime::store::{Entry, Listing, Op, Read, Store, StoreError, Txn};

use super::{Gate, LATE, TIMEOUT, Words};
use crate::hypervisor::{
    DomainFacts, DomainSpec, GuestRan, Hypervisor, HypervisorError, LocalVm, MigrationJob, MigrationOrder,
    OffReason, Offer,
};
use crate::keeper::{KeeperError, Lease, Verdict};

/// The answer as it is, where an answer cannot be empty.
fn whole<T>(answer: T) -> T {
    answer
}

/// A node's way to the store through the gate.
#[derive(Debug)]
pub struct GatedStore {
    pub node: NodeName,
    pub inner: Arc<dyn Store>,
    pub gate: Arc<Gate>,
}

impl GatedStore {
    fn words(operation: &str) -> Words<StoreError> {
        let (operation, reason) = (operation.to_owned(), "by the simulator".to_owned());
        Words {
            refused: StoreError::Unavailable { operation: operation.clone(), reason: reason.clone() },
            unanswered: StoreError::Unknown { operation, reason },
            deadline: TIMEOUT,
        }
    }

    /// A list can also come back empty.
    async fn listed(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<Listing, StoreError>>,
    ) -> Result<Listing, StoreError> {
        let empty = |listing| Listing { entries: Vec::new(), ..listing };
        self.gate.pass((&self.node, operation), call, empty, Self::words(operation)).await
    }
}

#[async_trait]
impl Store for GatedStore {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.gate.pass((&self.node, "get"), self.inner.get(key, read), whole, Self::words("get")).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.listed("list", self.inner.list(prefix, read)).await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.listed("watch", self.inner.watch(prefix, after, wait)).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.gate.pass((&self.node, "txn"), self.inner.txn(ops), whole, Self::words("txn")).await
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
        let words = Words { refused, unanswered, deadline: LATE };
        self.gate.pass((&self.node, operation), call, whole, words).await
    }
}

#[async_trait]
impl Hypervisor for GatedHypervisor {
    async fn look(&self) -> Result<LocalVm, HypervisorError> {
        self.pass("look", self.inner.look()).await
    }

    async fn domain(&self) -> Result<DomainFacts, HypervisorError> {
        self.pass("look at the domain", self.inner.domain()).await
    }

    /// Not through the gate: what a host has does not change with its troubles, and an answer that is late is an old one.
    async fn offer(&self) -> Result<Offer, HypervisorError> {
        self.inner.offer().await
    }

    async fn start_paused(&self, domain: &DomainSpec) -> Result<(), HypervisorError> {
        self.pass("start", self.inner.start_paused(domain)).await
    }

    async fn resume(&self) -> Result<(), HypervisorError> {
        self.pass("resume", self.inner.resume()).await
    }

    async fn shutdown(&self) -> Result<(), HypervisorError> {
        self.pass("shutdown", self.inner.shutdown()).await
    }

    async fn run_in_guest(&self, script: &str) -> Result<GuestRan, HypervisorError> {
        self.pass("run in the guest", self.inner.run_in_guest(script)).await
    }

    async fn set_password(&self, user: &str, password: &str) -> Result<(), HypervisorError> {
        self.pass("set password", self.inner.set_password(user, password)).await
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

    async fn last_end(&self) -> Result<Option<OffReason>, HypervisorError> {
        self.pass("read the log", self.inner.last_end()).await
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
        let words = Words { refused: unreachable(), unanswered: unreachable(), deadline: TIMEOUT };
        self.gate.pass((&self.node, operation), call, whole, words).await
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

    async fn expect(&self, what: Expectation) -> Result<(), KeeperError> {
        self.pass("expect", self.inner.expect(what)).await
    }

    async fn release(&self) -> Result<(), KeeperError> {
        self.pass("release", self.inner.release()).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }
}
