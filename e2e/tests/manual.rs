//! The manual of zsha 2.5.1 gone through on real hosts, with its words. What takes a test of its own is elsewhere: install
//! and uninstall in `install`, migrate in `migration`, stop, start and reset-MNVM-password in `orders`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use zsha_e2e::guest::DOMAIN;
use zsha_e2e::said::begin_in_order;
use zsha_e2e::scenario::{BOOT_LIMIT, FAILOVER_LIMIT, SETTLE_LIMIT, booted_lab};
use zsha_e2e::{Cluster, Host, wait};

const COMMAND: Duration = Duration::from_secs(60);

fn zsha(host: &Host, words: &[&str]) -> Result<String> {
    host.exec_with(&[&["zsha"], words].concat(), "", COMMAND)?.success()
}

const HEADINGS: [&str; 8] = [
    ">>>MN-VM Running On",
    ">>>Last MN-VM Start Record",
    ">>>ZStack HA Services Running On",
    ">>>Consul Members",
    ">>>Management Node IP",
    ">>>Public Network IP",
    ">>>Checking Host I/O",
    "done.",
];

/// Rows -h, -v, check-config, config-sample, export-config, status, status-conf and the errors of migrate.
#[test]
fn what_the_manual_shows_is_printed() -> Result<()> {
    let lab = booted_lab()?;
    let host = lab.settled(SETTLE_LIMIT)?;

    let help = zsha(host, &["-h"])?;
    for command in [
        "check-config",
        "config-sample",
        "install",
        "uninstall",
        "export-config",
        "import-config",
        "migrate",
        "status",
        "status-conf",
        "stop",
        "start",
    ] {
        ensure!(help.contains(&format!("  {command} ")), "{command} is not in:\n{help}");
    }
    ensure!(!help.contains("reset-MNVM-password"), "it is hidden:\n{help}");
    begin_in_order(&zsha(host, &["-v"])?, &["App Version", "Build Date", "Branch Name", "Commit ID"])?;

    for kind in ["FileConf", "CephConf"] {
        let file = format!("/tmp/sample.{kind}.config.json");
        let said = zsha(host, &["config-sample", kind])?;
        ensure!(said == format!("output config json file to {file}\n"), "{said}");
        let sample = host.ok(&["cat", &file])?;
        ensure!(sample.contains(&format!("\"Type\": \"{kind}\"")), "{sample}");
        begin_in_order(&zsha(host, &["check-config", &file])?, &["config file check pass"])?;
        host.ok(&["rm", &file])?;
    }
    let exported = zsha(host, &["export-config"])?;
    ensure!(exported == "output config json file to /tmp/current.config.json\n", "{exported}");
    begin_in_order(&zsha(host, &["check-config", "/tmp/current.config.json"])?, &["config file check pass"])?;
    host.ok(&["rm", "/tmp/current.config.json"])?;

    let status = zsha(host, &["status"])?;
    println!("{status}");
    begin_in_order(&status, &HEADINGS)?;
    for other in lab.hosts() {
        let address = other.address().to_string();
        ensure!(status.contains(&address) && status.contains(&other.name), "{} is not in it", other.name);
    }
    let with_configuration = zsha(host, &["status-conf"])?;
    begin_in_order(&with_configuration, &[&HEADINGS[..], &[">>>Configuration", "{"]].concat())?;
    let both: Value = serde_json::from_str(&zsha(host, &["status-conf", "-o", "json"])?)?;
    ensure!(both["document"]["spec"]["Type"] == "FileConf", "{both}");

    let there = host.exec_with(&["zsha", "migrate", &host.name], "", COMMAND)?;
    let active = format!("Requested operation is not valid: domain {DOMAIN} is already active");
    ensure!(there.status.success() && there.stderr.contains(&active), "{there:?}");
    let nobody = host.exec_with(&["zsha", "migrate", "192.0.2.9"], "", COMMAND)?;
    ensure!(
        nobody.status.code() == Some(2) && nobody.stderr.contains("is not a node of this cluster"),
        "{nobody:?}"
    );
    interrupted_while_it_waits(&lab, host)?;
    ensure!(lab.settled(SETTLE_LIMIT)?.name == host.name, "it was moved");
    lab.finish()
}

/// A node that cannot be left, as there is nowhere to go: what looks on is interrupted.
fn interrupted_while_it_waits(lab: &Cluster, owner: &Host) -> Result<()> {
    for other in lab.others(owner) {
        zsha(owner, &["drain", &other.name])?;
    }
    let words = ["timeout", "--preserve-status", "-s", "INT", "3", "zsha", "drain", &owner.name];
    let interrupted = owner.exec_with(&words, "", COMMAND)?;
    ensure!(
        interrupted.status.code() == Some(130) && interrupted.stderr.contains("stays asked for"),
        "{interrupted:?}"
    );
    let status = zsha(owner, &["status"])?;
    ensure!(
        status.contains(&format!("zsha uncordon {}", owner.name)),
        "it is not asked for any more:\n{status}"
    );
    for host in lab.hosts() {
        zsha(owner, &["uncordon", &host.name])?;
    }
    Ok(())
}

/// Row import-config: in force from the next boot, which `halt -p` in the guest brings about.
#[test]
fn an_imported_configuration_is_in_force_once_the_guest_has_halted() -> Result<()> {
    let lab = booted_lab()?;
    let host = lab.settled(SETTLE_LIMIT)?;
    let before = lab.until("the guest's agent answers", BOOT_LIMIT, || host.guest_up().map(Some))?;
    let pid = host.pid_of_qemu()?;
    let memory = |host: &Host| -> Result<String> {
        let told = host.virsh(&["dominfo", DOMAIN])?;
        let line = told.lines().find(|line| line.starts_with("Max memory")).context("no memory")?;
        Ok(line.split_whitespace().nth(2).context("no number")?.to_owned())
    };
    let small = memory(host)?;

    zsha(host, &["export-config", "-o", "/tmp/lab.config.json"])?;
    let mut document: Value = serde_json::from_str(&host.ok(&["cat", "/tmp/lab.config.json"])?)?;
    let gib = document["MemorySizeInGB"].as_u64().context("no memory in the document")?;
    document["MemorySizeInGB"] = json!(gib + 1);
    let put = ["sh", "-c", "cat >/tmp/lab.config.json"];
    host.exec_with(&put, &document.to_string(), COMMAND)?.success()?;
    begin_in_order(&zsha(host, &["check-config", "/tmp/lab.config.json"])?, &["config file check pass"])?;
    zsha(host, &["import-config", "/tmp/lab.config.json", "-m", "more memory"])?;
    host.ok(&["rm", "/tmp/lab.config.json"])?;
    lab.until("status says that it waits for the next boot", SETTLE_LIMIT, || {
        Ok(zsha(host, &["status"])?.contains("next boot").then_some(()))
    })?;
    wait::stays("a guest that runs is left alone", Duration::from_secs(3), || {
        ensure!(host.pid_of_qemu()? == pid && memory(host)? == small, "it was started anew");
        Ok(())
    })?;

    // The agent goes with the guest, so it may not get to answer.
    let _ = host.agent("guest-shutdown", json!({ "mode": "powerdown" }));
    lab.until("another QEMU", FAILOVER_LIMIT, || {
        Ok((host.pid_of_qemu()?.is_some_and(|now| Some(now) != pid)).then_some(()))
    })?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let large: u64 = memory(owner)?.parse()?;
    ensure!(large == (gib + 1) << 20, "it runs with {large} KiB");
    let after = lab.until("the guest's agent answers", BOOT_LIMIT, || owner.guest_up().map(Some))?;
    ensure!(after.boot != before.boot, "the guest has not booted");
    lab.finish()
}

/// The table in `e2e/README.md` names a test for every row of the manual, and each of them is there.
#[test]
fn every_row_and_every_situation_has_its_test() -> Result<()> {
    let table = include_str!("../README.md");
    let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("| ") && line.contains("::")).collect();
    for row in &rows {
        for named in row.split('`').filter(|word| word.contains("::")) {
            let (file, name) = named.split_once("::").context("no test")?;
            let text = std::fs::read_to_string(home.join(format!("{file}.rs")))
                .with_context(|| format!("{named}: no such file"))?;
            ensure!(text.contains(&format!("fn {name}(")), "{named} is gone");
        }
    }
    let situations = rows.iter().filter(|row| row[2..].starts_with(|c: char| c.is_ascii_digit())).count();
    ensure!((rows.len(), situations) == (26, 10), "{} rows, {situations} situations", rows.len());
    Ok(())
}
