//! Cases on watches: what ends one, and what it shows then. Never here: what a plain read shows.

use std::time::Duration;

use super::{LONG, SHORT, cas, commit, create, delete, entry, put};
use crate::store::{Read, Store};

pub(super) async fn a_watch_from_index_0_blocks_like_one_from_1(store: &dyn Store, root: &str) {
    let key = format!("{root}first");
    let (listing, index) = tokio::join!(store.watch(root, 0, LONG), put(store, &key, "x"));
    assert_eq!(listing.unwrap().entries, [entry(&key, "x", index)]);
}

pub(super) async fn a_write_of_an_identical_value_wakes_nobody(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "same").await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    let began = tokio::time::Instant::now();
    let same = commit(store, vec![cas(&key, "same", index)]);
    let (listing, _) = tokio::join!(store.watch(root, seen.index, SHORT), same);
    assert!(began.elapsed() >= SHORT, "woken after {:?} of {SHORT:?}", began.elapsed());
    assert_eq!(listing.unwrap().entries, seen.entries);
}

pub(super) async fn a_watch_returns_at_once_when_something_has_changed_already(
    store: &dyn Store,
    root: &str,
) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    let index = commit(store, vec![cas(&key, "2", index)]).await[0];
    let listing = store.watch(root, seen.index, LONG).await.unwrap();
    assert_eq!(listing.entries, [entry(&key, "2", index)]);
    assert!(listing.index > seen.index);
}

pub(super) async fn a_watch_returns_when_a_key_is_written(store: &dyn Store, root: &str) {
    put(store, &format!("{root}a"), "1").await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    let key = format!("{root}b");
    let (listing, index) = tokio::join!(store.watch(root, seen.index, LONG), put(store, &key, "1"));
    assert_eq!(listing.unwrap().entries.last(), Some(&entry(&key, "1", index)));
}

pub(super) async fn a_watch_returns_when_a_key_is_deleted(store: &dyn Store, root: &str) {
    let [a, b] = ["a", "b"].map(|name| format!("{root}{name}"));
    let indices = commit(store, vec![create(&a, "1"), create(&b, "1")]).await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    let (listing, _) =
        tokio::join!(store.watch(root, seen.index, LONG), commit(store, vec![delete(&a, indices[0])]));
    assert_eq!(listing.unwrap().entries, [entry(&b, "1", indices[1])]);
}

pub(super) async fn a_watch_returns_at_the_end_of_its_wait(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    put(store, &key, "1").await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    for wait in [Duration::from_millis(20), SHORT] {
        let listing = tokio::time::timeout(LONG, store.watch(root, seen.index, wait)).await;
        assert_eq!(listing.expect("it ends by itself").unwrap().entries, seen.entries);
    }
}

pub(super) async fn a_watch_of_one_key_shows_that_key_alone(store: &dyn Store, root: &str) {
    let [key, longer, below] = ["k", "kk", "k/x"].map(|name| format!("{root}{name}"));
    let index = commit(store, vec![create(&longer, "1"), create(&below, "1"), create(&key, "1")]).await[2];
    let listing = store.watch(&key, 1, LONG).await.unwrap();
    assert_eq!(listing.entries, [entry(&key, "1", index)]);
}

pub(super) async fn an_absent_key_can_be_watched_into_being(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    put(store, &format!("{root}other"), "1").await;
    let mut listing = store.watch(&key, 1, SHORT).await.unwrap();
    assert!(listing.entries.is_empty());
    assert!(listing.index >= 1);
    let watch = async {
        // Any write may wake it as long as the key is not there.
        while listing.entries.is_empty() {
            listing = store.watch(&key, listing.index, LONG).await.unwrap();
        }
        listing.entries
    };
    let (entries, index) = tokio::join!(watch, put(store, &key, "1"));
    assert_eq!(entries, [entry(&key, "1", index)]);
}

pub(super) async fn a_wake_up_by_a_neighbour_shows_an_unchanged_listing(store: &dyn Store, root: &str) {
    let empty = format!("{root}empty/");
    let seen = store.list(&empty, Read::Consistent).await.unwrap();
    let neighbour = format!("{root}neighbour");
    let (listing, _) = tokio::join!(store.watch(&empty, seen.index, SHORT), put(store, &neighbour, "1"));
    assert!(listing.unwrap().entries.is_empty());
}
