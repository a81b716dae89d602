//! What operators ask for by command, on real hosts: `stop` and `start`, `drain` and `uncordon`, `freeze` and `resume`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use zsha_e2e::scenario::{BOOT_LIMIT, FAILOVER_LIMIT, SECOND, SETTLE_LIMIT, booted_lab};
use zsha_e2e::{Cluster, wait};

/// The time for a whole command that waits: for a guest that powers off, or is moved.
const COMMAND: Duration = Duration::from_secs(90);

fn nothing_runs(lab: &Cluster, span: Duration) -> Result<()> {
    wait::stays("nothing runs", span, || {
        let alive = lab.check().alive();
        ensure!(alive.is_empty(), "there is {alive:?}");
        Ok(())
    })
}

/// Situation 4 of the manual: `stop`, every host off, every host on, `start`.
#[test]
fn a_stopped_vm_stays_so_over_a_power_cut_of_all_and_runs_once_after_start() -> Result<()> {
    let lab = booted_lab()?;
    let host = lab.host(1);
    let stopped = host.exec_with(&["zsha", "stop", "--timeout", "60", "-m", "power works"], "", COMMAND)?;
    let said = stopped.success()?;
    ensure!(said.starts_with("start shutdown cluster\nDo for "), "{said}");
    ensure!(said.ends_with("shutdown cluster finished\n"), "{said}");
    nothing_runs(&lab, SECOND)?;
    let events = host.zsha(&["events"], "")?.success()?;
    ensure!(!events.contains("the guest did not power off within"), "it was ended:\n{events}");

    for host in lab.hosts() {
        host.power_off()?;
    }
    lab.power_on_all()?;
    lab.wait_until_up(SETTLE_LIMIT)?;
    nothing_runs(&lab, 10 * SECOND)?;
    let status = host.zsha(&["status"], "")?.success()?;
    ensure!(status.contains("stopped"), "{status}");

    let started = lab.host(2).exec_with(&["zsha", "start"], "", COMMAND)?.success()?;
    ensure!(started.contains("mnvm runs on "), "{started}");
    lab.settled(SETTLE_LIMIT)?;
    lab.finish()
}

/// Row `reset-MNVM-password` of the manual's table.
#[test]
fn the_password_of_root_in_the_guest_is_reset_where_the_document_allows_it() -> Result<()> {
    let lab = booted_lab()?;
    let host = lab.host(2);
    let refused = host.exec_with(&["zsha", "reset-MNVM-password"], "", COMMAND)?;
    ensure!(refused.status.code() == Some(8), "{refused:?}");
    let owner = lab.settled(SETTLE_LIMIT)?;
    let shadow = || owner.guest_file("/etc/shadow");
    let before = lab.until("the guest's agent answers", BOOT_LIMIT, || shadow().map(Some))?;
    ensure!(before.starts_with("root:*:"), "nobody has set one: {before}");
    let pid = owner.pid_of_qemu()?;

    lab.apply(&lab.document().with("AllowResetRootPassword", true), "nobody knows it any more")?;
    let said = lab.until("the nodes have read the document", SETTLE_LIMIT, || {
        let said = host.exec_with(&["zsha", "reset-MNVM-password"], "", COMMAND)?;
        // The owner may not have read yet that it is allowed.
        if said.status.code() == Some(8) { Ok(None) } else { said.success().map(Some) }
    })?;
    ensure!(
        said.starts_with(&format!("Reset MNVM root password on {} {}", owner.name, owner.address())),
        "{said}"
    );
    ensure!(said.contains("Password set successfully for root in "), "{said}");
    // As the guest's own login would compare it.
    let after = shadow()?;
    let stored =
        after.lines().find_map(|line| line.strip_prefix("root:")?.split(':').next()).context("no root")?;
    let (kind, salt) = match stored.split('$').collect::<Vec<_>>().as_slice() {
        ["", kind, salt, ..] => (format!("-{kind}"), (*salt).to_owned()),
        _ => bail!("the guest keeps {stored}"),
    };
    let computed = host.ok(&["openssl", "passwd", &kind, "-salt", &salt, "password"])?;
    ensure!(computed.trim() == stored, "{stored} is not of the default password: {computed}");
    ensure!(lab.settled(SETTLE_LIMIT)?.pid_of_qemu()? == pid, "its process is another");
    lab.finish()
}

/// Situations 2 and 3: a planned outage of the node with the VM, and its return.
#[test]
fn a_drained_node_is_left_live_and_stays_away_over_a_power_cycle() -> Result<()> {
    let lab = booted_lab()?;
    let drained = lab.settled(SETTLE_LIMIT)?;
    let before = drained.guest_up()?;
    let said = drained.exec_with(&["zsha", "drain", &drained.name, "-m", "new memory"], "", COMMAND)?;
    let said = said.success()?;
    ensure!(said.contains(&format!("{} is drained; mnvm is on ", drained.name)), "{said}");
    let now_on = lab.running_host(FAILOVER_LIMIT)?;
    ensure!(now_on.name != drained.name, "it is still on {}", drained.name);
    let after = lab.until("the guest's agent answers", 20 * SECOND, || now_on.guest_up().map(Some))?;
    ensure!(after.boot == before.boot, "it has booted again: {before:?}, then {after:?}");

    drained.power_off()?;
    drained.power_on()?;
    lab.wait_until_up(SETTLE_LIMIT)?;
    let refused = now_on.exec_with(&["zsha", "migrate", &drained.name], "", COMMAND)?;
    ensure!(refused.status.code() == Some(8), "{refused:?}");
    let status = now_on.zsha(&["status"], "")?.success()?;
    ensure!(status.contains("it was drained by ") && status.contains("new memory"), "{status}");

    now_on.zsha(&["uncordon", &drained.name], "")?.success()?;
    lab.settled(SETTLE_LIMIT)?;
    // Its owner may still have heard last that the node was booting.
    lab.until("the VM is moved back", SETTLE_LIMIT, || {
        now_on.exec_with(&["zsha", "migrate", &drained.name], "", COMMAND)?.success().map(Some)
    })?;
    let back = lab.settled(SETTLE_LIMIT)?;
    ensure!(back.name == drained.name, "it runs on {}", back.name);
    lab.finish()
}

/// Situation 2 as it happens when nobody has thought of it: `reboot` on the host with the VM.
#[test]
fn a_host_that_shuts_down_is_left_live_first_and_may_have_the_vm_again_once_it_is_back() -> Result<()> {
    let lab = booted_lab()?;
    let host = lab.settled(SETTLE_LIMIT)?;
    let before = host.guest_up()?;
    host.exec_with(&["zsha-controller", "leave", "--node", &host.name, "--limit", "60s"], "", COMMAND)?
        .success()?;
    let now_on = lab.running_host(FAILOVER_LIMIT)?;
    ensure!(now_on.name != host.name, "it is still on {}", host.name);
    let after = lab.until("the guest's agent answers", 20 * SECOND, || now_on.guest_up().map(Some))?;
    ensure!(after.boot == before.boot, "it has booted again: {before:?}, then {after:?}");
    let status = now_on.zsha(&["status"], "")?.success()?;
    let drained = |status: &str| status.lines().any(|line| line.contains("Drained: it was drained by"));
    ensure!(drained(&status) && status.contains("taken back once it has booted"), "{status}");
    host.restart("controller")?;
    wait::stays("it is drained while it has not booted", 8 * SECOND, || {
        let status = now_on.zsha(&["status"], "")?.success()?;
        ensure!(drained(&status), "{status}");
        Ok(())
    })?;

    host.power_off()?;
    host.power_on()?;
    lab.wait_until_up(SETTLE_LIMIT)?;
    lab.until("it is not drained any more", SETTLE_LIMIT, || {
        let status = now_on.zsha(&["status"], "")?.success()?;
        ensure!(!drained(&status), "{status}");
        Ok(Some(()))
    })?;
    ensure!(lab.settled(SETTLE_LIMIT)?.name == now_on.name, "nothing moves back by itself");
    lab.finish()
}

#[test]
fn a_frozen_cluster_begins_nothing_and_heals_once_it_is_resumed() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    let owner = lab.start_vm()?;
    lab.settled(SETTLE_LIMIT)?;
    let process = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    owner.zsha(&["freeze", "-m", "switch works"], "")?.success()?;
    let other = lab.others(owner).next().context("no other host")?;
    let status = other.zsha(&["status"], "")?.success()?;
    ensure!(status.contains("not protected since ") && status.contains("switch works"), "{status}");
    let refused = other.zsha(&["migrate", &other.name], "")?;
    ensure!(refused.status.code() == Some(8), "{refused:?}");
    ensure!(owner.pid_of_qemu()? == Some(process), "a VM that runs is left alone");

    owner.power_off()?;
    nothing_runs(&lab, 20 * SECOND)?;
    owner.power_on()?;
    lab.wait_until_up(SETTLE_LIMIT)?;
    nothing_runs(&lab, 5 * SECOND)?;
    other.zsha(&["resume"], "")?.success()?;
    let healed = lab.running_host(FAILOVER_LIMIT)?;
    println!("after resume it runs on {}", healed.name);
    lab.settled(SETTLE_LIMIT)?;
    lab.finish()
}
