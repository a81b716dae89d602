//! What the commands say and do where a key holds something that cannot be read.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::*;
use zsha::Exit;
use zsha_crds::NodeName;
use zsha_crds::records::Intent;

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
    let store = healthy().await;
    let key = keys().intent(Intent::FREEZE);
    store.overwrite(&key, "garbage");
    let ran = zsha(store.clone(), "", &["resume"]).await;
    assert_eq!(ran.exit, Exit::Success, "{}", ran.err);
    assert!(
        ran.err.contains(&format!("WARNING: {key} could not be read, and was written over")),
        "{}",
        ran.err
    );
    assert_eq!(serde_json::from_str::<Intent>(&store.read(&key).unwrap().value).unwrap(), Intent::None);
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
