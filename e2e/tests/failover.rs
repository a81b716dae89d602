//! What a failover costs: a node dies, is cut off, is Consul's leader as well. Each prints the measured time beside the
//! bound that the product computes for itself, in the profiles `Fast` and `Balanced`, and stays within it every time.

use anyhow::{Context, Result, ensure};
use zsha_e2e::scenario::{
    FAILOVER_LIMIT, RESTART_LIMIT, SECOND, SETTLE_LIMIT, consul_leader_becomes, now, rounds, within_bound,
};
use zsha_e2e::{Cluster, wait};

fn running_lab(profile: &str) -> Result<Cluster> {
    let lab = Cluster::builder().nodes(3).profile(profile).build()?;
    lab.start_vm()?;
    lab.settled(SETTLE_LIMIT)?;
    Ok(lab)
}

macro_rules! in_fast_and_balanced {
    ($($scenario:ident)*) => { $(mod $scenario {
        #[test]
        fn fast() -> anyhow::Result<()> {
            super::$scenario("Fast")
        }
        #[test]
        fn balanced() -> anyhow::Result<()> {
            super::$scenario("Balanced")
        }
    })* };
}

in_fast_and_balanced! {
    first_start_is_on_exactly_one_node
    qemu_killed_is_started_again_on_the_same_node_within_a_second
    power_loss_of_the_owner_moves_the_vm_within_the_bound
    cable_of_the_owner_pulled_moves_the_vm_within_the_bound_and_put_back_moves_nothing
    owner_and_consul_leader_in_one_lose_power_within_the_same_bound
}

fn first_start_is_on_exactly_one_node(profile: &str) -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile(profile).build()?;
    let applied = now();
    let owner = lab.start_vm()?;
    println!("{profile}: first start on {}, {:.2?} after `zsha apply`", owner.name, applied.elapsed());
    lab.settled(SETTLE_LIMIT)?;
    ensure!(lab.check().history().len() == 1, "one QEMU was started in all: {:?}", lab.check().history());
    lab.finish()
}

fn qemu_killed_is_started_again_on_the_same_node_within_a_second(profile: &str) -> Result<()> {
    let lab = running_lab(profile)?;
    for round in 1..=rounds() {
        let owner = lab.settled(SETTLE_LIMIT)?;
        let killed = owner.kill9("qemu")?;
        let back = lab.recovered(killed, FAILOVER_LIMIT)?;
        within_bound(profile, &format!("QEMU killed -9, round {round}"), back.took, SECOND)?;
        ensure!(back.host.name == owner.name, "it was started on {}, not on {}", back.host.name, owner.name);
    }
    lab.finish()
}

fn power_loss_of_the_owner_moves_the_vm_within_the_bound(profile: &str) -> Result<()> {
    let lab = running_lab(profile)?;
    for round in 1..=rounds() {
        let owner = lab.settled(SETTLE_LIMIT)?;
        let bound = lab.failover_bound()?;
        let cut = owner.power_off()?;
        let back = lab.recovered(cut, FAILOVER_LIMIT)?;
        within_bound(profile, &format!("power loss of the owner, round {round}"), back.took, bound)?;
        owner.power_on()?;
        let runs_on = lab.settled(SETTLE_LIMIT)?;
        ensure!(runs_on.pid_of_qemu()? == Some(back.pid), "the node that came back moved the VM");
    }
    lab.finish()
}

fn cable_of_the_owner_pulled_moves_the_vm_within_the_bound_and_put_back_moves_nothing(
    profile: &str,
) -> Result<()> {
    let lab = running_lab(profile)?;
    for round in 1..=rounds() {
        let owner = lab.settled(SETTLE_LIMIT)?;
        let bound = lab.failover_bound()?;
        let cut = owner.pull_cables()?;
        let back = lab.recovered(cut, FAILOVER_LIMIT)?;
        within_bound(profile, &format!("cable of the owner, round {round}"), back.took, bound)?;
        ensure!(owner.pid_of_qemu()?.is_none(), "the node that is cut off still runs its copy");
        owner.plug_cables()?;
        let runs_on = lab.settled(SETTLE_LIMIT)?;
        ensure!(runs_on.pid_of_qemu()? == Some(back.pid), "the node that came back moved the VM");
    }
    lab.finish()
}

fn owner_and_consul_leader_in_one_lose_power_within_the_same_bound(profile: &str) -> Result<()> {
    let lab = running_lab(profile)?;
    for round in 1..=rounds() {
        let owner = lab.settled(SETTLE_LIMIT)?;
        consul_leader_becomes(&lab, owner)?;
        lab.settled(SETTLE_LIMIT)?;
        let bound = lab.failover_bound()?;
        let cut = owner.power_off()?;
        let back = lab.recovered(cut, FAILOVER_LIMIT)?;
        within_bound(profile, &format!("owner and Consul's leader in one, round {round}"), back.took, bound)?;
        owner.power_on()?;
        lab.settled(SETTLE_LIMIT)?;
    }
    lab.finish()
}

#[test]
fn power_loss_of_a_bystander_moves_nothing() -> Result<()> {
    let lab = running_lab("Fast")?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let qemu = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    let bystander = lab.others(owner).next().context("no bystander")?;
    bystander.power_off()?;
    lab.until("status says that it is not ready", FAILOVER_LIMIT, || {
        Ok(lab.status()?.node(&bystander.name).is_some_and(|node| !node.ready).then_some(()))
    })?;
    bystander.power_on()?;
    let runs_on = lab.settled(SETTLE_LIMIT)?;
    ensure!(runs_on.pid_of_qemu()? == Some(qemu), "the VM's process changed");
    lab.finish()
}

#[test]
fn two_of_three_down_stop_the_vm_and_one_of_them_back_starts_it_once() -> Result<()> {
    let lab = running_lab("Fast")?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let bound = lab.failover_bound()?;
    let others: Vec<_> = lab.others(owner).collect();
    let mut cut = now();
    for other in &others {
        cut = other.power_off()?;
    }
    lab.until("the owner's keeper stops the VM: it has no quorum", bound, || {
        Ok(lab.check().alive().is_empty().then_some(()))
    })?;
    println!("two of three down: the VM is stopped after {:.2?} (bound {bound:.2?})", cut.elapsed());
    wait::stays("nothing starts without quorum", bound, || {
        ensure!(lab.check().alive().is_empty(), "{:?}", lab.check().alive());
        Ok(())
    })?;
    let back = now();
    others[0].power_on()?;
    lab.recovered(back, RESTART_LIMIT)?;
    println!("one of them back: the VM runs {:.2?} after its power", back.elapsed());
    others[1].power_on()?;
    lab.settled(SETTLE_LIMIT)?;
    let started = lab.check().history().into_iter().filter(|copy| copy.first_seen > back).count();
    ensure!(started == 1, "{started} starts after quorum came back");
    lab.finish()
}

#[test]
fn all_three_lose_power_and_the_vm_starts_once_when_they_are_back() -> Result<()> {
    let lab = running_lab("Fast")?;
    for host in lab.hosts() {
        host.power_off()?;
    }
    ensure!(
        lab.check().alive().iter().all(|copy| !std::path::Path::new(&format!("/proc/{}", copy.pid)).exists())
    );
    let back = now();
    lab.power_on_all()?;
    lab.recovered(back, RESTART_LIMIT)?;
    println!("all three back: the VM runs {:.2?} after their power", back.elapsed());
    lab.settled(SETTLE_LIMIT)?;
    let started = lab.check().history().into_iter().filter(|copy| copy.first_seen > back).count();
    ensure!(started == 1, "{started} starts after power came back");
    lab.finish()
}
