//! The hardware watchdog: resets the host when a copy that must be dead cannot be killed, or nobody is left to kill.
//!
//! It is petted only while the promise holds: the lease is valid, or every copy was lately seen dead.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use zsha_runtime::{Clock, Moment};

use super::enforce::{Enforce, Enforcement, enforce};

/// Short against any watchdog's own time, which is counted in seconds.
const EVERY: Duration = Duration::from_millis(500);

/// Whether the host deserves to go on.
fn pet(now: Moment, deadline: Option<Moment>, kill_within: Duration, last_clear: Moment) -> bool {
    match enforce(now, deadline) {
        Enforce::Valid { .. } => true,
        Enforce::Kill { overdue } => overdue < kill_within || now.since(last_clear) < kill_within,
    }
}

/// An armed watchdog. Dropped without [`Watchdog::disarm`], it resets the host in its own time.
#[derive(Debug)]
pub(super) struct Watchdog {
    device: File,
}

impl Watchdog {
    /// Arms it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { device: OpenOptions::new().write(true).open(path)? })
    }

    /// Pets it for as long as the promise holds, on a thread of its own.
    pub(super) fn start(self, enforcement: Arc<Enforcement>) -> io::Result<Arc<Self>> {
        let watchdog = Arc::new(self);
        let petted = Arc::clone(&watchdog);
        thread::Builder::new().name("watchdog".to_owned()).stack_size(256 << 10).spawn(move || {
            let mut told = true;
            loop {
                let now = Clock::Boottime.now();
                let (deadline, kill_within) = (enforcement.deadline(), enforcement.kill_within());
                let good = pet(now, deadline, kill_within, enforcement.last_clear());
                let written = if good { (&petted.device).write(b"p").map(|_| true) } else { Ok(false) };
                say(&written, &mut told);
                thread::park_timeout(EVERY);
            }
        })?;
        Ok(watchdog)
    }

    /// Ends the watch. Only when no copy is alive: nobody is watched any more after this.
    pub(super) fn disarm(&self) -> io::Result<()> {
        // The letter that a driver takes as "closed on purpose".
        (&self.device).write_all(b"V")
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
mod tests {
    use super::*;

    const K: Duration = Duration::from_millis(1_000);

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    #[test]
    fn it_is_petted_while_the_lease_is_valid_whatever_was_seen_before() {
        assert!(pet(at(5_000), Some(at(5_001)), K, at(0)));
    }

    #[test]
    fn after_the_deadline_it_is_petted_for_k_and_then_only_on_a_fresh_all_clear() {
        assert!(pet(at(5_999), Some(at(5_000)), K, at(0)));
        assert!(!pet(at(6_000), Some(at(5_000)), K, at(0)), "killed K ago and never seen gone");
        assert!(pet(at(90_000), Some(at(5_000)), K, at(89_500)));
        assert!(!pet(at(90_000), Some(at(5_000)), K, at(89_000)), "the thread that kills hangs");
    }

    #[test]
    fn a_keeper_that_never_had_a_lease_is_petted_on_an_all_clear_only() {
        assert!(!pet(at(90_000), None, K, at(0)));
        assert!(pet(at(90_000), None, K, at(89_900)));
    }

    #[test]
    fn it_is_disarmed_by_the_letter_drivers_know() {
        let file = tempfile::NamedTempFile::new().unwrap();
        Watchdog::open(file.path()).unwrap().disarm().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"V");
    }
}
