//! What a local user without any right can do to the VM: nothing.

use anyhow::{Context, Result, ensure};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT, within_bound};
use zsha_e2e::{Cluster, Host, wait};

/// As `nobody`, a process that is called and told what a QEMU of the VM would be.
fn pretend(host: &Host, uuid: &str) -> Result<()> {
    let script = format!(
        "( exec -a qemu-x sh -c 'while :; do sleep 60; done' it -uuid {uuid} ) </dev/null >/dev/null 2>&1 &"
    );
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    host.ok(&[&nobody[..], &["bash", "-c", &script]].concat())?;
    wait::until("the impostor is there", FAILOVER_LIMIT, || {
        Ok(host.exec(&["pgrep", "-u", "65534", "-f", uuid])?.success().is_ok().then_some(()))
    })
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
        host.ok(&["pgrep", "-u", "65534", "-f", &uuid]).context("the impostor was ended")?;
    }
    lab.finish()
}
