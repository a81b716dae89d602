//! One whole node in virtual time, and what becomes of the document under it.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use zsha_crds::records::{EventRecord, EventType, Intent, NodeStatus, StoredSpec, VmRecord};
use zsha_crds::{ConditionKind, ConditionStatus, VmId, VmName, condition};
use zsha_runtime::history::{self, Outcome};
use zsha_runtime::store::{MemoryStore, Op};

use super::*;
use crate::observed::Observed;
use crate::sim::operator::example;

mod nonsense;

/// The virtual time after which a test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct OneNode {
    store: MemoryStore,
    keys: Keys,
    machine: Machine,
    line: Arc<LocalLease>,
    controller: JoinHandle<()>,
    _beside: JoinSet<()>,
}

impl OneNode {
    /// A node with a document of 8 GiB in force, and the VM running by it.
    async fn running() -> Self {
        let (document, vm) = (example(), VmName::management());
        let (cluster, name) = (document.name().clone(), document.nodes()[0].name.clone());
        let hosts = SimulatedHosts::new(VmId::of(&cluster));
        let store = MemoryStore::new();
        let clock = Clock::Tokio { start: Instant::now(), rate_ppm: 0 };
        let shared = Arc::new(store.clone());
        let machine = Machine::new(cluster.clone(), name, clock, shared, Arc::clone(&hosts));
        let (line, keeper) = machine.keeper();
        let line = Arc::new(line);
        let mut beside = JoinSet::new();
        beside.spawn(keeper);
        beside.spawn(async move { hosts.run().await });
        let controller = start(&machine, &line);
        let node = Self { keys: Keys::new(&cluster), store, machine, line, controller, _beside: beside };
        node.put(node.keys.vm(&vm), json!(VmRecord::unplaced(VmId::of(&cluster))));
        node.put(node.keys.intent("power"), json!(Intent::None));
        node.apply(8);
        node.until(|node| node.machine.hosts.copies().len() == 1 && node.observes(1)).await;
        // Let run, and not only made.
        node.until(|node| node.machine.hosts.copies().iter().any(|copy| copy.executing)).await;
        node
    }

    fn put(&self, key: String, value: Value) {
        let value = value.to_string();
        let op = match self.store.index_of(&key) {
            Some(index) => Op::Cas { key, value, index },
            None => Op::Create { key, value },
        };
        assert!(self.store.apply(&[op]).unwrap().committed());
    }

    fn apply(&self, memory_gib: u32) {
        let mut document = serde_json::to_value(example()).unwrap();
        document["spec"]["MemorySizeInGB"] = memory_gib.into();
        self.apply_document(document);
    }

    /// Applies a document as `zsha apply` does it.
    fn apply_document(&self, document: Value) {
        let change = history::Change {
            format: zsha_crds::format::FIRST,
            document,
            applied_by: "admin@host".to_owned(),
            applied_at: jiff::Timestamp::UNIX_EPOCH,
            message: String::new(),
            command: "apply".to_owned(),
        };
        let observed = self.status().map_or(0, |status| status.observed_generation);
        let recorded = self.store.read_all(&self.keys.history()).entries;
        let stored = self.store.read(&self.keys.spec());
        match history::apply(&self.keys, stored.as_ref(), &recorded, observed, change, |a, b| a == b).unwrap()
        {
            Outcome::Write { ops, .. } => assert!(self.store.apply(&ops).unwrap().committed()),
            Outcome::Unchanged { generation } => panic!("generation {generation} is in force as it is"),
        }
    }

    /// Writes a document that no `zsha apply` would have written.
    fn spoil(&self, generation: u64) {
        let mut spec: StoredSpec =
            serde_json::from_str(&self.store.read(&self.keys.spec()).unwrap().value).unwrap();
        spec.generation = generation;
        spec.document["spec"]["CPU"] = "many".into();
        self.put(self.keys.spec(), json!(spec));
    }

    fn restart_controller(&mut self) {
        self.controller.abort();
        self.controller = start(&self.machine, &self.line);
    }

    fn status(&self) -> Option<NodeStatus> {
        let entry = self.store.read(&self.keys.node_status(&self.machine.name))?;
        Some(serde_json::from_str(&entry.value).unwrap())
    }

    /// The node's condition on the stored document: status, reason and message.
    fn spec_valid(&self) -> Option<(ConditionStatus, String, String)> {
        let status = self.status()?;
        let told = condition::find(&status.conditions, ConditionKind::SpecValid)?;
        Some((told.status, told.reason.clone(), told.message.clone()))
    }

    fn says(&self, reason: &str, part: &str) -> bool {
        self.spec_valid().is_some_and(|(_, said, message)| said == reason && message.contains(part))
    }

    /// The node acts on this generation and is fit.
    fn observes(&self, generation: u64) -> bool {
        self.status().is_some_and(|status| {
            status.observed_generation == generation
                && condition::find(&status.conditions, ConditionKind::Ready)
                    .is_some_and(|ready| ready.is_true())
        })
    }

    fn events(&self) -> Vec<EventRecord> {
        let entries = self.store.read_all(&self.keys.events()).entries;
        entries.iter().map(|entry| serde_json::from_str(&entry.value).unwrap()).collect()
    }

    fn happened(&self, kind: EventType, reason: &str) -> bool {
        let about = format!("cluster/{}", self.machine.cluster);
        self.events().iter().any(|it| it.kind == kind && it.reason == reason && it.regarding == about)
    }

    async fn until(&self, so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !so(self) {
                sleep(Duration::from_millis(100)).await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("{:#?}\n{:#?}", self.status(), self.events());
        }
    }
}

fn start(machine: &Machine, line: &Arc<LocalLease>) -> JoinHandle<()> {
    let line = Arc::clone(line) as Arc<dyn Lease>;
    tokio::spawn(machine.controller(line, None, Arc::new(Metrics::default()), std::future::pending()))
}

#[tokio::test(start_paused = true)]
async fn beside_a_bad_document_the_last_good_one_stays_in_force_also_for_a_controller_started_anew() {
    let mut node = OneNode::running().await;
    let before = node.machine.hosts.copies();
    assert!(node.says("Valid", ""), "{:?}", node.spec_valid());

    node.spoil(2);
    node.until(|node| node.says("Invalid", "Generation 1 stays in force") && node.observes(1)).await;
    node.until(|node| node.happened(EventType::Warning, "SpecInvalid")).await;
    assert!(node.says("Invalid", "`spec.CPU`"), "{:?}", node.spec_valid());

    node.restart_controller();
    node.until(|node| node.says("Invalid", "Generation 1, from the history, stays in force")).await;
    node.until(|node| node.observes(1)).await;
    assert_eq!(node.machine.hosts.copies(), before, "the very same process");

    node.apply(16);
    node.until(|node| node.says("Valid", "") && node.observes(3)).await;
    node.until(|node| node.happened(EventType::Normal, "SpecValid")).await;
}

#[tokio::test(start_paused = true)]
async fn a_document_from_a_restored_snapshot_is_not_acted_on_until_it_is_applied_again() {
    let node = OneNode::running().await;
    let snapshot = node.store.snapshot();
    node.apply(16);
    node.until(|node| node.observes(2)).await;

    node.store.restore(snapshot);
    node.until(|node| node.says("OlderGeneration", "generation 1") && node.observes(2)).await;
    node.until(|node| node.happened(EventType::Warning, "SpecInvalid")).await;

    node.apply(8);
    node.until(|node| node.says("Valid", "") && node.observes(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_let_itself_be_mounted_delays_nothing_else() {
    let node = OneNode::running().await;
    let mut document = serde_json::to_value(example()).unwrap();
    document["spec"]["Mounts"] = json!([{ "Source": "10.0.0.9:/share/bs", "Target": "/opt/smp/bs" }]);
    node.machine.host.hang_mounts();
    node.machine.host.set_mount("/opt/smp/bs".as_ref(), Observed::Known(crate::host::MountFact::NotMounted));
    node.apply_document(document);
    node.until(|node| node.machine.host.mounts_begun() == 1).await;
    assert!(node.machine.hosts.qemu_dies(&node.machine.name));
    let died = Instant::now();
    // The share is not there, so the node is unfit; but it goes on looking and says so.
    node.until(|node| {
        let status = node.status().unwrap();
        status.waiting.iter().any(|waiting| waiting.reason == "NoNodeFit")
    })
    .await;
    assert!(died.elapsed() < Duration::from_secs(5), "after {:?}", died.elapsed());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(node.machine.host.mounts_begun(), 1, "no second try begins beside one that hangs");
}

/// The hypervisor says nothing of this end. Only its log can say that the VM has not left.
#[tokio::test(start_paused = true)]
async fn a_vm_that_is_gone_without_a_word_is_not_started_while_the_log_cannot_be_read() {
    let node = OneNode::running().await;
    let (hosts, name) = (Arc::clone(&node.machine.hosts), node.machine.name.clone());
    hosts.set_log_unreadable(&name, true);
    hosts.save_by_hand(&name);
    let waits = |reason: &'static str| {
        move |node: &OneNode| node.status().unwrap().waiting.iter().any(|waiting| waiting.reason == reason)
    };
    node.until(waits("LogUnread")).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(hosts.copies(), [], "nobody has said that it did not leave");

    hosts.set_log_unreadable(&name, false);
    // As with every other end: the nodes that are not there are waited for.
    node.until(waits("CopiesUnknown")).await;
}
