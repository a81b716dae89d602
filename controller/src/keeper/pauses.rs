//! Sees a pause of the whole host from outside that its own clock does not count, by a second clock that does.
//!
//! The second clock is the processor's counter (TSC), where the kernel holds it to be sound and goes by another clock:
//! a KVM guest that lives by kvm-clock. QEMU sets that one back when it lets a guest go on after `stop` or `virsh
//! suspend`, and lets the counter run. The counter is never set: the wall clock and the battery-backed one are set by
//! administrators, by NTP and by the kernel itself, and a clock that was set must not end a VM that is well. The
//! counter does not show that a guest was saved and restored or moved to another host, since its counter is put back as
//! well.
//!
//! It is cheap enough for the thread that kills: one instruction for each look.

use std::fs;
use std::io;
use std::time::Duration;

use zsha_runtime::Moment;

use crate::outer::Outer;

/// The pause between two looks while the lease is valid. It adds to the time that a host executes after it woke.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// The time over which the counter's rate is taken.
const WINDOW: Duration = Duration::from_secs(1);

/// A difference up to this is none, since reading the two clocks is not one act.
const BLUR: Duration = Duration::from_millis(50);

/// Both clocks as last read, and how fast the one counts by the other. It is a value and reads no clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SecondClock {
    last: Option<(Moment, u64)>,
    /// The beginning of the window over which the rate is being taken.
    window: Option<(Moment, u64)>,
    /// The rate of the window before, in counts a millisecond.
    before: Option<u64>,
    /// The rate that two windows in a row agreed on: a pause in one of them would not be in the other.
    rate: Option<u64>,
}

impl SecondClock {
    /// Takes in both clocks as they stand now. Returns for how long the first did not count what the second did, if at
    /// all.
    pub fn see(&mut self, now: Moment, count: u64) -> Option<Duration> {
        let Some((then, counted)) = self.last.replace((now, count)) else {
            self.window = Some((now, count));
            return None;
        };
        let Some(counts) = count.checked_sub(counted) else {
            // It was put back, with the whole machine perhaps: nothing that was known of it holds.
            *self = Self { last: self.last, window: self.last, ..Self::default() };
            return None;
        };
        let passed = now.since(then);
        let missed = self.rate.and_then(|rate| missed(passed, counts, rate));
        if missed.is_some() {
            self.window = self.last;
        } else {
            self.calibrate(now, count);
        }
        missed
    }

    fn calibrate(&mut self, now: Moment, count: u64) {
        let Some((began, counted)) = self.window else { return };
        let passed = now.since(began);
        if passed < WINDOW {
            return;
        }
        let rate = u128::from(count.saturating_sub(counted)) * 1_000_000 / passed.as_nanos();
        let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
        if self.before.is_some_and(|before| before.abs_diff(rate) <= before / 100) {
            self.rate = Some(rate);
        }
        self.before = Some(rate);
        self.window = Some((now, count));
    }
}

/// The difference beyond 3 % and the blur: the clocks run at one rate within 1 %, and one of them may be slewed.
fn missed(passed: Duration, counts: u64, rate: u64) -> Option<Duration> {
    let nanos = u128::from(counts) * 1_000_000 / u128::from(rate);
    let by_counter = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    by_counter.checked_sub(passed).filter(|more| *more > BLUR + passed / 32)
}

/// Says whether this host has a second clock that is worth reading; if not, says why, for people.
pub(super) fn available(outer: &Outer) -> Result<(), String> {
    let read =
        |name: &str| fs::read_to_string(format!("/sys/devices/system/clocksource/clocksource0/{name}"));
    judge(outer, &read("current_clocksource"), &read("available_clocksource"))
}

fn judge(outer: &Outer, current: &io::Result<String>, usable: &io::Result<String>) -> Result<(), String> {
    if !outer.may_be_paused() {
        return Err("nothing outside can stop this host".to_owned());
    }
    if !cfg!(target_arch = "x86_64") {
        return Err("this processor has no counter that is known to go on".to_owned());
    }
    let (Ok(current), Ok(usable)) = (current, usable) else {
        return Err("the kernel does not say which clocks it has".to_owned());
    };
    if current.trim() == "tsc" {
        return Err("the kernel's own clock is the processor's counter already".to_owned());
    }
    // The kernel takes it off this list when it finds that the processors disagree, or that it stops.
    match usable.split_whitespace().any(|clock| clock == "tsc") {
        true => Ok(()),
        false => Err("the kernel holds the processor's counter to be unsound".to_owned()),
    }
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the instruction has no safe form")]
pub(super) fn count() -> u64 {
    // SAFETY: every x86-64 processor has it, and it only reads a register.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn count() -> u64 {
    0
}

#[cfg(test)]
mod tests;
