//! Tests when the controller kills for a keeper that is gone, and when it leaves every copy alone.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use uuid::Uuid;
use zsha_crds::records::LeaseTimings;
use zsha_runtime::store::MemoryStore;

use super::decision::*;
use super::*;
use crate::keeper::Verdict;
use crate::keeper::copies::VmCopy;

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

fn verdict(valid_until: Option<Moment>) -> Verdict {
    Verdict {
        valid_until,
        expects: Some(zsha_runtime::lease::Expectation::Nothing),
        ..Verdict::invalid("n1")
    }
}

/// A keeper's line, which answers, or hangs as that of a stopped process does.
#[derive(Debug, Default)]
struct Line {
    answer: Option<Verdict>,
    /// The line answers the first question; from then on the asker has no descriptor to ask with.
    then_not_asked: Option<AtomicBool>,
    /// True if no keeper listens, and an asker is told so at once.
    gone: bool,
}

impl Line {
    fn answering(answer: Verdict) -> Self {
        Self { answer: Some(answer), ..Self::default() }
    }

    fn gone() -> Self {
        Self { gone: true, ..Self::default() }
    }

    fn never_asked() -> Self {
        Self { then_not_asked: Some(AtomicBool::new(true)), ..Self::default() }
    }
}

#[async_trait]
impl Lease for Line {
    async fn verdict(&self) -> Result<Verdict, KeeperError> {
        if self.then_not_asked.as_ref().is_some_and(|asked| asked.swap(true, Ordering::Relaxed)) {
            let reason = "Too many open files (os error 24)".to_owned();
            return Err(KeeperError::NotAsked { operation: "verdict", reason });
        }
        if self.gone {
            let reason = "No such file or directory (os error 2)".to_owned();
            return Err(KeeperError::Unreachable { operation: "verdict", reason });
        }
        match &self.answer {
            Some(verdict) => Ok(verdict.clone()),
            None => std::future::pending().await,
        }
    }

    async fn set_timings(&self, _: LeaseTimings) -> Result<(), KeeperError> {
        Ok(())
    }

    async fn set_watchdog(&self, _: bool) -> Result<(), KeeperError> {
        Ok(())
    }

    async fn expect(&self, _: zsha_runtime::lease::Expectation) -> Result<(), KeeperError> {
        Ok(())
    }

    async fn release(&self) -> Result<(), KeeperError> {
        Ok(())
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        tokio::sync::watch::channel(0).1
    }
}

/// One copy, and when it was killed.
#[derive(Debug)]
struct One {
    clock: Clock,
    killed: Mutex<Option<Moment>>,
}

impl Copies for One {
    fn alive(&self) -> io::Result<Vec<VmCopy>> {
        Ok(if self.killed.lock().unwrap().is_none() { vec![VmCopy::numbered(7)] } else { vec![] })
    }

    fn kill(&self, _: &VmCopy) -> io::Result<()> {
        self.killed.lock().unwrap().get_or_insert(self.clock.now());
        Ok(())
    }
}

/// Watches for so long, with a state file that shows this deadline, as written by a keeper that then hung. Returns
/// when the copy was killed, from the start on.
async fn killed_after(deadline: u64, line: Line, span: u64) -> Option<Duration> {
    let clock = Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 };
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::in_directory(directory.path());
    let begun = clock.now();
    let memory = Memory {
        step_back: None,
        key: None,
        boot_id: "boot".to_owned(),
        incarnation: Uuid::nil(),
        epoch: 1,
        seq: 1,
        deadline: Some(begun + Duration::from_millis(deadline)),
        timings: LeaseTimings::FAST,
        fence: None,
        unbroken: None,
        expected: None,
        owned: None,
    };
    file.write(&memory).unwrap();
    let one = One { clock, killed: Mutex::default() };
    let store = MemoryStore::new();
    let watching = watch(&file, &line, own(&store), &one, clock);
    let _ = tokio::time::timeout(Duration::from_millis(span), watching).await;
    let killed = *one.killed.lock().unwrap();
    killed.map(|killed| killed.since(begun))
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_hangs_is_stood_in_for_at_the_deadline_and_not_a_second_later() {
    // Whatever the time of the last look was.
    for deadline in (100..6_000).step_by(130) {
        let killed = killed_after(deadline, Line::default(), 20_000).await.unwrap();
        let due = Duration::from_millis(deadline);
        // Found so late that there was no time to ask before: as late as it asks.
        let asked = if deadline < 600 { ANSWER_WITHIN } else { Duration::ZERO };
        assert!(killed >= due && killed <= due.max(asked) + Duration::from_millis(20), "{due:?}: {killed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_answers_is_left_to_enforce_whatever_its_file_says() {
    let valid = verdict(Some(Moment::from_nanos(u64::MAX)));
    for answer in [valid, verdict(None)] {
        assert_eq!(killed_after(1_000, Line::answering(answer), 20_000).await, None);
    }
}

/// Watches for so long, with `read_file` to read the state file. Returns when the copy was killed, from the start
/// on.
async fn killed_by(
    read_file: impl Fn() -> anyhow::Result<Option<Memory>>,
    line: Line,
    span: u64,
) -> Option<Duration> {
    killed_beside(&MemoryStore::new(), read_file, line, span).await
}

const KEY: &str = "zsha/c/leases/n1";

fn own(store: &MemoryStore) -> OwnLease<'_> {
    OwnLease { store, key: KEY, boot_id: "boot" }
}

async fn killed_beside(
    store: &MemoryStore,
    read_file: impl Fn() -> anyhow::Result<Option<Memory>>,
    line: Line,
    span: u64,
) -> Option<Duration> {
    let clock = Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 };
    let begun = clock.now();
    let one = One { clock, killed: Mutex::default() };
    let memories = Memories { path: Path::new("/run/zsha/lab/keeper.json"), read: read_file };
    let watching = watch_by(memories, &line, own(store), &one, clock);
    let _ = tokio::time::timeout(Duration::from_millis(span), watching).await;
    let killed = *one.killed.lock().unwrap();
    killed.map(|killed| killed.since(begun))
}

fn not_opened(errno: rustix::io::Errno) -> anyhow::Error {
    use anyhow::Context;
    let opened: io::Result<()> = Err(errno.into());
    opened.context("cannot read /run/zsha/lab/keeper.json").unwrap_err()
}

/// The controller was started with another run directory, for instance, or the file makes no sense to it.
#[tokio::test(start_paused = true)]
async fn a_keeper_that_was_never_found_is_looked_for_as_long_as_the_longest_lease() {
    let garbled = || anyhow::anyhow!("cannot decode /run/zsha/lab/keeper.json");
    for killed in [
        killed_by(|| Ok(None), Line::gone(), 400_000).await,
        killed_by(|| Err(garbled()), Line::gone(), 400_000).await,
        killed_by(|| Ok(None), Line::default(), 400_000).await,
    ] {
        let killed = killed.unwrap();
        let late = ANSWER_WITHIN + LOOK_EVERY;
        assert!(killed >= UNHEARD_KEEPER && killed <= UNHEARD_KEEPER + late, "{killed:?}");
    }
}

/// Writes this node's lease once a second, for so long.
async fn renew(store: &MemoryStore, boot_id: &str, state: LeaseState, seconds: u64) {
    for seq in 1..=seconds {
        let record = serde_json::json!({
            "node": "n1", "incarnation": Uuid::nil(), "epoch": 1, "seq": seq, "state": state, "machineId": "m",
            "bootId": boot_id, "timings": LeaseTimings::FAST, "controllerAlive": true,
            "renewedAt": "2026-11-30T00:00:00Z",
        });
        store.overwrite(KEY, &record.to_string());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_shows_that_the_lease_is_renewed_the_keeper_is_not_gone_wherever_it_works() {
    const RENEWED: u64 = 1_000;
    let mut all = Vec::new();
    for (boot, state) in
        [("boot", LeaseState::Held), ("of before", LeaseState::Held), ("boot", LeaseState::Fenced)]
    {
        let store = MemoryStore::new();
        let killed = killed_beside(&store, || Ok(None), Line::gone(), 2_000_000);
        let (killed, ()) = tokio::join!(killed, renew(&store, boot, state, RENEWED));
        all.push(killed.unwrap());
    }
    let once_it_stands_still = Duration::from_secs(RENEWED) + UNHEARD_KEEPER;
    assert!(all[0] + RENEWED_ASKED_EVERY * 2 >= once_it_stands_still, "{all:?}");
    assert!(all[0] <= once_it_stands_still + RENEWED_ASKED_EVERY * 2, "{all:?}");
    for of_others in &all[1..] {
        assert!(*of_others <= UNHEARD_KEEPER + RENEWED_ASKED_EVERY, "{all:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_may_not_be_asked_is_never_taken_for_one_that_is_gone() {
    let denied = || Err(not_opened(rustix::io::Errno::ACCESS));
    assert_eq!(killed_by(|| Ok(None), Line::never_asked(), 2_000_000).await, None);
    assert_eq!(killed_by(denied, Line::never_asked(), 2_000_000).await, None);
    assert_eq!(killed_by(denied, Line::gone(), 2_000_000).await, None);
}

/// The last deadline that it was told has long run out by then, and was renewed without its knowing.
#[tokio::test(start_paused = true)]
async fn a_keeper_that_could_not_be_asked_is_not_one_that_is_gone() {
    let told = Some(Moment::from_millis(1_500));
    let line =
        Line { answer: Some(verdict(told)), then_not_asked: Some(AtomicBool::default()), ..Line::default() };
    assert_eq!(killed_after(1_000, line, 60_000).await, None);
}

#[test]
fn a_state_file_that_could_not_be_opened_for_want_of_a_descriptor_is_not_one_that_is_gone() {
    use rustix::io::Errno;
    assert!(is_a_lack(&not_opened(Errno::MFILE)));
    assert!(!is_a_lack(&not_opened(Errno::ACCESS)));
    assert!(!is_a_lack(&anyhow::anyhow!("it holds timings that are not safe")));
    for errno in [Errno::ACCESS, Errno::PERM] {
        assert!(is_denied(&not_opened(errno)), "{errno}");
    }
    assert!(!is_denied(&not_opened(Errno::IO)));
    assert!(!is_denied(&anyhow::anyhow!("it holds timings that are not safe")));
}

#[test]
fn while_the_keeper_answers_it_does_nothing_even_without_a_valid_lease() {
    let mut net = SecondNet::default();
    assert_eq!(net.decide(at(100_000)), None);
    net.answered(&verdict(None));
    assert_eq!(net.decide(at(100_000)), None);
}

#[test]
fn when_the_keeper_is_gone_it_kills_at_the_last_deadline_it_was_told() {
    let mut net = SecondNet::default();
    net.answered(&verdict(Some(at(8_000))));
    net.unanswered(at(1_000), None);
    assert_eq!(net.decide(at(7_999)), Some(Enforce::Valid { until: at(8_000) }));
    assert!(matches!(net.decide(at(8_000)), Some(Enforce::Kill { .. })));
    net.answered(&verdict(Some(at(16_000))));
    assert_eq!(net.decide(at(9_000)), None);
}

#[test]
fn a_keeper_that_said_not_valid_before_it_was_gone_is_believed_at_once() {
    let mut net = SecondNet::default();
    net.answered(&verdict(None));
    net.unanswered(at(1_000), None);
    assert!(matches!(net.decide(at(1_000)), Some(Enforce::Kill { .. })));
}

#[test]
fn a_renewal_that_only_the_state_file_tells_of_counts() {
    let mut net = SecondNet::default();
    net.answered(&verdict(Some(at(8_000))));
    net.unanswered(at(7_000), Some(at(14_000)));
    assert_eq!(net.decide(at(9_000)), Some(Enforce::Valid { until: at(14_000) }));
}

#[test]
fn a_state_file_that_vanished_takes_no_deadline_back_that_it_has_shown() {
    let mut net = SecondNet::default();
    net.remembered(at(30_000));
    for seconds in 1..=29 {
        net.unanswered(at(seconds * 1_000), None);
        assert_eq!(net.decide(at(seconds * 1_000)), Some(Enforce::Valid { until: at(30_000) }));
    }
    assert!(matches!(net.decide(at(30_000)), Some(Enforce::Kill { .. })), "and no moment longer");
    net.remembered(at(40_000));
    assert_eq!(net.decide(at(31_000)), None);
}

#[test]
fn what_the_keeper_said_last_counts_more_than_what_the_file_showed_before() {
    let mut net = SecondNet::default();
    net.remembered(at(30_000));
    net.answered(&verdict(None));
    net.unanswered(at(9_000), None);
    assert!(matches!(net.decide(at(9_000)), Some(Enforce::Kill { .. })));
}

#[test]
fn a_keeper_that_was_heard_of_is_stood_in_for_at_its_deadline_whatever_could_not_be_asked_since() {
    let mut net = SecondNet::default();
    net.answered(&verdict(Some(at(8_000))));
    net.unanswered(at(1_000), None);
    net.not_asked();
    assert_eq!(net.decide(at(7_999)), Some(Enforce::Valid { until: at(8_000) }));
    assert!(matches!(net.decide(at(8_000)), Some(Enforce::Kill { .. })));
    let mut net = SecondNet::default();
    net.remembered(at(30_000));
    net.not_asked();
    assert_eq!(net.decide(at(31_000)), None, "it lives, as far as is known");
    net.unanswered(at(32_000), None);
    assert!(matches!(net.decide(at(32_000)), Some(Enforce::Kill { .. })));
}

#[test]
fn a_keeper_that_was_never_heard_of_is_looked_for_anew_after_it_could_not_be_asked() {
    let mut net = SecondNet::default();
    net.unanswered(at(1_000), None);
    net.unanswered(at(250_000), None);
    assert_eq!(net.decide(at(250_000)), Some(Enforce::Valid { until: at(301_000) }));
    net.not_asked();
    assert_eq!(net.decide(at(301_000)), None);
    net.unanswered(at(301_000), None);
    assert_eq!(net.decide(at(301_000)), Some(Enforce::Valid { until: at(601_000) }));
    assert!(matches!(net.decide(at(601_000)), Some(Enforce::Kill { .. })));
}

#[test]
fn a_lease_that_is_renewed_seldom_is_renewed_all_the_time_and_one_that_is_over_no_more() {
    let d = Duration::from_secs(70);
    let mut net = SecondNet::default();
    net.unanswered(at(0), None);
    net.in_store(at(5_000), Some((7, d)));
    assert!(!net.is_renewed_elsewhere(at(5_000)), "one alone may be of any time");
    net.in_store(at(15_000), Some((8, d)));
    for (seconds, index) in [(20, 8), (25, 9), (30, 9)] {
        net.in_store(at(seconds * 1_000), Some((index, d)));
        assert!(net.is_renewed_elsewhere(at(seconds * 1_000)), "{seconds}");
    }
    net.in_store(at(35_000), None);
    assert!(net.is_renewed_elsewhere(at(94_999)) && !net.is_renewed_elsewhere(at(95_000)));
}

#[test]
fn a_keeper_that_has_written_down_no_deadline_is_given_a_moment_and_no_more() {
    let mut net = SecondNet::default();
    net.found();
    net.unanswered(at(1_000), None);
    net.unanswered(at(5_000), None);
    assert!(matches!(net.decide(at(5_999)), Some(Enforce::Valid { .. })));
    assert!(matches!(net.decide(at(6_000)), Some(Enforce::Kill { .. })));
}
