//! The contract of [`Hypervisor`] as cases. The same cases run on the simulated one, below, and on libvirt with a real
//! QEMU, in `tests/hypervisor_contract.rs`, which takes this file in as it is. A case asserts what the prose of the
//! trait promises, and waits for states through [`Hypervisor::changes`] alone: without the event it never ends.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;
use zsha_crds::records::DiskSource;

use super::{DomainFacts, DomainSpec, Hypervisor, HypervisorError, LocalVm, OffReason, Origin, PauseReason};

/// A fresh hypervisor that has never heard of the VM, and the means to do to it what no caller can.
#[async_trait]
pub(crate) trait Rig: Send + Sync {
    fn hypervisor(&self) -> &dyn Hypervisor;
    /// A domain with a guest that follows a request to shut down.
    fn domain(&self, generation: u64) -> DomainSpec;
    /// The numbers of the VM's processes, as the kernel sees them: no two ever have the same.
    fn process_numbers(&self) -> Vec<u64>;
    fn processes(&self) -> usize {
        self.process_numbers().len()
    }
    /// Sends SIGKILL to QEMU, from outside.
    async fn kill_qemu(&self);
    /// Cuts the hypervisor off: nothing answers at its address any more; its QEMU goes on.
    async fn cut(&self);
    async fn mend(&self);
    /// Hangs the hypervisor: it neither answers nor hangs up; its QEMU goes on.
    async fn hang(&self);
    async fn go_on(&self);
    /// Opens the image for writing, as another program would.
    async fn lock_image(&self);
    async fn unlock_image(&self);
    /// Lets the running VM go on on an overlay of its disk, as a backup does. Returns where that lies.
    async fn snapshot(&self) -> DiskSource;
    /// Merges the overlay into the image, on which the VM goes on then.
    async fn merge(&self);
    /// Defines another domain of the VM's name, and says by which UUID.
    async fn define_namesake(&self) -> Uuid;
    async fn undefine_namesake(&self);
    /// Defines the VM on the node's disk as an administrator would, to be started with the host or not.
    async fn define_by_hand(&self, autostart: bool);
}

/// Hands the name of every case to a macro.
macro_rules! every_case {
    ($tests:ident) => {
        $tests! {
            a_vm_never_heard_of_is_absent,
            what_there_is_to_run_the_vm_on_is_told_with_who_has_its_name,
            another_vm_is_not_started,
            a_paused_start_makes_a_process_that_does_not_execute,
            resuming_lets_the_guest_run,
            what_is_not_there_cannot_be_resumed,
            a_second_start_is_refused_and_makes_no_second_process,
            a_locked_image_is_told_from_other_refusals,
            killing_ends_a_running_guest,
            killing_ends_a_paused_one,
            killing_what_is_dead_is_no_error,
            a_guest_asked_to_shut_down_is_off_by_its_own_doing_and_can_be_started_again,
            asking_what_does_not_run_to_shut_down_is_no_error,
            what_does_not_execute_takes_no_password_and_runs_no_script,
            a_qemu_killed_from_outside_is_seen_as_died_by_its_event,
            a_paused_qemu_killed_from_outside_is_seen_as_died_by_its_event,
            a_start_leaves_nothing_on_the_disk,
            a_definition_left_by_hand_is_put_away_by_a_start,
            a_definition_made_beside_a_running_guest_goes_and_the_guest_stays,
            undefining_what_is_not_defined_is_no_error,
            a_disk_that_is_exchanged_under_the_guest_is_seen_and_its_return_is_an_event,
            a_hypervisor_out_of_reach_is_an_error_and_its_return_an_event,
            a_hypervisor_that_hangs_costs_its_deadline_and_harms_nothing,
        }
    };
}
#[allow(unused_imports, reason = "whoever takes the file in needs it, or is it")]
pub(crate) use every_case;

/// The time after which something has not happened. A guest boots and shuts down in it, without KVM, beside other
/// tests.
const LONG: Duration = Duration::from_secs(120);
/// The time within which an event is prompt: well before a caller would look by itself.
const PROMPT: Duration = Duration::from_secs(5);
/// The pause before a guest is asked to shut down again: it may not have been listening yet.
const ASK_AGAIN: Duration = Duration::from_secs(3);

async fn within<T>(time: Duration, what: &str, doing: impl Future<Output = T>) -> T {
    match tokio::time::timeout(time, doing).await {
        Ok(value) => value,
        Err(_) => panic!("not within {} s: {what}", time.as_secs()),
    }
}

/// Looks whenever told that something changed, until the VM is as wanted.
async fn comes_to(rig: &dyn Rig, wanted: LocalVm) {
    let mut changes = rig.hypervisor().changes();
    loop {
        changes.borrow_and_update();
        if rig.hypervisor().look().await == Ok(wanted) {
            return;
        }
        changes.changed().await.unwrap();
    }
}

async fn is(rig: &dyn Rig, wanted: LocalVm) {
    assert_eq!(rig.hypervisor().look().await.unwrap(), wanted);
}

async fn start(rig: &dyn Rig, generation: u64) -> Result<(), HypervisorError> {
    rig.hypervisor().start_paused(&rig.domain(generation)).await
}

async fn pause_at_start(rig: &dyn Rig, generation: u64) {
    start(rig, generation).await.unwrap();
}

async fn kept(rig: &dyn Rig, defined: bool, autostart: bool, origin: Origin) {
    let facts = rig.hypervisor().domain().await.unwrap();
    let devices = facts.devices.clone();
    assert_eq!(facts, DomainFacts { defined, autostart, devices, ..DomainFacts::new(origin) });
}

async fn run(rig: &dyn Rig, generation: u64) {
    pause_at_start(rig, generation).await;
    rig.hypervisor().resume().await.unwrap();
    is(rig, LocalVm::Running { generation }).await;
}

const fn off(reason: OffReason) -> LocalVm {
    LocalVm::Off { reason }
}

const fn paused(generation: u64) -> LocalVm {
    LocalVm::Paused { reason: PauseReason::Asked, generation }
}

pub(crate) async fn a_vm_never_heard_of_is_absent(rig: &dyn Rig) {
    is(rig, LocalVm::Absent).await;
}

pub(crate) async fn what_there_is_to_run_the_vm_on_is_told_with_who_has_its_name(rig: &dyn Rig) {
    let offer = async || rig.hypervisor().offer().await.unwrap();
    let first = offer().await;
    assert!(first.memory_mib > 256 && first.most_vcpus > 1, "{first:?}");
    assert_eq!((&first.refuses, first.namesake), (&None, None));
    run(rig, 1).await;
    assert_eq!(offer().await.namesake, None, "the VM is none of its own");
    rig.hypervisor().kill().await.unwrap();
    let other = rig.define_namesake().await;
    let told = async |wanted: Option<Uuid>| {
        // What was told may be some seconds old.
        while offer().await.namesake != wanted {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    within(LONG, "it is told", told(Some(other))).await;
    assert!(matches!(
        rig.hypervisor().start_paused(&rig.domain(2)).await,
        Err(HypervisorError::Refused { .. })
    ));
    rig.undefine_namesake().await;
    within(LONG, "it is told that it is gone", told(None)).await;
}

pub(crate) async fn another_vm_is_not_started(rig: &dyn Rig) {
    let other = DomainSpec { uuid: Uuid::from_u128(1), ..rig.domain(1) };
    let refused = rig.hypervisor().start_paused(&other).await;
    assert!(matches!(refused, Err(HypervisorError::Refused { .. })), "{refused:?}");
    is(rig, LocalVm::Absent).await;
    assert_eq!(rig.processes(), 0);
}

pub(crate) async fn a_paused_start_makes_a_process_that_does_not_execute(rig: &dyn Rig) {
    pause_at_start(rig, 7).await;
    is(rig, paused(7)).await;
    assert_eq!(rig.processes(), 1);
}

pub(crate) async fn resuming_lets_the_guest_run(rig: &dyn Rig) {
    run(rig, 7).await;
    rig.hypervisor().resume().await.unwrap();
    is(rig, LocalVm::Running { generation: 7 }).await;
    assert_eq!(rig.processes(), 1);
}

pub(crate) async fn what_is_not_there_cannot_be_resumed(rig: &dyn Rig) {
    let refused = rig.hypervisor().resume().await;
    assert!(matches!(refused, Err(HypervisorError::Refused { .. })), "{refused:?}");
    rig.define_by_hand(false).await;
    let refused = rig.hypervisor().resume().await;
    assert!(matches!(refused, Err(HypervisorError::Refused { .. })), "{refused:?}");
    assert_eq!(rig.processes(), 0);
}

pub(crate) async fn a_second_start_is_refused_and_makes_no_second_process(rig: &dyn Rig) {
    pause_at_start(rig, 1).await;
    let while_paused = start(rig, 1).await;
    rig.hypervisor().resume().await.unwrap();
    let while_running = start(rig, 1).await;
    for refused in [while_paused, while_running] {
        assert!(matches!(refused, Err(HypervisorError::Refused { .. })), "{refused:?}");
    }
    is(rig, LocalVm::Running { generation: 1 }).await;
    assert_eq!(rig.processes(), 1);
}

pub(crate) async fn a_locked_image_is_told_from_other_refusals(rig: &dyn Rig) {
    rig.lock_image().await;
    let locked = start(rig, 1).await;
    assert!(matches!(locked, Err(HypervisorError::ImageLocked { .. })), "{locked:?}");
    is(rig, off(OffReason::Unknown)).await;
    assert_eq!(rig.processes(), 0);
    rig.unlock_image().await;
    pause_at_start(rig, 1).await;
}

pub(crate) async fn killing_ends_a_running_guest(rig: &dyn Rig) {
    run(rig, 1).await;
    within(PROMPT, "the kill", rig.hypervisor().kill()).await.unwrap();
    assert_eq!(rig.processes(), 0);
    is(rig, off(OffReason::Destroyed)).await;
}

pub(crate) async fn killing_ends_a_paused_one(rig: &dyn Rig) {
    pause_at_start(rig, 1).await;
    within(PROMPT, "the kill", rig.hypervisor().kill()).await.unwrap();
    assert_eq!(rig.processes(), 0);
    is(rig, off(OffReason::Destroyed)).await;
}

pub(crate) async fn killing_what_is_dead_is_no_error(rig: &dyn Rig) {
    rig.hypervisor().kill().await.unwrap();
    is(rig, LocalVm::Absent).await;
    run(rig, 1).await;
    rig.kill_qemu().await;
    within(PROMPT, "its death", comes_to(rig, off(OffReason::Died))).await;
    rig.hypervisor().kill().await.unwrap();
    is(rig, off(OffReason::Died)).await;
}

pub(crate) async fn a_guest_asked_to_shut_down_is_off_by_its_own_doing_and_can_be_started_again(
    rig: &dyn Rig,
) {
    run(rig, 1).await;
    until_off_by_itself(rig).await;
    assert_eq!(rig.processes(), 0);
    run(rig, 1).await;
}

/// Asks a running guest to shut down until it has.
pub(crate) async fn until_off_by_itself(rig: &dyn Rig) {
    within(LONG, "the guest's end", async {
        rig.hypervisor().shutdown().await.unwrap();
        let asked = rig.hypervisor().look().await.unwrap();
        let known = asked == LocalVm::ShuttingDown { generation: 1 } || asked == off(OffReason::Shutdown);
        assert!(known, "{asked:?}");
        while tokio::time::timeout(ASK_AGAIN, comes_to(rig, off(OffReason::Shutdown))).await.is_err() {
            rig.hypervisor().shutdown().await.unwrap();
        }
    })
    .await;
}

pub(crate) async fn asking_what_does_not_run_to_shut_down_is_no_error(rig: &dyn Rig) {
    rig.hypervisor().shutdown().await.unwrap();
    rig.define_by_hand(false).await;
    rig.hypervisor().shutdown().await.unwrap();
    is(rig, LocalVm::Absent).await;
}

pub(crate) async fn what_does_not_execute_takes_no_password_and_runs_no_script(rig: &dyn Rig) {
    async fn refused(rig: &dyn Rig) {
        let set = rig.hypervisor().set_password("root", "secret").await;
        assert!(matches!(set, Err(HypervisorError::Refused { .. })), "{set:?}");
        let ran = rig.hypervisor().run_in_guest("echo here").await;
        assert!(matches!(ran, Err(HypervisorError::Refused { .. })), "{ran:?}");
    }
    refused(rig).await;
    pause_at_start(rig, 1).await;
    refused(rig).await;
    is(rig, LocalVm::Paused { reason: PauseReason::Asked, generation: 1 }).await;
}

pub(crate) async fn a_qemu_killed_from_outside_is_seen_as_died_by_its_event(rig: &dyn Rig) {
    run(rig, 1).await;
    rig.kill_qemu().await;
    within(PROMPT, "its death", comes_to(rig, off(OffReason::Died))).await;
    // And it is not taken for the end of the next one.
    pause_at_start(rig, 1).await;
    is(rig, paused(1)).await;
}

pub(crate) async fn a_paused_qemu_killed_from_outside_is_seen_as_died_by_its_event(rig: &dyn Rig) {
    pause_at_start(rig, 1).await;
    rig.kill_qemu().await;
    within(PROMPT, "its death", comes_to(rig, off(OffReason::Died))).await;
}

pub(crate) async fn a_start_leaves_nothing_on_the_disk(rig: &dyn Rig) {
    kept(rig, false, false, Origin::None).await;
    pause_at_start(rig, 1).await;
    kept(rig, false, false, Origin::Booted).await;
    rig.hypervisor().resume().await.unwrap();
    kept(rig, false, false, Origin::Booted).await;
    rig.hypervisor().kill().await.unwrap();
    kept(rig, false, false, Origin::None).await;
}

pub(crate) async fn a_definition_left_by_hand_is_put_away_by_a_start(rig: &dyn Rig) {
    rig.define_by_hand(true).await;
    is(rig, LocalVm::Absent).await;
    kept(rig, true, true, Origin::None).await;
    pause_at_start(rig, 2).await;
    is(rig, paused(2)).await;
    kept(rig, false, false, Origin::Booted).await;
    rig.hypervisor().kill().await.unwrap();
    kept(rig, false, false, Origin::None).await;
}

pub(crate) async fn a_definition_made_beside_a_running_guest_goes_and_the_guest_stays(rig: &dyn Rig) {
    run(rig, 1).await;
    rig.define_by_hand(true).await;
    kept(rig, true, true, Origin::Booted).await;
    let before = rig.process_numbers();
    rig.hypervisor().undefine().await.unwrap();
    kept(rig, false, false, Origin::Booted).await;
    is(rig, LocalVm::Running { generation: 1 }).await;
    assert_eq!((before.len(), rig.process_numbers()), (1, before));
    rig.hypervisor().kill().await.unwrap();
    is(rig, off(OffReason::Destroyed)).await;
}

pub(crate) async fn undefining_what_is_not_defined_is_no_error(rig: &dyn Rig) {
    rig.hypervisor().undefine().await.unwrap();
    run(rig, 1).await;
    rig.hypervisor().undefine().await.unwrap();
    is(rig, LocalVm::Running { generation: 1 }).await;
}

pub(crate) async fn a_disk_that_is_exchanged_under_the_guest_is_seen_and_its_return_is_an_event(
    rig: &dyn Rig,
) {
    run(rig, 7).await;
    let disk = async || {
        let devices = rig.hypervisor().domain().await.unwrap().devices;
        devices.known().unwrap_or_else(|| panic!("{devices:?}")).disks[0].clone()
    };
    let image = rig.domain(7).image.source();
    let before = disk().await;
    assert_eq!((&before.source, before.format.as_str(), before.backing.len()), (&image, "qcow2", 0));
    let overlay = rig.snapshot().await;
    let on_it = disk().await;
    assert_eq!((&on_it.source, on_it.format.as_str()), (&overlay, "qcow2"));
    assert_eq!(on_it.backing, std::slice::from_ref(&image));
    let mut changes = rig.hypervisor().changes();
    // What is still on its way is not about the merge: a daemon that was just reached is looked at again a while later.
    while tokio::time::timeout(PROMPT, changes.changed()).await.is_ok() {}
    rig.merge().await;
    within(PROMPT, "an event", changes.changed()).await.unwrap();
    let back = async {
        while disk().await.source != image {
            changes.changed().await.unwrap();
        }
    };
    within(LONG, "it writes to the image again", back).await;
    assert_eq!(disk().await, before);
    is(rig, LocalVm::Running { generation: 7 }).await;
}

pub(crate) async fn a_hypervisor_out_of_reach_is_an_error_and_its_return_an_event(rig: &dyn Rig) {
    run(rig, 3).await;
    let mut changes = rig.hypervisor().changes();
    rig.cut().await;
    within(PROMPT, "the event of the loss", async {
        while rig.hypervisor().look().await.is_ok() {
            changes.changed().await.unwrap();
        }
    })
    .await;
    let lost = rig.hypervisor().look().await;
    assert!(matches!(lost, Err(HypervisorError::Unreachable { .. })), "{lost:?}");
    assert_eq!(rig.processes(), 1, "its loss is not the guest's");
    rig.mend().await;
    within(LONG, "its return", comes_to(rig, LocalVm::Running { generation: 3 })).await;
}

pub(crate) async fn a_hypervisor_that_hangs_costs_its_deadline_and_harms_nothing(rig: &dyn Rig) {
    run(rig, 3).await;
    rig.hang().await;
    for _ in 0..3 {
        let hangs = within(2 * PROMPT, "an answer of any kind", rig.hypervisor().look()).await;
        let said =
            matches!(hangs, Err(HypervisorError::Unanswered { .. } | HypervisorError::Unreachable { .. }));
        assert!(said, "{hangs:?}");
    }
    rig.go_on().await;
    within(LONG, "its return", comes_to(rig, LocalVm::Running { generation: 3 })).await;
    assert_eq!(rig.processes(), 1);
}
