//! Tests when the watchdog is petted, and when it no longer is.

use std::sync::Mutex;

use zsha_runtime::{Clock, Moment};

use super::device::Stopped;
use super::petting::*;
use super::timing::*;
use super::*;

const K: Duration = Duration::from_millis(1_000);

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

#[test]
fn it_is_petted_while_the_lease_is_valid_whatever_was_seen_before() {
    assert!(pet(at(5_000), Some(at(5_001)), at(6_001), K, at(0)));
}

#[test]
fn after_the_deadline_it_is_petted_for_k_and_then_only_on_a_fresh_all_clear() {
    assert!(pet(at(5_999), Some(at(5_000)), at(6_000), K, at(0)));
    assert!(!pet(at(6_000), Some(at(5_000)), at(6_000), K, at(0)), "killed K ago and never seen gone");
    assert!(pet(at(90_000), Some(at(5_000)), at(6_000), K, at(89_500)));
    assert!(!pet(at(90_000), Some(at(5_000)), at(6_000), K, at(89_000)), "the thread that kills hangs");
}

#[test]
fn a_keeper_that_never_had_a_lease_is_petted_on_an_all_clear_only() {
    assert!(!pet(at(90_000), None, at(0), K, at(0)));
    assert!(pet(at(90_000), None, at(0), K, at(89_900)));
}

#[test]
fn it_is_not_petted_any_more_once_a_reset_would_come_after_a_fence() {
    // And a device that takes 6.1 s for 6 is in time as well.
    assert_eq!(
        pet_until(at(8_000), K, at(9_800), Duration::from_secs(6)),
        at(3_750) - Duration::from_micros(187_500)
    );
    assert!(
        !pet(at(3_750), Some(at(8_000)), at(3_750), K, at(0)),
        "valid, and too late for a renewal to be sure"
    );
    assert_eq!(
        pet_until(at(8_000), K, at(20_000), Duration::from_secs(2)),
        at(9_000),
        "at K after the deadline"
    );
}

/// Every profile, and all other timings of a grid around them that are safe.
fn all_timings() -> Vec<LeaseTimings> {
    let mut all =
        vec![LeaseTimings::FAST, LeaseTimings::BALANCED, LeaseTimings::PATIENT, LeaseTimings::LONGEST];
    for ttl_millis in [2_000, 6_000, 8_000, 20_000, 60_000] {
        for renew_millis in [200, 500, 1_000, 2_000] {
            for kill_millis in [300, 500, 1_000, 2_000] {
                let least = LeaseTimings { renew_millis, ttl_millis, kill_millis, fence_after_millis: 0 };
                let shortest = ttl_millis + kill_millis + least.margin_millis();
                all.extend(
                    [0, 1_000, 10_000]
                        .map(|more| LeaseTimings { fence_after_millis: shortest + more, ..least }),
                );
            }
        }
    }
    all.retain(LeaseTimings::is_safe);
    all
}

/// Runs one life of a watchdog in virtual time, petted as [`Watch::look`] would, 20 ms late. Returns when it resets the
/// host.
fn resets_at(
    timings: &LeaseTimings,
    timeout: Duration,
    sent: Moment,
    answered: Moment,
    armed: Moment,
) -> Moment {
    let (deadline, fence) = (sent + timings.ttl(), sent + timings.fence_after() * 49 / 50);
    let until = pet_until(deadline, timings.kill(), fence, timeout);
    let (mut now, mut last) = (answered, armed);
    while now < until {
        last = now + Duration::from_millis(20);
        now = next_look(now, until);
    }
    last + timeout
}

#[test]
fn whatever_the_timings_and_the_device_a_reset_comes_after_the_deadline_and_before_others_may_fence() {
    for timings in all_timings() {
        let longest = longest_timeout(&timings);
        assert!(longest <= MOST);
        for secs in 1..=longest.as_secs() {
            let timeout = Duration::from_secs(secs);
            // The last renewal of all, answered as late as a keeper waits for it.
            let sent = at(100_000);
            let answered = sent + timings.request_timeout() * 2;
            let reset = resets_at(&timings, timeout, sent, answered, answered - EVERY);
            let fence = sent + timings.fence_after() * 49 / 50;
            let latest = reset + late(timeout);
            assert!(latest <= fence, "{timings:?}, {secs} s: reset {latest:?}, fence {fence:?}");
            // Where D leaves no room for it, a device that is not late takes some of K from those who kill.
            let dead = sent + timings.ttl() + timings.kill() / 2 - late(Duration::from_secs(1));
            assert!(reset >= dead, "{timings:?}, {secs} s: reset {reset:?}, dead {dead:?}");
        }
    }
}

#[test]
fn in_every_profile_killing_has_the_whole_of_k_before_a_reset() {
    for timings in [LeaseTimings::FAST, LeaseTimings::BALANCED, LeaseTimings::PATIENT] {
        let (sent, answered) = (at(100_000), at(100_000) + timings.request_timeout() * 2);
        let reset = resets_at(&timings, longest_timeout(&timings), sent, answered, answered - EVERY);
        assert!(reset >= sent + timings.ttl() + timings.kill(), "{timings:?}: {reset:?}");
    }
}

#[test]
fn a_keeper_that_renews_late_and_always_is_never_reset() {
    for timings in all_timings() {
        for secs in 1..=longest_timeout(&timings).as_secs() {
            let timeout = Duration::from_secs(secs);
            // Sent R after the one before was sent, answered as late as can be: just then it has been petted last
            // when petting for the one before had to end.
            let sent = at(100_000);
            let reset = resets_at(&timings, timeout, sent, sent + timings.request_timeout() * 2, sent);
            let next =
                sent + timings.renew().max(timings.request_timeout() * 2) + timings.request_timeout() * 2;
            // Later it is not healthy: its copy is dead by then.
            let next = next.min(sent + timings.ttl());
            assert!(reset > next, "{timings:?}, {secs} s: reset {reset:?}, renewed {next:?}");
        }
    }
}

#[test]
fn every_profile_leaves_room_for_a_watchdog() {
    let longest = [LeaseTimings::FAST, LeaseTimings::BALANCED, LeaseTimings::PATIENT]
        .map(|t| longest_timeout(&t).as_secs());
    assert_eq!(longest, [4, 6, 10]);
}

/// The calls that a driver has had.
#[derive(Debug, Default)]
struct Asked {
    opened: u32,
    stopped: u32,
    pets: u32,
    timeouts: Vec<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Driver {
    /// The shortest timeout that it can be set to, in seconds.
    least: u64,
    nowayout: bool,
}

#[derive(Debug)]
struct FakeDevice {
    driver: Driver,
    asked: Arc<Mutex<Asked>>,
}

impl Device for FakeDevice {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<Duration> {
        self.asked.lock().unwrap().timeouts.push(timeout);
        Ok(timeout.max(Duration::from_secs(self.driver.least)))
    }

    fn pet(&mut self) -> io::Result<()> {
        self.asked.lock().unwrap().pets += 1;
        Ok(())
    }

    fn stop(&mut self) -> io::Result<Stopped> {
        if self.driver.nowayout {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.asked.lock().unwrap().stopped += 1;
        Ok(Stopped::Surely)
    }
}

/// An enforcement by the timings `Balanced`, until then.
fn leased(until: Moment) -> Enforcement {
    let enforcement = Enforcement::default();
    enforcement.fenced_from(Some(until + Duration::from_millis(1_800)));
    enforcement.publish(Some(until), K);
    enforcement
}

struct Bench {
    watch: Watch,
    /// The moment of the last look.
    now: Moment,
    asked: Arc<Mutex<Asked>>,
    enforcement: Enforcement,
}

impl Bench {
    /// A watch on a node whose lease was renewed at 100 s, by the timings `Balanced`.
    fn new(driver: Driver) -> Self {
        let asked: Arc<Mutex<Asked>> = Arc::default();
        let opened = Arc::clone(&asked);
        let open = move || {
            opened.lock().unwrap().opened += 1;
            Ok(Box::new(FakeDevice { driver, asked: Arc::clone(&opened) }) as Box<dyn Device>)
        };
        let (watch, _) = Watch::new(Box::new(open), true);
        let enforcement = leased(at(108_000));
        let mut bench = Self { watch, now: at(100_000), asked, enforcement };
        bench.watch.told(Told::Longest(longest_timeout(&LeaseTimings::BALANCED), None));
        bench
    }

    /// The answer to an asker for this timeout, after one more look.
    fn fit(&mut self, longest: Duration) -> Result<(), String> {
        let (reply, mut answer) = oneshot::channel();
        self.watch.told(Told::Longest(longest, Some(reply)));
        self.watch.look(self.now, &self.enforcement);
        answer.try_recv().unwrap()
    }

    /// Renews the lease.
    fn leased_until(&mut self, deadline: u64, fence: u64) {
        self.enforcement.fenced_from(Some(at(fence)));
        self.enforcement.publish(Some(at(deadline)), K);
    }

    /// The number of times it was petted in one look.
    fn pets(&mut self, now: u64) -> u32 {
        let before = self.asked.lock().unwrap().pets;
        self.now = at(now);
        self.watch.look(self.now, &self.enforcement);
        self.asked.lock().unwrap().pets - before
    }

    fn want(&mut self, wanted: bool) -> Result<(), String> {
        let (reply, mut answer) = oneshot::channel();
        self.watch.told(Told::Wanted(wanted, reply));
        self.watch.look(self.now, &self.enforcement);
        answer.try_recv().unwrap()
    }

    fn state(&self) -> WatchdogState {
        self.watch.state.borrow().clone()
    }
}

const DRIVER: Driver = Driver { least: 1, nowayout: false };

#[test]
fn a_device_that_fits_is_armed_and_left_alone_when_the_reset_must_come() {
    let mut bench = Bench::new(DRIVER);
    assert_eq!(bench.pets(100_100), 1);
    assert_eq!(bench.state(), WatchdogState::Petted { timeout_secs: 6 });
    assert_eq!((bench.pets(103_500), bench.pets(103_563)), (1, 0));
    bench.leased_until(112_000, 113_800);
    assert_eq!(bench.pets(104_000), 1, "renewed");
}

#[test]
fn a_keeper_started_anew_opens_the_device_only_when_it_may_pet_it() {
    let mut bench = Bench::new(DRIVER);
    // Its predecessor no longer petted it, and a copy may be alive that nobody can kill.
    for late in [103_563, 107_000, 108_500, 120_000] {
        bench.pets(late);
        assert_eq!(bench.asked.lock().unwrap().opened, 0, "at {late}");
    }
    bench.enforcement.seen_clear(at(120_050));
    assert_eq!(bench.pets(120_100), 1, "no copy is alive");
    let mut renewed = Bench::new(DRIVER);
    renewed.pets(103_563);
    renewed.leased_until(112_000, 113_800);
    assert_eq!((renewed.pets(104_000), renewed.asked.lock().unwrap().opened), (1, 1), "renewed");
}

#[test]
fn before_the_timings_are_known_it_is_petted_no_longer_than_any_device_may_be() {
    let mut bench = Bench::new(DRIVER);
    bench.watch.longest = None;
    // With ten seconds and what it may be late, it has to come before 109.8 s.
    assert_eq!((bench.pets(99_400), bench.pets(99_500)), (1, 0));
    assert!(matches!(bench.state(), WatchdogState::Refused { .. }), "it is not relied on yet");
    bench.fit(longest_timeout(&LeaseTimings::BALANCED)).unwrap();
    assert_eq!(bench.pets(99_600), 1);
    assert_eq!(bench.state(), WatchdogState::Petted { timeout_secs: 6 });
}

#[test]
fn a_device_whose_timeout_does_not_fit_is_disarmed_and_said_to_be_none() {
    let mut bench = Bench::new(Driver { least: 60, ..DRIVER });
    assert_eq!(bench.pets(100_100), 0);
    let state = bench.state();
    let WatchdogState::Refused { reason } = &state else { panic!("{state:?}") };
    assert!(reason.contains("60 s") && reason.contains("room for 6 s"), "{reason}");
    assert_eq!(bench.asked.lock().unwrap().stopped, 1);
}

#[test]
fn timings_that_leave_less_room_shorten_the_timeout_or_give_the_device_up() {
    let mut bench = Bench::new(Driver { least: 5, ..DRIVER });
    bench.pets(100_100);
    assert_eq!(bench.state(), WatchdogState::Petted { timeout_secs: 6 });
    bench.fit(Duration::from_secs(5)).unwrap();
    assert_eq!(bench.state(), WatchdogState::Petted { timeout_secs: 5 });
    bench.fit(longest_timeout(&LeaseTimings::FAST)).unwrap();
    assert!(matches!(bench.state(), WatchdogState::Refused { .. }));
    bench.leased_until(125_000, 130_000);
    bench.fit(longest_timeout(&LeaseTimings::PATIENT)).unwrap();
    assert_eq!(bench.state(), WatchdogState::Petted { timeout_secs: 10 });
}

#[test]
fn new_timings_neither_pet_nor_disarm_a_device_that_is_about_to_reset_the_host() {
    let fast = longest_timeout(&LeaseTimings::FAST);
    for least in [1, 5] {
        let mut bench = Bench::new(Driver { least, ..DRIVER });
        bench.pets(100_100);
        // The deadline has passed, and a copy was killed and is not gone.
        assert_eq!(bench.pets(109_500), 0);
        bench.fit(fast).unwrap_err();
        let asked = bench.asked.lock().unwrap();
        assert_eq!((asked.timeouts.as_slice(), asked.stopped), (&[Duration::from_secs(6)][..], 0));
        drop(asked);
        assert_eq!(bench.state(), WatchdogState::Petted { timeout_secs: 6 });
        bench.leased_until(117_000, 118_800);
        bench.fit(fast).unwrap();
        assert_ne!(bench.state(), WatchdogState::Petted { timeout_secs: 6 }, "renewed");
    }
}

#[test]
fn a_shorter_timeout_is_set_as_long_as_there_is_room_for_it() {
    let mut bench = Bench::new(DRIVER);
    // Too late to pet it for six seconds more, and not for four.
    assert_eq!((bench.pets(100_100), bench.pets(104_000)), (1, 0));
    bench.fit(longest_timeout(&LeaseTimings::FAST)).unwrap();
    assert_eq!(bench.state(), WatchdogState::Petted { timeout_secs: 4 });
}

#[test]
fn turned_off_when_it_is_about_to_reset_the_host_it_goes_on() {
    let mut bench = Bench::new(DRIVER);
    assert_eq!((bench.pets(100_100), bench.pets(109_500)), (1, 0));
    bench.want(false).unwrap_err();
    assert_eq!(bench.state(), WatchdogState::Petted { timeout_secs: 6 });
    assert_eq!((bench.pets(110_000), bench.asked.lock().unwrap().stopped), (0, 0));
    bench.enforcement.seen_clear(at(110_050));
    bench.pets(110_100);
    assert_eq!(
        (bench.state(), bench.asked.lock().unwrap().stopped),
        (WatchdogState::Off, 1),
        "no copy is alive"
    );
}

#[test]
fn turned_off_it_is_disarmed_and_turned_on_it_is_armed_again() {
    let mut bench = Bench::new(DRIVER);
    assert_eq!(bench.pets(100_100), 1);
    bench.want(false).unwrap();
    assert_eq!(bench.state(), WatchdogState::Off);
    assert_eq!((bench.pets(100_200), bench.asked.lock().unwrap().stopped), (0, 1));
    bench.want(true).unwrap();
    assert_eq!(bench.pets(100_300), 1);
    assert_eq!(
        (bench.state(), bench.asked.lock().unwrap().opened),
        (WatchdogState::Petted { timeout_secs: 6 }, 2)
    );
}

#[test]
fn one_that_cannot_be_stopped_is_petted_whatever_happens_and_never_relied_on() {
    let mut bench = Bench::new(Driver { nowayout: true, ..DRIVER });
    bench.pets(100_100);
    bench.want(false).unwrap();
    assert_eq!(bench.state(), WatchdogState::Off);
    assert_eq!(bench.pets(999_999), 1);
    let mut too_long = Bench::new(Driver { nowayout: true, least: 60 });
    too_long.pets(100_100);
    assert_eq!(too_long.pets(999_999), 1);
    assert!(matches!(too_long.state(), WatchdogState::Refused { .. }));
}

#[test]
fn once_the_keeper_leaves_it_is_stopped_and_not_petted_again() {
    let mut bench = Bench::new(DRIVER);
    bench.pets(100_100);
    let (say, hear) = mpsc::channel();
    bench.watch.told(Told::Leave(say));
    hear.recv().unwrap().unwrap();
    assert_eq!((bench.pets(100_200), bench.asked.lock().unwrap().opened), (0, 1));
}

#[test]
fn a_device_that_cannot_be_opened_is_tried_again_and_meanwhile_none() {
    let (mut watch, state) = Watch::new(Box::new(|| Err(io::ErrorKind::ResourceBusy.into())), true);
    let enforcement = leased(at(108_000));
    watch.told(Told::Longest(Duration::from_secs(4), None));
    watch.look(at(100_000), &enforcement);
    let refused = state.borrow().clone();
    assert!(
        matches!(&refused, WatchdogState::Refused { reason } if reason.contains("cannot be opened")),
        "{refused:?}"
    );
    let found = DRIVER;
    let asked: Arc<Mutex<Asked>> = Arc::default();
    watch.open = Box::new(move || Ok(Box::new(FakeDevice { driver: found, asked: Arc::clone(&asked) }) as _));
    watch.look(at(101_000), &enforcement);
    assert_eq!(*state.borrow(), refused);
    watch.look(at(100_000) + OPEN_AGAIN, &enforcement);
    assert_eq!(*state.borrow(), WatchdogState::Petted { timeout_secs: 4 });
}

#[tokio::test]
async fn the_line_turns_it_off_and_on_and_hears_when_it_is_so() {
    let asked: Arc<Mutex<Asked>> = Arc::default();
    let opened = Arc::clone(&asked);
    let open = move || {
        opened.lock().unwrap().opened += 1;
        Ok(Box::new(FakeDevice { driver: DRIVER, asked: Arc::clone(&opened) }) as Box<dyn Device>)
    };
    let root = tempfile::tempdir().unwrap();
    let wish = Wish::in_directory(root.path());
    let enforcement = Arc::new(leased(Clock::Boottime.now() + Duration::from_secs(3_600)));
    let mut watchdog =
        Watchdog::start_with(Box::new(open.clone()), wish.clone(), Arc::clone(&enforcement)).unwrap();
    watchdog.fit([&LeaseTimings::FAST, &LeaseTimings::PATIENT]);
    watchdog.state.wait_for(|state| *state == WatchdogState::Petted { timeout_secs: 4 }).await.unwrap();
    watchdog.want(false).await.unwrap();
    assert_eq!((watchdog.state(), asked.lock().unwrap().stopped), (WatchdogState::Off, 1));
    let mut anew = Watchdog::start_with(Box::new(open), wish, enforcement).unwrap();
    anew.fit([&LeaseTimings::FAST, &LeaseTimings::FAST]);
    // It has looked by the time that it answers.
    anew.want(false).await.unwrap();
    assert_eq!((anew.state(), asked.lock().unwrap().opened), (WatchdogState::Off, 1), "it stays off");
    watchdog.want(true).await.unwrap();
    watchdog.state.wait_for(|state| *state == WatchdogState::Petted { timeout_secs: 4 }).await.unwrap();
    watchdog.disarm().unwrap();
    assert_eq!(asked.lock().unwrap().stopped, 2);
    Watchdog::none().want(false).await.unwrap();
}
