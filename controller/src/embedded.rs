//! A whole node inside this process: the real keeper loop and the real controller, over a given store and a simulated
//! hypervisor and host. `zsha-controller dev`, the simulator and tests run such nodes.
//!
//! Never here: a decision, or a fault; those who embed nodes bring them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;
use zsha_crds::records::LeaseTimings;
use zsha_crds::{ClusterName, Keys, NodeName, VmId};
use zsha_runtime::events::{self, Recorder};
use zsha_runtime::lease::{Identity, Memory};
use zsha_runtime::{Clock, Store};

use crate::act::Edges;
use crate::api::{Metrics, Snapshot};
use crate::host::SimulatedHost;
use crate::hypervisor::Hypervisor;
use crate::hypervisor::simulated::SimulatedHosts;
use crate::keeper::copies::SimulatedCopies;
use crate::keeper::enforce::{Enforcement, enforce_task};
use crate::keeper::renew::{self, Looking, Notebook, RenewSettings};
use crate::keeper::watchdog::simulated::{self, SimulatedDevice};
use crate::keeper::watchdog::{Watchdog, WatchdogState};
use crate::keeper::{Lease, LocalLease};
use crate::reconcile::{self, Node};
use crate::status::Build;

/// The machine of a node: the parts of which its processes are made, and those that outlive them.
#[derive(Debug, Clone)]
pub struct Machine {
    pub cluster: ClusterName,
    pub name: NodeName,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub hosts: Arc<SimulatedHosts>,
    /// Its own of those, unless something is put before it.
    pub hypervisor: Arc<dyn Hypervisor>,
    pub host: Arc<SimulatedHost>,
    pub enforcement: Arc<Enforcement>,
    pub build: Build,
    pub watchdog: Option<Arc<SimulatedDevice>>,
    /// The state of a watchdog that the keeper reports although there is none; such a watchdog resets nothing.
    pub watchdog_said: watch::Sender<WatchdogState>,
    /// The keeper's file in `/run`: gone with the boot.
    memory: Arc<Mutex<Option<Memory>>>,
    boot: Arc<Mutex<u64>>,
    /// The seed of the jitter, and of the names of the lives of its lease.
    seed: u64,
}

impl Machine {
    /// A node whose seed is 1; [`Machine::seeded`] gives it another.
    pub fn new(
        cluster: ClusterName,
        name: NodeName,
        clock: Clock,
        store: Arc<dyn Store>,
        hosts: Arc<SimulatedHosts>,
    ) -> Self {
        let hypervisor = Arc::new(hosts.hypervisor(&name));
        Self {
            hypervisor,
            cluster,
            name,
            clock,
            store,
            hosts,
            host: Arc::new(SimulatedHost::new()),
            enforcement: Arc::new(Enforcement::default()),
            build: Build::this(env!("CARGO_PKG_VERSION")),
            watchdog: None,
            watchdog_said: watch::Sender::new(WatchdogState::None),
            memory: Arc::default(),
            boot: Arc::new(Mutex::new(1)),
            seed: 1,
        }
    }

    /// The same node with another seed.
    pub fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The power is gone: no process is left, and `/run` is empty at the next boot.
    pub fn lose_power(&self) {
        self.hosts.power_loss(&self.name);
        if let Some(watchdog) = &self.watchdog {
            watchdog.lose_power();
        }
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }

    pub fn power_on(&self) {
        self.hosts.power_on(&self.name);
    }

    /// The id of the boot that the machine is in.
    pub fn boot_id(&self) -> String {
        format!("boot-{}", *self.boot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The keeper: the line to it, and the future it lives in.
    pub fn keeper(&self) -> (LocalLease, impl Future<Output = ()> + Send + use<>) {
        let (line, enforcing, renewing) = self.keeper_apart();
        let both = async move {
            tokio::select! {
                biased;
                () = enforcing => {}
                () = renewing => {}
            }
        };
        (line, both)
    }

    /// The same as its two threads: the one that enforces (and pets the watchdog), and the one that renews.
    pub fn keeper_apart(
        &self,
    ) -> (LocalLease, impl Future<Output = ()> + Send + use<>, impl Future<Output = ()> + Send + use<>) {
        let copies = Arc::new(SimulatedCopies::new(Arc::clone(&self.hosts), self.name.clone()));
        let boot = *self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        let boot_id = self.boot_id();
        let name = self.name.clone();
        let seed = self.seed;
        let mut lives = 0u64;
        let start = self.clock.now().as_nanos();
        let (watchdog, watching) = match &self.watchdog {
            Some(device) => {
                let (line, watching) =
                    simulated::watch(Arc::clone(device), self.clock, Arc::clone(&self.enforcement));
                (line, Some(watching))
            }
            None => (Watchdog::said(self.watchdog_said.subscribe()), None),
        };
        let settings = RenewSettings {
            identity: Identity {
                vm: VmId::of(&self.cluster).name,
                cluster: self.cluster.clone(),
                node: self.name.clone(),
                key: Keys::new(&self.cluster).lease(&self.name),
                machine_id: format!("machine-of-{}", self.name),
                boot_id,
            },
            timings: LeaseTimings::BALANCED,
            clock: self.clock,
            may_be_paused: false,
            store: Arc::clone(&self.store),
            looking: Looking::Inline(Arc::new(SimulatedCopies::counting(
                Arc::clone(&self.hosts),
                self.name.clone(),
            ))),
            enforcement: Arc::clone(&self.enforcement),
            notebook: Notebook::Shared(Arc::clone(&self.memory)),
            watchdog,
            incarnations: Box::new(move || {
                lives += 1;
                Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{seed}/{name}/{boot}/{start}/{lives}").as_bytes())
            }),
        };
        let killing = enforce_task(self.clock, Arc::clone(&self.enforcement), copies);
        let enforcing = async move {
            match watching {
                Some(watching) => {
                    tokio::join!(killing, watching);
                }
                None => killing.await,
            }
        };
        let (renewal, line) = renew::new(settings);
        (line, enforcing, Box::pin(renewal.run()))
    }

    /// The controller, over that line; it ends when `shutdown` does.
    pub fn controller<S>(
        &self,
        lease: Arc<dyn Lease>,
        feed: Option<watch::Sender<Arc<Snapshot>>>,
        metrics: Arc<Metrics>,
        shutdown: S,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let keys = Keys::new(&self.cluster);
        let config = events::Config { seed: self.seed, ..events::Config::default() };
        let (recorder, recording) =
            Recorder::new(Arc::clone(&self.store), &keys, self.name.clone(), self.clock, config);
        let node = Node {
            cluster: self.cluster.clone(),
            edges: Edges {
                me: self.name.clone(),
                keys,
                clock: self.clock,
                store: Arc::clone(&self.store),
                hypervisor: Arc::clone(&self.hypervisor),
                host: Arc::clone(&self.host) as _,
                lease,
            },
            recorder,
            metrics,
            build: self.build.clone(),
            seed: self.seed,
            feed,
        };
        let running = reconcile::run(node, shutdown);
        async move {
            tokio::join!(running, recording.run());
        }
    }
}

#[cfg(test)]
mod tests;
