//! An operator: what is done by command, and with the store's keys by hand.

use std::time::Duration;

use zsha_crds::records::{HistoryRecord, Intent, StoredSpec, VmRecord};
use zsha_crds::{HaCluster, Keys, NodeName, VmName};
use zsha_runtime::store::{MemoryStore, Op};

/// The document the simulated clusters begin with.
const DOCUMENT: &str = include_str!("../../../manifests/examples/cluster.yaml");

/// The name of whoever applies documents and gives orders.
const BY: &str = "simulator";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    Fast,
    Balanced,
    Patient,
}

#[derive(Debug)]
pub struct Operator {
    store: MemoryStore,
    keys: Keys,
    document: serde_json::Value,
    generation: u64,
    migrations: u128,
    starts: u128,
    /// The number of orders that were given: each has a time of its own.
    orders: i64,
}

/// The example, decoded once in each thread.
pub fn example() -> HaCluster {
    thread_local! {
        static EXAMPLE: HaCluster = match zsha_crds::decode(DOCUMENT, "cluster.yaml") {
            Ok(decoded) => decoded.cluster,
            Err(faults) => panic!("the example document is not valid: {faults}"),
        };
    }
    EXAMPLE.with(Clone::clone)
}

/// The example with so many nodes, and one address of the guest on all of them.
pub fn example_with(nodes: u8) -> HaCluster {
    let mut document = serde_json::to_value(example()).unwrap_or_default();
    let node = |number: u8| format!("192.168.10.{} nfs-{number}", number + 10);
    document["spec"]["Node"] = (1..=nodes).map(node).collect::<Vec<_>>().into();
    document["spec"]["Network"][0]["Ipaddr"] = "172.20.10.3".into();
    document["spec"]["Network"][0]["Gateway"] = "172.20.10.1".into();
    match zsha_crds::decode_value(&document) {
        Ok(cluster) => cluster,
        Err(faults) => panic!("no cluster has {nodes} nodes: {faults}"),
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_string(value) {
        Ok(json) => json,
        Err(error) => panic!("a record is not JSON: {error}"),
    }
}

impl Operator {
    pub fn new(store: MemoryStore, document: &HaCluster) -> Self {
        let keys = Keys::new(document.name());
        let document = serde_json::to_value(document).unwrap_or_default();
        Self { store, keys, document, generation: 0, migrations: 0, starts: 0, orders: 0 }
    }

    /// `zsha apply` of the document with another profile and memory; the first one writes the other records too.
    pub fn apply(&mut self, profile: Option<Profile>, memory_gib: u32) {
        self.apply_as(zsha_crds::format::FIRST, profile, memory_gib);
    }

    /// Does the same with a field in the document that only builds that read this format know.
    pub fn apply_as(&mut self, format: u32, profile: Option<Profile>, memory_gib: u32) {
        if let Some(profile) = profile {
            self.document["spec"]["Availability"]["Profile"] = format!("{profile:?}").into();
        }
        self.document["spec"]["MemorySizeInGB"] = memory_gib.into();
        if let Err(faults) = zsha_crds::decode::decode_value(&self.document) {
            panic!("`zsha apply` would have refused this document: {faults}");
        }
        self.generation += 1;
        let stored = json(&StoredSpec {
            generation: self.generation,
            format,
            document: self.document.clone(),
            applied_by: BY.to_owned(),
            applied_at: jiff::Timestamp::UNIX_EPOCH,
            message: String::new(),
        });
        let record = json(&HistoryRecord {
            generation: self.generation,
            format,
            document: self.document.clone(),
            applied_by: BY.to_owned(),
            applied_at: jiff::Timestamp::UNIX_EPOCH,
            message: String::new(),
            command: "apply".to_owned(),
        });
        let history = self.keys.history_of(self.generation);
        let mut ops = vec![self.put(self.keys.spec(), stored), self.put(history, record)];
        if self.generation == 1 {
            let record = VmRecord::unplaced(self.keys.vm_id().clone());
            ops.push(self.put(self.keys.vm(&record.name), json(&record)));
            ops.push(self.put(self.keys.intent(Intent::POWER), json(&Intent::None)));
        }
        self.commit(&ops);
    }

    fn vm(&self) -> VmName {
        self.keys.vm_id().name.clone()
    }

    fn at(&mut self) -> jiff::Timestamp {
        self.orders += 1;
        jiff::Timestamp::from_second(self.orders).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// `zsha stop`, with the time the guest has to power off.
    pub fn stop(&mut self, limit: Option<Duration>) {
        let stop = Intent::Stop {
            vm: self.vm(),
            by: BY.to_owned(),
            at: self.at(),
            message: String::new(),
            timeout_seconds: limit.map(|limit| limit.as_secs()),
        };
        self.intend(Intent::POWER, &stop);
    }

    /// `zsha start`; each call is a new order.
    pub fn start(&mut self) {
        self.starts += 1;
        let start = Intent::Start {
            id: uuid::Uuid::from_u128(self.starts),
            vm: self.vm(),
            by: BY.to_owned(),
            at: self.at(),
            message: String::new(),
            from_image: false,
        };
        self.intend(Intent::POWER, &start);
    }

    /// `zsha freeze`, `zsha resume`.
    pub fn freeze(&mut self, frozen: bool) {
        let freeze = Intent::Freeze { by: BY.to_owned(), at: self.at(), message: String::new() };
        self.intend(Intent::FREEZE, if frozen { &freeze } else { &Intent::None });
    }

    /// `zsha drain`, `zsha uncordon`.
    pub fn drain(&mut self, node: &NodeName, drained: bool) {
        let drain =
            Intent::Drain { by: BY.to_owned(), at: self.at(), message: String::new(), shutdown: None };
        self.intend(&Intent::drain_of(node), if drained { &drain } else { &Intent::None });
    }

    /// Does what the message about an order in doubt asks for: `zsha start`, `zsha resume`, or `zsha uncordon NODE`.
    pub fn says_again(&mut self, name: &str) {
        match (name, Intent::drained(name)) {
            (Intent::POWER, _) => self.start(),
            (Intent::FREEZE, _) => self.freeze(false),
            (_, Some(node)) => self.drain(&node, false),
            (_, None) => {}
        }
    }

    /// `zsha migrate`; each call is a new request, also one to the same node.
    pub fn migrate(&mut self, to: &NodeName) {
        self.migrations += 1;
        let intent = Intent::Migrate {
            id: uuid::Uuid::from_u128(self.migrations),
            vm: self.vm(),
            to: to.clone(),
            by: BY.to_owned(),
            at: self.at(),
            message: String::new(),
        };
        self.intend(Intent::MIGRATE, &intent);
    }

    /// Sets the preferred node, and whether the VM is moved back there.
    pub fn prefer(&mut self, node: &NodeName, failback: bool) {
        self.document["spec"]["Placement"] =
            serde_json::json!({ "Preferred": [node], "Failback": if failback { "auto" } else { "off" } });
    }

    /// Writes an order. An order that is given again is another write, for nodes that are in doubt of the first.
    fn intend(&self, name: &str, intent: &Intent) {
        let (key, mut value) = (self.keys.intent(name), json(intent));
        if self.store.read(&key).is_some_and(|entry| entry.value == value) {
            value.push('\n');
        }
        self.commit(&[self.put(key, value)]);
    }

    /// Makes the document one by which no node without a watchdog is given the VM.
    pub fn require_watchdog(&mut self) {
        self.document["spec"]["Fencing"] = serde_json::json!({ "Watchdog": "required" });
    }

    /// Deletes the key of the document by hand.
    pub fn delete_document(&self) {
        self.delete(self.keys.spec());
    }

    /// Deletes the key of a node's lease by hand.
    pub fn delete_lease(&self, node: &NodeName) {
        self.delete(self.keys.lease(node));
    }

    /// Overwrites the key of a node's lease by hand.
    pub fn overwrite_lease(&self, node: &NodeName, value: String) {
        self.commit(&[self.put(self.keys.lease(node), value)]);
    }

    /// Deletes every key of the cluster: the next document is the first again.
    pub fn wipe(&mut self) {
        self.generation = 0;
        for entry in self.store.read_all(self.keys.root()).entries {
            self.delete(entry.key);
        }
    }

    fn delete(&self, key: String) {
        if let Some(index) = self.store.index_of(&key) {
            self.commit(&[Op::DeleteCas { key, index }]);
        }
    }

    fn put(&self, key: String, value: String) -> Op {
        match self.store.index_of(&key) {
            Some(index) => Op::Cas { key, value, index },
            None => Op::Create { key, value },
        }
    }

    fn commit(&self, ops: &[Op]) {
        match self.store.apply(ops) {
            Ok(txn) if txn.committed() => {}
            other => panic!("nobody else writes at this moment: {other:?}"),
        }
    }
}
