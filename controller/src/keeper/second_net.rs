//! The controller's own enforcement, for when its keeper is gone: it kills when the last deadline anybody knows of
//! has passed.
//!
//! It never acts while the keeper answers, and never on a deadline it made up. What it does not know (the keeper's
//! own restart, a renewal it was not told of) it is told from the keeper's state file before it decides.

use std::time::Duration;

use zsha_runtime::Moment;

use super::Verdict;
use super::enforce::{Enforce, enforce};

/// How long a keeper of which nothing is known may be away: its own restart takes less, and it would kill
/// at once itself if it came back without a memory.
const UNKNOWN_KEEPER: Duration = Duration::from_secs(5);

/// Fed with every verdict, or the lack of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SecondNet {
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
    pub fn answered(&mut self, verdict: &Verdict) {
        // "Not valid" is a deadline that has passed, not one that nobody knows.
        *self = Self { told: Some(verdict.valid_until.unwrap_or_default()), read: None, lost: None };
    }

    /// The state file shows a deadline that has not passed, so the keeper was not asked.
    pub fn remembered(&mut self, deadline: Moment) {
        self.read = Some(deadline);
        self.lost = None;
    }

    /// The keeper did not answer. `remembered` is the deadline in its state file, if there is one to be read.
    pub fn unanswered(&mut self, now: Moment, remembered: Option<Moment>) {
        self.lost.get_or_insert(now);
        self.read = remembered.or(self.read);
    }

    /// None: nothing to do, the keeper lives. Otherwise what is right, by the last deadline known.
    pub fn decide(&self, now: Moment) -> Option<Enforce> {
        let lost = self.lost?;
        Some(enforce(now, Some(self.told.max(self.read).unwrap_or(lost + UNKNOWN_KEEPER))))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use zsha_crds::records::LeaseTimings;

    use super::*;

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
            copies: None,
            counted_at: None,
            ended: None,
            watchdog: crate::keeper::WatchdogState::None,
        }
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
