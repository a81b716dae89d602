//! How long a failover takes at most, term by term, so that `status` can say where the time goes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Facts;
use crate::records::{LEASE_LOOK_MILLIS, LeaseTimings};

/// One transaction: a fence or a claim, over a store that has its leader. Elections run inside `fenceAfter`, which
/// counts from when a renewal was sent, not from when it was seen.
const TRANSACTION_SECONDS: f64 = 0.5;
/// The time from `create` to a guest that executes, image and bridges being ready: measured 0.7 to 1.7 s where QEMU
/// emulates the processor on a busy machine, less with KVM.
const START_SECONDS: f64 = 2.0;

/// The worst time from the loss of the owner to a running QEMU on another node, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverBound {
    /// D: how long the same renewal must have been seen before the node is fenced.
    pub fence_after_seconds: f64,
    /// Leases are looked at this often.
    pub look_seconds: f64,
    /// One transaction that fences and claims.
    pub transaction_seconds: f64,
    /// The start of QEMU.
    pub start_seconds: f64,
    pub total_seconds: f64,
}

pub fn failover_bound(timings: &LeaseTimings) -> FailoverBound {
    let fence_after_seconds = timings.fence_after().as_secs_f64();
    let look_seconds = LEASE_LOOK_MILLIS as f64 / 1000.0;
    FailoverBound {
        fence_after_seconds,
        look_seconds,
        transaction_seconds: TRANSACTION_SECONDS,
        start_seconds: START_SECONDS,
        total_seconds: fence_after_seconds + look_seconds + TRANSACTION_SECONDS + START_SECONDS,
    }
}

impl FailoverBound {
    /// The terms in order, each with its name.
    pub fn terms(&self) -> [(&'static str, f64); 4] {
        [
            ("fence", self.fence_after_seconds),
            ("look", self.look_seconds),
            ("transaction", self.transaction_seconds),
            ("start", self.start_seconds),
        ]
    }
}

/// The bound in force. The owner's lease carries the timings that the owner lives by, and it may not have those of a
/// document just applied yet: meanwhile the longer of the two is the truth.
pub(super) fn in_force(facts: &Facts<'_>) -> Option<FailoverBound> {
    let of_document = facts.document.as_ref().ok().map(|document| document.timings());
    let owner = facts.view.vm.as_ref().and_then(|vm| vm.owner.as_ref());
    let of_owner = owner.and_then(|owner| facts.view.leases.get(&owner.node)).map(|lease| lease.timings);
    [of_document, of_owner]
        .into_iter()
        .flatten()
        .map(|timings| failover_bound(&timings))
        .max_by(|a, b| a.total_seconds.total_cmp(&b.total_seconds))
}
