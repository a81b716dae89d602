//! Lines that fail in other ways than by being cut for a while, and a store without a leader.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use zsha_crds::NodeName;

use super::{Fault, millis};
use crate::sim::net::Way;

type Trouble = (Vec<(Duration, Fault)>, Duration);

fn way(rng: &mut SmallRng) -> Way {
    match rng.random_range(0..3) {
        0 => Way::Both,
        1 => Way::Answers,
        _ => Way::Requests,
    }
}

/// The cut of part of a line, and its repair: of this node, or of the node that is the owner when it begins.
fn severed(node: Option<&NodeName>, way: Way, flapping: bool) -> (Fault, Fault) {
    let begin = Fault::Sever { node: node.cloned(), way, flapping };
    (begin, node.map_or(Fault::MendOwners, |node| Fault::Mend(node.clone())))
}

/// A line on which requests arrive and answers do not, or the other way round.
pub(super) fn one_way(rng: &mut SmallRng, node: NodeName, at: Duration, until: Duration) -> Trouble {
    let node = rng.random_bool(0.4).then_some(node);
    let way = if rng.random_bool(0.5) { Way::Answers } else { Way::Requests };
    let (begin, end) = severed(node.as_ref(), way, false);
    (vec![(at, begin), (until, end)], until)
}

/// A line that is cut and mended several times in quick succession, not always both ways.
pub(super) fn flap(rng: &mut SmallRng, node: NodeName, at: Duration) -> Trouble {
    let node = rng.random_bool(0.4).then_some(node);
    // A line that is gone for most of the time, or for little of it.
    let (gone, back) = if rng.random_bool(0.5) { (1_500, 300) } else { (300, 1_500) };
    let mut faults = Vec::new();
    let mut at = at;
    for _ in 0..rng.random_range(3..=9) {
        let (begin, end) = severed(node.as_ref(), way(rng), true);
        let mended = at + millis(rng, 20..gone);
        faults.extend([(at, begin), (mended, end)]);
        at = mended + millis(rng, 20..back);
    }
    (faults, at)
}

pub(super) fn leader_lost(rng: &mut SmallRng, at: Duration) -> Trouble {
    let until = at + millis(rng, 1_000..5_000);
    (vec![(at, Fault::LeaderLost), (until, Fault::LeaderElected)], until)
}
