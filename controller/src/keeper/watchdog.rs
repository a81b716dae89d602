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
mod petting;
pub mod simulated;
mod timing;
mod wish;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use zsha_crds::records::LeaseTimings;

use super::enforce::{Alarm, Enforcement};
use device::{Device, KernelWatchdog};
use petting::{Open, Watch, run};
use timing::longest_of;
use wish::Wish;

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

async fn answered(answer: oneshot::Receiver<Result<(), String>>) -> Result<(), String> {
    match tokio::time::timeout(STOPPED_WITHIN, answer).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) | Err(_) => Err("the thread that pets the watchdog does not answer".to_owned()),
    }
}

#[cfg(test)]
mod tests;
