//! The outcome of a decision: the steps, and what the node then says of itself. Nothing is decided here.

use zsha_crds::Condition;
use zsha_crds::records::Waiting;
use zsha_runtime::Moment;

use super::notes::Notes;
use super::step::Step;

/// The steps to do, what is not done and why, and when to decide again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub waiting: Vec<Waiting>,
    pub recheck: Option<Moment>,
    /// The conditions of this node.
    pub conditions: Vec<Condition>,
    /// True if the VM is here and the record names another node. The node's status says so to the node that is named.
    pub runs_unnamed: bool,
    /// True if the host is to be looked at now.
    pub look: bool,
    /// The newest order after which this node has looked, for its status.
    pub looked_after: Option<u64>,
    /// The notes for the next pass.
    pub notes: Notes,
}

impl Plan {
    pub(crate) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(crate) fn wait(&mut self, reason: &str, message: impl Into<String>) {
        self.waiting.push(Waiting { reason: reason.to_owned(), message: message.into() });
    }

    pub(crate) fn recheck_at(&mut self, at: Moment) {
        self.recheck = Some(self.recheck.map_or(at, |r| r.min(at)));
    }
}
