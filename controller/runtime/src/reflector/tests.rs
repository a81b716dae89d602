//! The reflector, fed event by event, and once from a real watcher.

use futures::stream;

use super::*;
use crate::store::{MemoryStore, Op};
use crate::watcher::{Config, watcher};

fn clock() -> Clock {
    Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 }
}

fn entry(key: &str, value: &str, modify_index: u64) -> Entry {
    Entry { key: key.into(), value: value.into(), modify_index }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { operation: "watch".into(), reason: "cut".into() }
}

fn values(store: &Store<u32>) -> Vec<(String, u32)> {
    store.state().into_iter().map(|(key, object)| (key, *object.value)).collect()
}

/// A store that holds `a` = 1 since a full list.
fn filled() -> (Store<u32>, Writer<u32>) {
    let (store, mut writer) = store::<u32>(clock());
    for event in [Event::Init, Event::InitApply(entry("a", "1", 2)), Event::InitDone] {
        writer.take(&Ok(event));
    }
    (store, writer)
}

#[tokio::test(start_paused = true)]
async fn it_is_ready_only_once_a_full_list_is_in() {
    let (store, mut writer) = store::<u32>(clock());
    writer.take(&Ok(Event::Init));
    writer.take(&Ok(Event::InitApply(entry("a", "1", 2))));
    assert!(!store.ready());
    assert_eq!(values(&store), []);
    assert_eq!(store.age(Moment::from_nanos(u64::MAX)), None);
    writer.take(&Ok(Event::InitDone));
    assert!(store.wait_until_ready().await);
    assert_eq!(values(&store), [("a".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_writer_that_is_gone_ends() {
    let (store, writer) = store::<u32>(clock());
    drop(writer);
    assert!(!store.wait_until_ready().await);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_cannot_be_decoded_leaves_the_last_good_one_in_force_and_is_told() {
    let (store, mut writer) = filled();
    writer.take(&Ok(Event::Apply(entry("a", "one", 3))));
    writer.take(&Ok(Event::Apply(entry("b", "two", 4))));
    assert_eq!(values(&store), [("a".to_owned(), 1)]);
    assert_eq!(store.get("a").unwrap().modify_index, 2);
    let undecodable = store.undecodable();
    assert_eq!(undecodable["a"].modify_index, 3);
    assert!(undecodable["a"].reason.contains("expected value"));
    assert!(undecodable.contains_key("b"));
    writer.take(&Ok(Event::Apply(entry("a", "5", 6))));
    assert_eq!(values(&store), [("a".to_owned(), 5)]);
    assert!(!store.undecodable().contains_key("a"));
}

#[tokio::test(start_paused = true)]
async fn a_new_full_list_replaces_everything_but_keeps_the_last_good_value_of_a_bad_one() {
    let (store, mut writer) = filled();
    writer.take(&Ok(Event::Apply(entry("gone", "7", 3))));
    writer.take(&Ok(Event::Apply(entry("a", "bad", 4))));
    let since = store.undecodable()["a"].since;
    tokio::time::advance(Duration::from_secs(5)).await;
    for event in
        [Event::Init, Event::InitApply(entry("a", "still bad", 5)), Event::InitApply(entry("c", "3", 6))]
    {
        writer.take(&Ok(event));
    }
    assert_eq!(values(&store), [("a".to_owned(), 1), ("gone".to_owned(), 7)], "until the list is complete");
    writer.take(&Ok(Event::InitDone));
    assert_eq!(values(&store), [("a".to_owned(), 1), ("c".to_owned(), 3)]);
    assert_eq!(store.undecodable()["a"].since, since);
    writer.take(&Ok(Event::Delete("a".into())));
    assert_eq!(values(&store), [("c".to_owned(), 3)]);
    assert!(store.undecodable().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outage_keeps_the_state_and_says_since_when_and_how_old_it_is() {
    let clock = clock();
    let (store, mut writer) = store::<u32>(clock);
    for event in [Event::Init, Event::InitApply(entry("a", "1", 2)), Event::InitDone] {
        writer.take(&Ok(event));
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    let cut = clock.now();
    writer.take(&Err(unavailable()));
    tokio::time::advance(Duration::from_secs(10)).await;
    writer.take(&Err(unavailable()));
    assert_eq!(store.failing().unwrap().since, cut);
    assert_eq!(store.age(clock.now()), Some(Duration::from_secs(20)));
    assert_eq!(values(&store), [("a".to_owned(), 1)]);
    writer.take(&Ok(Event::Bookmark));
    assert_eq!(store.failing(), None);
    assert_eq!(store.age(clock.now()), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn items_pass_through_once_the_store_has_them() {
    let (store, writer) = store::<u32>(clock());
    let items =
        vec![Ok(Event::Init), Ok(Event::InitDone), Ok(Event::Apply(entry("a", "1", 2))), Err(unavailable())];
    let mut seen = Vec::new();
    let stream = reflector(writer, stream::iter(items.clone()));
    futures::pin_mut!(stream);
    while let Some(item) = stream.next().await {
        assert_eq!(store.get("a").is_some(), seen.len() >= 2);
        seen.push(item);
    }
    assert_eq!(seen, items);
}

#[tokio::test(start_paused = true)]
async fn it_follows_a_watched_store() {
    let memory = MemoryStore::new();
    let create = |key: &str, value: &str| Op::Create { key: key.into(), value: value.into() };
    memory.apply(&[create("p/a", "1")]).unwrap();
    let (store, writer) = store::<u32>(clock());
    let stream = reflector(writer, watcher(Arc::new(memory.clone()), "p/", Config::default()));
    futures::pin_mut!(stream);
    while store.get("p/a").is_none() {
        stream.next().await;
    }
    memory.apply(&[create("p/b", "2")]).unwrap();
    while store.get("p/b").is_none() {
        stream.next().await;
    }
    assert_eq!(values(&store), [("p/a".to_owned(), 1), ("p/b".to_owned(), 2)]);
}
