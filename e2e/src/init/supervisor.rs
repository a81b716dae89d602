//! Keeps a host's services running and reaps every process of it, QEMUs that libvirt has let go of included.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, wait, waitid};

use super::Service;
use super::control::{Request, ServiceStatus};

/// The time for a service to stop. It is as long as systemd's, but for tests: a service that has not ended by then is
/// killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// The pause between two looks whether an orphan has become a child, while there is no child at all.
const NO_CHILD_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Supervisor {
    log: PathBuf,
    services: Mutex<BTreeMap<String, State>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    service: Service,
    wanted: bool,
    pid: Option<Pid>,
    starts: u32,
    not_before: Instant,
    last_end: Option<String>,
}

impl Supervisor {
    pub(super) fn start(log: PathBuf, services: Vec<Service>) -> Arc<Self> {
        let now = Instant::now();
        let state = |service: Service| State {
            wanted: !service.held,
            service,
            pid: None,
            starts: 0,
            not_before: now,
            last_end: None,
        };
        let services = services.into_iter().map(|service| (service.name.clone(), state(service))).collect();
        let supervisor = Arc::new(Self { log, services: Mutex::new(services), changed: Condvar::new() });
        let (reaper, starter) = (supervisor.clone(), supervisor.clone());
        thread::spawn(move || reaper.reap());
        thread::spawn(move || starter.keep_started());
        supervisor
    }

    pub(super) fn handle(&self, request: Request) -> Result<()> {
        match request {
            Request::Status => Ok(()),
            Request::Start { service } => self.set_wanted(&service, true),
            Request::Stop { service } => self.stop(&service),
            Request::Restart { service } => {
                self.stop(&service)?;
                self.set_wanted(&service, true)
            }
            Request::Signal { service, signal } => {
                let signal = Signal::from_named_raw(signal).ok_or_else(|| anyhow!("no signal {signal}"))?;
                self.signal(&service, signal)
            }
        }
    }

    pub(super) fn status(&self) -> BTreeMap<String, ServiceStatus> {
        let status = |state: &State| ServiceStatus {
            pid: state.pid.map(|pid| pid.as_raw_nonzero().get()),
            wanted: state.wanted,
            starts: state.starts,
            last_end: state.last_end.clone(),
        };
        self.lock().iter().map(|(name, state)| (name.clone(), status(state))).collect()
    }

    fn set_wanted(&self, name: &str, wanted: bool) -> Result<()> {
        let mut services = self.lock();
        let state = find(&mut services, name)?;
        state.wanted = wanted;
        state.not_before = Instant::now();
        self.changed.notify_all();
        Ok(())
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let mut services = self.lock();
        let pid = find(&mut services, name)?.pid.ok_or_else(|| anyhow!("{name} is not running"))?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to {name}"))
    }

    fn stop(&self, name: &str) -> Result<()> {
        self.set_wanted(name, false)?;
        for signal in [Signal::TERM, Signal::KILL] {
            // A stopped process acts on SIGTERM only once it goes on.
            for signal in [signal, Signal::CONT] {
                self.signal(name, signal).ok();
            }
            let gone = |services: &mut BTreeMap<String, State>| {
                services.get(name).is_some_and(|state| state.pid.is_some())
            };
            let (services, waited) = self
                .changed
                .wait_timeout_while(self.lock(), STOP_LIMIT, gone)
                .unwrap_or_else(PoisonError::into_inner);
            drop(services);
            if !waited.timed_out() {
                return Ok(());
            }
        }
        bail!("{name} is still there {STOP_LIMIT:?} after SIGKILL")
    }

    /// Starts whatever is wanted and not running, as soon as its delay is over.
    fn keep_started(&self) {
        let mut services = self.lock();
        loop {
            let now = Instant::now();
            let mut pause = Duration::from_secs(60);
            for state in services.values_mut().filter(|state| state.wanted && state.pid.is_none()) {
                if state.not_before > now {
                    pause = pause.min(state.not_before - now);
                    continue;
                }
                state.starts += 1;
                match launch(&state.service, &self.log) {
                    Ok(pid) => state.pid = Some(pid),
                    Err(error) => {
                        eprintln!("{}: {error:#}", state.service.name);
                        state.end(format!("{error:#}"));
                        pause = Duration::ZERO;
                    }
                }
            }
            self.changed.notify_all();
            services = self.changed.wait_timeout(services, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn reap(&self) {
        loop {
            // Only look, so that a child that fails to start is left to the `spawn` which waits for it under the lock.
            match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Ok(_) => {}
                Err(rustix::io::Errno::CHILD) => {
                    thread::sleep(NO_CHILD_PAUSE);
                    continue;
                }
                Err(_) => continue,
            }
            let mut services = self.lock();
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                if let Some(state) = services.values_mut().find(|state| state.pid == Some(pid)) {
                    state.pid = None;
                    state.end(match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => format!("exit status {code}"),
                        (None, Some(signal)) => format!("signal {signal}"),
                        (None, None) => "unknown end".into(),
                    });
                }
            }
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self, how: String) {
        self.last_end = Some(how);
        self.not_before = Instant::now() + Duration::from_millis(self.service.restart_delay_millis);
    }
}

fn find<'a>(services: &'a mut BTreeMap<String, State>, name: &str) -> Result<&'a mut State> {
    let known = services.keys().cloned().collect::<Vec<_>>().join(", ");
    services.get_mut(name).ok_or_else(|| anyhow!("no service {name}; there are: {known}"))
}

fn launch(service: &Service, log: &Path) -> Result<Pid> {
    let path = log.join(format!("{}.log", service.name));
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let (program, arguments) = service.command.split_first().ok_or_else(|| anyhow!("an empty command"))?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(service.environment.iter().cloned())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {program}"))?;
    Ok(Pid::from_child(&child))
}
