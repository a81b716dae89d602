//! Rules on the nodes: how many, and how many of them vote in Consul; each name and each address once, addresses a host
//! can have.
//!
//! Never here: whether a node answers.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::draft::{Draft, read};
use super::image::entry_twice;
use crate::diagnostic::{Code, Finding, quoted};
use crate::path::Path;
use crate::{HaCluster, NodeName};

pub(super) fn check(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    count(draft, found);
    servers(draft, found);
    for (at, node) in draft.nodes.iter().enumerate() {
        let Some(node) = node else { continue };
        let path = Path::spec().key("Node").index(at);
        if let Some(why) = unusable(node.address) {
            found.push(unusable_address(path.clone(), node.address, why));
        }
        if is_local(node.name.as_str()) {
            found.push(unusable_name(path.clone(), node.name.as_str()));
        }
        let earlier =
            || draft.nodes[..at].iter().enumerate().filter_map(|(at, node)| Some((at, node.as_ref()?)));
        let same_name = |name: &str| name.eq_ignore_ascii_case(node.name.as_str());
        if let Some((first, _)) = earlier().find(|(_, other)| same_name(other.name.as_str())) {
            found.push(
                Finding::new(
                    Code::NodeNameTwice,
                    path.clone(),
                    format!("must not have the name of `Node[{first}]`, {}", quoted(node.name.as_str())),
                )
                .hint(
                    "give every node the host name it has; capital and small letters do not make two names",
                ),
            );
        }
        if let Some((first, _)) = earlier().find(|(_, other)| other.address == node.address) {
            found.push(
                Finding::new(
                    Code::NodeAddressTwice,
                    path,
                    format!("must not have the address of `Node[{first}]`, {}", node.address),
                )
                .hint("give every node its own address, the one its Consul agent talks at"),
            );
        }
    }
}

fn count(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let count = draft.value("Node").and_then(Value::as_array).map_or(0, Vec::len);
    if count >= 3 && count.is_multiple_of(2) && draft.value("Servers").is_none() {
        found.push(
            Finding::new(
                Code::NodeCountEven,
                Path::spec().key("Node"),
                format!("must have an odd number of entries, not {count}"),
            )
            .allowed(super::NODE_COUNTS)
            .hint(format!(
                "{count} nodes survive no more failures than {} do: add one or remove one, or name in `Servers` which \
                 of them vote in Consul",
                count - 1
            ))
            .at_key(),
        );
    }
}

/// Consul's servers vote, so that an even number of them survives no more than one fewer does.
fn servers(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let Some(given) = draft.value("Servers").and_then(Value::as_array) else { return };
    let (count, path) = (given.len(), Path::spec().key("Servers"));
    if !(3..=HaCluster::MOST_SERVERS).contains(&count) || count.is_multiple_of(2) {
        let message = format!("must name 3, 5 or 7 nodes, not {count}");
        found.push(
            Finding::new(Code::ServerCount, path.clone(), message)
                .allowed("3, 5 or 7 nodes of `Node`")
                .hint(
                    "3 survive the loss of 1 server, 5 of 2, 7 of 3; an odd number of nodes may leave it out",
                )
                .at_key(),
        );
    }
    each_once_and_known(draft, &path, given, found);
}

/// Finds names in a list that are of no node, or there twice.
pub(super) fn each_once_and_known(draft: &Draft<'_>, path: &Path, given: &[Value], found: &mut Vec<Finding>) {
    let names: Vec<(usize, NodeName)> =
        given.iter().enumerate().filter_map(|(at, name)| Some((at, read::<NodeName>(Some(name))?))).collect();
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

/// The reason why no host can have the address.
pub(super) fn unusable(address: Ipv4Addr) -> Option<&'static str> {
    match address {
        _ if address.octets()[0] == 0 => Some("it is not the address of any host"),
        _ if address.is_loopback() => Some("it is a loopback address, another on every host"),
        _ if address.is_multicast() => Some("it is a multicast address"),
        _ if address.octets()[0] >= 240 => Some("it is from the reserved range"),
        _ if address.is_link_local() => Some("it is a link-local address, not routed and not stable"),
        _ => None,
    }
}

pub(super) fn unusable_address(path: Path, address: Ipv4Addr, why: &str) -> Finding {
    Finding::new(
        Code::UnusableAddress,
        path,
        format!("must be an address a host can have, not {address}: {why}"),
    )
    .allowed("IPv4 unicast addresses")
    .hint("give the address it is reached at from the other hosts")
}

/// True if every host means itself by the name.
fn is_local(name: &str) -> bool {
    let mut labels = name.split('.');
    let is = |label: Option<&str>| label.is_some_and(|label| label.eq_ignore_ascii_case("localhost"));
    is(labels.next()) || is(labels.next_back())
}

fn unusable_name(path: Path, name: &str) -> Finding {
    let message = format!("must be named as other hosts know it, not {}", quoted(name));
    Finding::new(Code::UnusableAddress, path, message)
        .allowed("the host name it has on the network")
        .hint("every host means itself by this name")
}

/// Finds a host in a list of servers that no other host can reach, or that every host takes for itself, by name or by
/// address.
pub(super) fn unusable_host(path: Path, host: &str) -> Option<Finding> {
    match host.parse::<Ipv4Addr>() {
        Ok(address) => unusable(address).map(|why| unusable_address(path, address, why)),
        Err(_) => is_local(host).then(|| unusable_name(path, host)),
    }
}
