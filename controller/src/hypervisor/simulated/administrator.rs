//! Does what an administrator does with a host's daemon by hand, past zsha.

use tokio::time::Instant;
use uuid::Uuid;
use zsha_crds::NodeName;
use zsha_crds::document::ImageFormat;
use zsha_crds::records::DiskSource;

use super::SimulatedHosts;
use super::host::{Activity, Process};
use super::mishaps::Ending;
use super::request::Request;
use super::state::State;
use crate::hypervisor::{Disk, MigrationOrder, OffReason, Origin, PauseReason};
use crate::observed::Observed;

impl SimulatedHosts {
    /// Does a `virsh start` of the administrator's own definition. Returns the process, if there was none there
    /// already.
    pub fn start_by_hand(&self, node: &NodeName) -> Option<u64> {
        self.settled().start_by_hand(node, Instant::now())
    }

    /// Does a `virsh destroy`.
    pub fn destroy_by_hand(&self, node: &NodeName) {
        self.settled().end(node, Ending::Destroyed);
    }

    /// Defines another domain of the VM's name, or takes it away.
    pub fn define_namesake(&self, node: &NodeName, uuid: Option<Uuid>) {
        self.settled().host(node).offer.namesake = uuid;
    }

    /// Does a `virsh snapshot-create-as --disk-only`: the VM goes on on this overlay of its disk. Returns true if it was
    /// done.
    pub fn snapshot_by_hand(&self, node: &NodeName, overlay: &str) -> bool {
        self.settled().snapshot_by_hand(node, overlay)
    }

    /// Does a `virsh blockcommit --active --pivot`: the VM goes on on what its overlay rested on. Returns true if it was
    /// done.
    pub fn merge_by_hand(&self, node: &NodeName) -> bool {
        self.settled().merge_by_hand(node)
    }

    /// Does a `virsh managedsave`, whose file is never used.
    pub fn save_by_hand(&self, node: &NodeName) {
        let mut state = self.settled();
        state.executed_until_now(node);
        if state.host(node).process.as_ref().is_some_and(Process::executing) {
            state.host(node).ended(OffReason::Unknown);
        }
    }

    /// Does a `virsh suspend` or `virsh resume` of the guest. Returns true if it was done.
    pub fn pause_by_hand(&self, node: &NodeName, paused: bool) -> bool {
        self.settled().pause_by_hand(node, paused, Instant::now())
    }

    /// Does a `virsh migrate --live`: nothing pauses the guest where it arrives. Returns the process that waits for it
    /// there.
    pub fn migrate_by_hand(&self, from: &NodeName, to: &NodeName) -> Option<u64> {
        let process = self.settled().migrate_by_hand(from, to, Instant::now());
        self.tell_due();
        process
    }

    /// Lets the process table there, from now on, be read by the side that kills, and not by the side that counts.
    pub fn set_uncounted(&self, node: &NodeName, uncounted: bool) {
        self.settled().host(node).uncounted = uncounted;
    }

    /// Lets the log there be unreadable from now on.
    pub fn set_log_unreadable(&self, node: &NodeName, unreadable: bool) {
        self.settled().host(node).log_unreadable = unreadable;
    }

    pub fn is_uncounted(&self, node: &NodeName) -> bool {
        self.settled().host(node).uncounted
    }
}

impl State {
    fn start_by_hand(&mut self, node: &NodeName, now: Instant) -> Option<u64> {
        self.counter += 1;
        let number = self.counter;
        let host = self.host(node);
        if !host.powered || host.suspended || host.process.is_some() {
            return None;
        }
        let mut process = Process::new(number, 0, (Activity::Running, Origin::Booted), now);
        process.ran = true;
        host.process = Some(process);
        host.changed();
        self.executes_beside_others(node, now);
        Some(number)
    }

    fn snapshot_by_hand(&mut self, node: &NodeName, overlay: &str) -> bool {
        let Some(disk) = self.disk_of_what_executes(node) else { return false };
        let below = std::mem::replace(&mut disk.source, DiskSource::File(overlay.to_owned()));
        disk.backing.insert(0, below);
        ImageFormat::Qcow2.as_str().clone_into(&mut disk.format);
        self.host(node).changed();
        true
    }

    fn merge_by_hand(&mut self, node: &NodeName) -> bool {
        let Some(disk) = self.disk_of_what_executes(node).filter(|disk| !disk.backing.is_empty()) else {
            return false;
        };
        disk.source = disk.backing.remove(0);
        self.host(node).changed();
        true
    }

    fn disk_of_what_executes(&mut self, node: &NodeName) -> Option<&mut Disk> {
        let number = self.host(node).number()?;
        let process = self.process_at(node, number).filter(|process| process.executing())?;
        match &mut process.devices {
            Observed::Known(devices) => devices.disks.first_mut(),
            Observed::Unknown(_) => None,
        }
    }

    fn pause_by_hand(&mut self, node: &NodeName, paused: bool, now: Instant) -> bool {
        self.executed_until_now(node);
        if !self.host(node).powered || self.host(node).suspended {
            return false;
        }
        let number = self.host(node).process.as_ref().map_or(0, |process| process.number);
        // The monitor of one that was killed is closed.
        let Some(process) = self.process_at(node, number) else { return false };
        let by_hand = Activity::Paused(PauseReason::Other);
        match (paused, process.activity) {
            (true, Activity::Running) => process.activity = by_hand,
            (false, activity) if activity == by_hand => process.activity = Activity::Running,
            (true | false, _) => return false,
        }
        self.host(node).changed();
        if !paused {
            self.executes_beside_others(node, now);
        }
        true
    }

    fn migrate_by_hand(&mut self, from: &NodeName, to: &NodeName, now: Instant) -> Option<u64> {
        let address = std::net::Ipv4Addr::LOCALHOST;
        let id = Uuid::from_u128(u128::from(self.counter) + (1 << 100));
        let order = MigrationOrder { id, to: to.clone(), address };
        if from == to || !self.host(from).powered || self.host(from).suspended {
            return None;
        }
        self.migrate(from, &order, &Request::Migrate(order.clone()), now).ok()?;
        let moving = self.host(from).moving.as_mut()?;
        moving.runs_on_arrival = true;
        Some(moving.target())
    }
}
