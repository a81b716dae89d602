//! The embedded store: one process's memory, shared by every clone. `zsha-controller dev`, the simulator and most tests
//! run on it. It never spawns, never reads a clock but to end a watch's wait, and wakes a watch only for a change below
//! its prefix, in the order in which watches began: the same calls give the same run.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Entry, Listing, Op, Read, Store, StoreError, Txn, limits};

/// The number of deletions remembered. A watch from before the oldest returns at once, which is always allowed.
const TOMBSTONES: usize = 4096;

/// The embedded store. Clones share one store.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
}

/// All that is stored at one moment; see [`MemoryStore::restore`].
#[derive(Debug, Clone)]
pub struct Snapshot {
    content: Content,
}

#[derive(Debug, Default)]
struct Inner {
    content: Content,
    waiters: BTreeMap<u64, Waiter>,
    next_waiter: u64,
}

#[derive(Debug, Clone)]
struct Content {
    /// The index of the last change anywhere.
    index: u64,
    entries: BTreeMap<String, Stored>,
    tombstones: BTreeMap<String, u64>,
    /// Deletions up to this index may have been forgotten.
    forgotten: u64,
}

#[derive(Debug, Clone)]
struct Stored {
    value: String,
    modify_index: u64,
}

#[derive(Debug)]
struct Waiter {
    target: String,
    woken: Arc<Notify>,
}

impl Default for Content {
    fn default() -> Self {
        Self { index: 1, entries: BTreeMap::new(), tombstones: BTreeMap::new(), forgotten: 0 }
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// [`Store::get`] without the ceremony, for simulators.
    pub fn read(&self, key: &str) -> Option<Entry> {
        self.lock().content.get(key)
    }

    /// The index of one key, without its value.
    pub fn index_of(&self, key: &str) -> Option<u64> {
        self.lock().content.entries.get(key).map(|stored| stored.modify_index)
    }

    /// [`Store::list`] without the ceremony, for simulators.
    pub fn read_all(&self, prefix: &str) -> Listing {
        self.lock().content.list(prefix)
    }

    /// [`Store::txn`] without the ceremony, for simulators.
    pub fn apply(&self, ops: &[Op]) -> Result<Txn, StoreError> {
        limits::transaction(ops)?;
        let mut inner = self.lock();
        let (result, changed) = inner.content.apply(ops);
        if !changed.is_empty() {
            inner.wake(|waiter| changed.iter().any(|key| covers(&waiter.target, key)));
        }
        Ok(result)
    }

    /// Writes as an administrator does with the store's own tools: over whatever is there, with whatever value, however
    /// large. For simulators.
    pub fn overwrite(&self, key: &str, value: &str) {
        let (key, value) = (key.to_owned(), value.to_owned());
        let op = match self.index_of(&key) {
            Some(index) => Op::Cas { key, value, index },
            None => Op::Create { key, value },
        };
        let mut inner = self.lock();
        let (_, changed) = inner.content.apply(&[op]);
        inner.wake(|waiter| changed.iter().any(|key| covers(&waiter.target, key)));
    }

    /// The index of the last change anywhere.
    pub fn index(&self) -> u64 {
        self.lock().content.index
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot { content: self.lock().content.clone() }
    }

    /// Puts everything back as it was, indices included, and wakes every watch, as a real store does.
    pub fn restore(&self, snapshot: Snapshot) {
        let mut inner = self.lock();
        inner.content = snapshot.content;
        inner.wake(|_| true);
    }

    /// Locks the content. No call of this file leaves it half changed, so a panic elsewhere spoils nothing here.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str, _read: Read) -> Result<Option<Entry>, StoreError> {
        limits::key("read", key)?;
        Ok(self.read(key))
    }

    async fn list(&self, prefix: &str, _read: Read) -> Result<Listing, StoreError> {
        limits::prefix("list", prefix)?;
        Ok(self.read_all(prefix))
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        limits::prefix_or_key("watch", prefix)?;
        let registration = {
            let mut inner = self.lock();
            if inner.content.changed_since(prefix, after.max(1)) {
                return Ok(inner.content.list(prefix));
            }
            Registration::new(self, &mut inner, prefix)
        };
        // Woken or out of time, the answer is the same: what is there now.
        let _ = tokio::time::timeout(wait, registration.woken.notified()).await;
        drop(registration);
        Ok(self.read_all(prefix))
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.apply(&ops)
    }
}

/// A watch's place among the waiters, given up when the watch is dropped.
struct Registration<'a> {
    store: &'a MemoryStore,
    id: u64,
    woken: Arc<Notify>,
}

impl<'a> Registration<'a> {
    fn new(store: &'a MemoryStore, inner: &mut Inner, target: &str) -> Self {
        let id = inner.next_waiter;
        inner.next_waiter += 1;
        let woken = Arc::new(Notify::new());
        inner.waiters.insert(id, Waiter { target: target.to_owned(), woken: woken.clone() });
        Self { store, id, woken }
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.store.lock().waiters.remove(&self.id);
    }
}

impl Inner {
    fn wake(&self, which: impl Fn(&Waiter) -> bool) {
        for waiter in self.waiters.values().filter(|waiter| which(waiter)) {
            // Keeps a permit, so a watch that has not been polled yet is woken as well.
            waiter.woken.notify_one();
        }
    }
}

fn covers(target: &str, key: &str) -> bool {
    if target.ends_with('/') { key.starts_with(target) } else { key == target }
}

fn below<'a, V>(map: &'a BTreeMap<String, V>, target: &'a str) -> impl Iterator<Item = (&'a String, &'a V)> {
    map.range::<str, _>((Bound::Included(target), Bound::Unbounded))
        .take_while(move |(key, _)| key.starts_with(target))
        .filter(move |(key, _)| covers(target, key))
}

impl Content {
    fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).map(|stored| stored.entry(key))
    }

    fn list(&self, target: &str) -> Listing {
        let entries = below(&self.entries, target).map(|(key, stored)| stored.entry(key)).collect();
        Listing { index: self.index, entries }
    }

    fn changed_since(&self, target: &str, after: u64) -> bool {
        // An index from another life of the store, or from before what is remembered.
        after > self.index
            || after < self.forgotten
            || below(&self.entries, target).any(|(_, stored)| stored.modify_index > after)
            || below(&self.tombstones, target).any(|(_, deleted)| *deleted > after)
    }

    /// Applies the operations. Returns the result, and the keys that really changed.
    fn apply(&mut self, ops: &[Op]) -> (Txn, Vec<String>) {
        let mut draft = Draft { content: self, index: self.index + 1, writes: Vec::new() };
        let mut indices = Vec::with_capacity(ops.len());
        let mut failed = Vec::new();
        let mut message = String::new();
        for (place, op) in ops.iter().enumerate() {
            match draft.step(op) {
                Ok(index) => indices.push(index),
                Err(reason) => {
                    if failed.is_empty() {
                        message = reason;
                    }
                    failed.push(place);
                }
            }
        }
        if !failed.is_empty() {
            return (Txn::Conflict { failed, message }, Vec::new());
        }
        let writes = draft.writes;
        (Txn::Committed { indices }, self.commit(writes))
    }

    fn commit(&mut self, writes: Vec<(String, Option<Stored>)>) -> Vec<String> {
        if !writes.is_empty() {
            self.index += 1;
        }
        let mut changed = Vec::with_capacity(writes.len());
        for (key, stored) in writes {
            match stored {
                Some(stored) => {
                    self.tombstones.remove(&key);
                    self.entries.insert(key.clone(), stored);
                }
                None => {
                    self.entries.remove(&key);
                    self.tombstones.insert(key.clone(), self.index);
                }
            }
            changed.push(key);
        }
        if self.tombstones.len() > TOMBSTONES {
            self.tombstones.clear();
            self.forgotten = self.index;
        }
        changed
    }
}

/// A transaction under way: what it would change, beside what is there.
struct Draft<'a> {
    content: &'a Content,
    index: u64,
    writes: Vec<(String, Option<Stored>)>,
}

impl Draft<'_> {
    fn present(&self, key: &str) -> Option<&Stored> {
        match self.writes.iter().rev().find(|(written, _)| written == key) {
            Some((_, stored)) => stored.as_ref(),
            None => self.content.entries.get(key),
        }
    }

    /// Does one operation. Returns the key's index after it, or why it does not hold.
    fn step(&mut self, op: &Op) -> Result<u64, String> {
        match op {
            Op::Create { key, value } => {
                self.absent(key)?;
                self.writes
                    .push((key.clone(), Some(Stored { value: value.clone(), modify_index: self.index })));
                Ok(self.index)
            }
            Op::Cas { key, value, index } => {
                if self.at_index(key, *index)?.value == *value {
                    return Ok(*index);
                }
                self.writes
                    .push((key.clone(), Some(Stored { value: value.clone(), modify_index: self.index })));
                Ok(self.index)
            }
            Op::DeleteCas { key, index } => {
                self.at_index(key, *index)?;
                self.writes.push((key.clone(), None));
                Ok(0)
            }
            Op::CheckIndex { key, index } => self.at_index(key, *index).map(|stored| stored.modify_index),
            Op::CheckAbsent { key } => self.absent(key).map(|()| 0),
        }
    }

    fn absent(&self, key: &str) -> Result<(), String> {
        match self.present(key) {
            Some(stored) => Err(format!("'{key}' exists, at index {}", stored.modify_index)),
            None => Ok(()),
        }
    }

    fn at_index(&self, key: &str, index: u64) -> Result<&Stored, String> {
        match self.present(key) {
            Some(stored) if stored.modify_index == index => Ok(stored),
            Some(stored) => Err(format!("'{key}' is at index {}, not {index}", stored.modify_index)),
            None => Err(format!("'{key}' does not exist")),
        }
    }
}

impl Stored {
    fn entry(&self, key: &str) -> Entry {
        Entry { key: key.to_owned(), value: self.value.clone(), modify_index: self.modify_index }
    }
}

#[cfg(test)]
mod tests;
