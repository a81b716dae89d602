//! One host of the lab: its power, its cables, its services, and commands run on it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::check::Namespaces;
use crate::command::{self, Finished};
use crate::init::control::{self, Request, ServiceStatus};
use crate::init::{HostConfig, layer_of, remove_groups_of};
use crate::net::{self, Switch, Tethered};
use crate::proc;
use crate::services::{self, CONSUL_PORT, Programs};
use crate::stand_in::{Manner, StandIn};

const BOOT_LIMIT: Duration = Duration::from_secs(20);
/// The time for the boot of a host whose systemd has to come up first.
const SYSTEMD_BOOT_LIMIT: Duration = Duration::from_secs(90);
/// The time for one command on a host, where the caller names none.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const HTTP_LIMIT: Duration = Duration::from_secs(2);

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

    // --- power and cables

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

    /// Address in the first network, which Consul uses.
    pub fn address(&self) -> std::net::Ipv4Addr {
        net::address(0, self.number)
    }

    // --- services

    pub fn services(&self) -> Result<std::collections::BTreeMap<String, ServiceStatus>> {
        self.control(&Request::Status)
    }

    pub fn start(&self, service: &str) -> Result<()> {
        self.control(&Request::Start { service: service.into() }).map(drop)
    }

    /// Stops a service. It stays down until it is started.
    pub fn stop(&self, service: &str) -> Result<()> {
        self.control(&Request::Stop { service: service.into() }).map(drop)
    }

    pub fn restart(&self, service: &str) -> Result<()> {
        self.control(&Request::Restart { service: service.into() }).map(drop)
    }

    /// Sends SIGKILL to a service, which is then started again after its delay; or to `qemu`, which is no service.
    pub fn kill9(&self, what: &str) -> Result<Instant> {
        let at = Instant::now();
        match what {
            "qemu" => {
                let qemu = self.pid_of_qemu()?.ok_or_else(|| anyhow!("no QEMU runs on {}", self.name))?;
                kill_process(pid(qemu)?, Signal::KILL)
                    .with_context(|| format!("kill QEMU on {}", self.name))?;
            }
            service => self.signal(service, Signal::KILL)?,
        }
        Ok(at)
    }

    /// Puts the wall clock that the keeper and the controller here see so far from the machine's, at once: `+3600`.
    /// Needs a lab built with [`crate::ClusterBuilder::own_wall_clocks`].
    pub fn step_wall_clock(&self, offset: &str) -> Result<()> {
        let next = self.config.dir.join("wall.next");
        fs::write(&next, offset)
            .and_then(|()| fs::rename(&next, self.config.dir.join(services::WALL_CLOCK)))
            .with_context(|| format!("step the wall clock of {}", self.name))
    }

    /// Sends SIGSTOP: the service is there and does nothing.
    pub fn hang(&self, service: &str) -> Result<()> {
        self.signal(service, Signal::STOP)
    }

    pub fn unhang(&self, service: &str) -> Result<()> {
        self.signal(service, Signal::CONT)
    }

    fn signal(&self, service: &str, signal: Signal) -> Result<()> {
        self.control(&Request::Signal { service: service.into(), signal: signal.as_raw() }).map(drop)
    }

    fn control(&self, request: &Request) -> Result<std::collections::BTreeMap<String, ServiceStatus>> {
        let socket = format!("/proc/{}/root{}", self.init()?, control::SOCKET);
        control::send(Path::new(&socket), request).with_context(|| self.name.clone())
    }

    /// The pid, as the machine sees it, of the QEMU that has the VM's image; a dying one does not count.
    pub fn pid_of_qemu(&self) -> Result<Option<i32>> {
        let ours = proc::pid_namespace(self.init()?);
        let is_vm = |process: &proc::Process| {
            process.name.starts_with("qemu-system")
                && !process.is_dead()
                && proc::pid_namespace(process.pid) == ours
                && crate::is_of_the_vm(&process.command_line())
        };
        Ok(proc::all()?.iter().find(|process| is_vm(process)).map(|process| process.pid))
    }

    /// The pids, as the machine sees them, of every QEMU here that has this among its arguments, whatever program
    /// started it.
    pub fn qemus_with(&self, word: &str) -> Result<Vec<i32>> {
        let ours = proc::pid_namespace(self.init()?);
        let has_it = |process: &proc::Process| {
            process.name.starts_with("qemu-system")
                && !process.is_dead()
                && proc::pid_namespace(process.pid) == ours
                && process.command_line().iter().any(|argument| argument.contains(word))
        };
        Ok(proc::all()?.iter().filter(|process| has_it(process)).map(|process| process.pid).collect())
    }

    // --- commands and connections

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

    /// Connects to a port on the host's loopback, from inside it: this works with every cable pulled.
    pub fn connect(&self, port: u16) -> Result<TcpStream> {
        net::connect_inside(self.init()?, port, HTTP_LIMIT)
            .with_context(|| format!("connect to port {port} on {}", self.name))
    }

    /// Connects from here to the page of another host's controller, over their network.
    pub fn connect_to_page_of(&self, other: &Self) -> Result<TcpStream> {
        net::connect_from(self.init()?, (other.address(), services::STATUS_PORT).into(), HTTP_LIMIT)
            .with_context(|| format!("connect to the page of {} from {}", other.name, self.name))
    }

    /// Makes a `GET` to the page of another host's controller, from here.
    pub fn page_of(&self, other: &Self, path: &str) -> Result<String> {
        let whole = format!("{}{path}", other.status_http());
        net::get(self.connect_to_page_of(other)?, &whole).with_context(|| format!("page of {}", other.name))
    }

    /// Makes a `GET` to the host's own Consul agent.
    pub fn consul(&self, path: &str) -> Result<String> {
        net::get(self.connect(CONSUL_PORT)?, path).with_context(|| format!("Consul on {}", self.name))
    }

    /// Reads a key of Consul as it stands there, past a leader that may be none any more; none where there is no such
    /// key.
    pub fn key(&self, key: &str) -> Result<Option<String>> {
        let listed = self.consul(&format!("/v1/kv/{key}?keys&consistent"));
        match listed {
            Err(error) if error.to_string().contains("HTTP 404") => Ok(None),
            Err(error) => Err(error),
            Ok(_) => self.consul(&format!("/v1/kv/{key}?raw&consistent")).map(Some),
        }
    }

    /// Writes a key of zsha's past zsha, as a person should not.
    pub fn put_key(&self, key: &str, value: &str) -> Result<()> {
        net::request(self.connect(CONSUL_PORT)?, "PUT", &format!("/v1/kv/{key}"), value)
            .map(drop)
            .with_context(|| format!("Consul on {}", self.name))
    }

    /// Deletes a key of zsha's past zsha, as a person should not either.
    pub fn delete_key(&self, key: &str) -> Result<()> {
        net::request(self.connect(CONSUL_PORT)?, "DELETE", &format!("/v1/kv/{key}"), "")
            .map(drop)
            .with_context(|| format!("Consul on {}", self.name))
    }

    /// Takes the place of the host's own Consul agent, which has to be stopped.
    pub fn stand_in_for_consul(&self, manner: Manner) -> Result<StandIn> {
        let listener = net::listen_inside(self.init()?, CONSUL_PORT)
            .with_context(|| format!("in the place of Consul on {}", self.name))?;
        let queue = match manner {
            Manner::BlackHole => net::fill_queue(self.init()?, CONSUL_PORT)?,
            _ => Vec::new(),
        };
        StandIn::start(listener, manner, queue)
    }

    /// Consul's URL on the lab's network; from the machine itself only with an uplink.
    pub fn consul_http(&self) -> String {
        format!("http://{}:{CONSUL_PORT}", self.address())
    }

    pub fn status_http(&self) -> String {
        format!("http://{}:{}", self.address(), services::STATUS_PORT)
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
