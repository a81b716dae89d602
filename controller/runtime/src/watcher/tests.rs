//! The watcher against the embedded store and its faults, under a paused clock.

use std::pin::Pin;

use futures::StreamExt;

use super::*;
use crate::store::faulty::FaultyStore;
use crate::store::{MemoryStore, Op, Txn};

type Events = Pin<Box<dyn Stream<Item = Result<Event, StoreError>> + Send>>;

fn put(store: &MemoryStore, key: &str, value: &str) -> Entry {
    let (key, value) = (key.to_owned(), value.to_owned());
    let op = match store.read(&key) {
        Some(Entry { modify_index: index, .. }) => Op::Cas { key: key.clone(), value, index },
        None => Op::Create { key: key.clone(), value },
    };
    assert!(store.apply(&[op]).unwrap().committed());
    store.read(&key).unwrap()
}

fn delete(store: &MemoryStore, key: &str) {
    let index = store.read(key).unwrap().modify_index;
    let result = store.apply(&[Op::DeleteCas { key: key.to_owned(), index }]).unwrap();
    assert!(matches!(result, Txn::Committed { .. }));
}

fn watch(store: &FaultyStore) -> Events {
    Box::pin(watcher(Arc::new(store.clone()), "p/", Config::default()))
}

async fn next(events: &mut Events) -> Event {
    events.next().await.unwrap().unwrap()
}

/// The rest of a full list whose `Init` has been seen.
async fn list(events: &mut Events) -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        match next(events).await {
            Event::InitApply(entry) => entries.push(entry),
            Event::InitDone => return entries,
            other => panic!("{other:?} within a full list"),
        }
    }
}

/// A watcher that has shown its first list.
async fn started(store: &FaultyStore) -> Events {
    let mut events = watch(store);
    assert_eq!(next(&mut events).await, Event::Init);
    assert_eq!(list(&mut events).await, store.inner.read_all("p/").entries);
    events
}

#[tokio::test(start_paused = true)]
async fn a_full_list_comes_first_and_then_each_change_once() {
    let store = FaultyStore::default();
    put(&store.inner, "p/a", "1");
    put(&store.inner, "q/other", "1");
    let mut events = started(&store).await;
    let a = put(&store.inner, "p/a", "2");
    let b = put(&store.inner, "p/b", "1");
    put(&store.inner, "q/other", "2");
    assert_eq!(next(&mut events).await, Event::Apply(a));
    assert_eq!(next(&mut events).await, Event::Apply(b));
    delete(&store.inner, "p/a");
    assert_eq!(next(&mut events).await, Event::Delete("p/a".into()));
    assert_eq!(next(&mut events).await, Event::Bookmark);
}

#[tokio::test(start_paused = true)]
async fn a_return_without_a_change_emits_nothing_but_a_bookmark() {
    let store = FaultyStore::default();
    put(&store.inner, "p/a", "1");
    let mut events = started(&store).await;
    store.faults().woken_by_neighbours_after = Some(Duration::from_millis(1));
    for _ in 0..20 {
        assert_eq!(next(&mut events).await, Event::Bookmark);
    }
}

#[tokio::test(start_paused = true)]
async fn fruitless_wake_ups_slow_down_to_one_a_second_and_a_real_change_ends_that() {
    let store = FaultyStore::default();
    put(&store.inner, "p/a", "1");
    let mut events = started(&store).await;
    store.faults().woken_by_neighbours_after = Some(Duration::ZERO);
    for _ in 0..20 {
        next(&mut events).await;
    }
    let before = Instant::now();
    for _ in 0..10 {
        next(&mut events).await;
    }
    let cycle = SLOWEST + Config::default().min_interval;
    assert_eq!(before.elapsed(), 5 * cycle, "each wake-up in vain is followed by one look without waiting");
    let a = put(&store.inner, "p/a", "2");
    assert_eq!(next(&mut events).await, Event::Apply(a));
    let before = Instant::now();
    assert_eq!(next(&mut events).await, Event::Bookmark);
    assert_eq!(before.elapsed(), Config::default().min_interval);
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_fast_are_looked_at_no_oftener_than_the_minimum_interval() {
    let store = FaultyStore::default();
    put(&store.inner, "p/a", "1");
    let mut events = started(&store).await;
    let calls = store.faults().calls;
    let before = Instant::now();
    let writes = async {
        for n in 0..1_000 {
            put(&store.inner, "p/a", &n.to_string());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let reads = async { while next(&mut events).await != Event::Bookmark {} };
    tokio::join!(writes, reads);
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert!(store.faults().calls - calls <= 13, "{}", store.faults().calls - calls);
}

#[tokio::test(start_paused = true)]
async fn an_index_lower_than_before_starts_over_from_a_full_list() {
    let store = FaultyStore::default();
    let a = put(&store.inner, "p/a", "old");
    let snapshot = store.inner.snapshot();
    put(&store.inner, "p/a", "new");
    put(&store.inner, "p/b", "new");
    let mut events = started(&store).await;
    store.inner.restore(snapshot);
    assert_eq!(next(&mut events).await, Event::Init);
    assert_eq!(list(&mut events).await, [a]);
}

#[tokio::test(start_paused = true)]
async fn a_store_restored_during_an_outage_starts_over_without_waiting_for_a_change() {
    let store = FaultyStore::default();
    let a = put(&store.inner, "p/a", "old");
    let snapshot = store.inner.snapshot();
    put(&store.inner, "p/a", "new");
    let mut events = started(&store).await;
    store.make_unavailable();
    assert!(events.next().await.unwrap().is_err());
    store.inner.restore(snapshot);
    store.faults().error = None;
    assert_eq!(next(&mut events).await, Event::Init);
    assert_eq!(list(&mut events).await, [a]);
}

#[tokio::test(start_paused = true)]
async fn an_index_that_came_round_again_with_another_value_starts_over() {
    let store = FaultyStore::default();
    put(&store.inner, "p/a", "0");
    let snapshot = store.inner.snapshot();
    let before = put(&store.inner, "p/a", "of the first life");
    let mut events = started(&store).await;
    store.make_unavailable();
    assert!(events.next().await.unwrap().is_err());
    store.inner.restore(snapshot);
    let after = put(&store.inner, "p/a", "of the second");
    assert_eq!(before.modify_index, after.modify_index);
    store.faults().error = None;
    assert_eq!(next(&mut events).await, Event::Init);
    assert_eq!(list(&mut events).await, [after]);
}

#[tokio::test(start_paused = true)]
async fn a_step_back_that_later_writes_have_covered_up_shows_by_the_index_of_a_key() {
    let store = FaultyStore::default();
    let first = put(&store.inner, "p/a", "first");
    let snapshot = store.inner.snapshot();
    let second = put(&store.inner, "p/a", "second");
    let mut events = started(&store).await;
    store.make_unavailable();
    assert!(events.next().await.unwrap().is_err());
    store.inner.restore(snapshot);
    let mut last = first.clone();
    while last.modify_index <= second.modify_index {
        last = put(&store.inner, "p/b", &format!("written after {}", last.modify_index));
    }
    store.faults().error = None;
    assert_eq!(next(&mut events).await, Event::Init);
    assert_eq!(list(&mut events).await, [first, last]);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_became_empty_is_believed_only_after_a_consistent_read() {
    let store = FaultyStore::default();
    put(&store.inner, "p/a", "1");
    let mut events = started(&store).await;
    store.faults().blind_unless_consistent = true;
    put(&store.inner, "q/other", "1");
    store.faults().woken_by_neighbours_after = Some(Duration::from_secs(1));
    for _ in 0..3 {
        assert_eq!(next(&mut events).await, Event::Bookmark, "the consistent read still shows it");
    }
    delete(&store.inner, "p/a");
    assert_eq!(next(&mut events).await, Event::Delete("p/a".into()));
}

#[tokio::test(start_paused = true)]
async fn an_empty_list_that_cannot_be_confirmed_is_an_error_and_no_deletion() {
    let store = FaultyStore::default();
    put(&store.inner, "p/a", "1");
    let mut events = started(&store).await;
    let (operation, reason) = (String::new(), String::new());
    let error = StoreError::Unavailable { operation, reason };
    let mut view = View::default();
    view.restart(store.inner.read_all("p/"));
    let empty = Listing { index: 99, entries: Vec::new() };
    assert_eq!(view.compare(empty), Comparison::AllGone { index: 99 });
    store.faults().error = Some(error.clone());
    assert_eq!(events.next().await.unwrap(), Err(error));
    store.faults().error = None;
    assert_eq!(next(&mut events).await, Event::Bookmark, "nothing was taken back meanwhile");
}

#[tokio::test(start_paused = true)]
async fn errors_are_told_and_tried_again_ever_more_slowly_and_nothing_is_missed() {
    let store = FaultyStore::default();
    put(&store.inner, "p/a", "1");
    let mut events = started(&store).await;
    store.make_unavailable();
    let before = Instant::now();
    for _ in 0..50 {
        assert!(events.next().await.unwrap().is_err());
    }
    assert!(before.elapsed() > Duration::from_secs(60), "{:?}", before.elapsed());
    delete(&store.inner, "p/a");
    let b = put(&store.inner, "p/b", "1");
    store.faults().error = None;
    assert_eq!(next(&mut events).await, Event::Apply(b));
    assert_eq!(next(&mut events).await, Event::Delete("p/a".into()));
}

#[tokio::test(start_paused = true)]
async fn one_key_is_watched_like_a_prefix() {
    let store = FaultyStore::default();
    put(&store.inner, "p/kk", "neighbour");
    let mut events: Events = Box::pin(watcher(Arc::new(store.clone()), "p/k", Config::default()));
    assert_eq!(next(&mut events).await, Event::Init);
    assert_eq!(next(&mut events).await, Event::InitDone);
    assert_eq!(next(&mut events).await, Event::Bookmark);
    let k = put(&store.inner, "p/k", "1");
    assert_eq!(next(&mut events).await, Event::Apply(k));
    store.make_unavailable();
    assert!(events.next().await.unwrap().is_err());
    let k = put(&store.inner, "p/k", "2");
    store.faults().error = None;
    assert_eq!(next(&mut events).await, Event::Apply(k));
    delete(&store.inner, "p/k");
    assert_eq!(next(&mut events).await, Event::Delete("p/k".into()));
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_waits_the_same_after_errors() {
    async fn trace(seed: u64) -> Vec<Duration> {
        let store = FaultyStore::default();
        store.make_unavailable();
        let config = Config { seed, ..Config::default() };
        let mut events: Events = Box::pin(watcher(Arc::new(store), "p/", config));
        let start = Instant::now();
        let mut trace = Vec::new();
        for _ in 0..10 {
            assert!(events.next().await.unwrap().is_err());
            trace.push(start.elapsed());
        }
        trace
    }
    assert_eq!(trace(3).await, trace(3).await);
    assert_ne!(trace(3).await, trace(4).await);
}
