//! `zsha-controller run`: one node's controller on the real edges. It puts them together and decides nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use zsha_crds::{EventReason, Keys, VmId};
use zsha_runtime::Clock;
use zsha_runtime::events::{self, Recorder};
use zsha_runtime::store::ConsulStore;

use crate::act::Edges;
use crate::api::{Metrics, OwnNames, Snapshot, Window};
use crate::host::LinuxHost;
use crate::hypervisor::Hypervisor;
use crate::keeper::copies::{Copies, ProcCopies};
use crate::keeper::{SocketLease, StateFile, second_net};
use crate::outer::Outer;
use crate::reconcile::{self, Node};
use crate::settings::Settings;
use crate::status::Build;
use crate::{leave, limits, page};

/// How old a count of requests may be.
const COUNTED_EVERY: Duration = Duration::from_secs(1);

/// The time after which a controller that is told to end stops waiting for a call that may hang in libvirt. While it is
/// stopped, a restart of the keeper may wait for it, and a keeper has to be back before its lease is over (6 s with
/// `Fast`).
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// An agent that does not answer is asked again after this.
const AGENT_ASKED_EVERY: Duration = Duration::from_secs(10);

/// The stack of a thread that looks up a name or opens a file.
const THREAD_STACK: usize = 2 << 20;

/// Runs until SIGTERM or Ctrl-C. The VM is left as it is.
pub fn run(settings: &Settings, commit: Option<&'static str>) -> anyhow::Result<()> {
    limits::take_descriptors();
    let runtime = limits::runtime(THREAD_STACK)?;
    let done = runtime.block_on(serve(settings, commit));
    // A call to libvirt or a look at a share may hang for ever; nobody waits for it.
    runtime.shutdown_background();
    done
}

async fn serve(settings: &Settings, commit: Option<&'static str>) -> anyhow::Result<()> {
    let clock = Clock::Boottime;
    let seed = u64::from(std::process::id());
    let keys = Keys::new(&settings.cluster);
    let host = leave::Host::of(settings)?;
    let store = Arc::new(ConsulStore::connect(settings.consul.for_store()?)?);
    let config = events::Config { seed, ..events::Config::default() };
    let (recorder, recording) =
        Recorder::new(Arc::clone(&store) as _, &keys, settings.node.clone(), clock, config);
    let metrics = Arc::new(Metrics::of_build(commit));
    let (feed, snapshots) = watch::channel(Arc::new(Snapshot::default()));
    let lease = Arc::new(SocketLease::new(settings.keeper_socket()));
    let copies = Arc::new(ProcCopies::telling(VmId::of(&settings.cluster).uuid));
    let node = Node {
        cluster: settings.cluster.clone(),
        edges: edges(settings, Arc::clone(&store), Arc::clone(&lease), &copies)?,
        recorder: recorder.clone(),
        metrics: Arc::clone(&metrics),
        build: build(commit),
        seed,
        feed: Some(feed),
    };
    let window = Window {
        feed: snapshots,
        metrics: Arc::clone(&metrics),
        clock,
        own_names: OwnNames::new([settings.node.to_string()]),
    };
    let (stop, stopped) = watch::channel(false);
    tracing::info!(cluster = %settings.cluster, node = %settings.node, listen = %settings.listen, "controller started");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let signalled = signalled()?;
    let signals = async {
        signalled.await;
        stop.send_replace(true);
    };
    let lease_key = keys.lease(&settings.node);
    let own_lease = second_net::OwnLease { store: store.as_ref(), key: &lease_key, boot_id: &host.boot_id };
    let beside = async {
        tokio::join!(
            count_requests(Arc::clone(&store), metrics),
            check_consul(Arc::clone(&store), recorder.clone()),
            second_net(settings.keeper_directory(), lease, own_lease, copies, clock),
            leave::back(&host, &keys, store.as_ref(), Some(leave::host_goes_on)),
        );
    };
    let all = async {
        tokio::join!(
            signals,
            async {
                tokio::join!(reconcile::run(node, until(stopped.clone())), recording.run());
            },
            page::keep(settings.listen, window, recorder.clone(), stopped.clone()),
            async {
                tokio::select! {
                    biased;
                    () = until(stopped.clone()) => {}
                    () = beside => {}
                }
            },
        );
    };
    Box::pin(ended(all, stopped.clone())).await;
    Ok(())
}

/// Everything outside of this process, as a pass reaches it.
fn edges(
    settings: &Settings,
    store: Arc<ConsulStore>,
    lease: Arc<SocketLease>,
    copies: &Arc<ProcCopies>,
) -> anyhow::Result<Edges> {
    Ok(Edges {
        me: settings.node.clone(),
        keys: Keys::new(&settings.cluster),
        clock: Clock::Boottime,
        store,
        hypervisor: hypervisor(settings, Arc::new(copies.patient()))?,
        host: Arc::new(LinuxHost::new(settings.seed()).of_vm(Arc::clone(copies) as _)),
        lease,
    })
}

/// Runs the controller until it is told to stop and what was under way has ended, or that has taken too long.
async fn ended(all: impl Future<Output = ()>, stopped: watch::Receiver<bool>) {
    tokio::select! {
        () = all => {}
        () = overdue(stopped) => {
            tracing::warn!("what was under way has not ended within {} s and is left as it is", STOP_WITHIN.as_secs());
        }
    }
    tracing::info!("controller stopped; the VM is left as it is");
}

fn build(commit: Option<&str>) -> Build {
    Build {
        virtual_host: Outer::look().said(),
        ..Build::this(format!("{} ({})", env!("CARGO_PKG_VERSION"), commit.unwrap_or("unknown")))
    }
}

/// Heard from when this returns; ends with the first SIGTERM or Ctrl-C.
fn signalled() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Waits until everything that was told to end should have ended.
async fn overdue(stopped: watch::Receiver<bool>) {
    until(stopped).await;
    tokio::time::sleep(STOP_WITHIN).await;
}

#[cfg(feature = "libvirt")]
pub(crate) fn hypervisor(
    settings: &Settings,
    copies: Arc<dyn Copies>,
) -> anyhow::Result<Arc<dyn Hypervisor>> {
    use crate::hypervisor::domain_xml;
    use crate::hypervisor::libvirt::{LibvirtHypervisor, LibvirtSettings, MigrationWay};
    use crate::settings::DomainType;

    let mut libvirt = LibvirtSettings::new(settings.libvirt.clone(), settings.cluster.clone());
    libvirt.seed = Some(settings.seed());
    libvirt.ceph = settings.ceph.clone();
    libvirt.logs = settings.libvirt_logs.clone();
    libvirt.migration =
        MigrationWay { uri: settings.migration_uri.clone(), unchecked: settings.unsafe_migration };
    libvirt.domain_type = match settings.domain_type {
        DomainType::Kvm => Some(domain_xml::DomainType::Kvm),
        DomainType::Qemu => Some(domain_xml::DomainType::Qemu),
        DomainType::Auto => None,
    };
    Ok(Arc::new(LibvirtHypervisor::new(libvirt, VmId::of(&settings.cluster), copies)?))
}

#[cfg(not(feature = "libvirt"))]
pub(crate) fn hypervisor(_: &Settings, _: Arc<dyn Copies>) -> anyhow::Result<Arc<dyn Hypervisor>> {
    anyhow::bail!(
        "this build has no libvirt in it, so it can only run `dev`: build with the feature 'libvirt'"
    )
}

/// The store counts its requests; the metrics repeat them.
async fn count_requests(store: Arc<ConsulStore>, metrics: Arc<Metrics>) {
    loop {
        let requests = store.requests();
        metrics.set_store_requests("read", requests.reads);
        metrics.set_store_requests("watch", requests.watches);
        metrics.set_store_requests("transaction", requests.transactions);
        metrics.set_store_requests("other", requests.others);
        tokio::time::sleep(COUNTED_EVERY).await;
    }
}

/// The controller's own enforcement; never ends.
async fn second_net(
    directory: PathBuf,
    lease: Arc<SocketLease>,
    own: second_net::OwnLease<'_>,
    copies: Arc<ProcCopies>,
    clock: Clock,
) {
    let file = StateFile::in_directory(&directory);
    match second_net::watch(&file, lease.as_ref(), own, copies.as_ref(), clock).await {}
}

/// Says so once where the agent's settings make an election outlast a lease of the usual profiles.
async fn check_consul(store: Arc<ConsulStore>, recorder: Recorder) {
    let agent = loop {
        match store.agent().await {
            Ok(agent) => break agent,
            Err(error) => tracing::debug!(%error, "Consul's agent does not say how it is set"),
        }
        tokio::time::sleep(AGENT_ASKED_EVERY).await;
    };
    if let Some(multiplier) = agent.raft_multiplier.filter(|multiplier| *multiplier > 1) {
        let message = format!(
            "Consul's agent {} runs with raft_multiplier {multiplier}: a change of its leader takes {} s or more, and a \
             lease that is shorter ends a healthy VM. Set `performance.raft_multiplier` to 1, or the profile `Patient`",
            agent.node,
            multiplier * 12 / 5
        );
        tracing::warn!(message);
        recorder.publish(events::Event::new(EventReason::ConsulElectionSlow, "store/consul", message));
    }
}
