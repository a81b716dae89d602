//! Tests the line from the controller to its keeper, over a real socket.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use zsha_runtime::Clock;

use super::*;
use crate::keeper::renew::Notebook;
use crate::keeper::renew::tests::keeper_on_memory_store;
use crate::keeper::{KeeperError, Lease, WatchdogState};

/// A keeper with its socket, in this process but spoken to as if it were in another.
struct Served {
    _directory: tempfile::TempDir,
    path: PathBuf,
    keeper: JoinHandle<()>,
}

impl Served {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c/keeper.sock");
        let keeper = start(&path);
        Self { _directory: directory, path, keeper }
    }

    async fn end(&mut self) {
        self.keeper.abort();
        assert!((&mut self.keeper).await.unwrap_err().is_cancelled());
    }
}

fn start(path: &Path) -> JoinHandle<()> {
    let (line, run) = keeper_on_memory_store(Clock::Boottime, Notebook::Forgetful);
    let listener = bind(path).unwrap();
    tokio::spawn(async move {
        tokio::join!(run, serve(listener, line));
    })
}

async fn until_valid(lease: &SocketLease) -> Verdict {
    let mut changes = lease.changes();
    loop {
        match lease.verdict().await {
            Ok(verdict) if verdict.valid(Clock::Boottime.now()) => return verdict,
            Ok(_) | Err(_) => changes.changed().await.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_controller_asks_sets_and_releases_over_the_socket() {
    let served = Served::new();
    let lease = SocketLease::new(served.path.clone());
    let verdict = until_valid(&lease).await;
    assert_eq!(verdict.timings, LeaseTimings::BALANCED);

    lease.set_timings(LeaseTimings::FAST).await.unwrap();
    assert_eq!(lease.verdict().await.unwrap().timings, LeaseTimings::FAST);
    let unsafe_timings = LeaseTimings { fence_after_millis: 1, ..LeaseTimings::FAST };
    let refused = lease.set_timings(unsafe_timings).await.unwrap_err();
    assert!(matches!(&refused, KeeperError::Refused { reason, .. } if reason.contains("fenceAfterMillis")));

    // It has none, so there is nothing to turn off.
    lease.set_watchdog(false).await.unwrap();
    lease.release().await.unwrap();
    assert!(!lease.verdict().await.unwrap().valid(Clock::Boottime.now()));
}

#[tokio::test]
async fn changes_move_when_the_line_is_lost_and_when_it_is_made_again() {
    let mut served = Served::new();
    let lease = SocketLease::new(served.path.clone());
    until_valid(&lease).await;
    let mut changes = lease.changes();
    changes.mark_unchanged();
    served.end().await;
    while lease.verdict().await.is_ok() {
        changes.changed().await.unwrap();
    }
    assert!(matches!(lease.verdict().await, Err(KeeperError::Unreachable { .. })));
    served.keeper = start(&served.path);
    until_valid(&lease).await;
}

#[tokio::test]
async fn a_lease_without_a_keeper_says_so_and_finds_it_when_it_comes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keeper.sock");
    let lease = SocketLease::new(path.clone());
    assert!(matches!(lease.verdict().await, Err(KeeperError::Unreachable { .. })));
    let _keeper = start(&path);
    until_valid(&lease).await;
}

#[tokio::test]
async fn the_socket_is_for_its_owner_alone() {
    let served = Served::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&served.path), 0o600);
    assert_eq!(mode(served.path.parent().unwrap()), 0o700);
}

#[tokio::test]
async fn nonsense_and_endless_lines_cost_their_sender_the_connection_and_nobody_else() {
    let served = Served::new();
    let lease = SocketLease::new(served.path.clone());
    let endless = vec![b'x'; usize::try_from(LINE_LIMIT).unwrap() + 1];
    for line in [b"{\"ask\":\"everything\"}\n".to_vec(), b"\n".to_vec(), b"\xff\n".to_vec(), endless] {
        let (read, mut write) = UnixStream::connect(&served.path).await.unwrap().into_split();
        write.write_all(&line).await.unwrap();
        let mut read = BufReader::new(read);
        let answer: Option<Answer> = receive(&mut read).await.unwrap();
        assert!(matches!(answer, Some(Answer::Refused { .. })), "{answer:?}");
        // Closed, or reset because more was sent than it cared to read.
        assert!(!matches!(receive::<Answer>(&mut read).await, Ok(Some(_))));
    }
    until_valid(&lease).await;
}

#[tokio::test]
async fn a_socket_left_behind_by_a_dead_keeper_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keeper.sock");
    drop(bind(&path).unwrap());
    assert!(path.exists());
    bind(&path).unwrap();
}

#[test]
fn a_verdict_of_an_older_keeper_reads_as_one_without_watchdog_that_has_ended_nothing() {
    let old = r#"{"answer":"verdict","verdict":{"node":"n1","validUntil":null,"seq":1,"epoch":1,
        "incarnation":"00000000-0000-0000-0000-000000000000","message":"renewed","copies":0,
        "timings":{"renewMillis":1000,"ttlMillis":8000,"killMillis":1000,"fenceAfterMillis":10000}}}"#;
    let Answer::Verdict { verdict } = serde_json::from_str(old).unwrap() else { panic!("no verdict") };
    assert_eq!((verdict.watchdog, verdict.ended, verdict.counted_at), (WatchdogState::None, None, None));
}
