//! What the document says of the guest's inside reaches a real guest: it answers on the address of the node that it booted on,
//! is told what is new when it boots again, and no guest starts, nor is moved, where it could not be told.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;
use zsha_e2e::operator::stripped;
use zsha_e2e::scenario::{BOOT_LIMIT, FAILOVER_LIMIT, SECOND, SETTLE_LIMIT, now};
use zsha_e2e::{Cluster, Document, Host, SEED, wait};

/// The time for a whole command that moves the guest.
const MOVED: Duration = Duration::from_secs(60);

/// An address in the subnet of a node: there is one for each.
fn within(host: &Host, last: u8) -> String {
    format!("10.94.{}.{last}", host.name.trim_start_matches("nfs-"))
}

/// The last part of the guest's address there; that of the router, which the node itself stands for, follows.
const GUEST: u8 = 100;
const ROUTER: u8 = 1;
const PROXY: u8 = 99;
/// The last part of the address of another node that looks in.
const VISITOR: u8 = 2;

fn by_node(lab: &Cluster, value: impl Fn(&Host) -> String) -> String {
    let values: Vec<_> = lab.hosts().iter().map(|host| format!("{}@{}", value(host), host.name)).collect();
    values.join(", ")
}

fn document(lab: &Cluster) -> Document {
    let network = json!([{
        "Bridge": "br_mgmt",
        "MacAddress": "02:98:54:4b:a5:c0",
        "Ipaddr": by_node(lab, |host| within(host, GUEST)),
        "Netmask": "255.255.255.0",
        "Gateway": by_node(lab, |host| within(host, ROUTER)),
        "IsMgmt": true,
        "IsDefRoute": true
    }]);
    let document = lab.document().with("Network", network).with("DNS", json!(["10.94.0.53"]));
    document.with("ConsoleProxyOverriddenIP", by_node(lab, |host| within(host, PROXY)))
}

/// A leg of the host in a subnet; gone with the host's power.
fn reach(host: &Host, own_address: &str) -> Result<()> {
    host.ok(&["ip", "address", "replace", &format!("{own_address}/24"), "dev", "br_mgmt"]).map(drop)
}

fn answers(host: &Host, address: &str) -> Result<bool> {
    let ping = host.exec(&["busybox", "ping", "-c", "1", "-W", "1", address])?;
    Ok(ping.success().is_ok())
}

/// The guest answers on its address for this node.
fn answers_on(lab: &Cluster, host: &Host) -> Result<()> {
    reach(host, &within(host, ROUTER))?;
    let address = within(host, GUEST);
    lab.until(&format!("the guest answers a ping on {address}"), BOOT_LIMIT, || {
        Ok(answers(host, &address)?.then_some(()))
    })
}

fn told(lab: &Cluster, host: &Host, file: &str) -> Result<String> {
    lab.until("the guest's agent answers", BOOT_LIMIT, || host.guest_file(file).map(Some))
}

fn network_config(lab: &Cluster, host: &Host) -> Result<String> {
    told(lab, host, "/seed/network-config")
}

fn is_written(host: &Host, what: &str) -> Result<bool> {
    Ok(host.exec(&["grep", "-aqF", what, SEED])?.success().is_ok())
}

/// Does what 1.2.7.1 of the manual has: a bundle is brought into the guest, installs itself, and answers.
fn zin_tells_what_is_applied(lab: &Cluster, host: &Host) -> Result<()> {
    let bundle = lab.dir().join("zin");
    stripped("zin", &bundle)?;
    host.bring(&bundle, "/root/zin-bundle")?;
    let said = host.in_guest(&["/root/zin-bundle", "-i"])?;
    ensure!(said.starts_with("/usr/bin/zin is installed: App Version: "), "{said}");
    let again = host.in_guest(&["/root/zin-bundle", "-i"])?;
    ensure!(again.starts_with("/usr/bin/zin is this build already"), "{again}");
    let version = host.in_guest(&["/usr/bin/zin", "-v"])?;
    let labels: Vec<_> = version.lines().filter_map(|line| line.split(':').next()).collect();
    ensure!(labels == ["App Version", "Build Date", "Branch Name", "Commit ID"], "{version}");
    let told = host.in_guest(&["/usr/bin/zin"])?;
    println!("zin in the guest on {}:\n{told}", host.name);
    for line in [
        format!("Management IP: {} (applied)", within(host, GUEST)),
        "DNS: 10.94.0.53 (applied)".to_owned(),
        format!("Console proxy IP: {} (told)", within(host, PROXY)),
    ] {
        ensure!(told.lines().any(|one| one == line), "no {line:?} in:\n{told}");
    }
    Ok(())
}

#[test]
fn a_guest_answers_on_the_address_of_its_node_wherever_it_boots() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    lab.apply(&document(&lab), "an address for each node")?;
    let first = lab.running_host(SETTLE_LIMIT)?;
    answers_on(&lab, first)?;
    println!("on {}: {}", first.name, network_config(&lab, first)?.replace('\n', ""));
    lab.settled(SETTLE_LIMIT)?;
    zin_tells_what_is_applied(&lab, first)?;

    let mut owner = first;
    for _ in 0..2 {
        let lost = owner.power_off()?;
        let recovered = lab.recovered(lost, FAILOVER_LIMIT)?;
        ensure!(recovered.host.name != owner.name, "it was started where the power is lost");
        answers_on(&lab, recovered.host)?;
        reach(recovered.host, &within(owner, VISITOR))?;
        let before = within(owner, GUEST);
        ensure!(!answers(recovered.host, &before)?, "the guest still answers on {before}");
        println!("{} lost its power: the guest answers on {}", owner.name, within(recovered.host, GUEST));
        owner.power_on()?;
        lab.wait_until_up(SETTLE_LIMIT)?;
        lab.settled(SETTLE_LIMIT)?;
        owner = recovered.host;
    }
    let proxy = told(&lab, owner, "/seed/user-data")?;
    let wanted = format!("ZSHA_CONSOLE_PROXY_IP=\\\"{}\\\"", within(owner, PROXY));
    ensure!(proxy.contains(&wanted), "{wanted} is not in {proxy}");
    lab.finish()
}

#[test]
fn what_is_new_in_the_document_is_told_at_the_next_boot_and_touches_no_running_guest() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    lab.apply(&document(&lab), "an address for each node")?;
    let owner = lab.running_host(SETTLE_LIMIT)?;
    answers_on(&lab, owner)?;
    lab.settled(SETTLE_LIMIT)?;
    // The guest answers a ping before its agent is there.
    let up = lab.until("the guest's agent answers", BOOT_LIMIT, || owner.guest_up().map(Some))?;
    let pid = owner.pid_of_qemu()?;

    lab.apply(&lab.document().with("DNS", json!(["10.94.0.54"])), "another name server")?;
    for host in lab.hosts() {
        lab.until("the new seed is written", SETTLE_LIMIT, || {
            Ok(is_written(host, "10.94.0.54")?.then_some(()))
        })?;
    }
    let status = owner.zsha(&["status"], "")?.success()?;
    println!("{status}");
    lab.settled(SETTLE_LIMIT)?;

    // Its file gone and libvirt begun afresh are nothing to a guest that runs either; and it is written again.
    owner.ok(&["rm", SEED])?;
    owner.kill9("libvirtd")?;
    lab.until("the seed is written again", SETTLE_LIMIT, || {
        Ok(is_written(owner, "10.94.0.54")?.then_some(()))
    })?;
    lab.settled(SETTLE_LIMIT)?;
    ensure!(owner.pid_of_qemu()? == pid && pid.is_some(), "its process is another");
    let now = lab.until("the guest's agent answers", BOOT_LIMIT, || owner.guest_up().map(Some))?;
    ensure!(now.boot == up.boot && now.seconds > up.seconds, "{up:?}, then {now:?}");
    ensure!(network_config(&lab, owner)?.contains("10.94.0.53"), "a running guest was told something else");

    let killed = owner.kill9("qemu")?;
    let back = lab.recovered(killed, FAILOVER_LIMIT)?;
    ensure!(network_config(&lab, back.host)?.contains("10.94.0.54"), "the guest booted with what was old");
    answers_on(&lab, back.host)?;
    lab.finish()
}

/// The script after which the guest is, from its next boot on, one whose image has no cloud-init: see `guest/init`.
const FORGET_CLOUD_INIT: &str = "set -e; sectors=$(cat /sys/block/vda/size); \
    printf no-cloud-init | dd of=/dev/vda bs=512 seek=$((sectors - 2)) conv=sync,fsync 2>/dev/null";

/// The same, with a cloud-init that takes nothing from zsha's disk.
const OTHER_SOURCE: &str = "set -e; sectors=$(cat /sys/block/vda/size); \
    printf other-source | dd of=/dev/vda bs=512 seek=$((sectors - 2)) conv=sync,fsync 2>/dev/null";

/// The guest's NIC for management, in the subnet of each node, and one with the default route, where no gateway is.
fn two_nics(lab: &Cluster) -> Document {
    let nic = |bridge: &str, last: u8, address: String, gateway: String, is_management: bool| {
        json!({
            "Bridge": bridge,
            "MacAddress": format!("02:98:54:4b:a5:{last:02x}"),
            "Ipaddr": address,
            "Netmask": "255.255.255.0",
            "Gateway": gateway,
            "IsMgmt": is_management,
            "IsDefRoute": !is_management
        })
    };
    let by = |last: u8| by_node(lab, |host| within(host, last));
    let network = json!([
        nic("br_mgmt", 1, by(GUEST), by(ROUTER), true),
        nic("br_data", 2, "10.95.2.2".to_owned(), "10.95.2.1".to_owned(), false),
    ]);
    lab.document().with("Network", network)
}

/// An address of the host in a subnet that the guest knows nothing of. The host routes it.
const THIRD_SUBNET: &str = "10.96.7.7";

/// The guest answers somebody in a third subnet, whose way to it leads by the gateway of its management NIC.
fn answers_a_third_subnet(lab: &Cluster, host: &Host) -> Result<()> {
    answers_on(lab, host)?;
    host.ok(&["ip", "address", "replace", &format!("{THIRD_SUBNET}/24"), "dev", "lo"])?;
    let address = within(host, GUEST);
    lab.until(&format!("the guest answers {THIRD_SUBNET} on {address}"), BOOT_LIMIT, || {
        let ping = host.exec(&["busybox", "ping", "-c", "1", "-W", "1", "-I", THIRD_SUBNET, &address])?;
        Ok(ping.success().is_ok().then_some(()))
    })
}

#[test]
fn a_guest_is_reached_from_a_third_subnet_by_the_gateway_of_a_nic_that_has_not_the_default_route()
-> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").bridges(&["br_mgmt", "br_data"]).build()?;
    lab.apply(&two_nics(&lab), "two NICs")?;
    let mut owner = lab.running_host(SETTLE_LIMIT)?;
    answers_a_third_subnet(&lab, owner)?;
    // Then by its agent, where a cloud-init is there that reads no disk of zsha's.
    lab.until("the guest's agent answers", BOOT_LIMIT, || {
        owner.in_guest(&["/bin/sh", "-c", OTHER_SOURCE]).map(Some)
    })?;
    for _ in 1..lab.hosts().len() {
        lab.settled(SETTLE_LIMIT)?;
        let lost = owner.power_off()?;
        let recovered = lab.recovered(lost, FAILOVER_LIMIT)?;
        answers_a_third_subnet(&lab, recovered.host)?;
        told_of(&lab, "GuestTold")?;
        owner.power_on()?;
        lab.wait_until_up(SETTLE_LIMIT)?;
        owner = recovered.host;
    }
    lab.finish()
}

/// Its agent goes and comes, as with a boot; `first` is done before, and `flags` are the new one's.
fn agent_anew(host: &Host, first: &str, flags: &str) -> Result<()> {
    let script = format!(
        "set -e; {first} (sleep 1; kill $(cat /run/qemu-ga.pid); sleep 1; for port in /sys/class/virtio-ports/*; do \
         [ \"$(cat $port/name)\" != org.qemu.guest_agent.0 ] || qemu-ga -d -m virtio-serial -p /dev/${{port##*/}} \
         -f /run/qemu-ga.pid {flags}; done) >/dev/null 2>&1 &"
    );
    host.in_guest(&["/bin/sh", "-c", &script]).map(drop)
}

const FORGET: &str = "rm /run/zsha/applied;";

fn told_of(lab: &Cluster, word: &str) -> Result<()> {
    lab.until(&format!("an event says {word}"), SETTLE_LIMIT, || {
        let events = lab.running_host(SETTLE_LIMIT)?.zsha(&["events"], "")?.success()?;
        Ok(events.contains(word).then_some(()))
    })
}

#[test]
fn an_image_without_cloud_init_is_told_through_its_agent_at_every_boot() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    let document = document(&lab).with("ChronyServers", json!(["10.94.0.123"]));
    lab.apply(&document, "an address for each node")?;
    let first = lab.running_host(SETTLE_LIMIT)?;
    answers_on(&lab, first)?;
    lab.settled(SETTLE_LIMIT)?;
    lab.until("the guest's agent answers", BOOT_LIMIT, || {
        first.in_guest(&["/bin/sh", "-c", FORGET_CLOUD_INIT]).map(Some)
    })?;

    let killed = first.kill9("qemu")?;
    let booted = lab.recovered(killed, FAILOVER_LIMIT)?.host;
    answers_on(&lab, booted)?;
    ensure!(!told(&lab, booted, "/etc/zsha/guest.env")?.is_empty());
    ensure!(booted.in_guest(&["/bin/ls", "/run"])?.lines().all(|name| name != "cloud-init"));
    told_of(&lab, "GuestTold")?;
    zin_tells_what_is_applied(&lab, booted)?;
    println!("without cloud-init, on {}: answers on {}", booted.name, within(booted, GUEST));

    // What has a chrony is told its time sources, and what was told once in a boot is not told again.
    booted.in_guest(&[
        "/bin/sh",
        "-c",
        "mkdir -p /etc/chrony; echo 'pool old.lan' >/etc/chrony/chrony.conf",
    ])?;
    agent_anew(booted, FORGET, "")?;
    lab.until("it is told again", BOOT_LIMIT, || Ok(booted.guest_file("/run/zsha/applied").ok()))?;
    let chrony = told(&lab, booted, "/etc/chrony/chrony.conf")?;
    let servers: Vec<_> = chrony.lines().filter(|line| !line.starts_with('#')).collect();
    ensure!(servers == ["pool old.lan", "server 10.94.0.123 iburst"], "{chrony}");
    let agent = told(&lab, booted, "/run/qemu-ga.pid")?;
    agent_anew(booted, "echo mine >/etc/resolv.conf;", "")?;
    lab.until("another agent answers", BOOT_LIMIT, || {
        Ok(booted.guest_file("/run/qemu-ga.pid").ok().filter(|now| *now != agent))
    })?;
    wait::stays("what was told once in a boot is not told again", 5 * SECOND, || {
        ensure!(booted.guest_file("/etc/resolv.conf")? == "mine\n", "it was told again");
        Ok(())
    })?;

    // One that has run for long is left as it is, also where zsha or the agent is new to it.
    agent_anew(
        booted,
        &format!("{FORGET} echo 100000.00 1.00 >/run/uptime; mount --bind /run/uptime /proc/uptime;"),
        "",
    )?;
    told_of(&lab, "at its next boot")?;
    ensure!(told(&lab, booted, "/etc/resolv.conf")? == "mine\n", "a guest that runs was told");

    // Moved live it keeps what it was told; booted elsewhere it is told what is so there.
    lab.settled(SETTLE_LIMIT)?;
    let target = lab.others(booted).next().context("no other host")?;
    booted.exec_with(&["zsha", "migrate", &target.name], "", MOVED)?.success()?;
    let moved = lab.settled(SETTLE_LIMIT)?;
    ensure!(moved.name == target.name, "it is not where it was moved");
    reach(target, &within(booted, VISITOR))?;
    reach(target, &within(target, ROUTER))?;
    lab.until("it answers there", BOOT_LIMIT, || Ok(answers(target, &within(booted, GUEST))?.then_some(())))?;
    wait::stays("it has no address of the node it was moved to", 5 * SECOND, || {
        ensure!(!answers(target, &within(target, GUEST))?, "it was told where it did not boot");
        Ok(())
    })?;
    let lost = target.power_off()?;
    let recovered = lab.recovered(lost, FAILOVER_LIMIT)?;
    answers_on(&lab, recovered.host)?;
    println!("{} lost its power: the guest answers on {}", target.name, within(recovered.host, GUEST));

    // An agent that may run nothing says so, and nobody says more of it than that.
    agent_anew(recovered.host, "", "-b guest-exec")?;
    told_of(&lab, "its agent is not allowed to run commands")?;
    let status: serde_json::Value =
        serde_json::from_str(&recovered.host.zsha(&["status", "-o", "json"], "")?.success()?)?;
    let note = status["vm"]["note"].as_str().context("no note")?;
    ensure!(!note.contains("agent"), "it is held against a guest that may have cloud-init: {note}");
    let killed = recovered.host.kill9("qemu")?;
    let recovered = lab.recovered(killed, FAILOVER_LIMIT)?;
    answers_on(&lab, recovered.host)?;

    // A boot that the guest makes by itself is one, too.
    let before =
        lab.until("the guest's agent answers", BOOT_LIMIT, || recovered.host.guest_up().map(Some))?;
    recovered.host.in_guest(&["/bin/sh", "-c", "(sleep 1; reboot -f) >/dev/null 2>&1 &"])?;
    lab.until("it has booted anew", BOOT_LIMIT, || {
        Ok(recovered.host.guest_up().ok().filter(|now| now.boot != before.boot))
    })?;
    answers_on(&lab, recovered.host)?;
    lab.finish()
}

/// The counts of `ping`: requests sent, and those that nobody answered.
fn counted(said: &str) -> Result<(u64, u64)> {
    let words =
        said.lines().find(|line| line.contains("packets transmitted")).context("ping counted nothing")?;
    let mut numbers = words.split(',').filter_map(|part| part.trim().split(' ').next()?.parse::<u64>().ok());
    let (sent, received) = (numbers.next().context("none sent")?, numbers.next().context("none received")?);
    Ok((sent, sent - received))
}

#[test]
fn a_guest_that_is_moved_live_goes_on_answering_its_pings() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    lab.apply(&document(&lab), "an address for each node")?;
    let owner = lab.running_host(SETTLE_LIMIT)?;
    answers_on(&lab, owner)?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let (target, visitor) = match lab.others(owner).collect::<Vec<_>>().as_slice() {
        [target, visitor] => (*target, *visitor),
        others => bail!("{} other hosts", others.len()),
    };
    // From a host that has no part in it, over the wire to both.
    let address = within(owner, GUEST);
    reach(visitor, &within(owner, VISITOR))?;
    lab.until("the guest answers there", BOOT_LIMIT, || Ok(answers(visitor, &address)?.then_some(())))?;
    let pinged = std::thread::scope(|scope| -> Result<String> {
        let pings = scope.spawn(|| {
            // Every 10 ms; the last second of it shows that the guest is there after the move.
            visitor.exec_with(&["ping", "-q", "-i", "0.01", "-c", "2000", &address], "", MOVED)?.success()
        });
        wait::stays("the first of them", 2 * SECOND, || Ok(()))?;
        let begun = now();
        owner.exec_with(&["zsha", "migrate", &target.name], "", MOVED)?.success()?;
        println!("`zsha migrate` took {:.2?}", begun.elapsed());
        pings.join().map_err(|_| anyhow!("the pinging thread has panicked"))?
    })?;
    let (sent, lost) = counted(&pinged)?;
    println!("{sent} pings, one every 10 ms: {lost} lost\n{pinged}");
    ensure!(lost < sent / 2, "the guest was away for most of the time:\n{pinged}");
    ensure!(lab.settled(SETTLE_LIMIT)?.name == target.name, "it is not where it was moved");
    ensure!(answers(visitor, &address)?, "the guest does not answer where it is now");
    lab.finish()
}

#[test]
fn where_the_seed_cannot_be_written_no_guest_is_moved_to_and_none_is_harmed() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    lab.apply(&document(&lab), "an address for each node")?;
    let owner = lab.running_host(SETTLE_LIMIT)?;
    answers_on(&lab, owner)?;
    lab.settled(SETTLE_LIMIT)?;
    let up = lab.until("the guest's agent answers", BOOT_LIMIT, || owner.guest_up().map(Some))?;
    let target = lab.others(owner).next().context("no other host")?;

    // A directory in its place, which no file can be renamed over; on the owner too.
    for host in [owner, target] {
        host.ok(&["rm", SEED])?;
        host.ok(&["mkdir", SEED])?;
    }
    let why = |host: &Host| -> Result<Option<String>> {
        let status = lab.status()?;
        let node = status.node(&host.name).context("status has no such node")?;
        Ok(node.reasons.iter().find(|reason| reason.contains(SEED)).filter(|_| !node.ready).cloned())
    };
    for host in [owner, target] {
        let why = lab.until("status says what is wrong", SETTLE_LIMIT, || why(host))?;
        println!("{}: {why}", host.name);
    }
    let refused = owner.exec_with(&["zsha", "migrate", &target.name], "", MOVED)?;
    ensure!(refused.success().is_err(), "it was moved to where nobody could tell it anything");
    wait::stays("the guest stays where it is", 5 * SECOND, || {
        ensure!(owner.pid_of_qemu()?.is_some(), "its process is gone");
        Ok(())
    })?;

    for host in [owner, target] {
        host.ok(&["rmdir", SEED])?;
    }
    lab.settled(SETTLE_LIMIT)?;
    owner.exec_with(&["zsha", "migrate", &target.name], "", MOVED)?.success()?;
    let there = lab.until("the guest's agent answers", BOOT_LIMIT, || target.guest_up().map(Some))?;
    ensure!(there.boot == up.boot && there.seconds > up.seconds, "{up:?}, then {there:?}");
    lab.finish()
}
