//! Decides whether a keeper is gone and its last deadline has passed, by what was heard of it. Never here: a question to
//! the keeper, a file, a clock.

use std::time::Duration;

use zsha_crds::records::LeaseTimings;
use zsha_runtime::Moment;

use crate::keeper::Verdict;
use crate::keeper::enforce::{Enforce, enforce};

/// The time for which a keeper that has written down no deadline may be away. Its own restart takes less, and it would
/// kill at once itself if it came back with that memory.
const UNKNOWN_KEEPER: Duration = Duration::from_secs(5);

/// The time for which a keeper that was never heard of is looked for: a lease that it may have renewed before that is
/// over by then, whatever the document asks for.
pub(super) const UNHEARD_KEEPER: Duration = LeaseTimings::LONGEST.fence_after();

/// The state that decides. It is fed with every verdict, or the lack of one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SecondNet {
    /// The last deadline that the keeper has told. None: it has not said anything yet.
    told: Option<Moment>,
    /// The last deadline read in the state file since then. It holds although the file has vanished: a wiped `/run`
    /// takes no lease back.
    read: Option<Moment>,
    /// The moment since when the keeper has not answered.
    lost: Option<Moment>,
    /// True if a state file was ever read, with a deadline in it or without.
    found: bool,
    /// The index of the last renewal that the store was seen to have.
    renewal: Option<u64>,
    /// The moment until which the lease holds at the most, if one renewal was seen to follow another.
    renewed_until: Option<Moment>,
}

impl SecondNet {
    /// Takes in that the keeper answered: enforcing is its business.
    pub(super) fn answered(&mut self, verdict: &Verdict) {
        // "Not valid" is a deadline that has passed, not one that nobody knows.
        *self = Self { told: Some(verdict.valid_until.unwrap_or_default()), read: None, lost: None, ..*self };
    }

    /// Takes in that there is a state file: a keeper has worked here.
    pub(super) fn found(&mut self) {
        self.found = true;
    }

    /// Takes in what the store has of the lease, where that could be read. A lease that is renewed has a keeper that
    /// lives, and that keeper is looked for anew from here.
    pub(super) fn in_store(&mut self, now: Moment, renewal: Option<(u64, Duration)>) {
        let Some((renewal, fence_after)) = renewal else { return };
        let before = self.renewal.replace(renewal);
        if before.is_some_and(|before| before != renewal) && !self.has_heard() {
            self.renewed_until = Some(now + fence_after);
            self.lost = None;
        }
    }

    pub(super) fn is_renewed_elsewhere(&self, now: Moment) -> bool {
        self.renewed_until.is_some_and(|until| now < until)
    }

    /// Takes in that the state file shows a deadline that has not passed, so the keeper was not asked.
    pub(super) fn remembered(&mut self, deadline: Moment) {
        self.read = Some(deadline);
        self.lost = None;
    }

    /// Takes in that the keeper did not answer. `remembered` is the deadline in its state file, if one can be read.
    pub(super) fn unanswered(&mut self, now: Moment, remembered: Option<Moment>) {
        self.lost.get_or_insert(now);
        self.read = remembered.or(self.read);
    }

    /// Takes in that the keeper or its state file could not be asked: nothing is learnt. A keeper that was never heard
    /// of may have been there all the time, so it is looked for anew from here; of another keeper the last deadline
    /// stands.
    pub(super) fn not_asked(&mut self) {
        if !self.has_heard() {
            self.lost = None;
        }
    }

    pub(super) fn has_heard(&self) -> bool {
        self.found || self.told.max(self.read).is_some()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// Decides what is right, by the last deadline known. None: the keeper lives, so nothing is to be done.
    pub(super) fn decide(&self, now: Moment) -> Option<Enforce> {
        let lost = self.lost?;
        let patience = if self.has_heard() { UNKNOWN_KEEPER } else { UNHEARD_KEEPER };
        Some(enforce(now, Some(self.told.max(self.read).unwrap_or(lost + patience))))
    }
}
