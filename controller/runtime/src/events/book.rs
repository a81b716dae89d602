//! The bookkeeping of events: which are stored, which wait, and the transaction that stores those that wait. Values
//! only; it reads no clock and no store.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;
use zsha_crds::NodeName;
use zsha_crds::records::EventRecord;

use super::Event;
use crate::store::{Entry, MAX_TXN_OPS, Op};

/// The number of different events that may wait to be written, as in a long outage of the store.
const WAITING: usize = 256;

/// The number of events in one transaction. With messages of a kilobyte that is far below its budget of bytes.
const BATCH: usize = 16;

#[derive(Debug)]
pub(super) struct Book {
    prefix: String,
    node: NodeName,
    kept: usize,
    stored: BTreeMap<String, Stored>,
    waiting: BTreeMap<String, Waiting>,
    /// The place of the next new event that waits: the order in which they came.
    next_place: u64,
}

#[derive(Debug)]
struct Stored {
    /// None if the record could not be decoded; such a record is the first to go.
    record: Option<EventRecord>,
    modify_index: u64,
}

#[derive(Debug, Clone)]
struct Waiting {
    event: Event,
    count: u32,
    first_at: Timestamp,
    last_at: Timestamp,
    place: u64,
}

/// A transaction's worth of events, taken out of the book until its fate is known.
#[derive(Debug)]
pub(super) struct Batch {
    written: Vec<(String, Waiting, EventRecord)>,
    trimmed: Vec<String>,
    ops: Vec<Op>,
}

impl Batch {
    pub(super) fn ops(&self) -> Vec<Op> {
        self.ops.clone()
    }

    pub(super) fn events(self) -> impl Iterator<Item = Event> {
        self.written.into_iter().map(|(_, waiting, _)| waiting.event)
    }
}

impl Book {
    pub(super) fn new(prefix: String, node: NodeName, kept: usize) -> Self {
        Self { prefix, node, kept, stored: BTreeMap::new(), waiting: BTreeMap::new(), next_place: 0 }
    }

    /// Takes the event in. If too many are waiting, returns the event that had to go for it.
    pub(super) fn note(&mut self, event: Event, at: Timestamp) -> Option<Event> {
        let key = self.key_of(&event);
        let place = self.next_place;
        self.next_place += 1;
        self.wait(key, Waiting { event, count: 1, first_at: at, last_at: at, place });
        if self.waiting.len() <= WAITING {
            return None;
        }
        let (oldest, _) = self.waiting.iter().min_by_key(|(_, waiting)| waiting.place)?;
        let oldest = oldest.clone();
        self.waiting.remove(&oldest).map(|waiting| waiting.event)
    }

    pub(super) fn is_written(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The events that were never written.
    pub(super) fn rest(self) -> impl Iterator<Item = Event> {
        self.waiting.into_values().map(|waiting| waiting.event)
    }

    /// Takes over what is stored, in place of what was thought to be.
    pub(super) fn load(&mut self, entries: Vec<Entry>) {
        let stored = |entry: Entry| {
            let record = serde_json::from_str(&entry.value).ok();
            (entry.key, Stored { record, modify_index: entry.modify_index })
        };
        self.stored = entries.into_iter().map(stored).collect();
    }

    /// The events that have waited longest, with the deletions that make room for them.
    pub(super) fn next_batch(&mut self) -> Batch {
        let mut keys: Vec<_> =
            self.waiting.iter().map(|(key, waiting)| (waiting.place, key.clone())).collect();
        keys.sort();
        keys.truncate(BATCH);
        let mut batch = Batch { written: Vec::new(), trimmed: Vec::new(), ops: Vec::new() };
        for (_, key) in keys {
            let Some(waiting) = self.waiting.remove(&key) else { continue };
            let (record, op) = self.write_of(&key, &waiting);
            batch.ops.push(op);
            batch.written.push((key, waiting, record));
        }
        self.trim(&mut batch);
        batch
    }

    /// Notes that the batch is in force.
    pub(super) fn written(&mut self, batch: Batch, indices: &[u64]) {
        for ((key, _, record), index) in batch.written.into_iter().zip(indices) {
            self.stored.insert(key, Stored { record: Some(record), modify_index: *index });
        }
        for key in batch.trimmed {
            self.stored.remove(&key);
        }
    }

    /// Lets the events of the batch wait again, since it is not known to be in force. If it came through after all,
    /// they are counted twice, which is better than not at all.
    pub(super) fn give_back(&mut self, batch: Batch) {
        for (key, waiting, _) in batch.written {
            self.wait(key, waiting);
        }
    }

    /// The key of an event: events that say the same have the same key.
    fn key_of(&self, event: &Event) -> String {
        let name = format!("{:?}\0{}\0{}\0{}", event.kind, event.reason, event.regarding, event.message);
        format!("{}{}", self.prefix, Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).simple())
    }

    fn wait(&mut self, key: String, new: Waiting) {
        self.waiting
            .entry(key)
            .and_modify(|waiting| {
                waiting.count = waiting.count.saturating_add(new.count);
                waiting.first_at = waiting.first_at.min(new.first_at);
                waiting.last_at = waiting.last_at.max(new.last_at);
                waiting.place = waiting.place.min(new.place);
            })
            .or_insert(new);
    }

    fn write_of(&self, key: &str, waiting: &Waiting) -> (EventRecord, Op) {
        let before = self.stored.get(key);
        let counted = before.and_then(|stored| stored.record.as_ref());
        let Event { kind, reason, message, regarding } = waiting.event.clone();
        let record = EventRecord {
            kind,
            reason,
            message,
            regarding,
            node: self.node.clone(),
            count: counted.map_or(0, |record| record.count).saturating_add(waiting.count),
            first_at: counted.map_or(waiting.first_at, |record| record.first_at.min(waiting.first_at)),
            last_at: counted.map_or(waiting.last_at, |record| record.last_at.max(waiting.last_at)),
        };
        let value = serde_json::json!(record).to_string();
        let key = key.to_owned();
        let op = match before {
            Some(stored) => Op::Cas { key, value, index: stored.modify_index },
            None => Op::Create { key, value },
        };
        (record, op)
    }

    fn trim(&self, batch: &mut Batch) {
        let touched = |key: &String| batch.written.iter().any(|(written, _, _)| written == key);
        let new = batch.written.iter().filter(|(key, _, _)| !self.stored.contains_key(key)).count();
        let surplus = (self.stored.len() + new).saturating_sub(self.kept);
        let used: usize = batch.ops.iter().map(Op::weight).sum();
        let room = (MAX_TXN_OPS - used) / 2;
        let last_at = |stored: &Stored| stored.record.as_ref().map(|record| record.last_at);
        let mut oldest: Vec<_> = self
            .stored
            .iter()
            .filter(|(key, _)| !touched(key))
            .map(|(key, stored)| (last_at(stored), key.clone(), stored.modify_index))
            .collect();
        oldest.sort();
        for (_, key, index) in oldest.into_iter().take(surplus.min(room)) {
            batch.ops.push(Op::DeleteCas { key: key.clone(), index });
            batch.trimmed.push(key);
        }
    }
}
