//! Hosts that shut down when the VM can go nowhere else, with `zsha-controller leave` as the unit `zsha-host` runs it.

use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use zsha_e2e::scenario::{BOOT_LIMIT, RESTART_LIMIT, SETTLE_LIMIT, booted_lab};
use zsha_e2e::{Cluster, Host};

/// The time for a whole `leave`, and a little: the guest's 120 s are within it.
const LEAVE: Duration = Duration::from_secs(200);

fn leave(host: &Host) -> Result<()> {
    let words = ["zsha-controller", "leave", "--node", &host.name, "--limit", "180s"];
    host.exec_with(&words, "", LEAVE)?.success().map(drop)
}

/// How each guest that ran on this host ended, as libvirt writes it down before it says that the VM is off: `shutdown` where
/// it went by itself, `destroyed` or `crashed` where it was ended, `migrated` where it left. A process that waited for a
/// guest and got none (`failed`: the other host went down in the middle of the move, and kept it) never ran one.
fn how_it_ended(host: &Host) -> Result<Vec<String>> {
    let log = host.exec(&["cat", "/var/log/libvirt/qemu/mnvm.log"])?;
    Ok(ends(&log.stdout))
}

fn ends(log: &str) -> Vec<String> {
    let mut awaited_a_guest = false;
    let mut ends = Vec::new();
    for line in log.lines() {
        if line.contains(": starting up libvirt version") {
            awaited_a_guest = false;
        } else if line.trim_start().starts_with("-incoming ") {
            awaited_a_guest = true;
        } else if let Some((_, reason)) = line.split_once("shutting down, reason=") {
            let reason = reason.trim();
            if !(awaited_a_guest && reason == "failed") {
                ends.push(reason.to_owned());
            }
        }
    }
    ends
}

#[test]
fn a_start_that_failed_is_told_from_a_guest_that_never_came() {
    let start =
        "2026-11-29 14:30:00.123+0000: starting up libvirt version: 9.0.0\n/usr/bin/qemu-system-x86_64 \\\n";
    let failed = "2026-11-29 14:31:00.123+0000: shutting down, reason=failed\n";
    assert_eq!(ends(&format!("{start}-incoming defer \\\n{failed}")), [""; 0]);
    assert_eq!(ends(&format!("{start}-incoming defer \\\n{failed}{start}{failed}")), ["failed"]);
}

fn nothing_lives(lab: &Cluster) -> Result<()> {
    let alive = lab.check().alive();
    ensure!(alive.is_empty(), "there is {alive:?}");
    Ok(())
}

fn runs_and_answers(lab: &Cluster) -> Result<&Host> {
    let host = lab.running_host(RESTART_LIMIT)?;
    lab.until("the guest's agent answers", BOOT_LIMIT, || host.guest_up().map(Some))?;
    Ok(host)
}

#[test]
fn the_only_fit_host_shuts_down_its_guest_in_order_and_has_the_vm_again_once_it_is_back() -> Result<()> {
    let lab = booted_lab()?;
    let host = lab.settled(SETTLE_LIMIT)?;
    lab.apply(&lab.document().with("GuestPowerOff", "StayOff"), "a guest that powers off stays so")?;
    lab.settled(SETTLE_LIMIT)?;
    for other in lab.others(host) {
        host.zsha(&["drain", &other.name, "-m", "works"], "")?.success()?;
    }
    leave(host)?;
    nothing_lives(&lab)?;
    let ended = how_it_ended(host)?;
    println!("the guest on {} ended by {ended:?}", host.name);
    ensure!(ended == ["shutdown"], "it ended by {ended:?}");
    let events = host.zsha(&["events"], "")?.success()?;
    ensure!(events.contains("the guest was asked to power off"), "{events}");

    host.power_off()?;
    host.power_on()?;
    let back = runs_and_answers(&lab)?;
    ensure!(back.name == host.name, "it runs on {}, which is drained", back.name);
    lab.finish()
}

/// Each is off as soon as its own `leave` has ended, and its Consul with it.
#[test]
fn hosts_that_shut_down_all_together_end_the_guest_in_order_and_have_the_vm_again() -> Result<()> {
    let lab = booted_lab()?;
    let went = thread::scope(|scope| {
        let down = |host: &Host| {
            leave(host)?;
            let ended = how_it_ended(host)?;
            println!("{} goes down; of the guest it says {ended:?}", host.name);
            host.power_off()?;
            Ok::<_, anyhow::Error>(ended)
        };
        let threads: Vec<_> = lab.hosts().iter().map(|host| scope.spawn(move || down(host))).collect();
        let joined = threads.into_iter().map(|it| it.join().map_err(|_| anyhow!("a thread has panicked"))?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    // It may have left the first of them, or have begun to, for one that had not said yet that it goes down as well.
    let ended: Vec<_> = went.concat().into_iter().filter(|reason| reason != "migrated").collect();
    ensure!(ended == ["shutdown"], "it ended by {ended:?}");
    nothing_lives(&lab)?;

    lab.power_on_all()?;
    runs_and_answers(&lab)?;
    lab.settled(SETTLE_LIMIT)?;
    lab.finish()
}
