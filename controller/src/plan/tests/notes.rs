//! Tests what is noted of the outcome of steps, and what a write that lost its cas costs.

use super::*;
use crate::plan::notes::StartFault;

/// Each of these plans a write whose success is remembered.
fn writes() -> Vec<(&'static str, World, Notes)> {
    let mut failed = world(1, None, VmPhase::Failed, LocalVm::Absent);
    for number in 1..=3 {
        let failures = StartFailures { count: 2, reason: "no".to_owned() };
        vm(&mut failed).record.failures.insert(node(number), failures);
    }
    let seen = Seen { failed_since: Some(NOW - Duration::from_secs(3_600)), ..Seen::default() };
    let forgives = Notes { seen, ..Notes::default() };

    let restarted = world(1, Some(1), VmPhase::Starting, DIED);
    let asks = Notes { seen: Seen { ask_others: true, ..Seen::default() }, ..Notes::default() };

    let mut stopped = world(1, Some(1), VmPhase::Running, LocalVm::Off { reason: OffReason::Shutdown });
    let stop = crate::intents::Stop { at: Timestamp::UNIX_EPOCH, limit: None };
    stopped.intents = Observed::Known(Intents { stop: Some(stop), ..Intents::default() });
    let tried = Tried { shutdown_asked: Some((NOW, NOW)), ..Tried::default() };
    let seen = Seen { stopping: Some(Timestamp::UNIX_EPOCH), ..Seen::default() };
    let stops = Notes { seen, tried, ..Notes::default() };

    let mut moves = world(1, Some(1), VmPhase::Running, RUNNING);
    change(&mut moves, |desired| desired.order = vec![node(2), node(3)]);
    let preferred = Some((node(2), NOW - Duration::from_secs(60)));
    let mut fit = Notes::default();
    fit.seen.migration.preferred = preferred;
    vec![
        ("FirstStart", failed, forgives),
        ("QemuDied", restarted, asks),
        ("Stopped", stopped, stops),
        ("MigrationBegun", moves, fit),
    ]
}

#[test]
fn a_write_that_lost_its_cas_costs_its_retry_and_nothing_else() {
    for (reason, world, mut notes) in writes() {
        let first = plan(&world, &mut notes);
        assert_eq!(only_write(&first).reason.as_str(), reason);
        let tried = notes.tried.clone();
        for _ in 0..3 {
            assert_eq!(plan(&world, &mut notes).steps, first.steps, "{reason}: at once, and the same");
            assert_eq!(notes.tried, tried, "{reason}");
        }
    }
}

#[test]
fn what_a_write_has_spent_is_spent_once_it_is_in_force() {
    let after = |which: usize, landed: Landed| {
        let (_, world, mut notes) = writes().swap_remove(which);
        let planned = plan(&world, &mut notes);
        notes.wrote(only_write(&planned), landed, NOW);
        notes
    };
    assert_eq!(after(0, Landed::Surely).tried.failed_rounds, 1);
    assert_eq!(after(0, Landed::Perhaps).tried.failed_rounds, 0);
    assert!(!after(1, Landed::Surely).seen.ask_others);
    assert!(after(1, Landed::Perhaps).seen.ask_others, "nobody may have been asked");
    assert_eq!(after(2, Landed::Surely).tried.shutdown_asked, None);
    let mut stopped = after(2, Landed::Perhaps);
    assert!(stopped.tried.shutdown_asked.is_some());
    plan(&world(1, None, VmPhase::Stopped, LocalVm::Absent), &mut stopped);
    assert_eq!(stopped.tried.shutdown_asked, None, "it has landed");
    // One that lands late is of this process too.
    for landed in [Landed::Surely, Landed::Perhaps] {
        assert!(after(3, landed).tried.begun.is_some(), "{landed:?}");
    }
}

#[test]
fn a_stop_that_was_taken_back_before_it_was_written_down_keeps_no_guest_off() {
    let (_, mut world, mut notes) = writes().swap_remove(2);
    change(&mut world, |desired| desired.power_off = GuestPowerOff::StayOff);
    plan(&world, &mut notes);
    world.intents = Observed::Known(Intents::default());
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "GuestPoweredOff");
}

#[test]
fn a_try_that_failed_says_when_the_next_one_is() {
    let after = |fault: StartFault| {
        let mut notes = Notes::default();
        notes.start_failed(fault, NOW);
        (notes.tried.retry_at.map(|at| NOW.until(at).as_secs()), notes.tried.failed, notes.tried.blocked)
    };
    let no = || "no such bridge".to_owned();
    assert_eq!(after(StartFault::Refused(no())), (Some(1), Some(no()), None));
    assert_eq!(after(StartFault::NotAnswered(no())), (Some(1), None, Some(no())));
    let (at, failed, blocked) = after(StartFault::ImageLocked(no()));
    assert_eq!((at, failed), (Some(2), None));
    assert!(blocked.unwrap().contains("locked by another"));
}

#[test]
fn of_many_starts_only_the_last_are_remembered() {
    let mut notes = Notes::default();
    for secs in 0..100 {
        notes.started(NOW + Duration::from_secs(secs));
    }
    assert_eq!(notes.tried.starts.len(), 32);
    assert_eq!(notes.tried.starts.last(), Some(&(NOW + Duration::from_secs(99))));
}

#[test]
fn what_holds_the_vm_back_for_a_while_does_not_make_a_failed_start_wait_anew() {
    let (_, mut world, mut notes) = writes().swap_remove(0);
    let since = notes.seen.failed_since;
    let stop = crate::intents::Stop { at: Timestamp::UNIX_EPOCH, limit: None };
    world.intents = Observed::Known(Intents { stop: Some(stop), ..Intents::default() });
    plan(&world, &mut notes);
    assert_eq!(notes.seen.failed_since, since);
    let taken = super::world(1, Some(2), VmPhase::Starting, LocalVm::Absent);
    plan(&taken, &mut notes);
    assert_eq!(notes.seen.failed_since, None, "it is tried again");
}
