//! Rules on our own sections: timings under which no two copies can run, mounts, bridges, placement.
//!
//! Never here: how long anything takes on this machine.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::draft::{Draft, read};
use super::image::{climbing, entry_twice};
use super::nodes::each_once_and_known;
use crate::diagnostic::{Code, Finding, quoted};
use crate::document::{AbsolutePath, Availability, BridgeName, Mount, MountSource};
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
    let least = timings.least_fence_after_millis();
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
    sources(draft, found);
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

/// Each node mounts the same by the same words, so the words must mean one place, and mean it everywhere.
fn sources(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    for (at, mount) in draft.value("Mounts").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let Some(source) = read::<MountSource>(mount.get("Source")) else { continue };
        let fs_type =
            mount.get("FsType").map_or(Some(Mount::DEFAULT_FS_TYPE), Value::as_str).unwrap_or_default();
        let (source, is_nfs) = (source.as_str(), matches!(fs_type, "nfs" | "nfs4"));
        let problem = match source.split_once('=') {
            Some((tag, _)) if !tag.is_empty() && tag.chars().all(|c| c.is_ascii_alphabetic()) => Some((
                format!("must not be looked up by {tag}=, which is done on each node for itself"),
                "HOST:/PATH, or what the file system's own mount program takes",
            )),
            _ if is_nfs && !is_host_and_path(source) => Some((
                format!("must be HOST:/PATH where `FsType` is '{fs_type}'"),
                "HOST:/PATH, such as '10.0.0.9:/share/mngt'",
            )),
            _ => None,
        };
        if let Some((message, allowed)) = problem {
            let path = Path::spec().key("Mounts").index(at).key("Source");
            let finding = Finding::new(Code::BadSource, path, format!("{message}: {}", quoted(source)));
            found.push(
                finding
                    .allowed(allowed)
                    .hint("name the server and the folder it exports, as `showmount -e SERVER` lists it"),
            );
        }
    }
}

/// An IPv6 address stands in brackets; digits and dots alone are an IPv4 address.
fn is_host_and_path(source: &str) -> bool {
    let Some((host, _)) = source.split_once(":/") else { return false };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match inner {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None if host.chars().all(|c| c == '.' || c.is_ascii_digit()) => host.parse::<Ipv4Addr>().is_ok(),
        None => host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')),
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
    let path = Path::spec().key("Placement").key("Preferred");
    if let Some(preferred) = preferred {
        each_once_and_known(draft, &path, preferred, found);
    }
}
