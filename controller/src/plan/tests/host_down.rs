//! Tests what the owner does as its host shuts down.

use zsha_crds::records::HostShutdown;

use super::*;
use crate::intents::{Asked, Cordon, Stop};
use crate::plan::Still;
use crate::plan::host_down::NOWHERE_PATIENCE;
use crate::plan::shutdown::SHUTDOWN_AGAIN;

fn intents(world: &mut World) -> &mut Intents {
    match &mut world.intents {
        Observed::Known(intents) => intents,
        Observed::Unknown(why) => panic!("{why}"),
    }
}

fn shutdowns(world: &mut World) -> &mut BTreeMap<NodeName, HostShutdown> {
    match &mut world.shutdowns {
        Observed::Known(shutdowns) => shutdowns,
        Observed::Unknown(why) => panic!("{why}"),
    }
}

fn asked() -> Asked {
    Asked { by: "ann".to_owned(), at: Timestamp::UNIX_EPOCH, message: "works".to_owned() }
}

fn drain(world: &mut World, number: u32) {
    intents(world).drained.insert(node(number), Cordon::Drained(asked()));
}

/// The host says that it shuts down, in the boot that its lease is of.
fn shuts_down(world: &mut World, number: u32, no_time_to_move: bool) {
    drain(world, number);
    let shutdown = HostShutdown { boot_id: "b".to_owned(), no_time_to_move };
    shutdowns(world).insert(node(number), shutdown);
}

fn going_down(local: LocalVm) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, local);
    shuts_down(&mut world, 1, false);
    world
}

fn asks_the_guest(plan: &Plan) -> bool {
    matches!(plan.steps.as_slice(), [Step::Shutdown { if_still: Still::HostGoesDown, .. }])
}

fn ends_the_guest(plan: &Plan) -> bool {
    matches!(plan.steps.as_slice(), [Step::KillCopy { if_still: Some(Still::HostGoesDown), .. }])
}

#[test]
fn the_vm_leaves_a_host_that_shuts_down_live_while_a_node_is_fit() {
    assert_eq!(only_write(&decide(&going_down(RUNNING))).reason.as_str(), "MigrationBegun");
}

#[test]
fn a_guest_that_is_leaving_by_hand_is_let_go_for_as_long_as_there_is_time() {
    let mut world = going_down(LocalVm::Paused { reason: PauseReason::Leaving, generation: 1 });
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["MovedByHand"]));
    shuts_down(&mut world, 1, true);
    assert!(ends_the_guest(&decide(&world)), "it ends with the host all the same");
}

#[test]
fn where_all_others_are_drained_or_go_down_as_well_the_guest_is_asked_at_once() {
    let mut world = going_down(RUNNING);
    drain(&mut world, 2);
    shuts_down(&mut world, 3, false);
    let plan = decide(&world);
    assert!(asks_the_guest(&plan), "{plan:?}");
    let [Step::Shutdown { because, .. }] = plan.steps.as_slice() else { panic!("{plan:?}") };
    assert!(
        because.starts_with("n1 shuts down, and the VM can go nowhere else: n1: it was drained"),
        "{because}"
    );
}

#[test]
fn what_may_pass_is_waited_for_before_the_guest_is_asked() {
    let mut world = going_down(RUNNING);
    for number in [2, 3] {
        world.sights.insert(node(number), sight(number, Duration::from_secs(60)));
    }
    let mut notes = Notes::default();
    let waits = plan(&world, &mut notes);
    assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["DrainWaits"]));
    assert_eq!(waits.recheck, Some(NOW + NOWHERE_PATIENCE));
    at(&mut world, NOW + NOWHERE_PATIENCE);
    assert!(asks_the_guest(&plan(&world, &mut notes)));
    at(&mut world, NOW + NOWHERE_PATIENCE - Duration::from_secs(1));
    let back = sight(2, Duration::ZERO);
    world.sights.insert(node(2), Sight { first_seen: world.now, sent_by: world.now, ..back });
    assert_eq!(only_write(&plan(&world, &mut Notes::default())).reason.as_str(), "MigrationBegun");
}

#[test]
fn a_guest_that_was_asked_goes_on_shutting_down_and_has_the_time_of_the_document() {
    let mut world = going_down(RUNNING);
    drain(&mut world, 2);
    drain(&mut world, 3);
    // Of an older stop: it does not count.
    let long_ago = NOW - Duration::from_secs(600);
    let mut notes = Notes {
        tried: Tried { shutdown_asked: Some((long_ago, long_ago)), ..Tried::default() },
        ..Notes::default()
    };
    assert!(asks_the_guest(&plan(&world, &mut notes)));
    notes.tried.shutdown_asked = Some((NOW, NOW));
    intents(&mut world).drained.remove(&node(2));
    assert!(plan(&world, &mut notes).steps.is_empty(), "n2 is fit now, and the guest is half off");
    renewed_at(&mut world, NOW + SHUTDOWN_AGAIN);
    assert!(asks_the_guest(&plan(&world, &mut notes)));
    renewed_at(&mut world, NOW + desired().guest_shutdown - Duration::from_millis(1));
    notes.tried.shutdown_asked = Some((NOW, world.now));
    assert!(plan(&world, &mut notes).steps.is_empty());
    renewed_at(&mut world, NOW + desired().guest_shutdown);
    assert!(ends_the_guest(&plan(&world, &mut notes)));
}

#[test]
fn a_guest_that_is_off_with_its_host_is_free_for_the_first_fit_node_whatever_the_document_says_of_guests_that_power_off()
 {
    for reason in [OffReason::Shutdown, OffReason::Died, OffReason::Destroyed, OffReason::Unknown] {
        let mut world = going_down(LocalVm::Off { reason });
        change(&mut world, |desired| desired.power_off = GuestPowerOff::StayOff);
        let plan = decide(&world);
        let write = only_write(&plan);
        assert_eq!(
            (write.reason.as_str(), &write.record.owner, write.record.phase),
            ("HostShutDown", &None, VmPhase::Stopped)
        );
        let mut other = super::world(2, None, VmPhase::Stopped, LocalVm::Absent);
        change(&mut other, |desired| desired.power_off = GuestPowerOff::StayOff);
        drain(&mut other, 1);
        vm(&mut other).record = write.record.clone();
        assert_eq!(only_write(&decide(&other)).record.phase, VmPhase::Starting, "{reason:?}");
        let mut itself = going_down(LocalVm::Off { reason });
        vm(&mut itself).record = write.record.clone();
        assert!(
            decide(&itself).steps.iter().all(|step| matches!(step, Step::Undefine { .. })),
            "not here again"
        );
    }
    let migrated = going_down(LocalVm::Off { reason: OffReason::Migrated });
    let given_up =
        |step: &Step| matches!(step, Step::Write(write) if write.reason.as_str() == "HostShutDown");
    assert!(!decide(&migrated).steps.iter().any(given_up), "nobody knows where it is");
}

#[test]
fn what_executes_nothing_cannot_leave_and_is_ended() {
    let paused = LocalVm::Paused { reason: PauseReason::IoError, generation: 1 };
    assert!(ends_the_guest(&decide(&going_down(paused))));
    assert!(decide(&going_down(LocalVm::Unmanaged)).steps.is_empty(), "it may well run");
    let mut late = going_down(LocalVm::Unmanaged);
    shuts_down(&mut late, 1, true);
    assert!(ends_the_guest(&decide(&late)));
}

#[test]
fn a_host_that_shuts_down_ends_its_guest_in_order_though_nothing_is_to_be_begun() {
    let mut frozen = going_down(RUNNING);
    intents(&mut frozen).freeze = Some(asked());
    assert!(asks_the_guest(&decide(&frozen)));
}

#[test]
fn a_stop_has_its_own_time() {
    let mut stopping = going_down(RUNNING);
    drain(&mut stopping, 2);
    drain(&mut stopping, 3);
    intents(&mut stopping).stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: None });
    assert!(matches!(decide(&stopping).steps.as_slice(), [Step::Shutdown { if_still: Still::ToStop, .. }]));
}

#[test]
fn when_there_is_no_time_to_move_any_more_a_move_is_ended_and_the_guest_asked() {
    let mut world = going_down(RUNNING);
    shuts_down(&mut world, 1, true);
    assert!(asks_the_guest(&decide(&world)));
    let id = Uuid::from_u128(9);
    vm(&mut world).record.migration = Some(Migration { to: Owner { node: node(2), epoch: 1 }, id });
    world.job = MigrationJob::Going { id, percent: None };
    assert!(matches!(decide(&world).steps.as_slice(), [Step::AbortMigration { .. }]));
}

#[test]
fn a_move_to_a_host_that_goes_down_as_well_is_ended() {
    let mut world = going_down(RUNNING);
    let id = Uuid::from_u128(9);
    vm(&mut world).record.migration = Some(Migration { to: Owner { node: node(2), epoch: 1 }, id });
    world.job = MigrationJob::Going { id, percent: None };
    assert!(decide(&world).steps.is_empty());
    shuts_down(&mut world, 2, false);
    assert!(matches!(decide(&world).steps.as_slice(), [Step::AbortMigration { .. }]));
}

/// The order in the store may be of before the boot, or have come back with a snapshot.
#[test]
fn a_word_of_another_boot_or_of_one_that_cannot_be_told_shuts_nothing_down() {
    let drained = |mut world: World| {
        drain(&mut world, 2);
        drain(&mut world, 3);
        world
    };
    let present = drained(going_down(RUNNING));
    assert!(asks_the_guest(&decide(&present)));
    let mut of_before = present.clone();
    shutdowns(&mut of_before).get_mut(&node(1)).unwrap().boot_id = "earlier".to_owned();
    let mut unseen = present.clone();
    unseen.sights.remove(&node(1));
    let mut of_another_life = present;
    of_another_life.sights.get_mut(&node(1)).unwrap().record.incarnation = Uuid::from_u128(77);
    for world in [of_before, unseen, of_another_life] {
        assert!(decide(&world).steps.is_empty());
    }
}

#[test]
fn a_guest_is_shut_down_with_its_host_though_nobody_knows_what_operators_want() {
    let mut world = going_down(RUNNING);
    world.intents = Observed::unknown("intent/power is missing");
    assert!(asks_the_guest(&decide(&world)));
}
