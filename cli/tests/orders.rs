//! `stop`, `start`, `drain`, `uncordon`, `freeze`, `resume`: what is asked for, what is waited for, and what is told.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::time::Duration;

use common::*;
use serde_json::{Value, json};
use zsha::Exit;
use zsha_crds::{NodeName, VmName};
use zsha_runtime::store::MemoryStore;

fn vm_key() -> String {
    keys().vm(&VmName::management())
}

fn read(store: &MemoryStore, key: &str) -> Option<Value> {
    store.read(key).map(|entry| serde_json::from_str(&entry.value).unwrap())
}

fn intent(store: &MemoryStore, name: &str) -> Option<Value> {
    read(store, &keys().intent(name))
}

/// Everything that is asked for.
fn orders(store: &MemoryStore) -> Vec<(String, String)> {
    let entries = store.read_all(&keys().intents()).entries;
    entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

/// Does what the controllers would, once they have seen the order of this name.
async fn carry_out(store: &MemoryStore, name: &str, change: impl FnOnce(&mut Value)) {
    let patience = tokio::time::Instant::now() + Duration::from_secs(60);
    while intent(store, name).is_none_or(|intent| intent["kind"] == "none") {
        assert!(tokio::time::Instant::now() < patience, "nothing was asked for");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mut record = read(store, &vm_key()).unwrap();
    change(&mut record);
    put(store, vm_key(), &record);
}

fn stopped(record: &mut Value) {
    record.as_object_mut().unwrap().remove("owner");
    record["phase"] = json!("Stopped");
    record["note"] = json!("stopped by command");
}

/// The VM leaves nfs-1 for nfs-2, and both say so.
fn moved(store: &MemoryStore, record: &mut Value) {
    record["owner"] = json!({"node": "nfs-2", "epoch": 3});
    for (name, local_vm) in [("nfs-1", "Absent"), ("nfs-2", "Running")] {
        let key = keys().node_status(&NodeName::new(name).unwrap());
        let mut status = read(store, &key).unwrap();
        status["localVm"] = json!(local_vm);
        put(store, key, &status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_asked_for_and_waited_for_in_the_words_of_the_manual() {
    let store = healthy().await;
    let words = ["stop", "-m", "power works"];
    let (ran, ()) = tokio::join!(zsha(store.clone(), "", &words), carry_out(&store, "power", stopped));
    insta::assert_snapshot!("stop", ran.transcript());
    let stop = intent(&store, "power").unwrap();
    assert_eq!(
        (&stop["kind"], &stop["by"], &stop["message"], &stop["timeoutSeconds"]),
        (&json!("stop"), &json!("alice@desk"), &json!("power works"), &Value::Null)
    );
    let again = zsha(store.clone(), "", &["stop"]).await;
    assert_eq!(again.exit, Exit::Success);
    assert!(again.err.contains("nothing was changed"), "{}", again.err);
    assert_eq!(intent(&store, "power").unwrap(), stop, "and nothing was");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_stop_is_the_guests_and_0_is_taken() {
    let store = healthy().await;
    let (ran, ()) = tokio::join!(
        zsha(store.clone(), "", &["stop", "--timeout", "0", "-o", "json"]),
        carry_out(&store, "power", stopped)
    );
    assert_eq!(ran.exit, Exit::Success, "{ran:?}");
    assert_eq!(intent(&store, "power").unwrap()["timeoutSeconds"], 0);
    insta::assert_snapshot!("stop_json", ran.transcript());
}

#[tokio::test(start_paused = true)]
async fn a_start_takes_a_stop_back_and_waits_until_the_vm_runs() {
    let store = healthy().await;
    let (stop, ()) = tokio::join!(zsha(store.clone(), "", &["stop"]), carry_out(&store, "power", stopped));
    assert_eq!(stop.exit, Exit::Success);
    let run = |record: &mut Value| {
        record["owner"] = json!({"node": "nfs-1", "epoch": 3});
        record["phase"] = json!("Running");
    };
    put(&store, keys().intent("power"), &json!({"kind": "none"}));
    let (ran, ()) = tokio::join!(zsha(store.clone(), "", &["start"]), carry_out(&store, "power", run));
    insta::assert_snapshot!("start", ran.transcript());
    assert_eq!(intent(&store, "power").unwrap()["kind"], "start");
    let again = zsha(store.clone(), "", &["start"]).await;
    assert_eq!((again.exit, again.out.as_str()), (Exit::Success, "mnvm runs on nfs-1\n"));
    assert!(again.err.contains("Nothing was changed"), "{}", again.err);
}

/// The controllers count an order that has come back with an older state of the store only once it is given again.
#[tokio::test(start_paused = true)]
async fn an_order_that_a_node_is_in_doubt_of_is_given_again() {
    let given =
        |kind: &str| json!({"kind": kind, "by": "bob@desk", "at": "2026-11-29T10:00:00Z", "message": ""});
    let none = json!({"kind": "none"});
    for (name, order, reason, words) in [
        ("power", given("stop"), "IntentUnknown", &["stop", "--detach"][..]),
        ("drain.nfs-1", given("drain"), "IntentUnreadable", &["drain", "nfs-1", "--detach"][..]),
        // What was forbidden is gone with a newer state of the store, so that it looks allowed already.
        ("power", none.clone(), "IntentUnknown", &["start", "--detach"][..]),
        ("freeze", none.clone(), "IntentUnknown", &["resume"][..]),
        ("drain.nfs-1", none.clone(), "IntentUnreadable", &["uncordon", "nfs-1"][..]),
    ] {
        let store = healthy().await;
        put(&store, keys().intent(name), &order);
        let before = store.index_of(&keys().intent(name));
        let sure = zsha(store.clone(), "", words).await;
        let said = format!("{}{}", sure.out, sure.err).to_lowercase();
        assert!(said.contains("nothing was changed"), "{words:?}: {said}");
        // A node that is in doubt of another's drain does not say so, so an uncordon is always written.
        assert_eq!(store.index_of(&keys().intent(name)) == before, words[0] != "uncordon", "{words:?}");
        let key = keys().node_status(&NodeName::new("nfs-1").unwrap());
        let mut status = read(&store, &key).unwrap();
        status["conditions"].as_array_mut().unwrap().push(json!({
            "type": "Schedulable", "status": "Unknown", "reason": reason, "message": "it has come back",
            "lastTransitionTime": "1970-01-01T00:10:00Z"
        }));
        put(&store, key, &status);
        let before = store.index_of(&keys().intent(name));
        let in_doubt = zsha(store.clone(), "", words).await;
        assert_eq!(in_doubt.exit, Exit::Success, "{words:?}: {in_doubt:?}");
        let said = format!("{}{}", in_doubt.out, in_doubt.err).to_lowercase();
        assert!(words[0] == "uncordon" || !said.contains("nothing was changed"), "{words:?}: {said}");
        assert!(store.index_of(&keys().intent(name)) > before, "{words:?}: a write that the controllers see");
        let now = intent(&store, name).unwrap();
        assert!(now == none || now["by"] == "alice@desk", "{words:?}: {now}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_uncordon_says_that_it_changed_something_where_it_did_and_only_there() {
    let store = healthy().await;
    let key = keys().intent("drain.nfs-1");
    for (stood, changed) in [(None, false), (Some(r#"{"kind":"none"}"#), false), (Some("{"), true)] {
        if let Some(stood) = stood {
            store.overwrite(&key, stood);
        }
        let ran = zsha(store.clone(), "", &["uncordon", "nfs-1"]).await;
        assert_eq!(ran.exit, Exit::Success, "{stood:?}: {ran:?}");
        assert_eq!(ran.out.contains("nothing was changed"), !changed, "{stood:?}: {}", ran.out);
        assert_eq!(intent(&store, "drain.nfs-1").unwrap()["kind"], "none");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_drained_by_name_or_address_and_the_vm_seen_to_leave() {
    for word in ["nfs-1", "10.0.0.1"] {
        let store = healthy().await;
        let words = ["drain", word, "-m", "new memory"];
        let (ran, ()) = tokio::join!(
            zsha(store.clone(), "", &words),
            carry_out(&store, "drain.nfs-1", |record| moved(&store, record))
        );
        insta::assert_snapshot!("drain", ran.transcript());
        assert_eq!(intent(&store, "drain.nfs-1").unwrap()["message"], "new memory");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_the_vm_is_drained_at_once_and_taken_back() {
    let store = healthy().await;
    let ran = zsha(store.clone(), "", &["drain", "nfs-3", "-o", "json"]).await;
    insta::assert_snapshot!("drain_json", ran.transcript());
    let again = zsha(store.clone(), "", &["drain", "nfs-3"]).await;
    assert!(again.err.contains("nfs-3 was drained already"), "{}", again.err);
    let both = zsha(store.clone(), "", &["drain", "nfs-2"]).await;
    assert!(both.err.contains("WARNING: cannot survive one more failure"), "{}", both.err);
    let status = zsha(store.clone(), "", &["status"]).await;
    assert!(status.out.contains("it was drained by alice@desk"), "{}", status.out);
    let back = zsha(store.clone(), "", &["uncordon", "nfs-3"]).await;
    assert_eq!(back.out, "nfs-3 may be given the VM again\n");
    let twice = zsha(store.clone(), "", &["uncordon", "nfs-3"]).await;
    assert_eq!(
        (twice.exit, twice.out.as_str()),
        (Exit::Success, "nfs-3 was not drained; nothing was changed\n")
    );
}

/// The drain of the host itself ends with its boot; that of an operator, asked for meanwhile, does not.
#[tokio::test(start_paused = true)]
async fn a_drain_of_a_host_that_shuts_down_is_asked_for_beside_what_the_host_says() {
    let store = healthy().await;
    let key = keys().intent("drain.nfs-3");
    let shutdown = json!({"bootId": "a", "noTimeToMove": false});
    let own = |by: &str| json!({"kind": "drain", "by": by, "at": "2026-11-29T10:00:00Z", "message": "", "shutdown": shutdown});
    put(&store, key.clone(), &own("nfs-3 itself (boot a)"));
    let ran = zsha(store.clone(), "", &["drain", "nfs-3", "-m", "new memory"]).await;
    assert_eq!((ran.exit, ran.err.contains("already")), (Exit::Success, false), "{}", ran.err);
    let there = intent(&store, "drain.nfs-3").unwrap();
    assert_eq!((&there["by"], &there["message"]), (&json!("alice@desk"), &json!("new memory")));
    assert_eq!(there["shutdown"], shutdown);
    let again = zsha(store.clone(), "", &["drain", "nfs-3"]).await;
    assert!(again.err.contains("nfs-3 was drained already"), "{}", again.err);
    assert_eq!(intent(&store, "drain.nfs-3").unwrap(), there);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_takes_too_long_says_what_it_waits_for_and_stays_asked_for() {
    let store = healthy().await;
    let key = keys().node_status(&NodeName::new("nfs-1").unwrap());
    let mut status = read(&store, &key).unwrap();
    status["waiting"] = json!([{"reason": "DrainWaits", "message": "no other node is fit"}]);
    put(&store, key, &status);
    let ran = zsha(store.clone(), "", &["drain", "nfs-1", "--timeout", "3s"]).await;
    insta::assert_snapshot!("drain_timed_out", ran.transcript());
    assert_eq!(intent(&store, "drain.nfs-1").unwrap()["kind"], "drain");
    let detached = zsha(store.clone(), "", &["drain", "nfs-1", "--detach"]).await;
    assert_eq!((detached.exit, detached.out.as_str()), (Exit::Success, "nfs-1 is being drained\n"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_or_a_stranger_is_not_drained_and_nothing_is_written() {
    let store = healthy().await;
    put(&store, keys().lease(&NodeName::new("nfs-3").unwrap()), &lease("nfs-3", "1970-01-01T00:30:00Z"));
    let down = zsha(store.clone(), "", &["drain", "nfs-3"]).await;
    assert_eq!(down.exit, Exit::Refused, "{down:?}");
    assert!(down.err.contains("nfs-3 cannot be drained now: its lease has run out"), "{}", down.err);
    let stranger = zsha(store.clone(), "", &["drain", "nfs-9"]).await;
    assert_eq!(stranger.exit, Exit::Usage);
    assert!(stranger.err.contains("nfs-2 (10.0.0.2)"), "{}", stranger.err);
    assert_eq!(intent(&store, "drain.nfs-3"), None);
}

#[tokio::test(start_paused = true)]
async fn a_frozen_cluster_says_so_and_is_asked_for_nothing_before_it_is_resumed() {
    let store = healthy().await;
    let frozen = zsha(store.clone(), "", &["freeze", "-m", "switch works"]).await;
    insta::assert_snapshot!("freeze", frozen.transcript());
    let status = zsha(store.clone(), "", &["status"]).await;
    assert!(
        status.out.contains("not protected since 1970-01-01 01:00:00Z: frozen by alice@desk (switch works)"),
        "{}",
        status.out
    );
    let before = orders(&store);
    for words in [&["stop"][..], &["start"], &["drain", "nfs-1"], &["migrate", "nfs-2"]] {
        let ran = zsha(store.clone(), "", words).await;
        assert_eq!(ran.exit, Exit::Refused, "{words:?}: {ran:?}");
        assert!(ran.err.contains("switch works") && ran.err.contains("zsha resume"), "{}", ran.err);
    }
    assert_eq!(orders(&store), before, "nothing was written");
    let twice = zsha(store.clone(), "", &["freeze"]).await;
    assert!(twice.out.contains("was frozen already"), "{}", twice.out);
    let resumed = zsha(store.clone(), "", &["resume", "-o", "json"]).await;
    insta::assert_snapshot!("resume_json", resumed.transcript());
    let twice = zsha(store.clone(), "", &["resume"]).await;
    assert_eq!(twice.out, "the cluster was not frozen; nothing was changed\n");
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_nothing_is_asked_for() {
    for fault in [Fault::NoLeader, Fault::Gone] {
        for words in [&["stop"][..], &["start"], &["drain", "nfs-1"], &["freeze"], &["resume"]] {
            let store = healthy().await;
            let before = orders(&store);
            let ran = zsha(Faulty::new(&store, fault), "", words).await;
            assert_eq!(ran.exit, Exit::Unavailable, "{fault:?} {words:?}: {ran:?}");
            assert_eq!(orders(&store), before);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_whose_answer_or_request_was_lost_is_given_once() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let store = healthy().await;
        let ran = zsha(Faulty::new(&store, fault), "", &["freeze"]).await;
        assert_eq!(ran.exit, Exit::Success, "{fault:?}: {ran:?}");
        assert_eq!(intent(&store, "freeze").unwrap()["kind"], "freeze");
        assert!(ran.out.contains("is frozen: the VM is not protected"), "{}", ran.out);
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_that_was_refused_is_not_said_to_be_in_force_perhaps() {
    let store = healthy().await;
    let ran = zsha(Faulty::new(&store, Fault::ReadOnly), "", &["freeze"]).await;
    assert_eq!(ran.exit, Exit::General, "{ran:?}");
    assert!(ran.err.contains("the token may not do this"), "{}", ran.err);
    assert!(ran.err.contains("--token-file"), "{}", ran.err);
    assert!(!ran.err.contains("in force"), "{}", ran.err);
    assert_eq!(intent(&store, "freeze"), None);
}

/// Writes the owner's answer.
fn answered(store: &MemoryStore, outcome: &str, message: &str, record: &mut Value) {
    let id = intent(store, "reset-password").unwrap()["id"].clone();
    record["passwordReset"] = json!({"id": id, "outcome": outcome, "message": message});
}

/// The healthy cluster, whose document allows the reset.
async fn allows_reset() -> MemoryStore {
    let store = healthy().await;
    let mut spec = read(&store, &keys().spec()).unwrap();
    spec["document"]["spec"]["AllowResetRootPassword"] = json!(true);
    put(&store, keys().spec(), &spec);
    store
}

#[tokio::test(start_paused = true)]
async fn a_password_is_reset_in_the_words_of_the_manual() {
    let store = allows_reset().await;
    let answer = |record: &mut Value| answered(&store, "Done", "it was reset", record);
    let words = ["reset-MNVM-password", "-m", "nobody knows it"];
    let (ran, ()) =
        tokio::join!(zsha(store.clone(), "", &words), carry_out(&store, "reset-password", answer));
    insta::assert_snapshot!("reset_password", ran.transcript());
    let asked = intent(&store, "reset-password").unwrap();
    assert_eq!((&asked["kind"], &asked["by"]), (&json!("resetPassword"), &json!("alice@desk")));
    let failed = |record: &mut Value| answered(&store, "Failed", "the agent does not answer", record);
    let words = ["reset-MNVM-password", "-o", "json"];
    let before = asked["id"].clone();
    let change = async {
        while intent(&store, "reset-password").unwrap()["id"] == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut record = read(&store, &vm_key()).unwrap();
        failed(&mut record);
        put(&store, vm_key(), &record);
    };
    let (ran, ()) = tokio::join!(zsha(store.clone(), "", &words), change);
    insta::assert_snapshot!("reset_password_failed", ran.transcript());
}

#[tokio::test(start_paused = true)]
async fn a_password_is_not_reset_unless_the_document_allows_it_and_not_asked_for_for_ever() {
    let store = healthy().await;
    let refused = zsha(store.clone(), "", &["reset-MNVM-password"]).await;
    insta::assert_snapshot!("reset_password_refused", refused.transcript());
    assert_eq!(intent(&store, "reset-password"), None, "nothing was asked");
    let store = allows_reset().await;
    let late = zsha(store.clone(), "", &["reset-MNVM-password", "--timeout", "5s"]).await;
    assert_eq!(late.exit, Exit::TimedOut);
    assert!(late.err.contains("not asked for any more"), "{}", late.err);
    assert_eq!(intent(&store, "reset-password").unwrap(), json!({"kind": "none"}), "taken back");
}
