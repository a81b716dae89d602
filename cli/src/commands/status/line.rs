//! A status as one line, for logs and pipes.

use zsha_crds::ConditionKind;
use zsha_crds::status::ClusterStatus;

use crate::output::escape::plain;

/// `2026-11-22T10:00:00Z mnvm Running on nfs-1 (generation 4); nfs-1 Held, nfs-2 Held, nfs-3 Held; healthy`.
pub(super) fn line(status: &ClusterStatus) -> String {
    let vm = &status.vm;
    let place = vm.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    let generation = status.generation.map(|at| format!(" (generation {at})")).unwrap_or_default();
    let leases: Vec<String> =
        status.nodes.iter().map(|node| format!("{} {:?}", node.name, node.lease)).collect();
    let wrong: Vec<String> = [ConditionKind::Ready, ConditionKind::Protected, ConditionKind::StoreReachable]
        .into_iter()
        .filter_map(|kind| status.condition(kind))
        .filter(|condition| condition.status != zsha_crds::ConditionStatus::True)
        .map(|condition| format!("{}: {}", condition.reason, plain(&condition.message)))
        .collect();
    let health = if wrong.is_empty() { "healthy".to_owned() } else { wrong.join("; ") };
    let leases = if leases.is_empty() { "no nodes".to_owned() } else { leases.join(", ") };
    // To the second: a log has no use for more.
    let at = status.as_of.strftime("%Y-%m-%dT%H:%M:%SZ");
    format!("{at} {} {}{place}{generation}; {leases}; {health}", vm.name, vm.state)
}
