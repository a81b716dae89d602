//! A VM whose image is in a real Ceph: `zsha install` makes its login, it runs, fails over and is moved, and `zsha uninstall`
//! takes the login back. Three hosts as nodes; Ceph is on a fourth, and one node may administer it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use zsha_e2e::ceph::{Ceph, POOL};
use zsha_e2e::operator::{INSTALL, Operator};
use zsha_e2e::scenario::{BOOT_LIMIT, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Document, Host};

/// Ceph takes a client for gone 30 s after it last heard of it, and lets nobody else write to its image before.
const FAILOVER: Duration = Duration::from_secs(90);
const USER: &str = "client.zsha-lab";

fn document(lab: &Cluster, ceph: &Ceph) -> Document {
    let nodes = lab.document().0["spec"]["Node"].as_array().map(|nodes| nodes[..3].to_vec());
    lab.document()
        .with("Node", json!(nodes))
        .with("Type", "CephConf")
        .with("MonAddrs", json!([ceph.monitor]))
        .with("PoolName", POOL)
        .with("ImageFolder", "")
}

/// The messages of what was told with `-o json`, and the last object.
fn told(said: &str) -> Result<(Vec<String>, Value)> {
    let objects: Vec<Value> = said.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of = |kind: &'static str| objects.iter().filter(move |object| object["type"] == kind);
    let messages = of("progress").filter_map(|object| object["message"].as_str()).map(str::to_owned);
    Ok((messages.collect(), of("result").next_back().context("no result")?.clone()))
}

fn secrets(host: &Host) -> Result<usize> {
    let listed = host.virsh(&["-q", "secret-list"])?;
    Ok(listed.lines().filter(|line| line.contains("zsha")).count())
}

#[test]
fn a_vm_in_a_real_ceph_is_installed_fails_over_is_moved_and_leaves_its_image_alone() -> Result<()> {
    let lab = Cluster::builder().nodes(4).profile("Balanced").bare().build()?;
    let (admin, storage) = (lab.host(2), lab.host(4));
    let ceph = Ceph::start(storage)?;
    let document = document(&lab, &ceph);
    let operator = Operator::new(&lab, &document)?;
    let check = ["check-config", &operator.path("cluster.json"), "--online", "--accept-new-host-keys"];

    // Nothing of Ceph is there; then all but the image; then everything.
    let bare = operator.zsha(&check)?;
    for what in ["its QEMU has no driver for Ceph", "it cannot make a user in Ceph, and no other node can"] {
        ensure!(bare.status.code() == Some(1) && bare.stderr.contains(what), "{bare:?}");
    }
    for host in &lab.hosts()[..3] {
        ceph.client(host)?;
    }
    ceph.administrator(admin)?;
    let image = format!("rbd:{POOL}/mnvm");
    let without = operator.zsha(&check)?;
    ensure!(without.stderr.contains(&format!("image {image} does not exist")), "{without:?}");
    let source = zsha_e2e::cache().join("mnvm.img").display().to_string();
    admin.ok(&["qemu-img", "convert", "-O", "raw", &source, &image])?;
    let fit = operator.zsha(&check)?.success()?;
    ensure!(fit.contains(&format!("Image {image} exists")) && fit.contains("Every node is fit."), "{fit}");

    // --- from bare hosts to a running VM
    let dry = told(&operator.install(&["--dry-run", "-o", "json"])?.success()?)?;
    ensure!(dry.0.contains(&format!("would: Generate ceph auth for {USER}")), "{dry:?}");
    ensure!(admin.exec(&["ceph", "auth", "get", USER])?.success().is_err(), "a dry run has made it");
    let installed = operator.install(&[])?;
    let shown = format!("{}{}", installed.stdout, installed.stderr);
    println!("{shown}");
    let said = installed.success()?;
    let generated = said.lines().filter(|line| *line == format!("Generate ceph auth for {USER}")).count();
    let sent = said.lines().filter(|line| line.starts_with("Send ceph auth to 10.93.0.1")).count();
    ensure!((generated, sent) == (1, 3), "{said}");
    lab.remember(&document);
    let owner = lab.settled(SETTLE_LIMIT)?;
    lab.until("the guest's agent answers", BOOT_LIMIT, || owner.guest_up().map(Some))?;
    let xml = owner.virsh(&["dumpxml", "mnvm"])?;
    ensure!(
        ["protocol='rbd'", "username='zsha-lab'", "/etc/zsha/ceph.conf"].iter().all(|it| xml.contains(it)),
        "{xml}"
    );
    let caps = admin.ok(&["ceph", "auth", "get", USER])?;
    ensure!(caps.contains(&format!("profile rbd pool={POOL}")), "{caps}");
    let key = admin.ok(&["ceph", "auth", "get-key", USER])?;
    ensure!(!shown.contains(key.trim()), "its key is shown");

    let (_, again) = told(&operator.install(&["-o", "json"])?.success()?)?;
    ensure!(again["changed"] == false, "{again}");

    // --- moved live, and started elsewhere when its node loses its power
    let target = lab.others(owner).find(|host| document.names(host)).context("no other node")?;
    owner.exec_with(&["zsha", "migrate", &target.name], "", INSTALL)?.success()?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    ensure!(owner.name == target.name, "it is not where it was moved");
    let before = lab.until("the guest's agent answers", BOOT_LIMIT, || owner.guest_up().map(Some))?;
    let lost = owner.power_off()?;
    let recovered = lab.recovered(lost, FAILOVER)?;
    println!("QEMU runs again after {:.2?}", recovered.took);
    let after = lab.until("the guest is up again", FAILOVER, || recovered.host.guest_up().map(Some))?;
    println!("its guest is up after {:.2?}", lost.elapsed());
    ensure!(after.boot != before.boot, "it has not booted");
    // It counts on only where what it wrote is on the disk.
    lab.until("its disk takes what it writes", FAILOVER, || {
        Ok((recovered.host.guest_up()?.seconds > 1).then_some(()))
    })?;
    println!("its disk takes what it writes after {:.2?}", lost.elapsed());
    owner.power_on()?;
    lab.settled(SETTLE_LIMIT)?;

    // --- a node that reaches no monitor is not given the VM, and the one that runs it is left alone
    let bystander = lab.others(recovered.host).find(|host| document.names(host)).context("no other node")?;
    let block = ["nft", "-f", "-"];
    let rules = format!(
        "table inet lab {{\n chain out {{\n type filter hook output priority 0;\n \
         ip daddr {} tcp dport {{ 3300, 6789 }} reject with tcp reset\n }}\n}}\n",
        ceph.monitor
    );
    for host in [bystander, recovered.host] {
        host.exec_with(&block, &rules, INSTALL)?.success()?;
    }
    for host in [bystander, recovered.host] {
        lab.until("status says what is wrong", SETTLE_LIMIT, || {
            let status = lab.status()?;
            let node = status.node(&host.name).context("no such node")?;
            Ok(node.reasons.iter().any(|why| why.contains("Ceph's monitors")).then_some(()))
        })?;
    }
    ensure!(recovered.host.pid_of_qemu()? == Some(recovered.pid), "the VM was touched");
    for host in [bystander, recovered.host] {
        host.ok(&["nft", "delete", "table", "inet", "lab"])?;
    }
    lab.settled(SETTLE_LIMIT)?;
    ensure!(recovered.host.pid_of_qemu()? == Some(recovered.pid), "the VM was touched");

    // --- off again
    let words =
        ["uninstall", "-c", &operator.path("cluster.json"), "--yes-i-really-really-mean-it", "-o", "json"];
    let said = operator.zsha(&words)?.success()?;
    insta::assert_snapshot!("uninstall_json", said);
    let (messages, end) = told(&said)?;
    ensure!(end["kind"] == "UninstallResult" && end["changed"] == true, "{end}");
    ensure!(messages.contains(&format!("Remove ceph auth of {USER}")), "{messages:?}");
    ensure!(admin.exec(&["ceph", "auth", "get", USER])?.success().is_err(), "its user is left");
    for host in &lab.hosts()[..3] {
        ensure!(secrets(host)? == 0, "{} still holds a key", host.name);
    }
    admin.ok(&["rbd", "info", &format!("{POOL}/mnvm")])?;
    ensure!(lab.check().alive().is_empty(), "the VM is still there");
    lab.finish()
}
