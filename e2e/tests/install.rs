//! `zsha install` and `zsha uninstall` over real sshd, on hosts whose PID 1 is systemd and which have nothing of ours:
//! install, again, upgrade, a node replaced, uninstall. Each host's own layer of /etc, /usr and /var shows what was put
//! there, and at the end that nothing of it is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use zsha_e2e::operator::{INSTALL, Operator};
use zsha_e2e::said::in_order;
use zsha_e2e::scenario::{SECOND, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Host, IMAGE};

/// The same program in other bytes: what stands behind the end of an ELF file is not looked at.
fn new_build(operator: &Operator<'_>) -> Result<()> {
    for program in ["zsha", "zsha-controller"] {
        let file = operator.dir.join(program);
        let bytes = [fs::read(&file)?, b"a newer build".to_vec()].concat();
        fs::remove_file(&file)?;
        fs::write(&file, bytes)?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

/// The files of the host's own that something other than zsha writes as it runs.
fn own_files(host: &Host) -> Result<BTreeSet<PathBuf>> {
    let aside = [
        "/var/log/",
        "/var/lib/systemd/",
        "/var/cache/",
        "/var/lib/libvirt/",
        "/etc/machine-id",
        // Written anew with the same lines in them: those are compared.
        "/etc/passwd",
        "/etc/group",
        "/etc/gshadow",
        "/etc/shadow",
        "/etc/subuid",
        "/etc/subgid",
        "/etc/.pwd.lock",
        "/var/lib/private",
        "/var/tmp/",
    ];
    let files = host.own_files()?;
    let is_aside = |file: &PathBuf| aside.iter().any(|one| file.to_string_lossy().starts_with(one));
    Ok(files.into_iter().filter(|file| file.starts_with("/var/log/z") || !is_aside(file)).collect())
}

/// The things that a host has beside files: units, rules, users.
fn beside_files(host: &Host) -> Result<String> {
    let script = "systemctl list-unit-files --no-legend --plain 'zsha*' 'consul*' 'libvirt-guests*'; \
                  iptables -S; nft list ruleset | grep -c zsha; \
                  cat /proc/sys/net/ipv4/ip_local_reserved_ports /etc/passwd /etc/group; \
                  ls /run/zsha 2>/dev/null; pgrep -l 'consul|zsha'; virsh -q list --all; true";
    host.ok(&["sh", "-c", script])
}

/// The image is this file and no other, and whole. Its guest has written to it, so that its digest says nothing.
fn image(host: &Host) -> Result<String> {
    host.ok(&["qemu-img", "check", "-q", IMAGE])?;
    host.ok(&["stat", "-c", "%i %a %U", IMAGE])
}

/// The second host guards itself by iptables, the third by nftables; each lets in nothing but SSH.
fn raise_firewalls(lab: &Cluster) -> Result<()> {
    let iptables = "iptables -A INPUT -i lo -j ACCEPT && iptables -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT && \
                    iptables -A INPUT -p tcp --dport 22 -j ACCEPT && iptables -P INPUT DROP";
    lab.host(2).ok(&["sh", "-c", iptables])?;
    let nftables = "nft -f - <<'X'\ntable inet own {\n chain input {\n type filter hook input priority 0; policy drop;\n \
                    iif lo accept\n ct state established,related accept\n tcp dport 22 accept\n }\n}\nX";
    lab.host(3).ok(&["sh", "-c", nftables]).map(drop)
}

/// Process ids of everything whose restart would be a change.
fn processes(lab: &Cluster) -> Result<BTreeMap<String, String>> {
    let pids =
        |host: &Host| host.ok(&["sh", "-c", "pgrep -a 'consul|zsha|qemu|libvirtd' | cut -c1-60 | sort"]);
    lab.hosts().iter().map(|host| Ok((host.name.clone(), pids(host)?))).collect()
}

/// Leaves a host as an installation of zsha 2.5.1 does: one VM runs by the image, under a name and UUID of its own, and
/// another host has its definition. Beside that nothing is installed.
fn another_vm_with_the_image_is_in_the_way(lab: &Cluster, operator: &Operator<'_>) -> Result<()> {
    let (runs, defines) = (lab.host(2), lab.host(3));
    let disk = format!("driver=file,node-name=old,filename={IMAGE}");
    let qemu =
        ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-S", "-daemonize"];
    runs.ok(&[&qemu[..], &["-pidfile", "/run/old.pid", "-blockdev", &disk]].concat())?;
    let domain = format!(
        "<domain type='qemu'><name>old</name><memory>65536</memory><os><type>hvm</type></os><devices><disk type='file'>\
         <source file='{IMAGE}'/><target dev='vda'/></disk></devices></domain>"
    );
    defines.exec_with(&["virsh", "define", "/dev/stdin"], &domain, SECOND * 20)?.success()?;
    let refused = operator.install(&[])?;
    let pid = runs.ok(&["sh", "-c", "cat /run/old.pid; kill -9 $(cat /run/old.pid); rm /run/old.pid"])?;
    defines.virsh(&["undefine", "old"])?;
    let process = format!("process {} (qemu-system-x86_64) there has {IMAGE} open", pid.trim());
    let domain = format!("libvirt there has the domain \"old\" (shut off) with {IMAGE}");
    ensure!(refused.status.code() == Some(1), "{refused:?}");
    for said in [&process, &domain] {
        ensure!(refused.stderr.contains(said.as_str()), "{said}: {refused:?}");
    }
    Ok(())
}

#[test]
fn three_bare_hosts_become_a_cluster_are_upgraded_and_mended_and_are_bare_again() -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").bare().build()?;
    let operator = Operator::new(&lab, &lab.document())?;
    raise_firewalls(&lab)?;
    let image_before = image(lab.host(1))?;
    let files: Vec<_> = lab.hosts().iter().map(own_files).collect::<Result<_>>()?;
    let beside: Vec<_> = lab.hosts().iter().map(beside_files).collect::<Result<_>>()?;

    // A host that was never seen is not let have the password.
    let unknown = operator.install(&[])?;
    ensure!(
        unknown.status.code() == Some(1) && unknown.stderr.contains("--accept-new-host-keys"),
        "{unknown:?}"
    );
    // Nothing is done by a check, nor by a dry run.
    let check = ["check-config", &operator.path("cluster.json"), "--online", "--accept-new-host-keys"];
    let checked = operator.zsha(&check)?.success()?;
    in_order(
        &checked,
        &[
            "config file check pass",
            "All nodes connect success.",
            "check environment for 10.93.0.11",
            "Link detected: yes",
            "check environment for 10.93.0.13",
            "Every node is fit.",
        ],
    )?;
    let dry = operator.install(&["--accept-new-host-keys", "--dry-run", "-o", "json"])?.success()?;
    insta::assert_snapshot!("install_dry_run_json", everywhere(&dry));
    let dry = operator.install(&["--accept-new-host-keys", "--dry-run"])?.success()?;
    in_order(
        &dry,
        &[
            "All nodes connect success.",
            "would: Start Service consul for: 10.93.0.11",
            "Nothing was done (dry run).",
        ],
    )?;
    for (host, before) in lab.hosts().iter().zip(&files) {
        let now = own_files(host)?;
        ensure!(now == *before, "{}: {:?}", host.name, now.symmetric_difference(before));
    }

    another_vm_with_the_image_is_in_the_way(&lab, &operator)?;

    // --- from bare hosts to a running VM
    let said = operator.install(&[])?;
    println!("install:\n{}{}", said.stdout, said.stderr);
    let said = said.success()?;
    insta::assert_snapshot!("install", everywhere(&said));
    in_order(
        &said,
        &[
            "config file check pass",
            "All nodes connect success.",
            "check environment for 10.93.0.11",
            "File /opt/smp/mngt/mnvm.img exists",
            "Settings for br_mgmt:",
            "Link detected: yes",
            "check environment for 10.93.0.13",
            "Not Ceph Type, skip generate ceph auth.",
            "Install for: 10.93.0.11",
            "Install bash auto-completion",
            "Install to Current Node Finished.",
            "Upsert configuration to consul kv finished.",
            "Install to All Nodes Finished.",
        ],
    )?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    lab.until("the guest's agent answers", 60 * SECOND, || owner.guest_up().map(Some))?;
    secrets_are_kept(&lab)?;

    // --- again: nothing to do, and nothing is touched
    let before = processes(&lab)?;
    let again = operator.install(&[])?.success()?;
    in_order(
        &again,
        &["Nothing was to be done: every node is as it has to be.", "Install to All Nodes Finished."],
    )?;
    ensure!(
        processes(&lab)? == before,
        "something was started anew: {before:?}, then {:?}",
        processes(&lab)?
    );

    // --- a new build: node by node, the owner last, and the VM goes on
    let vm = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    new_build(&operator)?;
    let upgraded = operator.install(&[])?.success()?;
    println!("upgrade:\n{upgraded}");
    let order: Vec<_> = upgraded.lines().filter_map(|line| line.strip_prefix("Install for: ")).collect();
    ensure!(order.len() == 3 && order[2] == owner.address().to_string(), "the owner is not last: {order:?}");
    ensure!(owner.pid_of_qemu()? == Some(vm), "the VM's process is another");
    let owner = lab.settled(SETTLE_LIMIT)?;
    ensure!(owner.pid_of_qemu()? == Some(vm), "the VM's process is another");

    // --- everything is stopped, and started over SSH: the VM runs once
    lab.host(2).exec_with(&["zsha", "stop", "--timeout", "60"], "", INSTALL)?.success()?;
    for host in lab.hosts() {
        host.ok(&["systemctl", "stop", "zsha-controller", "zsha-keeper", "consul"])?;
    }
    let document = operator.path("cluster.json");
    let down = lab.host(1).exec_with(&["zsha", "start"], "", INSTALL)?;
    ensure!(down.status.code() == Some(7) && down.stderr.contains("zsha start -c FILE"), "{down:?}");
    let started = operator.zsha(&["start", "-c", &document])?.success()?;
    in_order(&started, &["Do for 10.93.0.11", "Do for 10.93.0.12", "Do for 10.93.0.13"])?;
    ensure!(started.contains("mnvm runs on "), "{started}");
    let owner = lab.settled(SETTLE_LIMIT)?;
    let vm = owner.pid_of_qemu()?.context("no QEMU on the owner")?;

    // --- a node is replaced by new hardware: the same command mends it
    let replaced = lab.others(owner).next().context("no other host")?;
    replaced.power_off()?;
    replaced.wipe_disk()?;
    replaced.power_on()?;
    let changed = operator.install(&["--accept-new-host-keys"])?;
    ensure!(changed.status.code() == Some(1) && changed.stderr.contains("another than in"), "{changed:?}");
    let (known, address) = (operator.path("known_hosts"), replaced.address().to_string());
    lab.host(1).ok(&["ssh-keygen", "-q", "-f", &known, "-R", &address])?;
    let mended = operator.install(&["--accept-new-host-keys"])?.success()?;
    println!("replaced {}:\n{mended}", replaced.name);
    lab.settled(SETTLE_LIMIT)?;
    ensure!(owner.pid_of_qemu()? == Some(vm), "the VM's process is another");

    // --- off again
    let refused = operator.uninstall(&[])?;
    ensure!(refused.status.code() == Some(8), "{refused:?}");
    in_order(
        &refused.stdout,
        &[
            "If you are *ABSOLUTELY CERTAIN* that is what you want, followed by --yes-i-really-really-mean-it.",
        ],
    )?;
    let said = operator.uninstall(&["--yes-i-really-really-mean-it"])?.success()?;
    println!("uninstall:\n{said}");
    insta::assert_snapshot!("uninstall", said);
    in_order(
        &said,
        &[
            "start clean",
            "start shutdown cluster",
            "Do for 10.93.0.11",
            "shutdown cluster finished",
            "clean finished",
        ],
    )?;
    ensure!(lab.check().alive().is_empty(), "the VM is still there: {:?}", lab.check().alive());
    ensure!(image(lab.host(1))? == image_before, "the image is another");
    for (number, host) in lab.hosts().iter().enumerate() {
        let left: Vec<_> = own_files(host)?.difference(&files[number]).cloned().collect();
        ensure!(left.is_empty(), "left on {}: {left:?}", host.name);
        if host.name != replaced.name {
            let now = beside_files(host)?;
            ensure!(now == beside[number], "on {} there was\n{}\nand is\n{now}", host.name, beside[number]);
        }
    }
    lab.finish()
}

/// The text that was printed, with the versions of this machine's programs taken out.
fn everywhere(said: &str) -> String {
    let plain = |line: &str| match line.find(": systemd ") {
        Some(at) if line.contains("QEMU") => {
            let end = line[at..].find('"').map_or("", |quote| &line[at + quote..]);
            let begin = line[..at].rfind(['"', '\n']).map_or("", |quote| &line[..=quote]);
            format!("{begin}SYSTEM: systemd, libvirt, QEMU{end}")
        }
        _ => line.to_owned(),
    };
    // The document has more CPUs than some machines that this runs on.
    let of_this_machine = |line: &&str| line.contains(" CPUs, and the VM is given ");
    said.lines().filter(|line| !of_this_machine(line)).map(plain).collect::<Vec<_>>().join("\n")
}

/// Tokens and the gossip key are root's or Consul's alone, and nobody without one may write.
fn secrets_are_kept(lab: &Cluster) -> Result<()> {
    for host in lab.hosts() {
        let modes = host.ok(&[
            "sh",
            "-c",
            "stat -c '%a %n' /etc/zsha/*.token /etc/consul.d/zsha-gossip.hcl /etc/consul.d/zsha-token.hcl",
        ])?;
        ensure!(modes.lines().count() == 5 && modes.lines().all(|line| line.starts_with("600 ")), "{modes}");
        let stranger = host.exec(&["consul", "kv", "put", "zsha/lab/spec", "x"])?;
        ensure!(!stranger.status.success(), "whoever has no token may write: {stranger:?}");
        let node = ["sh", "-c", "CONSUL_HTTP_TOKEN_FILE=/etc/zsha/node.token consul kv put zsha/lab/spec x"];
        ensure!(!host.exec(&node)?.status.success(), "a node's token may write the document");
        let guests = host.exec(&["systemctl", "is-enabled", "libvirt-guests"])?;
        ensure!(guests.stdout.trim() == "masked", "{guests:?}");
        let runs = ["systemctl", "is-active", "zsha-host", "zsha-keeper", "zsha-controller", "consul"];
        host.ok(&runs).with_context(|| format!("on {}", host.name))?;
        host.ok(&["test", "-s", "/var/log/z/zsha-keeper.log"])?;
        let reserved = host.ok(&["cat", "/proc/sys/net/ipv4/ip_local_reserved_ports"])?;
        ensure!(reserved.trim() == "49152-49215", "the ports of live migration are anybody's: {reserved:?}");
    }
    Ok(())
}
