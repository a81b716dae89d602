//! Tests a store that was put back to an earlier time of itself.

use super::*;

const STARTED: LocalVm = LocalVm::Paused { reason: PauseReason::Asked, generation: 1 };

/// The owner, whose record of now is not its own any more.
fn put_back(local: LocalVm) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, local);
    vm(&mut world).written = None;
    world.went_back = true;
    world
}

#[test]
fn what_this_process_had_written_later_in_the_same_life_is_written_again() {
    let mut world = put_back(RUNNING);
    let starting = VmRecord { revision: 6, ..record(Some(1), VmPhase::Starting) };
    world.vm_before = Some(starting.clone());
    let adopted = only_write(&decide(&world)).record.clone();
    assert_eq!((adopted.phase, adopted.revision), (VmPhase::Starting, 7));
    vm(&mut world).record.revision = 9;
    let adopted = only_write(&decide(&world)).record.clone();
    assert_eq!((adopted.phase, adopted.revision), (VmPhase::Running, 10), "what is there is later");
    vm(&mut world).record.revision = 0;
    world.vm_before = Some(VmRecord { owner: None, ..starting });
    assert_eq!(only_write(&decide(&world)).record.phase, VmPhase::Running, "of another life");
}

#[test]
fn a_paused_copy_that_nothing_explains_is_ended_once_it_is_this_nodes_again() {
    let mut world = put_back(STARTED);
    world.local = Observed::unknown("it hangs");
    if let Observed::Known(verdict) = &mut world.lease {
        verdict.copies = Some(1);
    }
    let mut notes = Notes::default();
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "Adopted");
    vm(&mut world).written = Some(NOW);
    world.local = Observed::Known(STARTED);
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
    assert_eq!(reasons(&decide(&world)), ["Paused"], "else somebody has paused it, and may have meant it");
    world.local = Observed::Known(RUNNING);
    plan(&world, &mut notes);
    world.local = Observed::Known(STARTED);
    assert_eq!(reasons(&plan(&world, &mut notes)), ["Paused"], "it was seen to run since");
}

#[test]
fn a_migration_that_is_said_to_be_over_while_a_copy_is_here_is_given_up_after_a_while() {
    let mut world = moving(1, 1, 3, STARTED);
    world.job = MigrationJob::Done { id: Uuid::from_u128(9) };
    let mut notes = Notes::default();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["Migrating"]);
    at(&mut world, NOW + Duration::from_millis(9_999));
    assert_eq!(plan(&world, &mut notes).steps, []);
    at(&mut world, NOW + Duration::from_secs(10));
    let given_up = plan(&world, &mut notes);
    assert_eq!(only_write(&given_up).reason.as_str(), "MigrationFailed");
    assert!(notes.seen.unexplained, "{notes:?}");
}

/// Its controller was started since, and its keeper has not seen yet that the store went back.
#[test]
fn what_a_migration_has_brought_of_which_the_record_says_nothing_is_not_taken_for_a_guest_that_somebody_paused()
 {
    let mut world = world(1, Some(1), VmPhase::Running, STARTED);
    vm(&mut world).written = None;
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.expects = Some(Expectation::Arrival);
    assert!(decide(&world).steps.iter().any(|step| matches!(step, Step::KillCopy { .. })));
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.expects = Some(Expectation::Own);
    assert!(decide(&world).steps.iter().all(|step| !matches!(step, Step::KillCopy { .. })), "its own");
}

/// Back from a power loss, with a record that names it in the life before: of a snapshot, for all it knows.
fn returned() -> World {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut world).written = None;
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.epoch = 2;
    world.sights.get_mut(&node(1)).unwrap().record.epoch = 2;
    world
}

#[test]
fn leases_that_have_not_been_read_yet_are_not_taken_for_none() {
    let mut world = returned();
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "Returned");
    world.sights.clear();
    let waiting = decide(&world);
    assert_eq!((waiting.steps.as_slice(), reasons(&waiting)), (&[][..], vec!["LeasesNotSeen"]));
    assert_eq!(waiting.recheck, Some(NOW + Duration::from_millis(500)));
    world.lease = Observed::unknown("no keeper");
    assert!(decide(&world).steps.is_empty());
}

#[test]
fn leases_of_before_the_present_life_are_not_gone_by() {
    let mut world = returned();
    world.sights.get_mut(&node(1)).unwrap().record.epoch = 1;
    assert_eq!(reasons(&decide(&world)), ["LeasesNotSeen"]);
    world.sights.get_mut(&node(1)).unwrap().record.epoch = 2;
    world.sights.get_mut(&node(1)).unwrap().record.incarnation = Uuid::from_u128(77);
    assert_eq!(reasons(&decide(&world)), ["LeasesNotSeen"]);
}

#[test]
fn what_was_written_does_not_count_until_the_lease_is_renewed_after_a_step_back() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.unbroken_since = None;
    assert_eq!(ownership::right(&world), Right::Unconfirmed { epoch: 1 });
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "Adopted");
}

#[test]
fn a_copy_that_this_node_has_stood_by_for_is_taken_over_and_no_other_one() {
    let id = Uuid::from_u128(9);
    let back = |to: u32, expected: Option<Uuid>| {
        let mut world = moving(1, 1, to, STARTED);
        vm(&mut world).written = None;
        world.went_back = true;
        let mut notes = Notes::default();
        notes.seen.migration.expected = expected;
        plan(&world, &mut notes)
    };
    assert_eq!(only_write(&back(1, Some(id))).reason.as_str(), "Adopted");
    for (to, expected) in [(1, None), (1, Some(Uuid::from_u128(8))), (3, Some(id))] {
        let plan = back(to, expected);
        assert!(matches!(plan.steps.as_slice(), [Step::KillCopy { .. }]), "to n{to}: {plan:?}");
    }
}

#[test]
fn whoever_goes_on_with_a_record_says_how_it_came_by_it() {
    let told = |mut world: World| {
        vm(&mut world).written = None;
        only_write(&decide(&world)).message.clone()
    };
    let restarted = "the controller of n1 has restarted";
    assert!(told(world(1, Some(1), VmPhase::Running, RUNNING)).contains(restarted));
    assert!(told(moving(1, 1, 3, RUNNING)).contains(restarted), "though the VM is moved away");
    assert!(told(moving(1, 1, 1, STARTED)).contains("n1 was handed the VM"));
    let mut older = world(1, Some(1), VmPhase::Running, RUNNING);
    older.vm_before = Some(record(Some(1), VmPhase::Running));
    assert!(told(older).contains("was shown an older state of the store"));
}

#[test]
fn what_is_there_counts_where_it_is_as_late_as_what_this_process_had_written() {
    let mut world = put_back(RUNNING);
    vm(&mut world).record.revision = 6;
    world.vm_before = Some(VmRecord { revision: 6, ..record(Some(1), VmPhase::Starting) });
    assert_eq!(only_write(&decide(&world)).record.phase, VmPhase::Running);
}

#[test]
fn a_record_as_late_as_what_this_node_had_written_is_the_truth() {
    let mut world = world(2, Some(1), VmPhase::Running, RUNNING);
    world.vm_before = Some(VmRecord { revision: 9, ..record(Some(2), VmPhase::Running) });
    vm(&mut world).record.revision = 9;
    assert!(matches!(decide(&world).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn an_owner_that_writes_itself_down_again_notes_why() {
    let mut world = world(2, Some(1), VmPhase::Running, RUNNING);
    world.vm_before =
        Some(VmRecord { note: "it runs".to_owned(), revision: 9, ..record(Some(2), VmPhase::Running) });
    let plan = decide(&world);
    assert_eq!(only_write(&plan).record.note, only_write(&plan).message);
}

#[test]
fn a_copy_that_qemu_itself_has_paused_explains_itself() {
    for reason in [PauseReason::IoError, PauseReason::Fault] {
        let world = put_back(LocalVm::Paused { reason, generation: 1 });
        assert_eq!(only_write(&decide(&world)).reason.as_str(), "Adopted", "{reason:?}");
    }
}

#[test]
fn a_member_without_a_lease_is_waited_for_by_whoever_comes_back() {
    let mut world = returned();
    world.sights.remove(&node(3));
    assert_eq!(reasons(&decide(&world)), ["LeaseGone"], "though the record says that the VM has never run");
    vm(&mut world).record.last_start = Some(StartRecord {
        node: node(1),
        at: Timestamp::UNIX_EPOCH,
        reason: "FirstStart".to_owned(),
        generation: 1,
    });
    let asking = decide(&world);
    assert_eq!(asking.steps, [Step::ReplaceLease { of: Owner { node: node(3), epoch: 0 }, over: None }]);
    assert_eq!(reasons(&asking), ["LeaseGone"]);
    let mut lost = sight(3, Duration::from_secs(299));
    lost.record = LeaseRecord::lost(&Owner { node: node(3), epoch: 1 }, Timestamp::UNIX_EPOCH);
    world.sights.insert(node(3), lost.clone());
    assert_eq!(reasons(&decide(&world)), ["CopiesUnknown"], "put in its place by another");
    lost.sent_by = NOW - Duration::from_secs(300);
    world.sights.insert(node(3), lost);
    assert_eq!(only_write(&decide(&world)).rests_on.len(), 2);
    world.sights.remove(&node(3));
    change(&mut world, |desired| desired.order.retain(|member| *member != node(3)));
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "Returned", "no member any more");
}

#[test]
fn what_a_migration_has_brought_is_not_taken_for_a_copy_from_before_the_store_went_back() {
    let mut world = world(2, Some(1), VmPhase::Running, RUNNING);
    world.vm_before = Some(VmRecord { revision: 9, ..record(Some(2), VmPhase::Running) });
    assert_eq!(ownership::right(&world), Right::Overtaken { epoch: 1 });
    world.local = Observed::Known(ARRIVED);
    assert!(matches!(ownership::right(&world), Right::NotMine { .. }), "it may never have run here");
}
