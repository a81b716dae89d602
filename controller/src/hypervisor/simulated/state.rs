//! What is, in the simulated world, and what each request does to it. Synchronous; never waits, reads no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;
use zsha_crds::{NodeName, VmName};

use super::{Copy, Delays, DoubleExecution, Fault};
use crate::hypervisor::{DomainSpec, HypervisorError, LocalVm, OffReason, PauseReason};

/// What can be asked of a hypervisor, as a value: it may have to wait.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Define(DomainSpec),
    StartPaused,
    Resume,
    Shutdown,
    Kill,
    Undefine,
}

impl Request {
    pub(super) fn operation(&self) -> &'static str {
        match self {
            Self::Define(_) => "define",
            Self::StartPaused => "start",
            Self::Resume => "resume",
            Self::Shutdown => "shut down",
            Self::Kill => "kill",
            Self::Undefine => "undefine",
        }
    }

    fn refused(&self, reason: &str) -> HypervisorError {
        HypervisorError::Refused { operation: self.operation(), reason: reason.to_owned() }
    }
}

/// How a process ends that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Through the hypervisor.
    Destroyed,
    /// Past the hypervisor, or by itself.
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    Paused(PauseReason),
    Running,
    ShuttingDown,
}

#[derive(Debug, Clone)]
struct Process {
    number: u64,
    generation: u64,
    activity: Activity,
    started: Instant,
}

impl Process {
    fn executing(&self) -> bool {
        matches!(self.activity, Activity::Running | Activity::ShuttingDown)
    }
}

#[derive(Debug)]
pub(super) struct Host {
    powered: bool,
    /// Counts boots: what was asked before a boot never happens after it.
    boot: u64,
    defined: Option<DomainSpec>,
    off: OffReason,
    process: Option<Process>,
    fault: Option<Fault>,
    pub(super) delays: Delays,
    pub(super) start_failure: Option<String>,
    pub(super) unkillable: bool,
    changes: watch::Sender<u64>,
}

impl Host {
    fn new() -> Self {
        Self {
            powered: true,
            boot: 0,
            defined: None,
            off: OffReason::Unknown,
            process: None,
            fault: None,
            delays: Delays::default(),
            start_failure: None,
            unkillable: false,
            changes: watch::Sender::new(0),
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn ended(&mut self, reason: OffReason) {
        self.process = None;
        self.off = reason;
        self.changed();
    }

    fn local(&self) -> LocalVm {
        match (&self.process, &self.defined) {
            (Some(process), _) => {
                let generation = process.generation;
                match process.activity {
                    Activity::Paused(reason) => LocalVm::Paused { reason, generation },
                    Activity::Running => LocalVm::Running { generation },
                    Activity::ShuttingDown => LocalVm::ShuttingDown { generation },
                }
            }
            (None, Some(_)) => LocalVm::Off { reason: self.off },
            (None, None) => LocalVm::Absent,
        }
    }
}

/// Something that happens by itself when its time has come.
#[derive(Debug)]
enum Due {
    Request { node: NodeName, boot: u64, request: Request },
    GuestOff { node: NodeName, process: u64 },
}

/// What became of a call at the moment it reached the hypervisor.
#[derive(Debug)]
pub(super) enum Reached<T> {
    Answered(Result<T, HypervisorError>),
    /// No answer will come.
    Silent,
}

#[derive(Debug)]
pub(super) struct State {
    name: VmName,
    uuid: Uuid,
    hosts: BTreeMap<NodeName, Host>,
    due: BTreeMap<(Instant, u64), Due>,
    /// The last number given to a process or a thing due.
    counter: u64,
    pub(super) image_locks: bool,
    pub(super) image_locked_until: Option<Instant>,
    pub(super) double_executions: Vec<DoubleExecution>,
}

impl State {
    pub(super) fn new(name: VmName, uuid: Uuid) -> Self {
        Self {
            name,
            uuid,
            hosts: BTreeMap::new(),
            due: BTreeMap::new(),
            counter: 0,
            image_locks: true,
            image_locked_until: None,
            double_executions: Vec::new(),
        }
    }

    pub(super) fn host(&mut self, node: &NodeName) -> &mut Host {
        self.hosts.entry(node.clone()).or_insert_with(Host::new)
    }

    pub(super) fn changes(&mut self, node: &NodeName) -> watch::Receiver<u64> {
        self.host(node).changes.subscribe()
    }

    pub(super) fn delays(&mut self, node: &NodeName) -> Delays {
        self.host(node).delays
    }

    pub(super) fn boot(&mut self, node: &NodeName) -> u64 {
        self.host(node).boot
    }

    pub(super) fn copies(&self) -> Vec<Copy> {
        let processes = self.hosts.iter().filter_map(|(node, host)| Some((node, host.process.as_ref()?)));
        processes
            .map(|(node, process)| Copy {
                node: node.clone(),
                process: process.number,
                executing: process.executing(),
                generation: process.generation,
                started: process.started,
            })
            .collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Does what has fallen due by `now`, in order.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(entry) = self.due.first_entry() {
            let at = entry.key().0;
            if at > now {
                return;
            }
            match entry.remove() {
                Due::GuestOff { node, process } => {
                    self.guest_off(&node, Some(process));
                }
                Due::Request { node, boot, request } => {
                    // Nobody waits for the answer any more; what it did shows when somebody looks.
                    let host = self.host(&node);
                    if host.powered && host.boot == boot {
                        drop(self.perform(&node, &request, at));
                    }
                }
            }
        }
    }

    fn later(&mut self, at: Instant, due: Due) {
        self.counter += 1;
        self.due.insert((at, self.counter), due);
    }

    /// A look that has reached the hypervisor of `node`, in the boot it was asked in.
    pub(super) fn look(&mut self, node: &NodeName, boot: u64) -> Reached<LocalVm> {
        let host = self.host(node);
        match host.reachable(boot, "look") {
            Err(error) => Reached::Answered(Err(error)),
            Ok(Some(Fault::Hangs | Fault::AnswersLost | Fault::Late(_))) => Reached::Silent,
            Ok(Some(Fault::Unreachable) | None) => Reached::Answered(Ok(host.local())),
        }
    }

    /// A request that has reached the hypervisor of `node`, in the boot it was asked in.
    pub(super) fn ask(&mut self, node: &NodeName, boot: u64, request: Request, now: Instant) -> Reached<()> {
        match self.host(node).reachable(boot, request.operation()) {
            Err(error) => Reached::Answered(Err(error)),
            Ok(Some(Fault::Hangs)) => Reached::Silent,
            Ok(Some(Fault::AnswersLost)) => {
                drop(self.perform(node, &request, now));
                Reached::Silent
            }
            Ok(Some(Fault::Late(by))) => {
                self.later(now + by, Due::Request { node: node.clone(), boot, request });
                Reached::Silent
            }
            Ok(Some(Fault::Unreachable) | None) if self.sleeps_through(node, &request) => Reached::Silent,
            Ok(Some(Fault::Unreachable) | None) => Reached::Answered(self.perform(node, &request, now)),
        }
    }

    /// A kill of what cannot be killed is not answered in time.
    fn sleeps_through(&mut self, node: &NodeName, request: &Request) -> bool {
        let host = self.host(node);
        matches!(request, Request::Kill) && host.unkillable && host.process.is_some()
    }

    fn perform(&mut self, node: &NodeName, request: &Request, now: Instant) -> Result<(), HypervisorError> {
        match request {
            Request::Define(domain) => self.define(node, domain, request),
            Request::StartPaused => self.start_paused(node, request, now),
            Request::Resume => self.resume(node, request, now),
            Request::Shutdown => {
                self.shutdown(node, now);
                Ok(())
            }
            Request::Kill => {
                self.end(node, Ending::Destroyed);
                Ok(())
            }
            Request::Undefine => self.undefine(node, request),
        }
    }

    fn define(
        &mut self,
        node: &NodeName,
        domain: &DomainSpec,
        request: &Request,
    ) -> Result<(), HypervisorError> {
        if domain.uuid != self.uuid || domain.name != self.name {
            return Err(request.refused("this hypervisor is bound to another VM"));
        }
        let host = self.host(node);
        if host.defined.is_none() && host.process.is_none() {
            host.off = OffReason::Unknown;
        }
        host.defined = Some(domain.clone());
        host.changed();
        Ok(())
    }

    fn start_paused(
        &mut self,
        node: &NodeName,
        request: &Request,
        now: Instant,
    ) -> Result<(), HypervisorError> {
        let locked = self.image_lock_holder(node, now);
        self.counter += 1;
        let number = self.counter;
        let host = self.host(node);
        if host.process.is_some() {
            return Err(request.refused("the domain is already running"));
        }
        let Some(generation) = host.defined.as_ref().map(|domain| domain.generation) else {
            return Err(request.refused("no domain is defined"));
        };
        if let Some(reason) = &host.start_failure {
            return Err(request.refused(reason));
        }
        if let Some(reason) = locked {
            return Err(HypervisorError::ImageLocked { operation: request.operation(), reason });
        }
        let activity = Activity::Paused(PauseReason::Asked);
        host.process = Some(Process { number, generation, activity, started: now });
        host.changed();
        Ok(())
    }

    fn image_lock_holder(&self, node: &NodeName, now: Instant) -> Option<String> {
        if self.image_locked_until.is_some_and(|until| now < until) {
            return Some("Failed to get \"write\" lock: the server has not let go of it".to_owned());
        }
        let holder = self.hosts.iter().find(|(other, host)| *other != node && host.process.is_some())?;
        self.image_locks.then(|| format!("Failed to get \"write\" lock: it is open on {}", holder.0))
    }

    fn resume(&mut self, node: &NodeName, request: &Request, now: Instant) -> Result<(), HypervisorError> {
        let Some(process) = &mut self.host(node).process else {
            return Err(request.refused("the domain is not running"));
        };
        if process.executing() {
            return Ok(());
        }
        process.activity = Activity::Running;
        self.host(node).changed();
        let others = self.copies().into_iter().filter(|copy| copy.executing && copy.node != *node);
        let doubles: Vec<DoubleExecution> = others
            .map(|other| DoubleExecution { at: now, first: other.node, second: node.clone() })
            .collect();
        self.double_executions.extend(doubles);
        Ok(())
    }

    fn shutdown(&mut self, node: &NodeName, now: Instant) {
        let host = self.host(node);
        let takes = host.delays.guest_shutdown;
        let Some(process) = host.process.as_mut().filter(|process| process.activity == Activity::Running)
        else {
            return;
        };
        process.activity = Activity::ShuttingDown;
        let process = process.number;
        host.changed();
        if let Some(takes) = takes {
            self.later(now + takes, Due::GuestOff { node: node.clone(), process });
        }
    }

    fn undefine(&mut self, node: &NodeName, request: &Request) -> Result<(), HypervisorError> {
        let host = self.host(node);
        if host.process.is_some() {
            return Err(request.refused("the domain is running"));
        }
        if host.defined.take().is_some() {
            host.changed();
        }
        Ok(())
    }

    /// Ends the process of `node`, if there is one and it can be ended. How many were.
    pub(super) fn end(&mut self, node: &NodeName, ending: Ending) -> usize {
        let host = self.host(node);
        if host.process.is_none() || host.unkillable {
            return 0;
        }
        host.ended(match ending {
            Ending::Destroyed => OffReason::Destroyed,
            Ending::Killed => OffReason::Died,
        });
        1
    }

    /// The guest of `node` (that very process, if one is named) is off by its own doing.
    pub(super) fn guest_off(&mut self, node: &NodeName, number: Option<u64>) -> bool {
        let host = self.host(node);
        let it = host.process.as_ref().filter(|process| number.is_none_or(|number| number == process.number));
        let executing = it.is_some_and(Process::executing);
        if executing {
            host.ended(OffReason::Shutdown);
        }
        executing
    }

    pub(super) fn disk_fails(&mut self, node: &NodeName) -> bool {
        let host = self.host(node);
        let Some(process) = host.process.as_mut().filter(|process| process.executing()) else {
            return false;
        };
        process.activity = Activity::Paused(PauseReason::IoError);
        host.changed();
        true
    }

    pub(super) fn power_loss(&mut self, node: &NodeName) {
        let host = self.host(node);
        host.powered = false;
        host.boot += 1;
        host.process = None;
        host.off = OffReason::Unknown;
        host.changed();
        self.due.retain(|_, due| match due {
            Due::Request { node: of, .. } | Due::GuestOff { node: of, .. } => of != node,
        });
    }

    pub(super) fn power_on(&mut self, node: &NodeName) {
        let host = self.host(node);
        host.powered = true;
        host.changed();
    }

    pub(super) fn set_fault(&mut self, node: &NodeName, fault: Option<Fault>) {
        let host = self.host(node);
        let connection = |fault: Option<Fault>| fault != Some(Fault::Unreachable);
        if connection(host.fault) != connection(fault) {
            host.changed();
        }
        host.fault = fault;
    }
}

impl Host {
    /// Whether what was asked in `boot` gets as far as the hypervisor, and what is wrong with it if so.
    fn reachable(&self, boot: u64, operation: &'static str) -> Result<Option<Fault>, HypervisorError> {
        let unreachable =
            |reason: &str| Err(HypervisorError::Unreachable { operation, reason: reason.to_owned() });
        if !self.powered || self.boot != boot {
            return unreachable("the host has no power, or lost it meanwhile");
        }
        match self.fault {
            Some(Fault::Unreachable) => unreachable("connection refused"),
            fault => Ok(fault),
        }
    }
}

/// Half of how long a call takes: it happens in the middle.
pub(super) fn half_of(delays: Delays, request: Option<&Request>) -> Duration {
    match request {
        Some(Request::StartPaused) => delays.start / 2,
        Some(_) | None => delays.call / 2,
    }
}
