//! The judge's ear at the very edge of a node's processes: it notes when a renewal was sent, and whether the node was
//! told that it succeeded. Whatever loses an answer on its way lies behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use zsha_crds::NodeName;
use zsha_runtime::store::{Entry, Listing, Op, Read, Store, StoreError, Txn};

use super::check::{self, Checker};
use super::node_store;

#[derive(Debug)]
pub struct Witness {
    pub node: NodeName,
    /// The key of the node's lease.
    pub lease: String,
    pub inner: Arc<dyn Store>,
    pub checker: Arc<Mutex<Checker>>,
}

/// A request of the keeper until it is answered. One that is given up, or fails, was in vain.
struct Asked<'a> {
    of: Option<&'a Witness>,
    since: Instant,
    in_vain: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(it) = self.of {
            check::lock(&it.checker).validity.asked(&it.node, self.since, self.in_vain);
        }
    }
}

impl<'a> Asked<'a> {
    fn begin(of: Option<&'a Witness>) -> Self {
        let since = Instant::now();
        if let Some(it) = of {
            check::lock(&it.checker).validity.asking(&it.node, since);
        }
        Self { of, since, in_vain: true }
    }

    fn answered<T>(mut self, answer: &Result<T, StoreError>) {
        self.in_vain = answer.is_err();
    }
}

#[async_trait]
impl Store for Witness {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        let asked = Asked::begin((key == self.lease && read == Read::Consistent).then_some(self));
        let answer = self.inner.get(key, read).await;
        asked.answered(&answer);
        answer
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.inner.list(prefix, read).await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.inner.watch(prefix, after, wait).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        let renewal = node_store::renewed(&ops, &self.lease)
            .map(|record| check::lock(&self.checker).validity.sending(&self.node, record));
        let asked = Asked::begin(renewal.is_some().then_some(self));
        let result = self.inner.txn(ops).await;
        asked.answered(&result);
        if let (Ok(Txn::Committed { .. }), Some(renewal)) = (&result, &renewal) {
            check::lock(&self.checker).validity.answered(renewal);
        }
        result
    }
}
