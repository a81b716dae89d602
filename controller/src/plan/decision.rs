//! What a pass comes to: the steps, and what it tells of itself. Nothing is decided here.

use zsha_crds::Condition;
use zsha_crds::records::Waiting;
use zsha_runtime::Moment;

use super::notes::Notes;
use super::step::Step;

/// What is to be done, what is not and why, and when to think again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub waiting: Vec<Waiting>,
    pub recheck: Option<Moment>,
    /// The conditions of this node.
    pub conditions: Vec<Condition>,
    /// The VM is here, and the record names another: told to the one that is named.
    pub runs_unnamed: bool,
    /// The host is to be looked at now.
    pub look: bool,
    /// As in this node's status.
    pub looked_after: Option<u64>,
    /// What this node remembers from now on.
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
