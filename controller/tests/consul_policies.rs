//! The ACL policies of `manifests/consul`, each on a real Consul that denies whatever no token allows: enough for what
//! it is for, and no more. Needs a `consul`: without one it fails and says so.

#![allow(clippy::unwrap_used, reason = "these are tests")]

#[allow(dead_code, reason = "shared with the tests of the store, which need more of it")]
#[path = "../runtime/tests/consul/mod.rs"]
mod consul;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;
use zsha_controller::api::Metrics;
use zsha_controller::embedded::Machine;
use zsha_controller::hypervisor::simulated::SimulatedHosts;
use zsha_crds::records::{Intent, LeaseRecord, Owner, VmRecord, VmStatus};
use zsha_crds::{HaCluster, Keys, VmId, VmName, VmState, decode_value};
use zsha_runtime::Clock;
use zsha_runtime::history::{self, Outcome};
use zsha_runtime::store::consul::{ConsulSettings, ConsulStore, Token};
use zsha_runtime::store::{Entry, Listing, Op, Read, Store, StoreError, Txn};

use consul::{Agent, MASTER_TOKEN, PATIENCE};

const EXAMPLE: &str = include_str!("../../manifests/examples/cluster.yaml");

/// The example document, for the cluster that the policies name.
fn document() -> HaCluster {
    let example = zsha_crds::decode(EXAMPLE, "cluster.yaml").unwrap().cluster;
    let mut document = serde_json::to_value(example).unwrap();
    document["metadata"]["name"] = "prod".into();
    decode_value(&document).unwrap()
}

fn keys() -> Keys {
    Keys::new(document().name())
}

fn with_token(server: &Agent, token: &str) -> ConsulStore {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, token).unwrap();
    let token = Some(Token::from_file(&file).unwrap());
    ConsulStore::connect(ConsulSettings { token, ..ConsulSettings::new(vec![server.endpoint()]) }).unwrap()
}

async fn made(server: &Agent, path: &str, body: &Value) -> Value {
    let (status, answer) = server.request(Method::PUT, path, body.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer:?}");
    serde_json::from_slice(&answer).unwrap()
}

/// A store with a token that has this policy and no other.
async fn only(server: &Agent, policy: &str) -> ConsulStore {
    only_through(server, server, policy).await
}

/// The same, through another agent of that server's cluster.
async fn only_through(agent: &Agent, server: &Agent, policy: &str) -> ConsulStore {
    let rules = std::fs::read_to_string(consul::manifest(&format!("policies/{policy}.hcl"))).unwrap();
    made(server, "/v1/acl/policy", &json!({ "Name": policy, "Rules": rules })).await;
    let token = made(server, "/v1/acl/token", &json!({ "Policies": [{ "Name": policy }] })).await;
    with_token(agent, token["SecretID"].as_str().unwrap())
}

/// Does what the first `zsha apply` does: what it reads, and the one transaction.
async fn apply(store: &dyn Store) {
    let (keys, document, vm) = (keys(), document(), VmName::management());
    let stored = store.get(&keys.spec(), Read::Consistent).await.unwrap();
    let recorded = store.list(&keys.history(), Read::Consistent).await.unwrap().entries;
    store.list(&keys.node_statuses(), Read::Consistent).await.unwrap();
    let change = history::Change {
        format: zsha_crds::format::FIRST,
        document: serde_json::to_value(&document).unwrap(),
        applied_by: "admin@host".to_owned(),
        applied_at: jiff::Timestamp::UNIX_EPOCH,
        message: String::new(),
        command: "apply".to_owned(),
    };
    let outcome = history::apply(&keys, stored.as_ref(), &recorded, 0, change, |a, b| a == b).unwrap();
    let Outcome::Write { mut ops, .. } = outcome else { panic!("{outcome:?}") };
    let unowned = VmRecord::unplaced(document.vm());
    for (key, value) in [(keys.vm(&vm), json!(unowned)), (keys.intent("power"), json!(Intent::None))] {
        assert_eq!(store.get(&key, Read::Consistent).await, Ok(None));
        ops.push(Op::Create { key, value: value.to_string() });
    }
    assert!(store.txn(ops).await.unwrap().committed());
}

async fn write(store: &dyn Store, key: String) -> Result<Txn, StoreError> {
    let now = store.get(&key, Read::Consistent).await?;
    let value = json!({ "written": "by a test" }).to_string();
    let op = match now {
        Some(Entry { modify_index: index, .. }) => Op::Cas { key, value, index },
        None => Op::Create { key, value },
    };
    store.txn(vec![op]).await
}

async fn denied(store: &dyn Store, key: String) {
    let outcome = write(store, key.clone()).await;
    assert!(matches!(outcome, Err(StoreError::Denied { .. })), "{key}: {outcome:?}");
}

/// A store that remembers what it was denied.
#[derive(Debug)]
struct Remembering {
    inner: ConsulStore,
    denials: Arc<Mutex<Vec<StoreError>>>,
}

impl Remembering {
    fn note<T>(&self, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error @ StoreError::Denied { .. }) = &outcome {
            self.denials.lock().unwrap().push(error.clone());
        }
        outcome
    }
}

#[async_trait]
impl Store for Remembering {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.note(self.inner.get(key, read).await)
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.note(self.inner.list(prefix, read).await)
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.note(self.inner.watch(prefix, after, wait).await)
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.note(self.inner.txn(ops).await)
    }

    async fn txn_hedged(&self, ops: Vec<Op>, after: Duration) -> Result<Txn, StoreError> {
        self.note(self.inner.txn_hedged(ops, after).await)
    }
}

/// A real keeper and a real controller on this store, until the VM runs and everything is told.
async fn keep_the_vm(store: Arc<dyn Store>) {
    let (document, vm) = (document(), VmName::management());
    let (cluster, name) = (document.name().clone(), document.nodes()[0].name.clone());
    let hosts = SimulatedHosts::new(VmId::of(&cluster));
    let machine =
        Machine::new(cluster, name.clone(), Clock::Boottime, Arc::clone(&store), Arc::clone(&hosts));
    let (line, keeper) = machine.keeper();
    let metrics = Arc::new(Metrics::default());
    let controller = machine.controller(Arc::new(line), None, metrics, std::future::pending());
    let runs = async {
        let mut changes = 1;
        loop {
            // Of an answer that does not come in time nothing follows, as for the controller.
            let statuses = keys().statuses();
            let status = match store.watch(&statuses, changes, Duration::from_secs(2)).await {
                Err(StoreError::Unavailable { .. }) => continue,
                status => status.unwrap(),
            };
            changes = status.index;
            let vm_status = status.entries.iter().find(|entry| entry.key == keys().vm_status(&vm));
            let runs = vm_status.is_some_and(|entry| {
                let status: VmStatus = serde_json::from_str(&entry.value).unwrap();
                status.state == VmState::Running && status.node == name
            });
            let events = match store.list(&keys().events(), Read::Consistent).await {
                Err(StoreError::Unavailable { .. }) => {
                    changes = 1;
                    continue;
                }
                events => events.unwrap().entries,
            };
            if runs && events.iter().any(|event| event.value.contains("\"Started\"")) {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        outcome = timeout(PATIENCE, runs) => outcome.expect("the VM runs"),
        () = keeper => panic!("the keeper has ended"),
        () = controller => panic!("the controller has ended"),
        () = hosts.run() => panic!("the simulated hosts have ended"),
    }
}

#[tokio::test]
async fn a_node_keeps_its_vm_fences_others_and_cannot_change_what_is_wanted() {
    let server = consul::server_with_acl().await;
    apply(&with_token(&server, MASTER_TOKEN)).await;
    let node = only(&server, "node").await;
    assert_eq!(node.agent().await.unwrap().raft_multiplier, Some(1));
    keeps_it_and_changes_no_wish(node).await;
}

/// A client knows no token by itself: it asks the servers.
#[tokio::test]
async fn a_node_that_is_no_server_may_the_same_through_its_client() {
    let server = consul::server_with_acl().await;
    let acl = json!({ "acl": { "enabled": true, "default_policy": "deny" } });
    let client = consul::client_with(std::slice::from_ref(&server), &acl).await;
    apply(&with_token(&server, MASTER_TOKEN)).await;
    let node = only_through(&client, &server, "node").await;
    assert!(!node.agent().await.unwrap().server);
    keeps_it_and_changes_no_wish(node).await;
}

async fn keeps_it_and_changes_no_wish(node: ConsulStore) {
    let denials = Arc::default();
    let store = Arc::new(Remembering { inner: node, denials: Arc::clone(&denials) });
    keep_the_vm(Arc::clone(&store) as Arc<dyn Store>).await;
    assert_eq!(*denials.lock().unwrap(), []);

    let other = document().nodes()[1].name.clone();
    let lost = LeaseRecord::lost(&Owner { node: other.clone(), epoch: 1 }, jiff::Timestamp::UNIX_EPOCH);
    let lost = Op::Create { key: keys().lease(&other), value: json!(lost).to_string() };
    assert!(store.txn(vec![lost]).await.unwrap().committed());
    assert!(!store.list(&keys().history(), Read::Consistent).await.unwrap().entries.is_empty());
    let drain = keys().intent(&Intent::drain_of(&document().nodes()[0].name));
    assert!(write(&*store, drain).await.unwrap().committed(), "a host that shuts down drains its node");
    for key in [keys().spec(), keys().intent("power"), keys().history_of(2), "zsha/other/spec".to_owned()] {
        denied(&*store, key).await;
    }
}

#[tokio::test]
async fn an_operator_applies_and_cannot_pretend_to_be_a_node() {
    let server = consul::server_with_acl().await;
    let operator = only(&server, "operator").await;
    apply(&operator).await;
    assert!(write(&operator, keys().intent("power")).await.unwrap().committed());
    assert_eq!(operator.list("zsha/", Read::Consistent).await.unwrap().entries.len(), 4);
    let node = document().nodes()[0].name.clone();
    for key in [keys().lease(&node), keys().node_status(&node), format!("{}1", keys().events_of(&node))] {
        denied(&operator, key).await;
    }
}

#[tokio::test]
async fn a_viewer_reads_everything_and_writes_nothing() {
    let server = consul::server_with_acl().await;
    let master = with_token(&server, MASTER_TOKEN);
    apply(&master).await;
    let node = document().nodes()[0].name.clone();
    for key in [keys().lease(&node), keys().node_status(&node), format!("{}1", keys().events_of(&node))] {
        assert!(write(&master, key).await.unwrap().committed());
    }
    let viewer = only(&server, "viewer").await;
    let everything = master.list("zsha/", Read::Consistent).await.unwrap();
    assert_eq!(viewer.list("zsha/", Read::Consistent).await.unwrap(), everything);
    for entry in everything.entries {
        assert_eq!(viewer.get(&entry.key, Read::Consistent).await, Ok(Some(entry.clone())));
        denied(&viewer, entry.key).await;
    }
    denied(&viewer, keys().history_of(2)).await;
    assert_eq!(viewer.members().await.unwrap().len(), 1, "for `zsha status`");
}
