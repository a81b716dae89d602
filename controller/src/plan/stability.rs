//! Decides whether this node loses its lease again and again. Such a node is fit, and the last to be given the VM.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use zsha_crds::records::{LostLease, NodeStatus};
use zsha_crds::{ConditionKind, condition};

use crate::world::World;

/// The reason of a node that is not stable.
const LOSES_LEASES: &str = "LosesLeases";

/// The number of lost leases within [`REMEMBERED`] that makes a node unstable.
const TOO_MANY: usize = 3;
const REMEMBERED: Duration = Duration::from_secs(3600);

/// The leases that this node has lost within the last hour, oldest first: by its own status, and by its keeper. The
/// status keeps them, so that they outlive every process of the node. One life is told from another by its epoch.
pub fn lost_leases(world: &World) -> Vec<LostLease> {
    let said = world.nodes.get(&world.me).map(|status| status.lost_leases.as_slice()).unwrap_or_default();
    let mut lost: Vec<_> = said.iter().filter(|lost| is_recent(world.wall, lost.at)).cloned().collect();
    let seen = world.lease.known().map(|verdict| verdict.lost.as_slice()).unwrap_or_default();
    for life in seen.iter().filter(|life| world.now.since(life.at) < REMEMBERED) {
        if lost.iter().all(|lost| lost.epoch != life.epoch) {
            let ago = SignedDuration::try_from(world.now.since(life.at)).unwrap_or_default();
            let at = world.wall.checked_sub(ago).unwrap_or(world.wall);
            lost.push(LostLease { epoch: life.epoch, at });
        }
    }
    lost.sort_by_key(|lost| lost.epoch);
    lost
}

/// True if the time is recent. A clock that was set back may make it a little later than now.
fn is_recent(now: Timestamp, at: Timestamp) -> bool {
    now.duration_since(at).unsigned_abs() < REMEMBERED
}

/// The condition `Stable` of this node.
pub fn stable(world: &World) -> (bool, &'static str, String) {
    let lost = lost_leases(world);
    match lost.as_slice() {
        [] => (true, "KeepsItsLease", "no lease was lost within the last hour".to_owned()),
        few if few.len() < TOO_MANY => {
            let message = format!("leases lost within the last hour: {}", few.len());
            (true, "KeepsItsLease", message)
        }
        [first, ..] => {
            let message = format!(
                "{} has lost {} leases since {}: it is the last to be given the VM until fewer than three lie within the last hour. Look \
                 at its network, its Consul agent and its load",
                world.me,
                lost.len(),
                first.at.strftime("%Y-%m-%d %H:%M:%SZ"),
            );
            (false, LOSES_LEASES, message)
        }
    }
}

/// True if a node's status says that it is not stable.
pub fn says_unstable(status: &NodeStatus) -> bool {
    condition::find(&status.conditions, ConditionKind::Stable)
        .is_some_and(|stable| stable.reason == LOSES_LEASES && !stable.is_true())
}
