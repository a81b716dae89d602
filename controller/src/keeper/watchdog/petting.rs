//! Opens the device, makes of it what is wanted, and pets it: the work of the thread behind [`super::Watchdog`]. Never
//! here: what the timings allow.

use std::fmt;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::watch;
use zsha_runtime::{Clock, Moment};

use super::device::{Device, Stopped};
use super::timing::{EVERY, MOST, next_look, pet, pet_until};
use super::{Answer, Told, WatchdogState};
use crate::keeper::enforce::{Alarm, Enforce, Enforcement, enforce};
use crate::planted::{self, Bug};

/// The pause before a device that could not be opened (another process has it, the driver is not loaded yet) is tried
/// again.
pub(super) const OPEN_AGAIN: Duration = Duration::from_secs(5);

pub(super) type Open = Box<dyn Fn() -> io::Result<Box<dyn Device>> + Send>;

pub(super) fn run(mut watch: Watch, told: &mpsc::Receiver<Told>, enforcement: &Enforcement, alarm: &Alarm) {
    loop {
        for what in told.try_iter() {
            watch.told(what);
        }
        let next = watch.look(Clock::Boottime.now(), enforcement);
        alarm.wait(next, None);
    }
}

/// The device, as the thread that pets has it.
pub(super) struct Watch {
    pub(super) open: Open,
    armed: Option<Armed>,
    wanted: bool,
    /// The longest timeout that fits. None: the timings that the lease lives by are not known.
    pub(super) longest: Option<Duration>,
    /// True if the open device is still to be made what is wanted.
    unsettled: bool,
    /// The askers that wait to hear whether it is.
    asking: Vec<Answer>,
    open_again: Moment,
    left: bool,
    pub(super) state: watch::Sender<WatchdogState>,
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
    pub(super) fn new(open: Open, wanted: bool) -> (Self, watch::Receiver<WatchdogState>) {
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

    pub(super) fn told(&mut self, what: Told) {
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
    pub(super) fn look(&mut self, now: Moment, enforcement: &Enforcement) -> Moment {
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
