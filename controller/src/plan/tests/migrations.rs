//! Tests a live migration, moment by moment: what the source does, and what the target.

use zsha_crds::records::Answer;

use super::*;
use crate::hypervisor::MigrationJob::{Done, Failed, Going};

/// The migration that the record tells of (see `moving`), and one that it does not.
const THIS: Uuid = Uuid::from_u128(9);
const OTHER: Uuid = Uuid::from_u128(8);

fn failed(id: Uuid) -> MigrationJob {
    Failed { id, reason: "connection reset".to_owned() }
}

/// The notes of a source that has begun the migration just now.
fn begun() -> Notes {
    let mut notes = Notes::default();
    notes.tried.begun = Some((THIS, NOW));
    notes
}

fn under_way() -> World {
    let mut world = moving(1, 1, 3, RUNNING);
    world.job = Going { id: THIS, percent: None };
    world
}

/// Why a migration that is under way is ended, if it is.
fn ended(world: &World) -> Option<String> {
    match plan(world, &mut begun()).steps.as_slice() {
        [] => None,
        [Step::AbortMigration { id: THIS, because }] => Some(because.clone()),
        steps => panic!("{steps:?}"),
    }
}

#[test]
fn a_copy_that_is_gone_was_moved_only_by_the_end_of_this_very_migration() {
    let reason = |job| {
        let mut world = moving(1, 1, 3, DIED);
        world.job = job;
        only_write(&decide(&world)).reason.as_str()
    };
    assert_eq!(reason(Done { id: THIS }), "HandedOver");
    for job in [Done { id: OTHER }, failed(THIS), Going { id: THIS, percent: None }, MigrationJob::None] {
        assert_eq!(reason(job.clone()), "MigrationFailed", "{job:?}");
    }
}

#[test]
fn what_became_of_another_migration_says_nothing_of_this_one() {
    for job in [Done { id: OTHER }, failed(OTHER), Going { id: OTHER, percent: Some(7) }] {
        let mut world = moving(1, 1, 3, RUNNING);
        world.job = job.clone();
        let plan = plan(&world, &mut begun());
        assert!(matches!(plan.steps.as_slice(), [Step::Migrate(order)] if order.id == THIS), "{job:?}");
    }
}

#[test]
fn a_copy_that_is_about_to_go_or_to_come_is_looked_at_again_soon() {
    let stands = LocalVm::Paused { reason: PauseReason::Other, generation: 1 };
    let mut leaves = moving(1, 1, 3, RUNNING);
    leaves.job = Done { id: THIS };
    let mut aborted = Notes::default();
    aborted.tried.aborted = Some((THIS, NOW));
    for (world, mut notes) in [
        (leaves, Notes::default()),
        (moving(1, 1, 3, stands), aborted),
        (moving(3, 3, 3, stands), Notes::default()),
    ] {
        let waits = plan(&world, &mut notes);
        assert_eq!(
            (waits.steps.as_slice(), waits.recheck),
            (&[][..], Some(NOW + Duration::from_millis(200)))
        );
    }
}

#[test]
fn what_has_gone_of_one_arrival_gives_the_next_its_time() {
    let mut notes = Notes::default();
    plan(&moving(3, 3, 3, LocalVm::Crashed), &mut notes);
    assert!(notes.seen.migration.arriving.is_some());
    assert_eq!(only_write(&plan(&moving(3, 3, 3, DIED), &mut notes)).reason.as_str(), "MigrationLost");
    assert_eq!(notes.seen.migration.arriving, None);
    plan(&moving(3, 3, 3, LocalVm::Crashed), &mut notes);
    plan(&moving(3, 3, 3, RUNNING), &mut notes);
    assert_eq!(notes.seen.migration.arriving, None, "it runs, though that could not be written down");
}

/// QEMU at the source hangs as it ends, on a share that is sick.
#[test]
fn what_is_left_at_the_source_does_not_take_the_guest_from_the_target() {
    let stands = LocalVm::Paused { reason: PauseReason::Other, generation: 1 };
    for local in [LocalVm::Unmanaged, LocalVm::Crashed, stands] {
        let mut world = moving(1, 1, 3, local);
        world.job = Done { id: THIS };
        let mut notes = begun();
        assert!(plan(&world, &mut notes).steps.is_empty());
        renewed_at(&mut world, NOW + Duration::from_secs(10));
        let plan = plan(&world, &mut notes);
        assert!(matches!(plan.steps.as_slice(), [Step::KillCopy { .. }]), "{local:?}: {plan:?}");
    }
    let mut world = moving(1, 1, 3, RUNNING);
    world.job = Done { id: THIS };
    let mut notes = begun();
    plan(&world, &mut notes);
    renewed_at(&mut world, NOW + Duration::from_secs(10));
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "MigrationFailed", "it executes here");
}

#[test]
fn nothing_goes_to_a_target_that_does_not_hold_the_very_lease_it_was_named_by() {
    let ttl = LeaseTimings::BALANCED.ttl();
    let moment = Duration::from_millis(1);
    type Change = fn(&mut Sight);
    let lost: [(&str, Change); 4] = [
        ("another life", |s| s.record.epoch = 2),
        ("fenced", |s| s.record.state = LeaseState::Fenced),
        ("released", |s| s.record.state = LeaseState::Released),
        ("gone", |s| s.record.state = LeaseState::Lost),
    ];
    let reason = |world: &World| only_write(&decide(world)).reason.as_str();
    let mut gone = moving(1, 1, 3, MOVED_AWAY);
    gone.sights.get_mut(&node(3)).unwrap().sent_by = NOW - ttl + moment;
    count(&mut gone.sights.get_mut(&node(3)).unwrap().record).copies = Some(1);
    assert_eq!(reason(&gone), "HandedOver", "silent, and not for long enough");
    for (what, change) in lost {
        let mut gone = moving(1, 1, 3, MOVED_AWAY);
        change(gone.sights.get_mut(&node(3)).unwrap());
        assert_eq!(reason(&gone), "MigrationFailed", "{what}");
        let mut world = under_way();
        change(world.sights.get_mut(&node(3)).unwrap());
        assert!(ended(&world).is_some_and(|why| why.contains("n3 does not hold its lease")), "{what}");
        world.job = MigrationJob::None;
        assert!(ended(&world).is_some(), "not begun at all: {what}");
    }
}

#[test]
fn a_migration_under_way_is_ended_by_a_stop_and_when_it_takes_too_long() {
    let mut world = under_way();
    assert_eq!(ended(&world), None);
    renewed_at(&mut world, NOW + Duration::from_millis(899_999));
    assert_eq!(ended(&world), None);
    renewed_at(&mut world, NOW + Duration::from_secs(900));
    assert!(ended(&world).unwrap().contains("after 900 s"));
    let mut world = under_way();
    let Observed::Known(intents) = &mut world.intents else { panic!("no intents") };
    intents.stop = Some(crate::intents::Stop { at: Timestamp::UNIX_EPOCH, limit: None });
    assert_eq!(ended(&world).unwrap(), "the VM is to stop");
}

/// It would stay paused there, and the target's keeper renews its lease all the while.
#[test]
fn a_migration_under_way_is_ended_where_nobody_would_let_the_guest_go_on() {
    let mut world = under_way();
    world.sights.get_mut(&node(3)).unwrap().record.controller_alive = false;
    let mut notes = begun();
    // Of an earlier migration.
    notes.seen.migration.uncontrolled = Some((OTHER, NOW - Duration::from_secs(60)));
    let mut after = |world: &mut World, millis| {
        renewed_at(world, NOW + Duration::from_millis(millis));
        plan(world, &mut notes).steps
    };
    assert_eq!(after(&mut world, 0), []);
    assert_eq!(after(&mut world, 5_999), [], "its keeper may have been started anew");
    let ended = after(&mut world, 6_000);
    assert!(
        matches!(&ended[..], [Step::AbortMigration { because, .. }] if because.contains("the controller of n3"))
    );
    world.job = Done { id: THIS };
    world.local = Observed::Known(LocalVm::Off { reason: OffReason::Migrated });
    assert_eq!(only_write(&plan(&world, &mut begun())).reason.as_str(), "HandedOver", "it is there, whole");
}

#[test]
fn what_moves_by_itself_is_tried_again_ever_more_slowly_when_it_fails() {
    let mut leaving = world(1, Some(1), VmPhase::Running, RUNNING);
    change(&mut leaving, |desired| desired.order = vec![node(2), node(3)]);
    let mut broken = moving(1, 1, 3, RUNNING);
    broken.job = failed(THIS);
    let mut notes = Notes::default();
    let pauses = [(); 8].map(|()| {
        assert_eq!(only_write(&pass(&broken, &mut notes)).reason.as_str(), "MigrationFailed");
        let waits = pass(&leaving, &mut notes);
        assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["MigrationWaits"]));
        NOW.until(waits.recheck.unwrap()).as_secs()
    });
    assert_eq!(pauses, [30, 60, 120, 240, 480, 960, 1_800, 1_800]);
}

#[test]
fn the_others_are_asked_before_the_next_start_whether_or_not_a_migration_took_the_copy() {
    for local in [DIED, RUNNING] {
        let mut broken = moving(1, 1, 3, local);
        broken.job = failed(THIS);
        let mut notes = Notes::default();
        assert_eq!(only_write(&plan(&broken, &mut notes)).reason.as_str(), "MigrationFailed");
        let start = plan(&world(1, Some(1), VmPhase::Running, DIED), &mut notes);
        let rests_on: Vec<_> =
            only_write(&start).rests_on.iter().map(|sight| sight.record.node.clone()).collect();
        assert_eq!(rests_on, [node(2), node(3)], "{local:?}");
    }
}

#[test]
fn what_has_arrived_is_let_run_again_when_the_pause_after_a_try_is_over() {
    let world = moving(3, 3, 3, ARRIVED);
    let later = NOW + Duration::from_millis(1);
    let waits = plan(
        &world,
        &mut Notes { tried: Tried { retry_at: Some(later), ..Tried::default() }, ..Notes::default() },
    );
    assert_eq!((waits.steps.as_slice(), waits.recheck), (&[][..], Some(later)));
    let resumed = plan(
        &world,
        &mut Notes { tried: Tried { retry_at: Some(NOW), ..Tried::default() }, ..Notes::default() },
    );
    assert!(matches!(resumed.steps.as_slice(), [Step::Resume { .. }]));
}

#[test]
fn what_was_handed_over_and_does_not_get_ready_is_ended_after_10_s() {
    let mut world = moving(3, 3, 3, LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 });
    let mut notes = Notes::default();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["Arriving"]);
    renewed_at(&mut world, NOW + Duration::from_millis(9_999));
    assert_eq!(plan(&world, &mut notes).steps, []);
    renewed_at(&mut world, NOW + Duration::from_secs(10));
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn a_copy_that_comes_before_the_record_of_its_migration_is_ended_only_after_a_second() {
    let incoming = LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 };
    let mut world = world(2, Some(1), VmPhase::Running, incoming);
    let mut notes = Notes::default();
    let waits = plan(&world, &mut notes);
    assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["Arriving"]));
    assert_eq!(waits.recheck, Some(NOW + Duration::from_secs(1)));
    renewed_at(&mut world, NOW + Duration::from_millis(999));
    assert_eq!(plan(&world, &mut notes).steps, []);
    let mut named = moving(2, 1, 2, incoming);
    renewed_at(&mut named, NOW + Duration::from_millis(999));
    assert_eq!(plan(&named, &mut notes.clone()).steps, [], "the record has come");
    renewed_at(&mut world, NOW + Duration::from_secs(1));
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
    // Another one later has its own second.
    world.local = Observed::Known(LocalVm::Absent);
    plan(&world, &mut notes);
    world.local = Observed::Known(incoming);
    assert_eq!(plan(&world, &mut notes).steps, []);
    // What executes, or could be let go on, is ended at once.
    for local in [RUNNING, ARRIVED] {
        world.local = Observed::Known(local);
        assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
    }
}

#[test]
fn each_preferred_node_has_to_be_fit_for_the_whole_calm() {
    let mut world = world(3, Some(3), VmPhase::Running, RUNNING);
    change(&mut world, |desired| desired.fail_back_to = 2);
    world.sights.get_mut(&node(1)).unwrap().record.controller_alive = false;
    let mut notes = Notes::default();
    assert_eq!(plan(&world, &mut notes).recheck, Some(NOW + Duration::from_secs(10)));
    world.sights.get_mut(&node(1)).unwrap().record.controller_alive = true;
    renewed_at(&mut world, NOW + Duration::from_secs(5));
    assert_eq!(plan(&world, &mut notes).recheck, Some(NOW + Duration::from_secs(15)), "n1 instead of n2");
    renewed_at(&mut world, NOW + Duration::from_millis(14_999));
    assert_eq!(plan(&world, &mut notes).steps, []);
    renewed_at(&mut world, NOW + Duration::from_secs(15));
    let moves = plan(&world, &mut notes);
    assert_eq!(only_write(&moves).record.migration.as_ref().unwrap().to.node, node(1));
    assert!(only_write(&moves).message.contains("n1 is preferred, and fit again"));
}

#[test]
fn a_vm_that_leaves_a_node_the_document_no_longer_names_says_so() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    change(&mut world, |desired| desired.order = vec![node(2), node(3)]);
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    renewed_at(&mut world, NOW + Duration::from_secs(10));
    let moves = plan(&world, &mut notes);
    assert!(only_write(&moves).message.contains("the document no longer names n1"));
}

#[test]
fn a_vm_is_moved_back_only_to_a_node_that_the_document_prefers() {
    for (fail_back_to, moves) in [(1, vec![]), (2, vec!["MigrationWaits"])] {
        let mut world = world(3, Some(3), VmPhase::Running, RUNNING);
        change(&mut world, |desired| desired.fail_back_to = fail_back_to);
        world.sights.get_mut(&node(1)).unwrap().record.controller_alive = false;
        assert_eq!(reasons(&decide(&world)), moves, "n2 is the second");
    }
}

#[test]
fn a_vm_on_the_first_node_is_not_moved_to_the_second_though_that_is_preferred_too() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    change(&mut world, |desired| desired.fail_back_to = 2);
    assert_eq!(reasons(&decide(&world)), Vec::<&str>::new());
}

#[test]
fn a_migration_under_way_is_told_of_once_a_second() {
    let mut world = under_way();
    world.job = Going { id: THIS, percent: Some(37) };
    let waits = plan(&world, &mut begun());
    assert_eq!((reasons(&waits), waits.recheck), (vec!["Migrating"], Some(NOW + Duration::from_secs(1))));
    assert!(waits.waiting[0].message.contains("n3 (37 %)"), "{waits:?}");
}

#[test]
fn a_request_is_answered_by_what_becomes_of_it_unless_it_was_answered_before() {
    let request = Uuid::from_u128(5);
    for (answered, outcome) in [(request, Outcome::Refused), (OTHER, Outcome::Failed)] {
        let mut world = moving(1, 1, 3, RUNNING);
        world.job = failed(THIS);
        world.migrate = Some(MigrateRequest { id: request, index: 90, to: node(3), by: "ann".to_owned() });
        vm(&mut world).record.answered =
            Some(Answer { id: answered, outcome: Outcome::Refused, message: "no".to_owned() });
        let plan = decide(&world);
        let answer = only_write(&plan).record.answered.clone().unwrap();
        assert_eq!((answer.id, answer.outcome), (request, outcome));
    }
}

#[test]
fn only_the_very_life_that_a_migration_names_is_its_target() {
    let right = |me, epoch| {
        let mut world = moving(me, 1, 2, LocalVm::Absent);
        let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
        verdict.epoch = epoch;
        ownership::right(&world)
    };
    assert_eq!(right(2, 1), Right::Target);
    assert!(matches!(right(2, 2), Right::NotMine { .. }));
    assert!(matches!(right(3, 1), Right::NotMine { .. }));
}

#[test]
fn a_source_that_cannot_see_its_hypervisor_hands_nothing_over() {
    let mut world = under_way();
    world.job = Done { id: THIS };
    world.local = Observed::unknown("libvirt does not answer");
    let plan = plan(&world, &mut begun());
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::Write(_))), "{plan:?}");
    world.local = Observed::Known(MOVED_AWAY);
    assert_eq!(only_write(&super::plan(&world, &mut begun())).reason.as_str(), "HandedOver");
}

/// The guest is there, whole, and the target would put it away where it is not given to it.
#[test]
fn a_target_that_is_late_is_waited_for_once_the_guest_has_left() {
    let mut gone = moving(1, 1, 3, MOVED_AWAY);
    gone.job = Done { id: THIS };
    let at_target = |world: &mut World, age| {
        let sight = world.sights.get_mut(&node(3)).unwrap();
        (sight.sent_by, sight.first_seen) = (NOW - age, NOW - age);
    };
    at_target(&mut gone, LeaseTimings::BALANCED.ttl());
    let waits = decide(&gone);
    assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["Migrating"]));
    let mut unseen = gone.clone();
    unseen.sights.clear();
    assert_eq!(decide(&unseen).steps, [], "the leases are being listed anew");
    at_target(&mut gone, LeaseTimings::BALANCED.fence_after());
    let mut notes = Notes { tried: Tried { ran: true, ..Tried::default() }, ..Notes::default() };
    let back = plan(&gone, &mut notes);
    let write = only_write(&back);
    assert_eq!((write.reason.as_str(), write.record.phase), ("MigrationFailed", VmPhase::Starting));
    let record = write.record.clone();
    vm(&mut gone).record = record;
    gone.job = MigrationJob::None;
    gone.sights.remove(&node(3));
    gone.sights.insert(
        node(3),
        Sight {
            record: LeaseRecord { state: LeaseState::Fenced, epoch: 2, ..sight(3, Duration::ZERO).record },
            ..sight(3, Duration::ZERO)
        },
    );
    assert_eq!(
        plan_reason(&plan(&gone, &mut notes)),
        Some("Starting"),
        "by our own migration: it is started afresh"
    );
}

fn plan_reason(plan: &Plan) -> Option<&'static str> {
    plan.steps.iter().find_map(|step| match step {
        Step::Write(write) if write.record.departed.is_none() && write.record.phase == VmPhase::Starting => {
            Some("Starting")
        }
        _ => None,
    })
}

#[test]
fn a_migration_under_way_is_not_ended_because_the_leases_are_listed_anew() {
    let mut world = under_way();
    world.sights.clear();
    assert_eq!(ended(&world), None);
    world.sights.insert(node(1), sight(1, Duration::ZERO));
    assert!(ended(&world).is_some(), "the lease of the target is not there");
}

#[test]
fn what_has_run_at_its_target_is_not_ended_for_an_error_of_its_disk_or_of_libvirt() {
    let io_error = LocalVm::Paused { reason: PauseReason::IoError, generation: 1 };
    assert_eq!(only_write(&decide(&moving(3, 3, 3, io_error))).reason.as_str(), "Migrated");
    let mut world = moving(3, 3, 3, LocalVm::Unmanaged);
    let mut notes = Notes::default();
    for _ in 0..2 {
        assert_eq!(plan(&world, &mut notes).steps, []);
        renewed_at(&mut world, NOW + Duration::from_secs(30));
    }
    let Observed::Known(intents) = &mut world.intents else { panic!("no intents") };
    intents.stop = Some(crate::intents::Stop { at: Timestamp::UNIX_EPOCH, limit: None });
    plan(&world, &mut notes);
    renewed_at(&mut world, NOW + Duration::from_secs(60));
    assert!(
        matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]),
        "an operator wants it off"
    );
}

/// Somebody may have moved it by hand while the record of ours stood.
#[test]
fn a_guest_that_left_by_no_migration_that_this_process_saw_the_end_of_is_not_started_for_want_of_its_target()
{
    for job in [MigrationJob::None, Done { id: OTHER }, failed(THIS)] {
        let mut world = moving(1, 1, 3, MOVED_AWAY);
        world.job = job.clone();
        world.sights.get_mut(&node(3)).unwrap().record.epoch = 2;
        let mut notes = Notes::default();
        let back = plan(&world, &mut notes);
        assert_eq!(only_write(&back).record.phase, VmPhase::Running, "{job:?}");
        vm(&mut world).record = only_write(&back).record.clone();
        assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "MovedAway", "{job:?}");
    }
}
