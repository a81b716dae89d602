//! The judge. It looks at the processes and the store from outside, and believes no word or reckoning of zsha's. It
//! looks at every change of a process and at every write, so that it misses nothing in between.
//!
//! - I1: at most one copy executes.
//! - I2: a copy executes only while its node's lease is valid (`validity`), unfenced, and its node and epoch are named
//!   as owner.
//! - R1 to R4: what is begun, ended and written has a reason, and the reason is true (`reasons`).
//! - I3: a copy that executes goes on, unless its node's lease lapsed for a reason, it was killed, it lost power or was
//!   powered off, or an operator asked for the stop.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::records::{
    Departed, EventRecord, Intent, LeaseRecord, LeaseState, NodeStatus, VmPhase, VmRecord,
};
use zsha_crds::{ClusterName, Keys, NodeName, VmName};
use zsha_runtime::store::{MemoryStore, Op};

use super::by_hand::ByHand;
use super::cached::Cached;
use super::reasons::{self, Reasons};
use super::validity::Validity;
use crate::hypervisor::simulated::{Copy, SimulatedHosts, StaleResume};
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
            vm: Cached::new(keys.vm(&VmName::management())),
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

    /// Checks what the hosts have noted since the last look: two copies that executed at once, and a guest that was let
    /// run although its memory was older than its disk.
    fn check_what_hosts_saw(&mut self) {
        for double in self.hosts.double_executions().iter().skip(self.doubles) {
            self.doubles += 1;
            let [first, second] = [&double.first, &double.second];
            if [first, second]
                .into_iter()
                .any(|node| self.has_just_woken(node) || self.by_hand.excuses(node, double.at))
            {
                continue;
            }
            self.violations
                .push(format!("I1: {} and {} executed the VM at once", double.first, double.second));
        }
        for StaleResume { node, newer } in self.hosts.stale_resumes().iter().skip(self.stale) {
            self.stale += 1;
            // The promise does not cover a copy that a host executes for K after it was suspended.
            if newer.iter().all(|(other, until)| {
                self.had_just_woken(other, *until) || self.by_hand.excused(other, *until)
            }) {
                self.note(format_args!("excused: {node} resumes what is older than a host that woke, or than what was made to run by hand"));
                continue;
            }
            self.violations.push(format!("I1: {node} let a guest run whose memory is older than its disk"));
        }
    }

    /// Checks copies that were killed in uninterruptible sleep. Such a copy executes nothing, but what it was writing
    /// may land for as long as it is there. Where a watchdog is petted, the host is reset before another may execute.
    /// No promise covers a copy without a watchdog, nor one whose host was suspended, and its watchdog with it.
    fn check_stuck(&mut self, copies: &[Copy]) {
        for stuck in copies.iter().filter(|copy| copy.may_write && !self.by_hand.is(copy.process)) {
            let other = copies
                .iter()
                .filter(|copy| copy.executing && copy.node != stuck.node && !self.has_just_woken(&copy.node))
                .find(|copy| !self.by_hand.excuses(&copy.node, Instant::now()));
            let Some(other) = other.filter(|_| self.stuck.insert(stuck.process)) else { continue };
            let guarded = self.watchdogs.get(&stuck.node).is_some_and(|device| device.is_armed());
            if guarded && !self.slept.contains(&stuck.node) {
                self.violations.push(format!(
                    "I1: {} executes the VM while a copy on {} that was killed may still write",
                    other.node, stuck.node
                ));
            }
        }
    }

    /// A node's transaction was done, or was refused since something had changed.
    pub fn asked_for(&mut self, ops: &[Op], committed: bool) {
        let ownership = self.keys.vm(&VmName::management());
        if ops.iter().any(|op| matches!(op, Op::Cas { key, .. } if *key == ownership)) {
            self.written.0 += u64::from(committed);
            self.written.1 += u64::from(!committed);
        }
    }

    /// The number of the nodes' writes of the ownership record, and of those that lost their race.
    pub fn ownership_writes(&self) -> (u64, u64) {
        self.written
    }

    /// The number of times that another copy executed while one that no watchdog stood behind was stuck.
    pub fn beside_stuck(&self) -> u64 {
        self.stuck.len() as u64
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

    /// Checks a copy that executes: one that begins to needs a valid lease there and then, one that has `already`
    /// executed must be dead K after its end.
    fn may_execute(&mut self, node: &NodeName, already: bool) {
        let now = self.validity.now(node);
        if self.has_just_woken(node) {
            return;
        }
        let Some(grant) = self.validity.grant(node) else {
            self.violations.push(format!("I2: {node} executes the VM without a lease"));
            return;
        };
        let until = grant.until();
        let epoch = grant.epoch;
        let grace = if already { grant.kill } else { Duration::ZERO };
        if now >= until && now > until + grace {
            self.violations
                .push(format!("I2: {node} executes the VM at {now:?} and its lease ended at {until:?}"));
        }
        if self.is_unsettled() {
            return;
        }
        let owner = self.vm.value.as_ref().and_then(|record| record.owner.as_ref());
        if !owner.is_some_and(|owner| owner.node == *node && owner.epoch == epoch) {
            let named =
                owner.map_or_else(|| "nobody".to_owned(), |owner| format!("{} {}", owner.node, owner.epoch));
            self.violations
                .push(format!("I2: {node} executes the VM in epoch {epoch}, and {named} is named"));
        }
        let lease = self.leases.get(node).and_then(|lease| lease.value.as_ref());
        let stands = |lease: &LeaseRecord| {
            // Whoever puts a record in the place of one that is gone may not know its epoch.
            match lease.state {
                LeaseState::Held => lease.epoch == epoch,
                LeaseState::Lost => lease.epoch <= epoch,
                LeaseState::Released | LeaseState::Fenced => false,
            }
        };
        if let Some(lease) = lease.filter(|lease| !stands(lease)) {
            let (state, other) = (lease.state, lease.epoch);
            self.violations.push(format!(
                "I2: {node} executes the VM in epoch {epoch}, and its lease is {state:?} in epoch {other}"
            ));
        }
    }

    /// A copy has ended now. That must not have been later than K after the end of the lease.
    fn too_late(&mut self, node: &NodeName) {
        let now = self.validity.now(node);
        let Some(grant) = self.validity.grant(node) else { return };
        if now > grant.until() + grant.kill && !self.has_just_woken(node) {
            let until = grant.until();
            self.violations
                .push(format!("I2: {node} executed the VM until {now:?} and its lease ended at {until:?}"));
        }
    }

    /// True if the owner's copy is being moved away from there: it stands still at the end of the move.
    fn is_moving_from(&self, node: &NodeName) -> bool {
        self.vm.value.as_ref().is_some_and(|record| {
            record.migration.as_ref().is_some_and(|migration| migration.to.node != *node)
                && record.owner.as_ref().is_some_and(|owner| owner.node == *node)
        })
    }

    /// A copy has ended now, or was paused: there must be a reason.
    fn harmed(&mut self, node: &NodeName, it: Executing) {
        let ending = reasons::ending(node);
        let for_its_disk = ending.as_deref().is_some_and(reasons::is_for_want_of_its_disk);
        if for_its_disk && !self.without_disk.contains(node) {
            self.violations.push(format!("R2: {node} ends the VM for want of its disk, which it reaches"));
        }
        // A copy that stands still may be moved by a migration of which the store does not tell any more.
        let is_gone = self.hosts.copies_on(node).iter().all(|copy| copy.process != it.process);
        let excused_by_restore = self.is_unsettled() && !(it.held && is_gone);
        if excused_by_restore
            || self.excused.contains(node)
            || self.without_disk.contains(node)
            || self.going_down.contains(node)
            || it.stop_asked
            || self.stop_in_force()
            || self.is_moving_from(node)
        {
            return;
        }
        let process = it.process;
        let Some(grant) = self.validity.grant(node) else { return };
        let until = grant.surely_until();
        if self.validity.now(node) < until && !self.validity.was_renewed_too_late(node) {
            self.violations.push(format!(
                "I3: process {process} on {node} no longer executes, and its lease was valid until {until:?} ({})",
                ending.unwrap_or_else(|| "its controller has not ended it".to_owned())
            ));
        } else if let Some(quiet) = self.validity.lapsed_in_vain(node) {
            self.violations.push(format!(
                "I3: process {process} on {node} was killed, and its lease could have been renewed for {quiet:?}"
            ));
        }
    }

    /// The process that executes, if all is as it should be in a cluster without faults. `lost`: the node that is not
    /// mended.
    pub fn settled(&mut self, lost: Option<&NodeName>) -> Result<u64, String> {
        self.check();
        let Some(record) = &self.vm.value else { return Err("there is no ownership record".to_owned()) };
        let mut executing = self.executing.iter();
        match (executing.next(), executing.next()) {
            (Some((node, it)), None) if record.phase == VmPhase::Running && Some(node) != lost => {
                let owner = record.owner.as_ref().map(|owner| &owner.node);
                if owner == Some(node) {
                    Ok(it.process)
                } else {
                    Err(format!("{node} runs it and {owner:?} owns it"))
                }
            }
            _ => Err(format!("{:?} executes, and the record says {record:?}", self.executing)),
        }
    }

    /// True if nothing runs, and nothing may be started before an operator has looked where the VM is. `lost` is the
    /// node that is not mended. The guest has died with that node if it still said that it had the guest whole; a
    /// process that it only counted may have been sent on.
    pub fn waits_for_an_operator(&self, lost: Option<&NodeName>) -> bool {
        let departed = self.vm.value.as_ref().and_then(|record| record.departed.as_ref());
        let had_it = |node: &NodeName| self.status_of(node).is_some_and(|status| status.runs_unnamed);
        let has_died = |departed: &Departed| {
            !departed.seen_on.is_empty()
                && departed.seen_on.iter().all(|node| Some(node) == lost && had_it(node))
        };
        self.executing.is_empty() && departed.is_some_and(|departed| !has_died(departed))
    }

    /// A lease was written over while nobody lived who could write it anew. Whoever begins there waits for the longest
    /// D.
    pub const fn loses_a_lease(&mut self) {
        self.lost = true;
    }

    /// True if a node had to put a record in the place of another's lease, which may have cost the longest D.
    pub fn a_lease_was_lost(&self) -> bool {
        self.lost
    }

    /// The guest is about to be moved away from there by hand, so that its process will end, or go on.
    pub fn moved_by_hand(&mut self, from: &NodeName) {
        if let Some(it) = self.executing.get(from) {
            self.by_hand.leaves(it.process);
        }
    }

    /// The status that the node last wrote, if it can be read.
    pub fn status_of(&self, node: &NodeName) -> Option<NodeStatus> {
        let status = self.store.read(&self.keys.node_status(node))?;
        serde_json::from_str(&status.value).ok()
    }

    /// The node that the record names as owner.
    pub fn owner(&self) -> Option<NodeName> {
        let record = self.vm.value.as_ref()?;
        record.owner.as_ref().map(|owner| owner.node.clone())
    }

    /// The node the VM executes on, and the process.
    pub fn executing(&self) -> Option<(NodeName, u64)> {
        self.executing.iter().next().map(|(node, it)| (node.clone(), it.process))
    }

    /// Logs the events that the nodes have written so far, in order.
    pub fn log_events(&mut self) {
        let listing = self.store.read_all(&self.keys.events());
        let mut events: Vec<EventRecord> =
            listing.entries.iter().filter_map(|entry| serde_json::from_str(&entry.value).ok()).collect();
        events.sort_by_key(|event| event.first_at);
        for event in events {
            let EventRecord { node, kind, reason, message, count, .. } = event;
            let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
            let _ = writeln!(self.log, "{node} {kind:?} {reason}: {message}{times}");
        }
    }

    /// The node the VM executes on.
    pub fn host(&self) -> Option<NodeName> {
        self.executing.keys().next().cloned()
    }
}
