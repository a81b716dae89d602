//! Rules on the guest's NICs: addresses that fit their subnets and nobody else's, one management NIC, one default
//! route, and the per-node form only where it can work.
//!
//! Never here: what is on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::{Ipv4Net, ipv4_mask_to_prefix};

use super::draft::{Draft, NicDraft};
use super::image::entry_twice;
use super::nodes::{unusable, unusable_address, unusable_host};
use crate::NodeName;
use crate::diagnostic::{Code, Finding, quoted};
use crate::document::{PerNode, TimeServer, Written};
use crate::path::Path;

pub(super) fn check(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    one_of(draft, "IsMgmt", Code::MgmtNicCount, "management NIC", |nic| nic.is_mgmt, found);
    one_of(
        draft,
        "IsDefRoute",
        Code::DefRouteCount,
        "NIC with the default route",
        |nic| nic.is_def_route,
        found,
    );
    macs(draft, found);
    for nic in &draft.nics {
        per_node(draft, nic, found);
        netmasks(nic, found);
        addresses(draft, nic, found);
        subnets(nic, found);
    }
    guest_addresses_once(draft, found);
    subnets_once(draft, found);
}

/// The guest's name servers, time sources and console proxy.
pub(super) fn check_services(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let guest = draft.guest_addresses();
    let mut seen = BTreeSet::new();
    for (path, server) in draft.entries::<TimeServer>("ChronyServers") {
        if let Some(finding) = unusable_host(path.clone(), server.host()) {
            found.push(finding.hint(
                "a listed server must not sync to itself: name a node, or a time source outside the cluster",
            ));
        }
        if server.host().parse().is_ok_and(|address: Ipv4Addr| guest.contains(&address)) {
            let message = format!(
                "must not be the guest itself, {}: a server may not follow its own clock",
                server.host()
            );
            found.push(
                Finding::new(Code::ChronyIsGuest, path.clone(), message)
                    .hint("name a node, or a time source outside the cluster"),
            );
        }
        if !seen.insert(server.host().to_ascii_lowercase()) {
            found.push(entry_twice(path, server.host()));
        }
    }
    let mut seen = BTreeSet::new();
    for (path, address) in draft.entries::<Written<Ipv4Addr>>("DNS") {
        if let Some(why) = unusable(*address).filter(|_| !address.is_loopback()) {
            found.push(unusable_address(path.clone(), *address, why));
        }
        if !seen.insert(*address) {
            found.push(entry_twice(path, &address.to_string()));
        }
    }
    if let Some(proxy) = draft.console_proxy() {
        let path = Path::spec().key("ConsoleProxyOverriddenIP");
        for (_, address) in proxy.values() {
            if let Some(why) = unusable(*address) {
                found.push(unusable_address(path.clone(), *address, why));
            }
        }
        names_every_node(draft, &path, &proxy, found);
    }
}

fn one_of(
    draft: &Draft<'_>,
    field: &str,
    code: Code,
    what: &str,
    is: impl Fn(&NicDraft) -> Option<bool>,
    found: &mut Vec<Finding>,
) {
    let yes: Vec<usize> = (0..draft.nics.len()).filter(|at| is(&draft.nics[*at]) == Some(true)).collect();
    let all_known = draft.nics.iter().all(|nic| is(nic).is_some());
    if yes.is_empty() && all_known && !draft.nics.is_empty() {
        let message = format!("must have exactly one {what}: no entry has `{field}: true`");
        found.push(
            Finding::new(code, Path::spec().key("Network"), message)
                .allowed(format!("`{field}: true` in exactly one entry"))
                .hint(format!("set `{field}` to true in the entry that is the {what}"))
                .at_key(),
        );
    }
    for at in yes.iter().skip(1) {
        let message = format!("must not be true here too: `Network[{}]` is the {what} already", yes[0]);
        found.push(
            Finding::new(code, draft.nics[*at].path.key(field), message)
                .allowed(format!("`{field}: true` in exactly one entry"))
                .hint("set one of the two to false"),
        );
    }
}

fn macs(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let mut seen = BTreeMap::new();
    for (at, nic) in draft.nics.iter().enumerate() {
        let Some(mac) = nic.mac else { continue };
        let path = nic.path.key("MacAddress");
        if !mac.is_unicast() {
            found.push(
                Finding::new(
                    Code::MacNotUnicast,
                    path.clone(),
                    format!("must be a unicast address, not '{mac}'"),
                )
                .allowed("a MAC address whose first byte is even, and not all zeros")
                .hint(format!("for instance '{}'", mac.as_local_unicast())),
            );
        }
        if mac.is_like_a_tap() {
            let message = format!("begins with fe, which libvirt keeps for the host's end of a NIC: '{mac}'");
            found.push(
                Finding::new(Code::MacLikeATap, path.clone(), message)
                    .allowed("a first byte other than fe, for every libvirt to take it")
                    .hint(format!(
                        "older versions refuse to start such a guest; for instance '{}'",
                        mac.as_local_unicast()
                    )),
            );
        }
        match seen.get(&mac) {
            Some(first) => found.push(
                Finding::new(
                    Code::MacTwice,
                    path,
                    format!("must not be the address of `Network[{first}]`, '{mac}'"),
                )
                .hint("give every NIC its own address, unique on its network"),
            ),
            None => {
                seen.insert(mac, at);
            }
        }
    }
}

fn per_node(draft: &Draft<'_>, nic: &NicDraft, found: &mut Vec<Finding>) {
    for (field, value) in nic.addresses() {
        let Some(value) = value.filter(|value| value.is_by_node()) else { continue };
        let path = nic.path.key(field);
        if nic.is_mgmt == Some(false) {
            found.push(
                Finding::new(
                    Code::PerNodeNotAllowed,
                    path.clone(),
                    "must be one address: only the management NIC may have one for each node",
                )
                .allowed("an IPv4 address")
                .hint("give one address, or set `IsMgmt` to true if this is the management NIC"),
            );
        }
        names_every_node(draft, &path, value, found);
    }
}

fn names_every_node(draft: &Draft<'_>, path: &Path, value: &PerNode<Ipv4Addr>, found: &mut Vec<Finding>) {
    let (PerNode::ByNode(values), Some(nodes)) = (value, draft.node_names()) else { return };
    let given: BTreeSet<&NodeName> = values.iter().map(|(name, _)| name).collect();
    let not_given = || nodes.iter().filter(|node| !given.contains(*node)).map(|node| node.as_str());
    let allowed = nodes.iter().map(|node| format!("IP@{node}")).collect::<Vec<_>>().join(", ");
    let mut named: BTreeSet<&NodeName> = BTreeSet::new();
    for (name, _) in values {
        if !nodes.contains(name) {
            let finding = Finding::new(
                Code::PerNodeUnknownNode,
                path.clone(),
                format!("must not name {}, which is no node of `Node`", quoted(name.as_str())),
            );
            let hint = match crate::nearest::nearest(name.as_str(), not_given()) {
                Some(near) => format!("did you mean '{near}'?"),
                None => "name every node of `Node` once, and nothing else".to_owned(),
            };
            found.push(finding.allowed(allowed.clone()).hint(hint));
        } else if !named.insert(name) {
            found.push(
                Finding::new(
                    Code::PerNodeNodeTwice,
                    path.clone(),
                    format!("must not name {} twice", quoted(name.as_str())),
                )
                .allowed(allowed.clone())
                .hint("remove one of the two"),
            );
        }
    }
    let missing: Vec<_> =
        nodes.iter().filter(|node| !named.contains(**node)).map(|node| quoted(node.as_str())).collect();
    if !missing.is_empty() {
        let message = format!("must name every node once, and does not name {}", missing.join(", "));
        found.push(
            Finding::new(Code::PerNodeMissingNode, path.clone(), message)
                .allowed(allowed)
                .hint("without an address the VM could not boot there"),
        );
    }
}

fn netmasks(nic: &NicDraft, found: &mut Vec<Finding>) {
    for (_, mask) in nic.netmask.iter().flat_map(PerNode::values) {
        let problem = match ipv4_mask_to_prefix(*mask) {
            Err(_) => Some("its one bits must stand together at the left"),
            Ok(prefix) if !(1..=30).contains(&prefix) => Some("it leaves no room for a guest and a gateway"),
            Ok(_) => None,
        };
        if let Some(problem) = problem {
            let message = format!("must be the mask of a subnet, not {mask}: {problem}");
            found.push(
                Finding::new(Code::BadNetmask, nic.path.key("Netmask"), message)
                    .allowed("masks from 128.0.0.0 to 255.255.255.252")
                    .hint("for a subnet of 256 addresses it is 255.255.255.0"),
            );
        }
    }
}

fn addresses(draft: &Draft<'_>, nic: &NicDraft, found: &mut Vec<Finding>) {
    for (field, value) in [("Ipaddr", &nic.ipaddr), ("Gateway", &nic.gateway)] {
        for (_, address) in value.iter().flat_map(PerNode::values) {
            if let Some(why) = unusable(*address) {
                found.push(unusable_address(nic.path.key(field), *address, why));
            }
        }
    }
    for (_, address) in nic.ipaddr.iter().flat_map(PerNode::values) {
        if let Some(node) = draft.nodes.iter().flatten().find(|node| node.address == *address) {
            let message =
                format!("must not be the address of a node: {address} is {}", quoted(node.name.as_str()));
            found.push(
                Finding::new(Code::GuestIsNode, nic.path.key("Ipaddr"), message)
                    .hint("give the guest an address of its own"),
            );
        }
    }
}

/// Guest and gateway on every node the NIC has values for.
fn subnets(nic: &NicDraft, found: &mut Vec<Finding>) {
    let names: BTreeSet<&NodeName> = nic
        .addresses()
        .iter()
        .filter_map(|(_, value)| *value)
        .flat_map(PerNode::values)
        .filter_map(|(name, _)| name)
        .collect();
    let places: Vec<Option<&NodeName>> =
        if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
    for node in places {
        let at = |value: &Option<PerNode<Ipv4Addr>>| match (value, node) {
            (Some(PerNode::Same(address)), _) => Some(*address),
            (Some(value), Some(node)) => value.for_node(node).copied(),
            _ => None,
        };
        let (guest, mask, gateway) = (at(&nic.ipaddr), at(&nic.netmask), at(&nic.gateway));
        if let (Some(guest), Some(gateway)) = (guest, gateway)
            && guest == gateway
        {
            let message = format!("must not be the guest's own address{}, {gateway}", on(node));
            let finding = Finding::new(Code::GatewayIsGuest, nic.path.key("Gateway"), message);
            found.push(finding.hint("give the router's address"));
        }
        let Some(subnet) = guest.zip(mask).and_then(|(guest, mask)| Ipv4Net::with_netmask(guest, mask).ok())
        else {
            continue;
        };
        if (1..=30).contains(&subnet.prefix_len()) {
            in_subnet(nic, node, &subnet, gateway, found);
        }
    }
}

fn in_subnet(
    nic: &NicDraft,
    node: Option<&NodeName>,
    subnet: &Ipv4Net,
    gateway: Option<Ipv4Addr>,
    found: &mut Vec<Finding>,
) {
    let last = u32::from(subnet.broadcast()) - 1;
    let allowed = format!("{} to {}", Ipv4Addr::from(u32::from(subnet.network()) + 1), Ipv4Addr::from(last));
    let is_edge = |address: Ipv4Addr| address == subnet.network() || address == subnet.broadcast();
    if is_edge(subnet.addr()) {
        let message =
            format!("must be the address of a host of {}{}, not {}", subnet.trunc(), on(node), subnet.addr());
        found.push(
            Finding::new(Code::UnusableAddress, nic.path.key("Ipaddr"), message)
                .allowed(allowed.clone())
                .hint("the first and the last address of a subnet are the network's own and the broadcast"),
        );
    }
    if let Some(gateway) = gateway.filter(|gateway| !subnet.contains(gateway) || is_edge(*gateway)) {
        let message =
            format!("must be inside the guest's subnet {}{}, not {gateway}", subnet.trunc(), on(node));
        found.push(
            Finding::new(Code::GatewayOutside, nic.path.key("Gateway"), message)
                .allowed(allowed)
                .hint("check `Gateway`, `Ipaddr` and `Netmask` against one another"),
        );
    }
}

fn on(node: Option<&NodeName>) -> String {
    node.map_or_else(String::new, |node| format!(" on {}", quoted(node.as_str())))
}

/// No NIC has another NIC's address, and none the address of another NIC's gateway.
fn guest_addresses_once(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    for (at, nic) in draft.nics.iter().enumerate() {
        let mine: BTreeSet<Ipv4Addr> = nic.ipaddr.iter().flat_map(PerNode::values).map(|(_, a)| *a).collect();
        for (other_at, other) in draft.nics.iter().enumerate().filter(|(other_at, _)| *other_at != at) {
            let has = |value: &Option<PerNode<Ipv4Addr>>| {
                value.iter().flat_map(PerNode::values).map(|(_, a)| *a).find(|address| mine.contains(address))
            };
            if let Some(address) = has(&other.ipaddr).filter(|_| other_at < at) {
                let message = format!("must not be the address of `Network[{other_at}]` too, {address}");
                let finding = Finding::new(Code::GuestAddressTwice, nic.path.key("Ipaddr"), message);
                found.push(finding.hint("give every NIC an address of its own"));
            }
            if let Some(address) = has(&other.gateway) {
                let message = format!("must not be the gateway of `Network[{other_at}]`, {address}");
                let finding = Finding::new(Code::GatewayIsGuest, nic.path.key("Ipaddr"), message);
                found.push(finding.hint("give the guest an address of its own"));
            }
        }
    }
}

/// A guest answers by one of two NICs that are in one subnet, whichever it was asked by.
fn subnets_once(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let same_everywhere = |nic: &NicDraft| match (&nic.ipaddr, &nic.netmask) {
        (Some(PerNode::Same(address)), Some(PerNode::Same(mask))) => {
            Ipv4Net::with_netmask(*address, *mask).ok().map(|net| net.trunc())
        }
        _ => None,
    };
    let nets: Vec<Option<Ipv4Net>> = draft.nics.iter().map(same_everywhere).collect();
    for (at, net) in nets.iter().enumerate() {
        let overlaps = |other: &Ipv4Net| net.is_some_and(|net| net.contains(other) || other.contains(&net));
        let earlier = nets[..at].iter().position(|other| other.as_ref().is_some_and(overlaps));
        if let (Some(first), Some(net)) = (earlier, net) {
            let message = format!("makes its subnet {net} overlap with that of `Network[{first}]`");
            found.push(
                Finding::new(Code::SubnetsOverlap, draft.nics[at].path.key("Ipaddr"), message)
                    .hint("give each NIC a subnet of its own: the guest answers by one of the two, whichever it was asked by"),
            );
        }
    }
}
