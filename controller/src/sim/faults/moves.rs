//! A live migration, and something that happens to one of its nodes or to the daemons at any moment of it; nodes that
//! operators drain, and a cluster that they freeze.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use zsha_crds::NodeName;

use super::{Fault, calls, hypervisor, millis};
use crate::hypervisor::simulated;
use crate::sim::freeze::Part;
use crate::sim::net::Way;

pub(super) fn migration(
    rng: &mut SmallRng,
    nodes: &[NodeName],
    at: Duration,
) -> (Vec<(Duration, Fault)>, Duration) {
    let mut any = || nodes[rng.random_range(0..nodes.len())].clone();
    let (to, other) = (any(), any());
    // The target more often than one in three times.
    let it = if rng.random_bool(0.3) { to.clone() } else { other };
    let during = at + millis(rng, 0..2_200);
    let until = during + millis(rng, 200..9_000);
    let mut faults = vec![(at, Fault::Migrate(to))];
    let pair = |begin: Fault, end: Fault| vec![(during, begin), (until, end)];
    faults.extend(match rng.random_range(0..16) {
        0 => pair(Fault::PowerLoss(it.clone()), Fault::PowerOn(it)),
        1 => pair(Fault::CutOwner, Fault::MendOwners),
        2 => pair(Fault::Cut(it.clone()), Fault::Mend(it)),
        3 => pair(Fault::StopController(it.clone()), Fault::StartController(it)),
        4 => vec![(during, Fault::QemuDies)],
        5 | 6 => {
            let fault = if rng.random_bool(0.5) {
                simulated::MigrationFault::Breaks
            } else {
                simulated::MigrationFault::AnswerLost
            };
            vec![(at, Fault::Migrations(Some(fault))), (until, Fault::Migrations(None))]
        }
        7 | 8 => pair(Fault::Hypervisor(it.clone(), Some(hypervisor(rng))), Fault::Hypervisor(it, None)),
        9 => {
            let way = if rng.random_bool(0.5) { Way::Answers } else { Way::Requests };
            let begin = Fault::Sever { node: Some(it.clone()), way, flapping: false };
            pair(begin, Fault::Mend(it))
        }
        10 => pair(Fault::Freeze(it.clone(), Part::Controller), Fault::Thaw(it, Part::Controller)),
        11 => pair(Fault::Stuck(Some(it)), Fault::Unstuck),
        // One call of any node at any step of it.
        12 | 13 => vec![(at, calls::one(rng))],
        14 => pair(Fault::LeaderLost, Fault::LeaderElected),
        _ => Vec::new(),
    });
    (faults, until)
}

/// A node is drained, and something happens meanwhile: to it, to another, or nothing.
pub(super) fn drained(
    rng: &mut SmallRng,
    node: NodeName,
    at: Duration,
) -> (Vec<(Duration, Fault)>, Duration) {
    let during = at + millis(rng, 0..4_000);
    let until = during + millis(rng, 500..12_000);
    let mut faults = vec![(at, Fault::Drain(node.clone(), true)), (until, Fault::Drain(node.clone(), false))];
    faults.extend(match rng.random_range(0..8) {
        0 => vec![(during, Fault::PowerLoss(node.clone())), (until, Fault::PowerOn(node))],
        1 => vec![(during, Fault::CutOwner), (until, Fault::MendOwners)],
        2 => vec![(during, Fault::QemuDies)],
        3 => vec![(during, Fault::StopController(node.clone())), (until, Fault::StartController(node))],
        4 => {
            let fault = simulated::MigrationFault::Breaks;
            vec![(at, Fault::Migrations(Some(fault))), (until, Fault::Migrations(None))]
        }
        5 => vec![(during, Fault::Stop(None)), (until, Fault::Start)],
        6 => vec![(at, calls::one(rng))],
        _ => Vec::new(),
    });
    (faults, until)
}

/// A cluster that is frozen for a while, in which the owner loses something.
pub(super) fn frozen(
    rng: &mut SmallRng,
    node: NodeName,
    at: Duration,
    until: Duration,
) -> (Vec<(Duration, Fault)>, Duration) {
    let during = at + (until - at).mul_f64(rng.random());
    let mut faults = vec![(at, Fault::Frozen(true)), (until, Fault::Frozen(false))];
    faults.extend(match rng.random_range(0..6) {
        0 => vec![(during, Fault::QemuDies)],
        1 => vec![(during, Fault::PowerLoss(node.clone())), (until, Fault::PowerOn(node))],
        2 => vec![(during, Fault::CutOwner), (until, Fault::MendOwners)],
        3 => vec![(during, Fault::Migrate(node))],
        4 => vec![(at, Fault::Stop(None)), (during, Fault::Start)],
        _ => Vec::new(),
    });
    (faults, until)
}
