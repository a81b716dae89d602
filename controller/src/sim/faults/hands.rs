//! The troubles that people make by hand, and their times.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use zsha_crds::NodeName;

use super::{Fault, millis};
use crate::sim::hands::{Hand, Nonsense};

type Trouble = (Vec<(Duration, Fault)>, Duration);

pub(super) fn drawn(rng: &mut SmallRng, node: NodeName, at: Duration, until: Duration) -> Trouble {
    let once = |hand: Hand| (vec![(at, Fault::ByHand(hand))], at);
    let pair =
        |begin: Hand, end: Hand| (vec![(at, Fault::ByHand(begin)), (until, Fault::ByHand(end))], until);
    match rng.random_range(0..12) {
        0 => once(Hand::Destroys),
        1 => once(Hand::Saves),
        2 => pair(Hand::Suspends, Hand::Resumes),
        3 => pair(Hand::HidesProcesses(node.clone(), true), Hand::HidesProcesses(node, false)),
        4 | 5 => controllers_away(rng, node, at),
        6 => once(Hand::Starts(node)),
        7 => once(Hand::DefinesAndLosesPower(node)),
        8 => once(Hand::Migrates(node)),
        9 => once(Hand::OverwritesLease(node, nonsense(rng))),
        10 => restored_meanwhile(rng, node, at),
        _ => wiped_meanwhile(rng, at),
    }
}

fn nonsense(rng: &mut SmallRng) -> Nonsense {
    match rng.random_range(0..3) {
        0 => Nonsense::NoJson,
        1 => Nonsense::AnotherKind,
        _ => Nonsense::Large,
    }
}

/// Every controller is away for a while, as in an upgrade; something ends the VM, or a node, meanwhile.
fn controllers_away(rng: &mut SmallRng, node: NodeName, at: Duration) -> Trouble {
    let during = at + millis(rng, 0..3_000);
    let until = during + millis(rng, 200..9_000);
    let mut faults =
        vec![(at, Fault::ByHand(Hand::StopsControllers)), (until, Fault::ByHand(Hand::StartsControllers))];
    faults.extend(match rng.random_range(0..4) {
        0 => vec![(during, Fault::QemuDies)],
        1 => vec![(during, Fault::PowerLoss(node.clone())), (until, Fault::PowerOn(node))],
        2 => vec![(during, Fault::CutOwner), (until, Fault::MendOwners)],
        _ => Vec::new(),
    });
    (faults, until)
}

/// A restore as everybody does it: stop, restore, start. The VM has moved since the snapshot was taken.
fn restored_meanwhile(rng: &mut SmallRng, node: NodeName, at: Duration) -> Trouble {
    let moved = at + millis(rng, 100..2_000);
    let stopped = moved + millis(rng, 5_000..20_000);
    let restored = stopped + millis(rng, 100..3_000);
    let until = restored + millis(rng, 100..6_000);
    let faults = vec![
        (at, Fault::Snapshot),
        (moved, Fault::Migrate(node)),
        (stopped, Fault::ByHand(Hand::StopsControllers)),
        (restored, Fault::Restore),
        (until, Fault::ByHand(Hand::StartsControllers)),
    ];
    (faults, until)
}

fn wiped_meanwhile(rng: &mut SmallRng, at: Duration) -> Trouble {
    let wiped = at + millis(rng, 100..3_000);
    let until = wiped + millis(rng, 100..6_000);
    let faults = vec![
        (at, Fault::ByHand(Hand::StopsControllers)),
        (wiped, Fault::ByHand(Hand::Wipes)),
        (until, Fault::ByHand(Hand::StartsControllers)),
    ];
    (faults, until)
}

/// The faults that mend what these troubles may have left.
pub(super) fn mended(nodes: &[NodeName]) -> impl Iterator<Item = Fault> {
    let seen = nodes.iter().map(|node| Hand::HidesProcesses(node.clone(), false));
    seen.chain([Hand::Resumes]).map(Fault::ByHand)
}
