//! Reads and writes the lease in the store, and hands the answers to the machine. Never here: which of the two is to be
//! done, and when.

use std::time::Duration;

use zsha_crds::records::{LeaseRecord, LeaseState};
use zsha_runtime::lease::{self, Attempt, Holder, Next};
use zsha_runtime::store::{Entry, Op, Read, StoreError, Txn};

use super::Renewal;
use crate::planted::{self, Bug};

impl Renewal {
    pub(super) async fn read(&mut self) {
        let limit = self.patience();
        let identity = &self.settings.identity;
        let read = self.settings.store.get(&identity.key, Read::Consistent);
        let result = match tokio::time::timeout(limit, read).await {
            Ok(Ok(Some(entry))) => match LeaseRecord::read(&entry.value, &identity.node, &identity.cluster) {
                Ok(record) => Ok(Some((record, entry.modify_index))),
                Err(why) => return self.read_nonsense(&entry, &why),
            },
            Ok(Ok(None)) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(unanswered("reading the lease", limit)),
        };
        if let Ok(Some((record, _))) = &result
            && std::mem::take(&mut self.adopt_timings)
            && record.timings.is_safe()
        {
            // What the controller last said, from before this keeper was started without a memory.
            if let Err(error) = self.holder.set_timings(record.timings) {
                tracing::warn!(error, "the timings of the own lease record are not taken over");
            }
        }
        let failed = result.is_err();
        let result = match planted::is_planted(Bug::RenewAfterFenced) {
            true => result.map(|found| found.map(|found| self.as_if_never_fenced(found))),
            false => result,
        };
        self.holder.on_read(self.settings.clock.now(), result);
        // That it can be read is no renewal yet.
        if failed {
            self.note(true);
        }
    }

    /// Takes in that another writer has written over the lease record of this node.
    fn read_nonsense(&mut self, entry: &Entry, why: &str) {
        self.holder.on_nonsense(self.settings.clock.now(), entry.modify_index, &entry.value, why);
        self.note(true);
    }

    /// Does one of the planted bugs: neither the fence nor the deadline ends the life.
    fn as_if_never_fenced(&mut self, (record, index): (LeaseRecord, u64)) -> (LeaseRecord, u64) {
        if record.state != LeaseState::Fenced {
            return (record, index);
        }
        let deadline = Some(self.settings.clock.now() + record.timings.ttl());
        let memory = self.holder.memory().map(|memory| lease::Memory { deadline, ..memory });
        self.holder = Holder::new(self.settings.identity.clone(), record.timings, memory);
        (LeaseRecord { state: LeaseState::Held, epoch: record.epoch - 1, ..record }, index)
    }

    pub(super) async fn write(&mut self, op: Op, attempt: Attempt) {
        let limit = self.patience();
        let second_way_after = self.holder.timings().request_timeout() / 2;
        let write = self.settings.store.txn_hedged(vec![op], second_way_after);
        let result = match tokio::time::timeout(limit, write).await {
            Ok(result) => result,
            Err(_) => Err(unanswered("renewing the lease", limit)),
        };
        let attempt = match planted::is_planted(Bug::DeadlineFromReply) {
            true => self.as_if_sent_now(attempt).await,
            false => attempt,
        };
        let result = match result {
            Err(StoreError::Unknown { .. }) if planted::is_planted(Bug::LostReplyCounts) => {
                Ok(Txn::Committed { indices: vec![u64::MAX] })
            }
            result => result,
        };
        self.written(attempt, result);
    }

    async fn as_if_sent_now(&mut self, attempt: Attempt) -> Attempt {
        let inputs = self.inputs().await;
        match self.holder.next(self.settings.clock.now(), inputs) {
            Next::Write { attempt, .. } => attempt,
            Next::Sleep { .. } | Next::Read => attempt,
        }
    }

    /// Drops the attempt. The closer deadline could not be written down, and a keeper started anew would obey the later
    /// one, so no other node may be told of the closer one.
    pub(super) fn hold_back(&mut self, attempt: Attempt) {
        let operation = "renewing the lease".to_owned();
        let reason = "the keeper's state file cannot be written".to_owned();
        self.written(attempt, Err(StoreError::Unavailable { operation, reason }));
    }

    fn written(&mut self, attempt: Attempt, result: Result<Txn, StoreError>) {
        let failing = !matches!(&result, Ok(txn) if txn.committed());
        self.notice_pause();
        self.holder.on_write(attempt, self.settings.clock.now(), result);
        self.note(failing);
    }

    fn note(&mut self, failing: bool) {
        if failing != std::mem::replace(&mut self.told.failing, failing) {
            match failing {
                true => tracing::warn!(reason = self.holder.message(), "lease not renewed"),
                false => tracing::info!("lease renewed again"),
            }
        }
    }

    /// The time after which a call is given up, whatever the store promises: by then both ways of a hedged write have
    /// had their time.
    fn patience(&self) -> Duration {
        self.holder.timings().request_timeout() * 2
    }
}

fn unanswered(operation: &str, limit: Duration) -> StoreError {
    StoreError::Unknown {
        operation: operation.to_owned(),
        reason: format!("no answer within {} ms", limit.as_millis()),
    }
}
