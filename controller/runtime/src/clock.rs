//! The one place where a clock is read. Deciding code takes a [`Moment`]; it never asks for one.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A point on a clock that never goes back and counts suspend. Comparable only on the node that took it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct Moment {
    nanos: u64,
}

impl Moment {
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    pub const fn from_millis(millis: u64) -> Self {
        Self { nanos: millis * 1_000_000 }
    }

    pub const fn as_millis(self) -> u64 {
        self.nanos / 1_000_000
    }

    pub const fn as_nanos(self) -> u64 {
        self.nanos
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos.saturating_sub(earlier.nanos))
    }

    /// Time until `later`; zero if it has passed.
    pub fn until(self, later: Self) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self { nanos: self.nanos.saturating_add(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)) }
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self { nanos: self.nanos.saturating_sub(u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX)) }
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.nanos / 1_000_000_000, self.nanos / 1_000_000 % 1_000)
    }
}

/// The clock that a node lives by.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// `CLOCK_BOOTTIME`: the real one.
    Boottime,
    /// tokio's clock since `start`, which the simulator moves; `rate_ppm` is how much faster than true it runs.
    Tokio { start: tokio::time::Instant, rate_ppm: i32 },
    /// The same for a simulated machine, to which more can happen: this thread has its faults under this number.
    Machine { start: tokio::time::Instant, rate_ppm: i32, number: usize },
}

/// The faults in the clocks of a simulated machine.
#[derive(Debug, Clone, Copy, Default)]
struct Odd {
    /// The difference between the wall clock as it was set and as it would be.
    wall: SignedDuration,
    /// The time for which the clock stood still, which no clock that counts suspend does.
    stood: Duration,
}

thread_local! {
    static ODD: RefCell<Vec<Odd>> = const { RefCell::new(Vec::new()) };
}

fn odd(number: usize) -> Odd {
    ODD.with_borrow(|odd| odd.get(number).copied().unwrap_or_default())
}

fn make_odd(number: usize, how: impl FnOnce(&mut Odd)) {
    ODD.with_borrow_mut(|odd| {
        if odd.len() <= number {
            odd.resize(number + 1, Odd::default());
        }
        odd.get_mut(number).map(how);
    });
}

fn virtual_now(start: tokio::time::Instant, rate_ppm: i32) -> Moment {
    let true_nanos = i128::try_from(start.elapsed().as_nanos()).unwrap_or(i128::MAX);
    let nanos = true_nanos + true_nanos * i128::from(rate_ppm) / 1_000_000;
    // An hour in, so that "a while ago" can be said at the start of a simulation.
    Moment::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(3_600_000_000_000))
}

impl Clock {
    pub fn now(&self) -> Moment {
        match self {
            Self::Boottime => {
                let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let secs = u64::try_from(t.tv_sec).unwrap_or_default();
                let nanos = u64::try_from(t.tv_nsec).unwrap_or_default();
                Moment::from_nanos(secs * 1_000_000_000 + nanos)
            }
            Self::Tokio { start, rate_ppm } => virtual_now(*start, *rate_ppm),
            Self::Machine { start, rate_ppm, number } => virtual_now(*start, *rate_ppm) - odd(*number).stood,
        }
    }

    /// Mends the clocks of a simulated machine; other clocks are never odd.
    pub fn mend(&self) {
        if let Self::Machine { number, .. } = self {
            make_odd(*number, |odd| *odd = Odd::default());
        }
    }

    /// Sets the wall clock of a simulated machine, as a person would.
    pub fn step_wall(&self, by: SignedDuration) {
        if let Self::Machine { number, .. } = self {
            make_odd(*number, |odd| odd.wall = odd.wall.saturating_add(by));
        }
    }

    /// Lets the clock of a simulated machine stand still for this long, as no clock of this kind may.
    pub fn stand_still(&self, time: Duration) {
        if let Self::Machine { number, .. } = self {
            make_odd(*number, |odd| odd.stood += time);
        }
    }

    /// Returns once `moment` has come on this clock. It waits on tokio's clock, which does not count suspend: code that
    /// must not be late after a suspend does not wait here.
    pub async fn sleep_until(&self, moment: Moment) {
        loop {
            let left = self.now().until(moment);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(self.true_time(left)).await;
        }
    }

    /// The length of `duration` of this clock on a true one.
    fn true_time(&self, duration: Duration) -> Duration {
        match self {
            Self::Boottime => duration,
            Self::Tokio { rate_ppm, .. } | Self::Machine { rate_ppm, .. } => {
                duration.mul_f64(1e6 / (1e6 + f64::from(*rate_ppm)))
            }
        }
    }

    /// The wall clock, as if it had begun to run at the epoch; never before the epoch.
    fn since_epoch(&self, set_by: SignedDuration) -> Timestamp {
        let since = SignedDuration::try_from(self.now().since(Moment::default())).unwrap_or_default();
        let since = since.saturating_add(set_by).max(SignedDuration::ZERO);
        Timestamp::UNIX_EPOCH.checked_add(since).unwrap_or(Timestamp::MAX)
    }

    /// The wall clock, for display and for numbers that gain by being later ones. It may jump by any amount.
    pub fn wall(&self) -> Timestamp {
        match self {
            Self::Boottime => wall_now(),
            Self::Tokio { .. } => self.since_epoch(SignedDuration::ZERO),
            Self::Machine { number, .. } => self.since_epoch(odd(*number).wall),
        }
    }
}

/// The wall clock, see [`Clock::wall`].
#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
pub fn wall_now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_is_set_moves_nothing_else_and_never_goes_before_the_epoch() {
        let clock = Clock::Machine { start: tokio::time::Instant::now(), rate_ppm: 0, number: 0 };
        let (now, wall) = (clock.now(), clock.wall());
        clock.step_wall(SignedDuration::from_hours(2));
        assert_eq!(clock.wall().duration_since(wall), SignedDuration::from_hours(2));
        clock.step_wall(SignedDuration::from_hours(-9));
        assert_eq!(clock.wall(), Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), now);
        clock.mend();
        assert_eq!(clock.wall(), wall);
    }
}
