//! What the guest is told of its surroundings when it boots: addresses, name servers, time sources, the address of its
//! console proxy. [`GuestWants`] is that as the document says it, [`GuestConfig`] the part of it for one node.
//!
//! Values only: the guest is handed them on a disk ([`seed`], which the host puts in its place), and without cloud-init
//! through its agent ([`agent`], by [`telling`]).

pub mod agent;
pub mod seed;
pub mod telling;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use zsha_crds::document::{HaCluster, Nic, PerNode};
use zsha_crds::{NodeName, VmName};

pub use seed::Seed;

/// Whose password an operator may have reset, and to what: that of the images of zsha 2.5.1, and known to everybody.
pub const ROOT: &str = "root";
pub const DEFAULT_PASSWORD: &str = "password";

/// The document's wishes for the inside of the guest, for all nodes. Two are equal where a guest that boots would see
/// no difference on any node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestWants {
    pub nics: Vec<NicWants>,
    pub dns: Vec<Ipv4Addr>,
    /// Names or addresses, as chrony takes them.
    pub time_servers: Vec<String>,
    pub console_proxy: Option<PerNode<Ipv4Addr>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicWants {
    /// The MAC address in lower case, as the kernel prints it.
    pub mac: String,
    pub address: PerNode<Ipv4Addr>,
    pub netmask: PerNode<Ipv4Addr>,
    pub gateway: PerNode<Ipv4Addr>,
    pub is_management: bool,
    pub is_default_route: bool,
}

/// The same where the guest boots on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// The NICs in the order of the document, which is that of the guest's buses.
    pub nics: Vec<NicConfig>,
    pub dns: Vec<Ipv4Addr>,
    pub time_servers: Vec<String>,
    pub console_proxy: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicConfig {
    pub mac: String,
    /// The guest's own address, with the prefix of its subnet.
    pub address: Ipv4Net,
    /// The gateway of its subnet. That of one NIC is the guest's default route; that of each other answers what came in
    /// by that NIC.
    pub gateway: Ipv4Addr,
    pub is_default_route: bool,
    pub is_management: bool,
}

/// A routing table of the guest's for one NIC: what is sent from the NIC's address leaves by the NIC's own gateway, so
/// that whoever is in another subnet, and reaches the guest by that address, has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WayBack<'a> {
    pub nic: &'a NicConfig,
    /// The number of the table, and the preference of the rule that leads to it: before the guest's main table.
    pub table: usize,
}

/// The first table's number: below 253, as some tools know no more, and away from those that distributions take.
const FIRST_TABLE: usize = 170;

impl GuestConfig {
    /// A routing table for each NIC that has not the default route.
    pub fn ways_back(&self) -> impl Iterator<Item = WayBack<'_>> {
        let nics = self.nics.iter().enumerate();
        nics.filter(|(_, nic)| !nic.is_default_route)
            .map(|(place, nic)| WayBack { nic, table: FIRST_TABLE + place })
    }
}

impl GuestWants {
    pub fn from_document(document: &HaCluster) -> Self {
        Self {
            nics: document.nics().iter().map(nic).collect(),
            dns: document.dns(),
            time_servers: document.chrony_servers().into_iter().map(str::to_owned).collect(),
            console_proxy: document.console_proxy().map(PerNode::sorted),
        }
    }

    /// None where the document gives this node no value of one that it gives by node: it is no node of the document.
    pub fn on(&self, node: &NodeName) -> Option<GuestConfig> {
        let console_proxy = match &self.console_proxy {
            Some(given) => Some(*given.for_node(node)?),
            None => None,
        };
        Some(GuestConfig {
            nics: self.nics.iter().map(|nic| nic.on(node)).collect::<Option<_>>()?,
            dns: self.dns.clone(),
            time_servers: self.time_servers.clone(),
            console_proxy,
        })
    }

    /// The seed for a VM that boots on this node.
    pub fn seed(&self, vm: &VmName, node: &NodeName) -> Option<Seed> {
        Some(Seed::new(vm, &self.on(node)?))
    }
}

fn nic(nic: &Nic) -> NicWants {
    NicWants {
        mac: nic.mac_address.to_string(),
        address: nic.ipaddr.sorted(),
        netmask: nic.netmask.sorted(),
        gateway: nic.gateway.sorted(),
        is_management: nic.is_mgmt,
        is_default_route: nic.is_def_route,
    }
}

impl NicWants {
    fn on(&self, node: &NodeName) -> Option<NicConfig> {
        let (address, mask) = (self.address.for_node(node)?, self.netmask.for_node(node)?);
        let gateway = *self.gateway.for_node(node)?;
        Some(NicConfig {
            mac: self.mac.clone(),
            address: Ipv4Net::with_netmask(*address, *mask).ok()?,
            gateway,
            is_default_route: self.is_default_route,
            is_management: self.is_management,
        })
    }
}
