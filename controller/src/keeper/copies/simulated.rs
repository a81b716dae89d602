//! The copies on one node of a simulation, as its keeper sees and ends them.

use std::io;
use std::sync::Arc;

use zsha_crds::NodeName;

use super::{Copies, VmCopy};
use crate::hypervisor::OffReason;
use crate::hypervisor::simulated::{Copy, SimulatedHosts};

/// The copies on one node of a simulation.
#[derive(Debug)]
pub struct SimulatedCopies {
    hosts: Arc<SimulatedHosts>,
    node: NodeName,
    /// True if this one only counts copies. A fault that keeps copies from being counted does not keep those that are
    /// known from being killed.
    counts: bool,
}

impl SimulatedCopies {
    pub fn new(hosts: Arc<SimulatedHosts>, node: NodeName) -> Self {
        Self { hosts, node, counts: false }
    }

    pub fn counting(hosts: Arc<SimulatedHosts>, node: NodeName) -> Self {
        Self { hosts, node, counts: true }
    }
}

impl Copies for SimulatedCopies {
    fn alive(&self) -> io::Result<Vec<VmCopy>> {
        if self.counts && self.hosts.is_uncounted(&self.node) {
            return Err(io::Error::other("the process table cannot be read"));
        }
        let copies = self.hosts.copies_on(&self.node);
        let seen = |copy: &Copy| VmCopy { incoming: copy.incoming, ..VmCopy::numbered(copy.process) };
        Ok(copies.iter().map(seen).collect())
    }

    fn kill(&self, _copy: &VmCopy) -> io::Result<()> {
        self.hosts.kill_now(&self.node);
        Ok(())
    }

    fn last_end(&self) -> io::Result<Option<OffReason>> {
        Ok(self.hosts.last_end(&self.node))
    }

    fn end_before_this(&self) -> io::Result<Option<OffReason>> {
        Ok(self.hosts.end_before_this(&self.node))
    }
}
