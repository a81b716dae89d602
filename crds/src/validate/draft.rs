//! The part of a document that can be read, for the rules. A value that is missing or malformed is none here; the
//! schema has told it.
//!
//! Never here: a default in the place of what cannot be read.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::NodeName;
use crate::document::{MacAddress, Node, OptionalPerNode, PerNode, Written};
use crate::path::Path;

pub(super) struct Draft<'a> {
    spec: Option<&'a Value>,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) nics: Vec<NicDraft>,
}

pub(super) struct NicDraft {
    pub(super) path: Path,
    pub(super) mac: Option<MacAddress>,
    pub(super) ipaddr: Option<PerNode<Ipv4Addr>>,
    pub(super) netmask: Option<PerNode<Ipv4Addr>>,
    pub(super) gateway: Option<PerNode<Ipv4Addr>>,
    pub(super) is_mgmt: Option<bool>,
    pub(super) is_def_route: Option<bool>,
}

impl<'a> Draft<'a> {
    pub(super) fn of(document: &'a Value) -> Self {
        let spec = document.get("spec");
        let list = |key| spec.and_then(|spec| spec.get(key)).and_then(Value::as_array);
        let nics = list("Network").into_iter().flatten().enumerate();
        Self {
            spec,
            nodes: list("Node").into_iter().flatten().map(|node| read(Some(node))).collect(),
            nics: nics.map(|(at, nic)| NicDraft::of(Path::spec().key("Network").index(at), nic)).collect(),
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Value> {
        self.spec?.get(key)
    }

    pub(super) fn field<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        read(self.value(key))
    }

    /// The entries of a list of the spec that can be read, each with its path.
    pub(super) fn entries<T: DeserializeOwned>(&self, key: &str) -> Vec<(Path, T)> {
        let list = self.value(key).and_then(Value::as_array).into_iter().flatten().enumerate();
        let path = Path::spec().key(key);
        list.filter_map(|(at, value)| Some((path.index(at), read(Some(value))?))).collect()
    }

    /// One field of every entry of a list of the spec, where it can be read, with its path.
    pub(super) fn column<T: DeserializeOwned>(&self, key: &str, field: &str) -> Vec<(Path, T)> {
        let list = self.value(key).and_then(Value::as_array).into_iter().flatten().enumerate();
        let path = Path::spec().key(key);
        list.filter_map(|(at, value)| Some((path.index(at).key(field), read(value.get(field))?))).collect()
    }

    /// The names of the nodes, only if every one of them can be read: a name that is not in an incomplete list may
    /// still be a node.
    pub(super) fn node_names(&self) -> Option<BTreeSet<&NodeName>> {
        let names: Option<BTreeSet<_>> =
            self.nodes.iter().map(|node| node.as_ref().map(|node| &node.name)).collect();
        names.filter(|names| !names.is_empty())
    }

    pub(super) fn console_proxy(&self) -> Option<PerNode<Ipv4Addr>> {
        self.field::<Written<OptionalPerNode>>("ConsoleProxyOverriddenIP")?.0.clone()
    }

    /// Every address the guest may come to have.
    pub(super) fn guest_addresses(&self) -> BTreeSet<Ipv4Addr> {
        let given = self.nics.iter().filter_map(|nic| nic.ipaddr.as_ref());
        given
            .flat_map(|given| given.values().into_iter().map(|(_, address)| *address).collect::<Vec<_>>())
            .collect()
    }
}

impl NicDraft {
    fn of(path: Path, nic: &Value) -> Self {
        let address =
            |key: &str| read::<Written<PerNode<Ipv4Addr>>>(nic.get(key)).map(|written| (*written).clone());
        Self {
            path,
            mac: read::<Written<MacAddress>>(nic.get("MacAddress")).map(|mac| *mac),
            ipaddr: address("Ipaddr"),
            netmask: address("Netmask"),
            gateway: address("Gateway"),
            is_mgmt: read(nic.get("IsMgmt")),
            is_def_route: read(nic.get("IsDefRoute")),
        }
    }

    /// The three fields that may be per node, with their names.
    pub(super) fn addresses(&self) -> [(&'static str, Option<&PerNode<Ipv4Addr>>); 3] {
        [
            ("Ipaddr", self.ipaddr.as_ref()),
            ("Netmask", self.netmask.as_ref()),
            ("Gateway", self.gateway.as_ref()),
        ]
    }
}

pub(super) fn read<T: DeserializeOwned>(value: Option<&Value>) -> Option<T> {
    T::deserialize(value?).ok()
}
