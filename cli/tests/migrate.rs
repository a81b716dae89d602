//! `zsha migrate`: what is asked for, and what a person is told of the owner's answer.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::time::Duration;

use common::*;
use serde_json::{Value, json};
use zsha::Exit;
use zsha_crds::VmName;
use zsha_runtime::store::MemoryStore;

fn record(store: &MemoryStore) -> Value {
    serde_json::from_str(&store.read(&keys().vm(&VmName::management())).unwrap().value).unwrap()
}

/// Writes what the owner answers once it has seen the request.
async fn answer(store: MemoryStore, outcome: &str, message: &str) {
    let key = keys().intent("migrate");
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    let intent = loop {
        assert!(tokio::time::Instant::now() < patience, "nothing was asked for");
        if let Some(entry) = store.read(&key) {
            break serde_json::from_str::<Value>(&entry.value).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let mut record = record(&store);
    record["answered"] = json!({"id": intent["id"], "outcome": outcome, "message": message});
    put(&store, keys().vm(&VmName::management()), &record);
}

#[tokio::test(start_paused = true)]
async fn a_migration_is_asked_for_by_name_or_address_and_waited_for() {
    for (word, node) in [("nfs-3", "nfs-3"), ("10.0.0.2", "nfs-2")] {
        let store = healthy().await;
        let words = ["migrate", word, "-m", "new fan"];
        let (ran, ()) =
            tokio::join!(zsha(store.clone(), "", &words), answer(store.clone(), "Done", "the VM has moved"));
        assert_eq!((ran.exit, ran.err.as_str()), (Exit::Success, ""));
        assert_eq!(
            ran.out,
            format!(
                "Migrate from nfs-1 to {node}\nMigration: [  0 %]\nMigration: [100 %]\nThe VM runs on {node}.\n"
            )
        );
        let intent: Value =
            serde_json::from_str(&store.read(&keys().intent("migrate")).unwrap().value).unwrap();
        assert_eq!(
            (&intent["kind"], &intent["to"], &intent["message"]),
            (&json!("migrate"), &json!(node), &json!("new fan"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_is_told_once_and_whoever_does_not_wait_at_once() {
    let store = healthy().await;
    let words = ["migrate", "nfs-3", "-o", "json"];
    let (ran, ()) =
        tokio::join!(zsha(store.clone(), "", &words), answer(store.clone(), "Done", "it has moved"));
    let told = ran.json();
    let said = [&told["kind"], &told["command"], &told["node"], &told["changed"], &told["done"]];
    assert_eq!(said, [&json!("Order"), &json!("migrate"), &json!("nfs-3"), &json!(true), &json!(true)]);
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Success, ""));

    let store = healthy().await;
    let ran = zsha(store.clone(), "", &["migrate", "nfs-3", "--detach", "-o", "json"]).await;
    assert_eq!((ran.exit, &ran.json()["done"]), (Exit::Success, &json!(false)));
    assert!(store.read(&keys().intent("migrate")).is_some());
    let ran = zsha(store, "", &["migrate", "nfs-1", "-o", "json"]).await;
    assert_eq!((&ran.json()["done"], &ran.json()["changed"]), (&json!(true), &json!(false)));
}

#[tokio::test(start_paused = true)]
async fn how_far_it_is_is_told_as_the_source_says_it_and_an_end_is_kept() {
    let store = healthy().await;
    let going = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let key = keys().node_status(&"nfs-1".parse().unwrap());
        let mut status: Value = serde_json::from_str(&store.read(&key).unwrap().value).unwrap();
        status["migratedPercent"] = json!(42);
        put(&store, key, &status);
    };
    let words = ["migrate", "nfs-2", "--timeout", "10s"];
    let (ran, ()) = tokio::join!(zsha(store.clone(), "", &words), going);
    assert_eq!(ran.exit, Exit::TimedOut);
    assert_eq!(ran.out, "Migrate from nfs-1 to nfs-2\nMigration: [  0 %]\nMigration: [ 42 %]\n");
    assert!(ran.err.contains("timed out after 10 s: Migration: [ 42 %]"), "{}", ran.err);
    assert!(ran.err.contains("it stays asked for"), "{}", ran.err);
}

#[tokio::test(start_paused = true)]
async fn what_the_owner_refuses_or_could_not_do_is_told_with_its_reason() {
    for (outcome, exit) in [("Refused", Exit::Refused), ("Failed", Exit::General)] {
        let store = healthy().await;
        let (ran, ()) = tokio::join!(
            zsha(store.clone(), "", &["migrate", "nfs-2"]),
            answer(store.clone(), outcome, "the bridge br_zsn0 has no carrier")
        );
        assert_eq!(ran.exit, exit);
        assert!(ran.err.contains("the bridge br_zsn0 has no carrier"), "{}", ran.err);
    }
}

#[tokio::test(start_paused = true)]
async fn where_it_is_already_nothing_is_asked_and_a_stranger_is_named() {
    let store = healthy().await;
    let already = zsha(store.clone(), "", &["migrate", "nfs-1"]).await;
    assert_eq!(already.exit, Exit::Success);
    assert!(already.err.contains("domain mnvm is already active on nfs-1"), "{}", already.err);
    let stranger = zsha(store.clone(), "", &["migrate", "nfs-9"]).await;
    assert_eq!(stranger.exit, Exit::Usage);
    assert!(stranger.err.contains("'nfs-9' is not a node of this cluster"), "{}", stranger.err);
    assert!(stranger.err.contains("nfs-2 (10.0.0.2)"), "{}", stranger.err);
    assert_eq!(store.read(&keys().intent("migrate")), None, "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_runs_nowhere_is_not_moved() {
    let store = healthy().await;
    let mut free = record(&store);
    free.as_object_mut().unwrap().remove("owner");
    put(&store, keys().vm(&VmName::management()), &free);
    let ran = zsha(store.clone(), "", &["migrate", "nfs-2"]).await;
    assert_eq!(ran.exit, Exit::Refused);
    assert_eq!(store.read(&keys().intent("migrate")), None);
}
