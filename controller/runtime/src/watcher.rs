//! A prefix of the store (or one key) as a stream of what happened to it: a full list first, then changes as they
//! come. It decides nothing about what it shows, never ends by itself, and never shows a failure as an absence.
//!
//! What a consumer may rely on:
//!
//! - The stream begins with [`Event::Init`], an [`Event::InitApply`] for each key, and [`Event::InitDone`]. The same
//!   may come again at any time, when the store went back in time (a restored snapshot): what is not in the new
//!   list is gone.
//! - Afterwards an [`Event::Apply`] comes only for a key whose index or value differs from what was last shown.
//! - Keys that are gone are shown as [`Event::Delete`]. If *all* are gone, a consistent read is asked first. That
//!   guards against a lagging server; it cannot tell a token that lost its rights, so an empty world remains
//!   something to hold still for.
//! - A snapshot restored just between two looks is noticed at the end of one wait.
//! - An error is an item of the stream. What was shown before it stands; the watcher tries again by itself.
//! - [`Event::Bookmark`] says that the store was asked and nothing is new. Silence says nothing at all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use tokio::time::Instant;

use crate::backoff::{Backoff, BackoffConfig};
use crate::store::{Entry, Listing, Read, Store, StoreError};

/// The longest pause to which fruitless wake-ups (an absent key is woken by every write in the datacenter) slow a
/// watcher down.
const SLOWEST: Duration = Duration::from_secs(1);

/// Something that happened below the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A full list follows; what is not in it is gone.
    Init,
    InitApply(Entry),
    InitDone,
    /// The key was written.
    Apply(Entry),
    /// The key is gone.
    Delete(String),
    /// Nothing is new, and that was just looked up.
    Bookmark,
}

impl Event {
    /// The key that the event is about, if it is about one.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::InitApply(entry) | Self::Apply(entry) => Some(&entry.key),
            Self::Delete(key) => Some(key),
            Self::Init | Self::InitDone | Self::Bookmark => None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Config {
    /// The time that one look may wait for a change. It is not minutes, since it is also how soon a dead path is
    /// noticed.
    pub wait: Duration,
    /// The shortest time between two looks, however fast the prefix changes.
    pub min_interval: Duration,
    pub backoff: BackoffConfig,
    /// The seed of the jitter.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(30),
            min_interval: Duration::from_millis(100),
            backoff: BackoffConfig::default(),
            seed: 0,
        }
    }
}

/// Watches `prefix`, which ends in `/`, or one key.
pub fn watcher(
    store: Arc<dyn Store>,
    prefix: impl Into<String>,
    config: Config,
) -> impl Stream<Item = Result<Event, StoreError>> + Send + 'static {
    let backoff = Backoff::new(config.backoff, config.seed);
    let watch = Watch {
        store,
        prefix: prefix.into(),
        config,
        backoff,
        view: View::default(),
        next: Look::Init,
        ready: VecDeque::new(),
        not_before: None,
        fruitless: 0,
    };
    futures::stream::unfold(watch, |mut watch| async move { Some((watch.next().await, watch)) })
}

/// The way to look next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Look at all anew, consistently.
    Init,
    /// Look without waiting for a change. Behind an error, or a wake-up in vain, there may be a step back, and a wait
    /// for the higher index would sleep through it.
    Now,
    /// Look when something changes.
    Wait,
}

#[derive(Debug)]
struct Watch {
    store: Arc<dyn Store>,
    prefix: String,
    config: Config,
    backoff: Backoff,
    view: View,
    next: Look,
    ready: VecDeque<Event>,
    not_before: Option<Instant>,
    fruitless: u32,
}

impl Watch {
    async fn next(&mut self) -> Result<Event, StoreError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            if let Some(moment) = self.not_before.take() {
                tokio::time::sleep_until(moment).await;
            }
            if let Err(error) = self.look().await {
                self.not_before = Some(Instant::now() + self.backoff.next_delay());
                if self.next == Look::Wait {
                    self.next = Look::Now;
                }
                return Err(error);
            }
            self.backoff.reset();
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        if self.next == Look::Init {
            let listing = self.list(Read::Consistent).await?;
            self.ready.extend(self.view.restart(listing));
            self.next = Look::Wait;
            return Ok(());
        }
        let started = Instant::now();
        let (after, wait) = match self.next {
            Look::Wait => (self.view.index, self.config.wait),
            // From 1: there is something to say about anything that was ever written.
            Look::Init | Look::Now => (1, SLOWEST),
        };
        let listing = self.store.watch(&self.prefix, after, wait).await?;
        match self.view.compare(listing) {
            Comparison::WentBack => {
                tracing::warn!(prefix = self.prefix, "the store's index went back: starting over");
                self.next = Look::Init;
            }
            Comparison::AllGone { index } => {
                let confirmed = self.list(Read::Consistent).await?;
                self.ready.extend(self.view.advance(Listing { index, entries: confirmed.entries }));
                self.next = Look::Wait;
            }
            Comparison::Plain(listing) => {
                let events = self.view.advance(listing);
                let changed = events.iter().any(|event| *event != Event::Bookmark);
                let in_vain = self.next == Look::Wait && !changed && started.elapsed() < self.config.wait;
                self.pace(changed, in_vain);
                self.ready.extend(events);
                // Consul ends a wait when a snapshot is restored, with what was there *before*, and would then wait
                // in full for the higher index of the life that is over.
                self.next = if in_vain { Look::Now } else { Look::Wait };
            }
        }
        Ok(())
    }

    /// Sets when to look again at the earliest. `in_vain`: the watcher was woken up early, and nothing was new.
    fn pace(&mut self, changed: bool, in_vain: bool) {
        if changed {
            self.fruitless = 0;
        }
        let mut pause = self.config.min_interval;
        if in_vain {
            self.fruitless = self.fruitless.saturating_add(1);
            let slowest = SLOWEST.max(self.config.min_interval);
            pause = pause.saturating_mul(1 << self.fruitless.min(10)).min(slowest);
        }
        self.not_before = Some(Instant::now() + pause);
    }

    /// Reads what is there now.
    async fn list(&self, read: Read) -> Result<Listing, StoreError> {
        if self.prefix.ends_with('/') {
            return self.store.list(&self.prefix, read).await;
        }
        let entry = self.store.get(&self.prefix, read).await?;
        // One key's own index is not the one to wait for; waiting from 1 brings that at once.
        Ok(Listing { index: 1, entries: entry.into_iter().collect() })
    }
}

/// The contents that were last shown.
#[derive(Debug, Default)]
struct View {
    index: u64,
    known: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    Plain(Listing),
    AllGone { index: u64 },
    WentBack,
}

impl View {
    fn compare(&self, listing: Listing) -> Comparison {
        if listing.index < self.index || listing.entries.iter().any(|entry| self.is_of_another_time(entry)) {
            Comparison::WentBack
        } else if listing.entries.is_empty() && !self.known.is_empty() {
            Comparison::AllGone { index: listing.index }
        } else {
            Comparison::Plain(listing)
        }
    }

    /// True if the entry is of another time of the store. A key's index only grows, and each index is of one value.
    /// After a snapshot was restored, the index of the whole may have grown past what was seen before this watcher
    /// looked again; the index of a key shows it.
    fn is_of_another_time(&self, entry: &Entry) -> bool {
        self.known.get(&entry.key).is_some_and(|known| {
            entry.modify_index < known.modify_index
                || (entry.modify_index == known.modify_index && entry.value != known.value)
        })
    }

    fn restart(&mut self, listing: Listing) -> Vec<Event> {
        self.index = listing.index;
        self.known = listing.entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
        let applies = listing.entries.into_iter().map(Event::InitApply);
        [Event::Init].into_iter().chain(applies).chain([Event::InitDone]).collect()
    }

    /// The differences, which are never empty: no difference is a bookmark.
    fn advance(&mut self, listing: Listing) -> Vec<Event> {
        self.index = listing.index;
        let mut before = std::mem::take(&mut self.known);
        let mut events = Vec::new();
        for entry in listing.entries {
            // The value as well as the index: after a restored snapshot an index value may come round again.
            if before.remove(&entry.key).as_ref() != Some(&entry) {
                events.push(Event::Apply(entry.clone()));
            }
            self.known.insert(entry.key.clone(), entry);
        }
        events.extend(before.into_keys().map(Event::Delete));
        if events.is_empty() {
            events.push(Event::Bookmark);
        }
        events
    }
}

#[cfg(test)]
mod tests;
