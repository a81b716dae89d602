//! Takes in what the store has answered to a read or a write, and what that says of the lease. Never here: a decision
//! on what to do next.

use std::time::Duration;

use zsha_crds::records::{LeaseRecord, LeaseState, brief};

use super::attempt::fence;
use super::{Attempt, Holder, Late, Life, Own, RETRY, Sighting, StepBack};
use crate::Moment;
use crate::store::{StoreError, Txn};

/// The pause after the token was refused. An operator must give this node another token, and hundreds of refusals a
/// minute help nobody. There are still several tries within the shortest F.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

impl Holder {
    /// Takes in the record of this node as it was read, or the error.
    pub fn on_read(&mut self, now: Moment, result: Result<Option<(LeaseRecord, u64)>, StoreError>) {
        match result {
            Err(error) => {
                self.message = error.to_string();
                self.not_before = now + pause_after(&error, RETRY);
            }
            Ok(None) => {
                // Deleted by hand, or the whole store was emptied: what others wrote may be gone as well, or of any time.
                if self.unbroken.take().is_some() {
                    self.saw_a_step_back(now);
                }
                self.own = Own::Absent;
                self.not_before = now;
            }
            Ok(Some((record, index))) => self.read(now, record, index),
        }
    }

    fn saw_a_step_back(&mut self, now: Moment) {
        self.went_back = Some(now);
        let after = self.granted.map_or(Moment::default(), |(_, sent)| sent);
        self.step_back = Some(StepBack { after, index: None });
    }

    fn read(&mut self, now: Moment, record: LeaseRecord, index: u64) {
        if self.has_gone_back(&record) {
            // Another life's record proves it only where a renewal of this one was confirmed; and what others have put
            // in the place of a record that was gone is of now.
            let confirmed = self.unbroken.take().is_some();
            let same_life = self.life.is_some_and(|life| record.incarnation == life.incarnation);
            if same_life || confirmed && record.state != LeaseState::Lost {
                self.saw_a_step_back(now);
            }
        }
        let ours = self.life.is_some_and(|l| l.incarnation == record.incarnation && l.epoch == record.epoch)
            && record.state == LeaseState::Held;
        if ours {
            self.own = Own::Mine { record, index };
            self.not_before = now;
            return;
        }
        let lost = record.state == LeaseState::Lost && self.life.is_none_or(|l| record.epoch <= l.epoch);
        if lost {
            self.own = Own::Lost { epoch: record.epoch, index };
            self.not_before = now;
            return;
        }
        if self.is_of_an_earlier_life(&record) {
            // The store has gone back in time. A later life is proof that nothing of the earlier one is alive, so it
            // is written over like a record that was gone.
            self.own = Own::Lost { epoch: record.epoch, index };
            self.not_before = now;
            return;
        }
        if self.valid(now)
            && record.state == LeaseState::Held
            && record.machine_id != self.identity.machine_id
        {
            let machine = brief(&record.machine_id);
            self.message =
                format!("the record of another machine ({machine}) lies under this node's lease key");
            self.foreign(now, index, None);
            return;
        }
        if let Some(by) = &record.fenced_by {
            self.message = format!("fenced by {by}");
        }
        // Our life, if we had one, is over.
        self.notice_fence(now, &record);
        self.deadline = None;
        let first_seen = match &self.own {
            Own::Other(before) if before.record == record && before.index == index => before.first_seen,
            Own::Unread
            | Own::Absent
            | Own::Mine { .. }
            | Own::Lost { .. }
            | Own::Foreign { .. }
            | Own::Other(_) => now,
        };
        let again = matches!(self.own, Own::Other(_));
        self.own = Own::Other(Sighting { record, index, first_seen });
        self.not_before = if again { now + RETRY } else { now };
    }

    /// True if the store shows a time before the last renewal that it confirmed.
    fn has_gone_back(&self, record: &LeaseRecord) -> bool {
        self.life.is_some_and(|life| record.incarnation != life.incarnation || record.seq < self.confirmed)
    }

    /// True if this very machine held the record before the life that it lives now, or if no machine holds it. A fence
    /// of this life has a later epoch, so a fence of an earlier epoch is of an earlier life, perhaps of the machine
    /// that had this name before.
    fn is_of_an_earlier_life(&self, record: &LeaseRecord) -> bool {
        let may_be_anothers =
            record.state == LeaseState::Held && record.machine_id != self.identity.machine_id;
        !may_be_anothers && self.life.is_some_and(|life| record.epoch < life.epoch)
    }

    /// Takes in the answer to a write, or the lack of one.
    pub fn on_write(&mut self, attempt: Attempt, now: Moment, result: Result<Txn, StoreError>) {
        match result {
            Ok(Txn::Committed { indices }) => self.committed(attempt, now, indices.first().copied()),
            Ok(Txn::Conflict { message, .. }) => {
                self.message = format!("the record changed under us: {message}");
                self.own = Own::Unread;
                self.not_before = now;
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                self.message = error.to_string();
                self.not_before = now + RETRY;
            }
            Err(error) => {
                // It may yet be in force, under an index we do not know: read back.
                self.message = error.to_string();
                self.own = Own::Unread;
                // An answer that came at once would come at once again.
                self.not_before = now + pause_after(&error, RETRY / 4);
                // A life whose first write was lost is still the only one that can recognise that write.
                self.remember(&attempt.record);
            }
        }
    }

    fn remember(&mut self, record: &LeaseRecord) {
        let seq =
            self.life.filter(|l| l.incarnation == record.incarnation).map_or(0, |l| l.seq).max(record.seq);
        self.life = Some(Life { incarnation: record.incarnation, epoch: record.epoch, seq });
    }

    fn committed(&mut self, attempt: Attempt, now: Moment, index: Option<u64>) {
        self.remember(&attempt.record);
        self.not_before = now;
        let Some(index) = index.filter(|i| *i > 0) else {
            self.own = Own::Unread;
            return;
        };
        if let Some(step) = &mut self.step_back {
            step.index.get_or_insert(index);
        }
        if attempt.record.state == LeaseState::Released {
            self.deadline = None;
            self.granted = None;
            self.unbroken = None;
            self.message = "released".to_owned();
            self.lost.given_up();
            self.own = Own::Other(Sighting { record: attempt.record, index, first_seen: now });
            return;
        }
        if !self.valid(attempt.sent) || self.unbroken.is_none() {
            self.unbroken = Some(attempt.sent);
        }
        self.note_late(attempt.sent);
        let (woke, paused) = self.paused;
        let sent = if attempt.sent <= woke { attempt.sent - paused } else { attempt.sent };
        self.confirmed = attempt.record.seq;
        self.lost.renewed(attempt.record.epoch);
        self.deadline = Some(sent + attempt.record.timings.ttl());
        self.granted = Some((attempt.record.timings, sent));
        self.fence = Some(fence(sent, attempt.record.timings.fence_after()));
        self.message = "renewed".to_owned();
        self.own = Own::Mine { record: attempt.record, index };
    }

    /// Notes a renewal that came late. A renewal that came after the end of its lease is not a late one.
    fn note_late(&mut self, sent: Moment) {
        let Some((timings, before)) = self.granted.filter(|_| self.valid(sent)) else { return };
        let (gap, of) = (sent.since(before), timings.ttl());
        if gap > of / 2 {
            self.late = Some(Late { count: self.late.map_or(0, |late| late.count) + 1, gap, of });
        }
    }
}

fn pause_after(error: &StoreError, usual: Duration) -> Duration {
    match error {
        StoreError::Denied { .. } => REFUSED_RETRY,
        StoreError::Unavailable { .. }
        | StoreError::Unknown { .. }
        | StoreError::Invalid { .. }
        | StoreError::Malformed { .. } => usual,
    }
}
