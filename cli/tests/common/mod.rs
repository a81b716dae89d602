//! Runs the very commands over an embedded store, with a clock that stands still and streams that are kept.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::Parser;
use serde_json::{Value, json};
use zsha::args::Cli;
use zsha::output::{Look, Output, Stream};
use zsha::session::{Ask, Session};
use zsha::{Build, Exit, run_on};
use zsha_crds::{ClusterName, Keys, NodeName, VmName};
use zsha_runtime::store::{Entry, Listing, MemoryStore, Op, Read, StoreError, Txn};
use zsha_runtime::{Clock, Store};

#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// The output as a terminal would show it, for snapshots.
    pub fn transcript(&self) -> String {
        format!("exit: {}\n--- stdout\n{}--- stderr\n{}", self.exit.code(), self.out, self.err)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

pub async fn zsha(store: impl Store, stdin: &str, words: &[&str]) -> Ran {
    zsha_asking(store, stdin, words, None).await
}

pub async fn zsha_asking(store: impl Store, stdin: &str, words: &[&str], ask: Option<Ask>) -> Ran {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = zsha_into(store, stdin, words, ask, (&mut out, &mut err)).await;
    Ran { exit, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

/// Does the same as [`zsha_asking`], into streams that are given.
pub async fn zsha_into(
    store: impl Store,
    stdin: &str,
    words: &[&str],
    ask: Option<Ask>,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> Exit {
    let cli = Cli::try_parse_from(std::iter::once(&"zsha").chain(words)).unwrap();
    let mut stdin = stdin.as_bytes();
    let (out, err) = (Stream::new(out), Stream::new(err));
    let output = Output { out, err, out_look: Look::PIPE, err_look: Look::PIPE };
    let clock = Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 };
    let who = "alice@desk".to_owned();
    let mut session = Session { output, stdin: &mut stdin, clock, who, ask, build: Build::default() };
    run_on(&cli, Arc::new(store), &mut session).await
}

/// A pipe whose reader is gone.
#[derive(Debug)]
pub struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
}

/// A document in YAML, whose memory is `gib`.
pub fn document(gib: u32) -> String {
    document_of(gib, &["nfs-1", "nfs-2", "nfs-3"])
}

pub fn document_of(gib: u32, nodes: &[&str]) -> String {
    let nodes: Vec<_> = nodes.iter().map(|name| format!("10.0.0.{} {name}", &name[4..])).collect();
    json!({
        "apiVersion": "zsha.io/v1", "kind": "HaCluster", "metadata": {"name": "prod"},
        "spec": {
            "Node": nodes, "MemorySizeInGB": gib, "CPU": 4, "Type": "FileConf", "ImageFolder": "/opt/smp/mngt/",
            "Network": [{
                "Bridge": "br_eth0", "MacAddress": "52:54:00:12:34:56", "Ipaddr": "10.0.1.10",
                "Netmask": "255.255.255.0", "Gateway": "10.0.1.1", "IsMgmt": true, "IsDefRoute": true
            }]
        }
    })
    .to_string()
}

pub fn keys() -> Keys {
    Keys::new(&ClusterName::new("prod").unwrap())
}

pub fn put(store: &MemoryStore, key: String, value: &Value) {
    let value = value.to_string();
    let op = match store.read(&key) {
        Some(old) => Op::Cas { key, value, index: old.modify_index },
        None => Op::Create { key, value },
    };
    assert!(store.apply(&[op]).unwrap().committed());
}

/// The clock of [`zsha`] stands at 01:00:00 when a command starts.
pub fn lease(node: &str, renewed_at: &str) -> Value {
    json!({
        "node": node, "incarnation": "00000000-0000-0000-0000-000000000007", "epoch": 3, "seq": 900, "state": "Held",
        "machineId": "m", "bootId": "b", "controllerAlive": true, "renewedAt": renewed_at,
        "timings": {"renewMillis": 1000, "ttlMillis": 8000, "killMillis": 1000, "fenceAfterMillis": 10000}
    })
}

fn report(node: &str, local_vm: &str) -> Value {
    let conditions = ["Ready", "MountsReady", "ImagePresent"].map(|kind| {
        json!({
            "type": kind, "status": "True", "reason": "Fit", "message": "fit",
            "lastTransitionTime": "1970-01-01T00:10:00Z"
        })
    });
    json!({
        "node": node, "conditions": conditions, "observedGeneration": 1, "controllerVersion": "0.1.0",
        "localVm": local_vm, "updatedAt": "1970-01-01T00:30:00Z"
    })
}

/// Three nodes, all well, the VM on nfs-1.
pub async fn healthy() -> MemoryStore {
    let store = MemoryStore::new();
    let applied = zsha(store.clone(), &document(8), &["apply", "-f", "-"]).await;
    assert_eq!(applied.exit, Exit::Success, "{applied:?}");
    let vm = VmName::management();
    for (name, local_vm) in [("nfs-1", "Running"), ("nfs-2", "Absent"), ("nfs-3", "Absent")] {
        let node = NodeName::new(name).unwrap();
        put(&store, keys().lease(&node), &lease(name, "1970-01-01T00:59:59.5Z"));
        put(&store, keys().node_status(&node), &report(name, local_vm));
    }
    let mut record: Value = serde_json::from_str(&store.read(&keys().vm(&vm)).unwrap().value).unwrap();
    record["owner"] = json!({"node": "nfs-1", "epoch": 3});
    record["phase"] = json!("Running");
    record["note"] = json!("");
    record["lastStart"] =
        json!({"node": "nfs-1", "at": "1970-01-01T00:12:00Z", "reason": "FirstStart", "generation": 1});
    put(&store, keys().vm(&vm), &record);
    let status = json!({
        "name": "mnvm", "uuid": record["uuid"], "node": "nfs-1", "state": "Running", "runningGeneration": 1,
        "observedGeneration": 1, "conditions": [], "updatedAt": "1970-01-01T00:12:05Z"
    });
    put(&store, keys().vm_status(&vm), &status);
    let event = |reason: &str, message: &str, at: &str| {
        json!({
            "type": "Normal", "reason": reason, "message": message, "regarding": "vm/mnvm", "node": "nfs-1",
            "count": 1, "firstAt": at, "lastAt": at
        })
    };
    // Against their names' order: the order is the store's.
    let of = |id: &str| format!("{}{id}", keys().events_of(&NodeName::new("nfs-1").unwrap()));
    put(&store, of("b"), &event("Claimed", "nfs-1 claims mnvm", "1970-01-01T00:11:59Z"));
    put(&store, of("a"), &event("Started", "mnvm runs\u{1b}[2J", "1970-01-01T00:12:00Z"));
    store
}

/// How a store can let somebody down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No leader: only stale reads are answered.
    NoLeader,
    /// No leader for as long as an election takes at most.
    Election,
    /// Nothing is answered.
    Gone,
    /// The first transaction takes effect, and its answer is lost.
    AnswerLost,
    /// The first transaction is lost, and nobody knows it.
    RequestLost,
    /// The token may read and not write.
    ReadOnly,
}

/// The embedded store, behind a fault.
#[derive(Debug)]
pub struct Faulty {
    pub inner: MemoryStore,
    pub fault: Fault,
    pub spent: std::sync::atomic::AtomicBool,
    pub made: tokio::time::Instant,
}

impl Faulty {
    pub fn new(inner: &MemoryStore, fault: Fault) -> Self {
        Self { inner: inner.clone(), fault, spent: false.into(), made: tokio::time::Instant::now() }
    }

    fn check(&self, read: Read) -> Result<(), StoreError> {
        match (self.fault, read) {
            (Fault::Gone, _) | (Fault::NoLeader, Read::Consistent | Read::Default) => {
                Err(StoreError::Unavailable {
                    operation: "read".to_owned(),
                    reason: "http://127.0.0.1:8500: 500 No cluster leader".to_owned(),
                })
            }
            (Fault::Election, Read::Consistent | Read::Default)
                if self.made.elapsed() < std::time::Duration::from_millis(3_900) =>
            {
                Err(StoreError::Unknown {
                    operation: "read".to_owned(),
                    reason: "no answer within 1s".to_owned(),
                })
            }
            (Fault::NoLeader | Fault::Election, Read::Stale)
            | (Fault::Election, Read::Consistent | Read::Default)
            | (Fault::AnswerLost | Fault::RequestLost | Fault::ReadOnly, _) => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.check(read)?;
        self.inner.get(key, read).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.check(read)?;
        self.inner.list(prefix, read).await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.check(Read::Default)?;
        self.inner.watch(prefix, after, wait).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.check(Read::Default)?;
        let first = !self.spent.swap(true, std::sync::atomic::Ordering::SeqCst);
        let lost =
            || StoreError::Unknown { operation: "transaction".to_owned(), reason: "no answer".to_owned() };
        match self.fault {
            Fault::AnswerLost if first => {
                self.inner.txn(ops).await?;
                Err(lost())
            }
            Fault::RequestLost if first => Err(lost()),
            Fault::ReadOnly => Err(StoreError::Denied {
                operation: "transaction".to_owned(),
                reason: "Permission denied".to_owned(),
            }),
            Fault::AnswerLost | Fault::RequestLost | Fault::NoLeader | Fault::Gone | Fault::Election => {
                self.inner.txn(ops).await
            }
        }
    }
}
