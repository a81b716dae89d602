//! The requests to the hypervisor of a host: whether one gets there, what it does, and how it is answered. This is
//! synchronous: it never waits, and reads no clock. Never here: what happens without being asked.

use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::NodeName;

use super::host::{Activity, Host, Process};
use super::mishaps::Ending;
use super::moving::Moving;
use super::state::{Due, State};
use super::{Delays, Fault, StaleResume};
use crate::hypervisor::{
    Devices, DomainFacts, DomainSpec, HypervisorError, LocalVm, MigrationOrder, OffReason, Offer, Origin,
    PauseReason,
};
use crate::observed::Observed;

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

/// The outcome of a call at the moment it reached the hypervisor.
#[derive(Debug)]
pub(super) enum Reached<T> {
    Answered(Result<T, HypervisorError>),
    /// No answer will come.
    Silent,
}

impl State {
    /// Makes a look that has reached the hypervisor of `node`, in the boot it was asked in.
    pub(super) fn look(&mut self, node: &NodeName, boot: u64) -> Reached<LocalVm> {
        self.seen(node, (boot, "look"), Host::local)
    }

    pub(super) fn domain(&mut self, node: &NodeName, boot: u64) -> Reached<DomainFacts> {
        self.seen(node, (boot, "look at the domain"), Host::domain)
    }

    pub(super) fn offer(&mut self, node: &NodeName, boot: u64) -> Reached<Offer> {
        self.seen(node, (boot, "ask what there is to run the VM on"), |host| host.offer.clone())
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

    pub(super) fn perform(
        &mut self,
        node: &NodeName,
        request: &Request,
        now: Instant,
    ) -> Result<(), HypervisorError> {
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
        if let Some(other) = host.offer.namesake {
            return Err(
                request.refused(&format!("domain '{}' already exists with uuid {other}", domain.name))
            );
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
        let process = Process::new(number, domain.generation, made, now);
        host.process = Some(Process { devices: Observed::Known(Devices::of(domain)), ..process });
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
}

/// Half of the time that a call takes, since it happens in the middle.
pub(super) fn half_of(delays: Delays, request: Option<&Request>) -> Duration {
    match request {
        Some(Request::StartPaused(_)) => delays.start / 2,
        Some(_) | None => delays.call / 2,
    }
}
