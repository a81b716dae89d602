//! The cable between one node and the embedded store.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use zsha_runtime::store::{Entry, Listing, MemoryStore, Op, Read, Store, StoreError, Txn};

/// The time that a request to Consul may take.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Link {
    store: MemoryStore,
    cut: watch::Sender<bool>,
}

impl Link {
    pub(super) fn new(store: MemoryStore) -> Self {
        Self { store, cut: watch::Sender::new(false) }
    }

    pub(super) fn cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }

    /// The answer, unless the cable is or becomes cut: then none, after a while.
    async fn through<T>(
        &self,
        operation: &'static str,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut cut = self.cut.subscribe();
        let is_cut = async {
            // The sender lives as long as this link.
            let _ = cut.wait_for(|cut| *cut).await;
        };
        tokio::select! {
            biased;
            () = is_cut => {}
            answer = answer => return answer,
        }
        tokio::time::sleep(TIMEOUT).await;
        Err(StoreError::Unknown {
            operation: operation.to_owned(),
            reason: "no answer within 1 s".to_owned(),
        })
    }
}

#[async_trait]
impl Store for Link {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.through("get", self.store.get(key, read)).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.through("list", self.store.list(prefix, read)).await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.through("watch", self.store.watch(prefix, after, wait)).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.through("txn", self.store.txn(ops)).await
    }
}
