//! Tests the thread that ends every copy once the lease is over.

use uuid::Uuid;

use super::*;
use crate::keeper::copies::ProcCopies;
use crate::keeper::copies::tests::Impostor;

/// K of the fastest profile.
const K: Duration = LeaseTimings::FAST.kill();

fn at(millis: u64) -> Moment {
    Moment::from_millis(millis)
}

#[test]
fn the_lease_is_valid_before_its_deadline_and_not_at_it() {
    assert_eq!(enforce(at(99), Some(at(100))), Enforce::Valid { until: at(100) });
    assert_eq!(enforce(at(100), Some(at(100))), Enforce::Kill { overdue: Duration::ZERO });
    assert_eq!(enforce(at(150), Some(at(100))), Enforce::Kill { overdue: Duration::from_millis(50) });
}

#[test]
fn no_deadline_is_not_valid() {
    assert_eq!(enforce(at(100), None), Enforce::Kill { overdue: Duration::from_millis(100) });
    assert_eq!(Enforcement::default().deadline(), None);
}

#[test]
fn every_pause_between_two_rounds_is_well_inside_the_smallest_k() {
    for (overdue, clear) in [(0, false), (0, true), (1_000_000, false), (1_000_000, true)] {
        assert!(pause(Duration::from_secs(overdue), clear) * 2 < K);
    }
}

struct Running {
    enforcement: Arc<Enforcement>,
    uuid: Uuid,
    tell: mpsc::Sender<Vec<VmCopy>>,
    reports: mpsc::Receiver<Report>,
}

impl Running {
    /// The next report on a copy. A round in which some QEMU of this machine is in the middle of an exec says that it could
    /// not look, and the next one looks again.
    fn next(&self) -> Report {
        loop {
            match self.reports.recv().unwrap() {
                Report::CannotLook { .. } => {}
                other => return other,
            }
        }
    }
}

/// The real thread, looking for a VM that is nowhere else.
fn running(deadline: Option<Moment>) -> Running {
    let uuid = Uuid::new_v4();
    let enforcement = Arc::new(Enforcement::with_bell().unwrap());
    enforcement.publish(deadline, K);
    let (tell, told) = mpsc::channel();
    let (say, reports) = mpsc::channel();
    start(Arc::clone(&enforcement), ProcCopies::new(uuid), Lines { told, reports: say }, None).unwrap();
    Running { enforcement, uuid, tell, reports }
}

fn soon(after: Duration) -> Option<Moment> {
    Some(Clock::Boottime.now() + after)
}

#[test]
fn a_copy_is_dead_within_k_of_the_deadline_and_untouched_before() {
    let valid_for = Duration::from_millis(400);
    let running = running(soon(Duration::from_secs(3600)));
    let qemu = Impostor::qemu(running.uuid);
    running.enforcement.publish(soon(valid_for), K);
    let deadline = running.enforcement.deadline().unwrap();
    assert!(qemu.dies_within(valid_for + K));
    assert!(Clock::Boottime.now() >= deadline, "killed while the lease was valid");
    assert_eq!(running.next(), Report::Killed { process: qemu.number() });
    assert_eq!(running.next(), Report::Gone { process: qemu.number() });
    let ended = running.enforcement.ended().unwrap();
    assert!(ended.count == 1 && ended.at >= deadline, "{ended:?}");
}

#[test]
fn a_deadline_taken_back_is_obeyed_at_once() {
    let running = running(soon(Duration::from_secs(3600)));
    let qemu = Impostor::qemu(running.uuid);
    running.enforcement.publish(None, K);
    assert!(qemu.dies_within(K));
}

#[test]
fn a_pause_of_the_host_moves_the_deadline_closer_and_is_obeyed_at_once() {
    let running = running(soon(Duration::from_secs(8)));
    let qemu = Impostor::qemu(running.uuid);
    running.enforcement.paused(Clock::Boottime.now(), Duration::from_secs(3));
    assert!(!qemu.dies_within(Duration::from_millis(200)), "5 s are left");
    running.enforcement.paused(Clock::Boottime.now(), Duration::from_secs(14));
    assert!(qemu.dies_within(K));
    assert_eq!(running.enforcement.pauses().0, Duration::from_secs(17));
}

#[test]
fn a_pause_puts_nothing_in_force_where_nothing_was() {
    let enforcement = Enforcement::default();
    enforcement.paused(Moment::from_millis(90_000), Duration::from_secs(14));
    assert_eq!((enforcement.deadline(), enforcement.fence()), (None, Moment::default()));
}

#[test]
fn copies_started_while_the_lease_is_not_valid_die_too_and_strangers_live() {
    let running = running(None);
    let stranger = Impostor::qemu(Uuid::new_v4());
    for _ in 0..3 {
        let late = Impostor::qemu(running.uuid);
        assert!(late.dies_within(K));
    }
    assert!(stranger.lives());
}

#[test]
fn a_lease_extended_in_time_leaves_the_copy_alone() {
    let running = running(soon(Duration::from_millis(300)));
    let qemu = Impostor::qemu(running.uuid);
    for _ in 0..5 {
        running.enforcement.publish(soon(Duration::from_millis(300)), K);
        assert!(!qemu.dies_within(Duration::from_millis(100)), "killed although the lease was extended");
    }
}

#[test]
fn a_copy_the_thread_was_told_of_dies_though_it_is_found_by_nobody() {
    let running = running(soon(Duration::from_secs(3600)));
    let elsewhere = Uuid::new_v4();
    let qemu = Impostor::qemu(elsewhere);
    running.tell.send(ProcCopies::new(elsewhere).alive().unwrap()).unwrap();
    running.enforcement.publish(None, K);
    assert!(qemu.dies_within(K));
}

#[test]
fn an_all_clear_is_kept_fresh_while_the_lease_is_not_valid() {
    let running = running(None);
    let begun = Clock::Boottime.now();
    let qemu = Impostor::qemu(running.uuid);
    assert!(qemu.dies_within(K));
    assert!(matches!(running.next(), Report::Killed { .. }));
    assert!(matches!(running.next(), Report::Gone { .. }));
    // The report is sent after the moment is kept.
    assert!(running.enforcement.last_clear() >= begun);
}
