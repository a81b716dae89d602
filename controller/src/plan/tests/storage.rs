//! Tests an owner whose VM's disk is not reached from its node.

use super::*;
use crate::guest::Seed;
use crate::host::{BridgeWant, MountFact, MountWant, SeedFact};
use crate::hypervisor::PauseReason::IoError;

const PAUSED: LocalVm = LocalVm::Paused { reason: IoError, generation: 1 };

fn image(world: &mut World, fact: Observed<ImageFact>) {
    world.host = Observed::Known(HostFacts { image: Some(fact), ..HostFacts::default() });
}

/// The owner, where the share hangs.
fn hanging() -> World {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    image(&mut world, silent());
    world
}

fn silent() -> Observed<ImageFact> {
    Observed::Known(ImageFact::NotAnswering { reason: "no answer within 3 s".to_owned() })
}

fn gone() -> Observed<ImageFact> {
    Observed::Known(ImageFact::NotReadable { reason: "Stale file handle".to_owned() })
}

fn unfit(world: &mut World, number: u32) {
    let mut status = ready(number);
    condition::set(
        &mut status.conditions,
        Condition::new(
            ConditionKind::Ready,
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
    assert_eq!(
        (write.reason.as_str(), &write.record.owner),
        ("GaveUp", &None),
        "at once, without another wait"
    );
}

#[test]
fn a_disk_that_answers_again_in_time_is_as_if_nothing_had_been() {
    let (mut world, mut notes) = (hanging(), Notes::default());
    plan(&world, &mut notes);
    later(&mut world, 29);
    image(&mut world, Observed::Known(ImageFact::Present(Content::default())));
    assert_eq!(plan(&world, &mut notes).steps, []);
    later(&mut world, 40);
    image(&mut world, silent());
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
        assert_eq!(pass(&world, &mut notes).steps, [], "it would be paused again");
    }
    image(&mut world, Observed::Known(ImageFact::Present(Content::default())));
    let resumed = |plan: &Plan| matches!(plan.steps.as_slice(), [Step::Resume { .. }]);
    assert!(resumed(&pass(&world, &mut notes)));
    assert_eq!(pass(&world, &mut notes).steps, [], "once in 5 s");
    later(&mut world, 17);
    assert!(resumed(&pass(&world, &mut notes)), "the host may not see what is wrong with it");
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
    let fact = Observed::Known(ImageFact::NotReached { reason: "connection refused".to_owned() });
    let mut world = in_ceph(RUNNING, fact.clone());
    let mut notes = Notes::default();
    assert_eq!(plan(&world, &mut notes).steps, []);
    later(&mut world, 60);
    let left = plan(&world, &mut notes);
    assert_eq!((left.steps.as_slice(), reasons(&left)), ([].as_slice(), vec![]));
    assert_eq!(
        told(&left, ConditionKind::ImagePresent),
        (ConditionStatus::False, "CephNotReached".to_owned())
    );

    let (mut world, mut notes) = (in_ceph(PAUSED, fact), Notes::default());
    assert_eq!(reasons(&plan(&world, &mut notes)), ["StorageLost"]);
    later(&mut world, 30);
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
}

fn told(plan: &Plan, kind: ConditionKind) -> (ConditionStatus, String) {
    let told = condition::find(&plan.conditions, kind).unwrap();
    (told.status, told.reason.clone())
}

/// This node lacks what a look takes.
#[test]
fn what_could_not_be_looked_at_is_told_and_ends_nothing_however_long_it_lasts() {
    let why = "looking at /share/mnvm.img: cannot start: Too many open files (os error 24)";
    for local in [RUNNING, PAUSED] {
        for in_a_share in [true, false] {
            let fact = Observed::unknown(why);
            let mut world = if in_a_share { hanging() } else { in_ceph(local, fact.clone()) };
            world.local = Observed::Known(local);
            image(&mut world, fact);
            let mut notes = Notes::default();
            for secs in [0, 29, 30, 31, 300] {
                later(&mut world, secs);
                let left = plan(&world, &mut notes);
                let ends =
                    |step: &Step| matches!(step, Step::KillCopy { .. } | Step::Write(_) | Step::Migrate(_));
                assert!(!left.steps.iter().any(ends), "{local:?} after {secs} s: {:?}", left.steps);
                assert!(!reasons(&left).contains(&"StorageLost"));
                assert_eq!(
                    told(&left, ConditionKind::ImagePresent),
                    (ConditionStatus::Unknown, "CouldNotLook".to_owned())
                );
                let ready = condition::find(&left.conditions, ConditionKind::Ready).unwrap();
                assert!(
                    !ready.is_true() && ready.message.contains("Too many open files"),
                    "{}",
                    ready.message
                );
            }
        }
    }
}

#[test]
fn a_look_that_could_not_be_had_breaks_the_wait_of_one_that_hung() {
    let (mut world, mut notes) = (hanging(), Notes::default());
    plan(&world, &mut notes);
    later(&mut world, 29);
    image(&mut world, Observed::unknown("Too many open files"));
    assert_eq!(plan(&world, &mut notes).steps, []);
    later(&mut world, 30);
    image(&mut world, silent());
    assert_eq!(plan(&world, &mut notes).steps, []);
}

/// The owner, with these mounts in its document and its image at this path; each look came to this.
fn with_mounts(
    local: LocalVm,
    image: &str,
    mounts: &[(&str, MountFact)],
    fact: Observed<ImageFact>,
) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, local);
    change(&mut world, |desired| {
        desired.wants.image = Some(image.into());
        desired.wants.mounts = mounts
            .iter()
            .map(|(target, _)| MountWant {
                source: "10.0.0.9:/share".to_owned(),
                target: target.into(),
                fs_type: "nfs4".to_owned(),
                options: String::new(),
            })
            .collect();
    });
    let facts = HostFacts {
        mounts: mounts.iter().map(|(target, fact)| (target.into(), Observed::Known(fact.clone()))).collect(),
        image: Some(fact),
        ..HostFacts::default()
    };
    world.host = Observed::Known(facts);
    world
}

fn mounted() -> MountFact {
    MountFact::Mounted { fs_type: "nfs4".to_owned(), options: String::new() }
}

fn hangs() -> MountFact {
    MountFact::NotAnswering { reason: "no answer within 3 s".to_owned() }
}

/// True if the VM is ended within five minutes of that.
fn is_ended(mut world: World) -> bool {
    let mut notes = Notes::default();
    (0..30).any(|tenth| {
        later(&mut world, tenth * 10);
        plan(&world, &mut notes).steps.iter().any(|step| matches!(step, Step::KillCopy { .. }))
    })
}

#[test]
fn a_mount_that_is_not_the_images_ends_nothing_whatever_is_wrong_with_it() {
    let there = || Observed::Known(ImageFact::Present(Content::default()));
    for (image, other) in
        [("/share/mnvm.img", "/backup"), ("/share/mnvm.img", "/share/iso"), ("/share/mnvm.img", "/sha")]
    {
        for fact in [
            hangs(),
            MountFact::NotMounted,
            MountFact::Other { source: "tmpfs".to_owned(), fs_type: "tmpfs".to_owned() },
        ] {
            for local in [RUNNING, PAUSED] {
                let world =
                    with_mounts(local, image, &[(other, fact.clone()), ("/share", mounted())], there());
                assert!(!is_ended(world), "{local:?}, {other}: {fact:?}");
            }
        }
    }
    let world =
        with_mounts(RUNNING, "/share/mnvm.img", &[("/backup", hangs()), ("/share", mounted())], there());
    let says = decide(&world);
    assert_eq!(
        told(&says, ConditionKind::MountsReady),
        (ConditionStatus::Unknown, "NotAnswering".to_owned())
    );
    assert_eq!(reasons(&says), Vec::<&str>::new());
}

#[test]
fn of_nested_mounts_the_nearest_above_the_image_is_its_own() {
    let there = || Observed::Known(ImageFact::Present(Content::default()));
    let image = "/share/vms/mnvm.img";
    let nested =
        |outer, inner| with_mounts(PAUSED, image, &[("/share", outer), ("/share/vms", inner)], there());
    assert!(!is_ended(nested(MountFact::NotMounted, mounted())), "another file system");
    assert!(is_ended(nested(mounted(), MountFact::NotMounted)), "its own");
}

#[test]
fn a_mount_above_the_image_that_hangs_says_nothing_where_the_image_answers_or_nobody_has_looked_at_it() {
    for image in
        [Observed::Known(ImageFact::Present(Content::default())), Observed::unknown("Too many open files")]
    {
        for local in [RUNNING, PAUSED] {
            let world = with_mounts(local, "/share/mnvm.img", &[("/share", hangs())], image.clone());
            assert!(!is_ended(world), "{local:?}, {image:?}");
        }
    }
}

#[test]
fn an_image_that_the_vm_has_open_and_reaches_is_its_disk_whatever_hangs_on_the_way_to_it() {
    for local in [RUNNING, PAUSED] {
        let hidden = Observed::Known(ImageFact::Hidden { reason: "no answer within 3 s".to_owned() });
        let world = with_mounts(local, "/share/mnvm.img", &[("/share", hangs())], hidden);
        assert_eq!(
            told(&decide(&world), ConditionKind::ImagePresent),
            (ConditionStatus::False, "ImageHidden".to_owned())
        );
        assert!(!is_ended(world), "{local:?}");
    }
}

#[test]
fn a_guest_that_waits_for_its_disk_is_moved_where_its_share_is_not_mounted_and_one_that_runs_is_not() {
    let shadowed = || Observed::Known(ImageFact::Present(Content::default()));
    for (local, ended) in [(PAUSED, true), (RUNNING, false)] {
        let unmounted = [("/share", MountFact::NotMounted)];
        assert_eq!(
            is_ended(with_mounts(local, "/share/mnvm.img", &unmounted, shadowed())),
            ended,
            "{local:?}"
        );
    }
}

#[test]
fn neither_a_bridge_nor_the_seed_is_the_vms_disk() {
    let bridges = [
        Observed::Known(BridgeFact::Missing),
        Observed::unknown("no answer from the kernel about link 'br0'"),
    ];
    let text = String::new;
    let told = Seed { meta_data: text(), user_data: text(), network_config: text() };
    for bridge in bridges {
        for seed in [Observed::unknown("/var/lib/zsha/seed.img: no answer within 2 s"), refused_seed()] {
            for local in [RUNNING, PAUSED] {
                let mut world = world(1, Some(1), VmPhase::Running, local);
                change(&mut world, |desired| {
                    desired.wants.bridges =
                        vec![BridgeWant { name: "br0".to_owned(), require_carrier: true }];
                    desired.seeds.insert(node(1), Arc::new(told.clone()));
                });
                world.host = Observed::Known(HostFacts {
                    bridges: [("br0".to_owned(), bridge.clone())].into(),
                    seed: Some(seed.clone()),
                    image: Some(Observed::Known(ImageFact::Present(Content::default()))),
                    ..HostFacts::default()
                });
                assert!(!is_ended(world), "{local:?}, {bridge:?}, {seed:?}");
            }
        }
    }
}

fn refused_seed() -> Observed<SeedFact> {
    Observed::Known(SeedFact::Refused { reason: "No space left on device".to_owned() })
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
