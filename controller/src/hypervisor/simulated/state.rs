//! The state of the simulated world, and what each request does to it. It is synchronous: it never waits, and reads no
//! clock.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;
use zsha_crds::{NodeName, VmName};

use super::moving::Moving;
use super::{Copy, Delays, DoubleExecution, Fault, MigrationFault, StaleResume};
use crate::hypervisor::{
    DomainFacts, DomainSpec, HypervisorError, LocalVm, MigrationJob, MigrationOrder, OffReason, Origin,
    PauseReason,
};

/// A request to a hypervisor, as a value, since it may have to wait.
#[derive(Debug, Clone)]
pub(super) enum Request {
    StartPaused(Box<DomainSpec>),
    Resume,
    Shutdown,
    /// A request to the guest's agent.
    AskAgent {
        operation: &'static str,
    },
    Kill,
    Undefine,
    Migrate(MigrationOrder),
    AbortMigration,
}

impl Request {
    pub(super) fn operation(&self) -> &'static str {
        match self {
            Self::StartPaused(_) => "start",
            Self::Resume => "resume",
            Self::Shutdown => "shut down",
            Self::AskAgent { operation } => operation,
            Self::Kill => "kill",
            Self::Undefine => "undefine",
            Self::Migrate(_) => "migrate",
            Self::AbortMigration => "abort migration",
        }
    }

    pub(super) fn refused(&self, reason: &str) -> HypervisorError {
        HypervisorError::Refused { operation: self.operation(), reason: reason.to_owned() }
    }
}

/// The way a process ends that does not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It is ended through the hypervisor.
    Destroyed,
    /// It is ended past the hypervisor, or ends by itself.
    Killed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    Paused(PauseReason),
    Running,
    ShuttingDown,
}

#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) activity: Activity,
    pub(super) origin: Origin,
    started: Instant,
    /// The moment when its memory was taken from another process. It is stale if any copy has executed since.
    pub(super) memory_of: Option<Instant>,
    /// True if it has executed, so that a write to the disk may be under way.
    pub(super) ran: bool,
    /// True if SIGKILL was sent to it in uninterruptible sleep. Its threads that execute the guest are gone. The thread
    /// that sleeps goes when it wakes, and until then its write may still land.
    killed: bool,
    /// True if its host is suspended.
    asleep: bool,
}

impl Process {
    pub(super) fn new(
        number: u64,
        generation: u64,
        (activity, origin): (Activity, Origin),
        started: Instant,
    ) -> Self {
        Self {
            number,
            generation,
            activity,
            origin,
            started,
            memory_of: None,
            ran: false,
            killed: false,
            asleep: false,
        }
    }

    pub(super) fn executing(&self) -> bool {
        let stands = self.killed || self.asleep;
        !stands && matches!(self.activity, Activity::Running | Activity::ShuttingDown)
    }
}

#[derive(Debug)]
pub(super) struct Host {
    pub(super) powered: bool,
    /// True if nothing runs there; things that fall due wait until the host wakes.
    pub(super) suspended: bool,
    postponed: Vec<Due>,
    /// The count of boots: a call from before a boot never happens after it.
    boot: u64,
    /// True if a definition is on its disk, by an administrator's hand.
    defined: bool,
    autostart: bool,
    /// The way the last process ended, if one has.
    ended: Option<OffReason>,
    pub(super) process: Option<Process>,
    pub(super) fault: Option<Fault>,
    pub(super) moving: Option<Moving>,
    /// The migration as the process knows it that asked for it.
    pub(super) job: MigrationJob,
    /// The way the next migrations from here end.
    pub(super) migration_fault: Option<MigrationFault>,
    pub(super) delays: Delays,
    pub(super) start_failure: Option<String>,
    pub(super) unkillable: bool,
    /// True if whatever executes is paused again by its first access to the disk.
    pub(super) disk_gone: bool,
    /// True if the side that counts processes there cannot read the table.
    pub(super) uncounted: bool,
    /// True if the log there does not say how the VM has ended.
    pub(super) log_unreadable: bool,
    changes: watch::Sender<u64>,
}

impl Host {
    /// The number of the VM's process, if there is one.
    fn number(&self) -> Option<u64> {
        self.process.as_ref().map(|process| process.number)
    }

    fn new() -> Self {
        Self {
            powered: true,
            suspended: false,
            postponed: Vec::new(),
            boot: 0,
            defined: false,
            autostart: false,
            ended: None,
            process: None,
            fault: None,
            moving: None,
            job: MigrationJob::None,
            migration_fault: None,
            delays: Delays::default(),
            start_failure: None,
            unkillable: false,
            disk_gone: false,
            uncounted: false,
            log_unreadable: false,
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Notes that its process has ended, or will once it can.
    pub(super) fn ended(&mut self, reason: OffReason) {
        self.ended = Some(reason);
        match &mut self.process {
            Some(process) if self.unkillable => process.killed = true,
            _ => self.process = None,
        }
        self.changed();
    }

    pub(super) fn set_unkillable(&mut self, unkillable: bool) {
        self.unkillable = unkillable;
        if !unkillable && self.process.as_ref().is_some_and(|process| process.killed) {
            self.process = None;
            self.changed();
        }
    }

    fn local(&self) -> LocalVm {
        match (&self.process, self.ended) {
            (Some(process), _) => {
                let generation = process.generation;
                match process.activity {
                    Activity::Paused(reason) => LocalVm::Paused { reason, generation },
                    Activity::Running => LocalVm::Running { generation },
                    Activity::ShuttingDown => LocalVm::ShuttingDown { generation },
                }
            }
            (None, Some(reason)) => LocalVm::Off { reason },
            (None, None) => LocalVm::Absent,
        }
    }

    fn domain(&self) -> DomainFacts {
        DomainFacts {
            defined: self.defined,
            autostart: self.autostart,
            origin: self.process.as_ref().map_or(Origin::None, |process| process.origin),
            post_copy: false,
        }
    }
}

/// Something that happens by itself when its time has come.
#[derive(Debug)]
pub(super) enum Due {
    /// A migration is as far as stopping the source, or as far as ending it.
    Switch {
        from: NodeName,
        id: Uuid,
    },
    Finish {
        from: NodeName,
        id: Uuid,
    },
    Request {
        node: NodeName,
        boot: u64,
        request: Request,
        /// The process that was there when it was asked.
        process: Option<u64>,
    },
    GuestOff {
        node: NodeName,
        process: u64,
    },
}

/// The outcome of a call at the moment it reached the hypervisor.
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
    /// The moment that everything was last settled for.
    now: Instant,
    hosts: BTreeMap<NodeName, Host>,
    due: BTreeMap<(Instant, u64), Due>,
    /// The last number given to a process or a thing due.
    pub(super) counter: u64,
    pub(super) image_locks: bool,
    pub(super) image_locked_until: Option<Instant>,
    pub(super) double_executions: Vec<DoubleExecution>,
    /// Resumes of a guest whose memory was older than its disk.
    pub(super) stale_resumes: Vec<StaleResume>,
    /// The moment when a process last stopped executing, by node.
    last_executed: BTreeMap<NodeName, Instant>,
}

impl State {
    pub(super) fn new(name: VmName, uuid: Uuid, now: Instant) -> Self {
        Self {
            name,
            uuid,
            now,
            hosts: BTreeMap::new(),
            due: BTreeMap::new(),
            counter: 0,
            image_locks: true,
            image_locked_until: None,
            double_executions: Vec::new(),
            stale_resumes: Vec::new(),
            last_executed: BTreeMap::new(),
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
                may_write: process.killed && process.ran,
                incoming: process.origin == Origin::Migrated,
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
        self.now = now;
        while let Some(entry) = self.due.first_entry() {
            let at = entry.key().0;
            if at > now {
                return;
            }
            let due = entry.remove();
            if let Some(asleep) = self.waits_for(&due) {
                self.host(&asleep).postponed.push(due);
                continue;
            }
            match due {
                Due::Switch { from, id } => self.switch(&from, id, at),
                Due::Finish { from, id } => self.finish(&from, id, at),
                Due::GuestOff { node, process } => {
                    self.guest_off(&node, Some(process));
                }
                Due::Request { node, boot, request, process } => {
                    // Nobody waits for the answer any more; what it did shows when somebody looks.
                    let host = self.host(&node);
                    // Of a guest it is asked through the monitor or the agent of the process that was there.
                    let another = matches!(request, Request::Shutdown) && host.number() != process;
                    if host.powered && host.boot == boot && !another {
                        drop(self.perform(&node, &request, at));
                    }
                }
            }
        }
    }

    /// The suspended host without which this cannot happen, if there is one.
    fn waits_for(&self, due: &Due) -> Option<NodeName> {
        let suspended = |node: &NodeName| self.hosts.get(node).is_some_and(|host| host.suspended);
        let node = match due {
            Due::Request { node, .. } | Due::GuestOff { node, .. } => node,
            Due::Switch { from, .. } | Due::Finish { from, .. } => {
                let moving = self.hosts.get(from).and_then(|host| host.moving.as_ref());
                match moving {
                    Some(moving) if suspended(&moving.to) => &moving.to,
                    _ => from,
                }
            }
        };
        suspended(node).then(|| node.clone())
    }

    pub(super) fn later(&mut self, at: Instant, due: Due) {
        self.counter += 1;
        self.due.insert((at, self.counter), due);
    }

    /// Makes a look that has reached the hypervisor of `node`, in the boot it was asked in.
    pub(super) fn look(&mut self, node: &NodeName, boot: u64) -> Reached<LocalVm> {
        self.seen(node, (boot, "look"), Host::local)
    }

    pub(super) fn domain(&mut self, node: &NodeName, boot: u64) -> Reached<DomainFacts> {
        self.seen(node, (boot, "look at the domain"), Host::domain)
    }

    fn seen<T>(
        &mut self,
        node: &NodeName,
        (boot, operation): (u64, &'static str),
        see: impl FnOnce(&Host) -> T,
    ) -> Reached<T> {
        let host = self.host(node);
        match host.reachable(boot, operation) {
            Err(error) => Reached::Answered(Err(error)),
            Ok(Some(Fault::Hangs | Fault::AnswersLost | Fault::Late(_))) => Reached::Silent,
            Ok(Some(Fault::Unreachable) | None) => Reached::Answered(Ok(see(host))),
        }
    }

    /// Does a request that has reached the hypervisor of `node`, in the boot it was asked in.
    pub(super) fn ask(&mut self, node: &NodeName, boot: u64, request: Request, now: Instant) -> Reached<()> {
        match self.host(node).reachable(boot, request.operation()) {
            Err(error) => Reached::Answered(Err(error)),
            Ok(Some(Fault::Hangs)) => Reached::Silent,
            Ok(Some(Fault::AnswersLost)) => {
                drop(self.perform(node, &request, now));
                Reached::Silent
            }
            Ok(Some(Fault::Late(by))) => {
                let process = self.host(node).number();
                self.later(now + by, Due::Request { node: node.clone(), boot, request, process });
                Reached::Silent
            }
            Ok(Some(Fault::Unreachable) | None) if self.sleeps_through(node, &request) => Reached::Silent,
            Ok(Some(Fault::Unreachable) | None) => Reached::Answered(self.perform(node, &request, now)),
        }
    }

    /// True if the request is a kill of a process that cannot be killed: it is not answered in time.
    fn sleeps_through(&mut self, node: &NodeName, request: &Request) -> bool {
        let host = self.host(node);
        matches!(request, Request::Kill) && host.unkillable && host.process.is_some()
    }

    fn perform(&mut self, node: &NodeName, request: &Request, now: Instant) -> Result<(), HypervisorError> {
        match request {
            Request::StartPaused(domain) => self.start_paused(node, domain, request, now),
            Request::Resume => self.resume(node, request, now),
            Request::Shutdown => {
                self.shutdown(node, now);
                Ok(())
            }
            Request::AskAgent { .. } => self.ask_agent(node, request),
            Request::Kill => {
                self.end(node, Ending::Destroyed);
                Ok(())
            }
            Request::Undefine => {
                self.define(node, false, false);
                Ok(())
            }
            Request::Migrate(order) => self.migrate(node, order, request, now),
            Request::AbortMigration => {
                self.abort(node, "operation aborted: migration out job: canceled by client");
                Ok(())
            }
        }
    }

    pub(super) fn last_end(&mut self, node: &NodeName) -> Option<OffReason> {
        let host = self.host(node);
        host.process.is_none().then_some(host.ended).flatten()
    }

    pub(super) fn end_before_this(&mut self, node: &NodeName) -> Option<OffReason> {
        let host = self.host(node);
        host.process.as_ref().filter(|process| !process.killed).and(host.ended)
    }

    /// Sets the definition on the disk of `node` from which the VM can be started.
    pub(super) fn define(&mut self, node: &NodeName, defined: bool, autostart: bool) {
        let host = self.host(node);
        if (host.defined, host.autostart) != (defined, autostart) {
            (host.defined, host.autostart) = (defined, autostart);
            host.changed();
        }
    }

    fn start_paused(
        &mut self,
        node: &NodeName,
        domain: &DomainSpec,
        request: &Request,
        now: Instant,
    ) -> Result<(), HypervisorError> {
        if domain.uuid != self.uuid || domain.name != self.name {
            return Err(request.refused("this hypervisor is bound to another VM"));
        }
        let locked = self.image_lock_holder(node, now);
        let host = self.host(node);
        if host.process.is_some() {
            return Err(request.refused("the domain is already running"));
        }
        (host.defined, host.autostart) = (false, false);
        if let Some(reason) = host.start_failure.clone() {
            host.ended(OffReason::Unknown);
            return Err(request.refused(&reason));
        }
        if let Some(reason) = locked {
            host.ended(OffReason::Unknown);
            return Err(HypervisorError::ImageLocked { operation: request.operation(), reason });
        }
        let made = (Activity::Paused(PauseReason::Asked), Origin::Booted);
        self.counter += 1;
        let number = self.counter;
        let host = self.host(node);
        host.process = Some(Process::new(number, domain.generation, made, now));
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
        let host = self.host(node);
        let switched = host.moving.as_ref().is_some_and(Moving::is_switched);
        let disk_gone = host.disk_gone;
        let Some(process) = &mut host.process else {
            return Err(request.refused("the domain is not running"));
        };
        if process.killed {
            return Err(request.refused("the monitor of QEMU is closed"));
        }
        if process.executing() {
            return Ok(());
        }
        if switched {
            return Err(request.refused("cannot acquire state change lock: the migration holds it"));
        }
        if disk_gone {
            process.activity = Activity::Paused(PauseReason::IoError);
            self.host(node).changed();
            return Ok(());
        }
        process.activity = Activity::Running;
        process.ran = true;
        let memory_of = process.memory_of.take();
        self.host(node).changed();
        if let Some(of) = memory_of {
            let newer = self.last_executed.iter().filter(|(_, last)| **last > of);
            let newer: Vec<_> = newer.map(|(node, last)| (node.clone(), *last)).collect();
            if !newer.is_empty() {
                self.stale_resumes.push(StaleResume { node: node.clone(), newer });
            }
        }
        self.executes_beside_others(node, now);
        Ok(())
    }

    /// Notes that a process there has just begun to execute, so that every copy that executes elsewhere is one too
    /// many.
    pub(super) fn executes_beside_others(&mut self, node: &NodeName, now: Instant) {
        let others = self.copies().into_iter().filter(|copy| copy.executing && copy.node != *node);
        let doubles: Vec<DoubleExecution> = others
            .map(|other| DoubleExecution { at: now, first: other.node, second: node.clone() })
            .collect();
        self.double_executions.extend(doubles);
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

    fn ask_agent(&mut self, node: &NodeName, request: &Request) -> Result<(), HypervisorError> {
        match &self.host(node).process {
            None => Err(request.refused("the domain is not running")),
            Some(process) if process.activity == Activity::Running => Ok(()),
            Some(_) => Err(request.refused("the guest's agent does not answer")),
        }
    }

    /// Notes that a process there has executed until now, if one does.
    pub(super) fn executed_until_now(&mut self, node: &NodeName) {
        if self.host(node).process.as_ref().is_some_and(Process::executing) {
            self.last_executed.insert(node.clone(), self.now);
        }
    }

    pub(super) fn job(&mut self, node: &NodeName) -> MigrationJob {
        self.host(node).job.clone()
    }

    pub(super) fn note_job(&mut self, node: &NodeName, job: MigrationJob) {
        let host = self.host(node);
        host.job = job;
        host.changed();
    }

    pub(super) fn process_at(&mut self, node: &NodeName, number: u64) -> Option<&mut Process> {
        let host = self.host(node);
        if !host.powered {
            return None;
        }
        host.process.as_mut().filter(|process| process.number == number && !process.killed)
    }

    /// Ends the process of `node`, if there is one and it can be ended. Returns how many were ended.
    pub(super) fn end(&mut self, node: &NodeName, ending: Ending) -> usize {
        self.executed_until_now(node);
        let host = self.host(node);
        if host.process.as_ref().is_none_or(|process| process.killed) {
            return 0;
        }
        host.ended(match ending {
            Ending::Destroyed => OffReason::Destroyed,
            Ending::Killed => OffReason::Died,
        });
        usize::from(host.process.is_none())
    }

    /// Powers the guest of `node` off by its own doing (that very process, if one is named).
    pub(super) fn guest_off(&mut self, node: &NodeName, number: Option<u64>) -> bool {
        self.executed_until_now(node);
        let host = self.host(node);
        let it = host.process.as_ref().filter(|process| number.is_none_or(|number| number == process.number));
        let executing = it.is_some_and(Process::executing);
        if executing {
            host.ended(OffReason::Shutdown);
        }
        executing
    }

    pub(super) fn disk_fails(&mut self, node: &NodeName) -> bool {
        self.executed_until_now(node);
        let host = self.host(node);
        let Some(process) = host.process.as_mut().filter(|process| process.executing()) else {
            return false;
        };
        process.activity = Activity::Paused(PauseReason::IoError);
        host.changed();
        true
    }

    /// Suspends the host: nothing runs there any more, and no time passes for what is there.
    pub(super) fn suspend(&mut self, node: &NodeName) {
        self.executed_until_now(node);
        let host = self.host(node);
        host.suspended = host.powered;
        let suspended = host.suspended;
        if let Some(process) = &mut host.process {
            process.asleep = suspended;
        }
        host.changed();
    }

    /// Wakes the host. The guest is the first to go on.
    pub(super) fn wake(&mut self, node: &NodeName, now: Instant) {
        let host = self.host(node);
        if !std::mem::replace(&mut host.suspended, false) {
            return;
        }
        if let Some(process) = &mut host.process {
            process.asleep = false;
        }
        host.changed();
        let executes = host.process.as_ref().is_some_and(Process::executing);
        for due in std::mem::take(&mut self.host(node).postponed) {
            self.later(now, due);
        }
        if executes {
            self.executes_beside_others(node, now);
        }
    }

    pub(super) fn power_loss(&mut self, node: &NodeName) {
        self.executed_until_now(node);
        let host = self.host(node);
        host.suspended = false;
        host.unkillable = false;
        let postponed = std::mem::take(&mut host.postponed);
        host.job = MigrationJob::None;
        host.powered = false;
        host.boot += 1;
        if host.process.take().is_some() {
            host.ended = None;
        }
        host.changed();
        for due in postponed {
            self.later(self.now, due);
        }
        self.due.retain(|_, due| match due {
            Due::Request { node: of, .. } | Due::GuestOff { node: of, .. } => of != node,
            // What it meets then decides what becomes of it.
            Due::Switch { .. } | Due::Finish { .. } => true,
        });
    }

    /// Boots the host. A domain that is defined to start with it runs before anything of ours does.
    pub(super) fn power_on(&mut self, node: &NodeName, now: Instant) {
        self.counter += 1;
        let number = self.counter;
        let host = self.host(node);
        host.powered = true;
        let starts = host.defined && host.autostart && host.process.is_none();
        if starts {
            // Somebody else's definition: it says no generation of ours.
            host.process = Some(Process {
                ran: true,
                ..Process::new(number, 0, (Activity::Running, Origin::Booted), now)
            });
        }
        host.changed();
        if starts {
            self.executes_beside_others(node, now);
        }
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
    /// Says whether a call from `boot` gets as far as the hypervisor, and what its fault is if so.
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

/// Half of the time that a call takes, since it happens in the middle.
pub(super) fn half_of(delays: Delays, request: Option<&Request>) -> Duration {
    match request {
        Some(Request::StartPaused(_)) => delays.start / 2,
        Some(_) | None => delays.call / 2,
    }
}
