//! The simulator: several nodes in virtual time over the embedded store, running the very code that runs on real
//! ones, their store and hypervisor calls interleaved inside the passes, with faults drawn from a seed.
//!
//! At every change of a process and every write it is checked from outside ([`check`]) that one copy at most executes,
//! that it may, and that nothing ended it without a reason. At the end the faults stop, in a third of the runs with
//! the owner lost for good, and the cluster must settle: one copy, on a node that is there. The same seed gives the
//! same log.

pub mod check;
pub mod faults;
pub mod gate;
pub mod lag;
pub mod matrix;
pub mod net;
pub mod operator;
pub mod scenario;
pub mod validity;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use zsha_crds::records::LeaseTimings;
use zsha_crds::{Keys, NodeName, VmName};
use zsha_runtime::store::MemoryStore;
use zsha_runtime::store::memory::Snapshot;
use zsha_runtime::{Clock, Store};

use crate::api::Metrics;
use crate::embedded::Machine;
use crate::host::BridgeFact;
use crate::hypervisor::simulated::{Delays, SimulatedHosts};
use crate::keeper::{Lease, LocalLease};
use crate::observed::Observed;
use check::Checker;
use faults::{Fault, Schedule};
use gate::{Gate, GatedHypervisor, GatedLease, GatedStore};
use net::{Net, NodeStore};
use operator::{Operator, Profile};

/// Virtual time between two looks where nothing happens: a copy that should be dead and lives on is seen by it.
const TICK: Duration = Duration::from_millis(250);
/// The cluster has settled once it has been so for this long.
const CALM: Duration = Duration::from_secs(3);
/// After the last fault the VM runs within this: the longest D, one look, two places in the line, a start; and what
/// is still being waited for from before (a cool-down of starts, a hypervisor's call).
const BOUND: Duration = Duration::from_secs(45);
/// What an owner's lease that was deleted, and that its owner did not live to write anew, costs on top.
const LOST: Duration = LeaseTimings::LONGEST.fence_after();
/// On the bridge of the example document.
const BRIDGE: &str = "br_zsn0";

/// What one seed came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    pub seed: u64,
    /// What was violated, in plain words; empty is good.
    pub violations: Vec<String>,
    pub faults: BTreeMap<&'static str, u64>,
    pub virtual_millis: u64,
    /// From the last fault until the VM ran for good.
    pub settled_millis: u64,
    /// Every fault, every change of the ownership record and of who executes, by virtual time.
    pub log: String,
}

/// Runs one seed on this thread, under a clock of its own.
pub fn run(seed: u64) -> Report {
    under_virtual_time(seed, async { Simulation::new(seed).run().await })
}

fn under_virtual_time(seed: u64, simulation: impl Future<Output = Report>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    match runtime {
        Ok(runtime) => runtime.block_on(simulation),
        Err(error) => Report { seed, violations: vec![format!("no runtime: {error}")], ..Report::default() },
    }
}

/// A node's machine and the processes on it.
struct SimNode {
    machine: Machine,
    gate: Arc<Gate>,
    lease: Option<Arc<LocalLease>>,
    keeper: Option<JoinHandle<()>>,
    controller: Option<JoinHandle<()>>,
    powered: bool,
}

impl SimNode {
    fn start_keeper(&mut self) {
        if self.powered && self.keeper.is_none() {
            let (line, keeper) = self.machine.keeper();
            self.lease = Some(Arc::new(line));
            self.keeper = Some(tokio::spawn(keeper));
            // The controller's line broke with the old keeper; a new one is made with its restart.
            self.stop_controller();
            self.start_controller();
        }
    }

    fn start_controller(&mut self) {
        if let (true, None, Some(line)) = (self.powered, &self.controller, &self.lease) {
            let (node, gate) = (self.machine.name.clone(), Arc::clone(&self.gate));
            let line: Arc<dyn Lease> =
                Arc::new(GatedLease { node, inner: Arc::clone(line) as Arc<dyn Lease>, gate });
            let never = std::future::pending();
            let controller = self.machine.controller(line, None, Arc::new(Metrics::default()), never);
            self.controller = Some(tokio::spawn(controller));
        }
    }

    fn stop_keeper(&mut self) {
        if let Some(task) = self.keeper.take() {
            task.abort();
        }
    }

    fn stop_controller(&mut self) {
        if let Some(task) = self.controller.take() {
            task.abort();
            self.machine.hosts.forget_job(&self.machine.name);
        }
    }

    fn lose_power(&mut self) {
        self.stop_controller();
        self.stop_keeper();
        self.lease = None;
        self.powered = false;
        self.machine.lose_power();
    }

    fn power_on(&mut self) {
        if !self.powered {
            self.powered = true;
            self.machine.power_on();
            self.start_keeper();
        }
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
    /// The node that is not mended.
    lost: Option<NodeName>,
    /// Owners that something was done to.
    owners: Vec<NodeName>,
    faults: BTreeMap<&'static str, u64>,
    snapshot: Option<Snapshot>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let start = Instant::now();
        let document = operator::example();
        let cluster = document.name().clone();
        let keys = Keys::new(&cluster);
        let hosts = SimulatedHosts::new(VmName::management(), VmName::management().domain_uuid(&cluster));
        // The lease alone must keep copies apart.
        hosts.set_image_locks(false);
        let store = MemoryStore::new();
        let net = Arc::new(Mutex::new(Net::new(rng.random())));
        let checker = Checker::new(start, store.clone(), Arc::clone(&hosts), &cluster);
        let checker = Arc::new(Mutex::new(checker));
        let gate = Arc::new(Gate::default());
        let mut nodes = BTreeMap::new();
        for node in document.nodes() {
            let name = &node.name;
            let clock = Clock::Tokio { start, rate_ppm: rng.random_range(-10_000..=10_000) };
            let (net, judge) = (Arc::clone(&net), Arc::clone(&checker));
            let behind = NodeStore::new(name.clone(), keys.lease(name), store.clone(), net, judge);
            let behind = GatedStore { node: name.clone(), inner: Arc::new(behind), gate: Arc::clone(&gate) };
            let behind = Arc::new(behind) as Arc<dyn Store>;
            let mut machine =
                Machine::new(cluster.clone(), name.clone(), clock, behind, Arc::clone(&hosts), rng.random());
            let inner = Arc::clone(&machine.hypervisor);
            machine.hypervisor =
                Arc::new(GatedHypervisor { node: name.clone(), inner, gate: Arc::clone(&gate) });
            check::lock(&checker).know(&keys, name, clock);
            hosts.set_delays(name, delays(&mut rng));
            let gate = Arc::clone(&gate);
            let node = SimNode { machine, gate, lease: None, keeper: None, controller: None, powered: true };
            nodes.insert(name.clone(), node);
        }
        let operator = Operator::new(store.clone(), &document);
        let faults = BTreeMap::new();
        let (lost, owners) = (None, Vec::new());
        let snapshot = None;
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
        let _beside = self.beside();
        let profile = faults::profile(&mut self.rng);
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
        let violations = std::mem::take(&mut checker.violations);
        let log = std::mem::take(&mut checker.log);
        let settled_millis = millis(settled);
        Report { seed: self.seed, violations, faults: self.faults, virtual_millis, settled_millis, log }
    }

    /// What falls due in the simulated world, and the judge's eyes; they end when this is dropped.
    fn beside(&self) -> JoinSet<()> {
        let mut beside = JoinSet::new();
        let hosts = Arc::clone(&self.hosts);
        beside.spawn(async move { hosts.run().await });
        for node in self.nodes.keys() {
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

    fn violated(&self) -> bool {
        !check::lock(&self.checker).violations.is_empty()
    }

    async fn wait_until(&self, at: Instant) {
        while Instant::now() < at && !self.violated() {
            tokio::time::sleep_until(at.min(Instant::now() + TICK)).await;
            check::lock(&self.checker).check();
        }
    }

    /// With everything mended but what is lost: exactly one copy, executing, and the record says so; and it stays so.
    /// Returns how long that took.
    async fn settle(&self) -> Duration {
        let over = Instant::now();
        let mut since: Option<(Instant, u64)> = None;
        while !self.violated() {
            let now = Instant::now();
            let settled = check::lock(&self.checker).settled(self.lost.as_ref());
            since = match (&settled, since) {
                (Ok(process), Some((since, before))) if before == *process => Some((since, before)),
                (Ok(process), _) => Some((now, *process)),
                (Err(_), _) => None,
            };
            if let Some((since, _)) = since.filter(|(since, _)| now >= *since + CALM) {
                return since - over;
            }
            let bound = if check::lock(&self.checker).a_lease_was_lost() { BOUND + LOST } else { BOUND };
            if let (Err(why), true) = (settled, now >= over + bound) {
                check::lock(&self.checker).violations.push(format!("liveness: {why}"));
            }
            self.wait_until(now + TICK).await;
        }
        Instant::now() - over
    }

    /// What the nodes say of it, for whoever reads the log.
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

    fn inflict(&mut self, fault: &Fault) {
        *self.faults.entry(fault.kind()).or_default() += 1;
        self.note(format_args!("! {fault:?}"));
        let net = Arc::clone(&self.net);
        let net = || net.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Fault::PowerLoss(node) => self.lose_power(node),
            Fault::PowerOn(node) => {
                self.node(node).power_on();
                self.trouble(node, "power", false);
            }
            Fault::Cut(node) => self.cut(node, true),
            Fault::Mend(node) => self.cut(node, false),
            Fault::CutOwner => {
                if let Some(owner) = self.owner() {
                    self.cut(&owner, true);
                }
            }
            Fault::SlowOwner => {
                if let Some(owner) = self.owner() {
                    self.slow(&owner, true);
                }
            }
            Fault::MendOwners => {
                for owner in std::mem::take(&mut self.owners) {
                    self.slow(&owner, false);
                    self.cut(&owner, false);
                }
            }
            Fault::StoreDown => self.store_down(true),
            Fault::StoreUp => self.store_down(false),
            Fault::Lag(node) => net().lag(node, &self.store),
            Fault::CatchUp(node) => net().catch_up(node, &self.store),
            Fault::StopController(node) => self.node(node).stop_controller(),
            Fault::StartController(node) => self.node(node).start_controller(),
            Fault::StopKeeper(node) => {
                self.trouble(node, "keeper", true);
                self.node(node).stop_keeper();
            }
            Fault::StartKeeper(node) => {
                self.node(node).start_keeper();
                self.trouble(node, "keeper", false);
            }
            Fault::Pause(node) => self.pause(node, true),
            Fault::Continue(node) => self.pause(node, false),
            Fault::QemuDies => self.on_every_host(|hosts, node| {
                hosts.qemu_dies(node);
            }),
            Fault::GuestPowersOff => self.on_every_host(|hosts, node| {
                hosts.guest_powers_off(node);
            }),
            Fault::Stop => self.operator.stop(),
            Fault::Start => self.operator.start(),
            Fault::Apply { profile, memory_gib } => self.operator.apply(*profile, *memory_gib),
            Fault::Snapshot => self.snapshot = Some(self.store.snapshot()),
            Fault::Restore => {
                if let Some(snapshot) = self.snapshot.take() {
                    check::lock(&self.checker).restoring();
                    self.store.restore(snapshot);
                }
            }
            Fault::Migrate(node) => self.operator.migrate(node),
            Fault::Migrations(fault) => {
                for node in self.nodes.keys() {
                    self.hosts.set_migration_fault(node, *fault);
                }
            }
            Fault::Prefer(node, failback) => {
                self.operator.prefer(node, *failback);
                self.operator.apply(None, 8);
            }
            Fault::DeleteLease(node) => self.operator.delete_lease(node),
            Fault::Hypervisor(node, fault) => self.hosts.set_fault(node, *fault),
            Fault::StartsFail(node, on) => {
                self.hosts.set_start_failure(node, on.then(|| "no memory for it".to_owned()));
            }
            Fault::ImageLocked(length) => self.hosts.leave_image_locked(Instant::now() + *length),
            Fault::BridgeMissing(node) => {
                self.node(node).machine.host.set_bridge(BRIDGE, Observed::Known(BridgeFact::Missing));
            }
            Fault::HostRepaired(node) => self.node(node).machine.host.repair(),
            Fault::Lossy(on) => {
                net().lossy = *on;
                if *on {
                    check::lock(&self.checker).validity.lossy();
                }
            }
            Fault::Lost { power, otherwise } => self.lose(*power, otherwise),
        }
        check::lock(&self.checker).check();
    }

    /// Whom the record names now; to be mended with all others that were asked for.
    fn owner(&mut self) -> Option<NodeName> {
        let owner = check::lock(&self.checker).owner()?;
        self.note(format_args!("! {owner} is the owner"));
        self.owners.push(owner.clone());
        Some(owner)
    }

    fn lose_power(&mut self, node: &NodeName) {
        self.trouble(node, "power", true);
        let checker = Arc::clone(&self.checker);
        let mut checker = check::lock(&checker);
        let machine = self.node(node);
        checker.excusing([node.clone()], |_| machine.lose_power());
        checker.validity.void(node);
    }

    fn cut(&self, node: &NodeName, cut: bool) {
        self.net.lock().unwrap_or_else(PoisonError::into_inner).cut(node, cut);
        self.trouble(node, "cut", cut);
    }

    fn slow(&self, node: &NodeName, slow: bool) {
        self.net.lock().unwrap_or_else(PoisonError::into_inner).slow(node, slow);
        if slow {
            check::lock(&self.checker).validity.lossy();
        }
    }

    fn pause(&self, node: &NodeName, paused: bool) {
        self.net.lock().unwrap_or_else(PoisonError::into_inner).pause(node, paused);
        self.trouble(node, "paused", paused);
    }

    fn store_down(&self, down: bool) {
        self.net.lock().unwrap_or_else(PoisonError::into_inner).down = down;
        for node in self.nodes.keys() {
            self.trouble(node, "store", down);
        }
    }

    fn lose(&mut self, power: bool, otherwise: &NodeName) {
        let owner = check::lock(&self.checker).host().unwrap_or_else(|| otherwise.clone());
        self.note(format_args!("! {owner} is lost"));
        if power {
            self.lose_power(&owner);
        } else {
            self.cut(&owner, true);
        }
        self.lost = Some(owner);
    }

    fn trouble(&self, node: &NodeName, trouble: &'static str, on: bool) {
        check::lock(&self.checker).validity.troubled(node, trouble, on);
    }

    fn node(&mut self, name: &NodeName) -> &mut SimNode {
        match self.nodes.get_mut(name) {
            Some(node) => node,
            None => panic!("the schedule names {name}, which is no node"),
        }
    }

    fn on_every_host(&self, act: impl Fn(&SimulatedHosts, &NodeName)) {
        let nodes: Vec<_> = self.nodes.keys().cloned().collect();
        check::lock(&self.checker).excusing(nodes.clone(), |hosts| {
            for node in &nodes {
                act(hosts, node);
            }
        });
    }
}

/// Some hosts are quick, some are slow.
fn delays(rng: &mut SmallRng) -> Delays {
    let (call, start) = if rng.random_bool(0.5) { (4, 30) } else { (20, 500) };
    let mut upto = |most: u64| Duration::from_millis(rng.random_range(1..most));
    Delays { call: upto(call), start: upto(start), guest_shutdown: Some(upto(4_000)), ..Delays::default() }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
