//! The power and the cables of a host. Never here: what runs on it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Signal, kill_process};

use super::{Host, Running, pid};
use crate::init::remove_groups_of;
use crate::net::Tethered;
use crate::proc;
use crate::services;

const BOOT_LIMIT: Duration = Duration::from_secs(20);

/// The time for the boot of a host whose systemd has to come up first.
const SYSTEMD_BOOT_LIMIT: Duration = Duration::from_secs(90);

impl Host {
    /// Boots the host: new namespaces, a new boot id, every service started. Disks are as the last power loss left
    /// them.
    pub fn power_on(&self) -> Result<()> {
        self.power_on_holding(&[])
    }

    /// Does the same, but these services start only when they are asked to, so that the test chooses which comes first
    /// in a boot.
    pub fn power_on_holding(&self, held: &[&str]) -> Result<()> {
        let mut running = self.running();
        if running.is_some() {
            bail!("{} is on already", self.name);
        }
        let mut config = self.config.clone();
        for service in &mut config.services {
            service.held = held.contains(&service.name.as_str());
        }
        fs::write(self.config.dir.join("host.json"), serde_json::to_string_pretty(&config)?)
            .context("write what its init is told")?;
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("make up a boot id")?;
        fs::write(self.config.dir.join("boot_id"), boot_id).context("write the boot id")?;
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--uts",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
            "--",
        ]);
        command.arg(&self.programs.init).arg("host").arg(self.config.dir.join("host.json"));
        command.env_clear().envs(services::environment(&self.programs));
        let log = self.config.dir.join("log/init.log");
        let booted = self.boot(&mut command, &log);
        let host = booted.with_context(|| {
            format!("boot {}; its init said: {}", self.name, fs::read_to_string(&log).unwrap_or_default())
        })?;
        *running = Some(host);
        Ok(())
    }

    fn boot(&self, command: &mut Command, log: &Path) -> Result<Running> {
        let mut process = Tethered::spawn(command, log, &self.name)?;
        let first = process.hear(BOOT_LIMIT)?;
        let init = first.strip_prefix("pid ").and_then(|pid| pid.parse::<i32>().ok());
        let init = init.ok_or_else(|| anyhow!("instead of its pid it said {first:?}"))?;
        let namespace =
            proc::pid_namespace(init).ok_or_else(|| anyhow!("no PID namespace of process {init}"))?;
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).insert(namespace, self.name.clone());
        self.switch.plug_in(self.number, init)?;
        process.tell("go")?;
        let limit = if self.config.bare { SYSTEMD_BOOT_LIMIT } else { BOOT_LIMIT };
        match process.hear(limit)?.as_str() {
            "ready" => Ok(Running { process, init }),
            other => bail!("instead of `ready` it said {other:?}"),
        }
    }

    /// Takes the power: everything on the host dies at once. Returns the instant of the cut; nothing happens where the
    /// host is off.
    pub fn power_off(&self) -> Result<Instant> {
        let at = Instant::now();
        if let Some(mut host) = self.running().take() {
            kill_process(pid(host.init)?, Signal::KILL)
                .with_context(|| format!("kill the init of {}", self.name))?;
            // The kernel reports the end of a namespace's init only after that of everything in it.
            host.process.child.wait().with_context(|| format!("wait for the end of {}", self.name))?;
            // From now on the kernel may give the namespace's number to another, which is none of this host's.
            self.namespaces
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|_, host| *host != self.name);
            self.switch.unplug(self.number);
            if self.config.bare {
                remove_groups_of(&self.config.dir);
            }
        }
        Ok(at)
    }

    /// Puts new hardware under the old name: everything on the disk of a bare host that is off is gone.
    pub fn wipe_disk(&self) -> Result<()> {
        if self.is_on() || !self.config.bare {
            bail!("only the disk of a bare host that is off can be wiped, not that of {}", self.name);
        }
        let layer = self.config.dir.join("disk/layer");
        fs::remove_dir_all(&layer).with_context(|| format!("remove {}", layer.display()))
    }

    /// Pulls every cable of the host.
    pub fn pull_cables(&self) -> Result<Instant> {
        let at = Instant::now();
        (0..self.config.links.len()).try_for_each(|network| self.pull_cable(network))?;
        Ok(at)
    }

    pub fn plug_cables(&self) -> Result<Instant> {
        let at = Instant::now();
        (0..self.config.links.len()).try_for_each(|network| self.plug_cable(network))?;
        Ok(at)
    }

    pub fn pull_cable(&self, network: usize) -> Result<()> {
        self.switch.set_cable(network, self.number, "down")
    }

    pub fn plug_cable(&self, network: usize) -> Result<()> {
        self.switch.set_cable(network, self.number, "up")
    }
}
