//! PID 1 of a host of the lab: mounts, network, then services kept running; and it reaps.
//!
//! It lives as long as its standard input, whose other end the test process holds: however that ends, the host ends
//! too, and with its last process the kernel removes its namespaces, mounts and network links.
//!
//! Talk on start: init prints `pid N` (its pid as the outside sees it), waits for `go` (the outside has plugged the
//! cables in), prints `ready`.

pub mod control;
mod mounts;
mod supervisor;
mod system;

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::command;
pub(crate) use mounts::on_disk;
use supervisor::Supervisor;
pub use system::{PASSWORD, lifeline, systemd};
pub(crate) use system::{layer_of, remove_groups_of};

/// Everything that init has to know of its host. The lab writes it into `DIR/host.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostConfig {
    pub name: String,
    /// The host's directory: the part of its disk that outlives a power loss, and its logs.
    pub dir: PathBuf,
    /// The directory that is shown as `/opt/smp/mngt` on every host.
    pub share: PathBuf,
    pub links: Vec<Link>,
    pub services: Vec<Service>,
    /// True if PID 1 is systemd, with sshd and libvirtd and nothing else: a host as zsha finds it.
    pub bare: bool,
}

/// A cable's end in the host and the bridge that it is a port of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Link {
    pub device: String,
    pub bridge: String,
    /// The address with its prefix length.
    pub address: String,
    pub mac: String,
}

/// A program that is kept running, as systemd's `Restart=always` does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// The delay of a restart, like systemd's `RestartSec`; 100 ms is systemd's own default.
    pub restart_delay_millis: u64,
    /// True if the service is not started with the host, but only when asked for.
    #[serde(default)]
    pub held: bool,
}

/// Runs as PID 1. It returns only where the boot failed; otherwise it ends with the process.
pub fn boot(config: &Path) -> Result<()> {
    // Still the outside's /proc: the link holds the pid that the outside knows.
    let pid = std::fs::read_link("/proc/self").context("read /proc/self")?;
    let text = std::fs::read_to_string(config).with_context(|| format!("read {}", config.display()))?;
    let host: HostConfig =
        serde_json::from_str(&text).with_context(|| format!("decode {}", config.display()))?;
    say(&format!("pid {}", pid.display()))?;

    let mut lifeline = std::io::stdin().lock().lines();
    match lifeline.next() {
        Some(Ok(word)) if word == "go" => {}
        _ => return Ok(()), // the lab is gone already
    }
    rustix::system::sethostname(host.name.as_bytes()).context("set the hostname")?;
    if host.bare {
        system::layer(&host.dir)?;
    }
    mounts::set_up(&host)?;
    set_up_network(&host.links)?;
    if host.bare {
        system::furnish(&host)?;
        return system::become_systemd(&host);
    }
    reserve_migration_ports()?;
    let supervisor = Supervisor::start(host.dir.join("log"), host.services);
    control::serve(supervisor)?;
    say("ready")?;

    while let Some(Ok(_)) = lifeline.next() {}
    std::process::exit(0)
}

/// Holds a network namespace with one bridge for each network in it: the switch. It lives as long as its standard
/// input.
pub fn switch(bridges: &[String]) -> Result<()> {
    let mut script = String::from("link set lo up\n");
    for bridge in bridges {
        script +=
            &format!("link add {bridge} type bridge stp_state 0 forward_delay 0\nlink set {bridge} up\n");
    }
    ip(&script)?;
    say("ready")?;
    for line in std::io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("tell the lab")
}

fn set_up_network(links: &[Link]) -> Result<()> {
    let mut script = String::from("link set lo up\n");
    for Link { device, bridge, address, mac } in links {
        // A bridge without an address of its own changes it whenever a guest's tap joins.
        script += &format!(
            "link add {bridge} address {mac} type bridge stp_state 0 forward_delay 0\n\
             link set {device} master {bridge}\n\
             link set {device} up\n\
             link set {bridge} up\n\
             address add {address} dev {bridge}\n"
        );
    }
    ip(&script)
}

/// Does what `zsha install` does on a real host: the kernel gives the ports of live migration to no connection that leaves
/// it. A QEMU finds such a port taken, listens by IPv6 alone, and the migration fails.
fn reserve_migration_ports() -> Result<()> {
    let list = "/proc/sys/net/ipv4/ip_local_reserved_ports";
    std::fs::write(list, "49152-49215").with_context(|| format!("write {list}"))
}

fn ip(script: &str) -> Result<()> {
    let finished = command::run(Command::new("ip").args(["-batch", "-"]), script, Duration::from_secs(10))?;
    match finished.success() {
        Ok(_) => Ok(()),
        Err(error) => bail!("set up the network: {error:#}\nof:\n{script}"),
    }
}
