//! Tests the claim of a VM that is nobody's any more.

use super::*;

fn failed_everywhere(world: &mut World) {
    vm(world).record.failures =
        (1..=3).map(|number| (node(number), StartFailures { count: 2, reason: "no".to_owned() })).collect();
}

/// The lease of n3, put in the place of one that was gone.
fn replaced(world: &mut World) -> Moment {
    let owner = Owner { node: node(3), epoch: 1 };
    let record = LeaseRecord::lost(&owner, Timestamp::UNIX_EPOCH);
    let sight = Sight { record, ..sight(3, Duration::from_secs(1)) };
    let due = sight.fence_due().unwrap();
    world.sights.insert(node(3), sight);
    due
}

#[test]
fn a_claim_is_tried_again_when_the_pause_after_a_try_is_over() {
    let world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    let later = NOW + Duration::from_millis(1);
    let waits = plan(
        &world,
        &mut Notes { tried: Tried { retry_at: Some(later), ..Tried::default() }, ..Notes::default() },
    );
    assert_eq!((waits.steps.as_slice(), waits.recheck), (&[][..], Some(later)));
    let claims = plan(
        &world,
        &mut Notes { tried: Tried { retry_at: Some(NOW), ..Tried::default() }, ..Notes::default() },
    );
    assert_eq!(only_write(&claims).reason.as_str(), "FirstStart");
}

#[test]
fn a_node_that_has_failed_and_has_become_unfit_does_not_try_once_more() {
    let mut world = world(1, None, VmPhase::Failed, LocalVm::Absent);
    failed_everywhere(&mut world);
    world.host = Observed::Known(HostFacts {
        image: Some(Observed::Known(ImageFact::Missing)),
        ..HostFacts::default()
    });
    let mut notes = Notes::default();
    for secs in [0, 30, 600] {
        renewed_at(&mut world, NOW + Duration::from_secs(secs));
        let waits = plan(&world, &mut notes);
        assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["NoNodeFit"]), "{secs} s");
    }
}

#[test]
fn a_node_whose_lease_was_gone_is_waited_for_only_where_the_record_names_nobody() {
    let mut free = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    let due = replaced(&mut free);
    let waits = decide(&free);
    assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["CopiesUnknown"]));
    assert_eq!(waits.recheck, Some(due));
    let mut of_the_dead = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    expire(&mut of_the_dead, 1);
    replaced(&mut of_the_dead);
    let plan = decide(&of_the_dead);
    assert_eq!(
        (only_write(&plan).reason.as_str(), only_write(&plan).rests_on.as_slice()),
        ("Failover", &[][..])
    );
}

#[test]
fn a_claim_counts_the_record_on_and_forgets_only_what_failed_under_another_document() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    vm(&mut world).record.revision = 6;
    vm(&mut world)
        .record
        .failures
        .insert(node(2), StartFailures { count: 1, reason: "no memory".to_owned() });
    let claimed = |world: &World| only_write(&decide(world)).record.clone();
    let same = claimed(&world);
    assert_eq!((same.revision, same.failures_generation, same.failures.len()), (7, 1, 1));
    change(&mut world, |desired| desired.generation = 2);
    let other = claimed(&world);
    assert_eq!((other.revision, other.failures_generation, other.failures.len()), (7, 2, 0));
}

#[test]
fn a_takeover_says_what_proves_the_owners_copy_dead() {
    type Change = fn(&mut LeaseRecord);
    let cases: [(Change, &str); 4] = [
        (|lease| (lease.epoch, lease.state) = (2, LeaseState::Fenced), "n1 was fenced by n3"),
        (|lease| lease.epoch = 2, "n1 has begun a new lease since"),
        (|lease| lease.state = LeaseState::Released, "n1 has released its lease"),
        (|lease| lease.state = LeaseState::Fenced, "n1 is fenced"),
    ];
    for (change, says) in cases {
        let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
        let lease = &mut world.sights.get_mut(&node(1)).unwrap().record;
        (lease.controller_alive, lease.fenced_by) = (false, Some(node(3)));
        change(lease);
        let plan = decide(&world);
        assert!(only_write(&plan).message.contains(says), "{}", only_write(&plan).message);
    }
}

#[test]
fn a_copy_of_an_earlier_life_is_ended_with_both_epochs_named() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.epoch = 3;
    let steps = decide(&world).steps;
    let [Step::KillCopy { because, .. }] = steps.as_slice() else { panic!("{steps:?}") };
    assert!(because.contains("in epoch 1, and its lease is in epoch 3"), "{because}");
}

#[test]
fn a_node_that_has_failed_too_often_leaves_the_vm_to_another_that_is_fit() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    failed_everywhere(&mut world);
    vm(&mut world).record.failures.remove(&node(2));
    let mut notes = Notes::default();
    for secs in [0, 30, 600] {
        renewed_at(&mut world, NOW + Duration::from_secs(secs));
        let plan = plan(&world, &mut notes);
        assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec![]), "{secs} s");
    }
}

#[test]
fn what_failed_everywhere_is_tried_again_ever_more_slowly_and_by_each_node_in_its_turn() {
    for (number, turn) in [(1, 0), (2, 2), (3, 4)] {
        let mut world = world(number, None, VmPhase::Failed, LocalVm::Absent);
        failed_everywhere(&mut world);
        let mut notes = Notes::default();
        let pauses = [(); 7].map(|()| {
            let since = world.now;
            let due = pass(&world, &mut notes).recheck.unwrap();
            renewed_at(&mut world, due - Duration::from_millis(1));
            assert_eq!(reasons(&pass(&world, &mut notes)), ["Failed"]);
            renewed_at(&mut world, due);
            only_write(&pass(&world, &mut notes));
            since.until(due).as_secs() - turn
        });
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600], "n{number}");
    }
}

#[test]
fn a_copy_on_a_node_that_was_silent_for_d_stands_in_nobodys_way_and_not_a_moment_sooner() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    let mut with_a_copy = |age| {
        let mut sight = sight(3, Duration::from_millis(age));
        count(&mut sight.record).copies = Some(1);
        world.sights.insert(node(3), sight);
        decide(&world)
    };
    assert_eq!(reasons(&with_a_copy(9_999)), ["CopyElsewhere"]);
    assert_eq!(only_write(&with_a_copy(10_000)).rests_on.len(), 2, "its silence is part of the write");
}

#[test]
fn a_takeover_says_for_how_long_the_owner_was_silent() {
    let mut gone = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let owner = Owner { node: node(1), epoch: 1 };
    let lost = LeaseRecord::lost(&owner, Timestamp::UNIX_EPOCH);
    gone.sights.insert(node(1), Sight { record: lost, ..sight(1, Duration::from_secs(300)) });
    let mut target = moving(2, 1, 2, LocalVm::Absent);
    expire(&mut target, 1);
    for (world, says) in [
        (gone, "the lease of n1 was gone, and it has not written it anew for 300 s"),
        (target, "n1 has not renewed its lease for 10.0 s"),
    ] {
        let plan = decide(&world);
        assert!(only_write(&plan).message.contains(says), "{}", only_write(&plan).message);
    }
}

#[test]
fn a_claim_notes_who_starts_the_vm_when_and_why() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    world.wall = Timestamp::from_second(40).unwrap();
    expire(&mut world, 1);
    let plan = decide(&world);
    let Write { record, message, .. } = only_write(&plan);
    let start = record.last_start.as_ref().unwrap();
    assert_eq!((&start.node, start.at, start.reason.as_str()), (&node(2), world.wall, "Failover"));
    assert_eq!(&record.note, message);
}

#[test]
fn a_new_cluster_is_begun_without_a_member_that_has_no_lease_only_d_after_this_nodes_own_life_began() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    world.sights.remove(&node(3));
    let began = |world: &mut World, ago| match &mut world.lease {
        Observed::Known(verdict) => verdict.unbroken_since = ago,
        Observed::Unknown(_) => panic!("no verdict"),
    };
    let d = LeaseTimings::PATIENT.fence_after();
    for life in [None, Some(NOW), Some(NOW - (d - Duration::from_millis(1)))] {
        began(&mut world, life);
        let plan = decide(&world);
        assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["MemberNotSeen"]), "{life:?}");
        assert_eq!(plan.recheck, Some(life.unwrap_or(NOW) + d));
    }
    began(&mut world, Some(NOW - d));
    let first = decide(&world);
    assert_eq!(only_write(&first).reason.as_str(), "FirstStart");
    world.went_back = true;
    assert_eq!(reasons(&decide(&world)), ["LeaseGone"], "this store was emptied, as this node knows");
}
