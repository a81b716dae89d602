//! An embedded store with faults that a test switches on and off: the answers Consul gives on a bad day. With none
//! switched on it is the embedded store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{Entry, Listing, MemoryStore, Op, Read, Store, StoreError, Txn};

/// Clones share one store and its faults.
#[derive(Debug, Clone, Default)]
pub struct FaultyStore {
    pub inner: MemoryStore,
    faults: Arc<Mutex<Faults>>,
}

/// The faults that can be switched on.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Every call fails with this, before anything is done.
    pub error: Option<StoreError>,
    /// Reads and watches that are not consistent show nothing, as from a server that lags far behind.
    pub blind_unless_consistent: bool,
    /// Every listing is empty, as for a token without rights.
    pub blind: bool,
    /// A watch returns after this at the latest, with nothing changed, as on an absent key in a busy datacenter.
    pub woken_by_neighbours_after: Option<Duration>,
    /// The next transaction is applied and its answer lost.
    pub lose_next_answer: bool,
    /// Calls so far.
    pub calls: u64,
}

impl FaultyStore {
    pub fn new(inner: MemoryStore) -> Self {
        Self { inner, faults: Arc::default() }
    }

    /// Gives the faults, to look at them or switch them. Hold the guard across no await.
    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every call fail as if no server answered, until `None` is set.
    pub fn make_unavailable(&self) {
        let (operation, reason) = ("call".to_owned(), "switched off by the test".to_owned());
        self.faults().error = Some(StoreError::Unavailable { operation, reason });
    }

    fn call(&self) -> Result<Faults, StoreError> {
        let mut faults = self.faults();
        faults.calls += 1;
        match &faults.error {
            Some(error) => Err(error.clone()),
            None => Ok(faults.clone()),
        }
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        let faults = self.call()?;
        let blind = faults.blind || (faults.blind_unless_consistent && read != Read::Consistent);
        if blind { Ok(None) } else { self.inner.get(key, read).await }
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        let faults = self.call()?;
        let mut listing = self.inner.list(prefix, read).await?;
        if faults.blind || (faults.blind_unless_consistent && read != Read::Consistent) {
            listing.entries.clear();
        }
        Ok(listing)
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        let faults = self.call()?;
        let wait = faults.woken_by_neighbours_after.map_or(wait, |early| early.min(wait));
        let mut listing = self.inner.watch(prefix, after, wait).await?;
        let faults = self.faults();
        if let Some(error) = &faults.error {
            return Err(error.clone());
        }
        if faults.blind || faults.blind_unless_consistent {
            listing.entries.clear();
        }
        Ok(listing)
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.call()?;
        let result = self.inner.txn(ops).await?;
        if std::mem::take(&mut self.faults().lose_next_answer) {
            let (operation, reason) = ("transaction".to_owned(), "its answer was lost".to_owned());
            return Err(StoreError::Unknown { operation, reason });
        }
        Ok(result)
    }
}
