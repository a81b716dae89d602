//! One node's view of the simulated world. It waits as long as a call takes; what happens is in `state`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::Instant;
use zsha_crds::NodeName;

use super::SimulatedHosts;
use super::request::{Reached, Request, half_of};
use crate::hypervisor::{
    DomainFacts, DomainSpec, GuestRan, Hypervisor, HypervisorError, LocalVm, MigrationJob, MigrationOrder,
    OffReason, Offer,
};

/// The hypervisor of one simulated node. Clones are the same one.
#[derive(Clone)]
pub struct SimulatedHypervisor {
    hosts: Arc<SimulatedHosts>,
    node: NodeName,
}

impl SimulatedHypervisor {
    pub(super) fn new(hosts: Arc<SimulatedHosts>, node: NodeName) -> Self {
        Self { hosts, node }
    }

    async fn ask(&self, request: Request) -> Result<(), HypervisorError> {
        let operation = request.operation();
        let (boot, delays) = self.on_arrival();
        let half = half_of(delays, Some(&request));
        pass(half).await;
        let reached = self.hosts.settled().ask(&self.node, boot, request, Instant::now());
        // Things due may have been added, and a guest may shut down in no time at all.
        self.hosts.tell_due();
        answer(reached, operation, half, delays.deadline).await
    }

    fn on_arrival(&self) -> (u64, super::Delays) {
        let mut state = self.hosts.settled();
        (state.boot(&self.node), state.delays(&self.node))
    }
}

impl fmt::Debug for SimulatedHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedHypervisor").field("node", &self.node).finish_non_exhaustive()
    }
}

#[async_trait]
impl Hypervisor for SimulatedHypervisor {
    async fn look(&self) -> Result<LocalVm, HypervisorError> {
        let (boot, delays) = self.on_arrival();
        let half = half_of(delays, None);
        pass(half).await;
        let reached = self.hosts.settled().look(&self.node, boot);
        answer(reached, "look", half, delays.deadline).await
    }

    async fn domain(&self) -> Result<DomainFacts, HypervisorError> {
        let (boot, delays) = self.on_arrival();
        let half = half_of(delays, None);
        pass(half).await;
        let reached = self.hosts.settled().domain(&self.node, boot);
        answer(reached, "look at the domain", half, delays.deadline).await
    }

    async fn offer(&self) -> Result<Offer, HypervisorError> {
        let (boot, delays) = self.on_arrival();
        let reached = self.hosts.settled().offer(&self.node, boot);
        answer(reached, "ask what there is to run the VM on", Duration::ZERO, delays.deadline).await
    }

    async fn start_paused(&self, domain: &DomainSpec) -> Result<(), HypervisorError> {
        self.ask(Request::StartPaused(Box::new(domain.clone()))).await
    }

    async fn resume(&self) -> Result<(), HypervisorError> {
        self.ask(Request::Resume).await
    }

    async fn shutdown(&self) -> Result<(), HypervisorError> {
        self.ask(Request::Shutdown).await
    }

    async fn set_password(&self, _user: &str, _password: &str) -> Result<(), HypervisorError> {
        self.ask(Request::AskAgent { operation: "set the password" }).await
    }

    /// Answers as a guest with cloud-init does, whatever it is to run.
    async fn run_in_guest(&self, _script: &str) -> Result<GuestRan, HypervisorError> {
        self.ask(Request::AskAgent { operation: "run in the guest" }).await?;
        Ok(GuestRan::Printed("cloud-init\n".to_owned()))
    }

    async fn kill(&self) -> Result<(), HypervisorError> {
        self.ask(Request::Kill).await
    }

    async fn migrate(&self, order: &MigrationOrder) -> Result<(), HypervisorError> {
        self.hosts.settled().note_job(&self.node, MigrationJob::Going { id: order.id, percent: None });
        let asked = self.ask(Request::Migrate(order.clone())).await;
        if let Err(error) = &asked {
            let failed = MigrationJob::Failed { id: order.id, reason: error.to_string() };
            self.hosts.settled().note_job(&self.node, failed);
        }
        asked
    }

    async fn abort_migration(&self) -> Result<(), HypervisorError> {
        self.ask(Request::AbortMigration).await
    }

    fn migration(&self) -> MigrationJob {
        self.hosts.settled().job(&self.node)
    }

    async fn undefine(&self) -> Result<(), HypervisorError> {
        self.ask(Request::Undefine).await
    }

    async fn last_end(&self) -> Result<Option<OffReason>, HypervisorError> {
        let mut state = self.hosts.settled();
        if state.host(&self.node).log_unreadable {
            let reason = "its log cannot be read".to_owned();
            return Err(HypervisorError::Unreachable { operation: "look at the last end", reason });
        }
        Ok(state.last_end(&self.node))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.hosts.settled().changes(&self.node)
    }
}

/// Takes that long. No time at all still lets others run, so that calls interleave.
async fn pass(time: Duration) {
    if time.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(time).await;
    }
}

async fn answer<T>(
    reached: Reached<T>,
    operation: &'static str,
    half: Duration,
    deadline: Duration,
) -> Result<T, HypervisorError> {
    match reached {
        Reached::Answered(result) => {
            pass(half).await;
            result
        }
        Reached::Silent => {
            pass(deadline.saturating_sub(half)).await;
            Err(HypervisorError::Unanswered { operation, waited_secs: deadline.as_secs() })
        }
    }
}
