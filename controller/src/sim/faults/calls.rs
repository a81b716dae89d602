//! Calls that go wrong: many at random for a while, or one.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use zsha_crds::NodeName;

use super::Fault;
use crate::sim::gate::CallFault;

/// The number of calls that a cluster makes in about two seconds.
const SOON: u64 = 40;

pub(super) fn fail(
    rng: &mut SmallRng,
    node: NodeName,
    at: Duration,
    until: Duration,
) -> (Vec<(Duration, Fault)>, Duration) {
    if rng.random_bool(0.3) {
        return (vec![(at, one(rng))], at);
    }
    let node = rng.random_bool(0.6).then_some(node);
    let per_mille = [5, 20, 60][rng.random_range(0..3)];
    let begin = Fault::CallsFail { node: node.clone(), per_mille };
    (vec![(at, begin), (until, Fault::CallsFail { node, per_mille: 0 })], until)
}

/// One call that goes wrong some time soon.
pub(super) fn one(rng: &mut SmallRng) -> Fault {
    let fault = CallFault::ALL[rng.random_range(0..CallFault::ALL.len())];
    Fault::CallFails { after: rng.random_range(0..SOON), fault }
}
