//! Tests of the embedded store's own promises: determinism, snapshots, no wake-up without cause.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

const WAIT: Duration = Duration::from_secs(30);

fn create(key: &str, value: &str) -> Op {
    Op::Create { key: key.to_owned(), value: value.to_owned() }
}

fn committed(store: &MemoryStore, op: Op) -> u64 {
    match store.apply(&[op]).unwrap() {
        Txn::Committed { indices } => indices[0],
        conflict @ Txn::Conflict { .. } => panic!("{conflict:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_wakes_for_its_own_prefix_and_for_nothing_else() {
    let store = MemoryStore::new();
    let index = committed(&store, create("a/k", "1"));
    let started = Instant::now();
    let neighbours = async {
        for n in 0..5 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            committed(&store, create(&format!("ab/{n}"), "x"));
            let same = Op::Cas { key: "a/k".into(), value: "1".into(), index };
            committed(&store, same);
        }
    };
    let (listing, ()) = tokio::join!(store.watch("a/", store.index(), WAIT), neighbours);
    assert_eq!(started.elapsed(), WAIT, "five writes elsewhere and five of an identical value woke nobody");
    assert_eq!(listing.unwrap().entries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_before_the_watch_began_is_not_missed() {
    let store = MemoryStore::new();
    let index = committed(&store, create("a/k", "1"));
    let seen = store.read_all("a/").index;
    committed(&store, Op::DeleteCas { key: "a/k".into(), index });
    let started = Instant::now();
    assert!(store.watch("a/", seen, WAIT).await.unwrap().entries.is_empty());
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_forgotten_wakes_at_once() {
    let store = MemoryStore::new();
    let seen = store.read_all("quiet/").index;
    for n in 0..=TOMBSTONES {
        let key = format!("busy/{n}");
        let index = committed(&store, create(&key, "x"));
        committed(&store, Op::DeleteCas { key, index });
    }
    let started = Instant::now();
    store.watch("quiet/", seen, WAIT).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(store.lock().content.tombstones.len() <= TOMBSTONES);
}

#[tokio::test(start_paused = true)]
async fn a_restored_snapshot_takes_the_index_back_and_wakes_every_watch() {
    let store = MemoryStore::new();
    committed(&store, create("a/k", "old"));
    let snapshot = store.snapshot();
    committed(&store, create("a/l", "new"));
    let seen = store.read_all("a/");
    let restore = async { store.restore(snapshot) };
    let started = Instant::now();
    let (listing, ()) = tokio::join!(store.watch("a/", seen.index, WAIT), restore);
    let listing = listing.unwrap();
    assert!(listing.index < seen.index);
    assert_eq!(listing.entries.len(), 1);
    assert_eq!(started.elapsed(), Duration::ZERO);
    // A watch that begins only now holds an index from the life that is over.
    store.watch("a/", seen.index, WAIT).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_dropped_leaves_nothing_behind() {
    let store = MemoryStore::new();
    let watch = store.watch("a/", 1, WAIT);
    assert!(tokio::time::timeout(Duration::from_secs(1), watch).await.is_err());
    assert!(store.lock().waiters.is_empty());
}

#[test]
fn clones_share_one_store() {
    let store = MemoryStore::new();
    committed(&store.clone(), create("a/k", "1"));
    assert_eq!(store.read("a/k").unwrap().value, "1");
}

/// One small step of a random history.
fn op() -> impl Strategy<Value = Op> {
    let key = prop::sample::select(vec!["a/1", "a/2", "b/1"]).prop_map(str::to_owned);
    let value = prop::sample::select(vec!["x", "y"]).prop_map(str::to_owned);
    (key, value, 1..12_u64, 0..5_u8).prop_map(|(key, value, index, kind)| match kind {
        0 => Op::Create { key, value },
        1 => Op::Cas { key, value, index },
        2 => Op::DeleteCas { key, index },
        3 => Op::CheckIndex { key, index },
        _ => Op::CheckAbsent { key },
    })
}

proptest! {
    #[test]
    fn a_conflict_changes_nothing_and_a_commit_only_what_it_names(
        history in prop::collection::vec(prop::collection::vec(op(), 1..4), 1..20)
    ) {
        let store = MemoryStore::new();
        for ops in history {
            let before = store.snapshot();
            let result = store.apply(&ops).unwrap();
            let after = store.snapshot();
            match result {
                Txn::Conflict { failed, .. } => {
                    prop_assert!(!failed.is_empty());
                    prop_assert_eq!(before.content.index, after.content.index);
                    prop_assert_eq!(format!("{:?}", before.content.entries), format!("{:?}", after.content.entries));
                }
                Txn::Committed { indices } => {
                    prop_assert_eq!(indices.len(), ops.len());
                    prop_assert!(after.content.index - before.content.index <= 1);
                    for key in before.content.entries.keys().chain(after.content.entries.keys()) {
                        let same = before.content.get(key) == after.content.get(key);
                        prop_assert!(same || ops.iter().any(|op| op.key() == key));
                    }
                }
            }
        }
    }
}
