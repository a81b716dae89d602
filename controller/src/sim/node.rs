//! A simulated node: a machine, and the processes on it, each of which dies and is started by itself.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::freeze::{Frost, Part};
use super::gate::{Gate, GatedLease};
use crate::api::Metrics;
use crate::embedded::Machine;
use crate::keeper::{Lease, LocalLease};

/// A node's machine and the processes on it.
#[derive(Debug)]
pub struct SimNode {
    pub machine: Machine,
    gate: Arc<Gate>,
    lease: Option<Arc<LocalLease>>,
    /// The thread that enforces, and the one that renews.
    keeper: Option<[JoinHandle<()>; 2]>,
    controller: Option<JoinHandle<()>>,
    powered: bool,
    enforcing: Arc<Frost>,
    renewing: Arc<Frost>,
    controlling: Arc<Frost>,
}

impl SimNode {
    pub fn new(machine: Machine, gate: Arc<Gate>) -> Self {
        let (enforcing, renewing, controlling) = Default::default();
        let (lease, keeper, controller) = (None, None, None);
        Self { machine, gate, lease, keeper, controller, powered: true, enforcing, renewing, controlling }
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

    pub fn lose_power(&mut self) {
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
        }
    }
}
