//! The judge. It looks at the processes and the store from outside, and believes no word or reckoning of zsha's. It
//! looks at every change of a process and at every write, so that it misses nothing in between.
//!
//! - I1: at most one copy executes.
//! - I2: a copy executes only while its node's lease is valid (`validity`), unfenced, and its node and epoch are named
//!   as owner.
//! - R1 to R4: what is begun, ended and written has a reason, and the reason is true (`reasons`).
//! - I3: a copy that executes goes on, unless its node's lease lapsed for a reason, it was killed, it lost power or was
//!   powered off, or an operator asked for the stop.

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

/// The time after a restore in which the records may be of another time: until every node has seen the restore and
/// whoever is entitled has written itself down again, or, cut off before it could, has outlived the longest F and K
/// that are drawn.
const UNSETTLED: Duration = Duration::from_secs(30);

/// The K of a node whose lease nobody knows: the shortest.
const KILL: Duration = Duration::from_millis(500);

/// A process that executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Executing {
    process: u64,
    /// True if a stop was in force at any time since the process began.
    stop_asked: bool,
    /// True if the process executed by a valid lease when a snapshot was last restored.
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
    /// The time until which the store may not say yet who owns what, since a snapshot was restored.
    unsettled_until: Option<Instant>,
    /// True if a node ever had to put a record in the place of another's lease.
    lost: bool,
    /// The number of writes of the ownership record that were done, and of those that lost their race.
    written: (u64, u64),
    /// The processes that executed at the last look.
    executing: BTreeMap<NodeName, Executing>,
    /// The processes that executed on a host when it was suspended.
    asleep: BTreeMap<NodeName, Executing>,
    /// The nodes whose whole host was ever suspended, and the times at which they woke.
    slept: BTreeSet<NodeName>,
    woke: BTreeMap<NodeName, Vec<Instant>>,
    watchdogs: BTreeMap<NodeName, Arc<SimulatedDevice>>,
    /// The copies in uninterruptible sleep, without a watchdog, beside which another executed. No promise covers them.
    stuck: BTreeSet<u64>,
    /// The nodes on which a copy may end at this moment.
    excused: BTreeSet<NodeName>,
    /// The copies that somebody has made execute by hand, past zsha.
    pub by_hand: ByHand,
    /// The nodes that do not reach the VM's disk: a copy that executes there may be ended.
    pub without_disk: BTreeSet<NodeName>,
    /// The nodes whose hosts shut down: a guest there ends with its host.
    pub going_down: BTreeSet<NodeName>,
    /// The log of every fault, of every change of the ownership record and of every change of who executes, by virtual
    /// time.
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
            vm: Cached::new(keys.kept_vm()),
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

    /// The store has only now become writable again, so that the time to settle begins here.
    pub fn reached_again(&mut self) {
        if self.is_unsettled() {
            self.unsettled_until = Some(Instant::now() + UNSETTLED);
        }
    }

    /// True if a snapshot was restored in this run.
    pub const fn was_restored(&self) -> bool {
        self.unsettled_until.is_some()
    }

    fn is_unsettled(&self) -> bool {
        self.unsettled_until.is_some_and(|until| Instant::now() < until)
    }

    /// Runs `act`, which ends copies on these nodes, and holds their end against nobody.
    pub fn excusing(&mut self, nodes: impl IntoIterator<Item = NodeName>, act: impl FnOnce(&SimulatedHosts)) {
        self.check();
        self.excused.extend(nodes);
        let hosts = Arc::clone(&self.hosts);
        act(&hosts);
        self.check();
        self.excused.clear();
    }

    /// Checks all that must hold now.
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

    /// A node's transaction was done, or was refused since something had changed.
    pub fn asked_for(&mut self, ops: &[Op], committed: bool) {
        let ownership = self.keys.kept_vm();
        if ops.iter().any(|op| matches!(op, Op::Cas { key, .. } if *key == ownership)) {
            self.written.0 += u64::from(committed);
            self.written.1 += u64::from(!committed);
        }
    }

    pub fn watched_by(&mut self, node: &NodeName, device: Arc<SimulatedDevice>) {
        self.watchdogs.insert(node.clone(), device);
    }

    /// The host is suspended as a whole, and with it the copy that executes there.
    pub fn suspend(&mut self, node: &NodeName) {
        self.check();
        if let Some(it) = self.executing.remove(node) {
            self.asleep.insert(node.clone(), it);
        }
        self.slept.insert(node.clone());
        self.hosts.suspend(node);
        self.check();
    }

    /// The host wakes. A copy that executed there executes again before anybody can kill it; that is checked like any
    /// other.
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

    /// True for K after the whole host woke.
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

    /// A lease was written over while nobody lived who could write it anew. Whoever begins there waits for the longest
    /// D.
    pub const fn loses_a_lease(&mut self) {
        self.lost = true;
    }

    /// The guest is about to be moved away from there by hand, so that its process will end, or go on.
    pub fn moved_by_hand(&mut self, from: &NodeName) {
        if let Some(it) = self.executing.get(from) {
            self.by_hand.leaves(it.process);
        }
    }
}
