//! Events: what happened and why, for people. Publishing never waits: one task writes the events, and counts up those
//! that say the same. It keeps at most so many a node, and writes at most so often. An event that cannot be kept is
//! logged, never lost in silence; nothing decides anything by events.

mod book;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;
use zsha_crds::records::EventType;
use zsha_crds::{EventReason, Keys, NodeName};

use crate::backoff::{Backoff, BackoffConfig};
use crate::clock::Clock;
use crate::store::{Read, Store, StoreError, Txn};

use book::{Batch, Book};

/// The number of events that may wait to be taken in by the task.
const QUEUED: usize = 256;

/// A longer message is cut: an event is a sentence, not a log.
const LONGEST_MESSAGE: usize = 1024;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: EventType,
    /// One CamelCase word.
    pub reason: String,
    pub message: String,
    /// The thing it is about: `vm/mnvm`, `node/nfs-1`, `cluster/prod`.
    pub regarding: String,
}

impl Event {
    /// An event as severe as its reason says.
    pub fn new(reason: EventReason, regarding: impl Into<String>, message: impl Into<String>) -> Self {
        let (kind, reason) = (reason.severity(), reason.as_str().to_owned());
        Self { kind, reason, message: message.into(), regarding: regarding.into() }
    }
}

#[derive(Debug, Clone)]
pub struct Config {
    /// The number of events kept of a node; the newest stay.
    pub kept: usize,
    /// The shortest time between two writes.
    pub min_interval: Duration,
    /// How long the last events may take to be written once every [`Recorder`] is gone.
    pub farewell: Duration,
    pub backoff: BackoffConfig,
    /// The seed of the jitter.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kept: 100,
            min_interval: Duration::from_millis(500),
            farewell: Duration::from_secs(3),
            backoff: BackoffConfig::default(),
            seed: 0,
        }
    }
}

#[derive(Debug)]
struct Noted {
    event: Event,
    at: Timestamp,
}

/// The place where events are published. Clones publish to the same task.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Noted>,
    clock: Clock,
}

impl Recorder {
    /// The recorder of a node, and the task that writes what it is told; let [`Task::run`] run somewhere.
    pub fn new(
        store: Arc<dyn Store>,
        keys: &Keys,
        node: NodeName,
        clock: Clock,
        config: Config,
    ) -> (Self, Task) {
        let (queue, published) = mpsc::channel(QUEUED);
        let prefix = keys.events_of(&node);
        let backoff = Backoff::new(config.backoff, config.seed);
        let book = Book::new(prefix.clone(), node, config.kept);
        (Self { queue, clock }, Task { store, prefix, published, book, config, backoff, loaded: false })
    }

    /// Hands the event to the task; never waits.
    pub fn publish(&self, mut event: Event) {
        if event.message.len() > LONGEST_MESSAGE {
            let end = event.message.floor_char_boundary(LONGEST_MESSAGE);
            event.message.truncate(end);
        }
        if let Err(error) = self.queue.try_send(Noted { event, at: self.clock.wall() }) {
            let why = match &error {
                mpsc::error::TrySendError::Full(_) => "the queue is full",
                mpsc::error::TrySendError::Closed(_) => "its task has ended",
            };
            dropped(&error.into_inner().event, why);
        }
    }
}

fn dropped(event: &Event, why: &str) {
    tracing::warn!(
        why,
        kind = ?event.kind,
        reason = event.reason,
        regarding = event.regarding,
        event = event.message,
        "event not recorded"
    );
}

/// Writes what the [`Recorder`]s publish.
#[derive(Debug)]
pub struct Task {
    store: Arc<dyn Store>,
    prefix: String,
    published: mpsc::Receiver<Noted>,
    book: Book,
    config: Config,
    backoff: Backoff,
    /// True if the book knows what is stored.
    loaded: bool,
}

impl Task {
    /// Writes until every recorder is gone and what they published is written, or the farewell is over.
    pub async fn run(mut self) {
        while let Some(noted) = self.published.recv().await {
            self.note(noted);
            while !self.book.is_written() {
                let pause = self.write().await.unwrap_or(self.config.min_interval);
                if !self.take_in_until(Instant::now() + pause).await {
                    break;
                }
            }
        }
        // Looked at between writes only: what is being written when time is up is neither kept nor lost.
        let farewell = Instant::now() + self.config.farewell;
        while !self.book.is_written() && Instant::now() < farewell {
            if let Some(pause) = self.write().await {
                tokio::time::sleep(pause).await;
            }
        }
        for event in self.book.rest() {
            dropped(&event, "the store could not be written in time");
        }
    }

    fn note(&mut self, Noted { event, at }: Noted) {
        if let Some(pushed_out) = self.book.note(event, at) {
            dropped(&pushed_out, "too many are waiting to be written");
        }
    }

    /// Takes in events until that moment; false if none can come any more.
    async fn take_in_until(&mut self, moment: Instant) -> bool {
        loop {
            tokio::select! {
                biased;
                noted = self.published.recv() => match noted {
                    Some(noted) => self.note(noted),
                    None => return false,
                },
                () = tokio::time::sleep_until(moment) => return true,
            }
        }
    }

    /// Makes one write of what is waiting. If it failed, returns how long to leave the store alone.
    async fn write(&mut self) -> Option<Duration> {
        let Some(batch) = self.prepare().await else { return Some(self.backoff.next_delay()) };
        match self.store.txn(batch.ops()).await {
            Ok(Txn::Committed { indices }) => self.book.written(batch, &indices),
            // Somebody else wrote, or an earlier write of ours came through after all: see what is there.
            Ok(Txn::Conflict { .. }) | Err(StoreError::Unknown { .. }) => {
                self.loaded = false;
                self.book.give_back(batch);
                return Some(self.backoff.next_delay());
            }
            Err(StoreError::Invalid { reason, .. }) => {
                for event in batch.events() {
                    dropped(&event, &reason);
                }
            }
            Err(
                error @ (StoreError::Unavailable { .. }
                | StoreError::Denied { .. }
                | StoreError::Malformed { .. }),
            ) => {
                tracing::debug!(%error, "events are waiting to be written");
                self.book.give_back(batch);
                return Some(self.backoff.next_delay());
            }
        }
        self.backoff.reset();
        None
    }

    /// Chooses what to write next, once it is known what is stored.
    async fn prepare(&mut self) -> Option<Batch> {
        if !self.loaded {
            match self.store.list(&self.prefix, Read::Consistent).await {
                Ok(listing) => self.book.load(listing.entries),
                Err(error) => {
                    tracing::debug!(%error, "events are waiting to be written");
                    return None;
                }
            }
            self.loaded = true;
        }
        Some(self.book.next_batch())
    }
}

#[cfg(test)]
mod tests;
