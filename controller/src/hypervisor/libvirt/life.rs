//! Keeps what libvirt has told this process of the VM's coming and going, while one connection lasts. libvirt forgets a
//! domain without a definition when it ends, and with it why.

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};

use virt::sys;

use crate::hypervisor::{OffReason, Origin};

/// The last words of libvirt, if it said any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Told {
    /// The way in which the present process came to be.
    pub(super) began: Option<Origin>,
    /// The way the last process ended; None while there is one, or where that was not told.
    pub(super) ended: Option<OffReason>,
    /// True if it was QEMU that was told to end (by a signal), and not the guest that has powered off.
    by_signal: bool,
}

/// A look at a process whose start was not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Learned {
    /// The number that libvirt gives the run.
    run: u32,
    began: Origin,
}

#[derive(Debug, Default)]
pub(super) struct Life {
    told: Mutex<Told>,
    learned: Mutex<Option<Learned>>,
}

impl Life {
    pub(super) fn told(&self) -> Told {
        *self.lock()
    }

    /// Forgets everything, since the connection was lost. Whatever happens until there is another is told to no
    /// process, so what was told before counts no more.
    pub(super) fn forget(&self) {
        *self.lock() = Told::default();
        *self.learned() = None;
    }

    /// Notes how the process of this run came to be, where it was seen and nothing was told of it. It holds for this
    /// run only: for a start that fails, libvirt tells neither that it began nor that it is over.
    pub(super) fn learn(&self, run: u32, began: Origin) {
        if self.told() == Told::default() && began != Origin::Unknown {
            *self.learned() = Some(Learned { run, began });
        }
    }

    /// Says how the process of this run came to be, as it was told or learned of this very run.
    pub(super) fn began(&self, run: u32) -> Option<Origin> {
        let learned = self.learned().filter(|learned| learned.run == run).map(|learned| learned.began);
        self.told().began.or(learned).filter(|began| *began != Origin::Unknown)
    }

    /// Takes in a lifecycle event, in libvirt's numbers.
    pub(super) fn hear(&self, event: c_int, detail: c_int) {
        let (Ok(event), Ok(detail)) = (u32::try_from(event), u32::try_from(detail)) else { return };
        match event {
            sys::VIR_DOMAIN_EVENT_STARTED => {
                *self.learned() = None;
                *self.lock() = Told { began: Some(began(detail)), ..Told::default() };
            }
            // Comes before the end.
            sys::VIR_DOMAIN_EVENT_SHUTDOWN => {
                self.lock().by_signal = detail == sys::VIR_DOMAIN_EVENT_SHUTDOWN_HOST;
            }
            sys::VIR_DOMAIN_EVENT_STOPPED => {
                let learned = self.learned().take().map(|learned| learned.began);
                let mut told = self.lock();
                let ended = match ended(detail, told.began.or(learned)) {
                    OffReason::Shutdown if told.by_signal => OffReason::Died,
                    ended => ended,
                };
                *told = Told { ended: Some(ended), ..Told::default() };
            }
            _ => {}
        }
    }

    fn learned(&self) -> MutexGuard<'_, Option<Learned>> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn began(detail: u32) -> Origin {
    match detail {
        sys::VIR_DOMAIN_EVENT_STARTED_BOOTED => Origin::Booted,
        sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED => Origin::Migrated,
        sys::VIR_DOMAIN_EVENT_STARTED_RESTORED | sys::VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT => {
            Origin::Restored
        }
        _ => Origin::Unknown,
    }
}

/// The way a process ended. libvirt tells of a QEMU that dies as one that failed, and so of one that was given up
/// before its guest had arrived.
fn ended(detail: u32, began: Option<Origin>) -> OffReason {
    let was_here = matches!(began, Some(Origin::Booted | Origin::Restored));
    match detail {
        sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN => OffReason::Shutdown,
        sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED => OffReason::Destroyed,
        sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED => OffReason::Died,
        sys::VIR_DOMAIN_EVENT_STOPPED_FAILED if was_here => OffReason::Died,
        sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED => OffReason::Migrated,
        _ => OffReason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(life: &Life, event: u32, detail: u32) {
        life.hear(event.cast_signed(), detail.cast_signed());
    }

    #[test]
    fn an_end_is_known_until_the_next_start_and_an_origin_until_the_next_end() {
        let life = Life::default();
        assert_eq!(life.told(), Told::default());
        hear(&life, sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED);
        assert_eq!(life.told(), Told { began: Some(Origin::Migrated), ..Told::default() });
        hear(&life, sys::VIR_DOMAIN_EVENT_SUSPENDED, 0);
        hear(&life, sys::VIR_DOMAIN_EVENT_UNDEFINED, 0);
        assert_eq!(life.told().began, Some(Origin::Migrated));
        hear(&life, sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN);
        assert_eq!(life.told(), Told { ended: Some(OffReason::Shutdown), ..Told::default() });
        hear(&life, sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_BOOTED);
        assert_eq!(life.told(), Told { began: Some(Origin::Booted), ..Told::default() });
    }

    /// A `virsh start` was ended before it was through; then a guest arrives.
    #[test]
    fn what_was_seen_of_a_start_that_failed_is_not_said_of_the_next_process() {
        let life = Life::default();
        life.learn(3, Origin::Booted);
        assert_eq!((life.began(3), life.began(4)), (Some(Origin::Booted), None));
        hear(&life, sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED);
        assert_eq!(life.began(4), Some(Origin::Migrated));
        let life = Life::default();
        life.learn(3, Origin::Booted);
        hear(&life, sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_FAILED);
        assert_eq!(life.told().ended, Some(OffReason::Died), "one that ran as this process began");
        assert_eq!(life.began(3), None);
        life.learn(4, Origin::Booted);
        life.forget();
        assert_eq!(life.began(4), None);
    }

    /// A `kill` ends QEMU in order, and libvirt says that it was shut down.
    #[test]
    fn a_qemu_that_was_told_to_end_is_no_guest_that_has_powered_off() {
        for (detail, reason) in [
            (sys::VIR_DOMAIN_EVENT_SHUTDOWN_HOST, OffReason::Died),
            (sys::VIR_DOMAIN_EVENT_SHUTDOWN_GUEST, OffReason::Shutdown),
            (sys::VIR_DOMAIN_EVENT_SHUTDOWN_FINISHED, OffReason::Shutdown),
        ] {
            let life = Life::default();
            hear(&life, sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_BOOTED);
            hear(&life, sys::VIR_DOMAIN_EVENT_SHUTDOWN, detail);
            hear(&life, sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN);
            assert_eq!(life.told().ended, Some(reason), "{detail}");
            hear(&life, sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN);
            assert_eq!(life.told().ended, Some(OffReason::Shutdown), "the next one is another");
        }
    }

    #[test]
    fn what_was_told_before_the_connection_was_lost_counts_no_more() {
        let life = Life::default();
        hear(&life, sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN);
        life.forget();
        assert_eq!(life.told(), Told::default());
    }

    #[test]
    fn what_libvirt_does_not_say_is_not_made_up() {
        let life = Life::default();
        life.hear(-1, -1);
        assert_eq!(life.told(), Told::default());
        hear(&life, sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_FAILED);
        assert_eq!(life.told().ended, Some(OffReason::Unknown));
        hear(&life, sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED);
        hear(&life, sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_FAILED);
        assert_eq!(life.told().ended, Some(OffReason::Unknown), "it may not have arrived");
        hear(&life, sys::VIR_DOMAIN_EVENT_STARTED, sys::VIR_DOMAIN_EVENT_STARTED_BOOTED);
        hear(&life, sys::VIR_DOMAIN_EVENT_STOPPED, sys::VIR_DOMAIN_EVENT_STOPPED_FAILED);
        assert_eq!(life.told().ended, Some(OffReason::Died));
        hear(&life, sys::VIR_DOMAIN_EVENT_STARTED, 99);
        assert_eq!(life.told().began, Some(Origin::Unknown));
    }
}
