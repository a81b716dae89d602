//! `zsha status`, `get`, `events`, `history`: what a person and a script are shown of the same records.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::*;
use serde_json::json;
use zsha::Exit;
use zsha_crds::NodeName;
use zsha_runtime::store::MemoryStore;

fn nfs(at: u8) -> NodeName {
    NodeName::new(format!("nfs-{at}")).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_healthy_cluster_in_every_form() {
    let store = healthy().await;
    for form in ["table", "wide", "json", "yaml"] {
        let ran = zsha(store.clone(), "", &["status", "-o", form, "--exit-code"]).await;
        assert_eq!((ran.exit, ran.err.as_str()), (Exit::Success, ""));
        assert!(!ran.out.contains('\u{1b}'), "what an event says is not obeyed: {:?}", ran.out);
        insta::assert_snapshot!(format!("status_{form}"), ran.out);
    }
}

#[tokio::test(start_paused = true)]
async fn the_fields_that_others_rely_on_are_there() {
    let status = zsha(healthy().await, "", &["status", "-o", "json"]).await.json();
    for pointer in [
        "/vm/name",
        "/vm/node",
        "/vm/state",
        "/vm/uuid",
        "/generation",
        "/observedGeneration",
        "/failoverBoundSeconds",
        "/conditions/0/type",
        "/nodes/0/name",
        "/nodes/0/address",
        "/nodes/0/lease",
        "/nodes/0/ready",
    ] {
        assert!(status.pointer(pointer).is_some(), "{pointer}");
    }
    assert_eq!(status["failoverBoundSeconds"], json!(13.0));
}

#[tokio::test(start_paused = true)]
async fn a_fenced_owner_is_unhealthy_and_its_vm_is_unknown() {
    let store = healthy().await;
    let mut fenced = lease("nfs-1", "1970-01-01T00:59:40Z");
    fenced["state"] = json!("Fenced");
    fenced["fencedBy"] = json!("nfs-2");
    put(&store, keys().lease(&nfs(1)), &fenced);
    let ran = zsha(store.clone(), "", &["status", "--exit-code"]).await;
    insta::assert_snapshot!("status_fenced", ran.transcript());
    assert_eq!(zsha(store, "", &["status"]).await.exit, Exit::Success, "only --exit-code judges");
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_stale_reading_stands_under_a_banner_and_ends_with_7() {
    let store = healthy().await;
    let ran = zsha(Faulty::new(&store, Fault::NoLeader), "", &["status"]).await;
    insta::assert_snapshot!("status_stale", ran.transcript());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_seems_overdue_is_watched_before_it_is_called_so() {
    let store = healthy().await;
    // The clock of nfs-2 is half a minute behind, that of nfs-3 far ahead; nfs-2 renews, nfs-3 does not.
    put(&store, keys().lease(&nfs(2)), &lease("nfs-2", "1970-01-01T00:59:30Z"));
    put(&store, keys().lease(&nfs(3)), &lease("nfs-3", "1970-01-01T05:00:00Z"));
    let renewing = store.clone();
    let renewal = async move {
        tokio::time::sleep(std::time::Duration::from_millis(900)).await;
        let mut next = lease("nfs-2", "1970-01-01T00:59:31Z");
        next["seq"] = json!(901);
        put(&renewing, keys().lease(&nfs(2)), &next);
    };
    let (ran, ()) = tokio::join!(zsha(store.clone(), "", &["status", "-o", "json"]), renewal);
    let leases: Vec<_> = ran.json()["nodes"].as_array().unwrap().iter().map(|n| n["lease"].clone()).collect();
    assert_eq!(leases, [json!("Held"), json!("Held"), json!("Unknown")]);
}

#[tokio::test(start_paused = true)]
async fn the_only_cluster_needs_no_name_and_several_are_listed() {
    let store = healthy().await;
    assert_eq!(zsha(store.clone(), "", &["get", "-o", "name"]).await.out, "hacluster.zsha.io/prod\n");
    put(&store, "zsha/test/spec".to_owned(), &json!({}));
    let ran = zsha(store.clone(), "", &["status"]).await;
    assert_eq!(ran.exit, Exit::Usage);
    assert!(ran.err.contains("2 clusters: prod, test"), "{}", ran.err);
    assert_eq!(zsha(store, "", &["status", "--cluster", "prod"]).await.exit, Exit::Success);
    let none = zsha(MemoryStore::new(), "", &["status"]).await;
    assert_eq!(none.exit, Exit::General);
    assert!(none.err.contains("zsha apply -f FILE"), "{}", none.err);
}

#[tokio::test(start_paused = true)]
async fn what_get_prints_can_be_applied_again_as_it_is() {
    let store = healthy().await;
    let got = zsha(store.clone(), "", &["get"]).await;
    insta::assert_snapshot!("get_yaml", got.out);
    let ran = zsha(store.clone(), &got.out, &["apply", "-f", "-", "--error-unchanged"]).await;
    assert_eq!(ran.exit, Exit::Unchanged, "{ran:?}");
    let got = zsha(store.clone(), "", &["get", "-o", "json"]).await;
    let ran = zsha(store.clone(), &got.out, &["apply", "-f", "-", "--error-unchanged"]).await;
    assert_eq!(ran.exit, Exit::Unchanged, "{ran:?}");
    let edited = got.out.replace("\"MemorySizeInGB\": 8", "\"MemorySizeInGB\": 16");
    assert_eq!(zsha(store.clone(), &edited, &["apply", "-f", "-"]).await.exit, Exit::Success);
    let stored = store.read(&keys().spec()).unwrap().value;
    assert!(stored.contains(r#""metadata":{"name":"prod"}"#), "what the server wrote is dropped: {stored}");
    insta::assert_snapshot!("get_json", got.out);
}

#[tokio::test(start_paused = true)]
async fn events_are_listed_oldest_first_and_history_says_who_and_why() {
    let store = healthy().await;
    let events = zsha(store.clone(), "", &["events"]).await;
    insta::assert_snapshot!("events", events.out);
    let list = zsha(store.clone(), "", &["events", "-o", "json", "--limit", "1"]).await.json();
    assert_eq!(list["items"][0]["reason"], json!("Started"));
    zsha(store.clone(), &document(16), &["apply", "-f", "-", "-m", "more memory"]).await;
    insta::assert_snapshot!("history", zsha(store.clone(), "", &["history"]).await.out);
    let first = zsha(store.clone(), "", &["history", "--generation", "1"]).await;
    assert!(first.out.contains("MemorySizeInGB: 8"), "{}", first.out);
    assert_eq!(zsha(store, "", &["history", "--generation", "9"]).await.exit, Exit::General);
}

#[tokio::test(start_paused = true)]
async fn a_watch_in_json_tells_an_error_as_one_object_too() {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let store = Faulty::new(&MemoryStore::new(), Fault::Gone);
    let words = ["status", "-w", "--cluster", "prod", "-o", "json"];
    let watch = zsha_into(store, "", &words, None, (&mut out, &mut err));
    tokio::time::timeout(std::time::Duration::from_secs(5), watch).await.unwrap_err();
    let error: serde_json::Value = serde_json::from_slice(&err).unwrap();
    assert_eq!((error["kind"].as_str(), error["exitCode"].as_u64()), (Some("Status"), Some(7)));
}
