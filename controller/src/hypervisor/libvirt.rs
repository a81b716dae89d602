//! The real hypervisor: libvirt's daemon on this node, over the `virt` binding.
//!
//! Nothing here polls. The daemon tells of the domain and of the connection, and [`Hypervisor::changes`] moves; a
//! connection that is lost is made again, for ever. Every call that may block does so on a thread of its own and costs
//! its caller no more than its deadline. Nothing here decides whether the VM may run.

mod agent;
mod domain;
mod events;
mod job;
mod life;
mod link;
mod origin;
mod probe;
mod refusal;
mod states;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{OnceCell, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use virt::connect::Connect;
use zsha_crds::{ClusterName, VmId, VmName};

use self::domain::Vm;
use self::events::Bell;
use self::job::Job;
use self::link::{Link, Session};
use self::refusal::{Refusal, is_image_lock, one_line};
use self::worker::{NoAnswer, Workers, on_own_thread};
use super::domain_xml::{self, CephLogin, DomainSettings, DomainType};
use super::{
    DomainFacts, DomainSpec, GuestRan, Hypervisor, HypervisorError, LocalVm, MigrationJob, MigrationOrder,
    OffReason, Offer,
};
use crate::hypervisor::libvirt_log;
use crate::keeper::copies::Copies;
use crate::one_thread::OneThread;
use crate::settings::{DEFAULT_LIBVIRT_LOGS, DEFAULT_MIGRATION_URI};

/// The time for a look, which takes milliseconds where all is well. It is within the time a lease holds, so that a hang
/// is seen while there is a choice.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);
/// The pause before another look where libvirt speaks of a process that is gone: a daemon that was begun anew finds that out
/// within milliseconds, but on a host that is busy.
const CATCHING_UP: Duration = Duration::from_millis(500);
/// The time for a file on a disk of the host: one that hangs must not keep a pass.
const LOG_DEADLINE: Duration = Duration::from_millis(500);
/// The time for a change: it writes a file or resumes a process, as fast as a look, but it is worth a longer wait than
/// doing it again.
const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// The time for a start: QEMU opens its image on a share that may be slow.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// The time for a request to shut down. libvirt gives up an agent that hangs after five seconds; then comes the power
/// button.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(15);
/// The time for an agent. libvirt gives up an agent that does not answer after five seconds; one that does sets a
/// password in one.
const AGENT_DEADLINE: Duration = Duration::from_secs(8);
/// The time for a script in the guest that sets an address: a guest that boots is busy.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(30);
/// The time after SIGKILL: a process that is not gone by then waits for a device.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// The daemon to use, and what this node adds to the domain.
#[derive(Debug, Clone)]
pub struct LibvirtSettings {
    pub uri: String,
    pub cluster: ClusterName,
    /// None: it is found by probing, see [`LibvirtHypervisor::probe_domain_type`].
    pub domain_type: Option<DomainType>,
    pub machine: String,
    /// The path of the guest's seed disk; the same on every node, or the VM cannot be moved live.
    pub seed: Option<PathBuf>,
    pub ceph: Option<CephLogin>,
    pub migration: MigrationWay,
    /// The directory in which that daemon writes what became of each domain, one file for each.
    pub logs: PathBuf,
}

/// The way of guests from this node's libvirt to another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationWay {
    /// The other libvirt, as this one reaches it; `{address}` stands for the node's.
    pub uri: String,
    /// True if libvirt's own check of the shared storage is passed over. The lab's storage is a directory, which
    /// libvirt takes for a local one.
    pub unchecked: bool,
}

impl Default for MigrationWay {
    fn default() -> Self {
        Self { uri: DEFAULT_MIGRATION_URI.to_owned(), unchecked: false }
    }
}

/// The time for which what a host has is not asked for again: it seldom changes, and every pass wants it.
const OFFER_HOLDS: Duration = Duration::from_secs(10);

impl LibvirtSettings {
    pub fn new(uri: impl Into<String>, cluster: ClusterName) -> Self {
        Self {
            uri: uri.into(),
            cluster,
            domain_type: None,
            machine: "q35".to_owned(),
            seed: None,
            ceph: None,
            migration: MigrationWay::default(),
            logs: DEFAULT_LIBVIRT_LOGS.into(),
        }
    }
}

/// One VM, through the libvirt of this node.
pub struct LibvirtHypervisor {
    settings: LibvirtSettings,
    name: VmName,
    vm: Arc<Vm>,
    bell: Arc<Bell>,
    link: watch::Receiver<Link>,
    link_task: AbortHandle,
    workers: Workers,
    /// The thread for calls that ask the kernel alone: they do not wait behind a call that hangs.
    killers: Workers,
    /// The thread for questions to the guest's agent.
    agents: Workers,
    at_log: OneThread,
    domain_type: OnceCell<DomainType>,
    /// The last answer to [`Hypervisor::offer`], and when it was asked for.
    offer: Mutex<Option<(Instant, Offer)>>,
    job: Job,
}

impl LibvirtHypervisor {
    /// Begins to connect and returns at once; until there is a connection, calls wait or fail. `copies` sees the VM's
    /// processes on this node as the kernel does. Call it inside a tokio runtime.
    pub fn new(
        settings: LibvirtSettings,
        VmId { name, uuid }: VmId,
        copies: Arc<dyn Copies>,
    ) -> Result<Self, HypervisorError> {
        events::start_loop()
            .map_err(|reason| HypervisorError::Unreachable { operation: "connect", reason })?;
        let bell = Arc::new(Bell::new(uuid));
        let (link, state) = watch::channel(Link::Opening);
        let task = tokio::spawn(link::keep(settings.uri.clone(), Arc::clone(&bell), link));
        let log = libvirt_log::of(&settings.logs, &name);
        Ok(Self {
            domain_type: OnceCell::new_with(settings.domain_type),
            settings,
            vm: Arc::new(Vm::new(uuid, &name, copies, Arc::clone(&bell), log)),
            name,
            bell,
            link: state,
            link_task: task.abort_handle(),
            workers: Workers::new(),
            killers: Workers::new(),
            agents: Workers::new(),
            at_log: OneThread::default(),
            offer: Mutex::default(),
            job: Job::default(),
        })
    }

    /// Says whether KVM is used: as the settings say, else as was found when first asked.
    pub async fn probe_domain_type(&self) -> Result<DomainType, HypervisorError> {
        let probe = || {
            self.call("probe for KVM", CHANGE_DEADLINE, |_, connect| {
                probe::domain_type(&connect.capabilities()?)
            })
        };
        self.domain_type.get_or_try_init(probe).await.copied()
    }

    /// Gives the connection. It waits only while the first one is being made.
    async fn session(
        &self,
        operation: &'static str,
        wait: Duration,
    ) -> Result<Arc<Session>, HypervisorError> {
        let unreachable =
            |reason: &str| HypervisorError::Unreachable { operation, reason: reason.to_owned() };
        let mut link = self.link.clone();
        let tried = link.wait_for(|link| !matches!(link, Link::Opening));
        let link = match tokio::time::timeout(wait, tried).await {
            Ok(Ok(link)) => link.clone(),
            Ok(Err(_)) => return Err(unreachable("the connection is not kept any more")),
            Err(_) => Link::Opening,
        };
        match link {
            Link::Up(session) => Ok(session),
            Link::Down { reason } => Err(unreachable(&reason)),
            Link::Opening => Err(unreachable("not connected yet")),
        }
    }

    /// Asks the agent by a thread and a connection of its own: an agent that takes the command and hangs holds up no
    /// look.
    async fn ask_agent<T: Send + 'static>(
        &self,
        operation: &'static str,
        deadline: Duration,
        ask: impl FnOnce(&Vm, &Connect) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.session(operation, AGENT_DEADLINE).await?;
        let (vm, here, begun) = (Arc::clone(&self.vm), self.settings.uri.clone(), Instant::now());
        let answer = self.agents.run(deadline, move || {
            let connect = link::connect_to(&here)?;
            if begun.elapsed() >= deadline {
                // Nobody waits for it any more, and it may be another guest by now.
                return Err(Refusal::Plain("the hypervisor answered too late".to_owned()));
            }
            ask(&vm, &connect)
        });
        let answer = answer.await.map_err(|why| no_answer(operation, deadline, why))?;
        answer.map_err(|refusal| explained(operation, refusal, true))
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        deadline: Duration,
        ask: impl FnOnce(&Vm, &Connect) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let began = Instant::now();
        let session = self.session(operation, deadline).await?;
        let vm = Arc::clone(&self.vm);
        let answer = self.workers.run(deadline.saturating_sub(began.elapsed()), move || {
            let connect = session.connect().ok_or_else(|| unreachable(operation, "disconnected"))?;
            // Whether it is the connection that failed is asked at once: a moment later there may be another.
            ask(&vm, connect).map_err(|refusal| explained(operation, refusal, session.is_alive()))
        });
        answer.await.map_err(|why| no_answer(operation, deadline, why))?
    }
}

impl Drop for LibvirtHypervisor {
    fn drop(&mut self) {
        self.link_task.abort();
    }
}

impl fmt::Debug for LibvirtHypervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LibvirtHypervisor")
            .field("uri", &self.settings.uri)
            .field("name", &self.name)
            .field("uuid", &self.vm.uuid)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    async fn look(&self) -> Result<LocalVm, HypervisorError> {
        let going = matches!(self.job.state(), MigrationJob::Going { .. });
        let look = self.call("look", LOOK_DEADLINE, move |vm, connect| {
            let local = vm.look(connect)?;
            Ok((local, vm.is_catching_up(local), going.then(|| vm.migrated_percent(connect)).flatten()))
        });
        let (local, is_catching_up, percent) = look.await?;
        if is_catching_up {
            let bell = Arc::clone(&self.bell);
            tokio::spawn(async move {
                tokio::time::sleep(CATCHING_UP).await;
                bell.ring();
            });
        }
        self.job.progressed(percent);
        Ok(local)
    }

    async fn domain(&self) -> Result<DomainFacts, HypervisorError> {
        self.call("look at the domain", LOOK_DEADLINE, Vm::domain).await
    }

    async fn offer(&self) -> Result<Offer, HypervisorError> {
        let last = self.offer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, offer)) = last.filter(|(asked, _)| asked.elapsed() < OFFER_HOLDS) {
            return Ok(offer);
        }
        let (domain_type, machine) = (self.probe_domain_type().await?, self.settings.machine.clone());
        let name = self.name.clone();
        let asked = Instant::now();
        let offer = self.call("ask what there is to run the VM on", LOOK_DEADLINE, move |vm, connect| {
            probe::offer(connect, domain_type, &machine, (&name, vm.uuid))
        });
        let offer = offer.await?;
        *self.offer.lock().unwrap_or_else(PoisonError::into_inner) = Some((asked, offer.clone()));
        Ok(offer)
    }

    async fn start_paused(&self, domain: &DomainSpec) -> Result<(), HypervisorError> {
        let refused = |reason: String| HypervisorError::Refused { operation: "start", reason };
        if domain.uuid != self.vm.uuid || domain.name != self.name {
            return Err(refused("this hypervisor is bound to another VM".to_owned()));
        }
        let settings = DomainSettings {
            cluster: self.settings.cluster.clone(),
            domain_type: self.probe_domain_type().await?,
            machine: self.settings.machine.clone(),
            seed: self.settings.seed.clone(),
            ceph: self.settings.ceph.clone(),
        };
        let xml = domain_xml::write(domain, &settings).map_err(|error| refused(error.to_string()))?;
        self.call("start", START_DEADLINE, move |vm, connect| vm.start_paused(connect, &xml)).await
    }

    async fn resume(&self) -> Result<(), HypervisorError> {
        self.call("resume", CHANGE_DEADLINE, Vm::resume).await
    }

    async fn shutdown(&self) -> Result<(), HypervisorError> {
        self.call("shut down", SHUTDOWN_DEADLINE, Vm::shutdown).await
    }

    async fn set_password(&self, user: &str, password: &str) -> Result<(), HypervisorError> {
        let (user, password) = (user.to_owned(), password.to_owned());
        let asking = move |vm: &Vm, connect: &Connect| vm.set_password(connect, &user, &password);
        self.ask_agent("set the password", AGENT_DEADLINE, asking).await
    }

    async fn run_in_guest(&self, script: &str) -> Result<GuestRan, HypervisorError> {
        let script = script.to_owned();
        let asking = move |vm: &Vm, connect: &Connect| vm.run_in_guest(connect, &script, SCRIPT_DEADLINE);
        self.ask_agent("run in the guest", SCRIPT_DEADLINE + AGENT_DEADLINE, asking).await
    }

    async fn kill(&self) -> Result<(), HypervisorError> {
        // First without libvirt, so that the process dies also where libvirt hangs or is gone.
        let vm = Arc::clone(&self.vm);
        let signalled = self.killers.run(KILL_DEADLINE, move || vm.signal_copies()).await;
        signalled
            .map_err(|why| no_answer("kill", KILL_DEADLINE, why))?
            .map_err(|refusal| explained("kill", refusal, true))?;
        self.call("kill", KILL_DEADLINE, Vm::destroy).await
    }

    async fn migrate(&self, order: &MigrationOrder) -> Result<(), HypervisorError> {
        self.session("migrate", CHANGE_DEADLINE).await?;
        let way = &self.settings.migration;
        let to = domain::Way {
            uri: way.uri.replace("{address}", &order.address.to_string()),
            data: format!("tcp://{}", order.address),
            unchecked: way.unchecked,
        };
        let (vm, job) = (Arc::clone(&self.vm), self.job.begin(order.id, &self.bell));
        let here = self.settings.uri.clone();
        // It takes as long as it takes: its end is told by the job, and nobody waits on the thread. With a connection of
        // its own: the looks meanwhile must not meet it on theirs (see `worker`).
        let begun = on_own_thread("zsha-migrate", move || {
            let moved = link::connect_to(&here).and_then(|connect| vm.migrate(&connect, &to));
            job.over(moved.map_err(|refusal| explained("migrate", refusal, true).to_string()));
        });
        begun.map(drop).map_err(|error| unreachable("migrate", format!("no thread for it: {error}")))
    }

    async fn abort_migration(&self) -> Result<(), HypervisorError> {
        self.call("abort the migration", CHANGE_DEADLINE, Vm::abort_migration).await
    }

    fn migration(&self) -> MigrationJob {
        self.job.state()
    }

    async fn undefine(&self) -> Result<(), HypervisorError> {
        self.call("undefine", CHANGE_DEADLINE, Vm::undefine).await
    }

    async fn last_end(&self) -> Result<Option<OffReason>, HypervisorError> {
        let vm = Arc::clone(&self.vm);
        let read = self.at_log.run(LOG_DEADLINE, move || vm.last_end_by_log()).await;
        let refused = |reason: String| HypervisorError::Refused { operation: "read libvirt's log", reason };
        read.map_err(refused)?.map_err(|error| refused(error.to_string()))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.bell.changes()
    }
}

fn unreachable(operation: &'static str, reason: impl Into<String>) -> HypervisorError {
    HypervisorError::Unreachable { operation, reason: reason.into() }
}

fn no_answer(operation: &'static str, deadline: Duration, why: NoAnswer) -> HypervisorError {
    match why {
        NoAnswer::Stuck => unreachable(operation, "the call before this one hangs"),
        NoAnswer::NoThread => unreachable(operation, "no thread could be made for the call"),
        NoAnswer::Late | NoAnswer::Died => {
            HypervisorError::Unanswered { operation, waited_secs: deadline.as_secs() }
        }
    }
}

fn explained(operation: &'static str, refusal: Refusal, connected: bool) -> HypervisorError {
    let reason = match refusal {
        Refusal::Libvirt(error) if connected && is_image_lock(error.message()) => {
            return HypervisorError::ImageLocked { operation, reason: one_line(error.message()) };
        }
        Refusal::Libvirt(error) => one_line(error.message()),
        Refusal::Plain(reason) => reason,
        // It costs a start nothing: see `Refused`.
        Refusal::NotLooked(reason) => return unreachable(operation, reason),
    };
    if connected {
        HypervisorError::Refused { operation, reason }
    } else {
        HypervisorError::Unreachable { operation, reason }
    }
}
