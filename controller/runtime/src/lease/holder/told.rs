//! Tells what is so of the lease, to whoever drives the holder. Never here: anything that changes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zsha_crds::NodeName;
use zsha_crds::records::{LeaseState, LeaseTimings};

use super::{Holder, Own, Sighting, StepBack};
use crate::Moment;

/// Renewals that came late: after more than half of F.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Late {
    /// The number of them since this process began.
    pub count: u64,
    /// How long the lease had gone without a renewal before the last of them, from sending to sending.
    pub gap: Duration,
    /// F, as it was granted then.
    pub of: Duration,
}

impl Holder {
    /// The lease is valid while `now` is before this.
    pub fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    pub fn valid(&self, now: Moment) -> bool {
        self.deadline.is_some_and(|d| now < d)
    }

    /// The earliest moment at which another node may fence this lease, if it is not renewed any more: by the shorter D
    /// while timings change. None where nothing was ever granted.
    pub fn fence(&self) -> Option<Moment> {
        self.fence
    }

    /// The moment when the store last showed a time before a renewal that it had confirmed.
    pub fn store_went_back(&self) -> Option<Moment> {
        self.went_back
    }

    /// The last step back of the store in this boot. What the store shows of the time before may have been changed
    /// since, and the change be gone.
    pub fn step_back(&self) -> Option<StepBack> {
        self.step_back
    }

    /// The moment since when every renewal has come before the one before it had run out, with no sign that the store
    /// went back in time. Only what was watched since then says anything of other nodes: before it, a snapshot may have
    /// been restored that hides what they did meanwhile. None where the lease is not valid.
    pub fn unbroken_since(&self, now: Moment) -> Option<Moment> {
        self.unbroken.filter(|_| self.valid(now))
    }

    /// The lives that ended though this process was renewing them, each by its epoch and the moment: the last few.
    pub fn lost(&self) -> &[(u64, Moment)] {
        self.lost.lives()
    }

    /// The renewals that came late. None: every renewal so far came in good time, or not at all.
    pub fn late(&self) -> Option<Late> {
        self.late
    }

    /// K in force: the smaller one while timings change.
    pub fn kill_within(&self) -> Duration {
        self.granted.map_or(self.timings.kill(), |(granted, _)| granted.kill().min(self.timings.kill()))
    }

    pub fn timings(&self) -> LeaseTimings {
        self.timings
    }

    /// The timings of the last renewal that succeeded; where there is none, those to live by.
    pub fn granted(&self) -> LeaseTimings {
        self.granted.map_or(self.timings, |(granted, _)| granted)
    }

    pub fn node(&self) -> &NodeName {
        &self.identity.node
    }

    pub fn incarnation(&self) -> Uuid {
        self.life.map_or(Uuid::nil(), |l| l.incarnation)
    }

    pub fn epoch(&self) -> u64 {
        self.life.map_or(0, |l| l.epoch)
    }

    pub fn seq(&self) -> u64 {
        self.life.map_or(0, |l| l.seq)
    }

    /// `seq` of the last renewal that the store confirmed to this process; 0: none.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    pub fn released(&self) -> bool {
        self.release
            && matches!(&self.own, Own::Other(Sighting { record, .. }) if record.state == LeaseState::Released)
    }

    /// A sentence on the state of the lease.
    pub fn message(&self) -> &str {
        &self.message
    }
}
