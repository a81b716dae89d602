//! Tests an owner whose copy has gone by no step of zsha's.

use zsha_crds::records::Departed;

use super::*;
use crate::intents::{Asked, Start};
use crate::plan::departed::has_died_there;

const MOVED: LocalVm = LocalVm::Off { reason: OffReason::Migrated };

fn departed(seen_on: &[u32]) -> Departed {
    Departed { from: node(1), at: Timestamp::UNIX_EPOCH, seen_on: seen_on.iter().map(|n| node(*n)).collect() }
}

/// n1 is the owner, and its guest has been moved away by somebody.
fn moved_away(seen_on: &[u32]) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, MOVED);
    vm(&mut world).record.departed = Some(departed(seen_on));
    world
}

/// The others have renewed twice, and n2 says that it has so many copies.
fn heard(world: &mut World, of_n2: u32) {
    for number in [2, 3] {
        let now = world.now;
        let sight = world.sights.get_mut(&node(number)).unwrap();
        sight.record.seq += 2;
        count(&mut sight.record).copies = Some(if number == 2 { of_n2 } else { 0 });
        (sight.first_seen, sight.sent_by, sight.follows) = (now, now, now);
    }
}

/// Its owner had no controller, and its keeper set it free.
#[test]
fn what_the_keeper_of_a_dead_controller_says_of_it_is_written_down_before_anything_is_claimed() {
    for frozen in [false, true] {
        let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
        let sight = world.sights.get_mut(&node(1)).unwrap();
        sight.record.epoch = 2;
        count(&mut sight.record).moved_away_in = Some(1);
        if frozen {
            let asked = Asked { by: "anna".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
            world.intents = Observed::Known(Intents { freeze: Some(asked), ..Intents::default() });
        }
        let plan = decide(&world);
        let write = only_write(&plan);
        assert_eq!((write.reason.as_str(), &write.record.owner), ("MovedAway", &vm_of(&world).owner));
        assert_eq!(write.record.departed, Some(departed(&[])));
        vm(&mut world).record.departed = Some(departed(&[]));
        heard(&mut world, 0);
        assert!(decide(&world).steps.is_empty(), "nobody takes it");
    }
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let sight = world.sights.get_mut(&node(1)).unwrap();
    sight.record.epoch = 2;
    count(&mut sight.record).moved_away_in = Some(1);
    count(&mut world.sights.get_mut(&node(3)).unwrap().record).copies = Some(1);
    assert_eq!(only_write(&decide(&world)).record.departed, Some(departed(&[3])), "it was seen there");
    vm(&mut world).record.phase = VmPhase::Starting;
    assert_ne!(plan_write_reason(&world), Some("MovedAway"), "it was never started there");
}

/// It had lost its lease, or been frozen, before it could write that down.
#[test]
fn an_owner_that_returns_does_not_start_what_its_libvirt_says_was_moved_away() {
    let mut world = world(1, Some(1), VmPhase::Running, MOVED);
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.epoch = 2;
    world.sights.get_mut(&node(1)).unwrap().record.epoch = 2;
    heard(&mut world, 0);
    let plan = decide(&world);
    assert_eq!(only_write(&plan).reason.as_str(), "MovedAway");
    assert_eq!(only_write(&plan).record.departed, Some(departed(&[])));
    world.local = Observed::Known(LocalVm::Off { reason: OffReason::Died });
    assert!(plan_write_reason(&world) != Some("MovedAway"), "it has died here");
}

fn plan_write_reason(world: &World) -> Option<&'static str> {
    decide(world).steps.iter().find_map(|step| match step {
        Step::Write(write) => Some(write.reason.as_str()),
        _ => None,
    })
}

fn says_start(world: &mut World) {
    let start = Start { id: Uuid::from_u128(5), by: "anna".to_owned(), from_image: false };
    world.intents = Observed::Known(Intents { start: Some(start), ..Intents::default() });
}

#[test]
fn a_guest_that_was_moved_past_zsha_is_started_by_nobody_and_that_is_written_down() {
    let plan = decide(&world(1, Some(1), VmPhase::Running, MOVED));
    let write = only_write(&plan);
    assert_eq!(
        (write.reason.as_str(), &write.record.owner),
        ("MovedAway", &Some(Owner { node: node(1), epoch: 1 }))
    );
    assert_eq!(write.record.departed, Some(departed(&[])));
    let (mut world, mut notes) = (moved_away(&[]), Notes::default());
    for secs in [0, 10, 10_000] {
        renewed_at(&mut world, NOW + Duration::from_secs(secs));
        heard(&mut world, 0);
        let plan = super::plan(&world, &mut notes);
        assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["MovedAway"]), "after {secs} s");
    }
    let told = &super::plan(&world, &mut notes).waiting[0].message;
    assert!(told.contains("virsh list") && told.contains("zsha start"), "{told}");
}

#[test]
fn no_other_node_takes_it_over_either_when_its_owner_dies() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut world).record.departed = Some(departed(&[]));
    expire(&mut world, 1);
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["MovedAway"]));
    says_start(&mut world);
    let write = decide(&world);
    let write = only_write(&write);
    assert_eq!((write.reason.as_str(), &write.record.departed), ("Failover", &None));
    vm(&mut world).record.departed = Some(departed(&[3]));
    world.intents = Observed::Known(Intents::default());
    assert_eq!(reasons(&decide(&world)), ["MovedAway"], "n3 had a process, and may have sent it on");
}

/// It has said that it has the guest whole, and then lost its power.
fn has_died(world: &mut World, number: u32) {
    let mut status = ready(number);
    here(&mut status).runs_unnamed = true;
    world.nodes.insert(node(number), Arc::new(status));
    expire(world, number);
    count(&mut world.sights.get_mut(&node(number)).unwrap().record).copies = Some(1);
}

#[test]
fn only_with_every_node_that_it_was_seen_on_whole_has_a_guest_died_where_it_went() {
    let mut both = moved_away(&[2, 3]);
    has_died(&mut both, 2);
    assert!(!has_died_there(&both, &departed(&[])));
    assert!(has_died_there(&both, &departed(&[2])));
    assert!(!has_died_there(&both, &departed(&[2, 3])), "n3 lives");
    has_died(&mut both, 3);
    assert!(has_died_there(&both, &departed(&[2, 3])));
    for change in [
        |world: &mut World| count(&mut world.sights.get_mut(&node(2)).unwrap().record).copies = Some(0),
        |world: &mut World| drop(world.sights.remove(&node(2))),
        |world: &mut World| drop(world.nodes.insert(node(2), Arc::new(ready(2)))),
        |world: &mut World| drop(world.nodes.remove(&node(2))),
        // What it says may be of any time.
        |world: &mut World| world.went_back = true,
        |world: &mut World| world.sights.get_mut(&node(2)).unwrap().record.controller_alive = false,
    ] {
        let mut world = both.clone();
        change(&mut world);
        assert!(!has_died_there(&world, &departed(&[2])));
    }
}

/// `virsh migrate` from a stranger to a node, broken off; or two moves by hand, the second to a stranger.
#[test]
fn a_process_that_came_and_went_on_a_node_lets_nobody_start_the_vm() {
    let (mut world, mut notes) = (moved_away(&[]), Notes::default());
    plan(&world, &mut notes);
    heard(&mut world, 1);
    vm(&mut world).record = only_write(&plan(&world, &mut notes)).record.clone();
    assert_eq!(vm_of(&world).departed, Some(departed(&[2])));
    for seconds in [0, 60, 6_000] {
        renewed_at(&mut world, NOW + Duration::from_secs(seconds));
        heard(&mut world, 0);
        let plan = plan(&world, &mut notes);
        assert_eq!(
            (plan.steps.as_slice(), reasons(&plan)),
            (&[][..], vec!["MovedAway"]),
            "after {seconds} s"
        );
        assert!(plan.waiting[0].message.contains("was seen on n2"), "{}", plan.waiting[0].message);
    }
    says_start(&mut world);
    assert_eq!(only_write(&plan(&world, &mut notes)).record.phase, VmPhase::Starting);
}

/// The record had said that it has left, and one of before that was put back. Its owner is dead.
#[test]
fn that_a_guest_has_left_is_written_down_again_after_a_restore_of_before() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    expire(&mut world, 1);
    assert_ne!(plan_write_reason(&world), Some("MovedAway"));
    world.departed_before = Some(departed(&[]));
    let plan = decide(&world);
    let write = only_write(&plan);
    assert_eq!((write.reason.as_str(), &write.record.owner), ("MovedAway", &vm_of(&world).owner));
    assert_eq!(write.record.departed, Some(departed(&[])));
    assert!(write.record.note.contains("put back to an older state"), "{}", write.record.note);
    vm(&mut world).record.phase = VmPhase::Starting;
    assert_eq!(plan_write_reason(&world), Some("MovedAway"), "and where the snapshot is of its start");
    // Its owner, whose controller was started since.
    let mut world = super::world(1, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut world).written = None;
    world.departed_before = Some(departed(&[]));
    heard(&mut world, 0);
    let mut notes = Notes::default();
    let adopted = super::plan(&world, &mut notes);
    assert_eq!(
        (only_write(&adopted).reason.as_str(), &only_write(&adopted).record.departed),
        ("Adopted", &Some(departed(&[])))
    );
}

#[test]
fn an_operator_who_says_start_is_obeyed_once_the_others_have_said_that_they_have_none() {
    let (mut world, mut notes) = (moved_away(&[]), Notes::default());
    says_start(&mut world);
    assert_eq!(reasons(&plan(&world, &mut notes)), ["CopiesNotConfirmed"], "{:?}", notes.seen.gone);
    heard(&mut world, 1);
    plan(&world, &mut notes);
    assert!(plan(&world, &mut notes).steps.iter().all(|step| !matches!(step, Step::Start { .. })));
    heard(&mut world, 0);
    let starting = plan(&world, &mut notes);
    let write = only_write(&starting);
    assert_eq!((write.record.phase, &write.record.departed), (VmPhase::Starting, &None));
    assert_eq!(write.rests_on.len(), 2, "with their word in the write");
    vm(&mut world).record = write.record.clone();
    let start = plan(&world, &mut notes);
    assert!(matches!(start.steps.as_slice(), [Step::Start { .. }]), "libvirt says Migrated still: {start:?}");
}

#[test]
fn where_it_was_seen_to_go_is_written_down_and_once_it_has_died_there_it_is_started() {
    let (mut world, mut notes) = (moved_away(&[]), Notes::default());
    plan(&world, &mut notes);
    heard(&mut world, 1);
    let seen = plan(&world, &mut notes);
    let write = only_write(&seen);
    assert_eq!((write.reason.as_str(), &write.record.departed), ("SeenElsewhere", &Some(departed(&[2]))));
    vm(&mut world).record = write.record.clone();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["CopyElsewhere"]);
    has_died(&mut world, 2);
    let started = plan(&world, &mut notes);
    let write = only_write(&started);
    assert_eq!((write.record.phase, &write.record.departed), (VmPhase::Starting, &None));
    assert_eq!(write.rests_on.len(), 2, "and only if n2 has said nothing meanwhile");
}

#[test]
fn the_node_that_runs_it_is_handed_it_by_an_owner_that_has_none() {
    for (local, written) in [(MOVED, Some(NOW)), (LocalVm::Absent, None)] {
        let mut world = world(1, Some(1), VmPhase::Running, local);
        vm(&mut world).written = written;
        heard(&mut world, 1);
        let mut status = ready(2);
        here(&mut status).runs_unnamed = true;
        world.nodes.insert(node(2), Arc::new(status.clone()));
        let plan = decide(&world);
        let write = only_write(&plan);
        assert_eq!((write.reason.as_str(), write.record.phase), ("FoundElsewhere", VmPhase::Running));
        assert_eq!(write.record.owner, Some(Owner { node: node(2), epoch: 1 }));
        if let Observed::Known(verdict) = &mut world.lease {
            verdict.copies = Some(1);
        }
        let plan = decide(&world);
        let hands_over =
            |step: &Step| matches!(step, Step::Write(write) if write.reason.as_str() == "FoundElsewhere");
        assert!(!plan.steps.iter().any(hands_over), "the keeper still sees one here: {plan:?}");
        if let Observed::Known(verdict) = &mut world.lease {
            verdict.copies = Some(0);
        }
        let mut asleep = world.clone();
        asleep.sights.get_mut(&node(2)).unwrap().record.controller_alive = false;
        assert!(!decide(&asleep).steps.iter().any(hands_over), "nobody there would let it be");
        status.node = node(3);
        world.nodes.insert(node(3), Arc::new(status));
        assert!(!decide(&world).steps.iter().any(hands_over), "two say so");
    }
}

#[test]
fn a_start_that_is_under_way_is_not_gone_on_with_beside_a_copy_that_has_come_since() {
    for frozen in [false, true] {
        let mut world = world(1, Some(1), VmPhase::Starting, LocalVm::Off { reason: OffReason::Died });
        if frozen {
            let asked = Asked { by: "anna".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
            world.intents = Observed::Known(Intents { freeze: Some(asked), ..Intents::default() });
        }
        let starts =
            |world: &World| decide(world).steps.iter().any(|step| matches!(step, Step::Start { .. }));
        heard(&mut world, 0);
        assert!(starts(&world), "frozen: {frozen}");
        heard(&mut world, 1);
        assert!(!starts(&world) && reasons(&decide(&world)).contains(&"CopyElsewhere"), "frozen: {frozen}");
    }
}

/// The record is of a time when the VM was to be moved from n1 to n3. It runs on n2, and n1 is dead.
#[test]
fn the_node_that_runs_it_is_handed_it_by_the_target_of_a_migration_that_has_none() {
    let mut world = moving(3, 1, 3, LocalVm::Absent);
    let mut status = ready(2);
    here(&mut status).runs_unnamed = true;
    world.nodes.insert(node(2), Arc::new(status));
    count(&mut world.sights.get_mut(&node(2)).unwrap().record).copies = Some(1);
    assert_eq!(decide(&world).steps, [], "the source may live");
    expire(&mut world, 1);
    let handed = decide(&world);
    let write = only_write(&handed);
    assert_eq!(
        (write.reason.as_str(), &write.record.owner),
        ("FoundElsewhere", &Some(Owner { node: node(2), epoch: 1 }))
    );
    assert_eq!((&write.record.migration, write.fence.len()), (&None, 1));
    let asked = Asked { by: "anna".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
    let mut frozen = world.clone();
    frozen.intents = Observed::Known(Intents { freeze: Some(asked), ..Intents::default() });
    assert_eq!(decide(&frozen).steps, []);
    world.local = Observed::Known(ARRIVED);
    assert!(matches!(decide(&world).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn whoever_has_a_copy_keeps_the_owner_from_starting_one_however_its_own_has_ended() {
    for reason in [OffReason::Died, OffReason::Shutdown, OffReason::Destroyed, OffReason::Unknown] {
        let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Off { reason });
        let mut notes = Notes::default();
        plan(&world, &mut notes);
        heard(&mut world, 1);
        let waits = plan(&world, &mut notes);
        assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["CopyElsewhere"]), "{reason:?}");
        heard(&mut world, 0);
        assert_eq!(only_write(&plan(&world, &mut notes)).rests_on.len(), 2, "{reason:?}");
    }
}

#[test]
fn an_end_of_which_nothing_is_known_is_no_end_before_the_others_have_spoken_since() {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Absent);
    let mut notes = Notes::default();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["CopiesNotConfirmed"]);
    heard(&mut world, 0);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "NotRunning");
}

#[test]
fn one_that_is_back_is_no_longer_said_to_be_away() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    vm(&mut world).record.departed = Some(departed(&[2]));
    let plan = decide(&world);
    assert_eq!(
        (only_write(&plan).reason.as_str(), &only_write(&plan).record.departed),
        ("FoundAgain", &None)
    );
}

/// The owner of a guest that has left was told to expect nothing; something runs here, and came so.
fn back(origin: Origin) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    vm(&mut world).record.departed = Some(departed(&[]));
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.expects = Some(Expectation::Nothing);
    world.domain = Observed::Known(DomainFacts::new(origin));
    world
}

#[test]
fn what_is_started_by_hand_where_the_vm_has_left_is_not_the_vm() {
    for origin in [Origin::Booted, Origin::Restored] {
        let plan = decide(&back(origin));
        assert!(matches!(plan.steps.as_slice(), [Step::KillCopy { .. }]), "{origin:?}: {plan:?}");
    }
    let plan = decide(&back(Origin::Unknown));
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["CopyNotKnown"]));
    let plan = decide(&back(Origin::Migrated));
    let [Step::Expect(Expectation::Own), Step::Write(write)] = plan.steps.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!(write.reason.as_str(), "FoundAgain");
}

/// The store is away, and nothing can be written down.
#[test]
fn what_is_started_by_hand_before_it_is_written_that_the_vm_has_left_is_not_the_vm_either() {
    let tell = |world: &mut World, what| {
        let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
        verdict.expects = Some(what);
    };
    for how in [OffReason::Migrated, OffReason::Unread] {
        let (mut world, mut notes) =
            (world(1, Some(1), VmPhase::Running, LocalVm::Off { reason: how }), Notes::default());
        tell(&mut world, Expectation::Own);
        assert_eq!(plan(&world, &mut notes).steps[0], Step::Expect(Expectation::Nothing), "{how:?}");
        tell(&mut world, Expectation::Nothing);
        world.local = Observed::Known(RUNNING);
        let beside = plan(&world, &mut notes);
        assert!(matches!(beside.steps.as_slice(), [Step::KillCopy { .. }]), "{how:?}: {beside:?}");
        // Its end hides that of the VM.
        world.local = Observed::Known(LocalVm::Off { reason: OffReason::Died });
        notes.seen.unread_since = Some(NOW - Duration::from_secs(60));
        heard(&mut world, 0);
        let after = plan(&world, &mut notes);
        assert_eq!(only_write(&after).reason.as_str(), "MovedAway", "{how:?}: {after:?}");
        if let Observed::Known(facts) = &mut world.domain {
            facts.origin = Origin::Migrated;
        }
        world.local = Observed::Known(RUNNING);
        assert_eq!(plan(&world, &mut notes).steps[0], Step::Expect(Expectation::Own), "it was brought back");
        tell(&mut world, Expectation::Own);
        world.local = Observed::Known(LocalVm::Off { reason: OffReason::Died });
        assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "QemuDied", "and has died here");
    }
}

/// One look that failed must not keep the VM down for ever.
#[test]
fn a_log_that_can_be_read_again_says_how_the_vm_has_ended_unless_another_was_here_since() {
    let unread = || world(1, Some(1), VmPhase::Running, LocalVm::Off { reason: OffReason::Unread });
    let ends = |world: &mut World, how| world.local = Observed::Known(LocalVm::Off { reason: how });
    let (mut world, mut notes) = (unread(), Notes::default());
    assert_eq!(reasons(&plan(&world, &mut notes)), ["LogUnread"]);
    ends(&mut world, OffReason::Died);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "QemuDied");

    let (mut world, mut notes) = (unread(), Notes::default());
    plan(&world, &mut notes);
    ends(&mut world, OffReason::Migrated);
    plan(&world, &mut notes);
    ends(&mut world, OffReason::Unread);
    plan(&world, &mut notes);
    assert_eq!(notes.seen.left_as.unwrap().how, OffReason::Migrated, "what was read stands");

    // One that says nothing of an end is no word of it.
    for nothing in [LocalVm::Absent, LocalVm::Off { reason: OffReason::Unknown }] {
        let (mut world, mut notes) = (unread(), Notes::default());
        plan(&world, &mut notes);
        world.local = Observed::Known(nothing);
        world.last_end = Observed::Known(None);
        assert_eq!(reasons(&plan(&world, &mut notes)), ["LogUnread"], "{nothing:?}");
        world.last_end = Observed::Known(Some(OffReason::Unknown));
        assert_eq!(
            reasons(&plan(&world, &mut notes)),
            ["CopiesNotConfirmed"],
            "it was saved: the others are asked"
        );
    }

    // Another was here in between, which no look of the hypervisor has shown: the keeper has ended it, or has counted it.
    let ended = |verdict: &mut Verdict| verdict.unexpected = Some(Ended { count: 1, at: NOW });
    let counted = |verdict: &mut Verdict| {
        (verdict.copies, verdict.counted_at) = (Some(1), Some(NOW + Duration::from_secs(1)));
    };
    for seen in [&ended as &dyn Fn(&mut Verdict), &counted] {
        let (mut world, mut notes) = (unread(), Notes::default());
        plan(&world, &mut notes);
        let before = world.lease.clone();
        if let Observed::Known(verdict) = &mut world.lease {
            seen(verdict);
        }
        // While libvirt is silent, too.
        world.local = Observed::unknown("no answer");
        plan(&world, &mut notes);
        world.lease = before;
        ends(&mut world, OffReason::Died);
        assert_eq!(reasons(&plan(&world, &mut notes)), ["LogUnread"]);
    }
}

/// It was seen before libvirt fell silent, and its log tells of another by now.
#[test]
fn a_vm_that_was_seen_to_have_left_is_not_given_up_without_a_word_where_libvirt_is_silent_since() {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Off { reason: OffReason::Migrated });
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    world.local = Observed::unknown("no answer");
    world.last_end = Observed::Known(Some(OffReason::Died));
    plan(&world, &mut notes);
    renewed_at(&mut world, NOW + Duration::from_secs(20));
    heard(&mut world, 0);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "MovedAway");
}

/// The controller was started anew while libvirt was slow to do what the one before had asked for.
#[test]
fn a_start_that_comes_late_is_the_vm() {
    let mut world = world(1, Some(1), VmPhase::Starting, LocalVm::Absent);
    vm(&mut world).written = None;
    if let Observed::Known(verdict) = &mut world.lease {
        verdict.expects = Some(Expectation::Own);
    }
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "Adopted", "and the keeper is told nothing else");
    vm(&mut world).record.phase = VmPhase::Running;
    assert_eq!(
        decide(&world).steps[0],
        Step::Expect(Expectation::Nothing),
        "nothing of its own is on the way"
    );
}

#[test]
fn where_libvirt_does_not_say_how_it_came_the_keeper_tells_by_its_command_line() {
    for (copies, incoming, expected) in [
        (Some(1), true, Some(true)),
        (Some(1), false, Some(false)),
        (Some(0), false, None),
        (None, true, None),
    ] {
        let mut world = back(Origin::Unknown);
        let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
        (verdict.copies, verdict.incoming) = (copies, incoming);
        assert_eq!(crate::plan::expecting::is_the_vm(&world), expected, "{copies:?} {incoming}");
    }
}

#[test]
fn the_keeper_of_an_owner_whose_vm_has_left_is_told_to_expect_nothing() {
    let told = |world: &World| match decide(world).steps.first() {
        Some(Step::Expect(what)) => Some(*what),
        _ => None,
    };
    let expects_own = |mut world: World| {
        let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
        verdict.expects = Some(Expectation::Own);
        world
    };
    assert_eq!(told(&expects_own(moved_away(&[]))), Some(Expectation::Nothing));
    let mut unseen = expects_own(moved_away(&[]));
    unseen.local = Observed::unknown("it hangs");
    assert_eq!(told(&unseen), None, "what cannot be seen may be here");
    let mut here = expects_own(moved_away(&[]));
    here.local = Observed::Known(RUNNING);
    assert_eq!(told(&here), None, "its own is here");
    let mut restarted = expects_own(world(1, Some(1), VmPhase::Running, LocalVm::Absent));
    vm(&mut restarted).written = None;
    assert_eq!(told(&restarted), Some(Expectation::Nothing), "a start that is to come says so first");
}

#[test]
fn a_start_of_before_the_guest_left_is_not_the_word_of_somebody_who_has_looked() {
    let mut away = world(1, Some(1), VmPhase::Running, MOVED);
    says_start(&mut away);
    let (mut its, mut notes) = (away.clone(), Notes::default());
    let write = only_write(&plan(&its, &mut notes)).record.clone();
    assert_eq!((write.departed.is_some(), write.start_taken_up), (true, Some(Uuid::from_u128(5))));
    vm(&mut its).record = write;
    heard(&mut its, 0);
    assert_eq!(reasons(&plan(&its, &mut notes)), ["MovedAway"]);
    // The same where another node writes it down.
    let mut other = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    says_start(&mut other);
    let sight = other.sights.get_mut(&node(1)).unwrap();
    sight.record.epoch = 2;
    count(&mut sight.record).moved_away_in = Some(1);
    let write = only_write(&decide(&other)).record.clone();
    assert_eq!((write.departed.is_some(), write.start_taken_up), (true, Some(Uuid::from_u128(5))));
}

/// libvirt on the owner has stopped, and there is no copy.
#[test]
fn an_owner_that_cannot_see_its_hypervisor_gives_the_vm_up_only_where_it_is_written_that_it_has_ended() {
    let blind = |last_end: Observed<Option<OffReason>>, phase: VmPhase| {
        let mut world = world(1, Some(1), phase, LocalVm::Absent);
        world.local = Observed::unknown("libvirt does not answer");
        world.last_end = last_end;
        world.host = Observed::unknown("libvirt does not answer");
        let (mut notes, mut written) = (Notes::default(), Vec::new());
        assert!(plan(&world, &mut notes).steps.is_empty());
        for seconds in [15, 16, 75, 76] {
            renewed_at(&mut world, NOW + Duration::from_secs(seconds));
            let plan = plan(&world, &mut notes);
            let [Step::Write(write)] = plan.steps.as_slice() else { continue };
            if seconds == 75 {
                written.push("after a minute");
            }
            written.push(write.reason.as_str());
            vm(&mut world).record = write.record.clone();
            if write.record.owner.is_none() {
                break;
            }
        }
        written
    };
    for ended in [None, Some(OffReason::Died), Some(OffReason::Shutdown)] {
        assert_eq!(blind(Observed::Known(ended), VmPhase::Running), ["GaveUp"], "{ended:?}");
    }
    let moved = || Observed::Known(Some(OffReason::Migrated));
    let both = ["MovedAway", "GaveUp"];
    assert_eq!(blind(moved(), VmPhase::Running), both, "the record keeps everybody from starting it");
    assert_eq!(
        blind(Observed::unknown("it hangs"), VmPhase::Running),
        ["after a minute", "MovedAway", "GaveUp"]
    );
    assert_eq!(blind(moved(), VmPhase::Starting), ["GaveUp"], "that is how an earlier copy has ended");
}

#[test]
fn a_vm_that_is_gone_without_a_word_may_have_left_where_the_log_cannot_be_read() {
    let gone = |local: LocalVm, last_end: Observed<Option<OffReason>>, owner: u32| {
        let mut world = world(1, Some(owner), VmPhase::Running, local);
        world.last_end = last_end;
        world.doubt_what_is_gone_without_a_word();
        world.local.known().copied()
    };
    let (absent, off) = (LocalVm::Absent, |reason| Some(LocalVm::Off { reason }));
    let unread = || Observed::unknown("no such file");
    for nothing in [absent, LocalVm::Off { reason: OffReason::Unknown }] {
        assert_eq!(gone(nothing, unread(), 1), off(OffReason::Unread));
        assert_eq!(gone(nothing, Observed::Known(None), 1), Some(nothing), "it says nothing of an end");
        let moved = OffReason::Migrated;
        assert_eq!(gone(nothing, Observed::Known(Some(moved)), 1), off(moved), "it can be read by now");
    }
    let told = LocalVm::Off { reason: OffReason::Shutdown };
    assert_eq!(gone(told, unread(), 1), Some(told), "libvirt has said so itself");
    assert_eq!(gone(absent, unread(), 2), Some(absent), "another node has it");
    let mut before = world(1, Some(1), VmPhase::Running, absent);
    before.last_end = unread();
    if let Observed::Known(verdict) = &mut before.lease {
        verdict.epoch += 1;
    }
    before.doubt_what_is_gone_without_a_word();
    assert_eq!(before.local.known(), Some(&absent), "it was here in an earlier life");
}

#[test]
fn what_may_have_left_is_waited_for_and_then_started_by_an_operator_only() {
    let unread = || {
        let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Off { reason: OffReason::Unread });
        world.last_end = Observed::unknown("no such file");
        world
    };
    let frozen = |world: &mut World| {
        let asked = Asked { by: "anna".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
        world.intents = Observed::Known(Intents { freeze: Some(asked), ..Intents::default() });
    };
    let stopped = |world: &mut World| {
        let stop = crate::intents::Stop { at: Timestamp::UNIX_EPOCH, limit: None };
        world.intents = Observed::Known(Intents { stop: Some(stop), ..Intents::default() });
    };
    for asked in [&|_: &mut World| {}, &frozen as &dyn Fn(&mut World), &stopped] {
        let (mut world, mut notes) = (unread(), Notes::default());
        asked(&mut world);
        for secs in [0, 59] {
            renewed_at(&mut world, NOW + Duration::from_secs(secs));
            heard(&mut world, 0);
            let plan = plan(&world, &mut notes);
            assert_eq!(
                (plan.steps.as_slice(), reasons(&plan)),
                (&[][..], vec!["LogUnread"]),
                "after {secs} s"
            );
        }
        renewed_at(&mut world, NOW + Duration::from_secs(60));
        heard(&mut world, 0);
        let plan = plan(&world, &mut notes);
        assert_eq!(
            (only_write(&plan).reason.as_str(), only_write(&plan).record.departed.is_some()),
            ("MovedAway", true)
        );
    }
    let mut world = unread();
    heard(&mut world, 1);
    let mut status = ready(2);
    here(&mut status).runs_unnamed = true;
    world.nodes.insert(node(2), Arc::new(status));
    assert_eq!(
        only_write(&decide(&world)).reason.as_str(),
        "FoundElsewhere",
        "that node says that it has it"
    );
}

#[test]
fn that_a_guest_has_left_is_said_as_surely_as_it_is_known() {
    let note = |local: Observed<LocalVm>, last_end: Observed<Option<OffReason>>| {
        let mut world = world(1, Some(1), VmPhase::Running, MOVED);
        (world.local, world.last_end) = (local, last_end);
        let mut notes = Notes {
            seen: Seen { unread_since: Some(NOW - Duration::from_secs(60)), ..Seen::default() },
            ..Notes::default()
        };
        notes.seen.blind_since = Some(NOW - Duration::from_secs(60));
        only_write(&plan(&world, &mut notes)).record.note.clone()
    };
    let silent = || Observed::unknown("libvirt does not answer");
    let gone =
        note(Observed::Known(LocalVm::Off { reason: OffReason::Unread }), Observed::unknown("no such file"));
    assert!(gone.contains("or may have") && gone.contains("could not be read"), "{gone}");
    let sure = note(Observed::Known(MOVED), Observed::unknown("it was not asked for"));
    assert!(!sure.contains("may have") && !sure.contains("log"), "{sure}");
    let written = note(silent(), Observed::Known(Some(OffReason::Migrated)));
    assert!(
        written.contains("as the log of libvirt there says") && !written.contains("may have"),
        "{written}"
    );
    let unread = note(silent(), Observed::unknown("permission denied"));
    assert!(unread.contains("or may have") && unread.contains("could not be read"), "{unread}");
}

/// The guest is at its target, whole, and waits to be let run.
#[test]
fn what_zsha_moves_itself_is_not_said_to_have_left_by_an_owner_that_cannot_see_its_hypervisor() {
    let mut world = moving(1, 1, 3, LocalVm::Absent);
    world.local = Observed::unknown("libvirt does not answer");
    world.host = Observed::unknown("libvirt does not answer");
    world.last_end = Observed::Known(Some(OffReason::Migrated));
    let mut notes = Notes::default();
    plan(&world, &mut notes);
    renewed_at(&mut world, NOW + Duration::from_secs(15));
    let plan = plan(&world, &mut notes);
    let write = only_write(&plan);
    assert_eq!((write.reason.as_str(), write.record.migration.is_some()), ("GaveUp", true));
}

#[test]
fn a_log_that_could_not_be_read_once_long_ago_says_nothing() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    let mut notes = Notes {
        seen: Seen { unread_since: Some(NOW - Duration::from_secs(3_600)), ..Seen::default() },
        ..Notes::default()
    };
    plan(&world, &mut notes);
    assert_eq!(notes.seen.unread_since, None);
    notes.seen.unread_since = Some(NOW);
    world.lease = Observed::unknown("the keeper does not answer");
    plan(&world, &mut notes);
    assert_eq!(notes.seen.unread_since, None);
}

/// `virsh migrate` from n1 to n2, whose end libvirt on n1 has missed.
#[test]
fn a_guest_that_a_migration_by_hand_has_left_paused_never_goes_on_with_its_old_memory() {
    let paused = LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 };
    let ended = |plan: &Plan| matches!(plan.steps.as_slice(), [Step::KillCopy { .. }]);
    let mut world = world(1, Some(1), VmPhase::Running, paused);
    let mut notes = Notes::default();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["CopiesNotConfirmed"], "said before it was left");
    heard(&mut world, 1);
    let waits = plan(&world, &mut notes);
    assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["CopyElsewhere"]));
    let mut alone = world.clone();
    heard(&mut alone, 0);
    assert!(ended(&plan(&alone, &mut notes.clone())), "it is started afresh");
    let mut status = ready(2);
    here(&mut status).runs_unnamed = true;
    world.nodes.insert(node(2), Arc::new(status));
    assert!(ended(&plan(&world, &mut notes)), "it runs on n2");
    let mut off = world.clone();
    off.local = Observed::Known(LocalVm::Off { reason: OffReason::Destroyed });
    assert_eq!(only_write(&decide(&off)).reason.as_str(), "FoundElsewhere", "and then it is handed over");
    let mut its_notes = Notes::default();
    its_notes.seen.migration.left_by_ours = true;
    let goes_on = plan(&world, &mut its_notes);
    assert!(matches!(goes_on.steps.as_slice(), [Step::Resume { .. }]), "zsha's own has left it: {goes_on:?}");
    off.local = Observed::Known(RUNNING);
    plan(&off, &mut its_notes);
    assert!(!its_notes.seen.migration.left_by_ours, "it has gone on since");
    vm(&mut world).record.departed = Some(departed(&[]));
    for seconds in [0, 600] {
        renewed_at(&mut world, NOW + Duration::from_secs(seconds));
        heard(&mut world, 0);
        assert_eq!(reasons(&plan(&world, &mut notes)), ["Arriving"], "it is being moved back");
    }
    says_start(&mut world);
    heard(&mut world, 0);
    assert!(ended(&plan(&world, &mut notes)), "an operator has looked");
}

#[test]
fn a_migration_of_ours_whose_end_nobody_saw_hands_over_only_to_a_target_that_has_it() {
    let mut world = moving(1, 1, 2, MOVED);
    world.job = MigrationJob::None;
    let mut notes = Notes::default();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["Migrating"], "n2 has not said anything since");
    heard(&mut world, 0);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "MovedAway");
    heard(&mut world, 1);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "HandedOver");
}

/// Its controller does not run, so nobody would say where it went from there.
#[test]
fn a_node_without_a_controller_that_had_it_for_a_while_does_not_make_it_known_where_it_is() {
    let (mut world, mut notes) = (moved_away(&[]), Notes::default());
    plan(&world, &mut notes);
    heard(&mut world, 1);
    world.sights.get_mut(&node(2)).unwrap().record.controller_alive = false;
    let seen = plan(&world, &mut notes);
    assert_eq!((seen.steps.as_slice(), reasons(&seen)), (&[][..], vec!["CopyElsewhere"]));
    assert!(seen.waiting[0].message.contains("zsha-controller does not run"), "{}", seen.waiting[0].message);
    heard(&mut world, 0);
    assert_eq!(reasons(&plan(&world, &mut notes)), ["MovedAway"]);
}

#[test]
fn that_it_has_left_is_written_down_though_nothing_is_to_be_begun() {
    let asked = Asked { by: "anna".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
    let frozen = Observed::Known(Intents { freeze: Some(asked), ..Intents::default() });
    for intents in [frozen, Observed::unknown("intent/power is missing")] {
        let mut world = world(1, Some(1), VmPhase::Running, MOVED);
        world.intents = intents;
        let mut notes = Notes::default();
        let first = plan(&world, &mut notes);
        assert_eq!(only_write(&first).reason.as_str(), "MovedAway");
        vm(&mut world).record = only_write(&first).record.clone();
        assert_eq!(reasons(&plan(&world, &mut notes)), ["MovedAway"]);
    }
}

#[test]
fn a_guest_that_may_run_elsewhere_is_not_said_to_be_stopped() {
    let stop = crate::intents::Stop { at: Timestamp::UNIX_EPOCH, limit: None };
    let stopped = |mut world: World| {
        world.intents = Observed::Known(Intents { stop: Some(stop.clone()), ..Intents::default() });
        world
    };
    let nowhere = decide(&stopped(moved_away(&[])));
    assert_eq!((nowhere.steps.as_slice(), reasons(&nowhere)), (&[][..], vec!["MovedAway"]));
    let mut elsewhere = stopped(world(1, Some(1), VmPhase::Running, LocalVm::Absent));
    count(&mut elsewhere.sights.get_mut(&node(2)).unwrap().record).copies = Some(1);
    let waits = decide(&elsewhere);
    assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["CopyElsewhere"]));
    let mut status = ready(2);
    here(&mut status).runs_unnamed = true;
    elsewhere.nodes.insert(node(2), Arc::new(status));
    assert_eq!(plan_write_reason(&elsewhere), Some("FoundElsewhere"), "that node shuts it down");
    let seen = decide(&stopped(moved_away(&[2])));
    assert_eq!(reasons(&seen), ["MovedAway"], "a process of it was seen on n2, and is there no more");
    let mut died = stopped(moved_away(&[2]));
    has_died(&mut died, 2);
    assert_eq!(only_write(&decide(&died)).reason.as_str(), "Stopped", "it has died there");
}
