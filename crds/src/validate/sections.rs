//! Our own sections: timings under which no two copies can run, mounts, bridges, placement.
//!
//! Never here: how long anything takes on this machine.

use std::collections::BTreeSet;

use serde_json::Value;

use super::draft::{Draft, read};
use super::image::{climbing, entry_twice};
use crate::NodeName;
use crate::diagnostic::{Code, Finding, quoted};
use crate::document::{AbsolutePath, Availability, BridgeName};
use crate::path::Path;
use crate::records::LeaseTimings;

/// Measured: with `raft_multiplier: 1` writes stop for about this long when Consul's leader dies.
const CONSUL_ELECTION_MILLIS: u64 = 3_500;

pub(super) fn check(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    timings(draft, found);
    mounts(draft, found);
    bridges(draft, found);
    placement(draft, found);
}

fn seconds(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn timings(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let Some(given) = draft.field::<Availability>("Availability") else { return };
    let timings = given.timings();
    let section = Path::spec().key("Availability");
    // At what the person wrote: of the values in question, the first that is there.
    let place = |keys: &[&str]| {
        let written =
            |key: &&&str| draft.value("Availability").is_some_and(|section| section.get(**key).is_some());
        keys.iter().find(written).map_or_else(|| section.clone(), |key| section.key(key))
    };
    if timings.renew_millis >= timings.ttl_millis {
        let (renew, ttl) = (seconds(timings.renew_millis), seconds(timings.ttl_millis));
        let message = format!("must make `RenewSeconds` ({renew}) less than `TtlSeconds` ({ttl})");
        found.push(
            Finding::new(Code::UnsafeTimings, place(&["RenewSeconds", "TtlSeconds"]), message)
                .allowed(format!("`RenewSeconds` below {ttl}"))
                .hint("a lease must be renewed several times before it runs out; a sixth of `TtlSeconds` is usual"),
        );
    }
    let least = timings.ttl_millis + timings.kill_millis + timings.margin_millis();
    if timings.fence_after_millis < least {
        let message = format!(
            "must make `FenceAfterSeconds` ({}) at least {}: `TtlSeconds` ({}) + `KillSeconds` ({}) + margin ({})",
            seconds(timings.fence_after_millis),
            seconds(least),
            seconds(timings.ttl_millis),
            seconds(timings.kill_millis),
            seconds(timings.margin_millis()),
        );
        found.push(
            Finding::new(
                Code::UnsafeTimings,
                place(&["FenceAfterSeconds", "TtlSeconds", "KillSeconds"]),
                message,
            )
            .allowed(format!("`FenceAfterSeconds` of {} or more", seconds(least)))
            .hint("with less, another node could start the VM while the first copy still runs"),
        );
    }
    if timings.is_safe() {
        lease_short(&timings, place(&["TtlSeconds", "RenewSeconds"]), found);
    }
}

fn lease_short(timings: &LeaseTimings, path: Path, found: &mut Vec<Finding>) {
    let request_millis = u64::try_from(timings.request_timeout().as_millis()).unwrap_or(u64::MAX);
    let least = CONSUL_ELECTION_MILLIS + timings.renew_millis + 2 * request_millis;
    if timings.ttl_millis < least {
        let message = format!(
            "makes `TtlSeconds` ({}) too short to outlast an election of Consul's leader",
            seconds(timings.ttl_millis)
        );
        found.push(
            Finding::new(Code::LeaseShort, path, message)
                .allowed(format!(
                    "{} or more, for the VM to survive the loss of a Consul server",
                    seconds(least)
                ))
                .hint("raise it, or leave it out for the profile's value"),
        );
    }
}

fn mounts(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (path, target) in draft.column::<AbsolutePath>("Mounts", "Target") {
        if target.canonical().as_str() == "/" {
            let message = format!("must not be the root folder: {}", quoted(target.as_str()));
            let finding = Finding::new(Code::BadPath, path.clone(), message);
            found.push(finding.hint("mount it below, for instance at '/opt/smp/mngt/'"));
        }
        if let Some(finding) = climbing(path.clone(), target.as_str()) {
            found.push(finding);
        }
        if !seen.insert(target.canonical()) {
            found.push(entry_twice(path, target.as_str()));
        }
    }
}

fn bridges(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (path, name) in draft.column::<BridgeName>("Bridges", "Name") {
        if !seen.insert(name.clone()) {
            found.push(entry_twice(path, name.as_str()));
        }
    }
}

fn placement(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let preferred =
        draft.value("Placement").and_then(|section| section.get("Preferred")).and_then(Value::as_array);
    let names: Vec<(usize, NodeName)> = preferred
        .into_iter()
        .flatten()
        .enumerate()
        .filter_map(|(at, name)| Some((at, read::<NodeName>(Some(name))?)))
        .collect();
    let path = Path::spec().key("Placement").key("Preferred");
    let nodes = draft.node_names();
    let known = nodes.iter().flatten().map(|node| quoted(node.as_str())).collect::<Vec<_>>().join(", ");
    let listed: BTreeSet<&NodeName> = names.iter().map(|(_, name)| name).collect();
    let mut seen = BTreeSet::new();
    for (at, name) in &names {
        if let Some(nodes) = nodes.as_ref().filter(|nodes| !nodes.contains(name)) {
            let free = nodes.iter().filter(|node| !listed.contains(*node)).map(|node| node.as_str());
            let hint = match crate::nearest::nearest(name.as_str(), free) {
                Some(near) => format!("did you mean '{near}'?"),
                None => "name a node, or remove it".to_owned(),
            };
            let message = format!("must be a node of `Node`, not {}", quoted(name.as_str()));
            let finding = Finding::new(Code::UnknownNode, path.index(*at), message);
            found.push(finding.allowed(known.clone()).hint(hint));
        }
        if !seen.insert(name) {
            found.push(entry_twice(path.index(*at), name.as_str()));
        }
    }
}
