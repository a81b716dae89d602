//! Situation 7 of the manual: what is lost of the networks, and what that moves. (The owner cut off from all of them is in
//! `failover`.)

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use zsha_e2e::scenario::{SECOND, SETTLE_LIMIT};
use zsha_e2e::{Cluster, wait};

fn nic(bridge: &str, last: u8, management: bool) -> Value {
    json!({
        "Bridge": bridge,
        "MacAddress": format!("02:98:54:4b:a5:{last:02x}"),
        "Ipaddr": format!("10.95.{last}.2"),
        "Netmask": "255.255.255.0",
        "Gateway": format!("10.95.{last}.1"),
        "IsMgmt": management,
        "IsDefRoute": management
    })
}

/// Longer than a node that is taken for dead keeps its VM.
const LONG: std::time::Duration = std::time::Duration::from_secs(16);

#[test]
fn the_vms_data_network_alone_moves_nothing_and_neither_does_a_bystander_that_is_cut_off() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").bridges(&["br_mgmt", "br_data"]).build()?;
    let networks = json!([nic("br_mgmt", 1, true), nic("br_data", 2, false)]);
    lab.apply(&lab.document().with("Network", networks), "a network for the VM's data")?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let pid = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    let stays = |what: &str| {
        wait::stays(what, LONG, || {
            ensure!(owner.pid_of_qemu()? == Some(pid), "its process is another");
            ensure!(lab.check().alive().len() == 1, "there is {:?}", lab.check().alive());
            Ok(())
        })
    };

    owner.pull_cable(1)?;
    lab.until("status says that the link is gone", 30 * SECOND, || {
        Ok(owner.zsha(&["status"], "")?.success()?.contains("br_data").then_some(()))
    })?;
    stays("with its data network gone the VM goes on where it is")?;
    owner.plug_cable(1)?;
    lab.settled(SETTLE_LIMIT)?;

    let bystander = lab.others(owner).next().context("no other host")?;
    bystander.pull_cables()?;
    stays("with a bystander cut off the VM goes on where it is")?;
    bystander.plug_cables()?;
    lab.wait_until_up(SETTLE_LIMIT)?;
    ensure!(lab.settled(SETTLE_LIMIT)?.pid_of_qemu()? == Some(pid), "its process is another");
    lab.finish()
}
