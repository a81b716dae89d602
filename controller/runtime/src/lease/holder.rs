//! The side that keeps the lease, as a sequential machine: the driver asks for `next`, does it, and reports by
//! `on_read` or `on_write`. Here it is decided what comes next. What a write says, what an answer means, what is
//! remembered and what is told have a file each.

mod answers;
mod attempt;
mod foreign;
mod lost;
mod memory;
mod told;

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use zsha_crds::records::{LeaseRecord, LeaseState, LeaseTimings};
use zsha_crds::{ClusterName, NodeName, VmName};

use crate::Moment;
use crate::planted::is_planted;
use crate::store::Op;
use lost::Lost;

pub use attempt::Attempt;
pub use memory::{Memory, StepBack};
pub use told::Late;

/// The pause after a read or write that failed, before the next try: short against F, long against a round trip.
const RETRY: Duration = Duration::from_millis(200);

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
    Other(Sighting),
}

/// A record that is not ours to renew, and since when it has lain there as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sighting {
    record: LeaseRecord,
    index: u64,
    first_seen: Moment,
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
                Own::Absent | Own::Lost { .. } | Own::Foreign { .. } | Own::Other(_) => true,
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
            Own::Other(sighting) => self.take_over(now, inputs, &sighting),
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
    fn take_over(&mut self, now: Moment, inputs: Inputs, sighting: &Sighting) -> Next {
        let Sighting { record, index, first_seen } = sighting;
        let free_at = *first_seen + record.timings.fence_after();
        if self.release && record.state != LeaseState::Held {
            self.message = "released".to_owned();
            return Next::Sleep { until: now + Duration::from_secs(60) };
        }
        let elsewhere = record.state == LeaseState::Held && record.machine_id != self.identity.machine_id;
        if elsewhere && now < free_at {
            self.message = format!(
                "the lease of {} is held by another machine ({}); if that one is dead it is taken over in {:.0} s, \
                 if it lives two machines carry one node name",
                self.identity.node,
                record.machine_id,
                now.until(free_at).as_secs_f64().ceil(),
            );
            return Next::Read;
        }
        self.live_anew(now, inputs, record.epoch, Some(*index))
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
}
