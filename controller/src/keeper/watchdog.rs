//! The hardware watchdog: it resets the host when a copy that must be dead cannot be killed, or no process is left to
//! kill it.
//!
//! A watchdog of W seconds that was last petted at `p` resets the host at `p + W` or a little later, and that must be
//! before others may fence. So while the lease is valid it is petted until so long before that moment, and after the
//! deadline for as long as every copy was lately seen dead. A renewal moves the moment on long before; when none comes,
//! the reset comes just before others may take over, whatever W is: after the deadline and K, and never on a lease that
//! holds.
//!
//! W is therefore the most seconds that fit between a late renewal and that moment, and no more than ten: a longer
//! one gives a keeper that is restarted more time to be back. Where a device cannot be set to what fits, or cannot be
//! opened, it is not relied on: the verdict says why, and the node has no watchdog.
//!
//! Opening a device pets it, and so does setting its timeout. Both happen only when it may be petted, as does giving it
//! up: neither a keeper that is started anew just after petting had to end, nor new timings, may give a copy that
//! cannot be killed another W seconds, or its life. A shorter D is announced only once the device is set to what fits
//! into it.

mod device;
pub mod simulated;
mod wish;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use zsha_crds::records::LeaseTimings;
use zsha_runtime::{Clock, Moment};

use super::enforce::{Alarm, Enforce, Enforcement, enforce};
use crate::planted::{self, Bug};
use device::{Device, KernelWatchdog, Stopped};
use wish::Wish;

/// The pause between two looks. It is well inside the smallest K: an all-clear that comes late in K must still be seen
/// in time.
const EVERY: Duration = Duration::from_millis(100);

/// The time from the decision to pet until the driver has it. With it, the reset still comes after the deadline and K:
/// between those and the earliest fence lie 98 ms at least, for all timings that are safe.
const SLACK: Duration = Duration::from_millis(50);

/// The longest timeout. No keeper needs longer to be back after its restart, and a host that hangs need not hang
/// longer.
const MOST: Duration = Duration::from_secs(10);

/// The pause before a device that could not be opened (another process has it, the driver is not loaded yet) is tried
/// again.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// The time for the thread's answer, which comes between two looks.
const STOPPED_WITHIN: Duration = Duration::from_secs(1);

/// The watchdog that stands behind the keeper, or the reason why none does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum WatchdogState {
    /// The node's settings name no device, or the keeper is of a build that did not tell.
    #[default]
    None,
    /// The document turns it off.
    Off,
    /// The device is open, set to this, and petted while the promise holds.
    #[serde(rename_all = "camelCase")]
    Petted { timeout_secs: u64 },
    /// There is a device, and it is not relied on: the reason, as half a sentence.
    Refused { reason: String },
}

/// The time by which a device may fire later than after W seconds. Drivers count in powers of two of a clock that is
/// nearly a kilohertz: Intel's 6300ESB, as QEMU has it, takes 6.1 s for 6.
fn late(timeout: Duration) -> Duration {
    timeout / 32
}

/// The longest timeout for these timings. After the latest renewal of a healthy keeper (R, and both ways of a request)
/// the device must still be petted once before petting has to stop. And a device that fires on time takes no more than
/// half of K from the thread that kills. It is in whole seconds; zero where not even one fits.
pub(super) fn longest_timeout(timings: &LeaseTimings) -> Duration {
    let fence = timings.fence_after() * 49 / 50;
    let taken = timings.renew() + timings.request_timeout() * 2 + EVERY + SLACK;
    let room = fence.saturating_sub(taken) * 32 / 33;
    Duration::from_secs(room.min(timings.kill() * 16).as_secs()).min(MOST)
}

/// The moment until which a watchdog with this timeout may be petted without an all-clear: K after the deadline, but so
/// that it resets the host before others may fence.
fn pet_until(deadline: Moment, kill_within: Duration, fence: Moment, timeout: Duration) -> Moment {
    if planted::is_planted(Bug::PettedPastFence) {
        return deadline + kill_within;
    }
    (deadline + kill_within).min(fence - timeout - late(timeout) - SLACK)
}

/// True if the host deserves to go on.
fn pet(
    now: Moment,
    deadline: Option<Moment>,
    until: Moment,
    kill_within: Duration,
    last_clear: Moment,
) -> bool {
    match enforce(now, deadline) {
        Enforce::Valid { .. } => now < until,
        Enforce::Kill { .. } => deadline.is_some() && now < until || now.since(last_clear) < kill_within,
    }
}

/// The moment of the next look: the last pet before petting ends is not left to chance.
fn next_look(now: Moment, until: Moment) -> Moment {
    let last = until - Duration::from_millis(10);
    if now < last { last.min(now + EVERY) } else { now + EVERY }
}

type Answer = oneshot::Sender<Result<(), String>>;

/// The messages to the thread that pets.
enum Told {
    /// Says whether the document wants the watchdog. It is answered when that is so, or cannot be yet.
    Wanted(bool, Answer),
    /// Says the longest timeout that fits. The asker hears whether the device is set to it.
    Longest(Duration, Option<Answer>),
    /// The keeper leaves, and no copy is alive.
    Leave(mpsc::Sender<io::Result<()>>),
}

/// The line to the thread that pets, for the threads that renew and answer.
#[derive(Debug, Clone)]
pub struct Watchdog {
    tell: Option<mpsc::Sender<Told>>,
    state: watch::Receiver<WatchdogState>,
    longest: Option<Duration>,
    wish: Option<Wish>,
}

impl Watchdog {
    /// The line where the settings name no device.
    pub fn none() -> Self {
        let (_, state) = watch::channel(WatchdogState::None);
        Self::said(state)
    }

    /// The line in a simulation: what is said of a watchdog, and no device behind it.
    pub fn said(state: watch::Receiver<WatchdogState>) -> Self {
        Self { tell: None, state, longest: None, wish: None }
    }

    /// Arms the device, unless the keeper of this directory was told that it is not wanted, and pets it for as long as
    /// the promise holds, on a thread of its own.
    pub(super) fn start(path: PathBuf, directory: &Path, enforcement: Arc<Enforcement>) -> io::Result<Self> {
        let open = move || Ok(Box::new(KernelWatchdog::open(&path)?) as Box<dyn Device>);
        Self::start_with(Box::new(open), Wish::in_directory(directory), enforcement)
    }

    fn start_with(open: Open, wish: Wish, enforcement: Arc<Enforcement>) -> io::Result<Self> {
        let alarm = Alarm::new()?;
        let (tell, told) = mpsc::channel();
        let (watch, state) = Watch::new(open, wish.wanted());
        thread::Builder::new()
            .name("watchdog".to_owned())
            .stack_size(256 << 10)
            .spawn(move || run(watch, &told, &enforcement, &alarm))?;
        Ok(Self { tell: Some(tell), state, longest: None, wish: Some(wish) })
    }

    /// The state of the watchdog.
    pub fn state(&self) -> WatchdogState {
        self.state.borrow().clone()
    }

    /// Says whether the document wants a watchdog at all. Returns when it is so, with the state that follows.
    pub(super) async fn want(&self, wanted: bool) -> Result<(), String> {
        if self.tell.is_none() {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        self.tell(Told::Wanted(wanted, reply));
        if let Some(Err(error)) = self.wish.as_ref().map(|wish| wish.keep(wanted)) {
            tracing::warn!(%error, wanted, "a keeper started anew will not know whether the watchdog is wanted");
        }
        answered(answer).await
    }

    /// Says the timings in force: both of them, while they change.
    pub(super) fn fit(&mut self, timings: [&LeaseTimings; 2]) {
        let longest = longest_of(timings);
        if self.longest.replace(longest) != Some(longest) {
            self.tell(Told::Longest(longest, None));
        }
    }

    /// Does the same before timings are announced. Returns when the device fits them, or why it cannot be set to them
    /// now: then they must not be announced.
    pub(super) async fn fit_before(&mut self, timings: [&LeaseTimings; 2]) -> Result<(), String> {
        if self.tell.is_none() {
            return Ok(());
        }
        let longest = longest_of(timings);
        self.longest = Some(longest);
        let (reply, answer) = oneshot::channel();
        self.tell(Told::Longest(longest, Some(reply)));
        answered(answer).await
    }

    /// Ends the watch. Call it only when no copy is alive: nothing is watched any more after this.
    pub(super) fn disarm(&self) -> io::Result<()> {
        if self.tell.is_none() {
            return Ok(());
        }
        let (say, hear) = mpsc::channel();
        self.tell(Told::Leave(say));
        hear.recv_timeout(STOPPED_WITHIN).map_err(io::Error::other)?
    }

    fn tell(&self, what: Told) {
        if let Some(tell) = &self.tell {
            // The thread ends with the process.
            let _ = tell.send(what);
        }
    }
}

fn longest_of(timings: [&LeaseTimings; 2]) -> Duration {
    timings.map(longest_timeout).into_iter().min().unwrap_or_default()
}

async fn answered(answer: oneshot::Receiver<Result<(), String>>) -> Result<(), String> {
    match tokio::time::timeout(STOPPED_WITHIN, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err("the thread that pets the watchdog does not answer".to_owned()),
    }
}

type Open = Box<dyn Fn() -> io::Result<Box<dyn Device>> + Send>;

fn run(mut watch: Watch, told: &mpsc::Receiver<Told>, enforcement: &Enforcement, alarm: &Alarm) {
    loop {
        for what in told.try_iter() {
            watch.told(what);
        }
        let next = watch.look(Clock::Boottime.now(), enforcement);
        alarm.wait(next, None);
    }
}

/// The device, as the thread that pets has it.
struct Watch {
    open: Open,
    armed: Option<Armed>,
    wanted: bool,
    /// The longest timeout that fits. None: the timings that the lease lives by are not known.
    longest: Option<Duration>,
    /// True if the open device is still to be made what is wanted.
    unsettled: bool,
    /// The askers that wait to hear whether it is.
    asking: Vec<Answer>,
    open_again: Moment,
    left: bool,
    state: watch::Sender<WatchdogState>,
    petted: bool,
}

#[derive(Debug)]
struct Armed {
    device: Box<dyn Device>,
    /// The timeout of the device. It is the longest of all until the timings are known: the device is petted no longer
    /// than any device may be.
    timeout: Duration,
    /// False if the device could not be stopped: it is petted whatever happens, and means nothing.
    relied_on: bool,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("armed", &self.armed)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Watch {
    fn new(open: Open, wanted: bool) -> (Self, watch::Receiver<WatchdogState>) {
        let (state, seen) = watch::channel(if wanted { opening() } else { WatchdogState::Off });
        let watch = Self {
            open,
            armed: None,
            wanted,
            longest: None,
            unsettled: false,
            asking: Vec::new(),
            open_again: Moment::default(),
            left: false,
            state,
            petted: true,
        };
        (watch, seen)
    }

    fn told(&mut self, what: Told) {
        match what {
            Told::Wanted(wanted, reply) => {
                if wanted != self.wanted {
                    self.wanted = wanted;
                    self.open_again = Moment::default();
                    self.unsettled = true;
                    if wanted {
                        self.state.send_replace(opening());
                    }
                }
                self.asking.push(reply);
            }
            Told::Longest(longest, reply) => {
                if self.longest != Some(longest) {
                    self.longest = Some(longest);
                    self.open_again = Moment::default();
                    self.unsettled = true;
                }
                self.asking.extend(reply);
            }
            Told::Leave(reply) => {
                self.left = true;
                // Whoever asked has stopped waiting if it came too late.
                let _ = reply.send(self.stop());
            }
        }
    }

    /// One look: opens what is to be open, sets what is to be set, pets what is to be petted. Returns when to look
    /// again.
    fn look(&mut self, now: Moment, enforcement: &Enforcement) -> Moment {
        let next = self.looked(now, enforcement);
        for asking in self.asking.drain(..) {
            let outcome = match self.unsettled {
                false => Ok(()),
                true => Err("the watchdog may be about to reset this node: it is left alone until the lease is renewed, \
                             or no copy of the VM is alive here"
                    .to_owned()),
            };
            // Whoever asked has stopped waiting if it came too late.
            let _ = asking.send(outcome);
        }
        next
    }

    fn looked(&mut self, now: Moment, enforcement: &Enforcement) -> Moment {
        let (deadline, kill_within) = (enforcement.deadline(), enforcement.kill_within());
        let petted_until = |timeout| {
            deadline.map_or(Moment::default(), |deadline| {
                pet_until(deadline, kill_within, enforcement.fence(), timeout)
            })
        };
        let may_pet = |until| pet(now, deadline, until, kill_within, enforcement.last_clear());
        let fitting = self.longest.unwrap_or(MOST);
        if self.armed.is_none() && self.wanted && !self.left && now >= self.open_again {
            if !may_pet(petted_until(fitting)) {
                return now + EVERY;
            }
            self.open_again = now + OPEN_AGAIN;
            self.arm();
        }
        if self.unsettled {
            let harmless = self.armed.as_ref().is_none_or(|armed| {
                let timeout = if self.wanted { fitting } else { armed.timeout };
                !armed.relied_on || may_pet(petted_until(timeout))
            });
            if harmless {
                self.settle();
            }
        }
        let Some(armed) = &mut self.armed else { return now + EVERY };
        let until = if armed.relied_on { petted_until(armed.timeout) } else { now + EVERY * 2 };
        let good = !armed.relied_on || may_pet(until);
        let good = good || planted::is_planted(Bug::AlwaysPetted);
        let written = if good { armed.device.pet().map(|()| true) } else { Ok(false) };
        // Petting that only waits for the next renewal is nothing to speak of.
        if good || !matches!(enforce(now, deadline), Enforce::Valid { .. }) {
            say(&written, &mut self.petted);
        }
        next_look(now, until)
    }

    fn arm(&mut self) {
        match (self.open)() {
            Ok(device) => {
                self.armed = Some(Armed { device, timeout: MOST, relied_on: true });
                self.settle();
            }
            Err(error) => self.refuse(format!("it cannot be opened: {error}")),
        }
    }

    /// Makes of the open device what is wanted: one that is relied on, or none. Call it where the device may be petted.
    fn settle(&mut self) {
        self.unsettled = false;
        if !self.wanted {
            self.give_up();
            self.state.send_replace(WatchdogState::Off);
            return;
        }
        let (Some(armed), Some(longest)) = (&mut self.armed, self.longest) else { return };
        match fitted(armed.device.as_mut(), longest) {
            Ok(timeout) => {
                (armed.timeout, armed.relied_on) = (timeout, true);
                let timeout_secs = timeout.as_secs();
                let state = WatchdogState::Petted { timeout_secs };
                if self.state.send_replace(state.clone()) != state {
                    tracing::info!(timeout_secs, "the watchdog is armed and petted");
                }
            }
            Err(reason) => {
                self.give_up();
                self.refuse(reason);
                // Only other timings can change that.
                self.open_again = Moment::from_nanos(u64::MAX);
            }
        }
    }

    /// Stops the device. A device that cannot be stopped is petted without being relied on: a host must not be reset
    /// for a watchdog that is not wanted.
    fn give_up(&mut self) {
        if self.armed.is_none() {
            return;
        }
        match self.stop() {
            Ok(()) => tracing::info!("the watchdog is disarmed"),
            Err(error) => tracing::warn!(
                error = %error,
                "the watchdog cannot be stopped (nowayout?): it is petted for as long as this keeper lives, whatever \
                 happens, and resets this host if no keeper runs"
            ),
        }
    }

    fn refuse(&mut self, reason: String) {
        let state = WatchdogState::Refused { reason: reason.clone() };
        // What is tried again and again is told once.
        if self.state.send_replace(state.clone()) != state {
            tracing::error!(reason, "the watchdog is not used");
        }
    }

    fn stop(&mut self) -> io::Result<()> {
        let Some(armed) = &mut self.armed else { return Ok(()) };
        armed.relied_on = false;
        match armed.device.stop() {
            // Of an old driver it is only known to be so if it is closed after the letter, which it is at the end.
            Ok(Stopped::OnClose) if !self.left => {
                Err(io::Error::other("its driver stops only when the keeper ends"))
            }
            Ok(Stopped::OnClose | Stopped::Surely) => {
                self.armed = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn opening() -> WatchdogState {
    WatchdogState::Refused { reason: "it is being opened".to_owned() }
}

/// The timeout that the device has now, or why that is none to rely on.
fn fitted(device: &mut dyn Device, longest: Duration) -> Result<Duration, String> {
    if longest.is_zero() {
        return Err("the lease's timings leave not even one second for it: use a longer profile".to_owned());
    }
    match device.set_timeout(longest) {
        Ok(timeout) if timeout <= longest => Ok(timeout),
        Ok(timeout) => Err(format!(
            "its timeout is {} s and cannot be made shorter, and between a renewal and the moment others may fence there \
             is room for {} s: use a longer profile or another device",
            timeout.as_secs(),
            longest.as_secs()
        )),
        Err(error) => Err(format!("its timeout cannot be told: {error}")),
    }
}

fn say(written: &io::Result<bool>, told: &mut bool) {
    let petted = matches!(written, Ok(true));
    if petted == std::mem::replace(told, petted) {
        return;
    }
    match written {
        Ok(true) => tracing::info!("the watchdog is petted again"),
        Ok(false) => {
            tracing::error!("the watchdog is left to reset this host: a copy of the VM will not die")
        }
        Err(error) => tracing::error!(error = %error, "the watchdog cannot be petted"),
    }
}

#[cfg(test)]
mod tests;
