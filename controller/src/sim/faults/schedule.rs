//! Draws faults and their times from the seed: a few troubles, and what mends each. Never here: what a fault is.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use zsha_crds::NodeName;

use super::{Fault, calls, hands, lines, machines, moves};
use crate::hypervisor::simulated;
use crate::sim::freeze::Part;
use crate::sim::operator::Profile;

/// Faults in order of time, and the time when the last of them is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    pub faults: Vec<(Duration, Fault)>,
    pub over: Duration,
}

/// Troubles begin before this time, in milliseconds.
const BEGIN: u64 = 16_000;

impl Schedule {
    /// Draws two to six troubles, each mended within some seconds; in a third of the runs the owner is lost after that.
    pub fn draw(rng: &mut SmallRng, nodes: &[NodeName]) -> Self {
        let mut faults = Vec::new();
        let mut over = Duration::from_secs(5);
        let mut at = Duration::ZERO;
        for _ in 0..rng.random_range(2..=6) {
            // Some troubles begin while the one before goes on: what is rare alone is found in pairs.
            at = if at > Duration::ZERO && rng.random_bool(0.3) {
                at + millis(rng, 0..3_000)
            } else {
                millis(rng, 500..BEGIN)
            };
            let (trouble, end) = trouble(rng, nodes, at);
            faults.extend(trouble);
            over = over.max(end);
        }
        let left = Left::by(&faults);
        faults.sort_by_key(|(at, _)| *at);
        faults.extend(all_mended(nodes, &left).map(|fault| (over, fault)));
        if rng.random_bool(1.0 / 3.0) {
            over += millis(rng, 0..6_000);
            let otherwise = nodes[rng.random_range(0..nodes.len())].clone();
            faults.push((over, Fault::Lost { power: rng.random_bool(0.5), otherwise }));
        }
        Self { faults, over }
    }
}

pub(super) fn millis(rng: &mut SmallRng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(range))
}

/// The things that only some troubles leave behind.
struct Left {
    /// True if starts have failed: only the next document gives back the tries that they used up.
    starts_failed: bool,
    frozen: bool,
    drained: bool,
}

impl Left {
    fn by(faults: &[(Duration, Fault)]) -> Self {
        let any = |is: fn(&Fault) -> bool| faults.iter().any(|(_, fault)| is(fault));
        Self {
            starts_failed: any(|fault| matches!(fault, Fault::StartsFail(..))),
            frozen: any(|fault| matches!(fault, Fault::Frozen(_))),
            drained: any(|fault| matches!(fault, Fault::Drain(..))),
        }
    }
}

/// The faults that mend everything at the end, since troubles may overlap and a later one may have left something.
fn all_mended<'a>(nodes: &'a [NodeName], left: &Left) -> impl Iterator<Item = Fault> + use<'a> {
    let of_nodes = nodes.iter().flat_map(|node| {
        [
            Fault::Mend(node.clone()),
            Fault::CatchUp(node.clone()),
            Fault::Continue(node.clone()),
            Fault::Wake(node.clone()),
            Fault::Thaw(node.clone(), Part::Enforcing),
            Fault::Thaw(node.clone(), Part::Renewing),
            Fault::Thaw(node.clone(), Part::Controller),
            Fault::Hypervisor(node.clone(), None),
            Fault::StartsFail(node.clone(), false),
            Fault::HostRepaired(node.clone()),
            Fault::PowerOn(node.clone()),
            Fault::StartKeeper(node.clone()),
            Fault::StartController(node.clone()),
        ]
    });
    let again = left.starts_failed.then_some(Fault::Apply { profile: None, memory_gib: 12 });
    let resumed = left.frozen.then_some(Fault::Frozen(false));
    let uncordoned = if left.drained { nodes } else { &[] };
    let taken_back =
        resumed.into_iter().chain(uncordoned.iter().map(|node| Fault::Drain(node.clone(), false)));
    // First of all: what a call has taken down is mended with all the rest.
    let first = std::iter::once(Fault::CallsMended);
    first
        .chain(of_nodes)
        .chain([
            Fault::StoreUp,
            Fault::LeaderElected,
            Fault::Unstuck,
            Fault::Start,
            Fault::MendOwners,
            Fault::Lossy(false),
            Fault::Migrations(None),
        ])
        .chain(hands::mended(nodes))
        .chain(taken_back)
        .chain(again)
}

/// One trouble, the faults that mend it, and the time when it is over.
fn trouble(rng: &mut SmallRng, nodes: &[NodeName], at: Duration) -> (Vec<(Duration, Fault)>, Duration) {
    let node = nodes[rng.random_range(0..nodes.len())].clone();
    // Short blips and long outages, the lengths around F and D most of all.
    let length = match rng.random_range(0..3) {
        0 => millis(rng, 50..2_000),
        1 => millis(rng, 5_000..12_000),
        _ => millis(rng, 2_000..16_000),
    };
    let until = at + length;
    let pair = |begin: Fault, end: Fault| (vec![(at, begin), (until, end)], until);
    let once = |fault: Fault| (vec![(at, fault)], at);
    match rng.random_range(0..54) {
        0 | 1 => pair(Fault::PowerLoss(node.clone()), Fault::PowerOn(node)),
        2 | 3 => pair(Fault::Cut(node.clone()), Fault::Mend(node)),
        4 => pair(Fault::StoreDown, Fault::StoreUp),
        5 => pair(Fault::StopController(node.clone()), Fault::StartController(node)),
        // A dead keeper is started again at once, by systemd; while it is dead nobody enforces.
        6 => {
            let again = at + Duration::from_millis(200);
            (vec![(at, Fault::StopKeeper(node.clone())), (again, Fault::StartKeeper(node))], again)
        }
        7 => pair(Fault::Pause(node.clone()), Fault::Continue(node)),
        8 => once(Fault::QemuDies),
        9 => once(Fault::GuestPowersOff),
        10 => pair(Fault::Stop(None), Fault::Start),
        11 | 12 => pair(Fault::Lossy(true), Fault::Lossy(false)),
        13 => pair(Fault::Hypervisor(node.clone(), Some(hypervisor(rng))), Fault::Hypervisor(node, None)),
        14 => {
            let step = at + length.mul_f64(rng.random());
            (
                vec![
                    (at, Fault::Lag(node.clone())),
                    (step, Fault::Lag(node.clone())),
                    (until, Fault::CatchUp(node)),
                ],
                until,
            )
        }
        15 => once(apply(rng)),
        16 => pair(Fault::StartsFail(node.clone(), true), Fault::StartsFail(node, false)),
        17 if rng.random_bool(0.5) => (vec![(at, Fault::ImageLocked(length))], until),
        17 => pair(Fault::BridgeMissing(node.clone()), Fault::HostRepaired(node)),
        18 => once(Fault::DeleteLease(node)),
        19 => start_cut_off(rng, at),
        20..=23 => moves::migration(rng, nodes, at),
        24 => fading(rng, at),
        43 | 44 => restored(rng, at),
        45 => moves::frozen(rng, node, at, until),
        46 | 47 => moves::drained(rng, node, at),
        48..=53 => hands::drawn(rng, node, at, until),
        25..=27 => calls::fail(rng, node, at, until),
        28 => lines::flap(rng, node, at),
        29 | 30 => lines::one_way(rng, node, at, until),
        31 | 32 => lines::leader_lost(rng, at),
        33 | 34 => machines::stalled(rng, node, at),
        35 | 36 => machines::suspended(rng, node, at),
        37 | 38 => machines::stuck(rng, node, at),
        39 => machines::lock_outlives(rng, at),
        40 => machines::blind(rng, nodes, at),
        _ => machines::clock_steps(rng, node, at),
    }
}

/// A snapshot of the store, and its restore some time later.
fn restored(rng: &mut SmallRng, at: Duration) -> (Vec<(Duration, Fault)>, Duration) {
    let until = at + millis(rng, 6_000..26_000);
    (vec![(at, Fault::Snapshot), (until, Fault::Restore)], until)
}

/// A line that fails slowly: answers come ever later, then not at all.
fn fading(rng: &mut SmallRng, at: Duration) -> (Vec<(Duration, Fault)>, Duration) {
    let gone = at + millis(rng, 500..4_000);
    let until = gone + millis(rng, 3_000..14_000);
    (vec![(at, Fault::SlowOwner), (gone, Fault::CutOwner), (until, Fault::MendOwners)], until)
}

/// A start that waits for the image on a node that meanwhile loses its network, and so its lease.
fn start_cut_off(rng: &mut SmallRng, at: Duration) -> (Vec<(Duration, Fault)>, Duration) {
    let locked = millis(rng, 6_500..12_000);
    let until = at + locked + millis(rng, 1_000..6_000);
    let faults = vec![
        (at, Fault::ImageLocked(locked)),
        (at, Fault::QemuDies),
        (at + millis(rng, 100..1_500), Fault::CutOwner),
        (until, Fault::MendOwners),
    ];
    (faults, until)
}

pub(super) fn hypervisor(rng: &mut SmallRng) -> simulated::Fault {
    match rng.random_range(0..4) {
        0 => simulated::Fault::Unreachable,
        1 => simulated::Fault::Hangs,
        2 => simulated::Fault::AnswersLost,
        _ => simulated::Fault::Late(millis(rng, 100..12_000)),
    }
}

fn apply(rng: &mut SmallRng) -> Fault {
    let profile = rng.random_bool(0.8).then(|| profile(rng));
    Fault::Apply { profile, memory_gib: rng.random_range(8..=16) }
}

/// The profile of a run. `Fast` is the most frequent: it leaves the least time between what must happen in order.
pub fn profile(rng: &mut SmallRng) -> Profile {
    match rng.random_range(0..6) {
        0..3 => Profile::Fast,
        3 | 4 => Profile::Balanced,
        _ => Profile::Patient,
    }
}
