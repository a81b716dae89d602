//! Machines and processes that stand still in ways that a kill or a cut does not show.

use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use zsha_crds::NodeName;

use super::{Fault, hypervisor, millis};
use crate::sim::freeze::Part;

type Trouble = (Vec<(Duration, Fault)>, Duration);

/// A length of time: short, or longer than any F but the longest.
fn length(rng: &mut SmallRng) -> Duration {
    if rng.random_bool(0.3) { millis(rng, 50..4_000) } else { millis(rng, 5_000..14_000) }
}

/// A controller that stands still between its last look and its act, often in the middle of a start or a move;
/// sometimes the keeper's loop stands still with it. The two go on one after the other.
pub(super) fn stalled(rng: &mut SmallRng, node: NodeName, at: Duration) -> Trouble {
    let until = at + length(rng);
    let later = until + millis(rng, 0..1_500);
    let mut faults = vec![(at, Fault::Freeze(node.clone(), Part::Controller))];
    if rng.random_bool(0.7) {
        faults.push((at, Fault::Freeze(node.clone(), Part::Renewing)));
        let (first, second) = if rng.random_bool(0.5) {
            (Part::Controller, Part::Renewing)
        } else {
            (Part::Renewing, Part::Controller)
        };
        faults.extend([(until, Fault::Thaw(node.clone(), first)), (later, Fault::Thaw(node, second))]);
        return begun_by(rng, at, faults, later);
    }
    faults.push((until, Fault::Thaw(node, Part::Controller)));
    begun_by(rng, at, faults, until)
}

/// The fault just before it that gives the controllers work.
fn begun_by(
    rng: &mut SmallRng,
    at: Duration,
    mut faults: Vec<(Duration, Fault)>,
    until: Duration,
) -> Trouble {
    if rng.random_bool(0.5) {
        let cause = if rng.random_bool(0.5) { Fault::QemuDies } else { Fault::GuestPowersOff };
        faults.insert(0, (at.saturating_sub(millis(rng, 1..400)), cause));
    }
    (faults, until)
}

/// A host that is suspended, and whose line may need a while to be back after it.
pub(super) fn suspended(rng: &mut SmallRng, node: NodeName, at: Duration) -> Trouble {
    let until = at + length(rng);
    if rng.random_bool(0.3) {
        return (vec![(at, Fault::Suspend(node.clone())), (until, Fault::Wake(node))], until);
    }
    let mut faults = vec![(at, Fault::SuspendHost)];
    if rng.random_bool(0.5) {
        faults.push((at, Fault::CutOwner));
    }
    // Wakes it before it is mended.
    faults.push((until, Fault::WakeHosts));
    let later = until + millis(rng, 0..4_000);
    faults.push((later, Fault::MendOwners));
    (faults, later)
}

/// A QEMU that no signal ends, and something for which it must end.
pub(super) fn stuck(rng: &mut SmallRng, node: NodeName, at: Duration) -> Trouble {
    let node = rng.random_bool(0.4).then_some(node);
    let during = at + millis(rng, 0..2_000);
    let until = during + length(rng);
    let later = until + millis(rng, 0..8_000);
    let mut faults = vec![(at, Fault::Stuck(node))];
    faults.extend(match rng.random_range(0..4) {
        0 | 1 => vec![(during, Fault::CutOwner), (until, Fault::MendOwners)],
        2 => vec![(during, Fault::QemuDies), (during + millis(rng, 0..3_000), Fault::CutOwner)],
        _ => vec![(during, Fault::Stop(None)), (until, Fault::Start)],
    });
    faults.extend([(later, Fault::Unstuck), (later, Fault::MendOwners)]);
    (faults, later)
}

/// An NFS server goes on holding the lock of a client that is gone.
pub(super) fn lock_outlives(rng: &mut SmallRng, at: Duration) -> Trouble {
    let held = millis(rng, 1_000..25_000);
    let back = at + millis(rng, 2_000..16_000);
    let over = (at + held).max(back);
    (vec![(at, Fault::LockOutlivesHost(held)), (back, Fault::MendOwners)], over)
}

/// A hypervisor that cannot be looked at, wherever the VM is, while something is to be done with the VM.
pub(super) fn blind(rng: &mut SmallRng, nodes: &[NodeName], at: Duration) -> Trouble {
    let during = at + millis(rng, 0..2_000);
    let until = during + millis(rng, 2_000..9_000);
    let fault = hypervisor(rng);
    let mut faults = Vec::new();
    for node in nodes {
        faults.push((at, Fault::Hypervisor(node.clone(), Some(fault))));
        faults.push((until, Fault::Hypervisor(node.clone(), None)));
    }
    faults.extend(match rng.random_range(0..4) {
        0 | 1 => vec![(during, Fault::Stop(None)), (until + millis(rng, 0..3_000), Fault::Start)],
        2 => vec![(during, Fault::CutOwner), (until, Fault::MendOwners)],
        _ => vec![(during, Fault::Migrate(nodes[rng.random_range(0..nodes.len())].clone()))],
    });
    (faults, until + Duration::from_secs(3))
}

/// A wall clock that is set by a second, an hour or years, forth or back.
pub(super) fn clock_steps(rng: &mut SmallRng, node: NodeName, at: Duration) -> Trouble {
    let by = [1, 3_600, 86_400, 300_000_000][rng.random_range(0..4)];
    let by = if rng.random_bool(0.5) { by } else { -by };
    let again = at + millis(rng, 500..9_000);
    let second = by * rng.random_range(-2..=2);
    (vec![(at, Fault::WallClockStep(node.clone(), by)), (again, Fault::WallClockStep(node, second))], again)
}
