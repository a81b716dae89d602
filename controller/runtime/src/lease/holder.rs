//! The side that keeps the lease, as a sequential machine: the driver asks for `next`, does it, and reports by
//! `on_read` or `on_write`.

mod foreign;
mod lost;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zsha_crds::records::{ByVm, LeaseRecord, LeaseState, LeaseTimings, VmCount, brief};
use zsha_crds::{ClusterName, NodeName, VmName};

use super::Expected;
use crate::Moment;
use crate::planted::is_planted;
use crate::store::{Op, StoreError, Txn};
use lost::Lost;

/// The pause after a read or write that failed, before the next try: short against F, long against a round trip.
const RETRY: Duration = Duration::from_millis(200);

/// The pause after the token was refused. An operator must give this node another token, and hundreds of refusals a
/// minute help nobody. There are still several tries within the shortest F.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// A controller that has been silent for so long is not only being restarted. If no copy is alive here either, what
/// this node owns is set free, since this node would not start it again.
const SILENCE: Duration = Duration::from_secs(30);

/// The holder of the lease, for as long as this process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterName,
    pub node: NodeName,
    /// The VM whose processes the keeper counts and ends.
    pub vm: VmName,
    /// The key of the record.
    pub key: String,
    pub machine_id: String,
    pub boot_id: String,
}

/// The epoch after `known`. It is also later than epochs that this node no longer knows of: the store may have been
/// emptied or put back, and may show them again. No node begins an epoch a second, so the seconds since 1970 are ahead
/// of all epochs, if the wall clock is right. If it is not, only that is lost.
fn epoch_after(known: u64, wall: Timestamp) -> u64 {
    (known + 1).max(u64::try_from(wall.as_second()).unwrap_or(0))
}

/// The state that survives a restart of the keeper (and nothing longer: it lives in `/run`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The key of the lease. A file from before this was kept has none, and is taken to be this node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub boot_id: String,
    pub incarnation: Uuid,
    pub epoch: u64,
    pub seq: u64,
    pub deadline: Option<Moment>,
    pub timings: LeaseTimings,
    /// The earliest moment when others may fence. A file from before this was kept does not say it. Then it is taken to
    /// be the deadline, since it is never earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Moment>,
    /// The same as [`Holder::unbroken_since`]. A file from before this was kept does not say it; then it begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbroken: Option<Moment>,
    /// See [`Holder::step_back`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_back: Option<StepBack>,
    /// The copy that is to be found here. That is the keeper's affair, and only kept here. A file from before this was
    /// kept does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// The last life in which this node's own copy was to be here, whatever was said since; kept like `expected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Uuid>,
}

/// The moment that is D after a renewal was sent, on the clock of another node that runs 1 % fast where this one runs 1
/// % slow.
fn fence(sent: Moment, fence_after: Duration) -> Moment {
    sent + fence_after * 49 / 50
}

/// Copies of the VM on this node, as last looked for in the process table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    None,
    Some,
    Unknown,
}

/// The knowledge of the driver at the moment it asks.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    pub copies: Copies,
    pub controller_alive: bool,
    /// True if something outside may stop this host so that its own clock does not count it. Then the host does not say
    /// when it sent a renewal: others would date the first one after such a pause before the pause.
    pub may_be_paused: bool,
    /// The number of processes as last counted, whenever that was, for the record.
    pub counted: Option<u32>,
    /// True if the last copy here left by a migration, or may have, since its end could not be read. It is asked for
    /// where [`Holder::wants_how_it_ended`] says so.
    pub may_have_moved: bool,
    /// The wall clock, for display and for the number of an epoch that begins.
    pub wall: Timestamp,
    /// The incarnation to use if a new one begins now.
    pub fresh_incarnation: Uuid,
}

/// The store was seen to show an earlier time of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepBack {
    /// The store went back after this moment: by then the last renewal had been sent that was confirmed before.
    pub after: Moment,
    /// Index of the first renewal that was written since. A value with a lower index may be from before. None: none was
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

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

/// A write on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    record: LeaseRecord,
    sent: Moment,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack, and gone at once")]
pub enum Next {
    /// Do nothing before this moment; ask again then, or when something was asked of the holder.
    Sleep { until: Moment },
    /// Read this node's own lease record, consistently.
    Read,
    /// Publish [`Holder::deadline`] first (it may have shrunk), then send this in a transaction of its own.
    Write { op: Op, attempt: Attempt },
}

/// The lease record of this node, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Own {
    Unread,
    Absent,
    /// This incarnation wrote the record, and it is ours to renew.
    Mine {
        record: LeaseRecord,
        index: u64,
    },
    /// Another node wrote the record in the place of ours, which was gone.
    Lost {
        epoch: u64,
        index: u64,
    },
    /// The record is nonsense, or of another machine. `take_over_at` says from when on a new life may be written over
    /// it, if it stays as it is.
    Foreign {
        index: u64,
        take_over_at: Moment,
    },
    /// The record is anything else: fenced, released, of an earlier life, of another machine.
    Other {
        record: LeaseRecord,
        index: u64,
        first_seen: Moment,
    },
}

/// One life of a holder: what its epoch rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    incarnation: Uuid,
    epoch: u64,
    seq: u64,
}

/// The machine that keeps the lease. [`super`] says what it keeps true.
#[derive(Debug, Clone)]
pub struct Holder {
    identity: Identity,
    timings: LeaseTimings,
    own: Own,
    life: Option<Life>,
    /// Timings of the last renewal that succeeded, and when its request was sent.
    granted: Option<(LeaseTimings, Moment)>,
    deadline: Option<Moment>,
    /// The earliest moment when others may fence, by what is granted and by whatever shorter D was sent since and may
    /// be in force.
    fence: Option<Moment>,
    unbroken: Option<Moment>,
    went_back: Option<Moment>,
    step_back: Option<StepBack>,
    /// The `seq` of the last renewal that was confirmed to this process.
    confirmed: u64,
    late: Option<Late>,
    lost: Lost,
    /// See [`VmCount::moved_away_in`].
    moved_away_in: Option<u64>,
    /// The moment when the last pause from outside was noticed, and the length of all that were noticed since the last
    /// attempt was made.
    paused: (Moment, Duration),
    not_before: Moment,
    /// The moment since when the controller has been silent, and the life that was led then. If another life is led, it
    /// has set free what that life owned.
    silent: Option<(Moment, Uuid)>,
    release: bool,
    message: String,
}

impl Holder {
    /// `memory` counts only within the boot it was written in. Without it the holder is strict: not valid.
    pub fn new(identity: Identity, timings: LeaseTimings, memory: Option<Memory>) -> Self {
        let memory = memory.filter(|m| {
            (m.boot_id == identity.boot_id || is_planted("MemoryOutlivesTheBoot"))
                && m.key.as_ref().is_none_or(|key| *key == identity.key)
                && m.timings.is_safe()
        });
        let timings = memory.as_ref().map_or(timings, |m| m.timings);
        let granted = memory.as_ref().and_then(|m| m.deadline.map(|d| (m.timings, d - m.timings.ttl())));
        Self {
            identity,
            timings,
            own: Own::Unread,
            life: memory.as_ref().map(|m| Life { incarnation: m.incarnation, epoch: m.epoch, seq: m.seq }),
            granted,
            fence: memory.as_ref().and_then(|m| m.fence.or(m.deadline)),
            unbroken: memory.as_ref().and_then(|m| m.unbroken),
            went_back: None,
            step_back: memory.as_ref().and_then(|m| m.step_back),
            confirmed: 0,
            late: None,
            lost: Lost::default(),
            moved_away_in: None,
            paused: (Moment::default(), Duration::ZERO),
            deadline: memory.and_then(|m| m.deadline),
            not_before: Moment::default(),
            silent: None,
            release: false,
            message: "the lease has not been read yet".to_owned(),
        }
    }

    /// True if the next step depends on [`Inputs::copies`], so that the process table is read only then.
    pub fn wants_copies(&self, now: Moment) -> bool {
        self.release
            || !self.valid(now)
            || match &self.own {
                // What a renewal says of the copies is others' ground to act on: it is of the moment it is sent.
                Own::Mine { record, .. } => {
                    now >= self.not_before
                        && (now >= self.due(now)
                            || self.silent.is_some_and(|(_, life)| record.incarnation == life))
                }
                Own::Absent | Own::Lost { .. } | Own::Foreign { .. } | Own::Other { .. } => true,
                Own::Unread => false,
            }
    }

    /// True if the next step may set free what the node owned, and so depends on [`Inputs::may_have_moved`].
    pub fn wants_how_it_ended(&self, now: Moment) -> bool {
        self.valid(now) && self.silent.is_some_and(|(since, _)| now >= since + SILENCE)
    }

    /// Decides what to do now.
    pub fn next(&mut self, now: Moment, inputs: Inputs) -> Next {
        self.notice_lapse(now);
        if now < self.not_before {
            return Next::Sleep { until: self.not_before };
        }
        match self.own.clone() {
            Own::Unread => Next::Read,
            Own::Mine { record, index } => self.renew(now, inputs, &record, index),
            Own::Absent => self.write_anew(now, inputs, 0, None),
            Own::Lost { epoch, index } => self.write_anew(now, inputs, epoch, Some(index)),
            Own::Foreign { index, take_over_at } => self.over_foreign(now, inputs, index, take_over_at),
            Own::Other { record, index, first_seen } => {
                self.take_over(now, inputs, &record, index, first_seen)
            }
        }
    }

    fn renew(&mut self, now: Moment, inputs: Inputs, record: &LeaseRecord, index: u64) -> Next {
        self.moved_away_in = record.vms.of(&self.identity.vm).moved_away_in.or(self.moved_away_in);
        if self.release {
            if inputs.copies == Copies::None {
                let attempt = self.attempt(now, inputs, self.life_of(record), LeaseState::Released);
                return self.write(attempt, Some(index));
            }
            self.message = "the release waits: a copy of the VM is still alive here".to_owned();
        }
        if !self.valid(now) {
            // A life ends with its deadline. Others may have fenced it since, and a restored snapshot hidden that.
            return self.live_anew(now, inputs, record.epoch, Some(index));
        }
        let no_copy = inputs.copies == Copies::None || is_planted("FreedWithItsCopy");
        if self.silent_for_long(now, inputs, record) && no_copy {
            self.message =
                "the controller is silent and no copy is alive here: what this node owned is set free"
                    .to_owned();
            let epoch = epoch_after(record.epoch, inputs.wall);
            let life = Life { incarnation: inputs.fresh_incarnation, epoch, seq: 1 };
            self.moved_away_in = inputs.may_have_moved.then_some(record.epoch);
            self.lost.given_up();
            self.deadline = None;
            let attempt = self.attempt(now, inputs, life, LeaseState::Held);
            return self.write(attempt, Some(index));
        }
        let due = self.due(now);
        if now < due && record.timings == self.timings {
            return Next::Sleep { until: due };
        }
        let attempt = self.attempt(now, inputs, self.life_of(record), LeaseState::Held);
        self.write(attempt, Some(index))
    }

    /// The moment of the next renewal.
    fn due(&self, now: Moment) -> Moment {
        self.granted.map_or(now, |(_, sent)| sent + self.timings.renew())
    }

    /// True if the controller has been silent long enough, and the store still names the life it was silent in. A life
    /// that was asked for proves nothing: only the record says that it has begun.
    fn silent_for_long(&mut self, now: Moment, inputs: Inputs, record: &LeaseRecord) -> bool {
        if inputs.controller_alive {
            self.silent = None;
            return false;
        }
        let (since, life) = *self.silent.get_or_insert((now, record.incarnation));
        record.incarnation == life && now >= since + SILENCE
    }

    /// Writes the record anew where it is not there (never written, deleted by hand), or another node has put one in
    /// its place.
    fn write_anew(&mut self, now: Moment, inputs: Inputs, epoch: u64, index: Option<u64>) -> Next {
        if self.release {
            self.message = "released".to_owned();
            return Next::Sleep { until: now + Duration::from_secs(60) };
        }
        let Some(life) = self.life.filter(|_| self.valid(now)) else {
            return self.live_anew(now, inputs, epoch, index);
        };
        let attempt = self.attempt(now, inputs, Life { seq: life.seq + 1, ..life }, LeaseState::Held);
        self.write(attempt, index)
    }

    /// Begins a new incarnation over a record of another one, when nothing of an earlier one can be alive.
    fn take_over(
        &mut self,
        now: Moment,
        inputs: Inputs,
        record: &LeaseRecord,
        index: u64,
        seen: Moment,
    ) -> Next {
        if self.release && record.state != LeaseState::Held {
            self.message = "released".to_owned();
            return Next::Sleep { until: now + Duration::from_secs(60) };
        }
        let elsewhere = record.state == LeaseState::Held && record.machine_id != self.identity.machine_id;
        if elsewhere && now < seen + record.timings.fence_after() {
            self.message = format!(
                "the lease of {} is held by another machine ({}); if that one is dead it is taken over in {:.0} s, \
                 if it lives two machines carry one node name",
                self.identity.node,
                record.machine_id,
                now.until(seen + record.timings.fence_after()).as_secs_f64().ceil(),
            );
            return Next::Read;
        }
        self.live_anew(now, inputs, record.epoch, Some(index))
    }

    /// Begins a new life by a write over this index, or waits until one may begin.
    fn live_anew(&mut self, now: Moment, inputs: Inputs, epoch_before: u64, index: Option<u64>) -> Next {
        match self.reborn(now, inputs, epoch_before) {
            Ok(life) => {
                let attempt = self.attempt(now, inputs, life, LeaseState::Held);
                self.write(attempt, index)
            }
            Err(until) => Next::Sleep { until },
        }
    }

    /// Makes a new life, or waits until the last copy of the old one is seen dead.
    fn reborn(&mut self, now: Moment, inputs: Inputs, epoch_before: u64) -> Result<Life, Moment> {
        self.deadline = None;
        let seen = match inputs.copies {
            Copies::Some if is_planted("RebornBesideACopy") => Copies::None,
            Copies::Unknown if is_planted("RebornBlind") => Copies::None,
            seen => seen,
        };
        match seen {
            Copies::None => {
                let lived = self.life.map_or(0, |l| l.epoch);
                let lived = if is_planted("EpochRepeats") { 0 } else { lived };
                let epoch = epoch_after(lived.max(epoch_before), inputs.wall);
                Ok(Life { incarnation: inputs.fresh_incarnation, epoch, seq: 1 })
            }
            Copies::Some => {
                self.message =
                    "waiting for the copy of an earlier life to be dead before taking a new lease".to_owned();
                Err(now + RETRY)
            }
            Copies::Unknown => {
                self.message =
                    "cannot see whether a copy of the VM is alive here, so no new lease is taken".to_owned();
                Err(now + RETRY)
            }
        }
    }

    fn life_of(&self, record: &LeaseRecord) -> Life {
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

    fn attempt(&mut self, now: Moment, inputs: Inputs, life: Life, state: LeaseState) -> Attempt {
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

    fn write(&mut self, attempt: Attempt, index: Option<u64>) -> Next {
        #[expect(clippy::expect_used, reason = "a record of ours always serialises")]
        let value = serde_json::to_string(&attempt.record).expect("a lease record is JSON");
        let key = self.identity.key.clone();
        let op = match index {
            Some(index) => Op::Cas { key, value, index },
            None => Op::Create { key, value },
        };
        Next::Write { op, attempt }
    }

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
            Own::Other { record: before, index: i, first_seen } if *before == record && *i == index => {
                *first_seen
            }
            Own::Unread
            | Own::Absent
            | Own::Mine { .. }
            | Own::Lost { .. }
            | Own::Foreign { .. }
            | Own::Other { .. } => now,
        };
        let again = matches!(self.own, Own::Other { .. });
        self.own = Own::Other { record, index, first_seen };
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
            self.own = Own::Other { record: attempt.record, index, first_seen: now };
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

    /// Takes in that this host stood still for so long and its clock did not count it, as was noticed at `woke`.
    /// Whatever was sent before is older by that than the clock says. A renewal sent between the pause and the moment
    /// it was noticed is taken to have been sent before it.
    pub fn paused(&mut self, woke: Moment, by: Duration) {
        self.paused = (woke, self.paused.1 + by);
        if let Some((_, sent)) = &mut self.granted
            && *sent <= woke
        {
            *sent = *sent - by;
            self.deadline = self.deadline.map(|deadline| deadline - by);
            self.fence = self.fence.map(|fence| fence - by);
        }
    }

    /// Sets the timings to live by from the next renewal on.
    pub fn set_timings(&mut self, timings: LeaseTimings) -> Result<(), String> {
        if !timings.is_safe() {
            return Err(format!(
                "fenceAfterMillis ({}) must be at least ttlMillis ({}) + killMillis ({}) + {} of margin",
                timings.fence_after_millis,
                timings.ttl_millis,
                timings.kill_millis,
                timings.margin_millis()
            ));
        }
        self.timings = timings;
        Ok(())
    }

    /// Gives the lease up once no copy is alive here.
    pub fn release(&mut self) {
        self.release = true;
        self.not_before = Moment::default();
    }

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
        self.release && matches!(&self.own, Own::Other { record, .. } if record.state == LeaseState::Released)
    }

    /// A sentence on the state of the lease.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The state to keep for the keeper's own restart. None before there is a life to remember.
    pub fn memory(&self) -> Option<Memory> {
        self.life.map(|life| Memory {
            key: Some(self.identity.key.clone()),
            boot_id: self.identity.boot_id.clone(),
            incarnation: life.incarnation,
            epoch: life.epoch,
            seq: life.seq,
            deadline: self.deadline,
            timings: self.granted(),
            fence: self.fence,
            unbroken: self.unbroken,
            step_back: self.step_back,
            expected: None,
            owned: None,
        })
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
