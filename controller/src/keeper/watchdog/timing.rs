//! Decides for how long a device may count, and until when it may be petted. Never here: a device, a clock.

use std::time::Duration;

use zsha_crds::records::LeaseTimings;
use zsha_runtime::Moment;

use crate::keeper::enforce::{Enforce, enforce};
use crate::planted::{self, Bug};

/// The pause between two looks. It is well inside the smallest K: an all-clear that comes late in K must still be seen
/// in time.
pub(super) const EVERY: Duration = Duration::from_millis(100);

/// The time from the decision to pet until the driver has it. With it, the reset still comes after the deadline and K:
/// between those and the earliest fence lie 98 ms at least, for all timings that are safe.
pub(super) const SLACK: Duration = Duration::from_millis(50);

/// The longest timeout. No keeper needs longer to be back after its restart, and a host that hangs need not hang
/// longer.
pub(super) const MOST: Duration = Duration::from_secs(10);

/// The time by which a device may fire later than after W seconds. Drivers count in powers of two of a clock that is
/// nearly a kilohertz: Intel's 6300ESB, as QEMU has it, takes 6.1 s for 6.
pub(super) fn late(timeout: Duration) -> Duration {
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
pub(super) fn pet_until(deadline: Moment, kill_within: Duration, fence: Moment, timeout: Duration) -> Moment {
    if planted::is_planted(Bug::PettedPastFence) {
        return deadline + kill_within;
    }
    (deadline + kill_within).min(fence - timeout - late(timeout) - SLACK)
}

/// True if the host deserves to go on.
pub(super) fn pet(
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
pub(super) fn next_look(now: Moment, until: Moment) -> Moment {
    let last = until - Duration::from_millis(10);
    if now < last { last.min(now + EVERY) } else { now + EVERY }
}

pub(super) fn longest_of(timings: [&LeaseTimings; 2]) -> Duration {
    timings.map(longest_timeout).into_iter().min().unwrap_or_default()
}
