//! Live migration of a real guest between real libvirts: it goes on where it goes, whatever breaks in the middle there is
//! one copy that executes, and the VM is never stranded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SECOND, SETTLE_LIMIT, booted_lab, now, rounds};
use zsha_e2e::{Cluster, Host};

/// The time for the whole command, with a machine that emulates the guest twice.
const MOVED: Duration = Duration::from_secs(60);

/// The moments in a migration that takes about 1.5 s: in its middle, at its end, at its begin, and after it.
const MOMENTS: [u64; 5] = [900, 1_300, 150, 1_600, 500];

fn another<'a>(lab: &'a Cluster, owner: &'a Host) -> Result<&'a Host> {
    lab.others(owner).next().context("no other host")
}

#[test]
fn a_guest_that_is_moved_by_command_goes_on_and_does_not_boot_again() -> Result<()> {
    let lab = booted_lab()?;
    let source = lab.settled(SETTLE_LIMIT)?;
    let target = another(&lab, source)?;
    let before = source.guest_up()?;

    let begun = now();
    let said = source.exec_with(&["zsha", "migrate", &target.name], "", MOVED)?.success()?;
    println!("`zsha migrate` took {:.2?}: {}", begun.elapsed(), said.replace('\n', "; "));
    ensure!(said.contains(&format!("Migrate from {} to {}", source.name, target.name)), "{said}");
    ensure!(said.contains("Migration: [100 %]"), "{said}");

    let runs_on = lab.settled(SETTLE_LIMIT)?;
    ensure!(runs_on.name == target.name, "it runs on {}", runs_on.name);
    let after = lab.until("the guest's agent answers", 20 * SECOND, || target.guest_up().map(Some))?;
    ensure!(after.boot == before.boot && after.seconds >= before.seconds, "{before:?}, then {after:?}");
    ensure!(source.pid_of_qemu()?.is_none(), "a process is left at the source");

    // And it is an ordinary VM there: what dies is started again, in place.
    let killed = target.kill9("qemu")?;
    let back = lab.recovered(killed, FAILOVER_LIMIT)?;
    ensure!(back.host.name == target.name, "it was started on {}", back.host.name);
    lab.settled(SETTLE_LIMIT)?;
    lab.finish()
}

#[test]
fn a_guest_moves_by_the_documents_addresses_where_no_host_knows_the_name_of_another() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").names_unknown().build()?;
    let source = lab.start_vm()?;
    lab.settled(SETTLE_LIMIT)?;
    let target = another(&lab, source)?;
    source.exec_with(&["zsha", "migrate", &target.name], "", MOVED)?.success()?;
    ensure!(lab.settled(SETTLE_LIMIT)?.name == target.name, "it was not moved");
    lab.finish()
}

/// Begins a migration, lets `happen` do something at one moment of it (at five of them in five rounds), and sees that the VM
/// runs again, once.
fn broken_in_the_middle(what: &str, happen: impl Fn(&Cluster, &Host, &Host) -> Result<()>) -> Result<()> {
    let lab = booted_lab()?;
    for after_millis in MOMENTS.into_iter().take(rounds()) {
        let source = lab.settled(SETTLE_LIMIT)?;
        let target = another(&lab, source)?;
        source.zsha(&["migrate", &target.name, "--detach"], "")?.success()?;
        let begun = now();
        zsha_e2e::wait::stays("nothing", Duration::from_millis(after_millis), || Ok(()))?;
        happen(&lab, source, target)?;
        let runs_on = lab.running_host(FAILOVER_LIMIT)?;
        println!(
            "{what} {after_millis} ms into a migration: it runs on {} after {:.2?}",
            runs_on.name,
            begun.elapsed()
        );
        for host in lab.hosts().iter().filter(|host| !host.is_on()) {
            host.power_on()?;
        }
        for host in lab.hosts() {
            host.plug_cables()?;
        }
        lab.wait_until_up(SETTLE_LIMIT)?;
        lab.settled(SETTLE_LIMIT)?;
        ensure!(lab.check().alive().len() == 1, "{:?}", lab.check().alive());
    }
    lab.finish()
}

#[test]
fn the_source_loses_its_power_in_the_middle() -> Result<()> {
    broken_in_the_middle("power loss of the source", |_, source, _| source.power_off().map(drop))
}

#[test]
fn the_target_loses_its_power_in_the_middle() -> Result<()> {
    broken_in_the_middle("power loss of the target", |_, _, target| target.power_off().map(drop))
}

#[test]
fn the_cable_of_the_source_is_pulled_in_the_middle() -> Result<()> {
    broken_in_the_middle("cable of the source", |_, source, _| source.pull_cables().map(drop))
}

#[test]
fn libvirt_of_the_source_is_killed_in_the_middle() -> Result<()> {
    broken_in_the_middle("libvirtd of the source killed", |_, source, _| source.kill9("libvirtd").map(drop))
}

#[test]
fn libvirt_of_the_target_is_killed_in_the_middle() -> Result<()> {
    broken_in_the_middle("libvirtd of the target killed", |_, _, target| target.kill9("libvirtd").map(drop))
}

#[test]
fn the_controller_of_the_source_is_killed_in_the_middle() -> Result<()> {
    broken_in_the_middle("controller of the source killed", |_, source, _| {
        source.kill9("controller").map(drop)
    })
}

#[test]
fn consuls_leader_is_killed_in_the_middle() -> Result<()> {
    broken_in_the_middle("Consul's leader killed", |lab, _, _| lab.consul_leader()?.kill9("consul").map(drop))
}
