//! What the judge allows for copies that people have made execute by hand, past zsha: nobody can keep such a copy from
//! beginning.
//!
//! Beside another copy it must be ended within R (until the next look at the processes), K, and a second for a look at
//! the hypervisor and its answer. Where both the keeper's loop and the controller stand still nobody looks, and it must
//! be ended when the node's lease ends. Where it is the only copy, since the VM was moved there past zsha, it may go on
//! while the node's lease is valid, until the record names it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::NodeName;
use zsha_crds::records::LeaseTimings;

use super::freeze::Part;
use super::validity::Grant;

/// The time for a slow look at the hypervisor and the call that follows.
const LOOKS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct ByHand {
    /// The processes that were made to execute past zsha, and when.
    processes: BTreeMap<u64, Instant>,
    /// The processes among them that nobody was to start: they are moved copies of the one VM, and must not be harmed.
    moved: BTreeSet<u64>,
    /// The processes that were on their way to another node.
    leaving: BTreeSet<u64>,
    /// The time until which a copy that executes there is held against nobody.
    until: BTreeMap<NodeName, Instant>,
    /// The times at which something was made to execute there.
    made: BTreeMap<NodeName, Vec<Instant>>,
    /// The parts of nodes that stand still.
    still: BTreeSet<(NodeName, Part)>,
}

impl ByHand {
    /// This process was made to execute there, or will be.
    pub fn made(&mut self, node: &NodeName, process: u64) {
        self.processes.insert(process, Instant::now());
        self.made.entry(node.clone()).or_default().push(Instant::now());
        self.until.insert(node.clone(), Instant::now() + within(None));
    }

    /// This process waits there for the guest, which is moved past zsha.
    pub fn awaits(&mut self, node: &NodeName, process: u64) {
        self.made(node, process);
        self.moved.insert(process);
    }

    /// This process is being moved away.
    pub fn leaves(&mut self, process: u64) {
        self.leaving.insert(process);
    }

    /// A part of that node stands still, or goes on.
    pub fn stalls(&mut self, node: &NodeName, part: Part, stalled: bool) {
        let it = (node.clone(), part);
        if stalled {
            self.still.insert(it);
        } else {
            self.still.remove(&it);
        }
    }

    /// True if the process may end without a reason of zsha's: somebody has started it past zsha, or it has left.
    pub fn ended_by_it(&self, process: u64) -> bool {
        self.is(process) && !self.moved.contains(&process) || self.leaving.contains(&process)
    }

    pub fn is(&self, process: u64) -> bool {
        self.processes.contains_key(&process)
    }

    /// True if the process was made so lately that a node which writes just now may have looked before.
    pub fn is_new(&self, process: u64) -> bool {
        self.processes.get(&process).is_some_and(|made| made.elapsed() < LOOKS)
    }

    /// The process executes there, alone or beside another.
    pub fn seen(&mut self, node: &NodeName, process: u64, grant: Option<&Grant>, beside: bool) {
        if !self.is(process) {
            self.until.remove(node);
            return;
        }
        let now = Instant::now();
        let lives = grant.is_some_and(|grant| grant.lives_at(now));
        let unseen =
            [Part::Renewing, Part::Controller].map(|part| self.still.contains(&(node.clone(), part)));
        if lives && (!beside || unseen == [true; 2]) {
            self.until.insert(node.clone(), now + within(grant));
        }
    }

    /// True if a copy that executed there at that time may be the one that was made to by hand.
    pub fn excused(&self, node: &NodeName, at: Instant) -> bool {
        let soon = |made: &Instant| (*made..=*made + within(None)).contains(&at);
        self.made.get(node).is_some_and(|made| made.iter().any(soon))
    }

    pub fn excuses(&self, node: &NodeName, at: Instant) -> bool {
        self.until.get(node).is_some_and(|until| at <= *until)
    }
}

/// The time within which a copy made by hand must be ended. For a node whose lease nobody knows that of the longest
/// profile counts.
fn within(grant: Option<&Grant>) -> Duration {
    let (renew, kill) = grant
        .map_or((LeaseTimings::PATIENT.renew(), LeaseTimings::PATIENT.kill()), |grant| {
            (grant.renew, grant.kill)
        });
    renew + kill + LOOKS
}
