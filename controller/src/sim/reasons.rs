//! The judge's questions about reasons: who began or ended a process, by what decision, and whether what the decision
//! rested on was true. The judge knows the truth about every host. The decision is what the controller says that it is
//! doing (`heard`).
//!
//! - R1: under a valid lease a node starts the VM only where no other host has a process that could execute. Such a
//!   process is one that executes, or one that was started by the lease that is valid there and did not come with a
//!   migration. A start that was under way as a snapshot was restored makes a paused process, and nothing written
//!   before lets it run.
//! - R2: a copy that executes is ended "for want of its disk" only where its host does not reach the disk.
//! - R3: the record stops naming a node whose lease is valid only by that node's own write.
//! - R4: a node makes that write only while no process of the VM is there.

use std::collections::{BTreeMap, BTreeSet};

use zsha_crds::NodeName;
use zsha_crds::records::{Owner, VmRecord};

use super::validity::Validity;
use crate::heard;
use crate::hypervisor::simulated::Copy;
use crate::plan::Step;

/// The judge's memory for these questions.
#[derive(Debug, Default)]
pub struct Reasons {
    /// Every process that was there at the last look.
    known: BTreeSet<u64>,
    /// The processes among them that a start has made, and the epoch by which it was decided.
    started: BTreeMap<u64, Option<u64>>,
    /// The nodes whose start was under way when a snapshot was last restored, and still is.
    outdated: BTreeSet<NodeName>,
    /// The node whose write is being taken in.
    pub writer: Option<NodeName>,
}

/// True if a lease in this epoch is valid by the judge's own account.
fn is_valid(validity: &Validity, node: &NodeName, epoch: Option<u64>) -> bool {
    validity.grant(node).is_some_and(|grant| {
        epoch.is_none_or(|epoch| grant.epoch == epoch) && validity.now(node) < grant.until()
    })
}

fn is_starting(node: &NodeName) -> bool {
    matches!(heard::of(node), Some(Step::Start { .. }))
}

impl Reasons {
    /// Remembers which starts are under way, since a snapshot is about to be restored. `nodes`: all nodes.
    pub fn restoring<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeName>) {
        self.outdated.extend(nodes.filter(|node| is_starting(node)).cloned());
    }

    /// Judges R1: the processes that have begun since the last look. The promise does not cover what `excused` hosts
    /// execute.
    pub fn begun(
        &mut self,
        (copies, validity): (&[Copy], &Validity),
        excused: impl Fn(&NodeName) -> bool,
    ) -> Vec<String> {
        let mut violations = Vec::new();
        self.outdated.retain(is_starting);
        for copy in copies.iter().filter(|copy| !self.known.contains(&copy.process)) {
            if !is_starting(&copy.node) {
                continue;
            }
            let epoch = heard::last_start(&copy.node);
            if !self.outdated.contains(&copy.node) {
                self.started.insert(copy.process, epoch);
            }
            // A start that was decided before the lease was over makes a paused copy. The node then finds that out, and
            // the copy is dead within K.
            if !is_valid(validity, &copy.node, epoch) {
                continue;
            }
            let could_execute = |other: &&Copy| {
                // A copy is let run only by the life of the lease by which its start was decided.
                let started = self.started.get(&other.process);
                let may_be_let_run = started.is_some_and(|epoch| is_valid(validity, &other.node, *epoch));
                other.node != copy.node && !excused(&other.node) && (other.executing || may_be_let_run)
            };
            if let Some(other) = copies.iter().find(could_execute) {
                violations.push(format!(
                    "R1: {} starts the VM in epoch {:?}, and {} has a process of it",
                    copy.node,
                    heard::last_start(&copy.node),
                    other.node
                ));
            }
        }
        self.known = copies.iter().map(|copy| copy.process).collect();
        violations
    }

    /// R3 and R4: a change of the ownership record.
    pub fn recorded(
        &self,
        before: Option<&VmRecord>,
        after: Option<&VmRecord>,
        (copies, validity): (&[Copy], &Validity),
    ) -> Option<String> {
        let writer = self.writer.as_ref()?;
        let Owner { node, epoch } = before?.owner.as_ref()?;
        let kept = after?.owner.as_ref().is_some_and(|owner| owner.node == *node && owner.epoch == *epoch);
        if kept || !is_valid(validity, node, Some(*epoch)) {
            return None;
        }
        if writer != node {
            return Some(format!("R3: {writer} takes the VM from {node}, whose lease is valid"));
        }
        let there = copies.iter().any(|copy| copy.node == *node);
        there.then(|| format!("R4: {node} gives the VM up, and a process of it is there"))
    }
}

/// Why the controller of this node is ending its copy, if it is.
pub fn ending(node: &NodeName) -> Option<String> {
    match heard::of(node)? {
        Step::KillCopy { because, .. } => Some(because),
        _ => None,
    }
}

/// R2.
pub fn is_for_want_of_its_disk(because: &str) -> bool {
    because.contains("its disk is not reached")
}
