//! Tests a copy that is here, where the ownership record names another node, or none.

use super::*;
use crate::intents::Asked;

/// n2 has a copy that executes; the record names n1.
fn unnamed(expects: Expectation, incoming: bool) -> World {
    let mut world = world(2, Some(1), VmPhase::Running, RUNNING);
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    (verdict.expects, verdict.incoming, verdict.copies) = (Some(expects), incoming, Some(1));
    let origin = if incoming { Origin::Migrated } else { Origin::Booted };
    world.domain = Observed::Known(DomainFacts::new(origin));
    world
}

/// Every other node has renewed so often, and says that it has so many copies.
fn renewed(world: &mut World, times: u64, number: u32, copies: u32) {
    let now = world.now;
    let sight = world.sights.get_mut(&node(number)).unwrap();
    sight.record.seq += times;
    count(&mut sight.record).copies = Some(copies);
    (sight.first_seen, sight.sent_by, sight.follows) = (now, now, now);
}

/// The controller there says so of what is there.
fn says(world: &mut World, number: u32, local_vm: LocalState) {
    let mut status = ready(number);
    here(&mut status).local_vm = local_vm;
    world.nodes.insert(node(number), Arc::new(status));
}

fn killed(plan: &Plan) -> bool {
    matches!(plan.steps.as_slice(), [Step::KillCopy { .. }])
}

fn freeze(world: &mut World) {
    let asked = Asked { by: "anna".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
    world.intents = Observed::Known(Intents { freeze: Some(asked), ..Intents::default() });
}

#[test]
fn what_nobody_of_zsha_has_started_is_ended_at_once() {
    assert!(killed(&decide(&unnamed(Expectation::Nothing, false))));
    assert!(
        killed(&decide(&unnamed(Expectation::Arrival, false))),
        "a migration was to come, and did not bring it"
    );
}

#[test]
fn how_it_came_is_told_by_the_keepers_next_look_where_libvirt_does_not_say() {
    for incoming in [true, false] {
        let mut world = unnamed(Expectation::Nothing, incoming);
        world.domain = Observed::unknown("libvirt is busy");
        let mut notes = Notes::default();
        assert_eq!(
            reasons(&plan(&world, &mut notes)),
            ["CopyNotKnown"],
            "its last look is of before it came"
        );
        let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
        verdict.counted_at = Some(NOW + Duration::from_millis(1));
        assert_eq!(killed(&plan(&world, &mut notes)), !incoming);
        if let Observed::Known(verdict) = &mut world.lease {
            verdict.counted_at = None;
        }
        renewed_at(&mut world, NOW + Duration::from_secs(100));
        let mut paused = world.clone();
        paused.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Asked, generation: 1 });
        let mut its_notes = Notes::default();
        for secs in [100, 200] {
            renewed_at(&mut paused, NOW + Duration::from_secs(secs));
            let plan = plan(&paused, &mut its_notes);
            assert_eq!(reasons(&plan), ["CopyNotKnown"], "nobody would let it run: {plan:?}");
            assert!(!plan.runs_unnamed && plan.steps.is_empty(), "{plan:?}");
        }
        let kept = plan(&world, &mut notes);
        assert_eq!(reasons(&kept), ["RunsUnnamed"], "that nobody could look is no evidence");
        assert!(kept.runs_unnamed && !killed(&kept), "{kept:?}");
        renewed(&mut world, 2, 1, 1);
        says(&mut world, 1, LocalState::Running);
        assert_eq!(reasons(&plan(&world, &mut notes)), ["TwoCopies"]);
        renewed_at(&mut world, NOW + Duration::from_secs(110));
        assert!(killed(&plan(&world, &mut notes)), "another says that it has the VM");
        renewed(&mut world, 2, 1, 0);
        assert!(!killed(&plan(&world, &mut notes)));
        let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
        (verdict.counted_at, verdict.copies) = (Some(world.now), Some(0));
        assert!(killed(&plan(&world, &mut notes)), "the keeper does not see it, and could not end it");
    }
}

#[test]
fn the_last_word_of_a_source_that_has_died_since_is_no_reason_to_end_what_it_has_sent() {
    let mut world = unnamed(Expectation::Nothing, true);
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 });
    let mut notes = Notes::default();
    for secs in 0..60 {
        renewed_at(&mut world, NOW + Duration::from_secs(secs));
        renewed(&mut world, 1, 1, 1);
        renewed(&mut world, 1, 3, 0);
        assert!(!killed(&plan(&world, &mut notes)), "it arrives");
    }
    world.local = Observed::Known(RUNNING);
    let last = world.now;
    for millis in (0..10_000).step_by(500) {
        at(&mut world, last + Duration::from_millis(millis));
        renewed(&mut world, 1, 3, 0);
        let plan = plan(&world, &mut notes);
        assert!(!killed(&plan), "{millis} ms after the source fell silent: {plan:?}");
    }
    at(&mut world, last + Duration::from_secs(10));
    renewed(&mut world, 1, 3, 0);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "ClaimedInPlace");
}

#[test]
fn what_was_restored_from_a_file_is_nobodys_though_it_was_not_booted_here() {
    let mut restored = unnamed(Expectation::Nothing, true);
    restored.domain = Observed::Known(DomainFacts::new(Origin::Restored));
    assert!(killed(&decide(&restored)), "its memory is older than the disk");
}

#[test]
fn what_was_moved_here_by_hand_is_left_alone_and_told_while_its_owner_may_live() {
    let world = unnamed(Expectation::Nothing, true);
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["RunsUnnamed"]));
    assert!(plan.runs_unnamed, "the owner hands it over");
    assert!(plan.waiting[0].message.contains("n1 hands it over"), "{:?}", plan.waiting);
}

#[test]
fn what_was_moved_here_is_claimed_where_it_runs_once_its_owner_is_dead_and_the_others_have_spoken() {
    let mut world = unnamed(Expectation::Nothing, true);
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    expire(&mut world, 1);
    renewed(&mut world, 1, 3, 0);
    assert_eq!(
        reasons(&plan(&world, &mut notes)),
        ["CopiesNotConfirmed"],
        "it may have been on its way before"
    );
    renewed(&mut world, 1, 3, 0);
    let claimed = plan(&world, &mut notes);
    let write = only_write(&claimed);
    assert_eq!((write.reason.as_str(), write.record.phase), ("ClaimedInPlace", VmPhase::Running));
    assert_eq!(write.record.owner, Some(Owner { node: node(2), epoch: 1 }));
    assert_eq!(write.fence.iter().map(|s| s.record.node.clone()).collect::<Vec<_>>(), [node(1)]);
    assert_eq!(write.rests_on.iter().map(|s| s.record.node.clone()).collect::<Vec<_>>(), [node(3)]);
}

#[test]
fn a_copy_of_this_life_of_the_lease_is_never_ended_on_the_word_of_a_record() {
    for expects in [Expectation::Own, Expectation::Unsaid] {
        for owner in [Some(1), None] {
            let mut world = unnamed(expects, false);
            world.went_back = true;
            vm(&mut world).record = record(owner, VmPhase::Running);
            let mut notes = Notes::default();
            let first = plan(&world, &mut notes);
            assert!(!killed(&first), "{expects:?} {owner:?}: {first:?}");
            if owner.is_some() {
                expire(&mut world, 1);
            } else {
                renewed(&mut world, 2, 1, 0);
            }
            renewed(&mut world, 2, 3, 0);
            assert_eq!(
                only_write(&plan(&world, &mut notes)).reason.as_str(),
                "ClaimedInPlace",
                "{expects:?} {owner:?}"
            );
        }
    }
}

#[test]
fn a_start_that_was_not_over_when_the_store_went_back_is_finished() {
    let mut world = unnamed(Expectation::Own, false);
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Asked, generation: 1 });
    vm(&mut world).record.owner = None;
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    renewed(&mut world, 2, 1, 0);
    renewed(&mut world, 2, 3, 0);
    let claimed = plan(&world, &mut notes);
    assert_eq!(
        (only_write(&claimed).reason.as_str(), only_write(&claimed).record.phase),
        ("ClaimedInPlace", VmPhase::Starting)
    );
}

#[test]
fn a_record_of_the_middle_of_a_migration_that_is_over_ends_nothing_of_what_it_has_brought() {
    let mut world = moving(3, 1, 3, RUNNING);
    assert!(killed(&decide(&world)), "it was booted here, and has not been handed over");
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    (verdict.expects, verdict.copies) = (Some(Expectation::Own), Some(1));
    let plan = decide(&world);
    assert!(plan.runs_unnamed && !killed(&plan), "this life was handed it: {plan:?}");
}

/// zsha's own move to n3 has broken off, of which n3 has not heard, and somebody has moved the guest there by hand.
#[test]
fn a_guest_that_was_moved_by_hand_to_a_node_that_stands_by_for_it_is_not_ended() {
    let mut world = moving(3, 1, 3, RUNNING);
    let Observed::Known(facts) = &mut world.domain else { panic!("no facts") };
    facts.origin = Origin::Migrated;
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    (verdict.expects, verdict.copies) = (Some(Expectation::Arrival), Some(1));
    let mut notes = Notes::default();
    for seconds in [0, 60] {
        renewed_at(&mut world, NOW + Duration::from_secs(seconds));
        let plan = plan(&world, &mut notes);
        assert!(plan.runs_unnamed && plan.steps.is_empty(), "{plan:?}");
    }
    renewed(&mut world, 2, 1, 1);
    says(&mut world, 1, LocalState::Running);
    assert!(!killed(&plan(&world, &mut notes)));
    renewed_at(&mut world, NOW + Duration::from_secs(70));
    assert!(killed(&plan(&world, &mut notes)), "its source goes on with it");
    // What zsha's own move has brought, and somebody lets run by hand.
    let mut notes = Notes::default();
    let mut arrived = world.clone();
    arrived.local = Observed::Known(ARRIVED);
    assert!(!killed(&plan(&arrived, &mut notes)));
    renewed(&mut world, 2, 1, 0);
    assert!(killed(&plan(&world, &mut notes)), "its source may go on with it");
}

#[test]
fn a_store_that_was_emptied_and_a_first_document_end_nothing() {
    let mut world = unnamed(Expectation::Own, false);
    vm(&mut world).record = VmRecord::unplaced(vm_id());
    // The others have not written their leases again yet, and one never will.
    world.sights.remove(&node(1));
    let mut notes = Notes::default();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["CopiesNotConfirmed"]);
    renewed(&mut world, 2, 3, 0);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "ClaimedInPlace");
}

#[test]
fn where_the_guest_executes_on_the_named_node_for_ten_seconds_the_unnamed_one_is_ended() {
    for (expects, incoming) in [(Expectation::Own, false), (Expectation::Nothing, true)] {
        let mut world = unnamed(expects, incoming);
        let mut notes = Notes::default();
        renewed(&mut world, 0, 1, 1);
        says(&mut world, 1, LocalState::Running);
        assert!(!killed(&plan(&world, &mut notes)), "said before it came here");
        // It runs here for a while before the other says that it has it too.
        renewed_at(&mut world, NOW + Duration::from_secs(60));
        renewed(&mut world, 2, 1, 1);
        for millis in [0, 9_999] {
            renewed_at(&mut world, NOW + Duration::from_millis(60_000 + millis));
            assert_eq!(reasons(&plan(&world, &mut notes)), ["TwoCopies"], "{expects:?} {millis}");
        }
        renewed_at(&mut world, NOW + Duration::from_secs(70));
        assert!(killed(&plan(&world, &mut notes)), "{expects:?}");
    }
}

/// Moved back by hand, it arrives there; or its old process is slow to go.
#[test]
fn a_process_on_the_named_node_that_does_not_execute_ends_no_guest_that_runs() {
    for local_vm in [LocalState::Paused, LocalState::Crashed, LocalState::Off] {
        let mut world = unnamed(Expectation::Nothing, true);
        let mut notes = Notes::default();
        plan(&world, &mut notes);
        renewed(&mut world, 2, 1, 1);
        says(&mut world, 1, local_vm);
        for seconds in [0, 10, 1_000] {
            renewed_at(&mut world, NOW + Duration::from_secs(seconds));
            let plan = plan(&world, &mut notes);
            assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["TwoCopies"]), "{local_vm}");
            assert!(plan.runs_unnamed, "that node may hand it over");
        }
    }
}

#[test]
fn where_nobody_can_say_what_the_process_on_the_named_node_does_it_takes_a_minute() {
    for (controller_alive, local_vm) in
        [(false, LocalState::Running), (true, LocalState::Unknown), (true, LocalState::Unmanaged)]
    {
        let mut world = unnamed(Expectation::Nothing, true);
        let mut notes = Notes::default();
        plan(&world, &mut notes);
        renewed(&mut world, 2, 1, 1);
        says(&mut world, 1, local_vm);
        world.sights.get_mut(&node(1)).unwrap().record.controller_alive = controller_alive;
        let (mut left, mut its_notes) = (world.clone(), notes.clone());
        for (millis, ends) in [(0, false), (59_999, false), (60_000, true)] {
            renewed_at(&mut world, NOW + Duration::from_millis(millis));
            assert_eq!(killed(&plan(&world, &mut notes)), ends, "{local_vm} {millis}");
        }
        vm(&mut left).record.departed = Some(departed());
        for seconds in [0, 1_000] {
            renewed_at(&mut left, NOW + Duration::from_secs(seconds));
            assert!(!killed(&plan(&left, &mut its_notes)), "it is known to have left n1");
        }
    }
}

fn departed() -> zsha_crds::records::Departed {
    zsha_crds::records::Departed { from: node(1), at: Timestamp::UNIX_EPOCH, seen_on: [].into() }
}

/// The last look says that it arrives still, which may be the moment of the change.
#[test]
fn a_guest_that_is_moved_back_from_a_stranger_is_let_arrive_for_as_long_as_that_takes() {
    let mut world = unnamed(Expectation::Nothing, true);
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 });
    vm(&mut world).record.departed = Some(departed());
    let mut rebooted = world.clone();
    rebooted.sights.get_mut(&node(1)).unwrap().record.epoch = 2;
    for mut world in [world, rebooted] {
        let mut notes = Notes::default();
        for seconds in [0, 10, 600] {
            renewed_at(&mut world, NOW + Duration::from_secs(seconds));
            renewed(&mut world, 3, 1, 0);
            renewed(&mut world, 3, 3, 0);
            assert_eq!(reasons(&plan(&world, &mut notes)), ["Arriving"], "after {seconds} s");
        }
        let start =
            crate::intents::Start { id: Uuid::from_u128(5), by: "anna".to_owned(), from_image: false };
        world.intents = Observed::Known(Intents { start: Some(start), ..Intents::default() });
        assert!(killed(&plan(&world, &mut notes)), "an operator has looked, and wants it started");
    }
}

#[test]
fn one_that_another_unnamed_node_claims_to_have_is_no_reason_to_end_this_one() {
    let mut world = unnamed(Expectation::Own, false);
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    renewed(&mut world, 2, 3, 1);
    renewed_at(&mut world, NOW + Duration::from_secs(60));
    assert_eq!(reasons(&plan(&world, &mut notes)), ["TwoCopies"]);
}

#[test]
fn while_frozen_nothing_is_ended_or_claimed_unless_another_has_it_too() {
    for (expects, incoming) in
        [(Expectation::Nothing, false), (Expectation::Nothing, true), (Expectation::Own, false)]
    {
        let mut world = unnamed(expects, incoming);
        freeze(&mut world);
        expire(&mut world, 1);
        let mut notes = Notes::default();
        plan(&world, &mut notes);
        renewed(&mut world, 2, 3, 0);
        let plan = plan(&world, &mut notes);
        assert_eq!(
            (plan.steps.as_slice(), reasons(&plan)),
            (&[][..], vec!["Frozen"]),
            "{expects:?} {incoming}"
        );
    }
    let mut world = unnamed(Expectation::Nothing, false);
    freeze(&mut world);
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    renewed(&mut world, 2, 1, 1);
    assert!(killed(&plan(&world, &mut notes)), "two of them would destroy the disk");
}

#[test]
fn what_still_arrives_by_a_hand_made_migration_is_let_arrive_and_put_away_when_nothing_can_come_of_it() {
    let incoming = LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 };
    let mut world = unnamed(Expectation::Nothing, true);
    world.local = Observed::Known(incoming);
    let mut notes = Notes::default();
    for secs in [0, 5, 60] {
        renewed_at(&mut world, NOW + Duration::from_secs(secs));
        renewed(&mut world, 2, 1, 1);
        renewed(&mut world, 2, 3, 0);
        assert_eq!(reasons(&plan(&world, &mut notes)), ["Arriving"], "its source has it still");
    }
    renewed(&mut world, 2, 1, 0);
    assert!(killed(&plan(&world, &mut notes)), "the source has it no more, and it did not get here");
    let mut world = unnamed(Expectation::Nothing, true);
    world.local = Observed::Known(incoming);
    expire(&mut world, 1);
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    at(&mut world, NOW + Duration::from_secs(1));
    assert!(killed(&plan(&world, &mut notes)), "its source is dead");
}

#[test]
fn what_was_brought_and_never_ran_here_is_never_claimed_since_its_source_may_have_gone_on() {
    let mut world = unnamed(Expectation::Nothing, true);
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Asked, generation: 1 });
    vm(&mut world).record.owner = None;
    let mut notes = Notes::default();
    for secs in [0, 9] {
        renewed_at(&mut world, NOW + Duration::from_secs(secs));
        renewed(&mut world, 2, 1, 0);
        renewed(&mut world, 2, 3, 0);
        let plan = plan(&world, &mut notes);
        assert!(plan.steps.is_empty() && !plan.runs_unnamed, "{plan:?}");
    }
    renewed_at(&mut world, NOW + Duration::from_secs(10));
    assert!(killed(&plan(&world, &mut notes)));
}

#[test]
fn the_keeper_is_told_what_to_expect_before_a_copy_is_started_and_that_there_is_none_when_it_is_gone() {
    let expect = |plan: &Plan| match plan.steps.first() {
        Some(Step::Expect(what)) => Some(*what),
        _ => None,
    };
    let mut mine = world(1, Some(1), VmPhase::Starting, LocalVm::Absent);
    let said = |world: &mut World, what| match &mut world.lease {
        Observed::Known(verdict) => verdict.expects = what,
        Observed::Unknown(_) => panic!("no verdict"),
    };
    // Also where it was told before: the process that it knew is gone.
    for told in [Expectation::Nothing, Expectation::Own] {
        said(&mut mine, Some(told));
        let plan = decide(&mine);
        assert_eq!(expect(&plan), Some(Expectation::Own));
        assert!(matches!(plan.steps[1], Step::Start { .. }), "{plan:?}");
    }
    said(&mut mine, None);
    assert!(matches!(decide(&mine).steps[0], Step::Start { .. }), "a keeper of an earlier build is not told");
    let mut other = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    said(&mut other, Some(Expectation::Own));
    assert_eq!(expect(&decide(&other)), Some(Expectation::Nothing));
    other.local = Observed::unknown("it hangs");
    assert_eq!(expect(&decide(&other)), None, "what cannot be seen may be here");
    let mut target = moving(3, 1, 3, LocalVm::Absent);
    said(&mut target, Some(Expectation::Nothing));
    assert_eq!(expect(&decide(&target)), Some(Expectation::Arrival));
}

#[test]
fn while_the_leases_are_listed_anew_nothing_is_put_away_for_want_of_them() {
    let mut world = unnamed(Expectation::Nothing, true);
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 });
    let mut notes = Notes::default();
    // Its record may be on its way for a moment; then it is seen to come without one.
    for seconds in [0, 2] {
        renewed_at(&mut world, NOW + Duration::from_secs(seconds));
        assert_eq!(reasons(&plan(&world, &mut notes)), ["Arriving"]);
    }
    renewed_at(&mut world, NOW + Duration::from_secs(30));
    for number in [1, 3] {
        renewed(&mut world, 3, number, 0);
    }
    let mut unseen = world.clone();
    unseen.sights.clear();
    assert_eq!(reasons(&plan(&unseen, &mut notes)), ["Arriving"]);
    assert!(killed(&plan(&world, &mut notes)), "everybody is seen to have none");
}

#[test]
fn one_that_runs_here_with_a_part_of_its_memory_at_its_source_is_not_ended_for_that_ones_word() {
    let mut world = unnamed(Expectation::Nothing, true);
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    renewed_at(&mut world, NOW + Duration::from_secs(60));
    renewed(&mut world, 3, 1, 1);
    says(&mut world, 1, LocalState::Running);
    let facts = DomainFacts { post_copy: true, ..DomainFacts::new(Origin::Migrated) };
    world.domain = Observed::Known(facts);
    for seconds in [60, 90] {
        renewed_at(&mut world, NOW + Duration::from_secs(seconds));
        assert_eq!(reasons(&plan(&world, &mut notes)), ["TwoCopies"]);
    }
    world.domain = Observed::Known(DomainFacts { post_copy: false, ..DomainFacts::new(Origin::Migrated) });
    assert!(killed(&plan(&world, &mut notes)));
}

#[test]
fn a_guest_that_was_moved_here_while_it_was_paused_is_kept_once_its_owner_has_written_that_down() {
    let mut world = unnamed(Expectation::Nothing, true);
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Asked, generation: 1 });
    let departed = |seen_on: u32| zsha_crds::records::Departed {
        from: node(1),
        at: Timestamp::UNIX_EPOCH,
        seen_on: [node(seen_on)].into(),
    };
    vm(&mut world).record.departed = Some(departed(2));
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    renewed_at(&mut world, NOW + Duration::from_secs(60));
    renewed(&mut world, 3, 1, 0);
    renewed(&mut world, 3, 3, 0);
    let kept = plan(&world, &mut notes);
    assert_eq!((kept.steps.as_slice(), reasons(&kept), kept.runs_unnamed), (&[][..], vec!["Paused"], true));
    let mut orphaned = world.clone();
    expire(&mut orphaned, 1);
    orphaned.sights.get_mut(&node(1)).unwrap().sent_by = Moment::from_millis(0);
    let claimed = plan(&orphaned, &mut notes);
    assert_eq!(only_write(&claimed).reason.as_str(), "ClaimedInPlace", "its owner is dead");
    vm(&mut world).record.departed = Some(departed(3));
    assert!(killed(&plan(&world, &mut notes)), "it has not been seen here");
}
