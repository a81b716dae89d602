//! Tests starts of a VM that has ended on its owner's node, and what stands in their way.

use super::*;

fn ended() -> World {
    world(1, Some(1), VmPhase::Running, DIED)
}

fn without_image(world: &mut World) {
    let image = Some(Observed::Known(ImageFact::Missing));
    world.host = Observed::Known(HostFacts { image, ..HostFacts::default() });
}

fn nobody_else_is_fit(world: &mut World) {
    for number in [2, 3] {
        world.sights.get_mut(&node(number)).unwrap().record.controller_alive = false;
    }
}

fn failed(world: &mut World, count: u32) {
    vm(world).record.failures.insert(node(1), StartFailures { count, reason: "no memory".to_owned() });
}

#[test]
fn a_vm_that_ended_is_given_up_only_when_its_host_could_not_be_looked_at_for_15_s() {
    let (mut world, mut notes) = (ended(), Notes::default());
    world.host = Observed::unknown("not looked at yet");
    let due = NOW + Duration::from_secs(15);
    for now in [NOW, due - Duration::from_millis(1)] {
        renewed_at(&mut world, now);
        let waits = plan(&world, &mut notes);
        assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["NotLookedYet"]));
        assert_eq!(waits.recheck, Some(due));
    }
    renewed_at(&mut world, due);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "GaveUp");
}

#[test]
fn a_vm_that_keeps_dying_is_started_when_its_pause_is_over_and_not_before() {
    let mut world = ended();
    let mut notes = Notes { tried: Tried { starts: vec![NOW; 6], ..Tried::default() }, ..Notes::default() };
    let due = NOW + Duration::from_secs(1);
    renewed_at(&mut world, due - Duration::from_millis(1));
    let waits = plan(&world, &mut notes);
    assert_eq!((reasons(&waits), waits.recheck), (vec!["StartDelayed"], Some(due)));
    renewed_at(&mut world, due);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "QemuDied");
}

#[test]
fn a_start_of_10_minutes_ago_slows_the_next_one_down_no_more() {
    let delayed = |age| {
        let mut notes =
            Notes { tried: Tried { starts: vec![NOW - age; 5], ..Tried::default() }, ..Notes::default() };
        notes.tried.starts.push(NOW);
        plan(&ended(), &mut notes).recheck
    };
    let window = Duration::from_secs(600);
    assert_eq!(delayed(window - Duration::from_millis(1)), Some(NOW + Duration::from_secs(1)));
    assert_eq!(delayed(window), None);
}

#[test]
fn failed_starts_are_counted_up_under_one_document_and_anew_under_the_next() {
    let mut world = world(1, Some(1), VmPhase::Starting, LocalVm::Absent);
    failed(&mut world, 1);
    let counted = |world: &World| {
        let mut notes = Notes {
            tried: Tried { failed: Some("no such bridge".to_owned()), ..Tried::default() },
            ..Notes::default()
        };
        let record = only_write(&plan(world, &mut notes)).record.clone();
        (record.failures[&node(1)].count, record.failures_generation)
    };
    assert_eq!(counted(&world), (2, 1));
    change(&mut world, |desired| desired.generation = 2);
    assert_eq!(counted(&world), (1, 2));
}

#[test]
fn a_copy_that_was_made_and_failed_too_often_here_is_not_let_run() {
    let mut world = world(1, Some(1), VmPhase::Starting, ARRIVED);
    failed(&mut world, 1);
    assert!(matches!(decide(&world).steps.as_slice(), [Step::Resume { .. }]));
    failed(&mut world, 2);
    assert!(matches!(decide(&world).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn a_vm_with_no_fit_node_stays_its_owners_unless_it_failed_there() {
    let mut world = ended();
    without_image(&mut world);
    nobody_else_is_fit(&mut world);
    let waits = decide(&world);
    assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["NoNodeFit"]));
    assert!(waits.waiting[0].message.contains("n1: /share/mnvm.img is not there"), "{waits:?}");
    failed(&mut world, 2);
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "GaveUp", "whoever is fit first may try");
}

#[test]
fn every_write_of_the_owner_counts_the_record_on() {
    let mut world = ended();
    vm(&mut world).record.revision = 6;
    assert_eq!(only_write(&decide(&world)).record.revision, 7);
}

#[test]
fn a_restarted_controller_whose_vm_is_gone_asks_the_others_before_its_first_start() {
    for (local, asked) in [(DIED, 2), (RUNNING, 0)] {
        let (mut world, mut notes) = (world(1, Some(1), VmPhase::Running, local), Notes::default());
        vm(&mut world).written = None;
        let adopted = pass(&world, &mut notes);
        assert_eq!(
            (only_write(&adopted).reason.as_str(), only_write(&adopted).rests_on.len()),
            ("Adopted", asked)
        );
        let start = pass(&ended(), &mut notes);
        assert_eq!((only_write(&start).reason.as_str(), only_write(&start).rests_on.len()), ("QemuDied", 2));
        assert!(!notes.seen.ask_others, "once");
    }
}

#[test]
fn a_start_that_needs_the_others_word_waits_for_it() {
    let mut world = ended();
    count(&mut world.sights.get_mut(&node(3)).unwrap().record).copies = Some(1);
    let mut notes = Notes { seen: Seen { ask_others: true, ..Seen::default() }, ..Notes::default() };
    let waits = plan(&world, &mut notes);
    assert_eq!((waits.steps.as_slice(), reasons(&waits)), (&[][..], vec!["CopyElsewhere"]));
    assert!(notes.seen.ask_others);
    assert_eq!(
        reasons(&decide(&world)),
        ["CopyElsewhere"],
        "also where nothing else speaks for a copy elsewhere"
    );
}

#[test]
fn a_keeper_that_counts_no_copy_is_believed_where_the_hypervisor_says_nothing() {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut world).written = None;
    world.local = Observed::unknown("libvirtd is away");
    assert_eq!(only_write(&decide(&world)).rests_on.len(), 2, "so the others are asked");
}

#[test]
fn a_copy_that_the_keeper_ended_at_the_very_start_was_another() {
    let mut world = world(1, Some(1), VmPhase::Running, DIED);
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.ended = Some(Ended { count: 1, at: NOW });
    let reason = |world: &World, starts: &[Moment]| {
        let plan = plan(
            world,
            &mut Notes { tried: Tried { starts: starts.to_vec(), ..Tried::default() }, ..Notes::default() },
        );
        only_write(&plan).reason.as_str()
    };
    assert_eq!(reason(&world, &[NOW]), "QemuDied");
    assert_eq!(reason(&world, &[NOW - Duration::from_millis(1)]), "LeaseEnded");
    vm(&mut world).record.last_start =
        Some(StartRecord { node: node(1), at: world.wall, reason: "Failover".to_owned(), generation: 1 });
    assert_eq!(
        reason(&world, &[]),
        "QemuDied",
        "after a restart of the controller, by the clock on the wall"
    );
}
