//! A VM that writes to another disk than the document's image, since a backup has made a snapshot of it: whatever happens
//! then, nothing that the guest has written is lost without a word.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zsha_e2e::guest::DOMAIN;
use zsha_e2e::scenario::{BOOT_LIMIT, FAILOVER_LIMIT, SECOND, SETTLE_LIMIT, booted_lab};
use zsha_e2e::{Cluster, Host, IMAGE, wait};

/// The time for a whole command that waits.
const COMMAND: Duration = Duration::from_secs(90);
/// Libvirt tells nobody of a snapshot: the next pass sees it.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// Lets the VM go on on an overlay at this path, as a backup program does.
fn snapshot(host: &Host, overlay: &str) -> Result<()> {
    let disk = format!("vda,file={overlay}");
    let made = ["snapshot-create-as", DOMAIN, "backup", "--disk-only", "--atomic", "--no-metadata"];
    host.virsh(&[&made[..], &["--diskspec", &disk, "--diskspec", "vdb,snapshot=no"]].concat())?;
    ensure!(disk_of(host)? == overlay, "libvirt did not do it");
    Ok(())
}

/// The disk that the VM has there.
fn disk_of(host: &Host) -> Result<String> {
    let listed = host.virsh(&["domblklist", DOMAIN])?;
    let disk = listed.lines().find_map(|line| line.trim().strip_prefix("vda"));
    Ok(disk.with_context(|| format!("no vda in {listed}"))?.trim().to_owned())
}

fn status_says(lab: &Cluster, host: &Host, what: &str) -> Result<String> {
    lab.until(&format!("status says '{what}'"), SEEN_WITHIN, || {
        let status = host.exec_with(&["zsha", "status", "-o", "wide"], "", COMMAND)?;
        Ok(Some(status.stdout).filter(|said| said.contains(what)))
    })
}

#[test]
fn a_power_cut_while_a_snapshot_is_in_use_loses_no_write() -> Result<()> {
    const OVERLAY: &str = "/opt/smp/mngt/mnvm.overlay1";
    let lab = booted_lab()?;
    let owner = lab.running_host(SETTLE_LIMIT)?;
    let other = lab.others(owner).next().context("no other host")?;
    snapshot(owner, OVERLAY)?;
    let status = status_says(&lab, other, "RunsOtherwise")?;
    ensure!(status.contains(OVERLAY), "it is named:\n{status}");
    let events = other.zsha(&["events"], "")?.success()?;
    ensure!(events.contains("DiskChanged") && events.contains("virsh blockcommit mnvm vda"), "{events}");
    lab.until("every node reaches it", SETTLE_LIMIT, || {
        Ok(lab.status()?.nodes.iter().all(|node| node.ready).then_some(()))
    })?;

    let cut = owner.power_off()?;
    let second = lab.recovered(cut, FAILOVER_LIMIT)?.host;
    ensure!(disk_of(second)? == OVERLAY, "it goes on from {}", disk_of(second)?);
    lab.until("the guest answers", BOOT_LIMIT, || second.guest_up().map(Some))?;

    // Merged back, the document's image is the disk again, and nothing is remembered.
    second.virsh(&["blockcommit", DOMAIN, "vda", "--active", "--pivot", "--wait"])?;
    ensure!(disk_of(second)? == IMAGE, "it is merged");
    lab.until("status says nothing of it any more", SEEN_WITHIN, || {
        Ok((!second.zsha(&["status", "-o", "wide"], "")?.stdout.contains("RunsOtherwise")).then_some(()))
    })?;
    owner.power_on()?;
    lab.settled(SETTLE_LIMIT)?;
    second.kill9("qemu")?;
    lab.until("it runs again", FAILOVER_LIMIT, || {
        Ok((disk_of(lab.running_host(SECOND)?)? == IMAGE).then_some(()))
    })?;
    lab.finish()
}

#[test]
fn what_was_written_to_a_disk_of_the_lost_node_is_not_replaced_by_an_older_image_unless_somebody_says_so()
-> Result<()> {
    // On the host's own file system.
    const OVERLAY: &str = "/var/lib/libvirt/images/mnvm.overlay1";
    let lab = booted_lab()?;
    let owner = lab.running_host(SETTLE_LIMIT)?;
    let other = lab.others(owner).next().context("no other host")?;
    owner.ok(&["mkdir", "-p", "/var/lib/libvirt/images"])?;
    snapshot(owner, OVERLAY)?;
    status_says(&lab, other, &format!("{OVERLAY} is not there"))?;
    status_says(&lab, other, "cannot survive one more failure")?;

    owner.power_off()?;
    let refused = status_says(&lab, other, "zsha start --from-image")?;
    ensure!(refused.contains(OVERLAY), "{refused}");
    wait::stays("nothing is started from the older image", 30 * SECOND, || {
        let alive = lab.check().alive();
        ensure!(alive.is_empty(), "there is {alive:?}");
        Ok(())
    })?;
    let started = other.exec_with(&["zsha", "start", "--timeout", "60", "--from-image"], "", COMMAND)?;
    started.success()?;
    let second = lab.running_host(SETTLE_LIMIT)?;
    ensure!(disk_of(second)? == IMAGE, "it goes on from {}", disk_of(second)?);
    lab.finish()
}
