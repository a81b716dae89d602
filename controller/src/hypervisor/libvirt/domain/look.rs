//! The look at the VM: its state, how the last process ended, how the one that is there came to be. Never here: a call
//! that changes anything.

use std::io;
use std::sync::atomic::Ordering;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;
use zsha_runtime::Clock;

use super::super::origin;
use super::super::refusal::{Refusal, plain};
use super::super::states::{self, Told};
use super::{Vm, is, unless_gone};
use crate::errors::Whose;
use crate::hypervisor::domain_xml::{self, DomainXmlError};
use crate::hypervisor::{
    Devices, DomainFacts, LocalVm, OffReason, Origin, PauseReason, devices, libvirt_log,
};
use crate::observed::Observed;

/// The number of tries for one look. A domain can come and go between its questions; more than this is not chance.
const LOOKS: u32 = 3;

impl Vm {
    pub(in super::super) fn look(&self, connect: &Connect) -> Result<LocalVm, Refusal> {
        let mut vm = LocalVm::Absent;
        for _ in 0..LOOKS {
            vm = match self.look_once(connect) {
                Err(Refusal::Libvirt(error)) if is(&error, ErrorNumber::NoDomain) => continue,
                other => other?,
            };
            // What libvirt does not know of may still hold the image.
            if vm.has_process() || !self.has_copy()? {
                // How the last one ended is known all the same, and a start asks for the name again.
                if vm == LocalVm::Absent {
                    self.name_is_free(connect)?;
                }
                return Ok(vm);
            }
        }
        let who = self.who_copies_are();
        tracing::warn!(uuid = %self.uuid, libvirt = %vm.word(), who, "a process of the VM runs that libvirt does not know");
        Ok(LocalVm::Unmanaged)
    }

    /// True if libvirt speaks of a process that is not there, on a connection on which it may not know yet. A process table
    /// that could not be read says nothing against libvirt, and is read again.
    pub(in super::super) fn is_catching_up(&self, vm: LocalVm) -> bool {
        if !self.bell.may_be_catching_up() {
            return false;
        }
        let agrees = !vm.has_process() || self.has_copy().unwrap_or(false);
        if agrees {
            self.bell.has_caught_up();
        }
        !agrees
    }

    /// Lists the processes for the log: which they are, whose, and how they are called.
    fn who_copies_are(&self) -> String {
        let copies = self.alive().unwrap_or_default();
        copies.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn look_once(&self, connect: &Connect) -> Result<LocalVm, Refusal> {
        let Some(domain) = self.find(connect)? else { return Ok(self.off(None)) };
        let (state, reason) = domain.state()?;
        let Some(told) = states::read(state, reason) else {
            // It may have ended since it was found, and been forgotten with that.
            return match self.find(connect)? {
                None => Ok(self.off(None)),
                Some(_) => {
                    Err(plain(format!("libvirt does not know the domain's state ({state:?}, {reason:?})")))
                }
            };
        };
        Ok(match told {
            Told::Off(reason) => self.off(Some(reason)),
            Told::Crashed => LocalVm::Crashed,
            Told::Paused(PauseReason::Incoming) if is_leaving(&domain)? => {
                LocalVm::Paused { reason: PauseReason::Leaving, generation: live_generation(&domain)? }
            }
            Told::Paused(reason) => LocalVm::Paused { reason, generation: live_generation(&domain)? },
            Told::ShuttingDown => LocalVm::ShuttingDown { generation: live_generation(&domain)? },
            Told::Running => {
                let generation = live_generation(&domain)?;
                let asked = *self.asked();
                let now = Clock::Boottime.now();
                match asked.is_some_and(|asked| asked.is_shutting_down(domain.id(), now)) {
                    true => LocalVm::ShuttingDown { generation },
                    false => LocalVm::Running { generation },
                }
            }
        })
    }

    /// The VM where there is no process. The end of the last one is known by the definition, where there is one that
    /// knows, by what this process was told, and by libvirt's log of what happened while it was away.
    fn off(&self, by_definition: Option<OffReason>) -> LocalVm {
        let is_known = |reason: &OffReason| *reason != OffReason::Unknown;
        let said = by_definition.filter(is_known).or(self.bell.life().told().ended);
        let told = said.filter(is_known).or_else(|| self.ended_by_log()).or(said);
        match told {
            // To libvirt a SIGKILL looks like a crash.
            Some(OffReason::Died) if self.ended_by_us.load(Ordering::SeqCst) => {
                LocalVm::Off { reason: OffReason::Destroyed }
            }
            Some(reason) => LocalVm::Off { reason },
            None => LocalVm::Absent,
        }
    }

    /// Reads the end of the last process in libvirt's log. It is asked where the VM may have been here, so a log that
    /// is not there is an error. A disk that is dead under the log takes libvirt and the guest with it: then the guest
    /// was not moved.
    pub(in super::super) fn last_end_by_log(&self) -> io::Result<Option<OffReason>> {
        match libvirt_log::last_end(&self.log, self.uuid) {
            Err(error) if Whose::is(&error) == Whose::Storage => Ok(Some(OffReason::Died)),
            read => read,
        }
    }

    fn ended_by_log(&self) -> Option<OffReason> {
        libvirt_log::last_end_or_failed_start(&self.log, self.uuid).unwrap_or_else(|error| {
            // What was never here has left no log.
            let says_nothing = error.kind() == io::ErrorKind::NotFound;
            if !says_nothing && !self.log_is_told.swap(true, Ordering::SeqCst) {
                let hint = "the node's setting libvirtLogDirectory says where it is";
                tracing::warn!(
                    log = %self.log.display(), %error, hint,
                    "libvirt's log of the VM cannot be read: how it ended while this controller was away is not known"
                );
            }
            None
        })
    }

    pub(in super::super) fn domain(&self, connect: &Connect) -> Result<DomainFacts, Refusal> {
        let mut facts = DomainFacts::new(Origin::None);
        let known = self.find(connect)?;
        if let Some(domain) = &known {
            facts.devices = unless_gone(devices_of(domain))?.unwrap_or(facts.devices);
            let state = unless_gone(domain.state())?;
            facts.post_copy = state.is_some_and(|(_, reason)| states::is_post_copy(reason));
            (facts.defined, facts.autostart) = unless_gone(kept(domain))?.unwrap_or_default();
        }
        facts.origin = self.origin(known.as_ref())?;
        Ok(facts)
    }

    /// Says how the process came to be. Where its start was told, the processes need no look.
    fn origin(&self, known: Option<&Domain>) -> Result<Origin, Refusal> {
        let life = self.bell.life();
        let active = known.filter(|domain| domain.is_active().unwrap_or(false));
        let run = active.and_then(Domain::id);
        let began = run.and_then(|run| life.began(run));
        if let Some(began) = began {
            return Ok(began);
        }
        let copies = self.alive()?;
        if copies.is_empty() {
            return Ok(Origin::None);
        }
        let state = known.and_then(|domain| domain.state().ok());
        let origin = origin::of(&copies, state, life.told().began);
        if let Some(run) = run {
            life.learn(run, origin);
        }
        Ok(origin)
    }
}

/// The generation of the definition that the running process was made from. It is zero, which no document has, where
/// somebody else made the definition: that is no reason to think the VM is not running.
fn live_generation(domain: &Domain) -> Result<u64, Refusal> {
    match domain_xml::generation(&domain.xml_desc(0)?) {
        Ok(generation) => Ok(generation),
        Err(DomainXmlError::NoGeneration) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// The devices of the process. A domain that does not run has none.
fn devices_of(domain: &Domain) -> Result<Observed<Devices>, Error> {
    if !domain.is_active()? {
        return Ok(Observed::unknown("the domain does not run"));
    }
    Ok(Observed::from_result(devices::read(&domain.xml_desc(0)?)))
}

/// Says whether there is a definition, and whether a boot starts it.
fn kept(domain: &Domain) -> Result<(bool, bool), Error> {
    Ok((domain.is_persistent()?, domain.autostart()?))
}

/// Says of a domain that is paused for a migration whether that is under way, and from here.
fn is_leaving(domain: &Domain) -> Result<bool, Refusal> {
    match domain.job_info() {
        Ok(job) => Ok(u32::try_from(job.r#type)
            .is_ok_and(|kind| [sys::VIR_DOMAIN_JOB_BOUNDED, sys::VIR_DOMAIN_JOB_UNBOUNDED].contains(&kind))),
        // So libvirt answers at the target.
        Err(error) if is(&error, ErrorNumber::OperationInvalid) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
