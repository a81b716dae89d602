//! The store as one node reaches it: every request of the node takes the way that the network has for it just then. Never
//! here: what is wrong with the network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use zsha_crds::NodeName;
use zsha_crds::records::LeaseRecord;
use zsha_runtime::store::{Entry, Listing, MemoryStore, Op, Read, Store, StoreError, Txn};

use super::check::{self, Checker};
use super::lag::Lag;
use super::net::{Leaderless, Net};

/// The time after which a node gives a request up.
const TIMEOUT: Duration = Duration::from_millis(1_000);

/// The store as one node reaches it.
#[derive(Debug)]
pub struct NodeStore {
    node: NodeName,
    writer: Writer,
    store: MemoryStore,
    net: Arc<Mutex<Net>>,
    checker: Arc<Mutex<Checker>>,
}

impl NodeStore {
    /// `lease` is the key of the node's lease.
    pub fn new(
        node: NodeName,
        lease: String,
        store: MemoryStore,
        net: Arc<Mutex<Net>>,
        checker: Arc<Mutex<Checker>>,
    ) -> Self {
        let writer = Writer { node: node.clone(), lease };
        Self { node, writer, store, net, checker }
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the node's requests arrive.
    fn reaches(&self) -> bool {
        let net = self.net();
        !net.down && !net.mute.contains(&self.node)
    }

    /// True if the node gets the answers that it waits for.
    fn hears(&self) -> bool {
        let net = self.net();
        !net.down && !net.deaf.contains(&self.node)
    }

    /// True if the node's requests arrive and their answers do not.
    fn is_deaf_only(&self) -> bool {
        let net = self.net();
        !net.down && net.deaf.contains(&self.node) && !net.mute.contains(&self.node)
    }

    /// Waits while the node is paused: nothing that it asks goes out, and no answer is taken in.
    async fn awake(&self) {
        loop {
            let resumed = {
                let net = self.net();
                if !net.paused.contains(&self.node) {
                    return;
                }
                Arc::clone(&net.resumed)
            };
            let resumed = resumed.notified();
            if self.net().paused.contains(&self.node) {
                resumed.await;
            }
        }
    }

    fn unknown(operation: &str) -> StoreError {
        StoreError::Unknown { operation: operation.to_owned(), reason: "no answer in time".to_owned() }
    }

    fn unavailable(operation: &str) -> StoreError {
        StoreError::Unavailable { operation: operation.to_owned(), reason: "no route".to_owned() }
    }

    /// Does a write while there is no leader.
    async fn leaderless(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        let fate = self.net().leaderless();
        match fate {
            Leaderless::Refused => return Err(Self::unavailable("txn")),
            Leaderless::Lost => tokio::time::sleep(TIMEOUT).await,
            Leaderless::Held => {
                let (net, store) = (Arc::clone(&self.net), self.store.clone());
                let (checker, writer) = (Arc::clone(&self.checker), self.writer.clone());
                let done = tokio::spawn(async move {
                    led(&net).await;
                    apply(&store, &checker, &ops, &writer)
                });
                if let Ok(Ok(answer)) = tokio::time::timeout(TIMEOUT, done).await
                    && self.hears()
                {
                    return answer;
                }
            }
        }
        self.awake().await;
        Err(Self::unknown("txn"))
    }

    /// Does a read: all of it gets through, or nothing. A read that must be consistent waits for a leader.
    async fn read<T>(
        &self,
        operation: &str,
        consistent: bool,
        read: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.awake().await;
        let fate = self.net().fate(&self.node);
        tokio::time::sleep(fate.there).await;
        if !self.reaches() || fate.reply_lost {
            tokio::time::sleep(TIMEOUT).await;
            self.awake().await;
            return Err(Self::unknown(operation));
        }
        if consistent && tokio::time::timeout(TIMEOUT, led(&self.net)).await.is_err() {
            self.awake().await;
            return Err(Self::unknown(operation));
        }
        let answer = read.await;
        tokio::time::sleep(fate.back).await;
        if self.is_deaf_only() {
            tokio::time::sleep(TIMEOUT).await;
        }
        self.awake().await;
        if self.hears() { answer } else { Err(Self::unknown(operation)) }
    }

    /// The server that may answer this read, if it is not the leader.
    fn behind(&self, read: Read) -> Option<Arc<Lag>> {
        match read {
            Read::Consistent => None,
            Read::Default | Read::Stale => self.net().lagging.get(&self.node).cloned(),
        }
    }
}

/// The record that is written, if this is a renewal of the lease with this key.
pub fn renewed(ops: &[Op], lease: &str) -> Option<LeaseRecord> {
    let written = ops.iter().find_map(|op| match op {
        Op::Create { key, value } | Op::Cas { key, value, .. } if key == lease => Some(value),
        _ => None,
    })?;
    serde_json::from_str(written).ok()
}

/// Returns once there is a leader.
async fn led(net: &Mutex<Net>) {
    loop {
        let elected = {
            let net = net.lock().unwrap_or_else(PoisonError::into_inner);
            if !net.electing {
                return;
            }
            Arc::clone(&net.elected)
        };
        let elected = elected.notified();
        if net.lock().unwrap_or_else(PoisonError::into_inner).electing {
            elected.await;
        }
    }
}

/// The node that has sent a write.
#[derive(Debug, Clone)]
struct Writer {
    node: NodeName,
    /// The key of the node's lease.
    lease: String,
}

/// Applies a write that has arrived.
fn apply(store: &MemoryStore, checker: &Mutex<Checker>, ops: &[Op], by: &Writer) -> Result<Txn, StoreError> {
    let result = store.apply(ops);
    if let Ok(done) = &result {
        check::lock(checker).asked_for(ops, done.committed());
    }
    if result.as_ref().is_ok_and(Txn::committed) {
        let mut checker = check::lock(checker);
        checker.reasons.writer = Some(by.node.clone());
        if let Some(record) = renewed(ops, &by.lease) {
            checker.validity.committed(&record);
        }
        checker.check();
        checker.reasons.writer = None;
    }
    result
}

#[async_trait]
impl Store for NodeStore {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.read("get", read != Read::Stale, async {
            match self.behind(read) {
                Some(lag) => Ok(lag.read(key)),
                None => self.store.get(key, read).await,
            }
        })
        .await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.read("list", read != Read::Stale, async {
            match self.behind(read) {
                Some(lag) => Ok(lag.list(prefix)),
                None => self.store.list(prefix, read).await,
            }
        })
        .await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.read("watch", false, async {
            match self.behind(Read::Stale) {
                Some(lag) => Ok(lag.watch(prefix, after, wait).await),
                None => self.store.watch(prefix, after, wait).await,
            }
        })
        .await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.awake().await;
        let fate = self.net().fate(&self.node);
        tokio::time::sleep(fate.there).await;
        if !self.reaches() && !fate.arrives_all_the_same {
            tokio::time::sleep(TIMEOUT).await;
            self.awake().await;
            return Err(if fate.reply_lost { Self::unavailable("txn") } else { Self::unknown("txn") });
        }
        if let Some(late) = fate.late {
            let (store, checker) = (self.store.clone(), Arc::clone(&self.checker));
            let writer = self.writer.clone();
            tokio::spawn(async move {
                tokio::time::sleep(late).await;
                // Nobody waits for the answer any more.
                let _ = apply(&store, &checker, &ops, &writer);
            });
            tokio::time::sleep(TIMEOUT).await;
            self.awake().await;
            return Err(Self::unknown("txn"));
        }
        let (elections, electing) = {
            let net = self.net();
            (net.elections, net.electing)
        };
        if electing {
            return self.leaderless(ops).await;
        }
        let result = apply(&self.store, &self.checker, &ops, &self.writer);
        tokio::time::sleep(fate.back).await;
        self.awake().await;
        let unsaid = self.net().leader_left_unsaid(elections);
        if fate.reply_lost || unsaid || !self.hears() {
            tokio::time::sleep(TIMEOUT).await;
            return Err(Self::unknown("txn"));
        }
        result
    }
}
