//! The judge: looks at the processes and the store from outside, and at no word or reckoning of ours. It is asked at
//! every change of a process and at every write, so that nothing between two looks is missed.
//!
//! - I1: at most one copy executes.
//! - I2: a copy executes only with its node's lease valid (`validity`), its node and epoch named as owner, unfenced.
//! - R1 to R4: what is begun, ended and written has a reason, and the reason is so (`reasons`).
//! - I3: a copy that executes goes on doing so, unless its node's lease lapsed, and for a reason; or it was killed,
//!   lost power or was powered off; or an operator asked for the stop.

mod rules;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::records::{Intent, LeaseRecord, LeaseState, VmRecord};
use zsha_crds::{ClusterName, Keys, NodeName};
use zsha_runtime::store::{MemoryStore, Op};

use super::by_hand::ByHand;
use super::cached::Cached;
use super::reasons::Reasons;
use super::validity::Validity;
use crate::hypervisor::simulated::SimulatedHosts;
use crate::keeper::watchdog::simulated::SimulatedDevice;

/// After a restore, until every node has seen it, and whoever is entitled has written itself down again; or, cut off
/// before it could, has outlived the longest F and K that are drawn.
const UNSETTLED: Duration = Duration::from_secs(30);

/// K of a node whose lease nobody knows: the shortest.
const KILL: Duration = Duration::from_millis(500);

/// A process that executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Executing {
    process: u64,
    /// Whether a stop was in force at any time since it began.
    stop_asked: bool,
    /// Whether it executed by a valid lease when a snapshot was last restored.
    held: bool,
}

#[derive(Debug)]
pub struct Checker {
    start: Instant,
    store: MemoryStore,
    hosts: Arc<SimulatedHosts>,
    vm: Cached<VmRecord>,
    power: Cached<Intent>,
    keys: Keys,
    leases: BTreeMap<NodeName, Cached<LeaseRecord>>,
    pub validity: Validity,
    pub reasons: Reasons,
    pub violations: Vec<String>,
    doubles: usize,
    stale: usize,
    /// Until when the store may not say yet who owns what: a snapshot was restored.
    unsettled_until: Option<Instant>,
    /// Whether a node ever had to put a record in the place of another's lease.
    lost: bool,
    /// Writes of the ownership record that were done, and those that lost their race.
    written: (u64, u64),
    /// What executed at the last look.
    executing: BTreeMap<NodeName, Executing>,
    /// What executed on a host when it was suspended.
    asleep: BTreeMap<NodeName, Executing>,
    /// Nodes whose whole host was ever suspended, and whenever they woke.
    slept: BTreeSet<NodeName>,
    woke: BTreeMap<NodeName, Vec<Instant>>,
    watchdogs: BTreeMap<NodeName, Arc<SimulatedDevice>>,
    /// Copies in uninterruptible sleep, without a watchdog, beside which another executed. No promise covers them.
    stuck: BTreeSet<u64>,
    /// Nodes on which a copy may end at this moment.
    excused: BTreeSet<NodeName>,
    /// What somebody has made execute by hand, past zsha.
    pub by_hand: ByHand,
    /// Nodes that do not reach the VM's disk: what executes there may be ended.
    pub without_disk: BTreeSet<NodeName>,
    /// Nodes whose hosts shut down: a guest there ends with them.
    pub going_down: BTreeSet<NodeName>,
    /// Every fault, every change of the ownership record and of who executes, by virtual time.
    pub log: String,
}

pub fn lock(checker: &Mutex<Checker>) -> MutexGuard<'_, Checker> {
    checker.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Checker {
    pub fn new(
        start: Instant,
        store: MemoryStore,
        hosts: Arc<SimulatedHosts>,
        cluster: &ClusterName,
    ) -> Self {
        let keys = Keys::new(cluster);
        Self {
            start,
            store,
            hosts,
            vm: Cached::new(keys.vm(&keys.vm_id().name)),
            power: Cached::new(keys.intent("power")),
            keys,
            leases: BTreeMap::new(),
            validity: Validity::default(),
            reasons: Reasons::default(),
            violations: Vec::new(),
            doubles: 0,
            stale: 0,
            unsettled_until: None,
            lost: false,
            written: (0, 0),
            executing: BTreeMap::new(),
            asleep: BTreeMap::new(),
            slept: BTreeSet::new(),
            woke: BTreeMap::new(),
            watchdogs: BTreeMap::new(),
            stuck: BTreeSet::new(),
            excused: BTreeSet::new(),
            by_hand: ByHand::default(),
            without_disk: BTreeSet::new(),
            going_down: BTreeSet::new(),
            log: String::new(),
        }
    }

    pub fn know(&mut self, keys: &Keys, node: &NodeName, clock: zsha_runtime::Clock) {
        self.leases.insert(node.clone(), Cached::new(keys.lease(node)));
        self.validity.know(node.clone(), clock);
    }

    pub fn note(&mut self, line: fmt::Arguments<'_>) {
        let at = self.start.elapsed().as_secs_f64();
        // Writing to a string cannot fail.
        let _ = writeln!(self.log, "{at:9.3} {line}");
    }

    /// A snapshot is about to be restored: for a while the records are of another time.
    pub fn restoring(&mut self) {
        self.check();
        for (node, it) in &mut self.executing {
            it.held = self.validity.grant(node).is_some_and(|grant| self.validity.now(node) < grant.until());
        }
        self.reasons.restoring(self.leases.keys());
        self.unsettled_until = Some(Instant::now() + UNSETTLED);
    }

    /// It has only now become possible to write anything again.
    pub fn reached_again(&mut self) {
        if self.is_unsettled() {
            self.unsettled_until = Some(Instant::now() + UNSETTLED);
        }
    }

    /// Whether a snapshot was restored in this run.
    pub const fn was_restored(&self) -> bool {
        self.unsettled_until.is_some()
    }

    fn is_unsettled(&self) -> bool {
        self.unsettled_until.is_some_and(|until| Instant::now() < until)
    }

    /// Does what ends copies on these nodes, and does not hold their end against anybody.
    pub fn excusing(&mut self, nodes: impl IntoIterator<Item = NodeName>, act: impl FnOnce(&SimulatedHosts)) {
        self.check();
        self.excused.extend(nodes);
        let hosts = Arc::clone(&self.hosts);
        act(&hosts);
        self.check();
        self.excused.clear();
    }

    /// All that must hold now.
    pub fn check(&mut self) {
        self.refresh();
        self.check_what_hosts_saw();
        let copies = self.hosts.copies();
        self.check_stuck(&copies);
        let mut reasons = std::mem::take(&mut self.reasons);
        let at = Instant::now();
        let excused = |node: &NodeName| self.has_just_woken(node) || self.by_hand.excuses(node, at);
        let begun = reasons.begun((&copies, &self.validity), excused);
        self.violations.extend(begun);
        self.reasons = reasons;
        let now: BTreeMap<NodeName, u64> =
            copies.into_iter().filter(|copy| copy.executing).map(|copy| (copy.node, copy.process)).collect();
        let before = std::mem::take(&mut self.executing);
        let mut changed = false;
        for (node, it) in &before {
            if now.get(node) != Some(&it.process) {
                changed = true;
                if !self.by_hand.ended_by_it(it.process) {
                    self.too_late(node);
                    self.harmed(node, *it);
                }
            }
        }
        for (node, process) in &now {
            let known = before.get(node).filter(|it| it.process == *process);
            changed |= known.is_none();
            self.by_hand.seen(node, *process, self.validity.grant(node), now.len() > 1);
            if !self.by_hand.excuses(node, Instant::now()) {
                self.may_execute(node, known.is_some());
            }
            let stop_asked = self.stop_in_force() || known.is_some_and(|it| it.stop_asked);
            let held = known.is_some_and(|it| it.held);
            self.executing.insert(node.clone(), Executing { process: *process, stop_asked, held });
        }
        let counts = |node: &&NodeName| !self.has_just_woken(node) && !self.by_hand.excuses(node, at);
        let awake: Vec<_> = now.keys().filter(counts).collect();
        if let [first, second, ..] = awake.as_slice() {
            self.violations.push(format!("I1: {first} and {second} execute the VM at once"));
        }
        if changed {
            self.note(format_args!("executing: {now:?}"));
        }
    }

    /// A node's transaction was done, or was not as something had changed.
    pub fn asked_for(&mut self, ops: &[Op], committed: bool) {
        let ownership = self.keys.vm(&self.keys.vm_id().name);
        if ops.iter().any(|op| matches!(op, Op::Cas { key, .. } if *key == ownership)) {
            self.written.0 += u64::from(committed);
            self.written.1 += u64::from(!committed);
        }
    }

    pub fn watched_by(&mut self, node: &NodeName, device: Arc<SimulatedDevice>) {
        self.watchdogs.insert(node.clone(), device);
    }

    /// The host is suspended as a whole, and with it what executes there.
    pub fn suspend(&mut self, node: &NodeName) {
        self.check();
        if let Some(it) = self.executing.remove(node) {
            self.asleep.insert(node.clone(), it);
        }
        self.slept.insert(node.clone());
        self.hosts.suspend(node);
        self.check();
    }

    /// It wakes. What executed there does so again before anybody can kill it: that is not promised away.
    pub fn wake(&mut self, node: &NodeName) {
        self.woke.entry(node.clone()).or_default().push(Instant::now());
        self.hosts.wake(node);
        let copies = self.hosts.copies_on(node);
        if let Some(it) = self.asleep.remove(node)
            && copies.iter().any(|copy| copy.process == it.process && copy.executing)
        {
            self.executing.insert(node.clone(), it);
        }
        self.check();
    }

    /// For K after the whole host woke.
    fn has_just_woken(&self, node: &NodeName) -> bool {
        self.had_just_woken(node, Instant::now())
    }

    fn had_just_woken(&self, node: &NodeName, at: Instant) -> bool {
        let kill = self.validity.grant(node).map_or(KILL, |grant| grant.kill);
        self.woke.get(node).is_some_and(|woke| woke.iter().any(|woke| (*woke..=*woke + kill).contains(&at)))
    }

    fn refresh(&mut self) {
        self.power.refresh(&self.store);
        for lease in self.leases.values_mut() {
            if lease.refresh(&self.store).is_some() {
                self.lost |= lease.value.as_ref().is_some_and(|lease| lease.state == LeaseState::Lost);
            }
        }
        if let Some(before) = self.vm.refresh(&self.store) {
            if !self.is_unsettled() {
                let mut copies = self.hosts.copies();
                copies.retain(|copy| !self.by_hand.is_new(copy.process));
                let after = self.vm.value.as_ref();
                let recorded = self.reasons.recorded(before.as_ref(), after, (&copies, &self.validity));
                self.violations.extend(recorded);
            }
            let line = match &self.vm.value {
                Some(record) => format!("record: {:?} {:?} {}", record.owner, record.phase, record.note),
                None => "record: gone".to_owned(),
            };
            self.note(format_args!("{line}"));
        }
    }

    fn stop_in_force(&self) -> bool {
        matches!(self.power.value, Some(Intent::Stop { .. }))
    }

    /// A lease was written over while nobody lived who could write it anew: whoever begins there waits for the longest D.
    pub const fn loses_a_lease(&mut self) {
        self.lost = true;
    }

    /// The guest is about to be moved from there by hand: its process will end, or go on.
    pub fn moved_by_hand(&mut self, from: &NodeName) {
        if let Some(it) = self.executing.get(from) {
            self.by_hand.leaves(it.process);
        }
    }
}
