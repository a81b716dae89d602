//! Drives the lease machine: asks it for the next step, does that against the store, and publishes the deadline.
//!
//! It decides nothing of its own. A deadline that moves closer is published, and written down, *before* the write that
//! announces it is sent. The same loop runs in the keeper's process, in development mode and in the simulator.

mod calls;
mod copies;
mod desk;
mod look;
mod notebook;
mod obey;
mod telling;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use zsha_crds::records::LeaseTimings;
use zsha_runtime::lease::{self, Expectation, Expected, Holder, Identity, Inputs, Next};
use zsha_runtime::store::Store;
use zsha_runtime::{Clock, Moment};

use copies::Looked;
pub use desk::{CONTROLLER_SILENCE, LocalLease};
use desk::{Desk, Reply};
pub use look::{Apart, Looking};
pub use notebook::Notebook;
use obey::owned;
use telling::{Told, announce_expiry, verdict};

use super::Ended;
use super::copies::VmCopy;
use super::enforce::Enforcement;
use super::killing::Killing;
use super::unexpected::Own;
use super::watchdog::Watchdog;
use crate::planted::{self, Bug};

/// The settings that the loop needs.
pub struct RenewSettings {
    pub identity: Identity,
    /// The timings to begin with, until a memory, the node's lease record or the controller says otherwise.
    pub timings: LeaseTimings,
    pub clock: Clock,
    /// The same as [`Inputs::may_be_paused`].
    pub may_be_paused: bool,
    pub store: Arc<dyn Store>,
    pub looking: Looking,
    pub enforcement: Arc<Enforcement>,
    pub notebook: Notebook,
    pub watchdog: Watchdog,
    /// Names new incarnations: random ones in reality, repeatable ones in a simulation.
    pub incarnations: Box<dyn FnMut() -> Uuid + Send>,
}

impl fmt::Debug for RenewSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RenewSettings").field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// The loop. Made by [`new`], with the line to it.
pub struct Renewal {
    settings: RenewSettings,
    holder: Holder,
    desk: Desk,
    releasing: Vec<Reply>,
    adopt_timings: bool,
    /// The last look into the process table.
    looked: Option<Looked>,
    /// The copy that is to be here, as the controller has said.
    expected: Expected,
    /// The last life in which this node's own copy was to be here.
    owned: Option<Uuid>,
    /// The node's own copy, and whether there was one.
    own: Own,
    /// The copies that were killed because the controller had not said that they are to be here.
    unexpected: Option<Ended>,
    /// The moment since when libvirt's log is asked how the VM has ended, and does not answer in time.
    unread_since: Option<Moment>,
    /// The copies that the look before found beside this node's own.
    beside: Vec<VmCopy>,
    killing: Killing,
    /// All pauses of this host that the holder knows of.
    paused: Duration,
    told: Told,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal").field("holder", &self.holder).finish_non_exhaustive()
    }
}

/// The loop and the line to it. Nothing runs before [`Renewal::run`] does.
pub fn new(mut settings: RenewSettings) -> (Renewal, LocalLease) {
    let memory = settings.notebook.read();
    let adopt_timings = memory.is_none();
    let expected = memory.as_ref().map_or(Expected::NOTHING, |memory| {
        let unsaid = Expected { incarnation: memory.incarnation, what: Expectation::Unsaid };
        memory.expected.unwrap_or(unsaid)
    });
    let remembered = memory.as_ref().and_then(|memory| memory.owned);
    let owned = owned(&expected).or(remembered);
    let holder = Holder::new(settings.identity.clone(), settings.timings, memory);
    let now = settings.clock.now();
    settings.enforcement.fenced_from(holder.fence());
    settings.enforcement.publish(holder.deadline(), holder.kill_within());
    let first = verdict(&holder, now, holder.deadline(), None, expected);
    let told = Told { valid: first.valid(now), epoch: first.epoch, ..Told::default() };
    let (desk, line) =
        Desk::new(settings.clock, first, Arc::clone(&settings.enforcement), settings.watchdog.clone());
    let renewal = Renewal {
        settings,
        holder,
        desk,
        releasing: Vec::new(),
        adopt_timings,
        looked: None,
        expected,
        owned,
        own: Own::as_remembered(owned.is_some()),
        unexpected: None,
        unread_since: None,
        beside: Vec::new(),
        killing: Killing::default(),
        paused: Duration::ZERO,
        told,
    };
    (renewal, line)
}

impl Renewal {
    /// Runs the loop; it never returns. Dropping the future is the death of this keeper: what was published stays in
    /// force, and is not extended.
    pub async fn run(mut self) {
        let expiry = announce_expiry(self.settings.clock, self.desk.view(), self.desk.changes());
        tokio::select! {
            biased;
            () = self.drive() => {}
            () = expiry => {}
        }
    }

    async fn drive(&mut self) {
        loop {
            while let Some(command) = self.desk.try_next() {
                self.obey(command).await;
            }
            let inputs = self.inputs().await;
            self.notice_pause();
            let now = self.settings.clock.now();
            let next = self.holder.next(now, inputs);
            let written = self.publish(self.holder.deadline());
            match next {
                Next::Sleep { until } => self.rest(until).await,
                Next::Read => self.read().await,
                Next::Write { attempt, .. } if !written => self.hold_back(attempt),
                Next::Write { op, attempt } => self.write(op, attempt).await,
            }
            self.publish(self.holder.deadline());
            self.settle_releases();
        }
    }

    /// Gathers what the machine wants to know. Each thing is looked up only where it matters.
    async fn inputs(&mut self) -> Inputs {
        let mut copies = lease::Copies::Unknown;
        if self.holder.wants_copies(self.settings.clock.now()) {
            copies = self.look().await;
        }
        if copies == lease::Copies::None && !self.releasing.is_empty() && self.holder.deadline().is_some() {
            // From here on no start can find the lease valid; one that did before is seen by a second
            // look, or comes to life paused and is killed.
            copies = match self.publish(None) {
                true if planted::is_planted(Bug::NoLookAfterRelease) => lease::Copies::None,
                true => self.look().await,
                false => lease::Copies::Unknown,
            };
        }
        let may_have_moved = match copies {
            lease::Copies::None => self.may_have_moved().await,
            lease::Copies::Some | lease::Copies::Unknown => Some(false),
        };
        if may_have_moved.is_none() {
            // Nothing is set free on that.
            copies = lease::Copies::Unknown;
        }
        Inputs {
            copies,
            controller_alive: self.desk.controller_alive(),
            may_have_moved: may_have_moved.unwrap_or(true),
            may_be_paused: self.settings.may_be_paused,
            counted: self.looked.and_then(|looked| looked.count),
            wall: self.settings.clock.wall(),
            fresh_incarnation: (self.settings.incarnations)(),
        }
    }

    async fn rest(&mut self, until: Moment) {
        let now = self.settings.clock.now();
        let every = self.holder.timings().renew();
        if self.looked.is_none_or(|looked| now.since(looked.at) >= every) {
            // For the verdict, and so that the thread that kills knows them beforehand.
            self.look().await;
            self.publish(self.holder.deadline());
        }
        let command = tokio::select! {
            biased;
            command = self.desk.next() => Some(command),
            () = self.settings.clock.sleep_until(until) => None,
        };
        if let Some(command) = command {
            self.obey(command).await;
        }
    }

    /// Takes over a pause of this host that the thread that kills has noticed. That thread has moved the deadline
    /// already.
    fn notice_pause(&mut self) {
        let (all, woke) = self.settings.enforcement.pauses();
        let by = all.saturating_sub(self.paused);
        if by.is_zero() {
            return;
        }
        self.paused = all;
        self.holder.paused(woke, by);
        tracing::warn!(
            millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX),
            "this host was paused from outside: its lease is older by that"
        );
    }

    /// Puts a deadline in force, and once more where the host stood still meanwhile.
    fn publish(&mut self, deadline: Option<Moment>) -> bool {
        loop {
            self.notice_pause();
            let written = self.put_in_force(deadline.min(self.holder.deadline()));
            if self.settings.enforcement.pauses().0 == self.paused {
                return written;
            }
        }
    }

    /// Puts a deadline in force: the enforcing side first where it moves closer, the state file before any other
    /// process hears of it. False if a keeper started anew would find a later one.
    fn put_in_force(&mut self, deadline: Option<Moment>) -> bool {
        let closer = deadline < self.settings.enforcement.deadline();
        self.settings.enforcement.fenced_from(self.holder.fence());
        self.settings.watchdog.fit([&self.holder.timings(), &self.holder.granted()]);
        let expected = Some(self.expected);
        let memory = self.holder.memory().map(|memory| lease::Memory {
            deadline,
            expected,
            owned: self.owned,
            ..memory
        });
        if closer {
            self.settings.enforcement.publish(deadline, self.holder.kill_within());
        }
        self.desk.keep(memory.clone());
        let written = memory.is_none_or(|memory| self.settings.notebook.write(memory));
        if !closer {
            self.settings.enforcement.publish(deadline, self.holder.kill_within());
        }
        self.tell(deadline);
        written
    }
}

#[cfg(test)]
pub(super) mod tests;
