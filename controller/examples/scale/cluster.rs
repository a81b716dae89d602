//! A cluster of any size in this process, settled: every node is fit, the VM runs, and nothing is left to do. The nodes
//! are those of `zsha-controller dev`, each with a store that counts what it is asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use tokio::task::JoinSet;
use zsha_controller::act::Edges;
use zsha_controller::api::Metrics;
use zsha_controller::embedded::Machine;
use zsha_controller::hypervisor::simulated::SimulatedHosts;
use zsha_controller::keeper::Lease;
use zsha_controller::views::{self, Reader, Views};
use zsha_crds::records::VmPhase;
use zsha_crds::{ClusterName, ConditionKind, HaCluster, Keys, NodeName, condition};
use zsha_runtime::client::apply::{By, Prepared, prepare};
use zsha_runtime::client::commit::Fate;
use zsha_runtime::client::document::Live;
use zsha_runtime::client::view;
use zsha_runtime::store::{Entry, Listing, MemoryStore, Op, Read, Store, StoreError, Txn};
use zsha_runtime::{Clock, Moment};

/// The document that `make run` applies; its nodes are replaced.
const EXAMPLE: &str = include_str!("../../../manifests/examples/cluster.yaml");
pub(crate) const CLOCK: Clock = Clock::Boottime;
/// The time after which a cluster that has not settled has a fault.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the cluster is looked at until it has settled.
const LOOK: Duration = Duration::from_millis(200);

/// The requests that a node has made of the store since it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub requests: u64,
    /// The records in all answers.
    pub records: u64,
}

/// The embedded store, with a count of what was asked.
#[derive(Debug)]
pub(crate) struct Counting {
    store: MemoryStore,
    requests: AtomicU64,
    records: AtomicU64,
}

impl Counting {
    pub(crate) fn new(store: MemoryStore) -> Self {
        Self { store, requests: AtomicU64::new(0), records: AtomicU64::new(0) }
    }

    pub(crate) fn asked(&self) -> Asked {
        Asked {
            requests: self.requests.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
        }
    }

    fn ask(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn answer(&self, records: usize) {
        self.records.fetch_add(records as u64, Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for Counting {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.ask();
        let entry = self.store.get(key, read).await?;
        self.answer(entry.iter().len());
        Ok(entry)
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.ask();
        let listing = self.store.list(prefix, read).await?;
        self.answer(listing.entries.len());
        Ok(listing)
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.ask();
        let listing = self.store.watch(prefix, after, wait).await?;
        self.answer(listing.entries.len());
        Ok(listing)
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.ask();
        self.store.txn(ops).await
    }
}

struct Node {
    machine: Machine,
    store: Arc<Counting>,
    line: Arc<dyn Lease>,
}

/// A settled cluster. Its nodes end with it.
pub(crate) struct Settled {
    count: u8,
    cluster: ClusterName,
    keys: Keys,
    store: MemoryStore,
    nodes: BTreeMap<NodeName, Node>,
    running: std::sync::Mutex<JoinSet<()>>,
}

fn document(nodes: u8) -> anyhow::Result<HaCluster> {
    let mut document: serde_json::Value = serde_yaml::from_str(EXAMPLE)?;
    let node = |number: u8| format!("192.168.10.{} nfs-{number}", number + 10);
    document["spec"]["Node"] = (1..=nodes).map(node).collect::<Vec<_>>().into();
    document["spec"]["Network"][0]["Ipaddr"] = "172.20.10.3".into();
    document["spec"]["Network"][0]["Gateway"] = "172.20.10.1".into();
    zsha_crds::decode_value(&document).map_err(|faults| anyhow::anyhow!("{faults}"))
}

impl Settled {
    /// Starts the nodes, applies the document, and waits until all is as it says.
    pub(crate) async fn raise(nodes: u8) -> anyhow::Result<Self> {
        let document = document(nodes)?;
        let cluster = document.name().clone();
        let hosts = SimulatedHosts::new(document.vm());
        let mut settled = Self {
            count: nodes,
            keys: Keys::new(&cluster),
            cluster,
            store: MemoryStore::new(),
            nodes: BTreeMap::new(),
            running: std::sync::Mutex::default(),
        };
        let mut running = JoinSet::new();
        for (number, node) in (1u64..).zip(document.nodes()) {
            let node = settled.start(&node.name, &hosts, number, &mut running);
            settled.nodes.insert(node.machine.name.clone(), node);
        }
        running.spawn(async move { hosts.run().await });
        settled.running = std::sync::Mutex::new(running);
        settled.apply(&document).await?;
        settled.wait().await?;
        Ok(settled)
    }

    fn start(
        &self,
        name: &NodeName,
        hosts: &Arc<SimulatedHosts>,
        seed: u64,
        running: &mut JoinSet<()>,
    ) -> Node {
        let store = Arc::new(Counting::new(self.store.clone()));
        let (cluster, behind) = (self.cluster.clone(), Arc::clone(&store) as Arc<dyn Store>);
        let machine = Machine::new(cluster, name.clone(), CLOCK, behind, Arc::clone(hosts)).seeded(seed);
        let (line, keeper) = machine.keeper();
        let line: Arc<dyn Lease> = Arc::new(line);
        running.spawn(keeper);
        let metrics = Arc::new(Metrics::default());
        running.spawn(machine.controller(Arc::clone(&line), None, metrics, std::future::pending()));
        Node { machine, store, line }
    }

    async fn apply(&self, document: &HaCluster) -> anyhow::Result<()> {
        let live = Live::read(&self.store, &self.keys).await?;
        let (who, message) = ("bench".to_owned(), String::new());
        let by = By { who, at: CLOCK.wall(), message, command: "apply".to_owned() };
        let Prepared::Write(write) = prepare(&self.store, &self.keys, &live, document, by).await? else {
            bail!("a document is in force already");
        };
        let fate = write.commit(&self.store).await?;
        ensure!(matches!(fate, Fate::InForce { .. }), "somebody else has applied a document: {fate:?}");
        Ok(())
    }

    async fn wait(&self) -> anyhow::Result<()> {
        let until = CLOCK.now() + PATIENCE;
        while let Err(error) = self.still_settled().await {
            if CLOCK.now() > until {
                return Err(error.context(format!("not settled within {PATIENCE:?}")));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Fails unless every node is fit and the VM runs, as the records say.
    pub(crate) async fn still_settled(&self) -> anyhow::Result<()> {
        let view = view::once(&self.store, &self.cluster, CLOCK).await?;
        let fit = view.node_statuses.values().filter(|status| {
            condition::find(&status.conditions, ConditionKind::Ready).is_some_and(|ready| ready.is_true())
        });
        let (fit, nodes) = (fit.count(), self.count);
        ensure!(fit == usize::from(nodes), "{fit} of {nodes} nodes are fit");
        let record = view.vm.context("there is no ownership record")?;
        ensure!(record.phase == VmPhase::Running, "the VM is {:?}", record.phase);
        Ok(())
    }

    pub(crate) fn nodes(&self) -> u8 {
        self.count
    }

    pub(crate) fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    pub(crate) fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The requests that each node has made of the store.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.nodes.values().map(|node| node.store.asked()).collect()
    }

    pub(crate) async fn owner(&self) -> anyhow::Result<NodeName> {
        let view = view::once(&self.store, &self.cluster, CLOCK).await?;
        Ok(view.vm.and_then(|record| record.owner).context("nobody owns the VM")?.node)
    }

    pub(crate) fn other_than(&self, owner: &NodeName) -> anyhow::Result<NodeName> {
        self.nodes.keys().find(|node| *node != owner).cloned().context("there is only one node")
    }

    /// The edges of a node and views of its own, kept by the worker. The owner's record is shown to them as their own
    /// write, since a controller that had not written it would write it once more.
    pub(crate) async fn seen_by(&self, name: &NodeName) -> anyhow::Result<(Edges, Views)> {
        let node = self.nodes.get(name).context("not a node")?;
        let machine = &node.machine;
        let edges = Edges {
            me: name.clone(),
            keys: self.keys.clone(),
            clock: CLOCK,
            store: Arc::clone(&machine.store),
            hypervisor: Arc::clone(&machine.hypervisor),
            host: Arc::clone(&machine.host) as _,
            lease: Arc::clone(&node.line),
        };
        let reader = Reader { me: name.clone(), reads: machine.build.reads };
        let watched = views::watch(&machine.store, &self.cluster, CLOCK, 0, reader);
        let streams = watched.changes.into_iter().chain(watched.display);
        let following = stream::select_all(streams).for_each(|_| std::future::ready(()));
        self.running.lock().map_err(|_| anyhow::anyhow!("a thread panicked"))?.spawn(following);
        let sent: Moment = CLOCK.now();
        let until = sent + PATIENCE;
        loop {
            if let (Some(_), Some(Some(stored))) = (watched.views.confirmed().0, watched.views.vm().known()) {
                if stored.record.owner.as_ref().is_some_and(|owner| owner.node == *name) {
                    watched.views.wrote(stored.record.clone(), stored.index, sent);
                }
                return Ok((edges, watched.views));
            }
            ensure!(CLOCK.now() < until, "{name} has not seen the records within {PATIENCE:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
