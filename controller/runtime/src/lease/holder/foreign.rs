//! Handles a value under the key of this node's lease that is not the holder's: nonsense, or the record of another
//! machine. A node's lease is written by its holder, and by others only to fence it or where it was gone; so such a
//! value says nothing of the others.
//!
//! A holder that is valid writes over it and keeps its life, as over a key that was deleted. No node can have fenced
//! it: that takes D after its last renewal, and by then its deadline would have passed. Nor can another machine of the
//! same name have taken the key over from it: that waits for D as well.
//!
//! A holder that is not valid begins a new life over it. Where another machine may have written it, that waits for as
//! long as any lease may hold, with the value unchanged.

use serde::Deserialize;
use zsha_crds::records::{LeaseState, LeaseTimings};

use super::{Holder, Inputs, Life, Next, Own, RETRY};
use crate::Moment;

/// The one field that is looked for in a value that cannot be read: a newer zsha on this very machine may have written
/// it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Writer {
    machine_id: String,
}

impl Holder {
    /// Takes in a value of this node's key that is no record: `why` says what is wrong with it.
    pub fn on_nonsense(&mut self, now: Moment, index: u64, value: &str, why: &str) {
        // As for a key that is gone: what others did meanwhile may have been lost with the record.
        self.unbroken = None;
        self.message = format!("the lease record of {} cannot be read: {why}", self.identity.node);
        let own_machine = serde_json::from_str::<Writer>(value)
            .is_ok_and(|writer| writer.machine_id == self.identity.machine_id);
        self.foreign(now, index, own_machine.then_some(now));
    }

    /// Keeps the foreign value in mind. `take_over_at` is None where another machine may have written it.
    pub(super) fn foreign(&mut self, now: Moment, index: u64, take_over_at: Option<Moment>) {
        let before = match &self.own {
            Own::Foreign { index: before, take_over_at } if *before == index => Some(*take_over_at),
            _ => None,
        };
        let patiently = now + LeaseTimings::LONGEST.fence_after();
        let take_over_at = before.or(take_over_at).unwrap_or(patiently);
        self.own = Own::Foreign { index, take_over_at };
        self.not_before = if before.is_some() && !self.valid(now) { now + RETRY } else { now };
    }

    pub(super) fn over_foreign(
        &mut self,
        now: Moment,
        inputs: Inputs,
        index: u64,
        take_over_at: Moment,
    ) -> Next {
        // A release is written over one's own record, so a life that is valid is written down once more first.
        if let Some(life) = self.life.filter(|_| self.valid(now)) {
            let attempt = self.attempt(now, inputs, Life { seq: life.seq + 1, ..life }, LeaseState::Held);
            return self.write(attempt, Some(index));
        }
        if now < take_over_at && !self.release {
            self.deadline = None;
            let secs = now.until(take_over_at).as_secs_f64().ceil();
            self.message = format!(
                "{}; another machine of this name may have written it, so a new one is written over it in {secs:.0} s",
                self.message
            );
            return Next::Read;
        }
        self.write_anew(now, inputs, 0, Some(index))
    }
}
