//! The simulator: several nodes in virtual time over the embedded store, running the very code that runs on real
//! ones, their store and hypervisor calls interleaved inside the passes, with faults drawn from a seed.
//!
//! At every change of a process and every write it is checked from outside ([`check`]) that one copy at most executes,
//! that it may, and that nothing ended it without a reason. At the end the faults stop, in a third of the runs with
//! the owner lost for good, and the cluster must settle: one copy, on a node that is there. The same seed gives the
//! same log.

pub mod by_hand;
mod cached;
pub mod check;
pub mod faults;
pub mod freeze;
pub mod gate;
mod hands;
mod inflict;
pub mod lag;
pub mod matrix;
pub mod net;
pub mod node;
pub mod node_store;
pub mod operator;
pub mod reasons;
pub mod scenario;
mod settle;
pub mod situation;
pub mod validity;
pub mod witness;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;
use zsha_crds::{HaCluster, Keys, NodeName, VmId};
use zsha_runtime::store::MemoryStore;
use zsha_runtime::store::memory::Snapshot;
use zsha_runtime::{Clock, Store};

use crate::embedded::Machine;
use crate::hypervisor::simulated::{Delays, SimulatedHosts};
use crate::keeper::watchdog::simulated::SimulatedDevice;
use check::Checker;
use faults::{Fault, Schedule};
use gate::{Crash, Gate, GatedHypervisor, GatedStore};
use net::Net;
use node::SimNode;
use node_store::NodeStore;
use operator::{Operator, Profile};
use witness::Witness;

/// The virtual time between two looks where nothing happens. Such a look finds a copy that should be dead and lives on.
const TICK: Duration = Duration::from_millis(250);
/// The result of one seed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub seed: u64,
    /// The violations in plain words; none is good.
    pub violations: Vec<String>,
    pub faults: BTreeMap<&'static str, u64>,
    pub virtual_millis: u64,
    /// The time from the last fault until the VM ran for good.
    pub settled_millis: u64,
    /// The log of every fault, of every change of the ownership record and of every change of who executes, by virtual
    /// time.
    pub log: String,
}

/// Runs one seed on this thread, under a clock of its own.
pub fn run(seed: u64) -> Report {
    under_virtual_time(seed, async { Simulation::new(seed).run().await })
}

/// Runs one seed with this number of nodes, an odd one from 3 to 199.
pub fn run_with(seed: u64, nodes: u8) -> Report {
    under_virtual_time(seed, async move { Simulation::of(seed, &operator::example_with(nodes)).run().await })
}

fn under_virtual_time(seed: u64, simulation: impl Future<Output = Report>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(simulation),
        Err(error) => Report { seed, violations: vec![format!("no runtime: {error}")], ..Report::default() },
    }
}

struct Simulation {
    seed: u64,
    rng: SmallRng,
    store: MemoryStore,
    net: Arc<Mutex<Net>>,
    hosts: Arc<SimulatedHosts>,
    nodes: BTreeMap<NodeName, SimNode>,
    checker: Arc<Mutex<Checker>>,
    operator: Operator,
    gate: Arc<Gate>,
    start: Instant,
    /// The repairs of what a call took down, and when each is due.
    mends: Vec<(Instant, Fault)>,
    /// Hosts that are suspended, and since when.
    suspended: BTreeMap<NodeName, Instant>,
    /// The node that is lost for good, where one is.
    lost: Option<NodeName>,
    /// The owners that a fault was inflicted on.
    owners: Vec<NodeName>,
    faults: BTreeMap<&'static str, u64>,
    snapshot: Option<(Instant, Snapshot)>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self::of(seed, &operator::example())
    }

    fn of(seed: u64, document: &HaCluster) -> Self {
        crate::heard::forget();
        let mut rng = SmallRng::seed_from_u64(seed);
        let start = Instant::now();
        let cluster = document.name().clone();
        let keys = Keys::new(&cluster);
        let hosts = SimulatedHosts::new(VmId::of(&cluster));
        // The lease alone must keep copies apart.
        hosts.set_image_locks(false);
        let store = MemoryStore::new();
        let net = Arc::new(Mutex::new(Net::new(rng.random())));
        let checker = Checker::new(start, store.clone(), Arc::clone(&hosts), &cluster);
        let checker = Arc::new(Mutex::new(checker));
        let gate = Arc::new(Gate::new(!seed));
        let ways = Ways { store: &store, net: &net, checker: &checker, gate: &gate };
        let mut nodes = BTreeMap::new();
        for (number, node) in document.nodes().iter().enumerate() {
            let name = &node.name;
            let rate_ppm = rng.random_range(-10_000..=10_000);
            let clock = Clock::Machine { start, rate_ppm, number };
            clock.mend();
            let behind = ways.of(name, &keys.lease(name));
            let mut machine = Machine::new(cluster.clone(), name.clone(), clock, behind, Arc::clone(&hosts))
                .seeded(rng.random());
            let inner = Arc::clone(&machine.hypervisor);
            machine.hypervisor =
                Arc::new(GatedHypervisor { node: name.clone(), inner, gate: Arc::clone(&gate) });
            // The judge's clock is as wrong as its rate, and no more.
            check::lock(&checker).know(&keys, name, Clock::Tokio { start, rate_ppm });
            hosts.set_delays(name, delays(&mut rng));
            let gate = Arc::clone(&gate);
            nodes.insert(name.clone(), SimNode::new(machine, gate));
        }
        let operator = Operator::new(store.clone(), document);
        let faults = BTreeMap::new();
        let (lost, owners) = (None, Vec::new());
        let (mends, suspended, snapshot) = (Vec::new(), BTreeMap::new(), None);
        Self {
            seed,
            rng,
            store,
            net,
            hosts,
            nodes,
            checker,
            operator,
            gate,
            start,
            mends,
            suspended,
            lost,
            owners,
            faults,
            snapshot,
        }
    }

    fn begin(&mut self, profile: Profile) {
        self.operator.apply(Some(profile), 8);
        self.note(format_args!("! begins {profile:?}"));
        for node in self.nodes.values_mut() {
            node.start_keeper();
        }
    }

    async fn run(mut self) -> Report {
        let profile = faults::profile(&mut self.rng);
        if self.rng.random_bool(0.5) {
            self.arm_watchdogs();
        }
        let _beside = self.beside();
        let names: Vec<_> = self.nodes.keys().cloned().collect();
        let schedule = Schedule::draw(&mut self.rng, &names);
        self.begin(profile);
        for (at, fault) in &schedule.faults {
            self.wait_until(self.start + *at).await;
            if self.violated() {
                break;
            }
            self.inflict(fault);
        }
        self.wait_until(self.start + schedule.over).await;
        let settled = self.settle().await;
        self.end(settled)
    }

    fn end(mut self, settled: Duration) -> Report {
        let virtual_millis = millis(self.start.elapsed());
        if self.violated() {
            self.note_everything();
        }
        for node in self.nodes.values_mut() {
            node.stop_controller();
            node.stop_keeper();
        }
        let mut checker = check::lock(&self.checker);
        if checker.beside_stuck() > 0 {
            self.faults.insert("excused: written beside", checker.beside_stuck());
        }
        let (written, lost) = checker.ownership_writes();
        self.faults.insert("(the ownership record was written)", written);
        self.faults.insert("(and such a write lost its race)", lost);
        let mut violations = std::mem::take(&mut checker.violations);
        violations.extend(crate::heard::planned_anew().into_iter().map(|what| format!("P: {what}")));
        let log = std::mem::take(&mut checker.log);
        let settled_millis = millis(settled);
        for (kind, count) in self.gate.counts() {
            *self.faults.entry(kind).or_default() += count;
        }
        Report { seed: self.seed, violations, faults: self.faults, virtual_millis, settled_millis, log }
    }

    /// The tasks that move the simulated world and let the judge look. They end when the set is dropped.
    fn beside(&self) -> JoinSet<()> {
        let mut beside = JoinSet::new();
        let hosts = Arc::clone(&self.hosts);
        beside.spawn(async move { hosts.run().await });
        for (node, it) in &self.nodes {
            if let Some(device) = it.machine.watchdog.clone() {
                let (gate, node) = (Arc::clone(&self.gate), node.clone());
                beside.spawn(async move {
                    loop {
                        device.bites().await;
                        gate.take_down(&node, Crash::Watchdog);
                    }
                });
            }
            let mut changes = crate::hypervisor::Hypervisor::changes(&self.hosts.hypervisor(node));
            let checker = Arc::clone(&self.checker);
            beside.spawn(async move {
                while changes.changed().await.is_ok() {
                    check::lock(&checker).check();
                }
            });
        }
        beside
    }

    /// Every host gets a watchdog.
    fn arm_watchdogs(&mut self) {
        for (name, node) in &mut self.nodes {
            let device = Arc::new(SimulatedDevice::default());
            check::lock(&self.checker).watched_by(name, Arc::clone(&device));
            node.machine.watchdog = Some(device);
        }
    }

    fn violated(&self) -> bool {
        !check::lock(&self.checker).violations.is_empty()
    }

    /// Waits until then, or until something is violated. A call that takes a node down meanwhile does so at once.
    async fn wait_until(&mut self, at: Instant) {
        let gate = Arc::clone(&self.gate);
        while Instant::now() < at && !self.violated() {
            let mended = self.mends.iter().map(|(due, _)| *due).min().unwrap_or(at);
            let look = at.min(Instant::now() + TICK).min(mended);
            let crash = tokio::select! {
                biased;
                crash = gate.crash() => Some(crash),
                () = tokio::time::sleep_until(look) => None,
            };
            if let Some((node, what)) = crash {
                self.crash(node, what);
            }
            while let Some(due) = self.mends.iter().position(|(due, _)| *due <= Instant::now()) {
                let (_, mended) = self.mends.remove(due);
                self.inflict(&mended);
            }
            check::lock(&self.checker).check();
        }
    }

    /// Takes the node, or a part of it, down. It is up again some seconds later.
    fn crash(&mut self, node: NodeName, what: Crash) {
        let (fault, mended, down) = match what {
            Crash::Watchdog => (
                Fault::WatchdogReset(node.clone()),
                Fault::PowerOn(node),
                self.rng.random_range(2_000..12_000),
            ),
            Crash::Power => {
                (Fault::PowerLoss(node.clone()), Fault::PowerOn(node), self.rng.random_range(2_000..12_000))
            }
            Crash::Controller => {
                let down = self.rng.random_range(200..3_000);
                (Fault::StopController(node.clone()), Fault::StartController(node), down)
            }
        };
        self.inflict(&fault);
        self.mends.push((Instant::now() + Duration::from_millis(down), mended));
    }

    /// Notes what the nodes say of themselves, for whoever reads the log.
    fn note_everything(&self) {
        for (name, node) in &self.nodes {
            let keys = Keys::new(&node.machine.cluster);
            for key in [keys.node_status(name), keys.lease(name)] {
                let value = self.store.read(&key).map(|entry| entry.value);
                self.note(format_args!("{key}: {value:?}"));
            }
        }
    }

    fn note(&self, line: std::fmt::Arguments<'_>) {
        check::lock(&self.checker).note(line);
    }
}

/// The ways of all nodes to the store, by what they have in common.
struct Ways<'a> {
    store: &'a MemoryStore,
    net: &'a Arc<Mutex<Net>>,
    checker: &'a Arc<Mutex<Checker>>,
    gate: &'a Arc<Gate>,
}

impl Ways<'_> {
    /// The way of one node, from its processes outwards: the judge's ear, the gate, the network.
    fn of(&self, node: &NodeName, lease: &str) -> Arc<dyn Store> {
        let (net, judge) = (Arc::clone(self.net), Arc::clone(self.checker));
        let inner = Arc::new(NodeStore::new(node.clone(), lease.to_owned(), self.store.clone(), net, judge));
        let inner = Arc::new(GatedStore { node: node.clone(), inner, gate: Arc::clone(self.gate) });
        let checker = Arc::clone(self.checker);
        Arc::new(Witness { node: node.clone(), lease: lease.to_owned(), inner, checker })
    }
}

/// The delays of a host: some hosts are quick, some are slow.
fn delays(rng: &mut SmallRng) -> Delays {
    let (call, start) = if rng.random_bool(0.5) { (4, 30) } else { (20, 500) };
    let mut upto = |most: u64| Duration::from_millis(rng.random_range(1..most));
    Delays { call: upto(call), start: upto(start), guest_shutdown: Some(upto(4_000)), ..Delays::default() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
