//! `zsha-controller dev`: three whole nodes in one process, on the embedded store and the simulated hypervisor, with
//! the real keeper loop, the real controller and the real HTTP. It is there for trying zsha without root, Consul or
//! libvirt.
//!
//! The store speaks the part of Consul's HTTP that the `zsha` command uses, so the command is the real one, too.

mod console;
mod link;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::routing::put;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use zsha_crds::{ClusterName, NodeName, PAGE_PORT, VmId};
use zsha_runtime::store::MemoryStore;
use zsha_runtime::{Clock, Store};

use crate::api::{self, Metrics, OwnNames, Snapshot, Window, consul_subset};
use crate::embedded::Machine;
use crate::hypervisor::simulated::SimulatedHosts;
use crate::keeper::{Lease, LocalLease};
use console::Command;
use link::Link;

/// The name of the cluster in `manifests/examples/cluster.yaml`.
const CLUSTER: &str = "zsha";
const NODES: [&str; 3] = ["nfs-1", "nfs-2", "nfs-3"];

#[derive(Debug, Clone, clap::Args)]
pub struct DevSettings {
    /// The store listens on this port, the page of node N on this port plus N, all on loopback
    #[arg(long, value_name = "PORT", default_value_t = PAGE_PORT, value_parser = clap::value_parser!(u16).range(1024..=65_500))]
    pub port: u16,
}

/// Runs until Ctrl-C, `quit`, or an error of the listeners.
pub fn run(settings: &DevSettings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: &DevSettings) -> anyhow::Result<()> {
    let store = MemoryStore::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.port));
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: is another `dev` running? Try --port"))?;
    let lab = Arc::new(Mutex::new(Lab::new(store.clone(), settings.port)?));
    lab.lock().await.start_all().await?;
    // PUT, so that no page of another site can send it unasked.
    let routes = consul_subset::router(Arc::new(store))
        .merge(Router::new().route("/dev", put(by_http)).with_state(Arc::clone(&lab)));
    console::welcome(settings.port);
    let serving = axum::serve(listener, routes);
    tokio::select! {
        biased;
        result = tokio::signal::ctrl_c() => result.context("cannot wait for Ctrl-C"),
        () = console::read(Arc::clone(&lab)) => Ok(()),
        result = async { serving.await } => result.context("the store's listener ended"),
    }
}

/// `curl -X PUT -d 'power-off nfs-1' http://127.0.0.1:7717/dev`
async fn by_http(
    State(lab): State<Arc<Mutex<Lab>>>,
    line: String,
) -> Result<String, (axum::http::StatusCode, String)> {
    let refused = |why: String| (axum::http::StatusCode::BAD_REQUEST, format!("{why}\n"));
    let command: Command = line.parse().map_err(refused)?;
    let done = lab.lock().await.obey(&command).await.map_err(|error| refused(error.to_string()))?;
    Ok(format!("{done}\n"))
}

/// The three nodes, and what may be done to them.
pub(crate) struct Lab {
    nodes: BTreeMap<NodeName, DevNode>,
    hosts: Arc<SimulatedHosts>,
}

struct DevNode {
    machine: Machine,
    link: Arc<Link>,
    port: u16,
    lease: Option<Arc<LocalLease>>,
    keeper: Option<JoinHandle<()>>,
    controller: Option<JoinHandle<()>>,
    page: Option<JoinHandle<()>>,
}

impl Lab {
    fn new(store: MemoryStore, port: u16) -> anyhow::Result<Self> {
        let cluster = ClusterName::new(CLUSTER)?;
        let hosts = SimulatedHosts::new(VmId::of(&cluster));
        let mut nodes = BTreeMap::new();
        for (number, name) in (1u16..).zip(NODES) {
            let name = NodeName::new(name)?;
            let link = Arc::new(Link::new(store.clone()));
            let machine = Machine::new(
                cluster.clone(),
                name.clone(),
                Clock::Boottime,
                Arc::clone(&link) as Arc<dyn Store>,
                Arc::clone(&hosts),
            )
            .seeded(u64::from(number));
            let node = DevNode {
                machine,
                link,
                port: port + number,
                lease: None,
                keeper: None,
                controller: None,
                page: None,
            };
            nodes.insert(name, node);
        }
        tokio::spawn({
            let hosts = Arc::clone(&hosts);
            async move { hosts.run().await }
        });
        Ok(Self { nodes, hosts })
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        for node in self.nodes.values_mut() {
            node.power_on().await?;
        }
        Ok(())
    }

    /// Does it, and says what was done.
    pub(crate) async fn obey(&mut self, command: &Command) -> anyhow::Result<String> {
        let names = self.nodes.keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let known = |name: &str| {
            NodeName::new(name).ok().with_context(|| format!("'{name}' is not a node; the nodes are {names}"))
        };
        let node = match command.node() {
            Some(name) => Some(known(name)?),
            None => None,
        };
        let node = match node {
            Some(name) => match self.nodes.get_mut(&name) {
                Some(node) => Some(node),
                None => anyhow::bail!("'{name}' is not a node; the nodes are {names}"),
            },
            None => None,
        };
        Ok(match (command, node) {
            (Command::PowerOff(name), Some(node)) => {
                node.lose_power();
                format!("{name} has lost its power; the others wait until its lease is surely over")
            }
            (Command::PowerOn(name), Some(node)) => {
                node.power_on().await?;
                format!("{name} boots")
            }
            (Command::Cut(name), Some(node)) => {
                node.link.cut(true);
                format!("{name} is cut off from the store; its keeper stops the VM in time if it has it")
            }
            (Command::Mend(name), Some(node)) => {
                node.link.cut(false);
                format!("{name} reaches the store again")
            }
            (Command::StopController(name), Some(node)) => {
                node.stop_controller();
                format!(
                    "the controller of {name} is dead; its keeper goes on, and so does the VM if it is there"
                )
            }
            (Command::StartController(name), Some(node)) => {
                node.start_controller().await?;
                format!("the controller of {name} is started")
            }
            (Command::KillQemu, _) => self.to_the_vm(SimulatedHosts::qemu_dies, "QEMU is killed"),
            (Command::GuestPowerOff, _) => {
                self.to_the_vm(SimulatedHosts::guest_powers_off, "the guest powers itself off")
            }
            (Command::Help, _) => console::HELP.to_owned(),
            (_, None) => anyhow::bail!("which node? The nodes are {names}"),
        })
    }

    fn to_the_vm(&self, act: impl Fn(&SimulatedHosts, &NodeName) -> bool, done: &str) -> String {
        match self.nodes.keys().find(|node| act(&self.hosts, node)) {
            Some(node) => format!("{done} on {node}"),
            None => "the VM runs nowhere just now".to_owned(),
        }
    }
}

impl DevNode {
    async fn power_on(&mut self) -> anyhow::Result<()> {
        if self.keeper.is_none() {
            self.machine.power_on();
            let (lease, keeper) = self.machine.keeper();
            self.lease = Some(Arc::new(lease));
            self.keeper = Some(tokio::spawn(keeper));
        }
        self.start_controller().await
    }

    async fn start_controller(&mut self) -> anyhow::Result<()> {
        let (Some(lease), None) = (&self.lease, &self.controller) else { return Ok(()) };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}: try --port"))?;
        let (feed, snapshots) = watch::channel(Arc::new(Snapshot::default()));
        let metrics = Arc::new(Metrics::default());
        let window = Window {
            feed: snapshots,
            metrics: Arc::clone(&metrics),
            clock: self.machine.clock,
            own_names: OwnNames::default(),
        };
        let lease = Arc::clone(lease) as Arc<dyn Lease>;
        let controller = self.machine.controller(lease, Some(feed), metrics, std::future::pending());
        self.controller = Some(tokio::spawn(controller));
        self.page = Some(tokio::spawn(async move {
            if let Err(error) = api::serve(listener, window, std::future::pending()).await {
                tracing::error!(%error, "the page is not served any more");
            }
        }));
        Ok(())
    }

    fn stop_controller(&mut self) {
        for task in [self.controller.take(), self.page.take()].into_iter().flatten() {
            task.abort();
        }
    }

    fn lose_power(&mut self) {
        self.stop_controller();
        if let Some(keeper) = self.keeper.take() {
            keeper.abort();
        }
        self.lease = None;
        self.machine.lose_power();
    }
}
