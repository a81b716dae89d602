//! The keeper's process: puts its parts together, and knows how to leave without letting go of a living VM.
//!
//! It uses no libvirt. Threads share nothing but the deadline and what hangs on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::Context;
use rustix::mm::MlockAllFlags;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use uuid::Uuid;
use zsha_crds::records::LeaseTimings;
use zsha_crds::{ClusterName, Keys, NodeName, VmId};
use zsha_runtime::Clock;
use zsha_runtime::lease::{Identity, Memory};
use zsha_runtime::store::consul::ConsulSettings;
use zsha_runtime::store::{ConsulStore, Store};

use super::StateFile;
use super::copies::{Copies, ProcCopies};
use super::enforce::{self, Enforcement, Lines};
use super::guard::{self, GuardSettings};
use super::killing;
use super::pauses::{self, SecondClock};
use super::premises::{self, Premises};
use super::renew::{self, Apart, Looking, Notebook, RenewSettings};
use super::watchdog::{Watchdog, WatchdogState};
use crate::hypervisor::libvirt_log;
use crate::limits;
use crate::outer::Outer;

#[derive(Debug, Clone)]
pub struct KeeperSettings {
    pub cluster: ClusterName,
    pub node: NodeName,
    pub consul: ConsulSettings,
    /// The directory for all clusters of this host; see [`directory`].
    pub run_dir: PathBuf,
    /// `/etc/machine-id`
    pub machine_id: PathBuf,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot_id: PathBuf,
    /// The watchdog to arm; a node that names none has none.
    pub watchdog: Option<PathBuf>,
    /// The directory in which libvirt writes down how the VM has ended.
    pub libvirt_logs: PathBuf,
}

/// The directory in which the keeper of a cluster keeps its socket and its memory.
pub fn directory(run_dir: &Path, cluster: &ClusterName) -> PathBuf {
    run_dir.join(cluster.as_str())
}

pub fn socket_path(run_dir: &Path, cluster: &ClusterName) -> PathBuf {
    premises::socket_path(&directory(run_dir, cluster))
}

/// Runs the keeper until it is asked to stop.
pub fn run(settings: &KeeperSettings) -> anyhow::Result<()> {
    limits::take_descriptors();
    take_care_of_memory_and_time();
    keep(settings)
}

/// The same, in a process that has taken from its host what it needs.
///
/// A guard that is there is asked what it knows at the beginning, and relieved after everything that may fail: until
/// then it stands beside this keeper and obeys the same deadline. It stays if this keeper does not come to serve.
pub(super) fn keep(settings: &KeeperSettings) -> anyhow::Result<()> {
    let directory = directory(&settings.run_dir, &settings.cluster);
    let premises = Premises::claim(&directory)?;
    let identity = identity(settings)?;
    let vm = VmId::of(&settings.cluster);
    let enforcement = Arc::new(Enforcement::with_bell()?);
    let standing = guard::Standing::find(&directory);
    let handed = standing.as_ref().and_then(|standing| standing.memory.clone());
    let mut notebook = Notebook::file_or(StateFile::in_directory(&directory), handed);
    // In force before the first thread starts: a copy that may live must not die of the order of things here.
    if let Some(memory) = notebook.read()
        && memory.boot_id == identity.boot_id
    {
        enforcement.fenced_from(memory.fence.or(memory.deadline));
        enforcement.publish(memory.deadline, memory.timings.kill());
    }
    let outer = Outer::look();
    let log = libvirt_log::of(&settings.libvirt_logs, &vm.name);
    let copies = Arc::new(ProcCopies::telling(vm.uuid).by_log(log));
    let tell = start_enforcing(&enforcement, copies.silent(), second_clock(&outer))?;
    let watchdog = start_watchdog(settings, &directory, &enforcement)?;
    let store: Arc<dyn Store> = Arc::new(ConsulStore::connect(settings.consul.clone())?);
    let renewing = RenewSettings {
        identity,
        timings: LeaseTimings::BALANCED,
        clock: Clock::Boottime,
        may_be_paused: outer.may_be_paused(),
        store,
        looking: Looking::Apart(Apart::new(Arc::clone(&copies) as Arc<dyn Copies>, tell)),
        enforcement,
        notebook,
        watchdog: watchdog.clone(),
        incarnations: Box::new(Uuid::new_v4),
    };
    let guard = GuardSettings { cluster: settings.cluster.clone(), directory: directory.clone() };
    let runtime = limits::runtime(256 << 10).context("cannot start the runtime")?;
    let entrance = runtime.block_on(async { Entrance::open(premises) })?;
    // Nothing of the start can fail any more, and whoever asks this process to stop is answered by `serve`,
    // which posts another guard. Nothing has been renewed yet: until now both have obeyed one deadline.
    if let Some(standing) = standing {
        standing.relieve();
    }
    runtime.block_on(serve(renewing, entrance, &copies, vm.uuid, &guard))?;
    leave(&watchdog, copies.as_ref());
    // A thread that hangs in /proc must not keep the process.
    runtime.shutdown_background();
    Ok(())
}

/// The ways by which this process is asked: by its controller, and by signals to stop.
#[derive(Debug)]
struct Entrance {
    premises: Premises,
    listener: UnixListener,
    terminate: Signal,
    interrupt: Signal,
}

impl Entrance {
    /// Opens them. To be called inside the runtime. A signal that comes before this ends the process, one that comes
    /// later waits for [`serve`].
    fn open(mut premises: Premises) -> anyhow::Result<Self> {
        Ok(Self {
            listener: premises.bind().context("cannot listen for the controller")?,
            premises,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

/// Renews and answers until the process may leave.
async fn serve(
    settings: RenewSettings,
    entrance: Entrance,
    copies: &ProcCopies,
    uuid: Uuid,
    guard: &GuardSettings,
) -> anyhow::Result<()> {
    let Entrance { premises, listener, mut terminate, mut interrupt } = entrance;
    let (renewal, line) = renew::new(settings);
    let answering = premises::answer(premises, listener, line.clone());
    let parts = async {
        tokio::join!(renewal.run(), answering);
    };
    tokio::pin!(parts);
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(error = %error, "systemd was not told");
    }
    tracing::info!(vm = %uuid, "keeper started");
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = &mut parts => anyhow::bail!("the keeper's loop has ended"),
        }
        match may_leave(copies, guard, line.memory().as_ref()) {
            Ok(()) => return Ok(()),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the keeper stays: it cannot leave a living VM unguarded");
            }
        }
    }
}

/// Says whether the process may leave. With no copy alive no process is needed. Otherwise a guard must obey the
/// deadline until the next keeper does, and must have said that it is this very deadline.
fn may_leave(copies: &ProcCopies, guard: &GuardSettings, memory: Option<&Memory>) -> anyhow::Result<()> {
    if copies.alive().is_ok_and(|copies| copies.is_empty()) {
        tracing::info!("keeper stops; no copy of the VM is alive here");
        return Ok(());
    }
    // Also right after an upgrade, when the file of this program has been replaced.
    let process = guard::post(Path::new("/proc/self/exe"), guard, memory)?;
    tracing::warn!(guard = process, "keeper stops; the guard ends the VM unless a keeper renews in time");
    Ok(())
}

fn leave(watchdog: &Watchdog, copies: &ProcCopies) {
    let state = watchdog.state();
    if state == WatchdogState::None {
        return;
    }
    match copies.alive() {
        Ok(copies) if copies.is_empty() => {
            if let Err(error) = watchdog.disarm() {
                let hint = "start a keeper again before it resets this host";
                tracing::error!(error = %error, hint, "the watchdog cannot be disarmed");
            }
        }
        Ok(_) | Err(_) => {
            tracing::warn!(
                ?state,
                "the watchdog stays armed: start the keeper again before it resets this host"
            )
        }
    }
}

fn identity(settings: &KeeperSettings) -> anyhow::Result<Identity> {
    Ok(Identity {
        cluster: settings.cluster.clone(),
        node: settings.node.clone(),
        vm: VmId::of(&settings.cluster).name,
        key: Keys::new(&settings.cluster).lease(&settings.node),
        machine_id: machine(&word(&settings.machine_id)?),
        boot_id: word(&settings.boot_id)?,
    })
}

/// The identity of the machine. Machines cloned with their `/etc/machine-id` still differ in the firmware's own number,
/// where there is one.
fn machine(id: &str) -> String {
    match fs::read_to_string("/sys/class/dmi/id/product_uuid") {
        Ok(product) => format!("{id}/{}", product.trim()),
        Err(_) => id.to_owned(),
    }
}

/// The text of a file, which must not be empty: an empty identity would be that of every machine.
fn word(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let word = text.trim();
    anyhow::ensure!(!word.is_empty(), "{} is empty", path.display());
    Ok(word.to_owned())
}

/// Keeps what a busy or starved host could take from the keeper. The keeper needs none of it to be right, only to be in
/// time, so what is not permitted is logged and done without.
fn take_care_of_memory_and_time() {
    let locked =
        rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    let favoured = rustix::process::setpriority_process(None, -15);
    let spared = fs::write("/proc/self/oom_score_adj", "-1000");
    for (what, outcome) in [
        ("memory locked", locked.map_err(io::Error::from)),
        ("priority raised", favoured.map_err(io::Error::from)),
        ("spared when memory runs out", spared),
    ] {
        if let Err(error) = outcome {
            tracing::warn!(what, error = %error, "not permitted");
        }
    }
}

/// The clock that shows a pause from outside. It logs where such a pause may stay unseen.
fn second_clock(outer: &Outer) -> Option<SecondClock> {
    match (pauses::available(outer), outer.said()) {
        (Ok(()), _) => Some(SecondClock::default()),
        (Err(_), None) => None,
        (Err(reason), Some(host)) => {
            tracing::warn!(host, reason, "a pause of this host from outside may not be noticed");
            None
        }
    }
}

/// Starts the thread that kills, and one that logs what it says. Returns the line by which it is told of copies.
fn start_enforcing(
    enforcement: &Arc<Enforcement>,
    copies: ProcCopies,
    second: Option<SecondClock>,
) -> anyhow::Result<mpsc::Sender<Vec<super::copies::VmCopy>>> {
    let (tell, told) = mpsc::channel();
    let (reports, said) = mpsc::channel();
    let lines = Lines { told, reports };
    let (_, no_real_time) = enforce::start(Arc::clone(enforcement), copies, lines, second)
        .context("cannot start the thread that kills")?;
    if let Some(error) = no_real_time {
        tracing::warn!(what = "real-time priority", error = %error, "not permitted");
    }
    thread::Builder::new()
        .name("reports".to_owned())
        .stack_size(256 << 10)
        .spawn(move || said.iter().for_each(|report| killing::log(&report)))?;
    Ok(tell)
}

fn start_watchdog(
    settings: &KeeperSettings,
    directory: &Path,
    enforcement: &Arc<Enforcement>,
) -> anyhow::Result<Watchdog> {
    let Some(path) = &settings.watchdog else { return Ok(Watchdog::none()) };
    Watchdog::start(path.clone(), directory, Arc::clone(enforcement))
        .context("cannot start the thread of the watchdog")
}
