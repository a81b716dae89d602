//! One host of the lab, and the commands that are run on it. Its power, its processes and its connections have a file
//! each.

mod connections;
mod power;
mod processes;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::Pid;

use crate::check::Namespaces;
use crate::command::{self, Finished};
use crate::init::{HostConfig, layer_of};
use crate::net::{self, Switch, Tethered};
use crate::services::{self, Programs};
/// The time for one command on a host, where the caller names none.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
#[derive(Debug)]
pub struct Host {
    pub name: String,
    /// The number of the host, from 1, as in its name and address.
    pub number: usize,
    config: HostConfig,
    programs: Programs,
    switch: Arc<Switch>,
    namespaces: Namespaces,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    process: Tethered,
    /// Pid of the host's init as the machine sees it.
    init: i32,
}

impl Host {
    pub(crate) fn new(
        number: usize,
        config: HostConfig,
        programs: Programs,
        switch: Arc<Switch>,
        namespaces: Namespaces,
    ) -> Self {
        Self {
            name: config.name.clone(),
            number,
            config,
            programs,
            switch,
            namespaces,
            running: Mutex::new(None),
        }
    }

    /// The files that a bare host has put below /etc, /usr or /var by itself, and that lie there now.
    pub fn own_files(&self) -> Result<std::collections::BTreeSet<PathBuf>> {
        let mut found = std::collections::BTreeSet::new();
        for directory in ["/etc", "/usr", "/var"] {
            let layer = layer_of(&self.config.dir, directory);
            let listed = command::run(
                Command::new("find")
                    .arg(&layer)
                    .args(["!", "-type", "c", "!", "-type", "d", "-printf", "%P\\n"]),
                "",
                COMMAND_LIMIT,
            )?;
            found.extend(listed.success()?.lines().map(|file| Path::new(directory).join(file)));
        }
        Ok(found)
    }

    pub fn is_on(&self) -> bool {
        self.running().is_some()
    }

    /// Address in the first network, which Consul uses.
    pub fn address(&self) -> std::net::Ipv4Addr {
        net::address(0, self.number)
    }

    /// Runs a command on the host to its end, at most 30 s.
    pub fn exec(&self, words: &[&str]) -> Result<Finished> {
        self.exec_with(words, "", COMMAND_LIMIT)
    }

    /// Runs a command that has to succeed. Returns its standard output.
    pub fn ok(&self, words: &[&str]) -> Result<String> {
        self.exec(words)?.success().with_context(|| self.name.clone())
    }

    pub fn exec_with(&self, words: &[&str], input: &str, limit: Duration) -> Result<Finished> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init()?.to_string(), "-m", "-u", "-n", "-p", "-r", "-w", "--"]).args(words);
        command.env_clear().envs(services::environment(&self.programs));
        command::run(&mut command, input, limit).with_context(|| format!("on {}", self.name))
    }

    pub fn virsh(&self, words: &[&str]) -> Result<String> {
        self.ok(&[&["virsh", "-q", "-c", "qemu:///system"], words].concat())
    }

    /// A line for a person to paste, which opens a shell on the host.
    pub fn shell_line(&self) -> Result<String> {
        let path = self.programs.path();
        let environment =
            format!("PATH={path} ZSHA_CLUSTER={} CONSUL_HTTP_ADDR=http://127.0.0.1:8500", services::CLUSTER);
        Ok(format!(
            "nsenter -t {} -m -u -n -p -r -w env {environment} PS1='{}# ' bash --norc",
            self.init()?,
            self.name
        ))
    }

    pub fn log_dir(&self) -> PathBuf {
        self.config.dir.join("log")
    }

    pub fn init(&self) -> Result<i32> {
        self.running().as_ref().map(|host| host.init).ok_or_else(|| anyhow!("{} is off", self.name))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pid(raw: i32) -> Result<Pid> {
    Pid::from_raw(raw).ok_or_else(|| anyhow!("{raw} is no pid"))
}
