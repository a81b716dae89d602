//! Which nodes vote in Consul, changed by `zsha install` over real sshd: four hosts, of which three are servers and one has
//! a client. The VM goes on through every change, also through one that breaks off in the middle.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use zsha_e2e::Cluster;
use zsha_e2e::operator::Operator;
use zsha_e2e::said::in_order;
use zsha_e2e::scenario::{FAILOVER_LIMIT, SECOND, SETTLE_LIMIT};

/// The numbers of the hosts that Consul counts as servers, by the word of the host with number `asked`.
fn servers(lab: &Cluster, asked: usize) -> Result<BTreeSet<usize>> {
    let said = lab.host(asked).consul("/v1/status/peers")?;
    let peers: Vec<String> = serde_json::from_str(&said).with_context(|| said.clone())?;
    let number = |peer: &String| {
        let host = lab.hosts().iter().position(|host| peer.starts_with(&format!("{}:", host.address())));
        host.map(|place| place + 1).with_context(|| format!("{peer} is no host of the lab"))
    };
    peers.iter().map(number).collect()
}

/// Whether the agent of a host is a server, by its own word.
fn serves(lab: &Cluster, number: usize) -> Result<bool> {
    let token = "CONSUL_HTTP_TOKEN_FILE=/etc/zsha/management.token";
    let said = lab.host(number).ok(&["sh", "-c", &format!("{token} consul info | grep 'server = '")])?;
    Ok(said.contains("true"))
}

fn ensure_servers(lab: &Cluster, wanted: [usize; 3]) -> Result<()> {
    let wanted = BTreeSet::from(wanted);
    for host in 1..=4 {
        ensure!(
            servers(lab, host)? == wanted,
            "host {host} counts {:?}, not {wanted:?}",
            servers(lab, host)?
        );
        ensure!(serves(lab, host)? == wanted.contains(&host), "host {host} is the other kind of agent");
    }
    Ok(())
}

/// Puts the document with these servers where the operator installs from.
fn name_servers(lab: &Cluster, operator: &Operator<'_>, servers: [usize; 3]) -> Result<()> {
    let names: Vec<&str> = servers.iter().map(|server| lab.host(*server).name.as_str()).collect();
    let document = lab.document().with("Servers", names);
    std::fs::write(operator.path("cluster.json"), document.0.to_string())?;
    lab.remember(&document);
    Ok(())
}

#[test]
fn another_server_takes_the_place_of_one_and_the_vm_goes_on() -> Result<()> {
    let lab = Cluster::builder().nodes(4).profile("Balanced").bare().build()?;
    let operator = Operator::new(&lab, &lab.document())?;

    // --- four nodes need to be told which of them vote
    let even = operator.install(&["--accept-new-host-keys"])?;
    ensure!(even.status.code() == Some(4) && even.stderr.contains("Servers"), "{even:?}");
    name_servers(&lab, &operator, [1, 2, 3])?;
    operator.install(&["--accept-new-host-keys"])?.success()?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let vm = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    ensure_servers(&lab, [1, 2, 3])?;

    // --- the server that is to be none does not answer: its place is not taken from it, and that is said
    let (leaves, joins) = (lab.host(3), lab.host(4));
    name_servers(&lab, &operator, [1, 2, 4])?;
    leaves.ok(&["systemctl", "kill", "-s", "STOP", "consul"])?;
    let refused = operator.install(&[])?;
    leaves.ok(&["systemctl", "kill", "-s", "CONT", "consul"])?;
    println!("a server that hangs:\n{}{}", refused.stdout, refused.stderr);
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(refused.stderr.contains(&leaves.address().to_string()), "{refused:?}");
    ensure!(owner.pid_of_qemu()? == Some(vm), "the VM's process is another");

    // --- the same command goes on where it broke off
    let changed = operator.install(&[])?.success()?;
    println!("3 gives its place to 4:\n{changed}");
    in_order(
        &changed,
        &[
            &format!("See that Consul keeps its quorum without {}", leaves.address()),
            &format!("Restart Service consul for: {}", leaves.address()),
            &format!("Take {} from Consul's servers", leaves.address()),
        ],
    )?;
    lab.until("Consul's servers are 1, 2 and 4", 30 * SECOND, || ensure_servers(&lab, [1, 2, 4]).map(Some))?;
    lab.settled(SETTLE_LIMIT)?;
    ensure!(owner.pid_of_qemu()? == Some(vm), "the VM's process is another");

    // --- again: nothing to do
    let again = operator.install(&[])?.success()?;
    ensure!(again.contains("Nothing was to be done: every node is as it has to be."), "{again}");

    // --- what is a server now is one: without one of the others a quorum is left only with it
    let lost = lab.host(2);
    lost.power_off()?;
    lab.until("Consul has a leader without it", FAILOVER_LIMIT, || {
        let leader: String = serde_json::from_str(&joins.consul("/v1/status/leader")?)?;
        Ok((!leader.is_empty() && !leader.starts_with(&lost.address().to_string())).then_some(()))
    })?;
    let was_on_lost = owner.name == lost.name;
    let owner = lab.settled(SETTLE_LIMIT)?;
    ensure!(was_on_lost || owner.pid_of_qemu()? == Some(vm), "the VM's process is another");
    let vm = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    // A change of servers needs all of them, and says which is missing.
    name_servers(&lab, &operator, [1, 2, 3])?;
    let refused = operator.install(&[])?;
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    ensure!(refused.stderr.contains(&lost.address().to_string()), "{refused:?}");
    lost.power_on()?;
    lab.until("the host is back", FAILOVER_LIMIT, || lost.consul("/v1/status/leader").map(Some))?;

    // --- and back: what the node had of the servers' log is of long ago
    let back = operator.install(&[])?.success()?;
    println!("and back:\n{back}");
    in_order(&back, &[&format!("Remove the old log of Consul's servers from {}", leaves.address())])?;
    lab.until("Consul's servers are 1, 2 and 3", 30 * SECOND, || ensure_servers(&lab, [1, 2, 3]).map(Some))?;
    lab.settled(SETTLE_LIMIT)?;
    ensure!(owner.pid_of_qemu()? == Some(vm), "the VM's process is another");
    let said: Value = serde_json::from_str(&lab.host(1).ok(&["zsha", "get", "-o", "json"])?)?;
    ensure!(said["spec"]["Servers"].as_array().map(Vec::len) == Some(3), "{said}");
    lab.finish()
}
