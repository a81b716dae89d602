//! A server that lags behind. A node that reads from it without asking for consistency sees an earlier moment, and is
//! told late of changes.

use std::time::Duration;

use tokio::sync::Notify;
use zsha_runtime::store::{Entry, Listing, MemoryStore};

#[derive(Debug)]
pub struct Lag {
    seen: MemoryStore,
    caught_up: Notify,
}

impl Lag {
    /// A server that from now on shows what is there now.
    pub fn behind(store: &MemoryStore) -> Self {
        let seen = MemoryStore::new();
        seen.restore(store.snapshot());
        Self { seen, caught_up: Notify::new() }
    }

    /// Shows what is there now, until the next call.
    pub fn catch_up(&self, store: &MemoryStore) {
        self.seen.restore(store.snapshot());
        self.caught_up.notify_waiters();
    }

    pub fn read(&self, key: &str) -> Option<Entry> {
        self.seen.read(key)
    }

    pub fn list(&self, prefix: &str) -> Listing {
        self.seen.read_all(prefix)
    }

    /// Answers a blocking query. A server that has not yet come as far as `after` waits until it has, or until time is
    /// up.
    pub async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Listing {
        let caught_up = self.caught_up.notified();
        let newest = self.list(prefix).entries.iter().map(|entry| entry.modify_index).max();
        if newest.is_none_or(|newest| newest <= after) {
            // Caught up or out of time, the answer is the same: what is seen now.
            let _ = tokio::time::timeout(wait, caught_up).await;
        }
        self.list(prefix)
    }
}
