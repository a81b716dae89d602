//! Cases on keys, values and listings, as a read shows them. Never here: a wait for a change.

use super::{SHORT, absent, create, entry, get, keys, put};
use crate::store::{Read, Store, StoreError};

pub(super) async fn an_absent_key_and_an_empty_prefix_are_answers(store: &dyn Store, root: &str) {
    for read in [Read::Consistent, Read::Default, Read::Stale] {
        assert_eq!(store.get(&format!("{root}none"), read).await, Ok(None));
        let listing = store.list(root, read).await.unwrap();
        assert!(listing.entries.is_empty());
        assert!(listing.index >= 1);
    }
}

pub(super) async fn a_key_is_read_without_its_longer_neighbours(store: &dyn Store, root: &str) {
    for name in ["n10", "n1/x"] {
        put(store, &format!("{root}{name}"), "1").await;
    }
    for read in [Read::Consistent, Read::Default, Read::Stale] {
        assert_eq!(store.get(&format!("{root}n1"), read).await, Ok(None));
    }
}

pub(super) async fn values_are_any_text(store: &dyn Store, root: &str) {
    let values = ["", " ", "two\nlines\r\n\t", "ä€🦀", "\"{}\\\"", "\u{0}\u{7f}"];
    for (place, value) in values.into_iter().enumerate() {
        let key = format!("{root}{place}");
        put(store, &key, value).await;
        assert_eq!(get(store, &key).await.unwrap().value, value);
    }
}

pub(super) async fn keys_with_any_characters_are_kept_apart(store: &dyn Store, root: &str) {
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

pub(super) async fn a_key_that_the_path_would_mangle_is_refused(store: &dyn Store, root: &str) {
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

pub(super) async fn a_prefix_without_a_slash_is_refused(store: &dyn Store, root: &str) {
    for prefix in [root.trim_end_matches('/'), "", "/"] {
        let result = store.list(prefix, Read::Default).await;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "'{prefix}'");
    }
    for prefix in ["", "/"] {
        let result = store.watch(prefix, 1, SHORT).await;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "'{prefix}'");
    }
}

pub(super) async fn a_listing_holds_its_prefix_and_no_neighbour(store: &dyn Store, root: &str) {
    for name in ["a/1", "a/b/2", "a1/3", "a", "ab/4"] {
        put(store, &format!("{root}{name}"), name).await;
    }
    assert_eq!(keys(store, &format!("{root}a/")).await, [format!("{root}a/1"), format!("{root}a/b/2")]);
    assert_eq!(keys(store, root).await.len(), 5);
}

pub(super) async fn a_listing_is_in_key_order(store: &dyn Store, root: &str) {
    for name in ["b", "a/z", "a", "ä", "a-", "B", "a/a"] {
        put(store, &format!("{root}{name}"), name).await;
    }
    let listed = keys(store, root).await;
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(listed, sorted);
}

pub(super) async fn every_kind_of_read_sees_a_settled_write(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    for read in [Read::Consistent, Read::Default, Read::Stale] {
        assert_eq!(store.get(&key, read).await, Ok(Some(entry(&key, "1", index))));
        assert_eq!(store.list(root, read).await.unwrap().entries, [entry(&key, "1", index)]);
    }
}
