//! The nodes' and the guest's addresses: `IP HOSTNAME` entries, NICs, MAC addresses, and the per-node form
//! `A@nfs-1, B@nfs-2` that lets the VM boot in another subnet.
//!
//! Never here: whether addresses fit one another; that is `validate`.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::strict::from_mapping_only;
use super::text::{BridgeName, HOST_NAME, IPV4, LABELS, NotOfTheForm, TextForm, Written, text_schema};
use crate::NodeName;

/// A node of the cluster: the address that Consul is reached at, and the name that everything else calls it by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    pub name: NodeName,
    pub address: Ipv4Addr,
}

impl TextForm for Node {
    const NAME: &'static str = "Node";
    const MUST: &'static str = "must be 'IP HOSTNAME', such as '192.168.10.11 nfs-1'";
    const EXAMPLES: &'static [&'static str] = &["192.168.10.11 nfs-1"];
    fn pattern() -> Cow<'static, str> {
        format!("^{IPV4}[ \\t]+{HOST_NAME}$").into()
    }
    fn second_pattern() -> Option<Cow<'static, str>> {
        Some(format!("^{IPV4}[ \\t]+{LABELS}$").into())
    }
}

impl FromStr for Node {
    type Err = NotOfTheForm;
    fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
        let wrong = || NotOfTheForm::new::<Self>(text);
        let (address, name) = text.split_once([' ', '\t']).ok_or_else(wrong)?;
        Ok(Self {
            address: address.parse().map_err(|_| wrong())?,
            name: NodeName::new(name.trim_start_matches([' ', '\t'])).map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.address, self.name)
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Node {
    fn schema_name() -> Cow<'static, str> {
        Self::NAME.into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        text_schema::<Self>()
    }
}

/// One value for all nodes, or one for each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PerNode<T> {
    Same(T),
    /// The values in the order written. A name may be missing or be there twice until the document was validated.
    ByNode(Vec<(NodeName, T)>),
}

impl<T> PerNode<T> {
    /// The value where the VM boots on `node`; none only where the form does not name it.
    pub fn for_node(&self, node: &NodeName) -> Option<&T> {
        match self {
            Self::Same(value) => Some(value),
            Self::ByNode(values) => values.iter().find(|(name, _)| name == node).map(|(_, value)| value),
        }
    }

    /// Every value, with the node it is for where the form says so.
    pub fn values(&self) -> Vec<(Option<&NodeName>, &T)> {
        match self {
            Self::Same(value) => vec![(None, value)],
            Self::ByNode(values) => values.iter().map(|(name, value)| (Some(name), value)).collect(),
        }
    }

    /// True if the value depends on the node.
    pub fn is_by_node(&self) -> bool {
        matches!(self, Self::ByNode(_))
    }
}

impl<T: Clone> PerNode<T> {
    /// The same values, with the nodes in order of their names, since their order means nothing.
    pub fn sorted(&self) -> Self {
        match self {
            Self::Same(value) => Self::Same(value.clone()),
            Self::ByNode(values) => {
                let mut values = values.clone();
                values.sort_by(|(a, _), (b, _)| a.cmp(b));
                Self::ByNode(values)
            }
        }
    }
}

impl TextForm for PerNode<Ipv4Addr> {
    const NAME: &'static str = "Ipv4PerNode";
    const MUST: &'static str = "must be an IPv4 address, or one for each node as 'IP@NODE, IP@NODE, ...'";
    const EXAMPLES: &'static [&'static str] =
        &["172.20.10.3", "172.20.10.3@nfs-1, 172.20.20.3@nfs-2, 172.20.30.3@nfs-3"];
    fn pattern() -> Cow<'static, str> {
        address_or_by_node(HOST_NAME).into()
    }
    fn second_pattern() -> Option<Cow<'static, str>> {
        Some(address_or_by_node(LABELS).into())
    }
}

fn address_or_by_node(name: &str) -> String {
    let entry = format!("{IPV4}@{name}");
    format!("^(?:{IPV4}|{entry}(?:[ \\t]*,[ \\t]*{entry})*)$")
}

/// A pattern, or nothing.
fn or_empty(pattern: &str) -> Cow<'static, str> {
    format!("^(?:{})?$", pattern.trim_start_matches('^').trim_end_matches('$')).into()
}

impl FromStr for PerNode<Ipv4Addr> {
    type Err = NotOfTheForm;
    fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
        let wrong = || NotOfTheForm::new::<Self>(text);
        if !text.contains('@') {
            return text.parse().map(Self::Same).map_err(|_| wrong());
        }
        let blank = [' ', '\t'];
        if text.starts_with(blank) || text.ends_with(blank) {
            return Err(wrong());
        }
        let entry = |entry: &str| {
            let (address, name) = entry.trim_matches(blank).split_once('@')?;
            Some((NodeName::new(name).ok()?, address.parse().ok()?))
        };
        text.split(',').map(entry).collect::<Option<Vec<_>>>().map(Self::ByNode).ok_or_else(wrong)
    }
}

impl<T: fmt::Display> fmt::Display for PerNode<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same(value) => write!(f, "{value}"),
            Self::ByNode(values) => values.iter().enumerate().try_for_each(|(at, (name, value))| {
                if at > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{value}@{name}")
            }),
        }
    }
}

/// An address that may also be left empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionalPerNode(pub Option<PerNode<Ipv4Addr>>);

impl TextForm for OptionalPerNode {
    const NAME: &'static str = "OptionalIpv4PerNode";
    const MUST: &'static str =
        "must be empty, an IPv4 address, or one for each node as 'IP@NODE, IP@NODE, ...'";
    const EXAMPLES: &'static [&'static str] = &["", "203.0.113.10"];
    fn pattern() -> Cow<'static, str> {
        or_empty(&PerNode::<Ipv4Addr>::pattern())
    }
    fn second_pattern() -> Option<Cow<'static, str>> {
        PerNode::<Ipv4Addr>::second_pattern().map(|pattern| or_empty(&pattern))
    }
}

impl FromStr for OptionalPerNode {
    type Err = NotOfTheForm;
    fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        text.parse().map(|value| Self(Some(value))).map_err(|_| NotOfTheForm::new::<Self>(text))
    }
}

impl fmt::Display for OptionalPerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| write!(f, "{value}"))
    }
}

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// True if it may be the address of a single NIC: not a group address, not all zeros.
    pub fn is_unicast(&self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The same address but for its first byte, which makes it unicast and locally administered.
    pub fn as_local_unicast(&self) -> Self {
        let mut bytes = self.0;
        bytes[0] = 0x02;
        Self(bytes)
    }

    /// True if the address begins with the byte that libvirt keeps for the host's end of a NIC, its tap device.
    pub fn is_like_a_tap(&self) -> bool {
        self.0[0] == 0xfe
    }
}

impl TextForm for MacAddress {
    const NAME: &'static str = "MacAddress";
    const MUST: &'static str =
        "must be a MAC address of six pairs of hexadecimal digits, such as '02:98:54:4b:a5:c0'";
    const EXAMPLES: &'static [&'static str] = &["02:98:54:4b:a5:c0"];
    fn pattern() -> Cow<'static, str> {
        "^(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$".into()
    }
}

impl FromStr for MacAddress {
    type Err = NotOfTheForm;
    fn from_str(text: &str) -> Result<Self, NotOfTheForm> {
        let wrong = || NotOfTheForm::new::<Self>(text);
        let byte = |pair: &str| {
            let is_pair = pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit());
            if is_pair { u8::from_str_radix(pair, 16).ok() } else { None }
        };
        let bytes = text.split(':').map(byte).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

const MUST_BE_A_NETMASK: &str =
    "must be a netmask such as '255.255.255.0', or one for each node as 'MASK@NODE, MASK@NODE, ...'";

/// A NIC of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "PascalCase", deny_unknown_fields)]
pub struct Nic {
    /// The host bridge that carries the NIC. It must exist on every node, and its link must be up.
    pub bridge: BridgeName,
    /// The NIC's own Ethernet address: unicast, and nobody else's on the network.
    pub mac_address: Written<MacAddress>,
    /// The guest's address on this NIC. On the management NIC also one for each node, as `A@nfs-1, B@nfs-2, ...`,
    /// so that the VM can boot in another subnet.
    pub ipaddr: Written<PerNode<Ipv4Addr>>,
    /// The netmask that belongs to `Ipaddr`, such as `255.255.255.0`; per node where that is.
    #[schemars(extend("patternErrorMessage" = MUST_BE_A_NETMASK, "examples" = ["255.255.255.0"]))]
    pub netmask: Written<PerNode<Ipv4Addr>>,
    /// The gateway of that subnet; per node where `Ipaddr` is.
    pub gateway: Written<PerNode<Ipv4Addr>>,
    /// True for the management NIC. Exactly one is.
    pub is_mgmt: bool,
    /// True for the NIC that has the guest's default route. Exactly one has.
    pub is_def_route: bool,
}

from_mapping_only!(Nic);

impl Nic {
    /// The guest's address and subnet on this NIC where it boots on `node`.
    pub fn subnet_for(&self, node: &NodeName) -> Option<Ipv4Net> {
        let (address, mask) = (self.ipaddr.for_node(node)?, self.netmask.for_node(node)?);
        Ipv4Net::with_netmask(*address, *mask).ok()
    }

    /// The gateway of this NIC where the guest boots on `node`.
    pub fn gateway_for(&self, node: &NodeName) -> Option<Ipv4Addr> {
        self.gateway.for_node(node).copied()
    }

    /// True if anything of this NIC depends on the node the guest boots on.
    pub fn is_by_node(&self) -> bool {
        [&self.ipaddr, &self.netmask, &self.gateway].iter().any(|value| value.is_by_node())
    }
}
