//! Cases on transactions: what commits, what is a conflict, and what is refused. Never here: who is woken by one.

use super::{LONG, absent, cas, check, commit, conflict, create, delete, entry, get, keys, put};
use crate::store::{MAX_TXN_BYTES, Op, Read, Store, StoreError, Txn};

pub(super) async fn a_commit_tells_the_index_of_every_key(store: &dyn Store, root: &str) {
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

pub(super) async fn a_later_write_anywhere_has_a_higher_index(store: &dyn Store, root: &str) {
    let mut last = 0;
    for name in ["z", "a", "m/n"] {
        let index = put(store, &format!("{root}{name}"), "x").await;
        assert!(index > last);
        last = index;
    }
    let listing = store.list(root, Read::Consistent).await.unwrap();
    assert!(listing.index >= last);
}

pub(super) async fn creating_what_exists_is_a_conflict(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    assert_eq!(conflict(store, vec![create(&key, "2")]).await, [0]);
    assert_eq!(get(store, &key).await, Some(entry(&key, "1", index)));
}

pub(super) async fn a_cas_at_another_index_is_a_conflict(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    assert_eq!(conflict(store, vec![cas(&key, "2", 1)]).await, [0]);
    let first = put(store, &key, "1").await;
    let second = commit(store, vec![cas(&key, "2", first)]).await[0];
    assert_eq!(conflict(store, vec![cas(&key, "3", first)]).await, [0]);
    assert_eq!(conflict(store, vec![cas(&key, "3", second + 1)]).await, [0]);
    assert_eq!(get(store, &key).await, Some(entry(&key, "2", second)));
}

pub(super) async fn deleting_what_is_not_there_is_a_conflict(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    assert_eq!(conflict(store, vec![delete(&key, 1)]).await, [0]);
    let index = put(store, &key, "1").await;
    assert_eq!(conflict(store, vec![delete(&key, index + 1)]).await, [0]);
    assert_eq!(get(store, &key).await, Some(entry(&key, "1", index)));
    assert_eq!(commit(store, vec![delete(&key, index)]).await, [0]);
    assert_eq!(conflict(store, vec![delete(&key, index)]).await, [0]);
}

pub(super) async fn a_transaction_is_all_or_nothing_and_names_what_failed(store: &dyn Store, root: &str) {
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{root}{name}"));
    let index = put(store, &b, "1").await;
    let ops = vec![create(&a, "1"), create(&b, "2"), create(&c, "1"), check(&b, index + 1)];
    assert_eq!(conflict(store, ops).await, [1, 3]);
    assert_eq!(keys(store, root).await.len(), 1);
    assert_eq!(get(store, &b).await, Some(entry(&b, "1", index)));
}

pub(super) async fn checks_hold_back_the_whole_transaction(store: &dyn Store, root: &str) {
    let [a, b] = ["a", "b"].map(|name| format!("{root}{name}"));
    let index = put(store, &a, "1").await;
    assert_eq!(conflict(store, vec![create(&b, "1"), absent(&a)]).await, [1]);
    assert_eq!(conflict(store, vec![check(&a, index - 1), create(&b, "1")]).await, [0]);
    assert_eq!(conflict(store, vec![check(&format!("{root}none"), index), create(&b, "1")]).await, [0]);
    assert_eq!(get(store, &b).await, None);
    commit(store, vec![check(&a, index), absent(&b), create(&format!("{root}c"), "1")]).await;
}

pub(super) async fn a_key_may_be_checked_and_written_in_one_transaction(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    let indices = commit(store, vec![check(&key, index), cas(&key, "2", index)]).await;
    assert_eq!(get(store, &key).await, Some(entry(&key, "2", indices[1])));
    // Operations see those before them.
    assert_eq!(conflict(store, vec![cas(&key, "3", indices[1]), check(&key, indices[1])]).await, [1]);
}

pub(super) async fn an_empty_transaction_is_in_force(store: &dyn Store, _root: &str) {
    assert_eq!(commit(store, Vec::new()).await, Vec::<u64>::new());
}

pub(super) async fn a_write_of_an_identical_value_keeps_its_index(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "same").await;
    let before = store.list(root, Read::Consistent).await.unwrap();
    let again = commit(store, vec![cas(&key, "same", index)]).await;
    assert_eq!(again, [index], "whoever writes next must name the index that is in force");
    assert_eq!(store.list(root, Read::Consistent).await.unwrap(), before);
    commit(store, vec![cas(&key, "other", again[0])]).await;
}

pub(super) async fn a_transaction_over_its_budget_is_refused_before_it_is_sent(
    store: &dyn Store,
    root: &str,
) {
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

pub(super) async fn a_transaction_of_64_operations_and_256_kib_commits(store: &dyn Store, root: &str) {
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

pub(super) async fn a_hedged_write_commits_and_conflicts_as_any_other(store: &dyn Store, root: &str) {
    let key = format!("{root}k");
    let index = put(store, &key, "1").await;
    let hedged = store.txn_hedged(vec![cas(&key, "2", index)], LONG).await.unwrap();
    assert!(hedged.committed());
    let again = store.txn_hedged(vec![cas(&key, "3", index)], LONG).await.unwrap();
    assert!(matches!(again, Txn::Conflict { .. }));
}
