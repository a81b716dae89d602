//! The side that keeps the lease: a sequential machine of `next`, do it, `on_read` or `on_write`.

mod foreign;
mod lost;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zsha_crds::records::{LeaseRecord, LeaseState, LeaseTimings, brief};
use zsha_crds::{ClusterName, NodeName};

use super::Expected;
use crate::Moment;
use crate::planted::is_planted;
use crate::store::{Op, StoreError, Txn};
use lost::Lost;

/// Pause after a read or write that failed, before the next try: short against F, long against a round trip.
const RETRY: Duration = Duration::from_millis(200);

/// Pause after the token was refused: somebody must give this node another one, and nobody is helped by hundreds of
/// refusals a minute. Still several tries within the shortest F.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// A controller that has been silent for so long is not only being restarted. If no copy is alive here either, what
/// this node owns is set free, since nobody here would start it again.
const SILENCE: Duration = Duration::from_secs(30);

/// Who holds the lease, for as long as this process lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterName,
    pub node: NodeName,
    /// Where the record lives.
    pub key: String,
    pub machine_id: String,
    pub boot_id: String,
}

/// The epoch after `known`. Later as well than those that nobody here knows of any more, since the store was emptied or put
/// back and may yet show them again: no node begins one a second, so the seconds since 1970 are ahead of all of them, where
/// the wall clock is right. Where it is not, nothing is lost but that.
fn epoch_after(known: u64, wall: Timestamp) -> u64 {
    (known + 1).max(u64::try_from(wall.as_second()).unwrap_or(0))
}

/// What survives a restart of the keeper (and nothing longer: it lives in `/run`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Whose lease it was. A file from before this was kept has none, and is taken to be this node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub boot_id: String,
    pub incarnation: Uuid,
    pub epoch: u64,
    pub seq: u64,
    pub deadline: Option<Moment>,
    pub timings: LeaseTimings,
    /// When others may fence at the earliest. Not known from a file from before this was kept: then it is taken to be
    /// the deadline, since it is never earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Moment>,
    /// As [`Holder::unbroken_since`]. Not known from a file from before this was kept: then it begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbroken: Option<Moment>,
    /// See [`Holder::step_back`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_back: Option<StepBack>,
    /// Which copy is to be found here; the keeper's affair, and only kept here. Not known from a file from before this
    /// was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// The last life in which this node's own copy was to be here, whatever was said since; kept like `expected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Uuid>,
}

/// D after a renewal was sent, on the clock of another node that runs 1 % fast where this one runs 1 % slow.
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

/// What the driver knows at the moment it asks.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    pub copies: Copies,
    pub controller_alive: bool,
    /// Whether something outside may stop this host so that its own clock does not count it. Then it does not say when
    /// it sent a renewal: others would date the first one after such a pause before the pause.
    pub may_be_paused: bool,
    /// For the record: processes as last counted, whenever that was.
    pub counted: Option<u32>,
    /// Whether the last copy here left by a migration, or may have: what its end was could not be read. Asked where
    /// [`Holder::wants_how_it_ended`] says so.
    pub may_have_moved: bool,
    /// For display, and for the number of an epoch that begins.
    pub wall: Timestamp,
    /// Used if a new incarnation begins now.
    pub fresh_incarnation: Uuid,
}

/// The store was seen to show an earlier time of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepBack {
    /// It was after this that it went back: by then the last renewal had been sent that was confirmed before.
    pub after: Moment,
    /// Index of the first renewal that was written since. What has a lower one may be of before. None: none was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

/// Renewals that came late: after more than half of F.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Late {
    /// How many, since this process began.
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

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack, and gone at once")]
pub enum Next {
    /// Nothing before this moment; ask again then, or when something was asked of the holder.
    Sleep { until: Moment },
    /// Read the own record, consistently.
    Read,
    /// Publish [`Holder::deadline`] first (it may have shrunk), then send this in a transaction of its own.
    Write { op: Op, attempt: Attempt },
}

/// The own record, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Own {
    Unread,
    Absent,
    /// Written by this incarnation, and ours to renew.
    Mine {
        record: LeaseRecord,
        index: u64,
    },
    /// Written by another node in the place of ours, which was gone.
    Lost {
        epoch: u64,
        index: u64,
    },
    /// Nonsense, or the record of another machine. From when on a new life may be written over it, if it stays as it is.
    Foreign {
        index: u64,
        take_over_at: Moment,
    },
    /// Anything else: fenced, released, an earlier life, another machine.
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

/// The machine. See the module for what it keeps true.
#[derive(Debug, Clone)]
pub struct Holder {
    identity: Identity,
    timings: LeaseTimings,
    own: Own,
    life: Option<Life>,
    /// Timings of the last renewal that succeeded, and when its request was sent.
    granted: Option<(LeaseTimings, Moment)>,
    deadline: Option<Moment>,
    /// By what is granted, and by whatever shorter D was sent since and may be in force.
    fence: Option<Moment>,
    unbroken: Option<Moment>,
    went_back: Option<Moment>,
    step_back: Option<StepBack>,
    /// Of the last renewal that was confirmed to this process.
    confirmed: u64,
    late: Option<Late>,
    lost: Lost,
    /// See [`LeaseRecord::moved_away_in`].
    moved_away_in: Option<u64>,
    /// When the last pause from outside was noticed, and how long those were that were noticed since the last attempt
    /// was made.
    paused: (Moment, Duration),
    not_before: Moment,
    /// Since when the controller has been silent, and which life was led then: any other one has set free what that
    /// life owned.
    silent: Option<(Moment, Uuid)>,
    release: bool,
    message: String,
}

impl Holder {
    /// `memory` counts only within the boot it was written in; without it the holder is strict: not valid.
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

    /// Whether the next step depends on [`Inputs::copies`], so that the process table is read only then.
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

    /// Whether the next step may set free what the node owned, and so depends on [`Inputs::may_have_moved`].
    pub fn wants_how_it_ended(&self, now: Moment) -> bool {
        self.valid(now) && self.silent.is_some_and(|(since, _)| now >= since + SILENCE)
    }

    /// What to do now.
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
        self.moved_away_in = record.moved_away_in.or(self.moved_away_in);
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

    /// When the next renewal is.
    fn due(&self, now: Moment) -> Moment {
        self.granted.map_or(now, |(_, sent)| sent + self.timings.renew())
    }

    /// Whether the controller has been silent long enough, and the store still names the life it was silent in. That
    /// a new life was asked for proves nothing: only the record says that one has begun.
    fn silent_for_long(&mut self, now: Moment, inputs: Inputs, record: &LeaseRecord) -> bool {
        if inputs.controller_alive {
            self.silent = None;
            return false;
        }
        let (since, life) = *self.silent.get_or_insert((now, record.incarnation));
        record.incarnation == life && now >= since + SILENCE
    }

    /// The record is not there (never written, deleted by hand), or another node has put one in its place.
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

    /// The record is not of this incarnation: a new one may begin when nothing of an earlier one can be alive.
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

    /// A new life, or the wait for the last copy of the old one to be seen dead.
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

    /// The timings this write announces. A shorter F leaves what the last renewal has already used up of it; where that
    /// is more than a renewal by the shorter timings would ever be old (the store was away, or R was longer), one more
    /// renewal by the old timings comes first, so that an election which begins now finds nearly all of F.
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
            copies: inputs.counted,
            sent_millis: (!inputs.may_be_paused).then(|| now.as_millis()),
            // Said on in every later life: that the first of them was ever written is not sure.
            moved_away_in: self.moved_away_in.filter(|epoch| *epoch < life.epoch),
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

    /// The own record was read, or could not be.
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

    /// Whether the store shows a time before the last renewal that it confirmed.
    fn has_gone_back(&self, record: &LeaseRecord) -> bool {
        self.life.is_some_and(|life| record.incarnation != life.incarnation || record.seq < self.confirmed)
    }

    /// Whether this very machine held it before the life that is being lived, or nobody does: a fence of this life has a
    /// later epoch, so one of an earlier epoch is of an earlier life, perhaps of the machine that had this name before.
    fn is_of_an_earlier_life(&self, record: &LeaseRecord) -> bool {
        let may_be_anothers =
            record.state == LeaseState::Held && record.machine_id != self.identity.machine_id;
        !may_be_anothers && self.life.is_some_and(|life| record.epoch < life.epoch)
    }

    /// A write was answered, or not.
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

    /// One that came too late is no late one: its lease had ended.
    fn note_late(&mut self, sent: Moment) {
        let Some((timings, before)) = self.granted.filter(|_| self.valid(sent)) else { return };
        let (gap, of) = (sent.since(before), timings.ttl());
        if gap > of / 2 {
            self.late = Some(Late { count: self.late.map_or(0, |late| late.count) + 1, gap, of });
        }
    }

    /// This host stood still for so long and its clock did not count it, as was noticed at `woke`: what was sent before
    /// is older by that than the clock says. What was sent between the pause and the moment it was noticed is taken to
    /// have been sent before it.
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

    /// The timings to live by from the next renewal on.
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

    /// Valid while `now` is before this.
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

    /// When the store last showed a time before a renewal that it had confirmed.
    pub fn store_went_back(&self) -> Option<Moment> {
        self.went_back
    }

    /// The last one, in this boot. What the store shows of before it may have been changed since, and that be gone.
    pub fn step_back(&self) -> Option<StepBack> {
        self.step_back
    }

    /// Since when every renewal has come before the one before it had run out, with no sign that the store went back in
    /// time. Only what was watched since then says anything of others: before it, a snapshot may have been restored
    /// that hides what they did meanwhile. None where the lease is not valid.
    pub fn unbroken_since(&self, now: Moment) -> Option<Moment> {
        self.unbroken.filter(|_| self.valid(now))
    }

    /// Lives that have ended though this process was renewing them, each by its epoch and the moment: the last few.
    pub fn lost(&self) -> &[(u64, Moment)] {
        self.lost.lives()
    }

    /// None: every renewal so far came in good time, or not at all.
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

    /// The timings of the last renewal that succeeded; those to live by, where there is none.
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

    /// A sentence on how it stands.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to keep for the keeper's own restart. None before there is a life to remember.
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
