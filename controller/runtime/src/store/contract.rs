//! The contract of [`Store`] as tests: the same cases run on every implementation, each below a prefix of its own.
//! It asserts what the prose of [`super`] promises and nothing that only one implementation happens to do.

#![allow(clippy::unwrap_used, reason = "these are tests, run on stores of several crates")]

use std::time::Duration;

use futures::future::BoxFuture;

use super::{Entry, MAX_TXN_BYTES, Op, Read, Store, StoreError, Txn};

/// A case by its name: a store, and a prefix ending in `/` that nothing else uses.
pub type Case = (&'static str, for<'a> fn(&'a dyn Store, &'a str) -> BoxFuture<'a, ()>);

/// A wait so long that a watch which needs it has failed.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(1);

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        /// Every case, to be run in this order.
        pub fn cases() -> Vec<Case> {
            vec![$((stringify!($name), |store, root| Box::pin($name(store, root)))),*]
        }

        #[cfg(test)]
        mod on_the_embedded_store {
            use crate::store::MemoryStore;

            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(&MemoryStore::new(), "contract/").await;
            })*
        }
    };
}

contract![
    // First: it needs a store that was never written to.
    a_watch_from_index_0_blocks_like_one_from_1,
    an_absent_key_and_an_empty_prefix_are_answers,
    a_key_is_read_without_its_longer_neighbours,
    a_commit_tells_the_index_of_every_key,
    a_later_write_anywhere_has_a_higher_index,
    creating_what_exists_is_a_conflict,
    a_cas_at_another_index_is_a_conflict,
    deleting_what_is_not_there_is_a_conflict,
    a_transaction_is_all_or_nothing_and_names_what_failed,
    checks_hold_back_the_whole_transaction,
    a_key_may_be_checked_and_written_in_one_transaction,
    an_empty_transaction_is_in_force,
    a_write_of_an_identical_value_keeps_its_index,
    a_write_of_an_identical_value_wakes_nobody,
    values_are_any_text,
    keys_with_any_characters_are_kept_apart,
    a_key_that_the_path_would_mangle_is_refused,
    a_prefix_without_a_slash_is_refused,
    a_listing_holds_its_prefix_and_no_neighbour,
    a_listing_is_in_key_order,
    every_kind_of_read_sees_a_settled_write,
    a_transaction_over_its_budget_is_refused_before_it_is_sent,
    a_transaction_of_64_operations_and_256_kib_commits,
    a_hedged_write_commits_and_conflicts_as_any_other,
    a_watch_returns_at_once_when_something_has_changed_already,
    a_watch_returns_when_a_key_is_written,
    a_watch_returns_when_a_key_is_deleted,
    a_watch_returns_at_the_end_of_its_wait,
    a_watch_of_one_key_shows_that_key_alone,
    an_absent_key_can_be_watched_into_being,
    a_wake_up_by_a_neighbour_shows_an_unchanged_listing,
];

fn create(key: &str, value: &str) -> Op {
    Op::Create { key: key.to_owned(), value: value.to_owned() }
}

fn cas(key: &str, value: &str, index: u64) -> Op {
    Op::Cas { key: key.to_owned(), value: value.to_owned(), index }
}

fn delete(key: &str, index: u64) -> Op {
    Op::DeleteCas { key: key.to_owned(), index }
}

fn check(key: &str, index: u64) -> Op {
    Op::CheckIndex { key: key.to_owned(), index }
}

fn absent(key: &str) -> Op {
    Op::CheckAbsent { key: key.to_owned() }
}

async fn commit(store: &dyn Store, ops: Vec<Op>) -> Vec<u64> {
    match store.txn(ops).await.unwrap() {
        Txn::Committed { indices } => indices,
        conflict @ Txn::Conflict { .. } => panic!("{conflict:?}"),
    }
}

async fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    commit(store, vec![create(key, value)]).await[0]
}

async fn conflict(store: &dyn Store, ops: Vec<Op>) -> Vec<usize> {
    match store.txn(ops).await.unwrap() {
        Txn::Conflict { failed, message } => {
            assert!(!message.is_empty());
            failed
        }
        committed @ Txn::Committed { .. } => panic!("{committed:?}"),
    }
}

async fn get(store: &dyn Store, key: &str) -> Option<Entry> {
    store.get(key, Read::Consistent).await.unwrap()
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix, Read::Consistent).await.unwrap();
    listing.entries.into_iter().map(|entry| entry.key).collect()
}

fn entry(key: &str, value: &str, modify_index: u64) -> Entry {
    Entry { key: key.to_owned(), value: value.to_owned(), modify_index }
}

async fn a_watch_from_index_0_blocks_like_one_from_1(store: &dyn Store, root: &str) {
    let key = format!("{root}first");
    let (listing, index) = tokio::join!(store.watch(root, 0, LONG), put(store, &key, "x"));
    assert_eq!(listing.unwrap().entries, [entry(&key, "x", index)]);
}

async fn an_absent_key_and_an_empty_prefix_are_answers(store: &dyn Store, root: &str) {
    for read in [Read::Consistent, Read::Default, Read::Stale] {
        assert_eq!(store.get(&format!("{root}none"), read).await, Ok(None));
        let listing = store.list(root, read).await.unwrap();
        assert!(listing.entries.is_empty());
        assert!(listing.index >= 1);
    }
}

async fn a_key_is_read_without_its_longer_neighbours(store: &dyn Store, root: &str) {
    for name in ["n10", "n1/x"] {
        put(store, &format!("{root}{name}"), "1").await;
    }
    for read in [Read::Consistent, Read::Default, Read::Stale] {
        assert_eq!(store.get(&format!("{root}n1"), read).await, Ok(None));
    }
}

async fn a_commit_tells_the_index_of_every_key(store: &dyn Store, root: &str) {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| format!("{root}{name}"));
    let made = commit(store, vec![create(&a, "1"), create(&b, "1"), create(&c, "1")]).await;
    assert_eq!(get(store, &a).await, Some(entry(&a, "1", made[0])));
    let ops = vec![cas(&a, "2", made[0]), delete(&b, made[1]), check(&c, made[2]), absent(&d)];
    let next = commit(store, ops).await;
    assert_eq!(next.len(), 4);
    assert_eq!(get(store, &a).await, Some(entry(&a, "2", next[0])));
    assert!(next[0] > made[0]);
    assert_eq!(next[1], 0);
    assert_eq!(next[2], made[2]);
    assert_eq!(next[3], 0);
    assert_eq!(get(store, &b).await, None);
}

async fn a_later_write_anywhere_has_a_higher_index(store: &dyn Store, root: &str) {
    let mut last = 0;
    for name in ["z", "a", "m/n"] {
        let index = put(store, &format!("{root}{name}"), "x").await;
        assert!(index > last);
        last = index;
    }
    let listing = store.list(root, Read::Consistent).await.unwrap();
    assert!(listing.index >= last);
}

async fn creating_what_exists_is_a_conflict(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    assert_eq!(conflict(store, vec![create(&key, "2")]).await, [0]);
    assert_eq!(get(store, &key).await, Some(entry(&key, "1", index)));
}

async fn a_cas_at_another_index_is_a_conflict(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    assert_eq!(conflict(store, vec![cas(&key, "2", 1)]).await, [0]);
    let first = put(store, &key, "1").await;
    let second = commit(store, vec![cas(&key, "2", first)]).await[0];
    assert_eq!(conflict(store, vec![cas(&key, "3", first)]).await, [0]);
    assert_eq!(conflict(store, vec![cas(&key, "3", second + 1)]).await, [0]);
    assert_eq!(get(store, &key).await, Some(entry(&key, "2", second)));
}

async fn deleting_what_is_not_there_is_a_conflict(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    assert_eq!(conflict(store, vec![delete(&key, 1)]).await, [0]);
    let index = put(store, &key, "1").await;
    assert_eq!(conflict(store, vec![delete(&key, index + 1)]).await, [0]);
    assert_eq!(get(store, &key).await, Some(entry(&key, "1", index)));
    assert_eq!(commit(store, vec![delete(&key, index)]).await, [0]);
    assert_eq!(conflict(store, vec![delete(&key, index)]).await, [0]);
}

async fn a_transaction_is_all_or_nothing_and_names_what_failed(store: &dyn Store, root: &str) {
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{root}{name}"));
    let index = put(store, &b, "1").await;
    let ops = vec![create(&a, "1"), create(&b, "2"), create(&c, "1"), check(&b, index + 1)];
    assert_eq!(conflict(store, ops).await, [1, 3]);
    assert_eq!(keys(store, root).await.len(), 1);
    assert_eq!(get(store, &b).await, Some(entry(&b, "1", index)));
}

async fn checks_hold_back_the_whole_transaction(store: &dyn Store, root: &str) {
    let [a, b] = ["a", "b"].map(|name| format!("{root}{name}"));
    let index = put(store, &a, "1").await;
    assert_eq!(conflict(store, vec![create(&b, "1"), absent(&a)]).await, [1]);
    assert_eq!(conflict(store, vec![check(&a, index - 1), create(&b, "1")]).await, [0]);
    assert_eq!(conflict(store, vec![check(&format!("{root}none"), index), create(&b, "1")]).await, [0]);
    assert_eq!(get(store, &b).await, None);
    commit(store, vec![check(&a, index), absent(&b), create(&format!("{root}c"), "1")]).await;
}

async fn a_key_may_be_checked_and_written_in_one_transaction(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    let indices = commit(store, vec![check(&key, index), cas(&key, "2", index)]).await;
    assert_eq!(get(store, &key).await, Some(entry(&key, "2", indices[1])));
    // Operations see those before them.
    assert_eq!(conflict(store, vec![cas(&key, "3", indices[1]), check(&key, indices[1])]).await, [1]);
}

async fn an_empty_transaction_is_in_force(store: &dyn Store, _root: &str) {
    assert_eq!(commit(store, Vec::new()).await, Vec::<u64>::new());
}

async fn a_write_of_an_identical_value_keeps_its_index(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "same").await;
    let before = store.list(root, Read::Consistent).await.unwrap();
    let again = commit(store, vec![cas(&key, "same", index)]).await;
    assert_eq!(again, [index], "whoever writes next must name the index that is in force");
    assert_eq!(store.list(root, Read::Consistent).await.unwrap(), before);
    commit(store, vec![cas(&key, "other", again[0])]).await;
}

async fn a_write_of_an_identical_value_wakes_nobody(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "same").await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    let began = tokio::time::Instant::now();
    let same = commit(store, vec![cas(&key, "same", index)]);
    let (listing, _) = tokio::join!(store.watch(root, seen.index, SHORT), same);
    assert!(began.elapsed() >= SHORT, "woken after {:?} of {SHORT:?}", began.elapsed());
    assert_eq!(listing.unwrap().entries, seen.entries);
}

async fn values_are_any_text(store: &dyn Store, root: &str) {
    let values = ["", " ", "two\nlines\r\n\t", "ä€🦀", "\"{}\\\"", "\u{0}\u{7f}"];
    for (place, value) in values.into_iter().enumerate() {
        let key = format!("{root}{place}");
        put(store, &key, value).await;
        assert_eq!(get(store, &key).await.unwrap().value, value);
    }
}

async fn keys_with_any_characters_are_kept_apart(store: &dyn Store, root: &str) {
    let names = [
        "a b",
        "a+b",
        "a%20b",
        "a?b",
        "a&dc=x",
        "a#b",
        "a%2Fb",
        "a/b",
        "ä🦀",
        "a=b;c",
        "..a",
        "a\"'\\<>|^`{}[]",
    ];
    for name in names {
        put(store, &format!("{root}{name}"), name).await;
    }
    for name in names {
        assert_eq!(get(store, &format!("{root}{name}")).await.unwrap().value, name);
    }
    assert_eq!(keys(store, root).await.len(), names.len());
    let odd = format!("{root}p r%e?f#ix/");
    let key = format!("{odd}k");
    put(store, &key, "x").await;
    assert_eq!(keys(store, &odd).await, [key]);
}

async fn a_key_that_the_path_would_mangle_is_refused(store: &dyn Store, root: &str) {
    let keys = [
        "".to_owned(),
        format!("{root}a\u{1}"),
        format!("{root}a\u{a0}b"),
        format!("{root}a\nb"),
        "/x".to_owned(),
        format!("{root}a//b"),
        format!("{root}../b"),
        format!("{root}./b"),
        root.to_owned(),
    ];
    for key in keys {
        let refused = |error| matches!(error, Err(StoreError::Invalid { .. }));
        assert!(refused(store.get(&key, Read::Default).await.map(drop)), "{key}");
        assert!(refused(store.txn(vec![create(&key, "x")]).await.map(drop)), "{key}");
        assert!(refused(store.txn(vec![absent(&key)]).await.map(drop)), "{key}");
    }
}

async fn a_prefix_without_a_slash_is_refused(store: &dyn Store, root: &str) {
    for prefix in [root.trim_end_matches('/'), "", "/"] {
        let result = store.list(prefix, Read::Default).await;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "'{prefix}'");
    }
    for prefix in ["", "/"] {
        let result = store.watch(prefix, 1, SHORT).await;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "'{prefix}'");
    }
}

async fn a_listing_holds_its_prefix_and_no_neighbour(store: &dyn Store, root: &str) {
    for name in ["a/1", "a/b/2", "a1/3", "a", "ab/4"] {
        put(store, &format!("{root}{name}"), name).await;
    }
    assert_eq!(keys(store, &format!("{root}a/")).await, [format!("{root}a/1"), format!("{root}a/b/2")]);
    assert_eq!(keys(store, root).await.len(), 5);
}

async fn a_listing_is_in_key_order(store: &dyn Store, root: &str) {
    for name in ["b", "a/z", "a", "ä", "a-", "B", "a/a"] {
        put(store, &format!("{root}{name}"), name).await;
    }
    let listed = keys(store, root).await;
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(listed, sorted);
}

async fn every_kind_of_read_sees_a_settled_write(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    for read in [Read::Consistent, Read::Default, Read::Stale] {
        assert_eq!(store.get(&key, read).await, Ok(Some(entry(&key, "1", index))));
        assert_eq!(store.list(root, read).await.unwrap().entries, [entry(&key, "1", index)]);
    }
}

async fn a_transaction_over_its_budget_is_refused_before_it_is_sent(store: &dyn Store, root: &str) {
    let key = |n: usize| format!("{root}{n:02}");
    let too_many = (0..65).map(|n| create(&key(n), "x")).collect();
    let too_many_deletions = (0..33).map(|n| delete(&key(n), 1)).collect();
    let too_large = vec![create(&key(0), &"x".repeat(MAX_TXN_BYTES))];
    let no_index = vec![cas(&key(0), "x", 0)];
    let no_deletion = vec![delete(&key(0), 0)];
    for ops in [too_many, too_many_deletions, too_large, no_index, no_deletion] {
        assert!(matches!(store.txn(ops).await, Err(StoreError::Invalid { .. })));
    }
    assert!(keys(store, root).await.is_empty());
}

async fn a_transaction_of_64_operations_and_256_kib_commits(store: &dyn Store, root: &str) {
    let mut ops: Vec<_> = (0..63).map(|n| create(&format!("{root}{n:02}"), "x")).collect();
    let last = format!("{root}63");
    let used: usize = ops.iter().map(Op::len).sum::<usize>() + last.len();
    ops.push(create(&last, &"y".repeat(MAX_TXN_BYTES - used)));
    let indices = commit(store, ops).await;
    assert_eq!(indices.len(), 64);
    let deletions = (0..32).map(|n| delete(&format!("{root}{n:02}"), indices[n])).collect();
    commit(store, deletions).await;
    assert_eq!(keys(store, root).await.len(), 32);
}

async fn a_hedged_write_commits_and_conflicts_as_any_other(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    let hedged = store.txn_hedged(vec![cas(&key, "2", index)], LONG).await.unwrap();
    assert!(hedged.committed());
    let again = store.txn_hedged(vec![cas(&key, "3", index)], LONG).await.unwrap();
    assert!(matches!(again, Txn::Conflict { .. }));
}

async fn a_watch_returns_at_once_when_something_has_changed_already(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    let index = commit(store, vec![cas(&key, "2", index)]).await[0];
    let listing = store.watch(root, seen.index, LONG).await.unwrap();
    assert_eq!(listing.entries, [entry(&key, "2", index)]);
    assert!(listing.index > seen.index);
}

async fn a_watch_returns_when_a_key_is_written(store: &dyn Store, root: &str) {
    put(store, &format!("{root}a"), "1").await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    let key = format!("{root}b");
    let (listing, index) = tokio::join!(store.watch(root, seen.index, LONG), put(store, &key, "1"));
    assert_eq!(listing.unwrap().entries.last(), Some(&entry(&key, "1", index)));
}

async fn a_watch_returns_when_a_key_is_deleted(store: &dyn Store, root: &str) {
    let [a, b] = ["a", "b"].map(|name| format!("{root}{name}"));
    let indices = commit(store, vec![create(&a, "1"), create(&b, "1")]).await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    let (listing, _) =
        tokio::join!(store.watch(root, seen.index, LONG), commit(store, vec![delete(&a, indices[0])]));
    assert_eq!(listing.unwrap().entries, [entry(&b, "1", indices[1])]);
}

async fn a_watch_returns_at_the_end_of_its_wait(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    put(store, &key, "1").await;
    let seen = store.list(root, Read::Consistent).await.unwrap();
    for wait in [Duration::from_millis(20), SHORT] {
        let listing = tokio::time::timeout(LONG, store.watch(root, seen.index, wait)).await;
        assert_eq!(listing.expect("it ends by itself").unwrap().entries, seen.entries);
    }
}

async fn a_watch_of_one_key_shows_that_key_alone(store: &dyn Store, root: &str) {
    let [key, longer, below] = ["k", "kk", "k/x"].map(|name| format!("{root}{name}"));
    let index = commit(store, vec![create(&longer, "1"), create(&below, "1"), create(&key, "1")]).await[2];
    let listing = store.watch(&key, 1, LONG).await.unwrap();
    assert_eq!(listing.entries, [entry(&key, "1", index)]);
}

async fn an_absent_key_can_be_watched_into_being(store: &dyn Store, root: &str) {
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

async fn a_wake_up_by_a_neighbour_shows_an_unchanged_listing(store: &dyn Store, root: &str) {
    let empty = format!("{root}empty/");
    let seen = store.list(&empty, Read::Consistent).await.unwrap();
    let neighbour = format!("{root}neighbour");
    let (listing, _) = tokio::join!(store.watch(&empty, seen.index, SHORT), put(store, &neighbour, "1"));
    assert!(listing.unwrap().entries.is_empty());
}
