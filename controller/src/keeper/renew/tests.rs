//! Tests the keeper's loop in virtual time: it renews, looks, and says what it knows.

use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::time::Instant;
use zsha_crds::records::{LeaseRecord, LeaseState};
use zsha_crds::{NodeName, VmId, VmName};
use zsha_runtime::lease::Memory;
use zsha_runtime::store::{Entry, Listing, MemoryStore, Op, Read, StoreError, Txn};

use super::*;
use crate::hypervisor::simulated::{Delays, SimulatedHosts, SimulatedHypervisor};
use crate::hypervisor::{DomainImage, DomainSpec, Hypervisor};
use crate::keeper::copies::{Copies, SimulatedCopies};
use crate::keeper::enforce::enforce_task;
use crate::keeper::{KeeperError, Lease};

mod looking;

pub(in crate::keeper) fn domain() -> DomainSpec {
    DomainSpec {
        name: VmName::management(),
        uuid: Uuid::from_u128(1),
        generation: 1,
        memory_mib: 512,
        vcpus: 1,
        image: DomainImage::qcow2("/share/mnvm.img"),
        nics: Vec::new(),
        guest: Default::default(),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// No request arrives, and none is answered.
    Silent,
    /// Writes happen, and their answers are lost.
    AnswersLost,
}

/// A store that fails as told. It keeps what arrived: when, and what the enforcing side would have obeyed then.
#[derive(Debug)]
struct Shaky {
    inner: MemoryStore,
    fault: Mutex<Fault>,
    arrived: Mutex<Vec<Arrived>>,
    enforcement: Arc<Enforcement>,
    clock: Clock,
}

#[derive(Debug, Clone)]
struct Arrived {
    at: Moment,
    record: LeaseRecord,
    deadline: Option<Moment>,
}

impl Shaky {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap()
    }

    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn arrived(&self) -> MutexGuard<'_, Vec<Arrived>> {
        self.arrived.lock().unwrap()
    }
}

#[async_trait]
impl Store for Shaky {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        match self.fault() {
            Fault::Silent => std::future::pending().await,
            Fault::None | Fault::AnswersLost => self.inner.get(key, read).await,
        }
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.inner.list(prefix, read).await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.inner.watch(prefix, after, wait).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        if self.fault() == Fault::Silent {
            return std::future::pending().await;
        }
        if let [Op::Cas { value, .. } | Op::Create { value, .. }] = ops.as_slice() {
            let record = serde_json::from_str(value).unwrap();
            let deadline = self.enforcement.deadline();
            self.arrived().push(Arrived { at: self.clock.now(), record, deadline });
        }
        let outcome = self.inner.txn(ops).await;
        match self.fault() {
            Fault::AnswersLost => std::future::pending().await,
            Fault::None | Fault::Silent => outcome,
        }
    }
}

/// One node with a keeper in virtual time.
struct Node {
    clock: Clock,
    store: Arc<Shaky>,
    hosts: Arc<SimulatedHosts>,
    hypervisor: SimulatedHypervisor,
    memory: Arc<Mutex<Option<Memory>>>,
    line: LocalLease,
    keeper: tokio::task::JoinHandle<()>,
}

const TIMINGS: LeaseTimings = LeaseTimings::BALANCED;

impl Node {
    fn new() -> Self {
        let clock = Clock::Tokio { start: Instant::now(), rate_ppm: 0 };
        let enforcement = Arc::new(Enforcement::default());
        let store = Arc::new(Shaky {
            inner: MemoryStore::new(),
            fault: Mutex::new(Fault::None),
            arrived: Mutex::default(),
            enforcement: Arc::clone(&enforcement),
            clock,
        });
        let hosts = SimulatedHosts::new(VmId { name: VmName::management(), uuid: domain().uuid });
        let hypervisor = hosts.hypervisor(&name());
        hosts.set_delays(&name(), Delays::NONE);
        let memory = Arc::default();
        let (line, keeper) = keeper(clock, &store, &hosts, &memory);
        Self { clock, store, hosts, hypervisor, memory, line, keeper }
    }

    async fn start_vm(&self) {
        self.line.expect(Expectation::Own).await.unwrap();
        self.start_past_zsha().await;
    }

    async fn start_past_zsha(&self) {
        self.hypervisor.start_paused(&domain()).await.unwrap();
        self.hypervisor.resume().await.unwrap();
    }

    fn copies(&self) -> usize {
        self.hosts.copies_on(&name()).len()
    }

    fn restart_keeper(&mut self) {
        self.keeper.abort();
        (self.line, self.keeper) = keeper(self.clock, &self.store, &self.hosts, &self.memory);
    }

    async fn valid(&self) -> bool {
        self.line.verdict().await.unwrap().valid(self.clock.now())
    }

    async fn until_valid(&self) {
        let mut changes = self.line.changes();
        while !self.valid().await {
            changes.changed().await.unwrap();
        }
    }

    async fn until_invalid(&self) {
        let mut changes = self.line.changes();
        while self.valid().await {
            changes.changed().await.unwrap();
        }
    }

    fn last(&self) -> Arrived {
        self.store.arrived().last().unwrap().clone()
    }
}

/// A whole keeper in this process: the loop and its enforcement, which live and die with the future.
fn in_process(
    settings: RenewSettings,
    copies: Arc<dyn Copies>,
) -> (LocalLease, impl Future<Output = ()> + Send + 'static) {
    let enforcing = enforce_task(settings.clock, Arc::clone(&settings.enforcement), copies);
    let (renewal, line) = new(settings);
    let both = async move {
        tokio::select! {
            biased;
            () = enforcing => {}
            () = renewal.run() => {}
        }
    };
    (line, both)
}

fn name() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn keeper(
    clock: Clock,
    store: &Arc<Shaky>,
    hosts: &Arc<SimulatedHosts>,
    memory: &Arc<Mutex<Option<Memory>>>,
) -> (LocalLease, tokio::task::JoinHandle<()>) {
    let copies: Arc<dyn Copies> = Arc::new(SimulatedCopies::new(Arc::clone(hosts), name()));
    let mut lives = 0;
    let settings = RenewSettings {
        identity: Identity {
            vm: VmName::management(),
            cluster: zsha_crds::ClusterName::new("c").unwrap(),
            node: name(),
            key: "zsha/c/leases/n1".to_owned(),
            machine_id: "machine".to_owned(),
            boot_id: "boot".to_owned(),
        },
        timings: TIMINGS,
        clock,
        may_be_paused: false,
        store: Arc::clone(store) as Arc<dyn Store>,
        looking: Looking::Inline(Arc::clone(&copies)),
        enforcement: Arc::clone(&store.enforcement),
        notebook: Notebook::Shared(Arc::clone(memory)),
        watchdog: Watchdog::none(),
        incarnations: Box::new(move || {
            lives += 1;
            Uuid::from_u128(lives)
        }),
    };
    let (line, run) = in_process(settings, copies);
    (line, tokio::spawn(run))
}

/// A keeper for tests that need nothing of what is around it.
pub(in crate::keeper) fn keeper_on_memory_store(
    clock: Clock,
    notebook: Notebook,
) -> (LocalLease, impl Future<Output = ()> + Send) {
    let hosts = SimulatedHosts::new(VmId { name: VmName::management(), uuid: domain().uuid });
    hosts.hypervisor(&name());
    let copies: Arc<dyn Copies> = Arc::new(SimulatedCopies::new(hosts, name()));
    let settings = RenewSettings {
        identity: Identity {
            vm: VmName::management(),
            cluster: zsha_crds::ClusterName::new("c").unwrap(),
            node: name(),
            key: "zsha/c/leases/n1".to_owned(),
            machine_id: "machine".to_owned(),
            boot_id: "boot".to_owned(),
        },
        timings: TIMINGS,
        clock,
        may_be_paused: false,
        store: Arc::new(MemoryStore::new()),
        looking: Looking::Inline(Arc::clone(&copies)),
        enforcement: Arc::new(Enforcement::default()),
        notebook,
        watchdog: Watchdog::none(),
        incarnations: Box::new(Uuid::new_v4),
    };
    in_process(settings, copies)
}

async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_renewed_every_r_and_its_deadline_is_f_after_sending() {
    let node = Node::new();
    pass(Duration::from_secs(20)).await;
    let arrived = node.store.arrived().clone();
    assert!((20..=21).contains(&arrived.len()), "{} renewals", arrived.len());
    for two in arrived.windows(2) {
        assert_eq!(two[1].at.since(two[0].at), TIMINGS.renew());
        assert_eq!(two[1].record.seq, two[0].record.seq + 1);
        assert_eq!(two[1].deadline, Some(two[0].at + TIMINGS.ttl()));
    }
    let verdict = node.line.verdict().await.unwrap();
    assert_eq!(verdict.epoch, arrived[0].record.epoch);
    assert_eq!((verdict.copies, verdict.message.as_str()), (Some(0), "renewed"));
}

#[tokio::test(start_paused = true)]
async fn when_the_store_falls_silent_the_copy_dies_at_the_deadline_and_not_before() {
    let node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    pass(Duration::from_secs(5)).await;
    node.store.set(Fault::Silent);
    let deadline = node.last().at + TIMINGS.ttl();
    node.clock.sleep_until(deadline - Duration::from_millis(2)).await;
    assert_eq!(node.copies(), 1);
    node.clock.sleep_until(deadline + Duration::from_millis(2)).await;
    assert_eq!(node.copies(), 0);
    assert!(!node.valid().await);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_nobody_has_said_to_be_there_is_ended_though_the_lease_is_valid() {
    let node = Node::new();
    node.until_valid().await;
    assert_eq!(node.line.verdict().await.unwrap().expects, Some(Expectation::Nothing));
    for count in 1..=2 {
        node.start_past_zsha().await;
        pass(TIMINGS.renew() + Duration::from_millis(1)).await;
        let verdict = node.line.verdict().await.unwrap();
        assert!(node.copies() == 0 && node.valid().await, "within R, and the lease goes on: {verdict:?}");
        assert_eq!((verdict.unexpected.unwrap().count, verdict.ended), (count, None));
        pass(Duration::from_secs(1)).await;
    }
    node.start_vm().await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(node.copies(), 1, "it was said to be there");
    node.line.expect(Expectation::Nothing).await.unwrap();
    pass(TIMINGS.renew() + Duration::from_millis(1)).await;
    assert_eq!(node.copies(), 0, "and then that there is none");
}

#[tokio::test(start_paused = true)]
async fn what_is_expected_outlives_the_keeper_and_not_the_life_of_the_lease() {
    let mut node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    pass(Duration::from_secs(2)).await;
    node.restart_keeper();
    pass(Duration::from_secs(5)).await;
    assert_eq!((node.copies(), node.line.verdict().await.unwrap().expects), (1, Some(Expectation::Own)));
    node.store.set(Fault::Silent);
    node.until_invalid().await;
    pass(TIMINGS.kill()).await;
    node.store.set(Fault::None);
    node.until_valid().await;
    assert_eq!(node.line.verdict().await.unwrap().expects, Some(Expectation::Nothing), "of a new life");
    node.start_past_zsha().await;
    pass(TIMINGS.renew() + Duration::from_millis(1)).await;
    assert_eq!(node.copies(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_memory_from_before_this_was_kept_ends_nothing() {
    let mut node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    pass(Duration::from_secs(2)).await;
    node.keeper.abort();
    if let Some(memory) = node.memory.lock().unwrap().as_mut() {
        memory.expected = None;
    }
    node.restart_keeper();
    pass(Duration::from_secs(5)).await;
    assert_eq!((node.copies(), node.line.verdict().await.unwrap().expects), (1, Some(Expectation::Unsaid)));
}

#[tokio::test(start_paused = true)]
async fn the_verdict_tells_how_many_copies_the_keeper_has_ended_and_when_the_last() {
    let node = Node::new();
    node.until_valid().await;
    assert_eq!(node.line.verdict().await.unwrap().ended, None);
    for count in 1..=2 {
        node.start_vm().await;
        node.store.set(Fault::Silent);
        let deadline = node.store.enforcement.deadline().unwrap();
        node.clock.sleep_until(deadline + Duration::from_millis(2)).await;
        let ended = node.line.verdict().await.unwrap().ended.unwrap();
        assert!(ended.count == count && ended.at >= deadline, "{ended:?}");
        node.store.set(Fault::None);
        node.until_valid().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_appears_while_the_lease_is_not_valid_dies_too() {
    let node = Node::new();
    node.until_valid().await;
    node.store.set(Fault::Silent);
    node.until_invalid().await;
    pass(Duration::from_secs(60)).await;
    node.start_vm().await;
    assert_eq!(node.copies(), 1);
    pass(TIMINGS.kill()).await;
    assert_eq!(node.copies(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_the_store_comes_back_in_time_nothing_was_touched() {
    let node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    let mut changes = node.line.changes();
    for late in 1..=5 {
        node.store.set(Fault::Silent);
        pass(Duration::from_secs(4)).await;
        assert!(!changes.has_changed().unwrap(), "nothing worth waking anybody for has happened");
        node.store.set(Fault::None);
        pass(Duration::from_secs(4)).await;
        assert!(changes.has_changed().unwrap(), "the lease was in danger");
        changes.mark_unchanged();
        assert_eq!(node.line.verdict().await.unwrap().late.unwrap().count, late);
    }
    assert_eq!(node.copies(), 1);
}

#[tokio::test(start_paused = true)]
async fn when_the_store_comes_back_late_a_new_life_begins_and_is_said_so() {
    let node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    let before = node.last().record.epoch;
    node.store.set(Fault::Silent);
    node.until_invalid().await;
    pass(Duration::from_secs(30)).await;
    node.store.set(Fault::None);
    node.until_valid().await;
    assert_eq!(node.copies(), 0);
    assert!(node.line.verdict().await.unwrap().epoch > before, "a life ends with its deadline");
}

#[tokio::test(start_paused = true)]
async fn lost_answers_extend_nothing() {
    let node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    node.store.set(Fault::AnswersLost);
    let deadline = node.store.enforcement.deadline().unwrap();
    let before = node.store.arrived().len();
    node.clock.sleep_until(deadline + Duration::from_millis(2)).await;
    assert!(node.store.arrived().len() > before, "the writes did arrive");
    assert_eq!(node.copies(), 0);
    node.store.set(Fault::None);
    node.until_valid().await;
}

#[tokio::test(start_paused = true)]
async fn a_shorter_deadline_is_obeyed_before_the_write_that_announces_it_arrives() {
    let node = Node::new();
    node.until_valid().await;
    pass(Duration::from_millis(500)).await;
    let last_sent = node.last().at;
    node.line.set_timings(LeaseTimings::FAST).await.unwrap();
    pass(Duration::from_millis(1)).await;
    let announced = node.last();
    assert_eq!(announced.record.timings, LeaseTimings::FAST);
    assert_eq!(announced.deadline, Some(last_sent + LeaseTimings::FAST.ttl()));
    let unsafe_timings = LeaseTimings { fence_after_millis: 1, ..LeaseTimings::FAST };
    assert!(matches!(node.line.set_timings(unsafe_timings).await, Err(KeeperError::Refused { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_keeper_started_anew_goes_on_with_the_same_life_and_touches_nothing() {
    let mut node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    let (old_line, changes) = (node.line.clone(), node.line.changes());
    let before = node.last().record.epoch;
    node.restart_keeper();
    assert!(node.valid().await, "the deadline it remembers still holds");
    pass(Duration::from_secs(20)).await;
    assert_eq!(node.copies(), 1);
    assert_eq!(node.last().record.epoch, before);
    assert!(changes.has_changed().unwrap(), "the line was lost");
    assert!(matches!(old_line.verdict().await, Err(KeeperError::Unreachable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_keeper_without_memory_kills_before_it_takes_a_new_lease() {
    let mut node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    let before = node.last().record.epoch;
    *node.memory.lock().unwrap() = None;
    node.store.enforcement.publish(None, TIMINGS.kill());
    node.restart_keeper();
    node.until_valid().await;
    assert_eq!(node.copies(), 0);
    assert!(node.last().record.epoch > before);
}

#[tokio::test(start_paused = true)]
async fn a_keeper_without_memory_lives_by_the_timings_of_its_own_record() {
    let mut node = Node::new();
    node.until_valid().await;
    node.line.set_timings(LeaseTimings::PATIENT).await.unwrap();
    pass(Duration::from_secs(3)).await;
    *node.memory.lock().unwrap() = None;
    node.restart_keeper();
    node.until_valid().await;
    assert_eq!(node.last().record.timings, LeaseTimings::PATIENT);
}

#[tokio::test(start_paused = true)]
async fn a_release_is_refused_while_a_copy_lives_and_final_when_none_does() {
    let node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    assert!(matches!(node.line.release().await, Err(KeeperError::Refused { .. })));
    assert!(node.valid().await);
    node.hypervisor.kill().await.unwrap();
    node.line.release().await.unwrap();
    assert!(!node.valid().await);
    let released = node.last();
    assert_eq!((released.record.state, released.deadline), (LeaseState::Released, None));
}

#[tokio::test(start_paused = true)]
async fn the_record_says_whether_the_controller_was_heard_of_lately() {
    let node = Node::new();
    node.until_valid().await;
    pass(TIMINGS.renew() * 2).await;
    assert!(node.last().record.controller_alive);
    pass(CONTROLLER_SILENCE + TIMINGS.renew()).await;
    assert!(!node.last().record.controller_alive);
    node.line.overheard();
    pass(TIMINGS.renew() * 2).await;
    assert!(!node.last().record.controller_alive);
    node.line.verdict().await.unwrap();
    pass(TIMINGS.renew() * 2).await;
    assert!(node.last().record.controller_alive);
}

/// Two clusters may share a host, and an operator may copy keys from one to the other.
#[tokio::test(start_paused = true)]
async fn the_lease_of_this_node_in_another_cluster_ends_nothing() {
    let node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    let own = node.store.inner.read("zsha/c/leases/n1").unwrap();
    let mine = node.last().record;
    let cluster = Some(zsha_crds::ClusterName::new("west").unwrap());
    let other =
        LeaseRecord { cluster, epoch: mine.epoch + 1, incarnation: Uuid::from_u128(5), ..mine.clone() };
    let value = serde_json::to_string(&other).unwrap();
    let copied = Op::Cas { key: own.key, value, index: own.modify_index };
    assert!(node.store.inner.apply(&[copied]).unwrap().committed());
    pass(TIMINGS.ttl() * 3).await;
    assert!(node.valid().await);
    assert_eq!((node.copies(), node.last().record.incarnation), (1, mine.incarnation));
}

#[tokio::test(start_paused = true)]
async fn a_fence_ends_the_life_and_kills_and_the_next_life_has_a_later_epoch() {
    let node = Node::new();
    node.until_valid().await;
    node.start_vm().await;
    let own = node.store.inner.read("zsha/c/leases/n1").unwrap();
    let record = node.last().record;
    let fenced = LeaseRecord {
        state: LeaseState::Fenced,
        epoch: record.epoch + 1,
        fenced_by: Some(NodeName::new("n2").unwrap()),
        ..record
    };
    let value = serde_json::to_string(&fenced).unwrap();
    let fence = Op::Cas { key: own.key, value, index: own.modify_index };
    assert!(node.store.inner.apply(&[fence]).unwrap().committed());
    node.until_invalid().await;
    node.until_valid().await;
    assert_eq!(node.copies(), 0);
    assert!(node.last().record.epoch > fenced.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_dead_keeper_cannot_be_reached() {
    let node = Node::new();
    node.until_valid().await;
    node.keeper.abort();
    pass(Duration::from_millis(1)).await;
    assert!(matches!(node.line.verdict().await, Err(KeeperError::Unreachable { .. })));
    assert!(matches!(node.line.release().await, Err(KeeperError::Unreachable { .. })));
}

#[tokio::test]
async fn a_closer_deadline_that_cannot_be_written_down_is_not_believed_by_anybody() {
    let directory = tempfile::tempdir().unwrap();
    let file = crate::keeper::StateFile::in_directory(directory.path());
    let mut notebook = Notebook::file(file.clone());
    let memory = |millis: Option<u64>| Memory {
        step_back: None,
        key: None,
        boot_id: "boot".to_owned(),
        incarnation: Uuid::from_u128(1),
        epoch: 1,
        seq: 1,
        deadline: millis.map(Moment::from_millis),
        timings: TIMINGS,
        fence: None,
        unbroken: None,
        expected: None,
        owned: None,
    };
    let contents = || file.read().unwrap();
    let path = |name: &str| directory.path().join(name);
    assert!(notebook.write(memory(Some(100))));
    // A directory where the next file would be written stands in for a full disk.
    std::fs::create_dir(path("keeper.json.next")).unwrap();
    assert!(notebook.write(memory(Some(50))));
    assert_eq!(contents(), Some(memory(Some(50))), "written over the old one");
    // A program that runs stands in for a file that cannot be written over either.
    std::fs::copy("/bin/sleep", path("sleep")).unwrap();
    let mut sleep = std::process::Command::new(path("sleep")).arg("60").spawn().unwrap();
    std::fs::rename(path("sleep"), path("keeper.json")).unwrap();
    assert!(notebook.write(memory(Some(70))), "what is left there ends earlier");
    assert!(file.exists() && notebook.trouble().is_some());
    assert!(notebook.write(memory(Some(40))));
    assert_eq!(contents(), None, "what could not be replaced was removed");
    sleep.kill().unwrap();
    sleep.wait().unwrap();
    std::fs::remove_dir(path("keeper.json.next")).unwrap();
    assert!(notebook.write(memory(Some(60))));
    assert_eq!(contents(), Some(memory(Some(60))));
    assert_eq!(notebook.trouble(), None);
}

#[tokio::test(start_paused = true)]
async fn a_state_file_that_cannot_be_written_shows_in_the_verdict_and_costs_no_lease() {
    let clock = Clock::Tokio { start: Instant::now(), rate_ppm: 0 };
    let file = crate::keeper::StateFile::in_directory(std::path::Path::new("/proc/nowhere"));
    let (line, run) = keeper_on_memory_store(clock, Notebook::file(file));
    let _keeper = tokio::spawn(run);
    pass(Duration::from_secs(30)).await;
    let verdict = line.verdict().await.unwrap();
    assert!(verdict.valid(clock.now()));
    assert!(
        verdict.message.starts_with("renewed; the keeper's state file cannot be written ("),
        "{}",
        verdict.message
    );
    assert_eq!(line.memory().unwrap().deadline, verdict.valid_until);
}

#[test]
fn of_the_file_and_what_was_handed_over_the_later_renewal_is_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let memory = |seq: u64, millis: u64| Memory {
        step_back: None,
        key: None,
        boot_id: "boot".to_owned(),
        incarnation: Uuid::from_u128(1),
        epoch: 1,
        seq,
        deadline: Some(Moment::from_millis(millis)),
        timings: TIMINGS,
        fence: None,
        unbroken: None,
        expected: None,
        owned: None,
    };
    let file = crate::keeper::StateFile::in_directory(directory.path());
    let read = |handed: Option<Memory>| Notebook::file_or(file.clone(), handed).read();
    assert_eq!(read(Some(memory(7, 70))), Some(memory(7, 70)), "no file");
    file.write(&memory(7, 90)).unwrap();
    assert_eq!(read(None), Some(memory(7, 90)));
    assert_eq!(read(Some(memory(7, 70))), Some(memory(7, 70)), "the deadline was taken back");
    assert_eq!(read(Some(memory(6, 100))), Some(memory(7, 90)));
}
