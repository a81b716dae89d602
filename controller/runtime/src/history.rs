//! Works out what applying a document writes: the document in force and the record of it, in one transaction. A
//! function of values: it reads nothing, writes nothing and asks no clock.

use serde_json::Value;
use zsha_crds::Keys;
use zsha_crds::records::{HIGHEST, HistoryRecord, StoredSpec};

use jiff::Timestamp;

use crate::store::{Entry, Op};

/// The number of records kept. Older ones go as new ones come.
pub const KEPT: usize = 100;

/// The number of old records that one apply deletes: they share a transaction's budget with the document, twice.
const TRIMMED_AT_ONCE: usize = 16;

/// A document to be put in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The format of the document.
    pub format: u32,
    pub document: Value,
    pub applied_by: String,
    pub applied_at: Timestamp,
    pub message: String,
    /// The command that asks for it, for instance `apply`.
    pub command: String,
}

/// The outcome of applying a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The document in force says the same already: nothing is written.
    Unchanged { generation: u64 },
    /// This transaction puts it in force as `generation`.
    Write { ops: Vec<Op>, generation: u64 },
}

#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error("the document in force at {key} cannot be read, so it is not written over")]
    Unreadable { key: String, source: serde_json::Error },
    #[error("the document cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// The transaction that applies `change` over `current`, the entry of [`Keys::spec`] as it was read. `history` are the
/// entries below [`Keys::history`]. `observed` is the highest generation that any node says it acts on. It is higher
/// than all in the store where the store was put back to an older state, and nodes go on with theirs until a higher one
/// comes. `equivalent` says whether two documents mean the same, once normalised: the generation moves only where they
/// do not.
pub fn apply(
    keys: &Keys,
    current: Option<&Entry>,
    history: &[Entry],
    observed: u64,
    change: Change,
    equivalent: impl Fn(&Value, &Value) -> bool,
) -> Result<Outcome, HistoryError> {
    let in_force = current.map(stored_spec).transpose()?.flatten();
    if let Some(spec) = &in_force
        && spec.generation >= observed
        && equivalent(&spec.document, &change.document)
    {
        return Ok(Outcome::Unchanged { generation: spec.generation });
    }
    let recorded = generations(keys, history);
    // Past every record, too: of a document that was deleted and written anew, say, or restored from a backup.
    let last = recorded.last().map_or(0, |(generation, _)| *generation);
    let generation = in_force.map_or(0, |spec| spec.generation).max(last).max(observed) + 1;
    let mut ops = writes(keys, current, generation, change)?;
    ops.extend(trimmed(&recorded));
    Ok(Outcome::Write { ops, generation })
}

/// The document in force; none where only a placeholder keeps the key in being.
fn stored_spec(entry: &Entry) -> Result<Option<StoredSpec>, HistoryError> {
    if entry.value.trim().is_empty() {
        return Ok(None);
    }
    serde_json::from_str(&entry.value)
        .map(Some)
        .map_err(|source| HistoryError::Unreadable { key: entry.key.clone(), source })
}

/// Records by generation, oldest first.
fn generations<'a>(keys: &Keys, history: &'a [Entry]) -> Vec<(u64, &'a Entry)> {
    let mut recorded: Vec<_> = history
        .iter()
        .filter_map(|entry| Some((entry.key.strip_prefix(&keys.history())?.parse().ok()?, entry)))
        .filter(|(generation, _)| *generation < HIGHEST)
        .collect();
    recorded.sort_by_key(|(generation, _)| *generation);
    recorded
}

fn writes(
    keys: &Keys,
    current: Option<&Entry>,
    generation: u64,
    change: Change,
) -> Result<Vec<Op>, HistoryError> {
    let Change { format, document, applied_by, applied_at, message, command } = change;
    let record = HistoryRecord { generation, format, document, applied_by, applied_at, message, command };
    let record_value = serde_json::to_string(&record).map_err(HistoryError::Unwritable)?;
    let HistoryRecord { document, applied_by, applied_at, message, .. } = record;
    let spec = StoredSpec { generation, format, document, applied_by, applied_at, message };
    let value = serde_json::to_string(&spec).map_err(HistoryError::Unwritable)?;
    let key = keys.spec();
    let write = match current {
        Some(entry) => Op::Cas { key, value, index: entry.modify_index },
        None => Op::Create { key, value },
    };
    Ok(vec![write, Op::Create { key: keys.history_of(generation), value: record_value }])
}

/// Deletions of the oldest records, so that with the new one no more than [`KEPT`] are left.
fn trimmed(recorded: &[(u64, &Entry)]) -> impl Iterator<Item = Op> {
    let surplus = (recorded.len() + 1).saturating_sub(KEPT).min(TRIMMED_AT_ONCE);
    recorded[..surplus]
        .iter()
        .map(|(_, entry)| Op::DeleteCas { key: entry.key.clone(), index: entry.modify_index })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use zsha_crds::ClusterName;

    use super::*;
    use crate::store::{MemoryStore, Txn};

    fn keys() -> Keys {
        Keys::new(&ClusterName::new("c").unwrap())
    }

    fn change(document: Value) -> Change {
        let applied_at = Timestamp::UNIX_EPOCH;
        let by = "admin@host".to_owned();
        Change {
            format: 1,
            document,
            applied_by: by,
            applied_at,
            message: "why".into(),
            command: "apply".into(),
        }
    }

    fn same(a: &Value, b: &Value) -> bool {
        a == b
    }

    /// Applies the document to a real store. Returns the generation it went to, and whether anything was written.
    fn applied(store: &MemoryStore, document: Value) -> (u64, bool) {
        applied_beside(store, 0, document)
    }

    /// Does the same while nodes act on generation `observed`.
    fn applied_beside(store: &MemoryStore, observed: u64, document: Value) -> (u64, bool) {
        let history = store.read_all(&keys().history()).entries;
        let spec = store.read(&keys().spec());
        match apply(&keys(), spec.as_ref(), &history, observed, change(document), same).unwrap() {
            Outcome::Unchanged { generation } => (generation, false),
            Outcome::Write { ops, generation } => {
                assert!(store.apply(&ops).unwrap().committed());
                (generation, true)
            }
        }
    }

    #[test]
    fn the_generation_moves_only_when_the_document_does() {
        let store = MemoryStore::new();
        assert_eq!(applied(&store, json!({"a": 1, "b": 2})), (1, true));
        assert_eq!(applied(&store, json!({"b": 2, "a": 1})), (1, false));
        assert_eq!(applied(&store, json!({"a": 2})), (2, true));
        assert_eq!(applied(&store, json!({"a": 1, "b": 2})), (3, true), "going back is a change, too");
    }

    #[test]
    fn every_generation_has_its_record_with_who_when_and_why() {
        let store = MemoryStore::new();
        applied(&store, json!({"a": 1}));
        applied(&store, json!({"a": 2}));
        let record: HistoryRecord =
            serde_json::from_str(&store.read(&keys().history_of(1)).unwrap().value).unwrap();
        assert_eq!((record.generation, record.document), (1, json!({"a": 1})));
        assert_eq!((&*record.applied_by, &*record.message, &*record.command), ("admin@host", "why", "apply"));
        let spec: StoredSpec = serde_json::from_str(&store.read(&keys().spec()).unwrap().value).unwrap();
        assert_eq!((spec.generation, spec.document), (2, json!({"a": 2})));
    }

    #[test]
    fn of_two_who_apply_to_the_same_revision_one_wins() {
        let store = MemoryStore::new();
        applied(&store, json!(0));
        let seen = store.read(&keys().spec());
        let write = |document| match apply(&keys(), seen.as_ref(), &[], 0, change(document), same).unwrap() {
            Outcome::Write { ops, .. } => store.apply(&ops).unwrap(),
            unchanged @ Outcome::Unchanged { .. } => panic!("{unchanged:?}"),
        };
        // Neither has looked at the history, which alone would not hold the second one back.
        assert!(matches!(write(json!(1)), Txn::Committed { .. }));
        assert!(matches!(write(json!(2)), Txn::Conflict { .. }));
    }

    #[test]
    fn the_newest_hundred_records_are_kept() {
        let store = MemoryStore::new();
        for n in 0..=120 {
            applied(&store, json!(n));
        }
        let kept = store.read_all(&keys().history()).entries;
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].key, keys().history_of(22));
        assert_eq!(kept[KEPT - 1].key, keys().history_of(121));
    }

    #[test]
    fn a_placeholder_is_written_over_and_what_cannot_be_read_is_not() {
        let store = MemoryStore::new();
        store.apply(&[Op::Create { key: keys().spec(), value: String::new() }]).unwrap();
        assert_eq!(applied(&store, json!(1)), (1, true));
        let newer = Entry { key: keys().spec(), value: r#"{"v2":{}}"#.into(), modify_index: 9 };
        let result = apply(&keys(), Some(&newer), &[], 0, change(json!(1)), same);
        assert!(matches!(result, Err(HistoryError::Unreadable { .. })));
    }

    #[test]
    fn a_document_applied_again_to_a_restored_store_goes_past_what_the_nodes_act_on() {
        let store = MemoryStore::new();
        applied(&store, json!(1));
        let snapshot = store.snapshot();
        applied(&store, json!(2));
        applied(&store, json!(3));
        store.restore(snapshot);
        assert_eq!(applied_beside(&store, 3, json!(1)), (4, true), "though it is what is stored");
        assert_eq!(applied_beside(&store, 4, json!(1)), (4, false));
    }

    #[test]
    fn a_document_written_anew_goes_past_every_recorded_generation() {
        let store = MemoryStore::new();
        applied(&store, json!(1));
        applied(&store, json!(2));
        let spec = store.read(&keys().spec()).unwrap();
        store.apply(&[Op::DeleteCas { key: spec.key, index: spec.modify_index }]).unwrap();
        assert_eq!(applied(&store, json!(2)), (3, true));
    }
}
