//! Tests the second clock by values, and whether there is one.

use super::*;

/// The counts in a millisecond.
const RATE: u64 = 2_400_000;

/// Two clocks, read every 100 ms.
struct Clocks {
    second: SecondClock,
    millis: u64,
    count: u64,
}

impl Clocks {
    /// The clocks once the rate is known.
    fn settled() -> Self {
        let mut clocks = Self { second: SecondClock::default(), millis: 5_000, count: 7 };
        assert_eq!(clocks.run(30, 100, 100), Duration::ZERO);
        assert!(clocks.second.rate.is_some());
        clocks
    }

    /// Looks so many times. Between two looks so much passes by the one clock and by the other.
    fn run(&mut self, looks: u32, millis: u64, by_counter: u64) -> Duration {
        (0..looks).filter_map(|_| self.look(millis, by_counter)).sum()
    }

    fn look(&mut self, millis: u64, by_counter: u64) -> Option<Duration> {
        self.millis += millis;
        self.count += by_counter * RATE;
        self.second.see(Moment::from_millis(self.millis), self.count)
    }
}

#[test]
fn a_pause_that_only_the_counter_counts_is_seen_at_the_next_look_and_once() {
    let mut clocks = Clocks::settled();
    assert_eq!(clocks.look(100, 14_100), Some(Duration::from_secs(14)));
    assert_eq!(clocks.run(100, 100, 100), Duration::ZERO);
    assert_eq!(clocks.look(100, 400), Some(Duration::from_millis(300)));
}

#[test]
fn a_suspend_that_both_count_a_busy_processor_and_drift_are_no_pause() {
    let mut clocks = Clocks::settled();
    assert_eq!(clocks.look(3_600_000, 3_600_000), None);
    assert_eq!(clocks.look(4_000, 4_080), None, "2 % apart");
    assert_eq!(clocks.look(100, 150), None, "not read in one act");
    assert_eq!(clocks.look(10_000, 100), None, "a counter that stops while the clock goes on");
}

#[test]
fn a_counter_that_was_put_back_is_learned_anew_and_accuses_nobody() {
    let mut clocks = Clocks::settled();
    clocks.count = 0;
    assert_eq!(clocks.look(100, 50), None);
    assert_eq!(clocks.second.rate, None);
    // Faster than before, on another host.
    assert_eq!(clocks.run(40, 100, 150), Duration::ZERO);
    assert_eq!(clocks.look(100, 6_150), Some(Duration::from_secs(4)));
}

#[test]
fn a_pause_while_the_rate_is_being_learned_is_not_taken_for_the_rate() {
    let mut clocks = Clocks { second: SecondClock::default(), millis: 5_000, count: 7 };
    assert_eq!(clocks.run(5, 100, 100), Duration::ZERO);
    assert_eq!(clocks.look(100, 9_100), None, "nothing is known yet");
    assert_eq!(clocks.run(40, 100, 100), Duration::ZERO);
    assert_eq!(clocks.look(100, 5_100), Some(Duration::from_secs(5)));
}

#[test]
fn there_is_a_second_clock_only_in_a_virtual_machine_whose_kernel_trusts_the_counter_and_does_not_use_it() {
    let guest = Outer::Virtual { by: "QEMU".to_owned() };
    let judged = |outer: &Outer, current: &str, usable: &str| {
        judge(outer, &Ok(format!("{current}\n")), &Ok(format!("{usable} \n"))).is_ok()
    };
    assert!(judged(&guest, "kvm-clock", "kvm-clock tsc acpi_pm"));
    assert!(!judged(&guest, "kvm-clock", "kvm-clock acpi_pm"));
    assert!(!judged(&guest, "tsc", "tsc kvm-clock"));
    assert!(!judged(&Outer::Real, "hpet", "hpet tsc"));
    let denied = || Err(io::Error::from(io::ErrorKind::NotFound));
    assert!(judge(&guest, &denied(), &denied()).is_err());
}
