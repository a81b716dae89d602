//! Tests what operators ask for by command: stop, freeze, drain.

use super::*;
use crate::intents::{Asked, Cordon, Start, Stop};
use crate::plan::ResumeBecause;
use crate::plan::shutdown::{SHUTDOWN_AGAIN, SHUTDOWN_PATIENCE};

fn intents(world: &mut World) -> &mut Intents {
    match &mut world.intents {
        Observed::Known(intents) => intents,
        Observed::Unknown(why) => panic!("{why}"),
    }
}

fn asked() -> Asked {
    Asked { by: "ann".to_owned(), at: Timestamp::UNIX_EPOCH, message: "new memory".to_owned() }
}

fn frozen(mut world: World) -> World {
    intents(&mut world).freeze = Some(asked());
    world
}

fn drain(world: &mut World, number: u32) {
    intents(world).drained.insert(node(number), Cordon::Drained(asked()));
}

fn running() -> World {
    world(1, Some(1), VmPhase::Running, RUNNING)
}

#[test]
fn a_stop_shuts_the_guest_down_then_ends_it_and_only_then_gives_it_up() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    intents(&mut world).stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: None });
    let mut notes = Notes::default();
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::Shutdown { .. }]));
    assert!(
        matches!(plan(&world, &mut notes).steps.as_slice(), [Step::Shutdown { .. }]),
        "it was not asked yet"
    );
    notes.tried.shutdown_asked = Some((NOW, NOW));
    assert!(plan(&world, &mut notes).steps.is_empty(), "asked once");
    at(&mut world, NOW + SHUTDOWN_AGAIN);
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::Shutdown { .. }]), "and again later");
    at(&mut world, NOW + SHUTDOWN_PATIENCE);
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
    world.local = Observed::Known(DIED);
    assert_eq!(only_write(&plan(&world, &mut notes)).record.owner, None);
}

#[test]
fn the_time_a_stop_gives_is_kept_and_none_at_all_ends_the_guest_at_once() {
    let mut world = running();
    intents(&mut world).stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: Some(Duration::ZERO) });
    assert!(matches!(decide(&world).steps.as_slice(), [Step::KillCopy { .. }]));
    intents(&mut world).stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: Some(Duration::from_secs(30)) });
    let mut notes = Notes {
        seen: Seen { stopping: Some(Timestamp::UNIX_EPOCH), ..Seen::default() },
        tried: Tried { shutdown_asked: Some((NOW, NOW + Duration::from_secs(29))), ..Tried::default() },
        ..Notes::default()
    };
    at(&mut world, NOW + Duration::from_millis(29_999));
    let waits = plan(&world, &mut notes);
    assert_eq!((waits.steps.len(), waits.recheck), (0, Some(NOW + Duration::from_secs(30))));
    at(&mut world, NOW + Duration::from_secs(30));
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn a_guest_that_a_stop_taken_back_made_power_off_is_started_again() {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Off { reason: OffReason::Shutdown });
    change(&mut world, |desired| desired.power_off = GuestPowerOff::StayOff);
    let mut notes =
        Notes { tried: Tried { shutdown_asked: Some((NOW, NOW)), ..Tried::default() }, ..Notes::default() };
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "GuestPoweredOff");
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "PoweredOff", "by its own doing it stays off");
}

/// It was heard, and takes longer than the request is repeated for.
#[test]
fn a_start_is_taken_up_by_a_guest_that_runs_once_it_will_not_follow_a_stop_of_before_any_more() {
    let mut world = running();
    intents(&mut world).start =
        Some(Start { id: Uuid::from_u128(8), by: "ann".to_owned(), from_image: false });
    let mut notes =
        Notes { tried: Tried { shutdown_asked: Some((NOW, NOW)), ..Tried::default() }, ..Notes::default() };
    for seconds in [30, 120, 599] {
        renewed_at(&mut world, NOW + Duration::from_secs(seconds));
        assert_eq!(plan(&world, &mut notes).steps, [], "after {seconds} s");
    }
    renewed_at(&mut world, NOW + Duration::from_secs(600));
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "StartTakenUp");
}

#[test]
fn a_stopped_vm_is_claimed_by_nobody() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    intents(&mut world).stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: None });
    assert_eq!(reasons(&decide(&world)), ["Stopped"]);
}

#[test]
fn while_frozen_nothing_is_begun() {
    let other = |local| world(2, Some(1), VmPhase::Running, local);
    let mut dead = other(LocalVm::Absent);
    dead.sights.insert(node(1), sight(1, Duration::from_secs(11)));
    assert!(!decide(&dead).steps.is_empty(), "else it is taken over");
    let died = world(1, Some(1), VmPhase::Running, DIED);
    assert!(!decide(&died).steps.is_empty(), "else it is started again");
    let mut to_stop = running();
    intents(&mut to_stop).stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: None });
    let mut to_leave = running();
    drain(&mut to_leave, 1);
    let by_hand = LocalVm::Paused { reason: PauseReason::Fault, generation: 1 };
    let paused = world(1, Some(1), VmPhase::Running, by_hand);
    for world in [dead, died, to_stop, to_leave, asked_to_move("n3"), paused] {
        let plan = decide(&frozen(world));
        assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["Frozen"]));
        assert!(plan.waiting[0].message.contains("frozen by ann"), "{plan:?}");
    }
    assert_eq!(decide(&frozen(running())), decide(&running()), "nothing is to be said of a VM that runs");
}

#[test]
fn what_was_begun_before_a_freeze_is_finished() {
    let started = LocalVm::Paused { reason: PauseReason::Asked, generation: 1 };
    let starting = frozen(world(1, Some(1), VmPhase::Starting, started));
    assert!(matches!(decide(&starting).steps.as_slice(), [Step::Resume { .. }]));
    let mut moving = frozen(moving(1, 1, 3, MOVED_AWAY));
    moving.job = MigrationJob::Done { id: Uuid::from_u128(9) };
    assert_eq!(only_write(&decide(&moving)).reason.as_str(), "HandedOver");
    let mut stopping = frozen(running());
    intents(&mut stopping).stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: None });
    at(&mut stopping, NOW + SHUTDOWN_PATIENCE);
    let mut notes = Notes {
        seen: Seen { stopping: Some(Timestamp::UNIX_EPOCH), ..Seen::default() },
        tried: Tried { shutdown_asked: Some((NOW, NOW)), ..Tried::default() },
        ..Notes::default()
    };
    assert!(matches!(plan(&stopping, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
    let another = Timestamp::UNIX_EPOCH + Duration::from_secs(1);
    intents(&mut stopping).stop = Some(Stop { at: another, limit: None });
    assert_eq!(reasons(&plan(&stopping, &mut notes)), ["Frozen"], "that one has not been begun");
}

#[test]
fn a_freeze_takes_nothing_from_what_keeps_two_copies_apart() {
    let mut elsewhere = frozen(world(2, Some(1), VmPhase::Running, RUNNING));
    assert_eq!(reasons(&decide(&elsewhere)), ["Frozen"], "it is the only one");
    count(&mut elsewhere.sights.get_mut(&node(1)).unwrap().record).copies = Some(1);
    assert!(matches!(decide(&elsewhere).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn a_guest_goes_on_after_an_error_of_its_disk_though_frozen() {
    let paused = LocalVm::Paused { reason: PauseReason::IoError, generation: 1 };
    let world = frozen(world(1, Some(1), VmPhase::Running, paused));
    let resume = |step: &Step| matches!(step, Step::Resume { because: ResumeBecause::IoErrorOver, .. });
    assert!(decide(&world).steps.iter().all(resume) && decide(&world).steps.len() == 1);
}

#[test]
fn a_drained_node_is_left_at_once_for_another_that_is_fit() {
    let mut world = running();
    drain(&mut world, 1);
    let plan = decide(&world);
    let write = only_write(&plan);
    assert_eq!(
        (write.reason.as_str(), write.record.migration.as_ref().unwrap().to.node.as_str()),
        ("MigrationBegun", "n2")
    );
    assert!(write.message.contains("ann") && write.message.contains("new memory"), "{}", write.message);
    let ready = condition::find(&plan.conditions, ConditionKind::Ready).unwrap();
    assert!(!ready.is_true() && ready.message.contains("`zsha uncordon n1`"), "{ready:?}");
}

#[test]
fn a_vm_that_cannot_leave_a_drained_node_stays_and_says_why() {
    let mut world = running();
    (1..=3).for_each(|number| drain(&mut world, number));
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["DrainWaits"]));
    assert!(plan.waiting[0].message.contains("n3: it was drained by ann"), "{plan:?}");
    world.local = Observed::Known(DIED);
    assert_eq!(
        only_write(&decide(&world)).reason.as_str(),
        "QemuDied",
        "where it is, is better than nowhere"
    );
}

#[test]
fn a_drained_node_is_given_nothing() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    drain(&mut world, 1);
    assert_eq!(decide(&world).steps, []);
    assert_eq!(reasons(&decide(&world)), Vec::<&str>::new(), "others are fit");
    let mut asked = asked_to_move("n3");
    drain(&mut asked, 3);
    let answer = only_write(&decide(&asked)).record.answered.clone().unwrap();
    assert!(answer.message.contains("n3: it was drained by ann"), "{answer:?}");
}

#[test]
fn a_node_that_is_drained_no_more_is_fit_before_it_has_said_so() {
    let mut drained = world(3, None, VmPhase::Stopped, LocalVm::Absent);
    drain(&mut drained, 3);
    let said = NodeStatus { conditions: decide(&drained).conditions, ..ready(3) };
    let mut world = asked_to_move("n3");
    world.nodes.insert(node(3), Arc::new(said));
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "MigrationBegun");
}

#[test]
fn a_drain_that_cannot_be_read_keeps_the_vm_from_coming_and_does_not_make_it_leave() {
    let unreadable = || Cordon::Unreadable("no JSON".to_owned());
    let mut world = running();
    intents(&mut world).drained.insert(node(1), unreadable());
    assert_eq!(decide(&world).steps, []);
    let mut asked = asked_to_move("n3");
    intents(&mut asked).drained.insert(node(3), unreadable());
    assert_eq!(only_write(&decide(&asked)).record.answered.as_ref().unwrap().outcome, Outcome::Refused);
}

#[test]
fn a_vm_that_ended_is_not_started_while_nobody_knows_what_operators_want() {
    let mut world = world(1, Some(1), VmPhase::Running, DIED);
    world.intents = Observed::unknown("not read yet");
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["IntentUnknown"]));
}

#[test]
fn a_start_is_taken_up_once_and_forgets_what_failed() {
    let mut world = world(1, None, VmPhase::Failed, LocalVm::Absent);
    let failed = StartFailures { count: 2, reason: "no memory".to_owned() };
    vm(&mut world).record.failures = (1..=3).map(|number| (node(number), failed.clone())).collect();
    let mut notes = Notes::default();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["Failed"]);
    intents(&mut world).start =
        Some(Start { id: Uuid::from_u128(8), by: "ann".to_owned(), from_image: false });
    let claim = plan(&world, &mut notes);
    let record = &only_write(&claim).record;
    assert_eq!((record.start_taken_up, record.failures.len()), (Some(Uuid::from_u128(8)), 0));
    vm(&mut world).record.start_taken_up = Some(Uuid::from_u128(8));
    assert_eq!(reasons(&decide(&world)), ["Failed"], "that start was taken up");
}

#[test]
fn a_start_takes_up_a_guest_that_was_left_powered_off() {
    let mut world = world(1, None, VmPhase::PoweredOff, LocalVm::Absent);
    change(&mut world, |desired| desired.power_off = GuestPowerOff::StayOff);
    assert_eq!(reasons(&decide(&world)), ["PoweredOff"]);
    intents(&mut world).start =
        Some(Start { id: Uuid::from_u128(8), by: "ann".to_owned(), from_image: false });
    assert_eq!(only_write(&decide(&world)).record.start_taken_up, Some(Uuid::from_u128(8)));
}

#[test]
fn a_stop_after_one_that_was_taken_back_gives_the_guest_its_time_anew() {
    let mut world = running();
    let later = Timestamp::from_second(40).unwrap();
    intents(&mut world).stop = Some(Stop { at: later, limit: Some(Duration::from_secs(30)) });
    let asked_before = Some((NOW - Duration::from_secs(40), NOW - Duration::from_secs(40)));
    let mut notes = Notes {
        seen: Seen { stopping: Some(Timestamp::UNIX_EPOCH), ..Seen::default() },
        tried: Tried { shutdown_asked: asked_before, ..Tried::default() },
        ..Notes::default()
    };
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::Shutdown { .. }]));
}

#[test]
fn while_nobody_knows_what_operators_want_a_vm_that_runs_is_neither_moved_nor_ended() {
    let mut asked = asked_to_move("n3");
    asked.intents = Observed::unknown("not read yet");
    let plan = decide(&asked);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["IntentUnknown"]));
    assert!(!condition::find(&plan.conditions, ConditionKind::Ready).unwrap().is_true());
}

#[test]
fn a_start_that_finds_the_vm_running_is_taken_up_as_well() {
    let mut world = running();
    intents(&mut world).start =
        Some(Start { id: Uuid::from_u128(8), by: "ann".to_owned(), from_image: false });
    let taken_up = decide(&world);
    assert_eq!(only_write(&taken_up).record.start_taken_up, Some(Uuid::from_u128(8)));
    vm(&mut world).record.phase = VmPhase::Starting;
    assert_eq!(only_write(&decide(&world)).record.start_taken_up, Some(Uuid::from_u128(8)));
    vm(&mut world).record.phase = VmPhase::Running;
    vm(&mut world).record.start_taken_up = Some(Uuid::from_u128(8));
    assert_eq!(decide(&world).steps, []);
}

#[test]
fn while_nobody_knows_what_operators_want_a_vm_that_runs_is_said_to_be_left_as_it_is() {
    let mut world = running();
    world.intents = Observed::unknown("not read yet");
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["IntentUnknown"]));
    assert!(plan.waiting[0].message.contains("left as it is"), "{plan:?}");
}

#[test]
fn a_drained_node_with_a_fault_of_its_own_is_unfit_when_it_is_drained_no_more() {
    let mut drained = world(3, None, VmPhase::Stopped, LocalVm::Absent);
    drain(&mut drained, 3);
    let image = Some(Observed::Known(ImageFact::Missing));
    drained.host = Observed::Known(HostFacts { image, ..HostFacts::default() });
    let mut world = asked_to_move("n3");
    let said = NodeStatus { conditions: decide(&drained).conditions, ..ready(3) };
    world.nodes.insert(node(3), Arc::new(said));
    let answer = only_write(&decide(&world)).record.answered.clone().unwrap();
    assert!(answer.message.contains("/share/mnvm.img is not there"), "{answer:?}");
}

#[test]
fn a_vm_that_ended_on_a_drained_node_is_given_to_another_that_is_fit() {
    let mut world = world(1, Some(1), VmPhase::Running, DIED);
    drain(&mut world, 1);
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "GaveUp");
}

#[test]
fn a_vm_that_ended_on_a_drained_node_is_not_started_there_where_that_would_be_unfit_all_the_same() {
    let mut world = world(1, Some(1), VmPhase::Running, DIED);
    (1..=3).for_each(|number| drain(&mut world, number));
    let image = Some(Observed::Known(ImageFact::Missing));
    world.host = Observed::Known(HostFacts { image, ..HostFacts::default() });
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["NoNodeFit"]));
}

#[test]
fn a_guest_that_runs_on_long_after_a_stop_was_taken_back_may_power_itself_off() {
    let long = SHUTDOWN_PATIENCE * 5;
    for (after, reason) in [(long - Duration::from_millis(1), "GuestPoweredOff"), (long, "PoweredOff")] {
        let mut world = running();
        change(&mut world, |desired| desired.power_off = GuestPowerOff::StayOff);
        let mut notes = Notes {
            tried: Tried { shutdown_asked: Some((NOW, NOW)), ..Tried::default() },
            ..Notes::default()
        };
        renewed_at(&mut world, NOW + after);
        assert_eq!(plan(&world, &mut notes).steps, []);
        world.local = Observed::Known(LocalVm::Off { reason: OffReason::Shutdown });
        assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), reason, "after {after:?}");
    }
}

mod password {
    use super::*;
    use crate::intents::PasswordReset;
    use zsha_crds::records::{Answer, Outcome};

    const ID: Uuid = Uuid::from_u128(7);

    fn vm_record(world: &mut World) -> &mut VmRecord {
        match &mut world.vm {
            Observed::Known(Some(stored)) => &mut stored.record,
            other => panic!("{other:?}"),
        }
    }

    /// Asked for where the VM is `local`, and where the document allows it, or not.
    fn asked(local: LocalVm, allowed: bool) -> World {
        let mut world = world(1, Some(1), VmPhase::Running, local);
        change(&mut world, |desired| desired.may_reset_password = allowed);
        intents(&mut world).reset_password = Some(PasswordReset { id: ID, by: "ann".to_owned() });
        world
    }

    fn answer(outcome: Outcome) -> Answer {
        Answer { id: ID, outcome, message: "told".to_owned() }
    }

    #[test]
    fn a_password_is_set_once_while_the_guest_runs_and_answered_in_the_record() {
        let mut world = asked(RUNNING, true);
        let mut notes = Notes::default();
        let steps = plan(&world, &mut notes).steps;
        assert_eq!(steps, [Step::SetPassword { id: ID, by: "ann".to_owned() }]);
        for outcome in [Outcome::Done, Outcome::Failed] {
            notes.tried.password = Some(answer(outcome));
            let planned = plan(&world, &mut notes);
            assert_eq!(only_write(&planned).record.password_reset, notes.tried.password, "{outcome:?}");
        }
        // The write was lost, and the document changed meanwhile: what was done is still what is told.
        change(&mut world, |desired| desired.may_reset_password = false);
        let planned = plan(&world, &mut notes);
        assert_eq!(only_write(&planned).record.password_reset, Some(answer(Outcome::Failed)));
        vm_record(&mut world).password_reset = Some(answer(Outcome::Failed));
        assert_eq!(plan(&world, &mut Notes::default()).steps, [], "it is over");
    }

    #[test]
    fn the_answer_to_an_earlier_request_is_none_to_this_one() {
        let world = asked(RUNNING, true);
        let earlier = Answer { id: Uuid::from_u128(99), ..answer(Outcome::Done) };
        let mut notes =
            Notes { tried: Tried { password: Some(earlier), ..Tried::default() }, ..Notes::default() };
        let steps = plan(&world, &mut notes).steps;
        assert_eq!(steps, [Step::SetPassword { id: ID, by: "ann".to_owned() }]);
    }

    #[test]
    fn where_the_document_does_not_allow_it_or_no_guest_runs_it_is_refused_at_once() {
        let off = LocalVm::Off { reason: OffReason::Died };
        for (local, allowed, why) in [(RUNNING, false, "AllowResetRootPassword"), (off, true, "does not run")]
        {
            let planned = decide(&asked(local, allowed));
            let answer = only_write(&planned).record.password_reset.clone().unwrap();
            assert_eq!((answer.id, answer.outcome), (ID, Outcome::Refused));
            assert!(answer.message.contains(why), "{}", answer.message);
        }
    }

    #[test]
    fn only_the_owner_sets_it_and_nobody_in_a_frozen_cluster_or_one_that_stops() {
        let frozen = frozen(asked(RUNNING, true));
        assert_eq!(decide(&frozen).steps, []);
        let mut stopping = asked(RUNNING, true);
        intents(&mut stopping).stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: None });
        assert!(matches!(decide(&stopping).steps.as_slice(), [Step::Shutdown { .. }]));
        let mut other = asked(LocalVm::Absent, true);
        vm_record(&mut other).owner = Some(Owner { node: node(2), epoch: 1 });
        assert_eq!(decide(&other).steps, []);
    }
}
