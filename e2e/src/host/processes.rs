//! The services of a host and the QEMUs on it: begun, ended, stopped and found. Never here: what a service is asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Signal, kill_process};

use super::{Host, pid};
use crate::init::control::{self, Request, ServiceStatus};
use crate::proc;
use crate::services;

impl Host {
    pub fn services(&self) -> Result<BTreeMap<String, ServiceStatus>> {
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

    fn control(&self, request: &Request) -> Result<BTreeMap<String, ServiceStatus>> {
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
}
