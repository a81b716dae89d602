//! What must not touch a running VM: its process id is the same before and after.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SECOND, SETTLE_LIMIT, now};
use zsha_e2e::{Cluster, Host};

/// Longer than every deadline of the lease in `Balanced`.
const LONG_ENOUGH: Duration = Duration::from_secs(15);

/// Runs the VM, lets `happen` do something to the cluster and its owner, and sees that QEMU is the same process.
fn same_qemu_through(happen: impl FnOnce(&Cluster, &Host) -> Result<()>) -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    lab.start_vm()?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let qemu = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    happen(&lab, owner)?;
    let runs_on = lab.settled(SETTLE_LIMIT)?;
    ensure!(runs_on.name == owner.name && runs_on.pid_of_qemu()? == Some(qemu), "the VM's process changed");
    ensure!(
        lab.check().history().len() == 1,
        "another QEMU was there meanwhile: {:?}",
        lab.check().history()
    );
    lab.finish()
}

fn keeps_running(host: &Host, qemu: Option<i32>, span: Duration) -> Result<()> {
    zsha_e2e::wait::stays("the VM's process", span, || {
        let now = host.pid_of_qemu()?;
        ensure!(now == qemu, "it was {qemu:?}, it is {now:?}");
        Ok(())
    })
}

#[test]
fn consul_leader_killed() -> Result<()> {
    same_qemu_through(|lab, owner| {
        let qemu = owner.pid_of_qemu()?;
        let leader = lab.consul_leader()?;
        leader.kill9("consul")?; // started again a second later, as systemd would
        keeps_running(owner, qemu, LONG_ENOUGH)?;
        lab.wait_until_up(FAILOVER_LIMIT)
    })
}

#[test]
fn consul_leader_down_for_longer_than_any_deadline() -> Result<()> {
    same_qemu_through(|lab, owner| {
        let qemu = owner.pid_of_qemu()?;
        let leader = lab.consul_leader()?;
        leader.stop("consul")?;
        keeps_running(owner, qemu, LONG_ENOUGH)?;
        leader.start("consul")?;
        lab.wait_until_up(FAILOVER_LIMIT)
    })
}

#[test]
fn controller_of_the_owner_restarted() -> Result<()> {
    same_qemu_through(|_, owner| {
        let qemu = owner.pid_of_qemu()?;
        owner.restart("controller")?;
        keeps_running(owner, qemu, LONG_ENOUGH)
    })
}

#[test]
fn controller_of_the_owner_dead_for_a_minute() -> Result<()> {
    same_qemu_through(|_, owner| {
        let qemu = owner.pid_of_qemu()?;
        owner.stop("controller")?;
        keeps_running(owner, qemu, 60 * SECOND)?;
        owner.start("controller")
    })
}

#[test]
fn keeper_of_the_owner_restarted() -> Result<()> {
    same_qemu_through(|_, owner| {
        let qemu = owner.pid_of_qemu()?;
        owner.restart("keeper")?;
        keeps_running(owner, qemu, LONG_ENOUGH)
    })
}

#[test]
fn libvirtd_of_the_owner_killed() -> Result<()> {
    same_qemu_through(|_, owner| {
        let qemu = owner.pid_of_qemu()?;
        owner.kill9("libvirtd")?;
        keeps_running(owner, qemu, LONG_ENOUGH)
    })
}

#[test]
fn memory_changed_by_apply_until_the_guest_powers_off() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Fast").build()?;
    lab.start_vm()?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let qemu = owner.pid_of_qemu()?;
    let kibibytes = |host: &Host| host.virsh(&["dominfo", zsha_e2e::guest::DOMAIN]);
    ensure!(kibibytes(owner)?.contains(&format!("{} KiB", 8 << 20)), "{}", kibibytes(owner)?);

    let bigger = lab.document().with("MemorySizeInGB", 9);
    let diff = owner.zsha(&["diff", "-f", "-"], &bigger.0.to_string())?;
    ensure!(diff.status.code() == Some(1), "differences are exit status 1: {diff:?}");
    ensure!(
        diff.stdout.to_lowercase().contains("next boot"),
        "diff says when it is in force: {}",
        diff.stdout
    );
    lab.apply(&bigger, "more memory")?;
    let same = owner.zsha(&["diff", "-f", "-"], &bigger.0.to_string())?;
    ensure!(same.status.success(), "no differences after apply: {same:?}");
    lab.settled(SETTLE_LIMIT)?;
    ensure!(owner.pid_of_qemu()? == qemu, "apply has touched the running VM");

    lab.until("the guest's agent answers", 180 * SECOND, || owner.guest_up().map(Some))?;
    let asked = now();
    owner.virsh(&["shutdown", "--mode", "agent", zsha_e2e::guest::DOMAIN])?;
    let back = lab.recovered(asked, FAILOVER_LIMIT)?;
    println!("guest powered off: the VM runs again after {:.2?}", back.took);
    ensure!(kibibytes(back.host)?.contains(&format!("{} KiB", 9 << 20)), "{}", kibibytes(back.host)?);
    lab.settled(SETTLE_LIMIT)?;
    lab.finish()
}
