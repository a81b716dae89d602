//! Makes the record that a write carries, and obeys what it announces before it is sent. Never here: when one is sent.

use std::time::Duration;

use zsha_crds::records::{ByVm, LeaseRecord, LeaseState, LeaseTimings, VmCount};

use super::{Holder, Inputs, Life, Next};
use crate::Moment;
use crate::planted::is_planted;
use crate::store::Op;

/// A write on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub(super) record: LeaseRecord,
    pub(super) sent: Moment,
}

/// The moment that is D after a renewal was sent, on the clock of another node that runs 1 % fast where this one runs 1
/// % slow.
pub(super) fn fence(sent: Moment, fence_after: Duration) -> Moment {
    sent + fence_after * 49 / 50
}

impl Holder {
    pub(super) fn life_of(&self, record: &LeaseRecord) -> Life {
        let seq = self.life.map_or(0, |l| l.seq).max(record.seq) + 1;
        Life { incarnation: record.incarnation, epoch: record.epoch, seq }
    }

    /// The timings that this write announces. A shorter F leaves what the last renewal has already used up of it. Where
    /// that is more than a renewal by the shorter timings would ever be old (the store was away, or R was longer), one
    /// more renewal by the old timings comes first, so that an election which begins now finds nearly all of F.
    fn announced(&self, now: Moment) -> LeaseTimings {
        match self.granted {
            Some((granted, sent))
                if self.timings.ttl() < granted.ttl()
                    && self.valid(now)
                    && now.since(sent) > self.timings.renew() + self.timings.request_timeout() =>
            {
                granted
            }
            _ => self.timings,
        }
    }

    pub(super) fn attempt(&mut self, now: Moment, inputs: Inputs, life: Life, state: LeaseState) -> Attempt {
        let timings = self.announced(now);
        // Rule 2: what may be announced by this write must be obeyed before it is sent.
        if let (Some((granted, sent)), Some(deadline)) = (self.granted, self.deadline)
            && !is_planted("ObeyedAfterAnnounced")
        {
            let ttl = granted.ttl().min(timings.ttl());
            self.deadline = Some(deadline.min(sent + ttl));
        }
        if let (Some((_, sent)), Some(before)) = (self.granted, self.fence) {
            // If this write arrives, others count from when it was sent; that is later, never earlier.
            self.fence = Some(before.min(fence(sent, timings.fence_after())));
        }
        if state == LeaseState::Released {
            self.deadline = None;
        }
        let record = LeaseRecord {
            cluster: Some(self.identity.cluster.clone()),
            node: self.identity.node.clone(),
            incarnation: life.incarnation,
            epoch: life.epoch,
            seq: life.seq,
            state,
            machine_id: self.identity.machine_id.clone(),
            boot_id: self.identity.boot_id.clone(),
            timings,
            controller_alive: inputs.controller_alive,
            vms: ByVm::only(
                self.identity.vm.clone(),
                VmCount {
                    copies: inputs.counted,
                    // Said on in every later life: that the first of them was ever written is not sure.
                    moved_away_in: self.moved_away_in.filter(|epoch| *epoch < life.epoch),
                },
            ),
            sent_millis: (!inputs.may_be_paused).then(|| now.as_millis()),
            renewed_at: inputs.wall,
            fenced_by: None,
        };
        self.paused.1 = Duration::ZERO;
        Attempt { record, sent: now }
    }

    pub(super) fn write(&mut self, attempt: Attempt, index: Option<u64>) -> Next {
        #[expect(clippy::expect_used, reason = "a record of ours always serialises")]
        let value = serde_json::to_string(&attempt.record).expect("a lease record is JSON");
        let key = self.identity.key.clone();
        let op = match index {
            Some(index) => Op::Cas { key, value, index },
            None => Op::Create { key, value },
        };
        Next::Write { op, attempt }
    }
}
