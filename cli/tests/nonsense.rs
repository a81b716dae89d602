//! What the commands say and do where a key holds something that cannot be read.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::*;
use serde_json::json;
use zsha::Exit;
use zsha_crds::NodeName;
use zsha_crds::records::Intent;
use zsha_runtime::store::{MemoryStore, Op};

/// An order, though not one of whether the VM is to run or the cluster is frozen.
fn a_drain() -> String {
    json!({"kind": "drain", "by": "eve@desk", "at": "2026-11-29T10:00:00Z", "message": ""}).to_string()
}

/// Leaves this value under the key, as an administrator might; none: no value.
fn leave(store: &MemoryStore, key: &str, value: Option<&str>) {
    match (value, store.read(key)) {
        (Some(value), _) => store.overwrite(key, value),
        (None, Some(entry)) => {
            let op = Op::DeleteCas { key: key.to_owned(), index: entry.modify_index };
            assert!(store.apply(&[op]).unwrap().committed());
        }
        (None, None) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn status_names_every_key_that_cannot_be_read_and_shows_the_rest() {
    let store = healthy().await;
    let node = NodeName::new("nfs-2").unwrap();
    let spoiled = [keys().lease(&node), keys().intent(&Intent::drain_of(&node)), keys().node_status(&node)];
    for key in &spoiled {
        store.overwrite(key, "garbage");
    }
    let ran = zsha(store, "", &["status"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    for key in &spoiled {
        assert!(ran.err.contains(&format!("WARNING: {key} cannot be read: expected value")), "{}", ran.err);
    }
    assert!(ran.out.contains("nfs-1") && ran.out.contains("nfs-3"), "{}", ran.out);
}

#[tokio::test(start_paused = true)]
async fn a_reason_is_short_however_long_the_value_is() {
    let store = healthy().await;
    store.overwrite(&keys().intent(Intent::FREEZE), &format!("\"{}\"", "x".repeat(512 * 1024)));
    let ran = zsha(store, "", &["status"]).await;
    assert!(ran.err.contains("intent/freeze cannot be read"), "{}", &ran.err[..400.min(ran.err.len())]);
    assert!(ran.err.len() < 1024, "{} characters", ran.err.len());
}

#[tokio::test(start_paused = true)]
async fn an_order_is_written_over_one_that_cannot_be_read_and_that_is_said() {
    let drain = Intent::drain_of(&NodeName::new("nfs-2").unwrap());
    let stop = a_drain().replace("drain", "stop");
    for (name, words) in [(Intent::FREEZE, &["resume"][..]), (&drain[..], &["uncordon", "nfs-2"][..])] {
        for nonsense in ["garbage", stop.as_str()] {
            let store = healthy().await;
            let key = keys().intent(name);
            store.overwrite(&key, nonsense);
            let ran = zsha(store.clone(), "", words).await;
            assert_eq!(ran.exit, Exit::Success, "{words:?}: {}", ran.err);
            let told = format!("WARNING: {key} could not be read, and was written over");
            assert!(ran.err.contains(&told), "{words:?}: {}", ran.err);
            let now = store.read(&key).unwrap().value;
            assert_eq!(serde_json::from_str::<Intent>(&now).unwrap(), Intent::None, "{words:?}");
        }
    }
}

/// An order that no node has taken up is known to nobody, so a VM that ends is started nowhere.
#[tokio::test(start_paused = true)]
async fn start_and_stop_write_whether_the_vm_is_to_run_where_nobody_can_read_it() {
    let drain = a_drain();
    let key = keys().intent(Intent::POWER);
    for (there, is, was) in [
        (None, "is missing", "was missing, and was written anew"),
        (Some("garbage"), "cannot be read: expected value", "could not be read, and was written over"),
        (
            Some(drain.as_str()),
            "cannot be read: an order of another kind",
            "could not be read, and was written over: an order of another kind",
        ),
    ] {
        for (kind, words) in [("start", &["start"][..]), ("stop", &["stop", "--detach"][..])] {
            let store = healthy().await;
            leave(&store, &key, there);
            let status = zsha(store.clone(), "", &["status"]).await;
            assert_eq!(status.exit, Exit::Success, "{}", status.err);
            assert!(status.err.contains(&format!("WARNING: {key} {is}")), "{}", status.err);
            assert!(status.err.contains("`zsha start` if it is to run, `zsha stop` if"), "{}", status.err);
            let ran = zsha(store.clone(), "", words).await;
            assert_eq!(ran.exit, Exit::Success, "{there:?} {words:?}: {ran:?}");
            assert!(ran.err.contains(&format!("WARNING: {key} {was}")), "{there:?} {words:?}: {}", ran.err);
            assert!(!ran.err.to_lowercase().contains("nothing was changed"), "{}", ran.err);
            let now: Intent = serde_json::from_str(&store.read(&key).unwrap().value).unwrap();
            let expected = match kind {
                "start" => matches!(now, Intent::Start { .. }),
                _ => matches!(now, Intent::Stop { .. }),
            };
            assert!(expected, "{there:?} {words:?}: {now:?}");
            let status = zsha(store.clone(), "", &["status"]).await;
            assert!(!status.err.contains("WARNING"), "{}", status.err);
            let index = store.index();
            let again = zsha(store.clone(), "", words).await;
            assert!(again.err.to_lowercase().contains("nothing was changed"), "{words:?}: {}", again.err);
            assert_eq!(store.index(), index, "{words:?}");
        }
    }
}

/// It may have been a stop that was there.
#[tokio::test(start_paused = true)]
async fn a_document_is_no_order_to_run_the_vm_where_nobody_knows_whether_it_is_to() {
    let store = healthy().await;
    let key = keys().intent(Intent::POWER);
    // The history shows that there was a document.
    for gone in [&key, &keys().spec()] {
        leave(&store, gone, None);
    }
    let ran = zsha(store.clone(), &document(12), &["apply", "-f", "-", "--yes"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert_eq!(store.read(&key), None);
}

#[tokio::test(start_paused = true)]
async fn a_start_whose_answer_or_request_was_lost_is_given_once_where_nothing_was_there() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let store = healthy().await;
        let key = keys().intent(Intent::POWER);
        leave(&store, &key, None);
        let before = store.index();
        let ran = zsha(Faulty::new(&store, fault), "", &["start"]).await;
        assert_eq!(ran.exit, Exit::Success, "{fault:?}: {ran:?}");
        assert!(ran.err.contains("was missing, and was written anew"), "{fault:?}: {}", ran.err);
        assert_eq!(store.index(), before + 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_document_cannot_be_read_it_is_said_so_with_the_way_out_and_nothing_is_written() {
    let document = document(16);
    for command in [&["freeze"][..], &["get"], &["apply", "-f", "-", "--yes"]] {
        let store = healthy().await;
        store.overwrite(&keys().spec(), "garbage");
        let before = store.index();
        let ran = zsha(store.clone(), &document, command).await;
        assert_eq!(ran.exit, Exit::General, "{command:?}: {}", ran.err);
        assert!(ran.err.contains("consul kv delete zsha/prod/spec"), "{command:?}: {}", ran.err);
        assert_eq!(store.index(), before, "{command:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_and_history_that_cannot_be_read_are_named_and_hide_no_others() {
    let store = healthy().await;
    let events = format!("{}nonsense", keys().events());
    for key in [&events, &keys().history_of(7)] {
        store.overwrite(key, "garbage");
    }
    let ran = zsha(store.clone(), "", &["events"]).await;
    assert!(ran.err.contains(&format!("{events} cannot be read")) && ran.out.contains("REASON"), "{ran:?}");
    let ran = zsha(store, "", &["history"]).await;
    assert!(ran.err.contains("cannot be read") && ran.out.contains("GENERATION"), "{ran:?}");
}
