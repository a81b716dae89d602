//! Tests what only the simulated world can do: faults, several nodes, power.

use std::path::PathBuf;

use uuid::Uuid;
use zsha_crds::VmName;

use super::*;
use crate::hypervisor::{DomainImage, DomainSpec, Hypervisor, HypervisorError, LocalVm, OffReason};

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn domain(generation: u64) -> DomainSpec {
    DomainSpec {
        name: VmName::management(),
        uuid: Uuid::from_u128(7),
        generation,
        memory_mib: 64,
        vcpus: 1,
        image: DomainImage::qcow2(PathBuf::from("/share/mnvm.img")),
        nics: Vec::new(),
        guest: Default::default(),
    }
}

fn world() -> (Arc<SimulatedHosts>, SimulatedHypervisor, SimulatedHypervisor) {
    let hosts = SimulatedHosts::new(VmId { name: VmName::management(), uuid: Uuid::from_u128(7) });
    let (one, two) = (hosts.hypervisor(&node("n1")), hosts.hypervisor(&node("n2")));
    hosts.set_delays(&node("n1"), Delays::NONE);
    hosts.set_delays(&node("n2"), Delays::NONE);
    (hosts, one, two)
}

async fn run_on(hypervisor: &SimulatedHypervisor) {
    hypervisor.start_paused(&domain(1)).await.unwrap();
    hypervisor.resume().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_copy_on_another_node_locks_the_image() {
    let (hosts, one, two) = world();
    run_on(&one).await;
    let refused = two.start_paused(&domain(1)).await;
    assert!(matches!(refused, Err(HypervisorError::ImageLocked { .. })), "{refused:?}");
    assert_eq!(hosts.kill_now(&node("n1")), 1);
    two.start_paused(&domain(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_image_locks_two_executing_copies_are_told() {
    let (hosts, one, two) = world();
    hosts.set_image_locks(false);
    run_on(&one).await;
    two.start_paused(&domain(1)).await.unwrap();
    assert_eq!(hosts.copies().len(), 2);
    assert!(hosts.double_executions().is_empty(), "a paused copy executes nothing");
    two.resume().await.unwrap();
    hosts.qemu_dies(&node("n1"));
    let doubles = hosts.double_executions();
    assert_eq!((doubles[0].first.as_str(), doubles[0].second.as_str()), ("n1", "n2"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_not_let_go_of_the_lock_keeps_everybody_from_starting_for_a_while() {
    let (hosts, one, _) = world();
    hosts.leave_image_locked(Instant::now() + Duration::from_secs(90));
    assert!(matches!(one.start_paused(&domain(1)).await, Err(HypervisorError::ImageLocked { .. })));
    tokio::time::advance(Duration::from_secs(90)).await;
    one.start_paused(&domain(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_late_start_happens_after_it_was_given_up() {
    let (hosts, one, _) = world();
    hosts.set_fault(&node("n1"), Some(Fault::Late(Duration::from_secs(8))));
    assert!(matches!(one.start_paused(&domain(1)).await, Err(HypervisorError::Unanswered { .. })));
    assert!(hosts.copies().is_empty());
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(hosts.copies().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_not_a_thing_undone() {
    let (hosts, one, _) = world();
    hosts.set_fault(&node("n1"), Some(Fault::AnswersLost));
    assert!(matches!(one.start_paused(&domain(1)).await, Err(HypervisorError::Unanswered { .. })));
    hosts.set_fault(&node("n1"), None);
    assert!(one.look().await.unwrap().has_process());
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_of_power_nothing_runs_and_nothing_asked_before_happens() {
    let (hosts, one, _) = world();
    run_on(&one).await;
    hosts.set_fault(&node("n1"), Some(Fault::Late(Duration::from_secs(20))));
    assert!(matches!(one.kill().await, Err(HypervisorError::Unanswered { .. })));
    hosts.power_loss(&node("n1"));
    assert!(matches!(one.look().await, Err(HypervisorError::Unreachable { .. })));
    hosts.power_on(&node("n1"));
    hosts.set_fault(&node("n1"), None);
    assert_eq!(one.look().await.unwrap(), LocalVm::Absent);
    one.start_paused(&domain(1)).await.unwrap();
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(hosts.copies().len(), 1, "the kill belonged to the boot before");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_killed_is_not_said_to_be_dead() {
    let (hosts, one, _) = world();
    run_on(&one).await;
    hosts.set_unkillable(&node("n1"), true);
    assert!(matches!(one.kill().await, Err(HypervisorError::Unanswered { .. })));
    assert_eq!(hosts.kill_now(&node("n1")), 0);
    assert_eq!(hosts.copies_on(&node("n1")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_off_on_time_when_somebody_drives_the_world() {
    let (hosts, one, _) = world();
    let takes = Duration::from_secs(2);
    hosts.set_delays(&node("n1"), Delays { guest_shutdown: Some(takes), ..Delays::NONE });
    run_on(&one).await;
    let driver = tokio::spawn({
        let hosts = Arc::clone(&hosts);
        async move { hosts.run().await }
    });
    let asked = Instant::now();
    one.shutdown().await.unwrap();
    let mut changes = one.changes();
    changes.changed().await.unwrap();
    assert_eq!(asked.elapsed().as_secs(), 2);
    assert_eq!(one.look().await.unwrap(), LocalVm::Off { reason: OffReason::Shutdown });
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_meant_for_a_dead_process_does_not_reach_its_successor() {
    let (hosts, one, _) = world();
    hosts.set_delays(&node("n1"), Delays { guest_shutdown: Some(Duration::from_secs(2)), ..Delays::NONE });
    run_on(&one).await;
    one.shutdown().await.unwrap();
    assert!(hosts.qemu_dies(&node("n1")));
    run_on(&one).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(one.look().await.unwrap(), LocalVm::Running { generation: 1 });
}

#[tokio::test(start_paused = true)]
async fn what_is_killed_in_its_sleep_executes_no_more_may_still_write_and_is_gone_when_it_wakes() {
    let (hosts, one, two) = world();
    hosts.set_image_locks(false);
    run_on(&one).await;
    hosts.set_unkillable(&node("n1"), true);
    assert!(hosts.copies_on(&node("n1"))[0].executing);
    hosts.kill_now(&node("n1"));
    let copy = hosts.copies_on(&node("n1"))[0].clone();
    assert!(!copy.executing && copy.may_write);
    assert!(matches!(one.resume().await, Err(HypervisorError::Refused { .. })));
    run_on(&two).await;
    assert_eq!(hosts.double_executions(), vec![]);
    hosts.set_unkillable(&node("n1"), false);
    assert_eq!(hosts.copies_on(&node("n1")), vec![]);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_guest_stands_still_and_wakes_beside_whoever_took_over() {
    let (hosts, one, two) = world();
    hosts.set_image_locks(false);
    let guest_shutdown = Some(Duration::from_secs(2));
    hosts.set_delays(&node("n1"), Delays { guest_shutdown, ..Delays::NONE });
    run_on(&one).await;
    // It does not go on with that either.
    one.shutdown().await.unwrap();
    hosts.suspend(&node("n1"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!hosts.copies_on(&node("n1"))[0].executing);
    run_on(&two).await;
    assert_eq!(hosts.double_executions(), vec![]);
    hosts.wake(&node("n1"));
    assert_eq!(hosts.double_executions().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_boots_runs_what_was_defined_to_be_started_with_it_and_nothing_else() {
    let (hosts, one, two) = world();
    hosts.set_image_locks(false);
    run_on(&one).await;
    hosts.define_by_hand(&node("n1"), false);
    hosts.power_loss(&node("n1"));
    hosts.power_on(&node("n1"));
    assert_eq!(hosts.copies(), vec![]);
    run_on(&two).await;
    hosts.define_by_hand(&node("n1"), true);
    hosts.power_loss(&node("n1"));
    hosts.power_on(&node("n1"));
    assert_eq!(one.look().await.unwrap(), LocalVm::Running { generation: 0 });
    assert_eq!(hosts.double_executions().len(), 1);
}
