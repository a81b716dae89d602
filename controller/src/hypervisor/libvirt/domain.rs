//! The blocking half: one function for each call, over a connection that is up. A call waits as long as libvirt does;
//! its caller has a deadline. It never touches a domain of another UUID.

mod look;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::{Domain, MigrateParameters};
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber};
use virt::sys;
use zsha_crds::VmName;
use zsha_runtime::{Clock, Moment};

use super::agent;
use super::events::{self, Bell};
use super::refusal::{Refusal, not_looked, plain};
use super::states::{self, Told};
use crate::hypervisor::GuestRan;
use crate::keeper::copies::{Copies, VmCopy};

/// The VM this hypervisor is bound to, and the facts about it that libvirt cannot tell.
#[derive(Debug)]
pub(super) struct Vm {
    pub(super) uuid: Uuid,
    name: String,
    copies: Arc<dyn Copies>,
    bell: Arc<Bell>,
    /// libvirt's own log of this domain; and whether it was said that it cannot be read.
    log: PathBuf,
    log_is_told: AtomicBool,
    /// True if its last process was ended by us: a SIGKILL looks like a crash to libvirt.
    ended_by_us: AtomicBool,
    /// The guest that was asked to shut down last.
    asked_to_shut_down: Mutex<Option<Asked>>,
}

/// The way to another node's hypervisor.
#[derive(Debug)]
pub(super) struct Way {
    /// Its libvirt.
    pub(super) uri: String,
    /// Where the guest's memory goes. Without it, it goes to whatever name the other host has for itself, which may
    /// resolve to nothing here, or to another network.
    pub(super) data: String,
    /// True if libvirt's own check of the shared storage is passed over.
    pub(super) unchecked: bool,
}

/// A guest that was asked to shut down.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// The number that libvirt gives the run.
    run: u32,
    at: Moment,
}

/// A guest that is to be off is asked again and again (`plan::shutdown::SHUTDOWN_AGAIN`). A guest that was not asked for
/// twice that time runs on: the wish that it be off has been taken back.
const STILL_ASKED: Duration = Duration::from_secs(30);

impl Asked {
    fn is_shutting_down(self, run: Option<u32>, now: Moment) -> bool {
        run == Some(self.run) && now.since(self.at) < STILL_ASKED
    }
}

/// The pause between two looks whether a killed process is gone. Its death is a matter of milliseconds, or of a device.
const DEATH_TICK: Duration = Duration::from_millis(5);
impl Vm {
    pub(super) fn new(
        uuid: Uuid,
        name: &VmName,
        copies: Arc<dyn Copies>,
        bell: Arc<Bell>,
        log: PathBuf,
    ) -> Self {
        let name = name.to_string();
        Self {
            uuid,
            name,
            copies,
            bell,
            log,
            log_is_told: AtomicBool::new(false),
            ended_by_us: AtomicBool::new(false),
            asked_to_shut_down: Mutex::default(),
        }
    }

    /// Finds the domain. None where libvirt knows no such domain; every other failure is an error.
    fn find(&self, connect: &Connect) -> Result<Option<Domain>, Error> {
        unless_gone(connect.lookup_domain_by_uuid(self.uuid))
    }

    fn find_active(&self, connect: &Connect) -> Result<Option<Domain>, Error> {
        let Some(domain) = self.find(connect)? else { return Ok(None) };
        let is_active = unless_gone(domain.is_active())?.unwrap_or(false);
        Ok(is_active.then_some(domain))
    }

    fn alive(&self) -> Result<Vec<VmCopy>, Refusal> {
        self.copies.alive().map_err(|error| not_looked(format!("cannot look for processes: {error}")))
    }

    fn has_copy(&self) -> Result<bool, Refusal> {
        Ok(!self.alive()?.is_empty())
    }

    /// Fails where a domain has our name and is not ours. It is another cluster's, or somebody's own. It is left alone,
    /// and this node cannot run the VM beside it: libvirt has room for one domain of a name.
    fn name_is_free(&self, connect: &Connect) -> Result<(), Refusal> {
        let Some(domain) = unless_gone(connect.lookup_domain_by_name(&self.name))? else { return Ok(()) };
        let uuid = domain.uuid()?;
        // Ours, defined by now.
        if uuid == self.uuid {
            return Ok(());
        }
        Err(plain(format!(
            "this node's libvirt has another domain that is called {name} (UUID {uuid}; this cluster's has {ours}). It is \
             left alone, and the VM cannot be here beside it: undefine or rename that one (`virsh domrename`), or take \
             this node out of one of the two clusters",
            name = self.name,
            ours = self.uuid,
        )))
    }

    fn asked(&self) -> MutexGuard<'_, Option<Asked>> {
        self.asked_to_shut_down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn start_paused(&self, connect: &Connect, xml: &str) -> Result<(), Refusal> {
        if self.find_active(connect)?.is_some() || self.has_copy()? {
            return Err(plain("a process of the VM is there already"));
        }
        self.name_is_free(connect)?;
        self.undefine(connect)?;
        // The event of this start may come after the end of what it makes.
        self.bell.life().forget();
        self.ended_by_us.store(false, Ordering::SeqCst);
        *self.asked() = None;
        connect.create_domain_xml(xml, sys::VIR_DOMAIN_START_PAUSED)?;
        Ok(())
    }

    pub(super) fn resume(&self, connect: &Connect) -> Result<(), Refusal> {
        let Some(domain) = self.find_active(connect)? else { return Err(plain("the domain is not running")) };
        let (state, reason) = domain.state()?;
        if states::read(state, reason) == Some(Told::Running) {
            return Ok(());
        }
        Ok(domain.resume()?)
    }

    /// Asks the agent first, as it knows the guest better; where it does not answer, the power button.
    pub(super) fn shutdown(&self, connect: &Connect) -> Result<(), Refusal> {
        let Some(domain) = self.find_active(connect)? else { return Ok(()) };
        let ways = sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT | sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN;
        match domain.shutdown_flags(ways) {
            Ok(()) => {
                *self.asked() = domain.id().map(|run| Asked { run, at: Clock::Boottime.now() });
            }
            // It was off before it could be asked.
            Err(_) if self.has_ended(connect)? => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// True if there is no guest any more that could obey. libvirt knows it later, and refuses to ask it anything until
    /// then: the process of one that has powered off still ends, or libvirt has not noticed yet that the process died.
    fn has_ended(&self, connect: &Connect) -> Result<bool, Refusal> {
        if !self.has_copy()? {
            return Ok(true);
        }
        let Some(domain) = self.find_active(connect)? else { return Ok(true) };
        let Some((state, reason)) = unless_gone(domain.state())? else { return Ok(true) };
        Ok(states::read(state, reason).is_some_and(states::has_powered_off))
    }

    pub(super) fn set_password(&self, connect: &Connect, user: &str, password: &str) -> Result<(), Refusal> {
        let Some(domain) = self.find_active(connect)? else { return Err(plain("the domain is not running")) };
        Ok(domain.set_user_password(user, password, 0)?)
    }

    pub(super) fn run_in_guest(
        &self,
        connect: &Connect,
        script: &str,
        limit: Duration,
    ) -> Result<GuestRan, Refusal> {
        let Some(domain) = self.find_active(connect)? else { return Err(plain("the domain is not running")) };
        agent::run(&domain, script, limit)
    }

    /// Sends SIGKILL to every process of the VM, without libvirt, which gives QEMU ten seconds to end by itself.
    pub(super) fn signal_copies(&self) -> Result<(), Refusal> {
        let failed = |error: std::io::Error| plain(format!("cannot kill: {error}"));
        let copies = self.copies.alive().map_err(failed)?;
        if !copies.is_empty() {
            self.ended_by_us.store(true, Ordering::SeqCst);
        }
        copies.iter().try_for_each(|copy| self.copies.kill(copy)).map_err(failed)
    }

    /// Lets libvirt put away what is left of the process, and waits until it is gone.
    pub(super) fn destroy(&self, connect: &Connect) -> Result<(), Refusal> {
        if let Some(domain) = self.find_active(connect)? {
            self.ended_by_us.store(true, Ordering::SeqCst);
            match domain.destroy() {
                Ok(()) => {}
                // It was gone before it could be destroyed.
                Err(_) if self.find_active(connect)?.is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        while self.has_copy()? {
            self.signal_copies()?;
            thread::park_timeout(DEATH_TICK);
        }
        Ok(())
    }

    /// Migrates the guest. Returns when it is over. The copy that arrives stays paused, and dies there if the source
    /// gives up.
    pub(super) fn migrate(&self, connect: &Connect, to: &Way) -> Result<(), Refusal> {
        let Some(domain) = self.find_active(connect)? else { return Err(plain("the domain is not running")) };
        let mut flags = sys::VIR_MIGRATE_LIVE
            | sys::VIR_MIGRATE_PEER2PEER
            | sys::VIR_MIGRATE_PAUSED
            | sys::VIR_MIGRATE_AUTO_CONVERGE
            | sys::VIR_MIGRATE_ABORT_ON_ERROR;
        if to.unchecked {
            flags |= sys::VIR_MIGRATE_UNSAFE;
        }
        let parameters = MigrateParameters { uri: Some(to.data.clone()), ..MigrateParameters::default() };
        domain.migrate_to_uri3(Some(&to.uri), parameters, flags)?;
        Ok(())
    }

    /// The part of the memory that has moved, while a migration goes on; None where it cannot be told.
    pub(super) fn migrated_percent(&self, connect: &Connect) -> Option<u8> {
        let info = self.find_active(connect).ok()??.job_info().ok()?;
        let (total, left) = (info.mem_total?, info.mem_remaining?);
        let done = total.saturating_sub(left).saturating_mul(100).checked_div(total)?;
        u8::try_from(done).ok()
    }

    pub(super) fn abort_migration(&self, connect: &Connect) -> Result<(), Refusal> {
        let Some(domain) = self.find_active(connect)? else { return Ok(()) };
        match events::abort_job(&domain) {
            Ok(()) => Ok(()),
            // There was none, or there is no domain any more.
            Err(error) if is(&error, ErrorNumber::OperationInvalid) || is(&error, ErrorNumber::NoDomain) => {
                Ok(())
            }
            // What died has taken its migration with it, whether or not libvirt has noticed.
            Err(_) if !self.has_copy()? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the definition. The QEMU of a domain that runs goes on as it was.
    pub(super) fn undefine(&self, connect: &Connect) -> Result<(), Refusal> {
        let Some(domain) = self.find(connect)? else { return Ok(()) };
        if !unless_gone(domain.is_persistent())?.unwrap_or(false) {
            return Ok(());
        }
        // What runs uses its firmware's variables.
        let Some(is_active) = unless_gone(domain.is_active())? else { return Ok(()) };
        let firmware =
            if is_active { sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM } else { sys::VIR_DOMAIN_UNDEFINE_NVRAM };
        // Each of these, left behind, would keep libvirt from forgetting the domain.
        let all = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            | firmware;
        unless_gone(domain.undefine_flags(all))?;
        Ok(())
    }
}

/// None where libvirt says that there is no such domain: one that is kept nowhere is forgotten with its process, and that
/// may be between any two questions.
pub(super) fn unless_gone<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is(&error, ErrorNumber::NoDomain) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn is(error: &Error, number: ErrorNumber) -> bool {
    matches!(error.code(), Enum::Known(known) if known == number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::LocalVm;
    use crate::keeper::copies::ProcCopies;

    #[test]
    fn a_daemon_that_was_begun_anew_is_asked_again_until_it_knows_that_the_process_is_gone() {
        let uuid = Uuid::new_v4();
        let bell = Arc::new(Bell::new(uuid));
        let copies = Arc::new(ProcCopies::new(uuid));
        let vm = Vm::new(uuid, &VmName::management(), copies, Arc::clone(&bell), PathBuf::new());
        let running = LocalVm::Running { generation: 1 };
        assert!(!vm.is_catching_up(running), "on an old connection an event would tell");
        bell.begin();
        assert!(vm.is_catching_up(running) && vm.is_catching_up(running), "no process of it is there");
        assert!(!vm.is_catching_up(LocalVm::Absent));
        assert!(!vm.is_catching_up(running), "it has caught up");
    }

    #[test]
    fn a_guest_is_shutting_down_for_as_long_as_it_is_asked_to() {
        let asked = Asked { run: 3, at: Moment::from_millis(1_000) };
        let after = |seconds: u64| Moment::from_millis(1_000) + Duration::from_secs(seconds);
        assert!(asked.is_shutting_down(Some(3), after(0)) && asked.is_shutting_down(Some(3), after(29)));
        assert!(!asked.is_shutting_down(Some(3), after(30)), "whoever asked has taken it back");
        assert!(!asked.is_shutting_down(Some(4), after(0)) && !asked.is_shutting_down(None, after(0)));
        assert!(STILL_ASKED > crate::plan::shutdown::SHUTDOWN_AGAIN);
    }
}
