//! The last good state of a prefix, decoded, kept by a watcher and shared by every clone. It never forgets a good value
//! for a bad one or for silence. A value that cannot be decoded, or a prefix that can no longer be looked up, is said
//! beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::clock::{Clock, Moment};
use crate::store::{Entry, StoreError};
use crate::watcher::Event;

/// One decoded value.
#[derive(Debug, PartialEq, Eq)]
pub struct Object<T> {
    pub key: String,
    /// The index of the value, which may be older than what is stored now; see [`Store::undecodable`].
    pub modify_index: u64,
    pub value: Arc<T>,
}

impl<T> Clone for Object<T> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), modify_index: self.modify_index, value: self.value.clone() }
    }
}

/// A stored value that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    pub modify_index: u64,
    pub reason: String,
    /// The moment since when no value that decodes has come.
    pub since: Moment,
}

/// The store could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    pub since: Moment,
    /// The latest error.
    pub error: StoreError,
}

/// The reading side. Clones share one state.
pub struct Store<T> {
    state: Arc<Mutex<State<T>>>,
    ready: watch::Receiver<bool>,
}

/// The writing side, for [`reflector`].
pub struct Writer<T> {
    state: Arc<Mutex<State<T>>>,
    ready: watch::Sender<bool>,
    decode: Decode<T>,
    clock: Clock,
    /// A full list on its way in.
    incoming: Option<Contents<T>>,
}

type Decode<T> = Box<dyn Fn(&Entry) -> Result<T, String> + Send + Sync>;

struct State<T> {
    contents: Contents<T>,
    last_synced: Option<Moment>,
    failing: Option<Failing>,
}

struct Contents<T> {
    objects: BTreeMap<String, Object<T>>,
    undecodable: BTreeMap<String, Undecodable>,
}

impl<T> Default for Contents<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), undecodable: BTreeMap::new() }
    }
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), ready: self.ready.clone() }
    }
}

impl<T> fmt::Debug for Store<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("reflector::Store").field("ready", &*self.ready.borrow()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Writer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("reflector::Writer").field("ready", &*self.ready.borrow()).finish_non_exhaustive()
    }
}

/// A store of JSON values.
pub fn store<T: DeserializeOwned>(clock: Clock) -> (Store<T>, Writer<T>) {
    store_with(clock, |entry| zsha_crds::records::read(&entry.value))
}

/// A store of values that `decode` makes, or says why not.
pub fn store_with<T>(
    clock: Clock,
    decode: impl Fn(&Entry) -> Result<T, String> + Send + Sync + 'static,
) -> (Store<T>, Writer<T>) {
    let state = State { contents: Contents::default(), last_synced: None, failing: None };
    let state = Arc::new(Mutex::new(state));
    let (sender, receiver) = watch::channel(false);
    let writer =
        Writer { state: state.clone(), ready: sender, decode: Box::new(decode), clock, incoming: None };
    (Store { state, ready: receiver }, writer)
}

/// Keeps the writer's store at what the stream shows, and passes every item on once the store has it.
pub fn reflector<T, S>(mut writer: Writer<T>, stream: S) -> impl Stream<Item = Result<Event, StoreError>>
where
    S: Stream<Item = Result<Event, StoreError>>,
{
    stream.inspect(move |item| writer.take(item))
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    // Decoding, the one thing that may panic, is done without the lock.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Store<T> {
    /// Every decoded value, by key. Empty before [`Store::ready`], which means unknown, not absent.
    pub fn state(&self) -> BTreeMap<String, Object<T>> {
        lock(&self.state).contents.objects.clone()
    }

    /// One value.
    pub fn get(&self, key: &str) -> Option<Object<T>> {
        lock(&self.state).contents.objects.get(key).cloned()
    }

    /// True once a full list has been taken in since the start.
    pub fn ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until [`Store::ready`]; false if the writer is gone before.
    pub async fn wait_until_ready(&self) -> bool {
        self.ready.clone().wait_for(|ready| *ready).await.is_ok()
    }

    /// The moment when the store last showed what it holds.
    pub fn last_synced(&self) -> Option<Moment> {
        lock(&self.state).last_synced
    }

    /// The age that the state may have; none before the first full list.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        self.last_synced().map(|synced| now.since(synced))
    }

    /// Tells since when, and why, the store could not be looked at.
    pub fn failing(&self) -> Option<Failing> {
        lock(&self.state).failing.clone()
    }

    /// Keys whose stored value could not be decoded. The last good one, if there was one, is still in force.
    pub fn undecodable(&self) -> BTreeMap<String, Undecodable> {
        lock(&self.state).contents.undecodable.clone()
    }
}

impl<T> Writer<T> {
    /// Takes in one item of a watcher's stream.
    pub fn take(&mut self, item: &Result<Event, StoreError>) {
        let now = self.clock.now();
        match item {
            Ok(event) => self.take_event(event, now),
            Err(error) => {
                let mut state = lock(&self.state);
                let since = state.failing.as_ref().map_or(now, |failing| failing.since);
                state.failing = Some(Failing { since, error: error.clone() });
            }
        }
    }

    fn take_event(&mut self, event: &Event, now: Moment) {
        match event {
            Event::Init => self.incoming = Some(Contents::default()),
            Event::InitApply(entry) => {
                let decoded = (self.decode)(entry);
                let state = lock(&self.state);
                self.incoming.get_or_insert_default().put(entry, decoded, Some(&state.contents), now);
            }
            Event::InitDone => {
                let contents = self.incoming.take().unwrap_or_default();
                let mut state = lock(&self.state);
                state.contents = contents;
                state.synced(now);
                drop(state);
                self.ready.send_replace(true);
            }
            Event::Apply(entry) => {
                let decoded = (self.decode)(entry);
                let mut state = lock(&self.state);
                state.contents.put(entry, decoded, None, now);
                state.synced(now);
            }
            Event::Delete(key) => {
                let mut state = lock(&self.state);
                state.contents.objects.remove(key);
                state.contents.undecodable.remove(key);
                state.synced(now);
            }
            Event::Bookmark => lock(&self.state).synced(now),
        }
    }
}

impl<T> State<T> {
    fn synced(&mut self, now: Moment) {
        self.last_synced = Some(now);
        self.failing = None;
    }
}

impl<T> Contents<T> {
    /// Puts one entry in. `earlier` holds the last good values where these contents are a new list.
    fn put(&mut self, entry: &Entry, decoded: Result<T, String>, earlier: Option<&Self>, now: Moment) {
        let key = entry.key.clone();
        match decoded {
            Ok(value) => {
                self.undecodable.remove(&key);
                let value = Arc::new(value);
                self.objects.insert(key.clone(), Object { key, modify_index: entry.modify_index, value });
            }
            Err(reason) => {
                if let Some(good) = earlier.and_then(|earlier| earlier.objects.get(&key)) {
                    self.objects.insert(key.clone(), good.clone());
                }
                let before = earlier.unwrap_or(self).undecodable.get(&key);
                let since = before.map_or(now, |undecodable| undecodable.since);
                let undecodable = Undecodable { modify_index: entry.modify_index, reason, since };
                self.undecodable.insert(key, undecodable);
            }
        }
    }
}

#[cfg(test)]
mod tests;
