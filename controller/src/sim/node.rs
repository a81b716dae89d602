//! A simulated node: a machine, and the processes on it, each of which can die and be started without the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::freeze::{Frost, Part};
use super::gate::{Gate, GatedLease};
use zsha_crds::Keys;

use crate::api::Metrics;
use crate::embedded::Machine;
use crate::keeper::{Lease, LocalLease};
use crate::leave::{self, Leaving};

/// The time limit of `manifests/systemd/zsha-host.service`.
const LIMIT: Duration = Duration::from_secs(600);

/// A node's machine and the processes on it.
#[derive(Debug)]
pub struct SimNode {
    pub machine: Machine,
    gate: Arc<Gate>,
    lease: Option<Arc<LocalLease>>,
    /// The thread that enforces, and the one that renews.
    keeper: Option<[JoinHandle<()>; 2]>,
    controller: Option<JoinHandle<()>>,
    /// The task that `zsha-host` waits for while the host shuts down, and the one that takes the drain back after the
    /// boot.
    leaving: Option<JoinHandle<anyhow::Result<()>>>,
    back: Option<JoinHandle<()>>,
    shut_down_before: bool,
    powered: bool,
    enforcing: Arc<Frost>,
    renewing: Arc<Frost>,
    controlling: Arc<Frost>,
}

impl SimNode {
    pub fn new(machine: Machine, gate: Arc<Gate>) -> Self {
        let (enforcing, renewing, controlling) = Default::default();
        let (lease, keeper, controller, leaving, back) = Default::default();
        Self {
            machine,
            gate,
            lease,
            keeper,
            controller,
            leaving,
            back,
            shut_down_before: false,
            powered: true,
            enforcing,
            renewing,
            controlling,
        }
    }

    pub fn is_powered(&self) -> bool {
        self.powered
    }

    pub fn freeze(&self, part: Part, frozen: bool) {
        match part {
            Part::Controller => self.controlling.freeze(frozen),
            Part::Renewing => self.renewing.freeze(frozen),
            Part::Enforcing => self.enforcing.freeze(frozen),
        }
    }

    pub fn start_keeper(&mut self) {
        if self.powered && self.keeper.is_none() {
            let (line, enforcing, renewing) = self.machine.keeper_apart();
            self.lease = Some(Arc::new(line));
            self.keeper = Some([
                tokio::spawn(Arc::clone(&self.enforcing).over(enforcing)),
                tokio::spawn(Arc::clone(&self.renewing).over(renewing)),
            ]);
            // The controller's line broke with the old keeper; a new one is made with its restart.
            self.stop_controller();
            self.start_controller();
        }
    }

    pub fn start_controller(&mut self) {
        if let (true, None, Some(line)) = (self.powered, &self.controller, &self.lease) {
            let (node, gate) = (self.machine.name.clone(), Arc::clone(&self.gate));
            let line: Arc<dyn Lease> =
                Arc::new(GatedLease { node, inner: Arc::clone(line) as Arc<dyn Lease>, gate });
            let never = std::future::pending();
            let controller = self.machine.controller(line, None, Arc::new(Metrics::default()), never);
            self.controller = Some(tokio::spawn(Arc::clone(&self.controlling).over(controller)));
        }
    }

    pub fn stop_keeper(&mut self) {
        for thread in self.keeper.take().into_iter().flatten() {
            thread.abort();
        }
    }

    pub fn stop_controller(&mut self) {
        if let Some(task) = self.controller.take() {
            task.abort();
            self.machine.hosts.forget_job(&self.machine.name);
        }
    }

    /// Shuts the host down as systemd does it: `zsha-controller leave` first, and everything else once that has ended.
    pub fn shut_down(&mut self) {
        if let (true, None, Some(line)) = (self.powered, &self.leaving, &self.lease) {
            let leaving = Leaving {
                host: self.host(),
                cluster: self.machine.cluster.clone(),
                keys: Keys::new(&self.machine.cluster),
                clock: self.machine.clock,
                store: Arc::clone(&self.machine.store),
                lease: Arc::clone(line) as _,
                hypervisor: Some(Arc::clone(&self.machine.hypervisor)),
            };
            self.leaving = Some(tokio::spawn(async move {
                leaving.until_it_may_go_down(LIMIT).await?;
                leaving.give_up_the_lease().await;
                Ok(())
            }));
            self.shut_down_before = true;
        }
    }

    /// The result of `leave`, once it has ended.
    pub async fn has_left(&mut self) -> Option<anyhow::Result<()>> {
        let done = self.leaving.take_if(|leaving| leaving.is_finished())?;
        Some(done.await.unwrap_or_else(|error| Err(error.into())))
    }

    fn host(&self) -> leave::Host {
        leave::Host { node: self.machine.name.clone(), boot_id: self.machine.boot_id() }
    }

    pub fn lose_power(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            leaving.abort();
        }
        if let Some(back) = self.back.take() {
            back.abort();
        }
        self.stop_controller();
        self.stop_keeper();
        self.lease = None;
        self.powered = false;
        for part in [Part::Enforcing, Part::Renewing, Part::Controller] {
            self.freeze(part, false);
        }
        self.machine.lose_power();
    }

    pub fn power_on(&mut self) {
        if !self.powered {
            self.powered = true;
            self.machine.power_on();
            self.start_keeper();
            if std::mem::take(&mut self.shut_down_before) {
                let (host, store) = (self.host(), Arc::clone(&self.machine.store));
                let keys = Keys::new(&self.machine.cluster);
                self.back =
                    Some(tokio::spawn(async move { leave::back(&host, &keys, store.as_ref(), None).await }));
            }
        }
    }
}
