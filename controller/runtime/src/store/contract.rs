//! The contract of [`Store`] as tests: the same cases run on every implementation, each below a prefix of its own.
//! It asserts what the prose of [`super`] promises and nothing that only one implementation happens to do.

#![allow(clippy::unwrap_used, reason = "these are tests, run on stores of several crates")]

mod reading;
mod watching;
mod writing;

use std::time::Duration;

use futures::future::BoxFuture;

use super::{Entry, Op, Read, Store, Txn};
use reading::*;
use watching::*;
use writing::*;

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
