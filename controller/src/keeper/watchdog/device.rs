//! A watchdog device of the kernel. It decides nothing: [`super`] decides what is asked of it, and when.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Opcode, Updater, ioctl, opcode};

/// The calls that a driver of the kernel takes. A device that is open is armed.
pub(super) trait Device: fmt::Debug + Send {
    /// Asks for a timeout, and tells the one that is in force then: drivers round, and some have but one.
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<Duration>;

    fn pet(&mut self) -> io::Result<()>;

    /// Ends the watch. An error: the watch goes on, and resets the host unless the device is petted.
    fn stop(&mut self) -> io::Result<Stopped>;
}

/// How surely the watch has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    Surely,
    /// The driver is old: the watch ends when the device is closed next, unless something forbids it that the driver
    /// does not tell.
    OnClose,
}

// Of <linux/watchdog.h>.
const SET_OPTIONS: Opcode = opcode::read::<i32>(b'W', 4);
const SET_TIMEOUT: Opcode = opcode::read_write::<i32>(b'W', 6);
const GET_TIMEOUT: Opcode = opcode::read::<i32>(b'W', 7);
const DISABLE: i32 = 1;

/// `/dev/watchdog` and its like.
#[derive(Debug)]
pub(super) struct KernelWatchdog {
    device: File,
}

impl KernelWatchdog {
    /// Opens the device, which arms it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { device: OpenOptions::new().write(true).open(path)? })
    }

    fn update<const OPCODE: Opcode>(&self, mut value: i32) -> rustix::io::Result<()> {
        #[expect(unsafe_code, reason = "rustix has no wrappers for watchdogs")]
        // SAFETY: both opcodes this is called with take a pointer to an int, which outlives the call.
        unsafe {
            ioctl(&self.device, Updater::<OPCODE, i32>::new(&mut value))
        }
    }

    fn timeout(&self) -> rustix::io::Result<i32> {
        #[expect(unsafe_code, reason = "rustix has no wrappers for watchdogs")]
        // SAFETY: the opcode writes one int, which is what it is given room for.
        unsafe {
            ioctl(&self.device, Getter::<GET_TIMEOUT, i32>::new())
        }
    }
}

impl Device for KernelWatchdog {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<Duration> {
        let seconds = i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX);
        let asked = self.update::<SET_TIMEOUT>(seconds);
        if let Err(error) = asked {
            // Not an error by itself: the one it has may do.
            tracing::debug!(%error, seconds, "the watchdog does not take this timeout");
        }
        let seconds = self.timeout()?;
        match u64::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
            _ => Err(io::Error::other(format!("it says that its timeout is {seconds} s"))),
        }
    }

    fn pet(&mut self) -> io::Result<()> {
        self.device.write_all(b"p")
    }

    fn stop(&mut self) -> io::Result<Stopped> {
        let outcome = match self.update::<SET_OPTIONS>(DISABLE) {
            Ok(()) => Ok(Stopped::Surely),
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => Ok(Stopped::OnClose),
            Err(error) => Err(error.into()),
        };
        // The letter that a driver takes as "closed on purpose".
        self.device.write_all(b"V")?;
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_kernels() {
        assert_eq!((SET_OPTIONS, SET_TIMEOUT, GET_TIMEOUT), (0x8004_5704, 0xc004_5706, 0x8004_5707));
    }

    #[test]
    fn a_file_that_is_no_watchdog_has_no_timeout() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut device = KernelWatchdog::open(file.path()).unwrap();
        assert!(device.set_timeout(Duration::from_secs(4)).is_err());
    }

    #[test]
    fn it_is_disarmed_by_the_letter_drivers_know() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stopped = KernelWatchdog::open(file.path()).unwrap().stop().unwrap();
        assert_eq!(stopped, Stopped::OnClose);
        assert_eq!(std::fs::read(file.path()).unwrap(), b"V");
    }
}
