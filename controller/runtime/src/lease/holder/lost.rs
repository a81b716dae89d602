//! Keeps the lives of the lease that were lost: ended by running out or by a fence, while this process was renewing
//! them. A life that was given up is not lost, nor is a life that ended while no process was there to renew it (a boot,
//! a keeper that is upgraded).

use zsha_crds::records::{LeaseRecord, LeaseState};

use super::Holder;
use crate::Moment;

/// The number of lives that are remembered: far more than make a node unstable.
const KEPT: usize = 16;

#[derive(Debug, Clone, Default)]
pub(super) struct Lost {
    /// The life that this process renews, by its epoch.
    renewing: Option<u64>,
    lives: Vec<(u64, Moment)>,
}

impl Lost {
    pub(super) fn renewed(&mut self, epoch: u64) {
        self.renewing = Some(epoch);
    }

    pub(super) fn given_up(&mut self) {
        self.renewing = None;
    }

    /// Notes that the life that was renewed is over. It is counted once.
    fn ended(&mut self, at: Moment) {
        let Some(epoch) = self.renewing.take() else { return };
        if self.lives.len() == KEPT {
            self.lives.remove(0);
        }
        self.lives.push((epoch, at));
    }

    pub(super) fn lives(&self) -> &[(u64, Moment)] {
        &self.lives
    }
}

impl Holder {
    pub(super) fn notice_lapse(&mut self, now: Moment) {
        if let Some(deadline) = self.deadline.filter(|deadline| now >= *deadline) {
            self.lost.ended(deadline);
        }
    }

    pub(super) fn notice_fence(&mut self, now: Moment, record: &LeaseRecord) {
        if record.state == LeaseState::Fenced {
            self.lost.ended(now);
        }
    }
}
