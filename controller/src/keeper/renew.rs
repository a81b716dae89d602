//! Drives the lease machine: asks it for the next step, does that against the store, and publishes the deadline.
//!
//! It decides nothing of its own. A deadline that moves closer is published, and written down, *before* the write that
//! announces it is sent. The same loop runs in the keeper's process, in development mode and in the simulator.

mod desk;
mod look;
mod notebook;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;
use zsha_crds::records::{LeaseRecord, LeaseState, LeaseTimings};
use zsha_runtime::lease::{self, Attempt, Expectation, Expected, Holder, Identity, Inputs, Next};
use zsha_runtime::store::{Entry, Op, Read, Store, StoreError, Txn};
use zsha_runtime::{Clock, Moment};

pub use desk::{CONTROLLER_SILENCE, LocalLease};
use desk::{Command, Desk, Reply};
pub use look::{Apart, Looking};
pub use notebook::Notebook;

use super::copies::VmCopy;
use super::enforce::Enforcement;
use super::killing::{self, Killing, Report};
use super::unexpected::{self, Instead, Own};
use super::watchdog::{Watchdog, WatchdogState};
use super::{Ended, Lost, Verdict};
use crate::errors::Whose;
use crate::hypervisor::OffReason;
use crate::hypervisor::libvirt_log::UNREAD_PATIENCE;
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

/// One look at the process table: when it began, and what was there.
#[derive(Debug, Clone, Copy)]
struct Looked {
    at: Moment,
    /// The number of copies. None: the table could not be read.
    count: Option<u32>,
    /// True if one of them was made to take in a guest from elsewhere.
    incoming: bool,
}

/// The state that was last logged, so that only changes are.
#[derive(Debug, Default)]
struct Told {
    valid: bool,
    epoch: u64,
    late: Option<lease::Late>,
    unexpected: u64,
    failing: bool,
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

/// The life in which this node's own copy is to be here, if it is. A keeper of an earlier build was not told of it; its
/// life counts too.
fn owned(told: &Expected) -> Option<Uuid> {
    matches!(told.what, Expectation::Own | Expectation::Unsaid).then_some(told.incarnation)
}

fn verdict(
    holder: &Holder,
    now: Moment,
    deadline: Option<Moment>,
    looked: Option<Looked>,
    expected: Expected,
) -> Verdict {
    Verdict {
        node: holder.node().clone(),
        valid_until: deadline,
        incarnation: holder.incarnation(),
        epoch: holder.epoch(),
        seq: holder.seq(),
        timings: holder.timings(),
        message: holder.message().to_owned(),
        unbroken_since: holder.unbroken_since(now),
        store_went_back: holder.store_went_back(),
        step_back: holder.step_back(),
        confirmed: holder.confirmed(),
        copies: looked.and_then(|looked| looked.count),
        counted_at: looked.map(|looked| looked.at),
        incoming: looked.is_some_and(|looked| looked.incoming),
        expects: Some(expected.in_life(holder.incarnation())),
        ended: None,
        unexpected: None,
        late: holder.late(),
        lost: holder.lost().iter().map(|(epoch, at)| Lost { epoch: *epoch, at: *at }).collect(),
        watchdog: WatchdogState::default(),
    }
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

    /// Says whether the VM that this node was to have is somewhere else now, as far as is known. It is asked before
    /// what the node owned is set free for want of a controller, which would know. None: not known yet.
    async fn may_have_moved(&mut self) -> Option<bool> {
        let asked = self.holder.wants_how_it_ended(self.settings.clock.now())
            && self.owned == Some(self.holder.incarnation());
        if !asked || planted::is_planted(Bug::MovedAwayIsDead) {
            self.unread_since = None;
            return Some(false);
        }
        let now = self.settings.clock.now();
        match self.settings.looking.last_end().await {
            Ok(ended) => Some(ended == Some(OffReason::Migrated)),
            // What was never here has left no log.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.own.was_seen() => Some(false),
            // A disk that dies may take its time to say so.
            Err(error)
                if error.kind() == io::ErrorKind::TimedOut
                    && Whose::is(&error) != Whose::Storage
                    && now < *self.unread_since.get_or_insert(now) + UNREAD_PATIENCE =>
            {
                None
            }
            // A dead disk takes libvirt and the guest with it, and only the storage itself can say that it is
            // dead. No answer in time has many causes, as has every other error: then nothing is believed.
            Err(error) => {
                let is_of_the_disk = Whose::is(&error) == Whose::Storage;
                tracing::warn!(%error, is_of_the_disk, "libvirt's log does not say how the VM has ended");
                Some(!is_of_the_disk)
            }
        }
    }

    async fn look(&mut self) -> lease::Copies {
        let begun = self.settings.clock.now();
        let found = self.settings.looking.look().await;
        let (count, copies) = match &found {
            Ok(found) if found.is_empty() => (Some(0), lease::Copies::None),
            Ok(found) => (Some(u32::try_from(found.len()).unwrap_or(u32::MAX)), lease::Copies::Some),
            Err(_) if planted::is_planted(Bug::BlindIsNoCopy) => (Some(0), lease::Copies::None),
            Err(error) => {
                tracing::debug!(error = %error, "cannot look for copies of the VM");
                (None, lease::Copies::Unknown)
            }
        };
        let incoming = found.as_ref().is_ok_and(|found| found.iter().any(|copy| copy.incoming));
        self.looked = Some(Looked { at: begun, count, incoming });
        // What could not be looked at is not gone.
        if let Ok(found) = found {
            self.end_the_unexpected(found).await;
        }
        copies
    }

    /// Ends the copies that the lease does not stand for. Without a valid lease the thread that enforces ends every
    /// copy.
    async fn end_the_unexpected(&mut self, mut found: Vec<VmCopy>) {
        let now = self.settings.clock.now();
        if !self.holder.valid(now) || planted::is_planted(Bug::KeepsTheUnexpected) {
            return;
        }
        let life = self.holder.incarnation();
        if self.expected.in_life(life) == Expectation::Own && self.own_has_left(&found).await {
            tracing::warn!(
                "the VM was moved away from this node by a command that was not zsha's, as libvirt's log says; what is started \
                 here in its place is ended until this node's controller says that the VM is to be here"
            );
            self.expected = Expected { incarnation: life, what: Expectation::Nothing };
        }
        let expects = self.expected.in_life(life);
        if expects == Expectation::Own {
            // For a moment, what a QEMU forks to run a helper looks like a second one: it takes two looks.
            let beside = unexpected::beside_the_own(&found);
            let before = std::mem::replace(&mut self.beside, beside.clone());
            found = beside;
            found.retain(|copy| before.iter().any(|seen| seen.is_same_as(copy)));
        } else {
            self.beside.clear();
            found.retain(|copy| expects.forbids(copy.incoming));
        }
        let copies = self.settings.looking.copies();
        for report in self.killing.these(copies, found, now, self.holder.kill_within()) {
            if matches!(report, Report::Killed { .. }) {
                let count = self.unexpected.map_or(0, |ended| ended.count) + 1;
                self.unexpected = Some(Ended { count, at: now });
            }
            killing::log_because(&report, "this node was not to run the VM, though its lease is valid");
        }
    }

    /// True if the own copy was moved away by hand, as libvirt's log says. A controller sees that itself; a controller
    /// that has been silent for a while is taken to be down. Where the log does not say it, nothing speaks against the
    /// copy that runs.
    async fn own_has_left(&mut self, found: &[VmCopy]) -> bool {
        let instead = self.own.instead_of_it(found);
        if self.desk.controller_alive() || planted::is_planted(Bug::AnyCopyIsTheOwn) {
            self.own.see(found);
            return false;
        }
        let ended = match instead {
            Instead::Nothing => {
                self.own.see(found);
                return false;
            }
            Instead::Nobody => self.settings.looking.last_end().await,
            Instead::Another => self.settings.looking.end_before_this().await,
        };
        match (ended, instead) {
            (Ok(Some(OffReason::Migrated)), _) => return true,
            // It is asked again.
            (Err(_), Instead::Nobody) => {}
            (Ok(_), Instead::Nobody) => self.own.forget_which(),
            (Ok(_), _) => self.own.see(found),
            (Err(error), _) => {
                tracing::warn!(%error, "libvirt's log does not say how the VM has ended that was here before");
                self.own.see(found);
            }
        }
        false
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

    async fn read(&mut self) {
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

    async fn write(&mut self, op: Op, attempt: Attempt) {
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
    fn hold_back(&mut self, attempt: Attempt) {
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

    async fn obey(&mut self, command: Command) {
        match command {
            Command::SetTimings(timings, reply) => {
                let outcome = self.change_timings(timings).await;
                if outcome.is_ok() {
                    self.adopt_timings = false;
                }
                reply.say(outcome);
            }
            Command::Expect(what, reply) => reply.say(self.expect(what)),
            Command::Release(reply) => match self.look().await {
                lease::Copies::None => {
                    self.holder.release();
                    self.releasing.push(reply);
                }
                lease::Copies::Some => reply.say(Err("a copy of the VM is alive on this node".to_owned())),
                lease::Copies::Unknown => {
                    reply.say(Err(
                        "it cannot be seen whether a copy of the VM is alive on this node".to_owned()
                    ));
                }
            },
        }
    }

    /// Notes which copy to expect. It is in force, and kept for the keeper that is started next, when this returns
    /// `Ok`.
    fn expect(&mut self, what: Expectation) -> Result<(), String> {
        self.own.forget_which();
        let said = Expected { incarnation: self.holder.incarnation(), what };
        let before = std::mem::replace(&mut self.expected, said);
        if said == before {
            return Ok(());
        }
        self.owned = owned(&self.expected).or(self.owned);
        self.publish(self.holder.deadline());
        match self.settings.notebook.trouble() {
            Some(trouble) if what != Expectation::Nothing => {
                let why = format!(
                    "a keeper started anew would not know of it: the state file cannot be written ({trouble}); make room \
                     in its directory"
                );
                self.expected = before;
                self.publish(self.holder.deadline());
                Err(why)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Changes the timings. No other node hears of a shorter D before the watchdog fits into it.
    async fn change_timings(&mut self, timings: LeaseTimings) -> Result<(), String> {
        let before = self.holder.timings();
        self.holder.set_timings(timings)?;
        let fitted = self.settings.watchdog.fit_before([&timings, &self.holder.granted()]).await;
        if fitted.is_err() {
            self.holder.set_timings(before)?;
        }
        fitted
    }

    fn settle_releases(&mut self) {
        if self.holder.released() {
            self.releasing.drain(..).for_each(|reply| reply.say(Ok(())));
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

    fn tell(&mut self, deadline: Option<Moment>) {
        let now = self.settings.clock.now();
        let mut view = verdict(&self.holder, now, deadline, self.looked, self.expected);
        view.unexpected = self.unexpected;
        if let Some(trouble) = self.settings.notebook.trouble() {
            let more = format!(
                "; the keeper's state file cannot be written ({trouble}): make room in its directory"
            );
            view.message.push_str(&more);
        }
        if let Some(who) =
            self.settings.looking.who().filter(|_| view.copies.is_some_and(|copies| copies > 0))
        {
            view.message.push_str(&format!("; of the VM there is {who}"));
        }
        let (valid, epoch, late) = (view.valid(now), view.epoch, view.late);
        let unexpected = view.unexpected.map_or(0, |ended| ended.count);
        let message = view.message.clone();
        self.desk.show(view);
        let news = std::mem::replace(&mut self.told.late, late) != late;
        if std::mem::replace(&mut self.told.unexpected, unexpected) != unexpected || news {
            self.desk.bump();
        }
        if (valid, epoch) == (self.told.valid, self.told.epoch) {
            return;
        }
        (self.told.valid, self.told.epoch) = (valid, epoch);
        self.desk.bump();
        tracing::info!(node = %self.settings.identity.node, valid, epoch, reason = message, "lease");
    }
}

fn unanswered(operation: &str, limit: Duration) -> StoreError {
    StoreError::Unknown {
        operation: operation.to_owned(),
        reason: format!("no answer within {} ms", limit.as_millis()),
    }
}

/// Announces the end of validity. It comes by itself, with nothing happening, and those who follow validity must hear
/// of it.
async fn announce_expiry(clock: Clock, mut view: watch::Receiver<Verdict>, changes: watch::Sender<u64>) {
    loop {
        let until = view.borrow_and_update().valid_until.filter(|until| clock.now() < *until);
        let expired = async {
            match until {
                Some(until) => clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = view.changed() => if outcome.is_err() { return },
            () = expired => changes.send_modify(|count| *count += 1),
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
