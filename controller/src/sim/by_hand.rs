//! What the judge allows for what somebody has made execute by hand, past zsha: nobody can keep it from beginning. Beside
//! another copy it is to be ended within R (until the next look at the processes), K, and a second for a look at the
//! hypervisor and its answer; where both the keeper's loop and the controller stand still nobody looks, and it is ended when
//! the node's lease ends. Where it is the only copy, since it was moved there past zsha, it may go on, as long as the node's
//! lease is valid, until the record names it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::NodeName;
use zsha_crds::records::LeaseTimings;

use super::freeze::Part;
use super::validity::Grant;

/// A look at the hypervisor that is slow, and the call that follows.
const LOOKS: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct ByHand {
    /// Those that were made to execute past zsha, and when.
    processes: BTreeMap<u64, Instant>,
    /// Those of them that nobody was to start: they are moved copies of the one VM, and not to be harmed.
    moved: BTreeSet<u64>,
    /// Those that were on their way to another node.
    leaving: BTreeSet<u64>,
    /// Until when what executes there is not held against anybody.
    until: BTreeMap<NodeName, Instant>,
    /// Whenever something was made to execute there.
    made: BTreeMap<NodeName, Vec<Instant>>,
    /// What stands still.
    still: BTreeSet<(NodeName, Part)>,
}

impl ByHand {
    /// This process was made to execute there, or will be.
    pub fn made(&mut self, node: &NodeName, process: u64) {
        self.processes.insert(process, Instant::now());
        self.made.entry(node.clone()).or_default().push(Instant::now());
        self.until.insert(node.clone(), Instant::now() + within(None));
    }

    /// This one waits there for the guest, which is moved past zsha.
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

    /// Whether it may end for nothing: somebody has started it past zsha, or it has left.
    pub fn ended_by_it(&self, process: u64) -> bool {
        self.is(process) && !self.moved.contains(&process) || self.leaving.contains(&process)
    }

    pub fn is(&self, process: u64) -> bool {
        self.processes.contains_key(&process)
    }

    /// Whether it was made so lately that who writes just now may have looked before.
    pub fn is_new(&self, process: u64) -> bool {
        self.processes.get(&process).is_some_and(|made| made.elapsed() < LOOKS)
    }

    /// It executes there, alone or beside another.
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

    /// Whether what executed there at that time may be what was made to by hand.
    pub fn excused(&self, node: &NodeName, at: Instant) -> bool {
        let soon = |made: &Instant| (*made..=*made + within(None)).contains(&at);
        self.made.get(node).is_some_and(|made| made.iter().any(soon))
    }

    pub fn excuses(&self, node: &NodeName, at: Instant) -> bool {
        self.until.get(node).is_some_and(|until| at <= *until)
    }
}

/// R of a node whose lease nobody knows: it has none to renew, and looks all the time.
fn within(grant: Option<&Grant>) -> Duration {
    let (renew, kill) = grant
        .map_or((LeaseTimings::PATIENT.renew(), LeaseTimings::PATIENT.kill()), |grant| {
            (grant.renew, grant.kill)
        });
    renew + kill + LOOKS
}
