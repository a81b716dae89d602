//! `zsha apply` and `zsha diff` over an embedded store: what is printed, what is written, how it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::path::Path;

use common::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use zsha::Exit;
use zsha_crds::records::{StoredSpec, VmPhase, VmRecord};
use zsha_crds::{NodeName, VmName, testing};
use zsha_runtime::store::{MemoryStore, Op};

#[tokio::test(start_paused = true)]
async fn the_first_apply_creates_everything_that_others_watch_and_a_second_one_changes_nothing() {
    let store = MemoryStore::new();
    let ran = zsha(store.clone(), &document(8), &["apply", "-f", "-", "-m", "the start"]).await;
    assert_eq!(ran.out, "hacluster.zsha.io/prod created (generation 1)\n", "{ran:?}");
    let written: Vec<String> = store.read_all("zsha/").entries.into_iter().map(|entry| entry.key).collect();
    assert_eq!(
        written,
        ["zsha/prod/history/0000000001", "zsha/prod/intent/power", "zsha/prod/spec", "zsha/prod/vms/mnvm"]
    );
    let record: VmRecord =
        serde_json::from_str(&store.read(&keys().vm(&VmName::management())).unwrap().value).unwrap();
    assert_eq!((record.owner, record.phase), (None, VmPhase::Stopped));
    let spec: StoredSpec = serde_json::from_str(&store.read(&keys().spec()).unwrap().value).unwrap();
    assert_eq!(
        (spec.generation, spec.applied_by.as_str(), spec.message.as_str()),
        (1, "alice@desk", "the start")
    );

    let before = store.index();
    let ran = zsha(store.clone(), &document(8), &["apply", "-f", "-"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Success, "hacluster.zsha.io/prod unchanged (generation 1)\n")
    );
    let ran = zsha(store.clone(), &document(8), &["apply", "-f", "-", "--error-unchanged"]).await;
    assert_eq!(ran.exit, Exit::Unchanged);
    assert_eq!(store.index(), before, "nothing was written");
}

#[tokio::test(start_paused = true)]
async fn after_the_store_was_put_back_apply_goes_past_what_the_nodes_act_on() {
    let store = healthy().await;
    let key = keys().node_status(&NodeName::new("nfs-2").unwrap());
    let mut status: Value = serde_json::from_str(&store.read(&key).unwrap().value).unwrap();
    status["observedGeneration"] = 7.into();
    put(&store, key, &status);
    let ran = zsha(store.clone(), &document(8), &["apply", "-f", "-"]).await;
    assert_eq!(ran.out, "hacluster.zsha.io/prod configured (generation 8)\n", "{ran:?}");
    let ran = zsha(store.clone(), &document(8), &["apply", "-f", "-"]).await;
    assert_eq!(ran.out, "hacluster.zsha.io/prod unchanged (generation 8)\n", "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_shown_by_diff_and_written_by_apply_as_the_same() {
    let store = healthy().await;
    let diff = zsha(store.clone(), &document(16), &["diff", "-f", "-"]).await;
    insta::assert_snapshot!("diff_text", diff.transcript());
    let diff = zsha(store.clone(), &document(16), &["diff", "-f", "-", "-o", "json"]).await;
    assert_eq!(diff.exit, Exit::General);
    insta::assert_snapshot!("diff_json", diff.out);

    let dry = zsha(store.clone(), &document(16), &["apply", "-f", "-", "--dry-run"]).await;
    assert_eq!(dry.out, "hacluster.zsha.io/prod configured (generation 2) (server dry run)\n");
    let ran = zsha(store.clone(), &document(16), &["apply", "-f", "-", "-o", "json"]).await;
    assert_eq!(ran.exit, Exit::Success);
    assert_eq!(ran.json()["changes"], diff.json()["changes"]);
    insta::assert_snapshot!("apply_json", ran.out);
    let diff = zsha(store, &document(16), &["diff", "-f", "-"]).await;
    assert_eq!((diff.exit, diff.out.as_str()), (Exit::Success, ""));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_writes_nothing_and_the_clients_asks_nothing() {
    let store = healthy().await;
    let before = store.index();
    for flag in ["--dry-run", "--dry-run=server", "--dry-run=client"] {
        let ran = zsha(store.clone(), &document(16), &["apply", "-f", "-", flag]).await;
        assert_eq!(ran.exit, Exit::Success, "{ran:?}");
    }
    assert_eq!(store.index(), before);
    let gone = Faulty::new(&store, Fault::Gone);
    let ran = zsha(gone, &document(16), &["apply", "-f", "-", "--dry-run=client"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Success, "hacluster.zsha.io/prod valid (dry run)\n"));
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_in_force_is_a_conflict_that_says_who_and_when() {
    let store = healthy().await;
    let before = store.index();
    for wrong in ["0", "7"] {
        let words = ["apply", "-f", "-", "--if-version", wrong];
        let ran = zsha(store.clone(), &document(16), &words).await;
        assert_eq!(ran.exit, Exit::Conflict);
        assert!(
            ran.err.contains("generation 1, applied by alice@desk at 1970-01-01T01:00:00Z"),
            "{}",
            ran.err
        );
        assert!(ran.err.contains("--if-version 1"), "{}", ran.err);
    }
    assert_eq!(store.index(), before);
    let ran = zsha(store.clone(), &document(16), &["apply", "-f", "-", "--if-version", "1"]).await;
    assert_eq!(ran.exit, Exit::Success);
    let empty = zsha(MemoryStore::new(), &document(8), &["apply", "-f", "-", "--if-version", "0"]).await;
    assert_eq!(empty.exit, Exit::Success);
}

#[tokio::test(start_paused = true)]
async fn what_moves_the_vm_takes_a_yes_where_nobody_can_be_asked() {
    let store = MemoryStore::new();
    let five = document_of(8, &["nfs-1", "nfs-2", "nfs-3", "nfs-4", "nfs-5"]);
    assert_eq!(zsha(store.clone(), &five, &["apply", "-f", "-"]).await.exit, Exit::Success);
    let before = store.index();
    let ran = zsha(store.clone(), &document(8), &["apply", "-f", "-"]).await;
    insta::assert_snapshot!("apply_refused", ran.transcript());
    assert_eq!(store.index(), before);
    let dry = zsha(store.clone(), &document(8), &["apply", "-f", "-", "--dry-run"]).await;
    assert_eq!(dry.exit, Exit::Success, "a dry run disturbs nothing");
    let ran = zsha(store, &document(8), &["apply", "-f", "-", "--yes"]).await;
    assert_eq!(ran.exit, Exit::Success, "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn on_a_terminal_the_person_is_asked_and_only_yes_goes_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("three.json");
    std::fs::write(&file, document(8)).unwrap();
    let words = ["apply", "-f", file.to_str().unwrap()];
    let store = MemoryStore::new();
    let five = document_of(8, &["nfs-1", "nfs-2", "nfs-3", "nfs-4", "nfs-5"]);
    zsha(store.clone(), &five, &["apply", "-f", "-"]).await;
    let before = store.index();
    let no = zsha_asking(store.clone(), "", &words, Some(|_, _| Ok(false))).await;
    assert_eq!((no.exit, store.index()), (Exit::Refused, before));
    let yes = zsha_asking(store, "", &words, Some(|_, _| Ok(true))).await;
    assert_eq!(yes.exit, Exit::Success, "{yes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_write_without_an_answer_is_found_out_about() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let store = healthy().await;
        let ran = zsha(Faulty::new(&store, fault), &document(16), &["apply", "-f", "-"]).await;
        assert_eq!(
            (ran.exit, ran.out.as_str()),
            (Exit::Success, "hacluster.zsha.io/prod configured (generation 2)\n")
        );
        assert_eq!(store.read_all(&keys().history()).entries.len(), 2, "written once");
    }
}

#[tokio::test(start_paused = true)]
async fn an_election_is_waited_for() {
    let store = healthy().await;
    let ran = zsha(Faulty::new(&store, Fault::Election), &document(16), &["apply", "-f", "-"]).await;
    assert_eq!(
        (ran.exit, ran.out.as_str()),
        (Exit::Success, "hacluster.zsha.io/prod configured (generation 2)\n")
    );
}

#[tokio::test(start_paused = true)]
async fn without_consul_every_online_command_ends_with_7_and_writes_nothing() {
    let store = healthy().await;
    let before = store.index();
    for fault in [Fault::Gone, Fault::NoLeader] {
        for words in [
            &["apply", "-f", "-"][..],
            &["diff", "-f", "-"],
            &["get", "--cluster", "prod"],
            &["events", "--cluster", "prod"],
            &["history", "--cluster", "prod"],
            &["status", "--cluster", "prod"],
        ] {
            let ran = zsha(Faulty::new(&store, fault), &document(16), words).await;
            assert_eq!(ran.exit, Exit::Unavailable, "{words:?} {ran:?}");
        }
    }
    assert_eq!(store.index(), before);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_away_changes_neither_what_is_done_nor_how_it_ends() {
    let store = healthy().await;
    let warned = document(16).replace("52:54:00", "fe:54:00");
    for (words, text, expected) in [
        (&["diff", "-f", "-"][..], &*warned, Exit::General),
        (&["diff", "-f", "-", "-o", "json"], &warned, Exit::General),
        (&["check-config", "-", "-o", "json"], "{}", Exit::Invalid),
        (&["check-config", "-"], "{}", Exit::Invalid),
        (&["apply", "-f", "-", "--if-version", "9"], &warned, Exit::Conflict),
        (&["get", "--cluster", "test"], "", Exit::General),
        (&["apply", "-f", "-", "--yes"], &warned, Exit::Success),
        (&["apply", "-f", "-", "--error-unchanged"], &warned, Exit::Unchanged),
        (&["status", "-w"], "", Exit::Success),
    ] {
        let (mut out, mut err) = (Closed, Closed);
        let exit = zsha_into(store.clone(), text, words, None, (&mut out, &mut err)).await;
        assert_eq!(exit, expected, "{words:?}");
    }
    let stored = store.read(&keys().spec()).unwrap().value;
    assert!(stored.contains("fe:54:00"), "a warning nobody read stops nothing");
}

#[tokio::test(start_paused = true)]
async fn an_error_as_json_is_one_object_on_stderr() {
    let store = healthy().await;
    let ran =
        zsha(store.clone(), &document(16), &["apply", "-f", "-", "--if-version", "9", "-o", "json"]).await;
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!((error["kind"].as_str(), error["exitCode"].as_u64()), (Some("Status"), Some(5)));
    let keys: Vec<&str> = error.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["apiVersion", "details", "exitCode", "hint", "kind", "message", "reason"]);
    assert!(error["details"]["causes"].is_array(), "{error}");
    assert_eq!(ran.out, "");
    let ran = zsha(store, "spec: [", &["apply", "-f", "-", "-o", "json"]).await;
    let error: Value = serde_json::from_str(&ran.err).unwrap();
    assert_eq!(error["exitCode"], json!(4));
    assert!(error["diagnostics"]["items"][0]["line"].is_u64(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_record_of_ownership_is_not_made_anew() {
    let store = healthy().await;
    let key = keys().vm(&VmName::management());
    let record = store.read(&key).unwrap();
    store.apply(&[Op::DeleteCas { key: key.clone(), index: record.modify_index }]).unwrap();
    zsha(store.clone(), &document(16), &["apply", "-f", "-"]).await;
    assert_eq!(store.read(&key), None);
    let spec = store.read(&keys().spec()).unwrap();
    store.apply(&[Op::DeleteCas { key: spec.key, index: spec.modify_index }]).unwrap();
    let ran = zsha(store.clone(), &document(16), &["apply", "-f", "-"]).await;
    assert_eq!(ran.out, "hacluster.zsha.io/prod created (generation 3)\n");
    assert_eq!(store.read(&key), None, "there were documents before: somebody may run the VM");
}

#[tokio::test(start_paused = true)]
async fn a_document_for_another_cluster_than_was_named_is_refused() {
    let store = MemoryStore::new();
    for flag in ["--dry-run=none", "--dry-run=server", "--dry-run=client"] {
        let words = ["apply", "-f", "-", flag, "--cluster", "test"];
        let ran = zsha(store.clone(), &document(8), &words).await;
        assert_eq!(ran.exit, Exit::Usage, "{ran:?}");
    }
    assert_eq!(store.read_all("zsha/").entries.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_old_config_json_is_for_the_only_cluster_there_is() {
    let store = healthy().await;
    let mut document: Value = serde_json::from_str(&document(16)).unwrap();
    for list in ["DNS", "ChronyServers"] {
        document["spec"][list] = serde_json::json!([]);
    }
    let ran = zsha(store, &document["spec"].to_string(), &["apply", "-f", "-"]).await;
    assert_eq!(ran.out, "hacluster.zsha.io/prod configured (generation 2)\n", "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn every_bad_document_ends_with_4_is_explained_and_writes_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/tests/bad");
    let store = healthy().await;
    let before = store.index();
    let mut count = 0;
    for file in
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file())
    {
        let name = file.to_str().unwrap();
        for words in [&["check-config", name][..], &["apply", "--yes", "-f", name], &["diff", "-f", name]] {
            let ran = zsha(store.clone(), "", words).await;
            assert_eq!(ran.exit, Exit::Invalid, "{words:?} {ran:?}");
            assert!(ran.out.is_empty() && ran.err.contains("error"), "{words:?} {ran:?}");
        }
        count += 1;
    }
    assert!(count >= 60, "{count} bad documents");
    assert_eq!(store.index(), before);
}

/// The document is as large as is taken.
#[tokio::test(start_paused = true)]
async fn the_largest_document_that_passes_the_check_can_be_applied_with_a_word_on_why() {
    let mut large: Value = serde_json::from_str(&document(8)).unwrap();
    let room = zsha_crds::decode::LARGEST - large.to_string().len();
    large["spec"]["ImageFolder"] = format!("/{}", "a".repeat(room + "/opt/smp/mngt/".len() - 1)).into();
    let text = large.to_string();
    assert_eq!(text.len(), zsha_crds::decode::LARGEST);
    let store = MemoryStore::new();
    let why = "because ".repeat(100);
    let ran = zsha(store.clone(), &text, &["apply", "-f", "-", "-m", &why]).await;
    assert_eq!(ran.out, "hacluster.zsha.io/prod created (generation 1)\n", "{}", ran.err);
    let ran = zsha(store, &(text + " "), &["check-config", "-"]).await;
    assert_eq!(ran.exit, Exit::Invalid);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_applied_differs_in_nothing_and_is_not_written_twice(first: u64, second: u64) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new();
            let mut other = testing::document(second);
            other["metadata"] = testing::document(first)["metadata"].clone();
            for text in [testing::document(first).to_string(), other.to_string()] {
                let ran = zsha(store.clone(), &text, &["apply", "-f", "-", "--yes"]).await;
                assert_eq!(ran.exit, Exit::Success, "{ran:?}\n{text}");
                let diff = zsha(store.clone(), &text, &["diff", "-f", "-"]).await;
                assert_eq!((diff.exit, diff.out.as_str()), (Exit::Success, ""), "{text}");
                let before = store.index();
                let again = zsha(store.clone(), &text, &["apply", "-f", "-", "--error-unchanged"]).await;
                assert_eq!((again.exit, store.index()), (Exit::Unchanged, before), "{again:?}");
            }
        });
    }
}
