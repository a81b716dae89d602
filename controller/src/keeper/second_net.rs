//! The controller's own enforcement, for when its keeper is gone: it kills when the last deadline anybody knows of
//! has passed.
//!
//! It never acts while the keeper answers, and never on a deadline it made up. What it does not know (the keeper's
//! own restart, a renewal it was not told of) it is told from the keeper's state file before it decides. Where this process
//! lacks what it takes to ask or to read (descriptors, memory), nothing is learnt, and nobody is killed on that.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use zsha_runtime::{Clock, Moment};

use super::copies::Copies;
use super::enforce::{Enforce, enforce};
use super::killing::{self, Killing};
use super::{KeeperError, Lease, StateFile, Verdict};
use crate::limits;

/// Often enough for what no deadline is known of.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A keeper answers from memory. One that has not by then is taken to be gone.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// A keeper that has not renewed by then is asked how it is, so that the answer, or the lack of one, is there at the
/// deadline: between that and the moment others may fence there is not a second in `Fast`.
const ASK_BEFORE: Duration = Duration::from_millis(600);

/// Kills when the keeper is gone and the last deadline it wrote down has passed. While that is far the keeper is not
/// asked: it takes a question for a sign that the passes of this controller go on.
pub async fn watch(file: &StateFile, lease: &dyn Lease, copies: &dyn Copies, clock: Clock) -> Infallible {
    let mut net = SecondNet::default();
    let mut killing = Killing::default();
    loop {
        let read = file.read();
        let now = clock.now();
        if read.as_ref().is_err_and(is_a_lack) {
            clock.sleep_until(now + LOOK_EVERY).await;
            continue;
        }
        let remembered = read.ok().flatten().and_then(|memory| memory.deadline);
        if let Some(deadline) = remembered.filter(|deadline| now + ASK_BEFORE < *deadline) {
            net.remembered(deadline);
            clock.sleep_until((deadline - ASK_BEFORE).min(now + LOOK_EVERY)).await;
            continue;
        }
        // A keeper of which nothing was heard the last time, and nothing is written since, is not waited for again.
        if net.is_lost() {
            net.unanswered(now, remembered);
        }
        kill_if_right(&net, &mut killing, copies, now);
        match tokio::time::timeout(ANSWER_WITHIN, lease.verdict()).await {
            Ok(Ok(verdict)) => net.answered(&verdict),
            Ok(Err(KeeperError::NotAsked { .. })) => {
                clock.sleep_until(clock.now() + LOOK_EVERY).await;
                continue;
            }
            Ok(Err(_)) | Err(_) => net.unanswered(clock.now(), remembered),
        }
        let now = clock.now();
        kill_if_right(&net, &mut killing, copies, now);
        let next = match net.decide(now) {
            Some(Enforce::Valid { until }) => until.min(now + LOOK_EVERY),
            Some(Enforce::Kill { .. }) | None => now + LOOK_EVERY,
        };
        clock.sleep_until(next).await;
    }
}

fn is_a_lack(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(limits::is_a_lack)
}

fn kill_if_right(net: &SecondNet, killing: &mut Killing, copies: &dyn Copies, now: Moment) {
    if let Some(Enforce::Kill { .. }) = net.decide(now) {
        let round = killing.round(copies, now, LOOK_EVERY);
        round.reports.iter().for_each(killing::log);
    }
}

/// How long a keeper of which nothing is known may be away: its own restart takes less, and it would kill
/// at once itself if it came back without a memory.
const UNKNOWN_KEEPER: Duration = Duration::from_secs(5);

/// Fed with every verdict, or the lack of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct SecondNet {
    /// The last deadline the keeper has told. None: it has not said anything yet.
    told: Option<Moment>,
    /// The last deadline read in the state file since then. It holds although the file has vanished: that somebody wiped
    /// `/run` takes no lease back.
    read: Option<Moment>,
    /// Since when the keeper has not answered.
    lost: Option<Moment>,
}

impl SecondNet {
    /// The keeper answered: enforcing is its business.
    fn answered(&mut self, verdict: &Verdict) {
        // "Not valid" is a deadline that has passed, not one that nobody knows.
        *self = Self { told: Some(verdict.valid_until.unwrap_or_default()), read: None, lost: None };
    }

    /// The state file shows a deadline that has not passed, so the keeper was not asked.
    fn remembered(&mut self, deadline: Moment) {
        self.read = Some(deadline);
        self.lost = None;
    }

    /// The keeper did not answer. `remembered` is the deadline in its state file, if there is one to be read.
    fn unanswered(&mut self, now: Moment, remembered: Option<Moment>) {
        self.lost.get_or_insert(now);
        self.read = remembered.or(self.read);
    }

    fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// None: nothing to do, the keeper lives. Otherwise what is right, by the last deadline known.
    fn decide(&self, now: Moment) -> Option<Enforce> {
        let lost = self.lost?;
        Some(enforce(now, Some(self.told.max(self.read).unwrap_or(lost + UNKNOWN_KEEPER))))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use uuid::Uuid;
    use zsha_crds::records::LeaseTimings;
    use zsha_runtime::lease::Memory;

    use super::*;
    use crate::keeper::KeeperError;
    use crate::keeper::copies::VmCopy;

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    fn verdict(valid_until: Option<Moment>) -> Verdict {
        Verdict {
            node: zsha_crds::NodeName::new("n1").unwrap(),
            valid_until,
            incarnation: Uuid::nil(),
            epoch: 1,
            seq: 1,
            timings: LeaseTimings::BALANCED,
            message: String::new(),
            unbroken_since: None,
            store_went_back: None,
            confirmed: 0,
            copies: None,
            counted_at: None,
            incoming: false,
            expects: Some(zsha_runtime::lease::Expectation::Nothing),
            ended: None,
            unexpected: None,
            late: None,
            watchdog: crate::keeper::WatchdogState::None,
        }
    }

    /// A keeper's line, which answers or hangs, as one that was stopped does.
    #[derive(Debug, Default)]
    struct Line {
        answer: Option<Verdict>,
        /// Asked for the first time it answers; from then on whoever asks has no descriptor to ask with.
        then_not_asked: Option<AtomicBool>,
    }

    impl Line {
        fn answering(answer: Verdict) -> Self {
            Self { answer: Some(answer), ..Self::default() }
        }
    }

    #[async_trait]
    impl Lease for Line {
        async fn verdict(&self) -> Result<Verdict, KeeperError> {
            if self.then_not_asked.as_ref().is_some_and(|asked| asked.swap(true, Ordering::Relaxed)) {
                let reason = "Too many open files (os error 24)".to_owned();
                return Err(KeeperError::NotAsked { operation: "verdict", reason });
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

    /// For so long, with a state file that shows this deadline, as it was written by a keeper that then hung. When the
    /// copy was killed, from the start on.
    async fn killed_after(deadline: u64, line: Line, span: u64) -> Option<Duration> {
        let clock = Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 };
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(directory.path());
        let begun = clock.now();
        let memory = Memory {
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
        };
        file.write(&memory).unwrap();
        let one = One { clock, killed: Mutex::default() };
        let _ = tokio::time::timeout(Duration::from_millis(span), watch(&file, &line, &one, clock)).await;
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
            assert!(
                killed >= due && killed <= due.max(asked) + Duration::from_millis(20),
                "{due:?}: {killed:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_keeper_that_answers_is_left_to_enforce_whatever_its_file_says() {
        let valid = verdict(Some(Moment::from_nanos(u64::MAX)));
        for answer in [valid, verdict(None)] {
            assert_eq!(killed_after(1_000, Line::answering(answer), 20_000).await, None);
        }
    }

    /// What it was told last has long run out by then, and was renewed without its knowing.
    #[tokio::test(start_paused = true)]
    async fn a_keeper_that_could_not_be_asked_is_not_one_that_is_gone() {
        let told = Some(Moment::from_millis(1_500));
        let line = Line { answer: Some(verdict(told)), then_not_asked: Some(AtomicBool::default()) };
        assert_eq!(killed_after(1_000, line, 60_000).await, None);
    }

    #[test]
    fn a_state_file_that_could_not_be_opened_for_want_of_a_descriptor_is_not_one_that_is_gone() {
        use anyhow::Context;
        let opened = |errno: rustix::io::Errno| {
            Err::<(), _>(io::Error::from(errno)).context("cannot read /run/zsha/lab/keeper.json").unwrap_err()
        };
        assert!(is_a_lack(&opened(rustix::io::Errno::MFILE)));
        assert!(!is_a_lack(&opened(rustix::io::Errno::ACCESS)));
        assert!(!is_a_lack(&anyhow::anyhow!("it holds timings that are not safe")));
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
    fn a_keeper_of_which_nothing_is_known_is_given_a_moment_and_no_more() {
        let mut net = SecondNet::default();
        net.unanswered(at(1_000), None);
        net.unanswered(at(5_000), None);
        assert!(matches!(net.decide(at(5_999)), Some(Enforce::Valid { .. })));
        assert!(matches!(net.decide(at(6_000)), Some(Enforce::Kill { .. })));
    }
}
