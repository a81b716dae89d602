//! Waits until the cluster has settled after the faults: one copy, on a node that is there. Never here: a fault that a
//! seed draws.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::records::{LeaseTimings, NodeStatus};

use super::faults::Fault;
use super::{Simulation, TICK, check};

/// The time for which the cluster must be well before it counts as settled.
const CALM: Duration = Duration::from_secs(3);

/// The VM runs within this time after the last fault: the longest D, one look, two places in the line and a start, and
/// what was being waited for before (a cool-down of starts, a call of the hypervisor).
const BOUND: Duration = Duration::from_secs(45);

/// The time after which an operator looks after a VM that nobody starts. By then whatever is dead has been fenced.
const OPERATOR: Duration = Duration::from_secs(30);

/// The time that it costs on top where the lease of an owner was deleted and the owner did not live to write it anew.
const LOST: Duration = LeaseTimings::LONGEST.fence_after();

impl Simulation {
    /// Waits, with everything mended but the node that is lost, until exactly one copy executes and the record says so,
    /// and both stay so. Returns how long that took.
    pub(super) async fn settle(&mut self) -> Duration {
        let over = Instant::now();
        let mut since: Option<(Instant, u64)> = None;
        let mut asked = false;
        let mut said = BTreeSet::new();
        while !self.violated() {
            let now = Instant::now();
            if now >= over + OPERATOR {
                // A guest that was moved by hand to a node that died before anybody saw it there waits for an operator.
                let waits = check::lock(&self.checker).waits_for_an_operator(self.lost.as_ref());
                if waits && !std::mem::replace(&mut asked, true) {
                    self.inflict(&Fault::Start);
                }
                // An order that was given before anybody had seen that the store was put back is given once more.
                if check::lock(&self.checker).was_restored() {
                    for name in self.doubted().into_iter().filter(|name| said.insert(name.clone())) {
                        self.operator.says_again(&name);
                    }
                }
            }
            let settled = check::lock(&self.checker).settled(self.lost.as_ref());
            since = match (&settled, since) {
                (Ok(process), Some((since, before))) if before == *process => Some((since, before)),
                (Ok(process), _) => Some((now, *process)),
                (Err(_), _) => None,
            };
            if let Some((since, _)) = since.filter(|(since, _)| now >= *since + CALM) {
                return since - over;
            }
            let bound = if check::lock(&self.checker).a_lease_was_lost() { BOUND + LOST } else { BOUND };
            if let (Err(why), true) = (settled, now >= over + bound) {
                check::lock(&self.checker).violations.push(format!("liveness: {why}"));
            }
            self.wait_until(now + TICK).await;
        }
        Instant::now() - over
    }

    /// The orders of which a node says that it does not know whether they stand, by the names that they have in the store.
    fn doubted(&self) -> BTreeSet<String> {
        let mut messages = Vec::new();
        for name in self.nodes.keys().filter(|name| Some(*name) != self.lost.as_ref()) {
            let status = check::lock(&self.checker).status_of(name);
            let in_doubt = status.iter().flat_map(NodeStatus::orders_in_doubt);
            messages.extend(in_doubt.map(|condition| condition.message.clone()));
        }
        let words = messages.iter().flat_map(|message| message.split(' '));
        words.filter_map(|word| word.strip_prefix("intent/").map(str::to_owned)).collect()
    }
}
