//! An owner whose VM's disk is not reached from its node.

use super::*;
use crate::hypervisor::PauseReason::IoError;

const PAUSED: LocalVm = LocalVm::Paused { reason: IoError, generation: 1 };

fn image(world: &mut World, fact: Observed<ImageFact>) {
    world.host = Observed::Known(HostFacts { image: Some(fact), ..HostFacts::default() });
}

/// The owner, where the share hangs.
fn hanging() -> World {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    image(&mut world, Observed::unknown("it does not answer within 3 s"));
    world
}

fn gone() -> Observed<ImageFact> {
    Observed::Known(ImageFact::NotReadable { reason: "Stale file handle".to_owned() })
}

fn unfit(world: &mut World, number: u32) {
    let mut status = ready(number);
    condition::set(
        &mut status.conditions,
        Condition::new(
            "Ready",
            ConditionStatus::False,
            "Unfit",
            "the share does not answer",
            Timestamp::UNIX_EPOCH,
        ),
    );
    world.nodes.insert(node(number), Arc::new(status));
}

/// Keeps every lease young.
fn later(world: &mut World, secs: u64) {
    renewed_at(world, NOW + Duration::from_secs(secs));
}

#[test]
fn a_guest_whose_disk_hangs_is_ended_after_a_while_where_another_node_is_fit() {
    let (mut world, mut notes) = (hanging(), Notes::default());
    let first = plan(&world, &mut notes);
    assert_eq!((first.steps.as_slice(), reasons(&first)), ([].as_slice(), vec!["StorageLost"]));
    assert!(first.recheck.is_some_and(|at| at <= NOW + Duration::from_secs(30)));
    later(&mut world, 29);
    assert_eq!(plan(&world, &mut notes).steps, []);
    later(&mut world, 30);
    let steps = plan(&world, &mut notes).steps;
    assert!(
        matches!(steps.as_slice(), [Step::KillCopy { because, if_still: None }] if because.contains("n2 is fit")),
        "{steps:?}"
    );
    world.local = Observed::Known(LocalVm::Off { reason: OffReason::Destroyed });
    let given_up = plan(&world, &mut notes);
    let write = only_write(&given_up);
    assert_eq!((write.reason, &write.record.owner), ("GaveUp", &None), "at once, without another wait");
}

#[test]
fn a_disk_that_answers_again_in_time_is_as_if_nothing_had_been() {
    let (mut world, mut notes) = (hanging(), Notes::default());
    plan(&world, &mut notes);
    later(&mut world, 29);
    image(&mut world, Observed::Known(ImageFact::Present { bytes: 1 }));
    assert_eq!(plan(&world, &mut notes).steps, []);
    later(&mut world, 40);
    image(&mut world, Observed::unknown("it does not answer within 3 s"));
    assert_eq!(plan(&world, &mut notes).steps, [], "the wait begins anew");
}

#[test]
fn where_no_other_node_is_fit_nothing_is_ended_and_the_wait_begins_when_one_is() {
    let (mut world, mut notes) = (hanging(), Notes::default());
    unfit(&mut world, 2);
    unfit(&mut world, 3);
    for secs in [0, 30, 300] {
        later(&mut world, secs);
        let waits = plan(&world, &mut notes);
        assert_eq!((waits.steps.as_slice(), reasons(&waits)), ([].as_slice(), vec!["StorageLost"]));
    }
    world.nodes.insert(node(3), Arc::new(ready(3)));
    assert_eq!(plan(&world, &mut notes).steps, []);
    later(&mut world, 330);
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn a_node_that_has_not_said_yet_what_it_thinks_of_a_new_document_is_no_reason_to_end_it() {
    let (mut world, mut notes) = (hanging(), Notes::default());
    unfit(&mut world, 2);
    unfit(&mut world, 3);
    change(&mut world, |desired| desired.generation = 2);
    for secs in [0, 60] {
        later(&mut world, secs);
        assert_eq!(plan(&world, &mut notes).steps, []);
    }
}

#[test]
fn what_a_running_qemu_may_still_reach_is_no_reason_to_end_it() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    for fact in [gone(), Observed::Known(ImageFact::Missing)] {
        let mut notes = Notes::default();
        image(&mut world, fact);
        plan(&world, &mut notes);
        later(&mut world, 60);
        assert_eq!(plan(&world, &mut notes), decide(&world));
        assert_eq!(decide(&world).steps, []);
    }
    world.host = Observed::unknown("the host has not been looked at yet");
    assert_eq!(decide(&world).waiting, [], "not looked at is not lost");
}

#[test]
fn a_guest_paused_by_its_disk_goes_on_only_when_the_disk_is_back() {
    let (mut world, mut notes) = (world(1, Some(1), VmPhase::Running, PAUSED), Notes::default());
    unfit(&mut world, 2);
    unfit(&mut world, 3);
    image(&mut world, gone());
    for secs in [0, 6, 12] {
        later(&mut world, secs);
        assert_eq!(plan(&world, &mut notes).steps, [], "it would be paused again");
    }
    image(&mut world, Observed::Known(ImageFact::Present { bytes: 1 }));
    let resumed = |plan: &Plan| matches!(plan.steps.as_slice(), [Step::Resume { .. }]);
    assert!(resumed(&plan(&world, &mut notes)));
    assert_eq!(plan(&world, &mut notes).steps, [], "once in 5 s");
    later(&mut world, 17);
    assert!(resumed(&plan(&world, &mut notes)), "the host may not see what is wrong with it");
}

#[test]
fn a_guest_paused_by_its_disk_is_started_where_the_disk_is_reached() {
    let (mut world, mut notes) = (world(1, Some(1), VmPhase::Running, PAUSED), Notes::default());
    image(&mut world, gone());
    assert_eq!(plan(&world, &mut notes).steps, []);
    later(&mut world, 30);
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn a_guest_that_runs_is_left_alone_where_no_monitor_of_ceph_answers_and_one_that_waits_for_its_disk_is_moved()
{
    for fact in [
        Observed::Known(ImageFact::NotReached { reason: "connection refused".to_owned() }),
        Observed::unknown("the name cannot be looked up"),
    ] {
        let mut world = in_ceph(RUNNING, fact.clone());
        let mut notes = Notes::default();
        assert_eq!(plan(&world, &mut notes).steps, []);
        later(&mut world, 60);
        let left = plan(&world, &mut notes);
        assert_eq!((left.steps.as_slice(), reasons(&left)), ([].as_slice(), vec![]));
        let reason = condition::find(&left.conditions, "ImagePresent").map(|told| told.reason.clone());
        assert_eq!(reason.as_deref(), Some("CephNotReached"));

        let (mut world, mut notes) = (in_ceph(PAUSED, fact), Notes::default());
        assert_eq!(reasons(&plan(&world, &mut notes)), ["StorageLost"]);
        later(&mut world, 30);
        assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
    }
}

/// The owner, and what its host says of the image in Ceph.
fn in_ceph(local: LocalVm, fact: Observed<ImageFact>) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, local);
    let mut desired = desired();
    desired.wants.image = Some(crate::host::ImageWant::Ceph(vec!["10.0.0.1:6789".to_owned()]));
    world.desired = Observed::Known(Some(Arc::new(desired)));
    image(&mut world, fact);
    world
}
