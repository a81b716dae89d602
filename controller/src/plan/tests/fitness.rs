//! Tests what a node says of its fitness, and what the line of candidates makes of it.

use zsha_crds::document::ImageFormat;

use super::*;
use crate::host::Qcow2;
use crate::host::{BridgeWant, MountFact, MountWant};
use crate::plan::fitness;

fn told(world: &World, kind: ConditionKind) -> Condition {
    condition::find(&fitness::conditions(world), kind).unwrap().clone()
}

/// Free for this node to take, if it is fit.
fn free(me: u32) -> World {
    world(me, None, VmPhase::Stopped, LocalVm::Absent)
}

#[test]
fn every_condition_names_the_document_that_was_in_force() {
    let mut world = free(1);
    change(&mut world, |desired| desired.generation = 4);
    assert!(fitness::conditions(&world).iter().all(|part| part.observed_generation == Some(4)));
    world.desired = Observed::Known(None);
    assert!(fitness::conditions(&world).iter().all(|part| part.observed_generation.is_none()));
}

#[test]
fn a_node_that_the_document_does_not_name_is_unfit_and_says_whom_it_names() {
    let mut world = free(1);
    change(&mut world, |desired| desired.order = vec![node(2), node(3)]);
    let document = told(&world, ConditionKind::DocumentKnown);
    assert_eq!((document.is_true(), document.reason.as_str()), (false, "NotAMember"));
    assert!(document.message.contains("names n2, n3, and not this node (n1)"), "{}", document.message);
}

#[test]
fn a_carrier_is_asked_of_a_bridge_only_where_the_document_says_so() {
    for require_carrier in [true, false] {
        let mut world = free(1);
        change(&mut world, |desired| {
            desired.wants.bridges = vec![BridgeWant { name: "br0".to_owned(), require_carrier }];
        });
        let Observed::Known(facts) = &mut world.host else { panic!("no facts") };
        let bridge = BridgeFact::Bridge { up: true, carrier: false };
        facts.bridges.insert("br0".to_owned(), Observed::Known(bridge));
        assert_eq!(told(&world, ConditionKind::BridgesReady).is_true(), !require_carrier);
        assert_eq!(decide(&world).steps.len(), usize::from(!require_carrier), "and only so the VM is taken");
    }
}

#[test]
fn of_the_watchdog_is_said_what_the_document_makes_of_it() {
    use ConditionStatus::{False, True, Unknown};
    let petted = WatchdogState::Petted { timeout_secs: 4 };
    let refused = WatchdogState::Refused { reason: "its timeout is 60 s".to_owned() };
    for (asked, state, status, reason) in [
        (Watchdog::Off, Some(petted.clone()), True, "Off"),
        (Watchdog::Off, None, True, "Off"),
        (Watchdog::Automatic, Some(petted.clone()), True, "Petted"),
        (Watchdog::Automatic, Some(refused.clone()), True, "NotRequired"),
        (Watchdog::Automatic, Some(WatchdogState::Off), True, "NotRequired"),
        (Watchdog::Automatic, Some(WatchdogState::None), True, "NotRequired"),
        (Watchdog::Automatic, None, True, "NotRequired"),
        (Watchdog::Required, Some(petted), True, "Petted"),
        (Watchdog::Required, Some(refused), False, "NoWatchdog"),
        (Watchdog::Required, Some(WatchdogState::Off), False, "NoWatchdog"),
        (Watchdog::Required, Some(WatchdogState::None), False, "NoWatchdog"),
        (Watchdog::Required, None, Unknown, "KeeperUnreachable"),
    ] {
        let mut world = free(1);
        change(&mut world, |desired| desired.watchdog = asked);
        match state.clone() {
            Some(state) => with_watchdog(&mut world, state),
            None => world.lease = Observed::unknown("no keeper"),
        }
        let said = told(&world, ConditionKind::WatchdogReady);
        assert_eq!((said.status, said.reason.as_str()), (status, reason), "{asked:?}, {state:?}");
        if let (True, Some(WatchdogState::Refused { reason })) = (status, state) {
            assert!(said.message.contains(&reason), "{}", said.message);
        }
    }
}

#[test]
fn a_hypervisor_that_would_not_take_the_vm_makes_its_node_unfit_and_one_that_was_not_asked_too() {
    use ConditionStatus::{False, True, Unknown};
    let offer = || free(1).offer.known().cloned().unwrap();
    for (offer, status, reason) in [
        (Offer { namesake: Some(Uuid::from_u128(9)), ..offer() }, False, "NameTaken"),
        (Offer { refuses: Some("no q35".to_owned()), ..offer() }, False, "MachineRefused"),
        (Offer { memory_mib: 1, ..offer() }, False, "TooLittleMemory"),
        (Offer { most_vcpus: 0, ..offer() }, False, "TooManyCpus"),
        (Offer { accelerated: false, ..offer() }, True, "Emulated"),
        (offer(), True, "Accepted"),
    ] {
        let mut world = free(1);
        world.offer = Observed::Known(offer);
        let said = told(&world, ConditionKind::DomainAccepted);
        assert_eq!((said.status, said.reason.as_str()), (status, reason));
        assert_eq!(told(&world, ConditionKind::Ready).status == True, status == True, "{reason}");
    }
    let mut world = free(1);
    world.offer = Observed::unknown("libvirt hangs");
    assert_eq!(told(&world, ConditionKind::DomainAccepted).status, Unknown);
}

#[test]
fn a_node_that_emulates_the_vm_comes_after_those_that_need_not_and_before_one_that_loses_its_lease() {
    let line = |world: &World| placement::candidates(world, &desired(), &record(None, VmPhase::Stopped)).fit;
    let mut world = free(1);
    assert_eq!(line(&world), [node(1), node(2), node(3)]);
    let Observed::Known(offer) = &mut world.offer else { panic!("it is known") };
    offer.accelerated = false;
    assert_eq!(line(&world), [node(2), node(3), node(1)]);
    let says = |world: &mut World, number, kind, status, reason: &str| {
        let mut said = ready(number);
        let at = Timestamp::UNIX_EPOCH;
        said.conditions.push(zsha_crds::Condition::new(kind, status, reason, "so", at));
        world.nodes.insert(node(number), Arc::new(said));
    };
    says(&mut world, 2, ConditionKind::DomainAccepted, ConditionStatus::True, "Emulated");
    assert_eq!(line(&world), [node(3), node(1), node(2)]);
    says(&mut world, 3, ConditionKind::Stable, ConditionStatus::False, "LosesLeases");
    assert_eq!(line(&world), [node(1), node(2), node(3)]);
}

#[test]
fn an_image_that_qemu_may_not_use_is_no_home_for_the_vm_and_says_what_to_do_about_it() {
    use crate::host::Barred;
    let user = || "libvirt-qemu".to_owned();
    for (barred, reason, way_out) in [
        (Barred::Folder { user: user(), folder: "/smp".to_owned() }, "ImageFolderClosed", "chmod o+x /smp"),
        (Barred::ReadOnly, "ImageReadOnly", "mount it with rw"),
        (Barred::File { user: user() }, "ImageNotWritable", "chown libvirt-qemu"),
    ] {
        let mut world = free(1);
        let Observed::Known(facts) = &mut world.host else { panic!("no facts") };
        facts.image = Some(Observed::Known(ImageFact::Barred(barred)));
        let said = told(&world, ConditionKind::ImagePresent);
        assert_eq!((said.status, said.reason.as_str()), (ConditionStatus::False, reason));
        assert!(said.message.contains(way_out), "{}", said.message);
        assert_eq!(told(&world, ConditionKind::Ready).status, ConditionStatus::False);
    }
}

#[test]
fn a_share_that_is_mounted_read_only_is_no_home_and_one_with_other_options_is_told() {
    use ConditionStatus::{False, True};
    for (wanted, there, status, reason) in [
        ("", "rw,relatime,rw,vers=4.2", True, "Mounted"),
        ("hard,timeo=600", "rw,rw,hard,timeo=600", True, "Mounted"),
        ("", "ro,relatime,rw,vers=4.2", False, "MountedReadOnly"),
        ("ro", "ro,relatime,ro,vers=4.2", True, "Mounted"),
        ("hard", "rw,rw,soft", True, "MountedOtherwise"),
    ] {
        let mut world = free(1);
        let target = std::path::PathBuf::from("/share");
        let want = MountWant {
            source: "nas:/share".to_owned(),
            target: target.clone(),
            fs_type: "nfs4".to_owned(),
            options: wanted.to_owned(),
        };
        change(&mut world, |desired| desired.wants.mounts = vec![want]);
        let Observed::Known(facts) = &mut world.host else { panic!("no facts") };
        let fact = MountFact::Mounted { fs_type: "nfs4".to_owned(), options: there.to_owned() };
        facts.mounts.insert(target, Observed::Known(fact));
        let said = told(&world, ConditionKind::MountsReady);
        assert_eq!((said.status, said.reason.as_str()), (status, reason), "{there}");
        assert_eq!(told(&world, ConditionKind::Ready).status, status);
    }
}

#[test]
fn a_share_that_could_not_be_mounted_is_tried_again_after_5_s() {
    let mut world = free(1);
    let target = std::path::PathBuf::from("/share");
    let want = MountWant {
        source: "nas:/share".to_owned(),
        target: target.clone(),
        fs_type: "nfs4".to_owned(),
        options: String::new(),
    };
    change(&mut world, |desired| desired.wants.mounts = vec![want]);
    let Observed::Known(facts) = &mut world.host else { panic!("no facts") };
    facts.mounts.insert(target, Observed::Known(MountFact::NotMounted));
    let mut notes = Notes::default();
    let again = NOW + Duration::from_secs(5);
    assert!(matches!(pass(&world, &mut notes).steps.as_slice(), [Step::Mount(_)]));
    renewed_at(&mut world, again - Duration::from_millis(1));
    let waits = pass(&world, &mut notes);
    assert_eq!((waits.steps.as_slice(), waits.recheck), (&[][..], Some(again)));
    renewed_at(&mut world, again);
    assert!(matches!(pass(&world, &mut notes).steps.as_slice(), [Step::Mount(_)]));
}

#[test]
fn what_a_node_said_of_an_older_document_does_not_cost_it_its_place_in_the_line() {
    let desired = Desired { generation: 2, ..desired() };
    for (generation, fit) in [(1, true), (2, false), (3, false)] {
        let mut world = free(1);
        let mut status = NodeStatus { observed_generation: generation, ..ready(2) };
        status.conditions[0].status = ConditionStatus::False;
        status.conditions[0].message = "the share does not answer".to_owned();
        world.nodes.insert(node(2), Arc::new(status));
        let line = placement::candidates(&world, &desired, &record(None, VmPhase::Stopped));
        assert_eq!(line.fit.contains(&node(2)), fit, "of generation {generation}");
        let why = line.unfit.get(&node(2)).map(String::as_str);
        assert_eq!(why, (!fit).then_some("the share does not answer"));
    }
}

#[test]
fn a_node_is_in_the_line_until_its_last_renewal_is_as_old_as_f() {
    let fit_after = |age| {
        let mut world = free(1);
        world.sights.insert(node(2), sight(2, age));
        let line = placement::candidates(&world, &desired(), &record(None, VmPhase::Stopped));
        line.fit.contains(&node(2))
    };
    let ttl = LeaseTimings::BALANCED.ttl();
    assert!(fit_after(ttl - Duration::from_millis(1)));
    assert!(!fit_after(ttl));
}

#[test]
fn a_node_is_fit_until_the_moment_its_own_lease_runs_out() {
    for (until, reason) in [(NOW + Duration::from_millis(1), "Valid"), (NOW, "NotValid")] {
        let mut world = free(1);
        let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
        verdict.valid_until = Some(until);
        let lease = told(&world, ConditionKind::LeaseValid);
        assert_eq!((lease.is_true(), lease.reason.as_str()), (reason == "Valid", reason));
        assert_eq!(told(&world, ConditionKind::Ready).is_true(), lease.is_true());
    }
}

#[test]
fn a_node_that_the_document_does_not_name_leaves_its_keeper_as_it_is() {
    for (named, told) in [(vec![node(1), node(2)], 2), (vec![node(2), node(3)], 0)] {
        let mut world = world(1, Some(2), VmPhase::Running, LocalVm::Absent);
        change(&mut world, |desired| {
            (desired.order, desired.timings, desired.watchdog) = (named, LeaseTimings::FAST, Watchdog::Off);
        });
        with_watchdog(&mut world, WatchdogState::Petted { timeout_secs: 4 });
        assert_eq!(decide(&world).steps.len(), told);
    }
}

fn image_says(format: ImageFormat, fact: ImageFact) -> (ConditionStatus, String) {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    change(&mut world, |desired| {
        desired.domain.image = DomainImage::File { path: "/share/mnvm.img".into(), format };
    });
    world.host = Observed::Known(HostFacts { image: Some(Observed::Known(fact)), ..HostFacts::default() });
    let conditions = decide(&world).conditions;
    let condition = condition::find(&conditions, ConditionKind::ImagePresent).unwrap();
    let ready = condition::find(&conditions, ConditionKind::Ready).unwrap();
    assert_eq!(ready.is_true(), condition.is_true(), "{condition:?}");
    (condition.status, condition.reason.clone())
}

#[test]
fn a_node_is_fit_only_where_qemu_starts_the_vm_from_what_the_image_holds() {
    use ImageFormat::{Qcow2 as AsQcow2, Raw};
    let other = || Content::Other { looks_like: "a raw disk".to_owned() };
    let header = |header: Qcow2| Content::Qcow2(header);
    let plain = Qcow2::default;
    let good =
        |format, content| assert_eq!(image_says(format, ImageFact::Present(content)).1, "ImagePresent");
    good(AsQcow2, Content::default());
    good(AsQcow2, header(Qcow2 { backing: Some("base.img".to_owned()), ..plain() }));
    good(Raw, other());
    for (format, content, reason) in [
        (AsQcow2, Content::Empty, "ImageEmpty"),
        (Raw, Content::Empty, "ImageEmpty"),
        (AsQcow2, other(), "ImageOfOtherFormat"),
        (Raw, Content::default(), "ImageOfOtherFormat"),
        (AsQcow2, header(Qcow2 { unknown_version: Some(9), ..plain() }), "ImageOfOtherFormat"),
        (AsQcow2, header(Qcow2 { encrypted: true, ..plain() }), "ImageEncrypted"),
        (AsQcow2, header(Qcow2 { truncated: true, ..plain() }), "ImageTruncated"),
        (AsQcow2, header(Qcow2 { corrupt: true, ..plain() }), "ImageCorrupt"),
    ] {
        let said = image_says(format, ImageFact::Present(content));
        assert_eq!(said, (ConditionStatus::False, reason.to_owned()));
    }
    let backing = ImageFact::BackingMissing {
        path: "/share/base.img".to_owned(),
        reason: "it is not there".to_owned(),
    };
    assert_eq!(image_says(AsQcow2, backing), (ConditionStatus::False, "BackingMissing".to_owned()));
}

#[test]
fn a_guest_that_runs_is_left_alone_whatever_its_image_is_said_to_hold() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    for content in [Content::Empty, Content::Qcow2(Qcow2 { corrupt: true, ..Qcow2::default() })] {
        let image = Some(Observed::Known(ImageFact::Present(content)));
        world.host = Observed::Known(HostFacts { image, ..HostFacts::default() });
        assert!(decide(&world).steps.is_empty());
    }
}
