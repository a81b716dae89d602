//! Rules on the nodes: an odd number, each name and each address once, addresses a host can have.
//!
//! Never here: whether a node answers.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::draft::Draft;
use crate::diagnostic::{Code, Finding, quoted};
use crate::path::Path;

pub(super) fn check(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    count(draft, found);
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
    if count >= 3 && count.is_multiple_of(2) {
        found.push(
            Finding::new(
                Code::NodeCountEven,
                Path::spec().key("Node"),
                format!("must have an odd number of entries, not {count}"),
            )
            .allowed("3, 5, 7, ... nodes")
            .hint(format!(
                "{count} nodes survive no more failures than {} do: add one or remove one",
                count - 1
            ))
            .at_key(),
        );
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
