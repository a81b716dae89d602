//! libvirt keeps the contract of the hypervisor: the same cases as the simulated one, on a real QEMU under a libvirtd
//! of each test's own, in namespaces of its own. Root, libvirtd, QEMU and the lab's guest image are needed: without
//! them it fails and says how to get them. It touches no libvirt of the machine.

#![cfg(feature = "libvirt")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

/// Taken in rather than linked: the library carries its tests only when it is itself under test.
#[path = "../src/hypervisor/contract.rs"]
mod contract;
#[path = "hypervisor_contract/daemon.rs"]
mod daemon;
#[path = "hypervisor_contract/rig.rs"]
mod rig;

use std::path::{Path, PathBuf};
use std::time::Duration;

use contract::{Rig, every_case};
use rig::LibvirtRig;
use uuid::Uuid;
use zsha_controller::hypervisor::domain_xml::{self, CephLogin, DomainSettings, DomainType};
use zsha_controller::hypervisor::libvirt::{LibvirtHypervisor, LibvirtSettings};
use zsha_controller::hypervisor::{
    DomainFacts, DomainImage, DomainNic, DomainSpec, Hypervisor, HypervisorError, LocalVm, OffReason, Origin,
    PauseReason,
};
use zsha_crds::{VmId, VmName};

macro_rules! tests {
    ($($case:ident,)*) => {
        $(#[tokio::test]
        async fn $case() {
            contract::$case(&LibvirtRig::start().await).await;
        })*
    };
}
every_case!(tests);

async fn run(rig: &LibvirtRig) {
    rig.hypervisor().start_paused(&rig.domain(1)).await.unwrap();
    rig.hypervisor().resume().await.unwrap();
}

#[tokio::test]
async fn libvirt_keeps_nothing_to_start_the_vm_from() {
    let rig = LibvirtRig::start().await;
    run(&rig).await;
    assert_eq!(rig.virsh(&["list", "--persistent", "--all", "--name"]).await.trim(), "");
    rig.hypervisor().kill().await.unwrap();
    assert_eq!(rig.virsh(&["list", "--all", "--name"]).await.trim(), "");
}

/// How often a guest goes while it is asked: libvirt has not noticed it, or forgets it between two questions, now and
/// then only.
const GOES: u32 = 8;

#[tokio::test]
async fn a_domain_that_goes_between_two_questions_fails_neither() {
    let rig = LibvirtRig::start().await;
    let vm = rig.hypervisor();
    for round in 0..GOES {
        run(&rig).await;
        rig.kill_qemu().await;
        // Half of the rounds end what has just died, the others ask of it until it is known to be gone.
        if round % 2 == 0 {
            vm.kill().await.unwrap();
        }
        loop {
            vm.shutdown().await.unwrap();
            vm.abort_migration().await.unwrap();
            vm.domain().await.unwrap();
            vm.undefine().await.unwrap();
            if !vm.look().await.unwrap().has_process() {
                break;
            }
        }
    }
}

/// The time for the question to reach a QEMU that does not answer. Nothing depends on it but what is tried.
const ASKED: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_guest_whose_process_dies_while_it_is_asked_is_off() {
    let rig = LibvirtRig::start().await;
    for _ in 0..GOES {
        run(&rig).await;
        rig.stop_qemu();
        let dies = async {
            tokio::time::sleep(ASKED).await;
            rig.kill_qemu().await;
        };
        let (asked, ()) = tokio::join!(rig.hypervisor().shutdown(), dies);
        assert_eq!(asked, Ok(()));
        rig::until(|| async { !rig.hypervisor().look().await.unwrap().has_process() }).await;
    }
}

#[tokio::test]
async fn a_guests_own_end_is_known_to_a_controller_that_was_away_meanwhile() {
    let rig = LibvirtRig::start().await;
    run(&rig).await;
    let away = rig.another_hypervisor(None);
    contract::until_off_by_itself(&rig).await;
    for after in [away, rig.another_hypervisor(None)] {
        assert_eq!(after.look().await, Ok(LocalVm::Off { reason: OffReason::Shutdown }));
    }
    // Also when libvirt has been away since; but not what a later start came to.
    rig.cut().await;
    rig.mend().await;
    let after = rig.another_hypervisor(None);
    rig::until(|| async { after.look().await.is_ok() }).await;
    assert_eq!(after.look().await, Ok(LocalVm::Off { reason: OffReason::Shutdown }));
    rig::until(|| async { rig.hypervisor().look().await.is_ok() }).await;
    run(&rig).await;
    rig.kill_qemu().await;
    rig::until(|| async { !after.look().await.unwrap().has_process() }).await;
    let after = rig.another_hypervisor(None);
    assert_eq!(after.look().await, Ok(LocalVm::Off { reason: OffReason::Died }));
}

#[tokio::test]
async fn what_was_restored_from_a_file_is_not_said_to_have_booted() {
    let rig = LibvirtRig::start().await;
    run(&rig).await;
    let directory = tempfile::tempdir().unwrap();
    let saved = directory.path().join("saved");
    let saved = saved.to_str().unwrap();
    rig.virsh(&["save", "mnvm", saved]).await;
    rig::until(|| async { !rig.hypervisor().look().await.unwrap().has_process() }).await;
    assert_eq!(rig.hypervisor().look().await, Ok(LocalVm::Off { reason: OffReason::Unknown }));
    rig.virsh(&["restore", saved]).await;
    let origin = async |hypervisor: &dyn Hypervisor| hypervisor.domain().await.map(|facts| facts.origin);
    assert_eq!(origin(rig.hypervisor()).await, Ok(Origin::Restored));
    rig.virsh(&["suspend", "mnvm"]).await;
    assert_eq!(origin(rig.hypervisor()).await, Ok(Origin::Restored), "as it was told at its start");
    assert_eq!(origin(&rig.another_hypervisor(None)).await, Ok(Origin::Unknown), "nobody told that one");
}

#[tokio::test]
async fn of_two_clusters_under_one_libvirt_the_second_is_told_of_the_first_and_never_touches_its_vm() {
    let rig = LibvirtRig::start().await;
    run(&rig).await;
    let uuid = Uuid::new_v4();
    let second = rig.hypervisor_of_another_cluster(uuid);
    let spec = DomainSpec { uuid, ..rig.domain(7) };
    for refused in [second.start_paused(&spec).await.unwrap_err(), second.look().await.unwrap_err()] {
        let told = refused.to_string();
        assert!(told.contains("another domain that is called mnvm"), "{told}");
    }
    // What is not there is dead, and the other's is not it.
    second.kill().await.unwrap();
    second.undefine().await.unwrap();
    assert_eq!(rig.hypervisor().look().await, Ok(LocalVm::Running { generation: 1 }));
    assert_eq!(rig.processes(), 1);
}

#[tokio::test]
async fn a_kill_reaches_qemu_also_where_libvirt_hangs() {
    let rig = LibvirtRig::start().await;
    run(&rig).await;
    rig.hang().await;
    let unconfirmed = rig.hypervisor().kill().await;
    assert!(unconfirmed.is_err(), "{unconfirmed:?}");
    assert_eq!(rig.processes(), 0);
    rig.go_on().await;
}

#[tokio::test]
async fn a_qemu_that_dies_while_libvirt_is_down_is_not_taken_for_running_after() {
    let rig = LibvirtRig::start().await;
    for _ in 0..GOES {
        run(&rig).await;
        let mut changes = rig.hypervisor().changes();
        rig.cut().await;
        rig.kill_qemu().await;
        rig.mend().await;
        let vm = loop {
            changes.borrow_and_update();
            match rig.hypervisor().look().await {
                Ok(vm) if !vm.has_process() => break vm,
                Ok(_) | Err(_) => changes.changed().await.unwrap(),
            }
        };
        let known =
            matches!(vm, LocalVm::Absent | LocalVm::Off { reason: OffReason::Died | OffReason::Unknown });
        assert!(known, "{vm:?}");
    }
}

#[tokio::test]
async fn a_process_that_libvirt_does_not_know_is_not_called_off() {
    let rig = LibvirtRig::start().await;
    let stray = rig.stray_qemu().await;
    assert_eq!(rig.hypervisor().look().await.unwrap(), LocalVm::Unmanaged);
    assert_eq!(rig.hypervisor().domain().await.unwrap().origin, Origin::Booted);
    let refused = rig.hypervisor().start_paused(&rig.domain(1)).await;
    assert!(matches!(refused, Err(HypervisorError::Refused { .. })), "{refused:?}");
    rig.hypervisor().kill().await.unwrap();
    assert_eq!(rig.hypervisor().look().await, Ok(LocalVm::Absent), "libvirt never knew of it");
    drop(stray);
}

#[tokio::test]
async fn a_guest_that_somebody_else_pauses_is_paused_and_its_metadata_may_be_missing() {
    let rig = LibvirtRig::start().await;
    run(&rig).await;
    rig.virsh(&["metadata", "mnvm", "https://zsha.io/v1", "--live", "--remove"]).await;
    assert_eq!(rig.hypervisor().look().await, Ok(LocalVm::Running { generation: 0 }));
    rig.virsh(&["suspend", "mnvm"]).await;
    let paused = LocalVm::Paused { reason: PauseReason::Asked, generation: 0 };
    assert_eq!(rig.hypervisor().look().await, Ok(paused));
}

#[tokio::test]
async fn kvm_or_not_is_probed_and_the_settings_go_before() {
    let rig = LibvirtRig::start().await;
    let probed = rig.another_hypervisor(None).probe_domain_type().await.unwrap();
    let offered = rig.virsh(&["capabilities"]).await.contains("<domain type='kvm'/>");
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    assert_eq!(probed == DomainType::Kvm, offered && device);
    let told = rig.another_hypervisor(Some(DomainType::Kvm)).probe_domain_type().await.unwrap();
    assert_eq!(told, DomainType::Kvm);
}

#[tokio::test]
async fn a_hypervisor_that_is_dropped_leaves_no_connection_behind() {
    let rig = LibvirtRig::start().await;
    rig.hypervisor().look().await.unwrap();
    let before = rig.clients().await;
    for _ in 0..3 {
        let another = rig.another_hypervisor(None);
        another.look().await.unwrap();
        assert_eq!(rig.clients().await, before + 1);
        drop(another);
        rig::until(|| async { rig.clients().await == before }).await;
    }
}

#[tokio::test]
async fn what_we_define_is_valid_by_libvirts_own_schema() {
    let rig = LibvirtRig::start().await;
    let ceph = DomainImage::Rbd {
        monitors: vec!["10.0.0.1:6789".to_owned(), "[fd00::2]:6789".to_owned(), "ceph-3".to_owned()],
        pool: "vms".to_owned(),
        image: "mnvm".to_owned(),
    };
    let login = CephLogin {
        user: "libvirt".to_owned(),
        secret: Uuid::from_u128(2),
        config: Some("/etc/zsha/ceph.conf".into()),
    };
    let special = DomainImage::qcow2(PathBuf::from("/share/<&'\"> é.img"));
    for (image, domain_type) in [(ceph, DomainType::Kvm), (special, DomainType::Qemu)] {
        let settings =
            DomainSettings { ceph: Some(login.clone()), ..DomainSettings::new(rig::cluster(), domain_type) };
        let xml = domain_xml::write(&DomainSpec { image, ..rig.domain(5) }, &settings).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &xml).unwrap();
        rig.virsh(&["define", "--validate", file.path().to_str().unwrap()]).await;
        let back = rig.virsh(&["dumpxml", "mnvm", "--inactive"]).await;
        assert_eq!(domain_xml::generation(&back).unwrap(), 5);
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_and_never_absent() {
    let settings = LibvirtSettings::new(rig::uri(Path::new("/nonexistent")), rig::cluster());
    let uuid = Uuid::from_u128(1);
    let nobody =
        LibvirtHypervisor::new(settings, VmId { name: VmName::management(), uuid }, rig::copies(uuid))
            .unwrap();
    let looked = nobody.look().await;
    assert!(matches!(looked, Err(HypervisorError::Unreachable { .. })), "{looked:?}");
}
