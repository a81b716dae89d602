//! The manual of zsha 2.5.1 gone through on real hosts, with its words. What takes a test of its own is elsewhere: install
//! and uninstall in `install`, migrate in `migration`, stop, start and reset-MNVM-password in `orders`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use zsha_e2e::guest::DOMAIN;
use zsha_e2e::scenario::{BOOT_LIMIT, FAILOVER_LIMIT, SETTLE_LIMIT, booted_lab};
use zsha_e2e::{Host, wait};

const COMMAND: Duration = Duration::from_secs(60);

fn zsha(host: &Host, words: &[&str]) -> Result<String> {
    host.exec_with(&[&["zsha"], words].concat(), "", COMMAND)?.success()
}

/// Lines, or their beginnings, that have to be there in this order.
fn in_order(text: &str, beginnings: &[&str]) -> Result<()> {
    let mut rest = text.lines();
    for beginning in beginnings {
        ensure!(
            rest.any(|line| line.starts_with(beginning)),
            "no {beginning:?} where it belongs in:\n{text}"
        );
    }
    Ok(())
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
    in_order(&zsha(host, &["-v"])?, &["App Version", "Build Date", "Branch Name", "Commit ID"])?;

    for kind in ["FileConf", "CephConf"] {
        let file = format!("/tmp/sample.{kind}.config.json");
        let said = zsha(host, &["config-sample", kind])?;
        ensure!(said == format!("output config json file to {file}\n"), "{said}");
        let sample = host.ok(&["cat", &file])?;
        ensure!(sample.contains(&format!("\"Type\": \"{kind}\"")), "{sample}");
        in_order(&zsha(host, &["check-config", &file])?, &["config file check pass"])?;
        host.ok(&["rm", &file])?;
    }
    let exported = zsha(host, &["export-config"])?;
    ensure!(exported == "output config json file to /tmp/current.config.json\n", "{exported}");
    in_order(&zsha(host, &["check-config", "/tmp/current.config.json"])?, &["config file check pass"])?;
    host.ok(&["rm", "/tmp/current.config.json"])?;

    let status = zsha(host, &["status"])?;
    println!("{status}");
    in_order(&status, &HEADINGS)?;
    for other in lab.hosts() {
        let address = other.address().to_string();
        ensure!(status.contains(&address) && status.contains(&other.name), "{} is not in it", other.name);
    }
    let with_configuration = zsha(host, &["status-conf"])?;
    in_order(&with_configuration, &[&HEADINGS[..], &[">>>Configuration", "{"]].concat())?;
    let both: Value = serde_json::from_str(&zsha(host, &["status-conf", "-o", "json"])?)?;
    ensure!(both["document"]["spec"]["Type"] == "FileConf", "{both}");

    let there = host.exec_with(&["zsha", "migrate", &host.name], "", COMMAND)?;
    let active = format!("Requested operation is not valid: domain {DOMAIN} is already active");
    ensure!(there.status.success() && there.stderr.contains(&active), "{there:?}");
    let nobody = host.exec_with(&["zsha", "migrate", "192.0.2.9"], "", COMMAND)?;
    ensure!(
        nobody.status.code() == Some(2) && nobody.stderr.contains("is no node of this cluster"),
        "{nobody:?}"
    );
    ensure!(lab.settled(SETTLE_LIMIT)?.name == host.name, "it was moved");
    lab.finish()
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
    in_order(&zsha(host, &["check-config", "/tmp/lab.config.json"])?, &["config file check pass"])?;
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
