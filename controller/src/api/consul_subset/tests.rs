//! Tests zsha's own client of Consul against this server over the embedded store, by the contract that all stores keep,
//! and the answers themselves, as a shell sees them.

use std::future::pending;

use zsha_runtime::store::consul::{ConsulSettings, ConsulStore};
use zsha_runtime::store::{MemoryStore, Op, Txn, contract};

use super::super::tests::asking::{Server, ask, send};
use super::*;

async fn served() -> (MemoryStore, Server) {
    let store = MemoryStore::new();
    let shared: SharedStore = Arc::new(store.clone());
    let server = Server::start(|listener| serve(listener, shared, pending())).await;
    (store, server)
}

fn client(server: &Server) -> ConsulStore {
    let endpoint = format!("http://{}", server.address).parse().unwrap();
    ConsulStore::connect(ConsulSettings::new(vec![endpoint])).unwrap()
}

fn create(store: &MemoryStore, key: &str, value: &str) -> u64 {
    let op = Op::Create { key: key.to_owned(), value: value.to_owned() };
    match store.apply(&[op]).unwrap() {
        Txn::Committed { indices } => indices[0],
        Txn::Conflict { message, .. } => panic!("{message}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_client_of_consul_keeps_the_contract_of_all_stores_against_it() {
    let (_, server) = served().await;
    let store = client(&server);
    for (name, case) in contract::cases() {
        eprintln!("case: {name}");
        case(&store, &format!("contract/{name}/")).await;
    }
}

#[tokio::test]
async fn our_client_reads_leader_agent_and_members() {
    let (_, server) = served().await;
    let store = client(&server);
    assert!(store.leader().await.unwrap().is_some());
    let agent = store.agent().await.unwrap();
    assert!(agent.server);
    assert_eq!(agent.raft_multiplier, Some(1));
    let members = store.members().await.unwrap();
    let told: Vec<_> = members.iter().map(|member| (member.node.as_str(), member.status.word())).collect();
    assert_eq!(told, [("embedded", "alive")]);
}

#[tokio::test]
async fn a_key_is_read_with_its_index_and_its_value_in_base64_or_raw() {
    let (store, server) = served().await;
    let index = create(&store, "zsha/prod/spec", "{}");
    let answer = server.get("/v1/kv/zsha/prod/spec").await;
    assert_eq!(answer.header("x-consul-index"), Some(index.to_string().as_str()));
    assert_eq!(answer.header("x-consul-knownleader"), Some("true"));
    assert_eq!(answer.json()[0]["Value"], "e30=");
    assert_eq!(answer.json()[0]["ModifyIndex"], index);
    assert_eq!(server.get("/v1/kv/zsha/prod/spec?raw").await.body, "{}");
    let absent = server.get("/v1/kv/zsha/prod/other").await;
    assert_eq!((absent.status, absent.body.as_str()), (404, ""));
    assert!(absent.header("x-consul-index").unwrap().parse::<u64>().unwrap() >= index);
}

#[tokio::test]
async fn keys_are_listed_down_to_a_separator() {
    let (store, server) = served().await;
    for key in ["z/a", "z/b/1", "z/b/2", "z/c/1"] {
        create(&store, key, "");
    }
    let answer = server.get("/v1/kv/z/?keys&separator=/").await;
    assert_eq!(answer.json(), json!(["z/a", "z/b/", "z/c/"]));
    assert_eq!(server.get("/v1/kv/z/?keys").await.json(), json!(["z/a", "z/b/1", "z/b/2", "z/c/1"]));
    assert_eq!(server.get("/v1/kv/z/a").await.json()[0]["Value"], Value::Null);
}

#[tokio::test]
async fn recurse_compares_strings_and_its_value_does_not_count_as_in_consul() {
    let (store, server) = served().await;
    create(&store, "leases/n10", "x");
    let answer = server.get("/v1/kv/leases/n1?recurse=false").await;
    assert_eq!(answer.json()[0]["Key"], "leases/n10");
    assert_eq!(server.get("/v1/kv/leases/n1").await.status, 404);
}

#[tokio::test]
async fn a_conflict_is_a_409_that_names_the_operation() {
    let (store, server) = served().await;
    create(&store, "a/b", "x");
    let body = r#"[{"KV":{"Verb":"check-not-exists","Key":"a/c"}},{"KV":{"Verb":"cas","Key":"a/b","Index":0,"Value":"eA=="}}]"#;
    let answer = send(server.address, "PUT /v1/txn", "localhost", body).await;
    assert_eq!(answer.status, 409);
    assert_eq!(answer.json()["Results"], Value::Null);
    assert_eq!(answer.json()["Errors"][0]["OpIndex"], 1);
}

#[tokio::test]
async fn what_it_does_not_know_it_refuses() {
    let (_, server) = served().await;
    for (line, body, status) in [
        ("PUT /v1/txn", r#"[{"KV":{"Verb":"set","Key":"a/b","Value":"eA=="}}]"#, 400),
        ("PUT /v1/txn", r#"[{"KV":{"Verb":"cas","Key":"a/b","Index":0,"Value":"/w=="}}]"#, 400),
        ("PUT /v1/txn", "{", 400),
        ("PUT /v1/kv/a/b", "x", 405),
        ("DELETE /v1/kv/a/b", "", 405),
        ("PUT /v1/session/create", "{}", 404),
    ] {
        assert_eq!(send(server.address, line, "localhost", body).await.status, status, "{line} {body}");
    }
    let much = format!(
        r#"[{{"KV":{{"Verb":"cas","Key":"a/b","Index":0,"Value":"{}"}}}}]"#,
        "A".repeat(LARGEST_BODY)
    );
    assert_eq!(send(server.address, "PUT /v1/txn", "localhost", &much).await.status, 413);
    assert_eq!(ask(server.address, "GET /v1/kv/a/b?index=x", "localhost").await.status, 400);
    assert_eq!(ask(server.address, "GET /v1/kv/a/b", "evil.example").await.status, 421);
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let error = serve(listener, Arc::new(MemoryStore::new()), pending()).await.unwrap_err();
    assert!(error.to_string().contains("on loopback only"), "{error}");
}

#[test]
fn a_wait_is_read_as_consul_reads_it() {
    assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
    assert_eq!(duration("0s"), Some(DEFAULT_WAIT));
    for wrong in ["", "5", "m", "5 m", "99999999999999999999s", "9999999999999999999h"] {
        assert_eq!(duration(wrong), None, "{wrong}");
    }
}
