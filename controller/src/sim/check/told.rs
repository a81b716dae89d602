//! Tells what the judge has seen, to whoever settles, reports, or looks for the owner. Never here: a rule.

use std::fmt::Write;

use zsha_crds::NodeName;
use zsha_crds::records::{Departed, EventRecord, NodeStatus, VmPhase};

use super::Checker;

impl Checker {
    /// The number of the nodes' writes of the ownership record, and of those that lost their race.
    pub fn ownership_writes(&self) -> (u64, u64) {
        self.written
    }

    /// The number of times that another copy executed while one that no watchdog stood behind was stuck.
    pub fn beside_stuck(&self) -> u64 {
        self.stuck.len() as u64
    }

    /// The process that executes, if all is as it should be in a cluster without faults. `lost`: the node that is not
    /// mended.
    pub fn settled(&mut self, lost: Option<&NodeName>) -> Result<u64, String> {
        self.check();
        let Some(record) = &self.vm.value else { return Err("there is no ownership record".to_owned()) };
        let mut executing = self.executing.iter();
        match (executing.next(), executing.next()) {
            (Some((node, it)), None) if record.phase == VmPhase::Running && Some(node) != lost => {
                let owner = record.owner.as_ref().map(|owner| &owner.node);
                if owner == Some(node) {
                    Ok(it.process)
                } else {
                    Err(format!("{node} runs it and {owner:?} owns it"))
                }
            }
            _ => Err(format!("{:?} executes, and the record says {record:?}", self.executing)),
        }
    }

    /// True if nothing runs, and nothing may be started before an operator has looked where the VM is. `lost` is the
    /// node that is not mended. The guest has died with that node if it still said that it had the guest whole; a
    /// process that it only counted may have been sent on.
    pub fn waits_for_an_operator(&self, lost: Option<&NodeName>) -> bool {
        let departed = self.vm.value.as_ref().and_then(|record| record.departed.as_ref());
        let had_it = |node: &NodeName| {
            self.status_of(node).is_some_and(|status| status.vms.of(&self.keys.vm_id().name).runs_unnamed)
        };
        let has_died = |departed: &Departed| {
            !departed.seen_on.is_empty()
                && departed.seen_on.iter().all(|node| Some(node) == lost && had_it(node))
        };
        self.executing.is_empty() && departed.is_some_and(|departed| !has_died(departed))
    }

    /// True if a node had to put a record in the place of another's lease, which may have cost the longest D.
    pub fn a_lease_was_lost(&self) -> bool {
        self.lost
    }

    /// The status that the node last wrote, if it can be read.
    pub fn status_of(&self, node: &NodeName) -> Option<NodeStatus> {
        let status = self.store.read(&self.keys.node_status(node))?;
        serde_json::from_str(&status.value).ok()
    }

    /// The node that the record names as owner.
    pub fn owner(&self) -> Option<NodeName> {
        let record = self.vm.value.as_ref()?;
        record.owner.as_ref().map(|owner| owner.node.clone())
    }

    /// The node the VM executes on, and the process.
    pub fn executing(&self) -> Option<(NodeName, u64)> {
        self.executing.iter().next().map(|(node, it)| (node.clone(), it.process))
    }

    /// Logs the events that the nodes have written so far, in order.
    pub fn log_events(&mut self) {
        let listing = self.store.read_all(&self.keys.events());
        let mut events: Vec<EventRecord> =
            listing.entries.iter().filter_map(|entry| serde_json::from_str(&entry.value).ok()).collect();
        events.sort_by_key(|event| event.first_at);
        for event in events {
            let EventRecord { node, kind, reason, message, count, .. } = event;
            let times = if count > 1 { format!(" ({count} times)") } else { String::new() };
            let _ = writeln!(self.log, "{node} {kind:?} {reason}: {message}{times}");
        }
    }

    /// The node the VM executes on.
    pub fn host(&self) -> Option<NodeName> {
        self.executing.keys().next().cloned()
    }
}
