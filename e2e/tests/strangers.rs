//! What a local user without any right can do to the VM: nothing.

use anyhow::{Context, Result, ensure};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT, within_bound};
use zsha_e2e::{Cluster, Host, wait};

/// Starts two impostors as `nobody`: a process that is called and told what a QEMU of the VM would be, and one with
/// root's powers, which a program that waits for a password has.
fn pretend(host: &Host, uuid: &str) -> Result<()> {
    let script = format!(
        "( exec -a qemu-x sh -c 'while :; do sleep 60; done' it -uuid {uuid} ) </dev/null >/dev/null 2>&1 &
        ( sleep infinity | ( exec -a qemu-x su -- root -uuid {uuid} -incoming x ) ) </dev/null >/dev/null 2>&1 &"
    );
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    host.ok(&[&nobody[..], &["bash", "-c", &script]].concat())?;
    wait::until("the impostors are there", FAILOVER_LIMIT, || Ok(impostors(host, uuid)?.then_some(())))
}

/// True if both are there: processes of `nobody`, whosever powers they have.
fn impostors(host: &Host, uuid: &str) -> Result<bool> {
    let of = |whose: &[&str]| host.exec(&[&["pgrep"], whose, &["-f", &format!("^qemu-x.*{uuid}")]].concat());
    Ok(of(&["-U", "65534", "-u", "65534"])?.success().is_ok()
        && of(&["-U", "65534", "-u", "0"])?.success().is_ok())
}

#[test]
fn an_impostor_on_every_node_keeps_the_vm_neither_from_starting_again_nor_from_failing_over() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Fast").build()?;
    lab.start_vm()?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let uuid = owner.virsh(&["domuuid", "mnvm"])?.trim().to_owned();
    for host in lab.hosts() {
        pretend(host, &uuid)?;
    }
    let bound = lab.failover_bound()?;

    let killed = owner.kill9("qemu")?;
    let back = lab.recovered(killed, FAILOVER_LIMIT).context("QEMU killed beside an impostor")?;
    within_bound("Fast", "QEMU killed beside an impostor", back.took, bound)?;
    ensure!(back.host.name == owner.name, "it was started on {}", back.host.name);
    lab.settled(SETTLE_LIMIT)?;

    let cut = owner.power_off()?;
    let back = lab.recovered(cut, FAILOVER_LIMIT).context("a failover to a node with an impostor")?;
    within_bound("Fast", "power loss, impostors on the others", back.took, bound)?;
    for host in lab.others(owner) {
        ensure!(impostors(host, &uuid)?, "an impostor on {} was ended", host.name);
    }
    lab.finish()
}
