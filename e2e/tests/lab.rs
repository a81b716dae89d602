//! The lab itself, without the product: what the other tests stand on really works, and the check sees what it is for.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use zsha_e2e::guest::DOMAIN;
use zsha_e2e::scenario::{SECOND, now};
use zsha_e2e::{Cluster, IMAGE, wait};

fn bare_lab() -> Result<Cluster> {
    Cluster::builder().nodes(3).without_product().build()
}

#[test]
fn three_hosts_come_up_with_a_consul_leader_and_their_own_names_boots_and_runs() -> Result<()> {
    let lab = bare_lab()?;
    let mut boots = Vec::new();
    for host in lab.hosts() {
        assert_eq!(host.ok(&["hostname"])?.trim(), host.name);
        assert_eq!(host.ok(&["ls", "/opt/smp/mngt"])?.trim(), "mnvm.img");
        boots.push(host.ok(&["cat", "/proc/sys/kernel/random/boot_id"])?);
        for other in lab.others(host) {
            // The share is one directory; the network is one switch.
            host.ok(&["virsh", "-q", "-c", &format!("qemu+tcp://{}/system", other.name), "uri"])?;
        }
    }
    boots.sort();
    boots.dedup();
    assert_eq!(boots.len(), 3, "every host has a boot id of its own");
    let peers: Vec<String> = serde_json::from_str(&lab.host(1).consul("/v1/status/peers")?)?;
    assert_eq!(peers.len(), 3);
    lab.finish()
}

#[test]
fn consul_elects_another_leader_when_the_cable_of_the_first_is_pulled_and_takes_it_back() -> Result<()> {
    let lab = bare_lab()?;
    let first = lab.consul_leader()?;
    let cut = first.pull_cables()?;
    let carrier = || first.ok(&["cat", "/sys/class/net/eth0/carrier"]);
    assert_eq!(carrier()?.trim(), "0", "the host sees that its cable is pulled");
    let second = lab.until("another leader", 20 * SECOND, || {
        Ok(Some(lab.consul_leader()?).filter(|leader| leader.name != first.name))
    })?;
    println!("Consul's leader {} cut: {} leads after {:?}", first.name, second.name, cut.elapsed());
    let back = first.plug_cables()?;
    lab.until("the first follows the new leader", 30 * SECOND, || {
        let leader = lab.consul_leader()?.address().to_string();
        Ok(first.consul("/v1/status/leader")?.contains(&leader).then_some(()))
    })?;
    println!("cable back: {} follows after {:?}", first.name, back.elapsed());
    assert_eq!(carrier()?.trim(), "1");
    lab.finish()
}

#[test]
fn a_guest_boots_answers_its_agent_moves_live_and_powers_off_by_button() -> Result<()> {
    let lab = bare_lab()?;
    let [source, target] = [lab.host(1), lab.host(2)];
    let start = now();
    source.create_domain(8, 4)?;
    let qemu = lab.new_copy(start, 10 * SECOND)?;
    println!("QEMU runs {:?} after `virsh create` was called", qemu.first_seen.duration_since(start));
    let before = lab.until("the guest's agent answers", 120 * SECOND, || source.guest_up().map(Some))?;
    println!("the guest's agent answers after {:?}; {}", start.elapsed(), memory(qemu.pid)?);

    let uri = format!("qemu+tcp://{}/system", target.name);
    let moved = now();
    source.virsh(&["migrate", "--live", "--p2p", "--unsafe", "--timeout", "60", DOMAIN, &uri])?;
    println!("live migration took {:?}", moved.elapsed());
    let after = target.guest_up()?;
    assert_eq!(after.boot, before.boot, "the guest goes on, it does not boot again");
    assert!(after.seconds >= before.seconds);
    assert_eq!(source.pid_of_qemu()?, None);

    target.virsh(&["shutdown", "--mode", "acpi", DOMAIN])?;
    lab.until("the guest is off", 30 * SECOND, || Ok(lab.check().alive().is_empty().then_some(())))?;
    lab.finish()
}

#[test]
fn the_guest_agent_powers_the_guest_off() -> Result<()> {
    let lab = bare_lab()?;
    let host = lab.host(1);
    host.create_domain(1, 1)?;
    lab.until("the guest agent answers", 90 * SECOND, || host.agent("guest-ping", Value::Null).map(Some))?;
    host.virsh(&["shutdown", "--mode", "agent", DOMAIN])?;
    lab.until("the guest is off", 30 * SECOND, || Ok(lab.check().alive().is_empty().then_some(())))?;
    lab.finish()
}

#[test]
fn power_loss_kills_everything_and_a_new_boot_has_another_id_and_the_same_disk() -> Result<()> {
    let lab = bare_lab()?;
    let host = lab.host(3);
    host.create_domain(1, 1)?;
    let qemu = host.pid_of_qemu()?.context("no QEMU after virsh create")?;
    let boot = host.ok(&["cat", "/proc/sys/kernel/random/boot_id"])?;
    host.ok(&["touch", "/var/lib/libvirt/on-disk", "/run/in-memory"])?;

    let cut = host.power_off()?;
    println!("power loss took {:?}", cut.elapsed());
    assert!(!Path::new(&format!("/proc/{qemu}")).exists(), "QEMU is gone with its host");
    host.power_on()?;
    lab.wait_until_up(60 * SECOND)?;
    println!("power loss, power on, Consul and libvirt back: {:?}", cut.elapsed());
    assert_ne!(host.ok(&["cat", "/proc/sys/kernel/random/boot_id"])?, boot);
    host.ok(&["test", "-e", "/var/lib/libvirt/on-disk", "-a", "!", "-e", "/run/in-memory"])?;
    lab.finish()
}

#[test]
fn a_service_that_dies_is_started_again_one_that_is_stopped_is_not_and_qemu_outlives_libvirtd() -> Result<()>
{
    let lab = bare_lab()?;
    let host = lab.host(1);
    host.create_domain(1, 1)?;
    let qemu = host.pid_of_qemu()?.context("no QEMU after virsh create")?;
    let before = host.services()?["libvirtd"].clone();
    host.kill9("libvirtd")?;
    lab.until("libvirtd is started again and knows the guest", 20 * SECOND, || {
        ensure!(host.services()?["libvirtd"].starts > before.starts);
        Ok(host.virsh(&["domstate", DOMAIN])?.contains("running").then_some(()))
    })?;
    host.stop("libvirtd")?;
    wait::stays("libvirtd stays stopped", SECOND, || match host.services()?["libvirtd"].pid {
        None => Ok(()),
        Some(pid) => Err(anyhow!("it runs as {pid}")),
    })?;
    assert_eq!(host.pid_of_qemu()?, Some(qemu));
    host.start("libvirtd")?;
    lab.until("libvirtd answers", 20 * SECOND, || host.virsh(&["uri"]).map(Some))?;
    lab.finish()
}

#[test]
fn the_independent_check_sees_a_planted_double() -> Result<()> {
    let lab = bare_lab()?;
    // Not `-daemonize`: that forks, and the waiting parent has the same command line.
    let drive = format!("file={IMAGE},format=qcow2,if=virtio,file.locking=off");
    let qemu = format!(
        "qemu-system-x86_64 -S -nodefaults -display none -m 64 -drive {drive} </dev/null >/dev/null 2>&1 &"
    );
    let paused = ["sh", "-c", &qemu];
    lab.host(1).ok(&paused)?;
    let first = lab.until("the first copy", 10 * SECOND, || Ok(lab.check().alive().pop()))?;
    assert_eq!(first.host, "nfs-1");
    assert!(lab.check().violations().is_empty(), "one copy is no violation");

    lab.host(2).ok(&paused)?;
    // Not `lab.until`: that would end with the very violation that is waited for.
    wait::until("the check sees two copies", 5 * SECOND, || Ok(lab.check().violations().pop()))?;
    let violations = lab.check().take_violations();
    let hosts: Vec<&str> = violations[0].copies.iter().map(|copy| copy.host.as_str()).collect();
    assert_eq!(hosts.len(), 2);
    assert!(hosts.contains(&"nfs-1") && hosts.contains(&"nfs-2"), "{hosts:?}");
    assert!(violations[0].to_string().contains("file.locking=off"), "the record holds both command lines");

    lab.host(2).kill9("qemu")?;
    lab.until("one copy is left", 5 * SECOND, || Ok((lab.check().alive().len() == 1).then_some(())))?;
    lab.check().take_violations();
    lab.host(1).power_off()?;
    let alive = lab.check().alive();
    assert!(
        alive.is_empty(),
        "a power loss is over as it returns, and the check must not read what was: {alive:?}"
    );
    lab.finish()
}

#[test]
fn the_end_of_a_lab_leaves_no_process_no_namespace_no_mount_and_no_file() -> Result<()> {
    let lab = bare_lab()?;
    let dir = lab.dir().to_owned();
    let inits: Vec<i32> = lab.hosts().iter().map(|host| host.init()).collect::<Result<_>>()?;
    lab.host(1).create_domain(1, 1)?;
    lab.finish()?;
    for init in inits {
        assert!(!Path::new(&format!("/proc/{init}")).exists());
    }
    assert!(!dir.exists(), "{} is still there", dir.display());
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&*dir.to_string_lossy()));
    Ok(())
}

#[test]
fn a_lab_whose_process_is_killed_takes_everything_with_it_and_the_next_sweeps_its_files() -> Result<()> {
    let (mut lab, inits, _output) = lab_of_its_own()?;
    lab.kill()?; // SIGKILL: it cannot tidy up
    lab.wait()?;
    all_gone(&inits)?;
    Cluster::builder().nodes(1).without_product().build()?.finish()?;
    let entries = std::fs::read_dir(zsha_e2e::cache().join("labs"))?.flatten();
    let kept = entries.map(|entry| entry.path()).find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&format!("failed-{}-", lab.id())))
    });
    let kept = kept.context("its logs are kept")?;
    ensure!(kept.join("nfs-1/log/consul.log").exists() && !kept.join("share").exists(), "logs, and no disk");
    Ok(std::fs::remove_dir_all(kept)?)
}

#[test]
fn ctrl_c_ends_the_lab_of_make_lab_and_leaves_nothing() -> Result<()> {
    let (mut lab, inits, _output) = lab_of_its_own()?;
    let labs = |id: u32| -> Result<usize> {
        let entries = std::fs::read_dir(zsha_e2e::cache().join("labs"))?.flatten();
        Ok(entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{id}-"))).count())
    };
    assert_eq!(labs(lab.id())?, 1);
    let pid = rustix::process::Pid::from_child(&lab);
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    assert!(lab.wait()?.success());
    assert_eq!(labs(lab.id())?, 0);
    all_gone(&inits)
}

/// `make lab` as a process of its own, up; and the pids of its hosts' inits.
fn lab_of_its_own() -> Result<(Child, Vec<i32>, BufReader<ChildStdout>)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    let mut lab = command.arg("--bare").stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(lab.stdout.take().context("stdout of the lab")?);
    let mut inits = Vec::new();
    for line in output.by_ref().lines().map_while(std::io::Result::ok) {
        if let Some((_, rest)) = line.split_once("nsenter -t ") {
            inits.push(rest.split(' ').next().unwrap_or_default().parse()?);
        }
        if line.contains("Ctrl-C") {
            ensure!(inits.len() == 3, "three hosts, not {inits:?}");
            return Ok((lab, inits, output));
        }
    }
    Err(anyhow!("the lab ended: {}", lab.wait()?))
}

fn all_gone(inits: &[i32]) -> Result<()> {
    wait::until("every host is gone", 10 * SECOND, || {
        let left: Vec<&i32> =
            inits.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
        ensure!(left.is_empty(), "inits {left:?} are still there");
        Ok(Some(()))
    })
}

fn memory(pid: i32) -> Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned())
}
