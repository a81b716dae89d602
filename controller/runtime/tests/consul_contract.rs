//! The contract of the store, and Consul's own pitfalls, on real Consul servers. Needs a `consul`: without one it
//! fails and says so.

#![allow(clippy::unwrap_used, reason = "these are tests, with what they share")]

mod consul;

use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use zsha_runtime::store::consul::{ConsulSettings, ConsulStore, Endpoint, Tls, Token};
use zsha_runtime::store::{Entry, Op, Read, Store, StoreError, Txn, contract};
use zsha_runtime::watcher::{Config, Event, watcher};

use consul::{Agent, MASTER_TOKEN, PATIENCE, Part, store};

const TIMEOUT: Duration = Duration::from_secs(1);

fn create(key: &str, value: &str) -> Op {
    Op::Create { key: key.to_owned(), value: value.to_owned() }
}

async fn committed(store: &dyn Store, op: Op) -> u64 {
    match store.txn(vec![op]).await.unwrap() {
        Txn::Committed { indices } => indices[0],
        conflict @ Txn::Conflict { .. } => panic!("{conflict:?}"),
    }
}

fn connect(endpoints: Vec<Endpoint>, request_timeout: Duration) -> ConsulStore {
    ConsulStore::connect(ConsulSettings { request_timeout, ..ConsulSettings::new(endpoints) }).unwrap()
}

/// The things that an endpoint on a bad day does with a connection.
#[derive(Debug, Clone, Copy)]
enum BadDay {
    /// Takes the request and never answers.
    Hangs,
    /// Takes the request and hangs up.
    HangsUp,
    /// Says this, and nothing else.
    Answers(&'static str),
}

/// An endpoint that is no Consul, and how many requests have come to it.
async fn bad(day: BadDay) -> (Endpoint, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut buffer = [0; 64 * 1024];
            if connection.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            match day {
                BadDay::Hangs => held.push(connection),
                BadDay::HangsUp => drop(connection),
                BadDay::Answers(answer) => {
                    // The other side may have gone.
                    let _ = connection.write_all(answer.as_bytes()).await;
                }
            }
        }
    });
    (endpoint, requests)
}

/// A way to the server, and how many connections have been made on it.
async fn counted(server: &Agent) -> (Endpoint, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let to = server.address();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                // Whoever hangs up ends it.
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (endpoint, connections)
}

/// An address where nobody listens.
async fn nobody() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
}

#[tokio::test]
async fn consul_keeps_the_contract() {
    let server = consul::server().await;
    let store = store(&[&server], TIMEOUT);
    for (name, case) in contract::cases() {
        println!("{name}");
        timeout(PATIENCE, case(&store, &format!("{name}/"))).await.expect(name);
    }
    let requests = store.requests();
    assert!(requests.reads > 0 && requests.watches > 0 && requests.transactions > 0);
    assert!(requests.total() < 1_000, "{requests:?}");
}

/// A node whose agent is a client sees the same store. With one server: of several, a stale read may meet one that is
/// behind, whoever asks it.
#[tokio::test]
async fn consul_keeps_the_contract_through_a_client_too() {
    let server = consul::server().await;
    let client = consul::client(std::slice::from_ref(&server)).await;
    let store = store(&[&client], TIMEOUT);
    assert!(!store.agent().await.unwrap().server);
    for (name, case) in contract::cases() {
        println!("{name}");
        timeout(PATIENCE, case(&store, &format!("{name}/"))).await.expect(name);
    }
}

#[tokio::test]
async fn reads_and_writes_one_after_the_other_share_one_connection() {
    let server = consul::server().await;
    let (endpoint, connections) = counted(&server).await;
    let store = connect(vec![endpoint], TIMEOUT);
    for n in 0..10 {
        committed(&store, create(&format!("p/{n}"), "1")).await;
        assert!(store.get(&format!("p/{n}"), Read::Consistent).await.unwrap().is_some());
        // This one is sent by rs-consul.
        assert_eq!(store.list("p/", Read::Consistent).await.unwrap().entries.len(), n + 1);
        assert_eq!(store.watch("p/", 1, TIMEOUT).await.unwrap().entries.len(), n + 1);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_settings_that_are_shipped_are_valid_and_consul_runs_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let of_a_node = dir.path().join("node.hcl");
    std::fs::write(&of_a_node, format!("data_dir = \"{}\"", dir.path().display())).unwrap();
    for shipped in ["server.hcl", "client.hcl"] {
        let mut validate = Command::new(consul::consul());
        let validated =
            validate.arg("validate").arg(consul::manifest(shipped)).arg(&of_a_node).output().unwrap();
        assert!(validated.status.success(), "{validated:?}");
    }

    let server = consul::server().await;
    let client = consul::client(std::slice::from_ref(&server)).await;
    let of_servers = [
        ("ServerMode", json!(true)),
        ("AutopilotCleanupDeadServers", json!(false)),
        ("ConsulRaftHeartbeatTimeout", json!("1s")),
    ];
    for (agent, own) in [(&server, &of_servers[..]), (&client, &[("ServerMode", json!(false))][..])] {
        let (_, body) = agent.request(Method::GET, "/v1/agent/self", "").await;
        let runs_by = &serde_json::from_slice::<serde_json::Value>(&body).unwrap()["DebugConfig"];
        let of_both = [
            ("RPCHoldTimeout", json!("2s")),
            ("LeaveOnTerm", json!(false)),
            ("SkipLeaveOnInt", json!(true)),
            ("RejoinAfterLeave", json!(true)),
            ("RetryJoinIntervalLAN", json!("2s")),
            ("DisableUpdateCheck", json!(true)),
            ("ClientAddrs", json!(["127.0.0.1"])),
        ];
        for (name, value) in own.iter().chain(&of_both) {
            assert_eq!(runs_by[name], *value, "{name}");
        }
    }
}

#[tokio::test]
async fn the_agent_tells_its_raft_multiplier_and_the_leader_its_address() {
    let server = consul::server().await;
    let store = store(&[&server], TIMEOUT);
    let agent = store.agent().await.unwrap();
    assert!(agent.server);
    assert_eq!(agent.raft_multiplier, Some(1));
    assert_eq!(agent.cleanup_dead_servers, Some(false));
    assert!(store.leader().await.unwrap().unwrap().starts_with("127.0.0.1:"));
    let members = store.members().await.unwrap();
    let [member] = members.as_slice() else { panic!("one server, {} members", members.len()) };
    assert_eq!((&member.node, &member.version), (&agent.node, &agent.version));
    assert_eq!((member.status, member.server), (zsha_runtime::store::consul::MemberStatus::Alive, true));
}

#[tokio::test]
async fn a_certificate_is_held_against_the_name_that_is_given_where_the_address_is_another() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, endpoint, ca) = consul::server_with_tls(directory.path()).await;
    let read = async |server_name: Option<&str>| {
        let server_name = server_name.map(|name| name.parse().unwrap());
        let tls = Tls { ca: Some(ca.clone()), identity: None, server_name };
        let settings = ConsulSettings { tls, ..ConsulSettings::new(vec![endpoint.clone()]) };
        ConsulStore::connect(settings).unwrap().get("p/k", Read::Consistent).await
    };
    assert_eq!(read(Some("server.dc1.consul")).await.unwrap(), None);
    for other in [None, Some("server.dc2.consul")] {
        let refused = read(other).await.unwrap_err().to_string();
        assert!(refused.contains("certificate not valid for name"), "{refused}");
    }
}

#[tokio::test]
async fn a_token_without_rights_reads_an_empty_list_and_is_denied_the_rest() {
    let server = consul::server_with_acl().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{MASTER_TOKEN}\n")).unwrap();
    let token = Some(Token::from_file(&file).unwrap());
    let settings = ConsulSettings::new(vec![server.endpoint()]);
    let master = ConsulStore::connect(ConsulSettings { token, ..settings.clone() }).unwrap();
    committed(&master, create("p/k", "1")).await;
    assert!(!format!("{master:?}").contains(MASTER_TOKEN));

    let nobody = ConsulStore::connect(settings).unwrap();
    assert!(nobody.list("p/", Read::Consistent).await.unwrap().entries.is_empty());
    let denied = |error| matches!(error, Err(StoreError::Denied { .. }));
    assert!(denied(nobody.get("p/k", Read::Consistent).await.map(drop)));
    assert!(denied(nobody.txn(vec![create("p/l", "1")]).await.map(drop)));
    assert!(denied(nobody.txn_hedged(vec![create("p/l", "1")], TIMEOUT).await.map(drop)));
    assert!(denied(nobody.agent().await.map(drop)));
    assert!(nobody.members().await.unwrap().is_empty(), "left out without a word");
}

#[tokio::test]
async fn a_token_that_was_rotated_is_read_again_and_the_call_is_done() {
    let server = consul::server_with_acl().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    // Each call meets the rotation by itself, on a store that has only known the token before.
    let before_rotation = || {
        std::fs::write(&file, "1f3b0a4e-0000-4c0b-9d3d-0c6f1d1f5a11\n").unwrap();
        let token = Some(Token::from_file(&file).unwrap());
        let settings = ConsulSettings { token, ..ConsulSettings::new(vec![server.endpoint()]) };
        let store = ConsulStore::connect(settings).unwrap();
        std::fs::write(&file, format!("{MASTER_TOKEN}\n")).unwrap();
        store
    };
    committed(&before_rotation(), create("p/k", "1")).await;
    let hedged = before_rotation().txn_hedged(vec![create("p/l", "1")], TIMEOUT).await;
    assert!(hedged.unwrap().committed());
    assert!(before_rotation().get("p/k", Read::Consistent).await.unwrap().is_some());
    assert_eq!(before_rotation().list("p/", Read::Consistent).await.unwrap().entries.len(), 2);
    assert_eq!(before_rotation().watch("p/", 1, TIMEOUT).await.unwrap().entries.len(), 2);
    assert!(before_rotation().agent().await.unwrap().server);

    let store = before_rotation();
    std::fs::write(&file, "not one token\n").unwrap();
    assert!(matches!(store.get("p/k", Read::Consistent).await, Err(StoreError::Denied { .. })));
    assert_eq!(store.requests().reads, 1, "nothing new to try again with");
}

#[tokio::test]
async fn one_value_that_is_not_text_blinds_nobody_to_the_rest() {
    let server = consul::server().await;
    let store = store(&[&server], TIMEOUT);
    committed(&store, create("p/good", "1")).await;
    server.request(Method::PUT, "/v1/kv/p/binary", &b"\xff\xfe\x00"[..]).await;
    let listing = store.list("p/", Read::Consistent).await.unwrap();
    let keys: Vec<_> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["p/binary", "p/good"]);
    assert!(listing.index >= listing.entries[0].modify_index);
    let binary = store.get("p/binary", Read::Consistent).await.unwrap().unwrap();
    assert_eq!(binary, listing.entries[0]);
    let (key, value, index) = (binary.key, "text".to_owned(), binary.modify_index);
    committed(&store, Op::Cas { key, value, index }).await;
}

#[tokio::test]
async fn a_restored_snapshot_makes_the_watcher_start_over() {
    let server = consul::server().await;
    let store = Arc::new(store(&[&server], TIMEOUT));
    let index = committed(&*store, create("p/a", "old")).await;
    let (status, snapshot) = server.request(Method::GET, "/v1/snapshot", "").await;
    assert!(status.is_success());
    committed(&*store, Op::Cas { key: "p/a".into(), value: "new".into(), index }).await;
    committed(&*store, create("p/b", "new")).await;

    let mut events: Pin<Box<dyn Stream<Item = _>>> =
        Box::pin(watcher(store.clone(), "p/", Config::default()));
    while events.next().await.unwrap().unwrap() != Event::InitDone {}
    let restore = async {
        while store.requests().watches == 0 {
            tokio::task::yield_now().await;
        }
        // Answered after the watch has arrived.
        server.request(Method::GET, "/v1/status/leader", "").await;
        server.request(Method::PUT, "/v1/snapshot", snapshot).await;
    };
    let follow = async {
        // Errors are part of a restore; so are bookmarks.
        while events.next().await.unwrap() != Ok(Event::Init) {}
        events.next().await.unwrap()
    };
    let both = async { tokio::join!(follow, restore).0 };
    // Well within one wait of the watcher: it does not sleep through the step back.
    let first = timeout(Config::default().wait / 2, both).await.expect("the watcher starts over");
    let old = Entry { key: "p/a".into(), value: "old".into(), modify_index: index };
    assert_eq!(first, Ok(Event::InitApply(old)));
}

#[tokio::test]
async fn no_endpoint_is_an_error_and_never_an_empty_list() {
    let store = connect(vec![nobody().await, nobody().await], TIMEOUT);
    let unavailable = |error| matches!(error, Err(StoreError::Unavailable { .. }));
    assert!(unavailable(store.list("p/", Read::Stale).await.map(drop)));
    assert!(unavailable(store.get("p/k", Read::Stale).await.map(drop)));
    assert!(unavailable(store.watch("p/", 1, TIMEOUT).await.map(drop)));
    assert!(unavailable(store.txn(vec![create("p/k", "1")]).await.map(drop)), "nothing was sent");
    assert!(unavailable(store.txn_hedged(vec![create("p/k", "1")], TIMEOUT).await.map(drop)));
    assert_eq!(store.requests().total(), 10);
}

#[tokio::test]
async fn an_answer_that_is_not_consuls_is_never_an_absence() {
    for answer in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nNot Found",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n<>",
        "HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 500 Oops\r\nContent-Length: 17\r\n\r\nNo cluster leader",
        "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n",
        "garbage\r\n\r\n",
    ] {
        let (endpoint, _) = bad(BadDay::Answers(answer)).await;
        let store = connect(vec![endpoint], TIMEOUT);
        assert!(store.get("p/k", Read::Default).await.is_err(), "{answer}");
        assert!(store.list("p/", Read::Default).await.is_err(), "{answer}");
        assert!(store.watch("p/", 1, TIMEOUT).await.is_err(), "{answer}");
    }
}

#[tokio::test]
async fn a_hanging_endpoint_costs_one_timeout_and_the_next_one_answers() {
    let server = consul::server().await;
    let (hanging, requests) = bad(BadDay::Hangs).await;
    let store = connect(vec![hanging, server.endpoint()], Duration::from_millis(300));
    assert_eq!(store.get("p/k", Read::Consistent).await, Ok(None));
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    for _ in 0..5 {
        committed(&store, create(&format!("p/{}", store.requests().transactions), "1")).await;
    }
    assert_eq!(requests.load(Ordering::Relaxed), 1, "the one that answered is asked first");
}

#[tokio::test]
async fn a_write_cut_off_in_flight_is_unknown_and_is_sent_nowhere_else() {
    for day in [
        BadDay::Hangs,
        BadDay::HangsUp,
        BadDay::Answers(
            "HTTP/1.1 500 Oops\r\nContent-Length: 36\r\n\r\nleadership lost while committing log",
        ),
        BadDay::Answers("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"Results\":"),
    ] {
        let (first, sent) = bad(day).await;
        let (second, resent) = bad(BadDay::Hangs).await;
        let store = connect(vec![first, second], Duration::from_millis(300));
        let result = store.txn(vec![create("p/k", "1")]).await;
        assert!(matches!(result, Err(StoreError::Unknown { .. })), "{day:?}: {result:?}");
        assert_eq!((sent.load(Ordering::Relaxed), resent.load(Ordering::Relaxed)), (1, 0), "{day:?}");
    }
}

#[tokio::test]
async fn a_write_that_surely_did_not_happen_goes_to_the_next_endpoint() {
    let server = consul::server().await;
    let no_leader = "HTTP/1.1 500 Oops\r\nContent-Length: 17\r\n\r\nNo cluster leader";
    let (leaderless, _) = bad(BadDay::Answers(no_leader)).await;
    let store = connect(vec![nobody().await, leaderless, server.endpoint()], TIMEOUT);
    committed(&store, create("p/k", "1")).await;
    assert_eq!(store.requests().transactions, 3);
}

#[tokio::test]
async fn a_hedged_write_gets_through_beside_an_endpoint_that_hangs() {
    let server = consul::server().await;
    let (hanging, requests) = bad(BadDay::Hangs).await;
    let store = connect(vec![hanging, server.endpoint()], PATIENCE);
    let hedge = Duration::from_millis(100);
    let first = timeout(PATIENCE / 2, store.txn_hedged(vec![create("p/k", "1")], hedge)).await;
    assert!(first.expect("long before the hanging request's own end").unwrap().committed());
    assert_eq!(requests.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_hedged_conflict_beside_an_open_request_is_unknown() {
    let server = consul::server().await;
    let (hanging, _) = bad(BadDay::Hangs).await;
    let store = connect(vec![hanging, server.endpoint()], TIMEOUT);
    committed(&consul::store(&[&server], TIMEOUT), create("p/k", "1")).await;
    let result = store.txn_hedged(vec![create("p/k", "2")], Duration::from_millis(100)).await;
    assert!(matches!(result, Err(StoreError::Unknown { .. })), "{result:?}");
}

/// Writes to `p/k` until a write goes through. Returns what was written. `index`: the key's, by what was seen of it
/// last.
async fn written_at_last(store: &ConsulStore, index: &mut u64) -> String {
    let write = async {
        let mut retry = tokio::time::interval(Duration::from_millis(50));
        for n in 1_u32.. {
            retry.tick().await;
            let op = Op::Cas { key: "p/k".into(), value: n.to_string(), index: *index };
            match store.txn(vec![op]).await {
                Ok(Txn::Committed { .. }) => return n,
                // A write before may have come through after all: go on from what is there.
                Ok(Txn::Conflict { .. }) | Err(StoreError::Unknown { .. }) => {
                    if let Ok(Some(entry)) = store.get("p/k", Read::Consistent).await {
                        *index = entry.modify_index;
                    }
                }
                Err(StoreError::Unavailable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!("the range has no end")
    };
    timeout(PATIENCE, write).await.expect("a leader takes writes").to_string()
}

#[tokio::test]
async fn reads_and_writes_go_on_when_the_leader_is_killed() {
    let mut servers = consul::three().await;
    let leader = store(&[&servers[0]], TIMEOUT).leader().await.unwrap().unwrap();
    let mut place = None;
    for (n, server) in servers.iter().enumerate() {
        let (_, own) = server.request(Method::GET, "/v1/agent/self", "").await;
        let own: serde_json::Value = serde_json::from_slice(&own).unwrap();
        if own["Member"]["Tags"]["port"].as_str().is_some_and(|port| leader.ends_with(&format!(":{port}"))) {
            place = Some(n);
        }
    }
    servers.swap(0, place.expect("one of them leads"));
    let store = store(&servers.iter().collect::<Vec<_>>(), TIMEOUT);
    let mut index = committed(&store, create("p/k", "0")).await;
    for follower in &servers[1..] {
        let follower = consul::store(&[follower], TIMEOUT);
        let arrived = async { while follower.get("p/k", Read::Stale).await.unwrap().is_none() {} };
        timeout(PATIENCE, arrived).await.expect("the write reaches every server");
    }
    servers[0].kill();

    let stale = store.get("p/k", Read::Stale).await.unwrap();
    assert!(stale.is_some(), "without a leader the others still show what they have");
    let value = written_at_last(&store, &mut index).await;
    let entry = store.get("p/k", Read::Consistent).await.unwrap().unwrap();
    assert_eq!(entry.value, value);
}

/// How a server is lost to the client that asks it, and what a node asks beside that.
#[derive(Debug, Clone, Copy)]
enum Lost {
    /// It dies; the client is asked alone.
    Dies,
    /// It hangs, and its connections stay open; the client is asked alone.
    Hangs,
    /// It hangs, and is one of the two servers that are asked beside the client, as `zsha install` sets it up.
    HangsBesideAnother,
}

#[tokio::test]
async fn a_node_with_a_client_survives_the_loss_of_the_server_that_the_client_asks() {
    for lost in [Lost::Dies, Lost::Hangs, Lost::HangsBesideAnother] {
        let mut servers = consul::three().await;
        let client = consul::client(&servers).await;
        let mut index = committed(&store(&[&client], TIMEOUT), create("p/k", "0")).await;
        let asked = client.asks(&servers).expect("it has asked one of them");
        match lost {
            Lost::Dies => servers[asked].kill(),
            Lost::Hangs | Lost::HangsBesideAnother => servers[asked].stand_still(),
        }
        let store = match lost {
            Lost::Dies | Lost::Hangs => store(&[&client], TIMEOUT),
            Lost::HangsBesideAnother => {
                store(&[&client, &servers[asked], &servers[(asked + 1) % 3]], TIMEOUT)
            }
        };
        let began = Instant::now();
        let value = written_at_last(&store, &mut index).await;
        println!("{lost:?}: written again after {:?}", began.elapsed());
        assert_eq!(store.get("p/k", Read::Consistent).await.unwrap().unwrap().value, value);
    }
}

/// Does what `zsha install` does where a document has fewer servers than before: the agent is started as a client, and
/// is then taken from the servers through itself. Later it is a server again, as a new one.
#[tokio::test]
async fn a_server_becomes_a_client_that_is_no_voter_and_comes_back_as_a_server() {
    let mut servers = consul::servers(4).await;
    let was = servers.pop().unwrap();
    let address = was.rpc_address();
    let of_first = store(&[&servers[0]], TIMEOUT);
    committed(&of_first, create("p/k", "0")).await;

    let client = was.anew(Part::Client, &servers);
    let left = async {
        let mut retry = tokio::time::interval(Duration::from_millis(100));
        loop {
            retry.tick().await;
            match client.voters() {
                Some(voters) if !voters.contains(&address) => return voters,
                Some(_) => {
                    client.command(&["operator", "raft", "remove-peer", &format!("-address={address}")]);
                }
                None => {}
            }
        }
    };
    let voters = timeout(PATIENCE, left).await.expect("it votes no more");
    assert_eq!(voters.len(), 3, "{voters:?}");
    assert!(store(&[&client], TIMEOUT).get("p/k", Read::Consistent).await.unwrap().is_some());
    assert!(client.has_log(), "a client leaves it where it is");
    client.forget_log();

    let server = client.anew(Part::Server(3), &servers);
    let votes = async {
        let mut retry = tokio::time::interval(Duration::from_millis(100));
        while !server.voters().is_some_and(|voters| voters.contains(&address)) {
            retry.tick().await;
        }
    };
    timeout(PATIENCE, votes).await.expect("it votes again");
    assert_eq!(of_first.get("p/k", Read::Consistent).await.unwrap().unwrap().value, "0");
    assert!(server.has_log());
}
