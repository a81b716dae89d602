//! Tests what follows from a process that has other devices than it was started with.

use zsha_crds::document::ImageFormat;
use zsha_crds::records::{DiskInUse, DiskSource};

use super::*;
use crate::hypervisor::{Disk, DomainNic};
use crate::intents::{Asked, Start, Stop};
use crate::plan::devices::differences;

const IMAGE: &str = "/share/mnvm.img";
const OVERLAY: &str = "/share/mnvm.overlay1";

fn file(path: &str) -> DiskSource {
    DiskSource::File(path.to_owned())
}

fn intents(world: &mut World) -> &mut Intents {
    match &mut world.intents {
        Observed::Known(intents) => intents,
        Observed::Unknown(why) => panic!("{why}"),
    }
}

fn asked() -> Asked {
    Asked { by: "ann".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() }
}

fn devices(world: &mut World) -> &mut Devices {
    match &mut world.domain {
        Observed::Known(DomainFacts { devices: Observed::Known(devices), .. }) => devices,
        other => panic!("no devices: {other:?}"),
    }
}

fn running() -> World {
    world(1, Some(1), VmPhase::Running, RUNNING)
}

/// The VM runs on n1, on an overlay that somebody has made.
fn on_an_overlay(at: &str) -> World {
    let mut world = running();
    let disk = &mut devices(&mut world).disks[0];
    (disk.source, disk.backing) = (file(at), vec![file(IMAGE)]);
    world
}

fn overlay() -> DiskInUse {
    DiskInUse {
        source: file(OVERLAY),
        format: "qcow2".to_owned(),
        backing: vec![file(IMAGE)],
        instead_of: file(IMAGE),
    }
}

/// The VM has ended on n1, and its record says that it wrote to this disk last.
fn ended_on(disk: DiskInUse) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, DIED);
    vm(&mut world).record.disk = Some(disk);
    world
}

/// The image that is started in the end, by all passes that it takes.
fn started(world: &mut World) -> Option<DomainImage> {
    let mut notes = Notes::default();
    for _ in 0..3 {
        let plan = pass(world, &mut notes);
        for step in &plan.steps {
            match step {
                Step::Start { domain, .. } => return Some(domain.image.clone()),
                Step::Write(write) => vm(world).record = write.record.clone(),
                _ => {}
            }
        }
    }
    None
}

fn says(world: &World, kind: ConditionKind) -> (ConditionStatus, String, String) {
    let conditions = decide(world).conditions;
    let condition = condition::find(&conditions, kind).unwrap();
    (condition.status, condition.reason.clone(), condition.message.clone())
}

#[test]
fn a_disk_that_is_not_the_image_is_written_down_once_and_forgotten_when_it_is_the_image_again() {
    let mut world = on_an_overlay(OVERLAY);
    let plan = decide(&world);
    let write = only_write(&plan);
    assert_eq!((write.reason.as_str(), &write.record.disk), ("DiskChanged", &Some(overlay())));
    assert!(write.message.contains("virsh blockcommit mnvm vda"), "{}", write.message);

    vm(&mut world).record.disk = Some(overlay());
    assert!(decide(&world).steps.is_empty(), "it is written already");

    *devices(&mut world) = Devices::of(&desired().domain);
    let plan = decide(&world);
    assert_eq!((only_write(&plan).reason.as_str(), &only_write(&plan).record.disk), ("DiskBack", &None));
}

#[test]
fn it_is_written_down_also_while_the_vm_is_to_be_stopped_or_nothing_is_to_be_begun() {
    for change in [
        |intents: &mut Intents| intents.stop = Some(Stop { at: Timestamp::UNIX_EPOCH, limit: None }),
        |intents: &mut Intents| intents.freeze = Some(asked()),
    ] {
        let mut world = on_an_overlay(OVERLAY);
        change(intents(&mut world));
        assert_eq!(only_write(&decide(&world)).reason.as_str(), "DiskChanged");
    }
}

#[test]
fn devices_that_could_not_be_seen_are_no_news() {
    let mut world = running();
    vm(&mut world).record.disk = Some(overlay());
    for domain in [Observed::unknown("libvirt hangs"), Observed::Known(DomainFacts::new(Origin::Booted))] {
        world.domain = domain;
        assert!(decide(&world).steps.is_empty() && differences(&world).is_none());
        let status = crate::status::of_vm(&world, None, None).unwrap();
        let current = condition::find(&status.conditions, ConditionKind::UpToDate).unwrap();
        assert_eq!((current.status, current.reason.as_str()), (ConditionStatus::Unknown, "DevicesUnknown"));
    }
    // Nor are those of a generation that nobody knows any more.
    let mut world = on_an_overlay(OVERLAY);
    world.local = Observed::Known(LocalVm::Running { generation: 7 });
    assert!(decide(&world).steps.is_empty() && differences(&world).is_none());
    world.running_domain = Some(Arc::new(desired().domain));
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "DiskChanged");
}

#[test]
fn what_has_not_executed_has_written_nothing() {
    let mut world = on_an_overlay(OVERLAY);
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Other, generation: 1 });
    assert!(decide(&world).steps.is_empty());
}

#[test]
fn a_start_goes_on_from_the_disk_that_was_written_to_last_on_every_node() {
    let there = DomainImage::File { path: OVERLAY.into(), format: ImageFormat::Qcow2 };
    assert_eq!(started(&mut ended_on(overlay())), Some(there.clone()));
    let raw = DiskInUse { format: "raw".to_owned(), ..overlay() };
    let as_raw = DomainImage::File { path: OVERLAY.into(), format: ImageFormat::Raw };
    let mut ended = ended_on(raw);
    let disk = Content::Other { looks_like: "a raw disk".to_owned() };
    let image = Some(Observed::Known(ImageFact::Present(disk)));
    ended.host = Observed::Known(HostFacts { image, ..HostFacts::default() });
    assert_eq!(started(&mut ended), Some(as_raw));

    let mut other = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut other).record.disk = Some(overlay());
    expire(&mut other, 1);
    let plan = decide(&other);
    let claim = only_write(&plan);
    assert_eq!((claim.reason.as_str(), &claim.record.disk), ("Failover", &Some(overlay())));
    assert_eq!(other.questions().unwrap().image, Some(OVERLAY.into()), "and that disk is looked for");
    assert_eq!(running().questions().unwrap().image, Some(IMAGE.into()));
}

#[test]
fn a_disk_that_is_not_there_or_not_understood_is_not_replaced_by_an_older_one() {
    let mut missing = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut missing).record.disk = Some(overlay());
    missing.host = Observed::Known(HostFacts {
        image: Some(Observed::Known(ImageFact::Missing)),
        ..HostFacts::default()
    });
    let mut strange = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let nbd = DiskInUse { source: DiskSource::Other("nbd:backup".to_owned()), ..overlay() };
    vm(&mut strange).record.disk = Some(nbd);
    let mut odd = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut odd).record.disk = Some(DiskInUse { format: "vmdk".to_owned(), ..overlay() });
    for (mut world, what) in [(missing, OVERLAY), (strange, "nbd:backup"), (odd, "vmdk")] {
        expire(&mut world, 1);
        assert!(decide(&world).steps.is_empty(), "{what}");
        let (status, _, message) = says(&world, ConditionKind::ImagePresent);
        assert_eq!(status, ConditionStatus::False);
        assert!(message.contains(what) && message.contains("zsha start --from-image"), "{message}");
        assert_eq!(says(&world, ConditionKind::Ready).0, ConditionStatus::False);
    }
}

#[test]
fn nobody_is_told_to_give_up_what_the_guest_wrote_while_the_disk_only_cannot_be_looked_at() {
    let hangs =
        || Observed::Known(ImageFact::NotAnswering { reason: "the server does not answer".to_owned() });
    for image in [None, Some(Observed::unknown("too many open files")), Some(hangs())] {
        let mut world = ended_on(overlay());
        world.host = Observed::Known(HostFacts { image, ..HostFacts::default() });
        let (status, _, message) = says(&world, ConditionKind::ImagePresent);
        assert_eq!(status, ConditionStatus::Unknown);
        assert!(message.contains(OVERLAY) && !message.contains("--from-image"), "{message}");
    }
}

#[test]
fn no_start_is_promised_from_a_disk_that_zsha_cannot_start_from_and_no_merge_of_what_is_no_snapshot() {
    let told = |change: fn(&mut Disk)| {
        let mut world = on_an_overlay(OVERLAY);
        change(&mut devices(&mut world).disks[0]);
        (only_write(&decide(&world)).message.clone(), differences(&world).unwrap().remove(0))
    };
    let (event, difference) = told(|_| ());
    assert!(event.contains("A start goes on from there") && event.contains("--base /share/mnvm.img"));
    assert!(difference.contains("A start goes on from there"), "{difference}");
    let (event, difference) = told(|disk| disk.source = DiskSource::Other("nbd:backup".to_owned()));
    for said in [&event, &difference] {
        assert!(said.contains("zsha cannot start it from there") && !said.contains("goes on"), "{said}");
    }
    let (event, _) = told(|disk| disk.backing.clear());
    assert!(event.contains("A start goes on from there") && !event.contains("blockcommit"), "{event}");
}

#[test]
fn an_operator_may_start_from_the_image_all_the_same_and_then_it_is_the_disk() {
    let order = Start { id: Uuid::from_u128(8), by: "ann".to_owned(), from_image: true };
    let mut world = ended_on(DiskInUse { source: DiskSource::Other("nbd:backup".to_owned()), ..overlay() });
    assert_eq!(started(&mut world), None);
    intents(&mut world).start = Some(order.clone());
    assert_eq!(started(&mut world), Some(DomainImage::qcow2(IMAGE)));
    assert_eq!(vm_of(&world).disk, None);

    // The order is over with the start that it was for.
    let mut later = ended_on(overlay());
    vm(&mut later).record.start_taken_up = Some(order.id);
    intents(&mut later).start = Some(order);
    assert_eq!(started(&mut later), Some(DomainImage::qcow2(OVERLAY)));
}

#[test]
fn a_document_that_names_another_image_since_is_an_operators_word() {
    let mut world = ended_on(overlay());
    change(&mut world, |desired| {
        desired.domain.image = DomainImage::qcow2("/share/new.img");
        desired.wants.image = Some("/share/new.img".into());
    });
    assert_eq!(started(&mut world), Some(DomainImage::qcow2("/share/new.img")));
    assert_eq!(vm_of(&world).disk, None);
}

#[test]
fn every_difference_is_told_and_what_is_as_it_was_started_has_none() {
    assert_eq!(differences(&running()), Some(vec![]));
    let mut world = on_an_overlay(OVERLAY);
    let nic = |mac: &str, bridge: &str| DomainNic { mac: mac.to_owned(), bridge: bridge.to_owned() };
    change(&mut world, |desired| {
        desired.domain.nics = vec![
            nic("52:54:00:00:00:01", "br_a"),
            nic("52:54:00:00:00:02", "br_b"),
            nic("52:54:00:00:00:03", "br_c"),
        ];
    });
    let drive = |target: &str, source: DiskSource, read_only| Disk {
        target: target.to_owned(),
        source,
        format: "raw".to_owned(),
        read_only,
        backing: vec![],
    };
    let there = devices(&mut world);
    there.nics = vec![
        nic("52:54:00:00:00:01", "br_a"),
        nic("52:54:00:00:00:02", "br_x"),
        nic("52:54:00:00:00:09", "br_a"),
    ];
    there.disks.push(drive("vdb", file("/run/seed.img"), true));
    there.disks.push(drive("vdc", file("/run/tools.iso"), true));
    there.disks.push(drive("sda", DiskSource::Nothing, true));
    there.others.push("hostdev");
    let told = differences(&world).unwrap();
    let expected =
        [OVERLAY, "/run/tools.iso", "00:02 is on br_x", "00:03 on br_c is detached", "00:09", "hostdev"];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told}");
    }
    let status = crate::status::of_vm(&world, None, None).unwrap();
    let current = condition::find(&status.conditions, ConditionKind::UpToDate).unwrap();
    assert_eq!((current.status, current.reason.as_str()), (ConditionStatus::False, "RunsOtherwise"));
}

#[test]
fn a_vm_that_lost_its_disk_is_told_and_a_foreign_definitions_disk_is_found_by_where_it_lies() {
    let mut detached = running();
    devices(&mut detached).disks.clear();
    assert!(differences(&detached).unwrap()[0].contains("detached"));
    assert!(decide(&detached).steps.is_empty(), "it has written nowhere else");
    let mut foreign = on_an_overlay(OVERLAY);
    foreign.local = Observed::Known(LocalVm::Running { generation: 0 });
    devices(&mut foreign).disks[0].target = "sda".to_owned();
    assert_eq!(only_write(&decide(&foreign)).record.disk, Some(overlay()));
}
