//! Does each fault to the simulated cluster.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use zsha_crds::NodeName;

use super::faults::Fault;
use super::freeze::Part;
use super::gate::CallFault;
use super::net::{Net, Way};
use super::node::SimNode;
use super::{Simulation, check};
use crate::host::BridgeFact;
use crate::hypervisor::simulated::{MigrationFault, SimulatedHosts};
use crate::observed::Observed;
use crate::planted::{self, Bug};

/// The bridge of the example document that faults take away.
pub(super) const BRIDGE: &str = "br_zsn0";

impl Simulation {
    pub(super) fn inflict(&mut self, fault: &Fault) {
        *self.faults.entry(fault.kind()).or_default() += 1;
        self.note(format_args!("! {fault:?}"));
        match fault {
            Fault::PowerLoss(node) => self.lose_power(node),
            Fault::PowerOn(node) => self.inflict_power_on(node),
            Fault::Cut(node) => self.cut(node, Way::Both),
            Fault::Mend(node) => self.mend(node),
            Fault::CutOwner => self.sever(None, Way::Both),
            Fault::SlowOwner => self.slow_owner(),
            Fault::MendOwners => self.mend_owners(),
            Fault::Sever { node, way, .. } => self.sever(node.clone(), *way),
            Fault::LeaderLost => self.election(true),
            Fault::LeaderElected => self.election(false),
            Fault::StoreDown => self.store_down(true),
            Fault::StoreUp => self.store_down(false),
            Fault::Lag(node) => self.net().lag(node, &self.store),
            Fault::CatchUp(node) => self.net().catch_up(node, &self.store),
            Fault::StopController(node) => self.controller_runs(node, false),
            Fault::StartController(node) => self.controller_runs(node, true),
            Fault::StopKeeper(node) => self.keeper_runs(node, false),
            Fault::StartKeeper(node) => self.keeper_runs(node, true),
            Fault::Pause(node) => self.pause(node, true),
            Fault::Continue(node) => self.pause(node, false),
            Fault::Freeze(node, part) => self.freeze(node, *part, true),
            Fault::Thaw(node, part) => self.freeze(node, *part, false),
            Fault::Suspend(node) => self.suspend(node),
            Fault::Wake(node) => self.wake(node),
            Fault::SuspendHost => self.suspend_where_it_runs(),
            Fault::WakeHosts => self.wake_all(),
            Fault::Stuck(node) => self.stuck(node.clone()),
            Fault::Unstuck => self.on_every_host(|hosts, node| hosts.set_unkillable(node, false)),
            Fault::WallClockStep(node, by) => self.step_wall_clock(node, *by),
            Fault::WatchdogReset(node) => self.lose_power(node),
            Fault::LockOutlivesHost(held) => self.lock_outlives_host(*held),
            Fault::QemuDies => self.on_every_host(SimulatedHosts::qemu_dies),
            Fault::GuestPowersOff => self.on_every_host(SimulatedHosts::guest_powers_off),
            Fault::Stop(limit) => self.operator.stop(*limit),
            Fault::Start => self.operator.start(),
            Fault::Frozen(frozen) => self.operator.freeze(*frozen),
            Fault::ByHand(hand) => self.by_hand(hand),
            Fault::Drain(node, drained) => self.operator.drain(node, *drained),
            Fault::Apply { profile, memory_gib } => self.operator.apply(*profile, *memory_gib),
            Fault::Snapshot => self.snapshot = Some((Instant::now(), self.store.snapshot())),
            Fault::Restore => self.restore(),
            Fault::Migrate(node) => self.operator.migrate(node),
            Fault::Migrations(fault) => self.migrations_fail(*fault),
            Fault::Prefer(node, failback) => self.prefer(node, *failback),
            Fault::DeleteLease(node) => self.operator.delete_lease(node),
            Fault::Hypervisor(node, fault) => self.hosts.set_fault(node, *fault),
            Fault::StartsFail(node, on) => self.starts_fail(node, *on),
            Fault::ImageLocked(length) => self.hosts.leave_image_locked(Instant::now() + *length),
            Fault::BridgeMissing(node) => self.bridge_missing(node),
            Fault::HostRepaired(node) => self.node(node).machine.host.repair(),
            Fault::Lossy(on) => self.lossy(*on),
            Fault::CallsFail { node, per_mille } => self.calls_fail(node.clone(), *per_mille),
            Fault::CallFails { after, fault } => self.call_fails(*after, *fault),
            Fault::CallsMended => self.mend_calls(),
            Fault::Lost { power, otherwise } => self.lose(*power, otherwise),
        }
        check::lock(&self.checker).check();
    }

    /// Cuts the line of this node, or of whoever is the owner.
    fn sever(&mut self, node: Option<NodeName>, way: Way) {
        if let Some(node) = node.or_else(|| self.owner()) {
            self.cut(&node, way);
        }
    }

    fn slow_owner(&mut self) {
        if let Some(owner) = self.owner() {
            self.slow(&owner, true);
        }
    }

    fn mend_owners(&mut self) {
        for owner in std::mem::take(&mut self.owners) {
            self.slow(&owner, false);
            self.mend(&owner);
            self.inflict_power_on(&owner);
        }
    }

    fn controller_runs(&mut self, node: &NodeName, runs: bool) {
        if runs {
            self.node(node).start_controller();
        } else {
            self.node(node).stop_controller();
        }
        check::lock(&self.checker).by_hand.stalls(node, Part::Controller, !runs);
    }

    fn keeper_runs(&mut self, node: &NodeName, runs: bool) {
        if runs {
            self.node(node).start_keeper();
            self.trouble(node, "keeper", false);
        } else {
            self.trouble(node, "keeper", true);
            self.node(node).stop_keeper();
        }
    }

    fn suspend_where_it_runs(&mut self) {
        let host = check::lock(&self.checker).host();
        if let Some(host) = host {
            self.suspend(&host);
        }
    }

    fn wake_all(&mut self) {
        let asleep: Vec<_> = self.suspended.keys().cloned().collect();
        asleep.iter().for_each(|node| self.wake(node));
    }

    /// Lets no signal end the QEMU of this node, or of where the VM executes.
    fn stuck(&mut self, node: Option<NodeName>) {
        let node = node.or_else(|| check::lock(&self.checker).host());
        if let Some(node) = node {
            self.note(format_args!("! QEMU on {node} is stuck"));
            self.hosts.set_unkillable(&node, true);
        }
    }

    fn step_wall_clock(&mut self, node: &NodeName, by: i64) {
        self.node(node).machine.clock.step_wall(jiff::SignedDuration::from_secs(by));
    }

    fn lock_outlives_host(&mut self, held: Duration) {
        if let Some(host) = self.host() {
            self.hosts.leave_image_locked(Instant::now() + held);
            self.lose_power(&host);
        }
    }

    /// Restores the snapshot, if it is old enough.
    fn restore(&mut self) {
        let longest = check::lock(&self.checker).validity.longest();
        // Nothing is promised for a node that is younger than a lease: see docs/never-two-copies.md. Nor is
        // anything where a wall clock was set, so that epochs may have begun again where a lease was gone.
        let had = |kind: &&str| self.faults.contains_key(kind);
        let gone = ["store wiped", "lease deleted", "lease overwritten"];
        let again = had(&"wall clock step") && gone.iter().any(had);
        let old = self.snapshot.take_if(|(taken, _)| taken.elapsed() > longest && !again);
        if old.is_none() {
            self.note(format_args!("= no snapshot is old enough, or epochs may have begun again"));
        }
        if let Some((_, snapshot)) = old {
            check::lock(&self.checker).restoring();
            self.store.restore(snapshot);
        }
    }

    fn migrations_fail(&self, fault: Option<MigrationFault>) {
        for node in self.nodes.keys() {
            self.hosts.set_migration_fault(node, fault);
        }
    }

    fn prefer(&mut self, node: &NodeName, failback: bool) {
        self.operator.prefer(node, failback);
        self.operator.apply(None, 8);
    }

    fn starts_fail(&self, node: &NodeName, on: bool) {
        self.hosts.set_start_failure(node, on.then(|| "no memory for it".to_owned()));
    }

    fn bridge_missing(&mut self, node: &NodeName) {
        self.node(node).machine.host.set_bridge(BRIDGE, Observed::Known(BridgeFact::Missing));
    }

    fn lossy(&self, on: bool) {
        self.net().lossy = on;
        if on {
            check::lock(&self.checker).validity.lossy();
        }
    }

    fn calls_fail(&self, node: Option<NodeName>, per_mille: u32) {
        self.gate.trouble(node, per_mille);
        check::lock(&self.checker).validity.lossy();
    }

    /// Lets one call fail. It may be a renewal.
    fn call_fails(&self, after: u64, fault: CallFault) {
        self.gate.arm(self.gate.passed() + after, fault);
        check::lock(&self.checker).validity.lossy();
    }

    /// The node that the record names now. It is to be mended with all others that were hit as owners.
    fn owner(&mut self) -> Option<NodeName> {
        let owner = check::lock(&self.checker).owner()?;
        self.note(format_args!("! {owner} is the owner"));
        self.owners.push(owner.clone());
        Some(owner)
    }

    /// The node on which the VM executes. It is mended with the owners.
    fn host(&mut self) -> Option<NodeName> {
        let host = check::lock(&self.checker).host()?;
        self.owners.push(host.clone());
        Some(host)
    }

    pub(super) fn inflict_power_on(&mut self, node: &NodeName) {
        check::lock(&self.checker).going_down.remove(node);
        // The daemons of the node come up after libvirt's, which starts what is on its disk to be started.
        if !self.node(node).is_powered() {
            self.hosts.power_on(node);
            let mut checker = check::lock(&self.checker);
            self.hosts.copies_on(node).iter().for_each(|copy| checker.by_hand.made(node, copy.process));
        }
        self.node(node).power_on();
        self.trouble(node, "power", false);
    }

    fn freeze(&mut self, node: &NodeName, part: Part, frozen: bool) {
        // A host that sleeps goes on when it wakes, and nothing of it before.
        if !frozen && self.suspended.contains_key(node) {
            return;
        }
        // A node without power is not stopped, and is not to stand still when its power is back.
        let frozen = frozen && self.node(node).is_powered();
        self.node(node).freeze(part, frozen);
        check::lock(&self.checker).by_hand.stalls(node, part, frozen);
        if part != Part::Controller {
            self.trouble(node, if part == Part::Renewing { "stalled" } else { "suspended" }, frozen);
        }
    }

    fn suspend(&mut self, node: &NodeName) {
        if !self.node(node).is_powered() || self.suspended.contains_key(node) {
            return;
        }
        for part in [Part::Enforcing, Part::Renewing, Part::Controller] {
            self.freeze(node, part, true);
        }
        if let Some(watchdog) = &self.node(node).machine.watchdog {
            watchdog.suspend();
        }
        check::lock(&self.checker).suspend(node);
        self.suspended.insert(node.clone(), Instant::now());
    }

    /// Wakes a host: the guest goes on first, then the processes in any order, the thread that enforces within the
    /// shortest K.
    fn wake(&mut self, node: &NodeName) {
        let Some(since) = self.suspended.remove(node) else { return };
        if !self.node(node).is_powered() {
            return;
        }
        if planted::is_planted(Bug::ClockStopsInSuspend) {
            self.node(node).machine.clock.stand_still(since.elapsed());
        }
        if let Some(watchdog) = &self.node(node).machine.watchdog {
            watchdog.wake();
        }
        check::lock(&self.checker).wake(node);
        for (part, within) in [(Part::Enforcing, 300), (Part::Renewing, 600), (Part::Controller, 600)] {
            let at = Instant::now() + Duration::from_millis(self.rng.random_range(0..within));
            self.mends.push((at, Fault::Thaw(node.clone(), part)));
        }
    }

    pub(super) fn lose_power(&mut self, node: &NodeName) {
        self.trouble(node, "power", true);
        let checker = Arc::clone(&self.checker);
        let mut checker = check::lock(&checker);
        let machine = self.node(node);
        checker.excusing([node.clone()], |_| machine.lose_power());
        checker.validity.void(node);
        checker.by_hand.stalls(node, Part::Renewing, false);
        checker.by_hand.stalls(node, Part::Controller, false);
        drop(checker);
        // A suspended host that loses its power boots awake.
        self.suspended.remove(node);
        self.trouble(node, "suspended", false);
        self.trouble(node, "stalled", false);
    }

    fn cut(&self, node: &NodeName, way: Way) {
        self.net().cut(node, way);
        self.trouble(node, "cut", true);
    }

    fn mend(&self, node: &NodeName) {
        self.net().mend(node);
        self.trouble(node, "cut", false);
    }

    fn election(&self, begins: bool) {
        self.net().election(begins);
        for node in self.nodes.keys() {
            self.trouble(node, "election", begins);
        }
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slow(&self, node: &NodeName, slow: bool) {
        self.net().slow(node, slow);
        if slow {
            check::lock(&self.checker).validity.lossy();
        }
    }

    fn pause(&self, node: &NodeName, paused: bool) {
        self.net().pause(node, paused);
        self.trouble(node, "paused", paused);
    }

    fn store_down(&self, down: bool) {
        self.net().down = down;
        if !down {
            check::lock(&self.checker).reached_again();
        }
        for node in self.nodes.keys() {
            self.trouble(node, "store", down);
        }
    }

    /// Makes every call be as it should be from now on, and ends each wait that no call will end.
    fn mend_calls(&mut self) {
        self.gate.mend();
        while let Some((node, what)) = self.gate.crashed_meanwhile() {
            self.crash(node, what);
        }
        self.mends.clear();
    }

    fn lose(&mut self, power: bool, otherwise: &NodeName) {
        let owner = check::lock(&self.checker).host().unwrap_or_else(|| otherwise.clone());
        self.note(format_args!("! {owner} is lost"));
        if power {
            self.lose_power(&owner);
        } else {
            self.cut(&owner, Way::Both);
        }
        self.mends.retain(|(_, mended)| *mended != Fault::PowerOn(owner.clone()));
        self.lost = Some(owner);
    }

    fn trouble(&self, node: &NodeName, trouble: &'static str, on: bool) {
        check::lock(&self.checker).validity.troubled(node, trouble, on);
    }

    pub(super) fn node(&mut self, name: &NodeName) -> &mut SimNode {
        match self.nodes.get_mut(name) {
            Some(node) => node,
            None => panic!("the schedule names {name}, which is no node"),
        }
    }

    pub(super) fn on_every_host<T>(&self, act: impl Fn(&SimulatedHosts, &NodeName) -> T) {
        let nodes: Vec<_> = self.nodes.keys().cloned().collect();
        check::lock(&self.checker).excusing(nodes.clone(), |hosts| {
            for node in &nodes {
                act(hosts, node);
            }
        });
    }
}
