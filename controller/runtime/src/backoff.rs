//! Says how long to wait before trying again: exponential, with full jitter from a seeded source, so that nodes that
//! failed together do not come back together and a simulation repeats itself. It never waits itself.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// The bounds of a [`Backoff`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffConfig {
    /// The first delay is at most this long.
    pub base: Duration,
    /// Every delay is at most this long.
    pub cap: Duration,
}

impl Default for BackoffConfig {
    /// A retry is quick after a blip. After minutes of outage there is one try in ten seconds or so, since a cluster
    /// that comes back should be noticed soon and a request costs little.
    fn default() -> Self {
        Self { base: Duration::from_millis(200), cap: Duration::from_secs(10) }
    }
}

/// The delays of one thing that is tried again and again.
#[derive(Debug, Clone)]
pub struct Backoff {
    config: BackoffConfig,
    attempt: u32,
    rng: SmallRng,
}

impl Backoff {
    pub fn new(config: BackoffConfig, seed: u64) -> Self {
        Self { config, attempt: 0, rng: SmallRng::seed_from_u64(seed) }
    }

    /// The delay after one more failure: anything up to `base` doubled for each failure before it, at most `cap`.
    pub fn next_delay(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.attempt.min(31)).unwrap_or(u32::MAX);
        let ceiling = self.config.base.saturating_mul(factor).min(self.config.cap);
        self.attempt = self.attempt.saturating_add(1);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.rng.random_range(1..=nanos))
    }

    /// Begins anew, since it worked. The source of jitter goes on.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }

    /// The number of failures since the last [`Backoff::reset`].
    pub fn attempts(&self) -> u32 {
        self.attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: BackoffConfig =
        BackoffConfig { base: Duration::from_millis(100), cap: Duration::from_secs(2) };

    fn delays(seed: u64) -> Vec<Duration> {
        let mut backoff = Backoff::new(CONFIG, seed);
        (0..40).map(|_| backoff.next_delay()).collect()
    }

    #[test]
    fn delays_grow_up_to_the_cap_and_never_beyond() {
        for seed in 0..200 {
            for (attempt, delay) in delays(seed).into_iter().enumerate() {
                let ceiling = CONFIG.base * 2_u32.pow(u32::try_from(attempt.min(10)).unwrap());
                assert!(delay > Duration::ZERO && delay <= ceiling.min(CONFIG.cap));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_delays_and_another_seed_others() {
        assert_eq!(delays(7), delays(7));
        assert_ne!(delays(7), delays(8));
    }

    #[test]
    fn a_success_makes_the_next_delay_short_again() {
        let mut backoff = Backoff::new(CONFIG, 1);
        for _ in 0..20 {
            backoff.next_delay();
        }
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
        assert!(backoff.next_delay() <= CONFIG.base);
    }
}
