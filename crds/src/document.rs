//! The document a person writes: every field of config.json under config.json's names, in an envelope, and optional
//! sections of ours. The types hold what was written; the methods give it with the defaults in place.
//!
//! Never here: reading text (`decode`), judging values against each other (`validate`).

mod by_server;
mod network;
mod number;
mod sections;
mod strict;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use by_server::ByServer;
use strict::{from_mapping_only, from_word_only};

pub use network::{MacAddress, Nic, Node, OptionalPerNode, PerNode};
pub use number::{Seconds, Whole};
pub use sections::{
    Availability, BridgeCheck, Failback, Fencing, GuestPowerOff, Mount, Placement, Profile, Watchdog,
};
pub(crate) use text::LABELS;
pub use text::{
    AbsolutePath, BridgeName, FolderText, FsType, MonAddress, MountOptions, MountSource, NotOfTheForm,
    PoolText, TextForm, TimeServer, Written,
};

use crate::records::LeaseTimings;
use crate::{ClusterName, NodeName, VmId};

/// The file in `ImageFolder` that is the VM's disk.
pub const IMAGE_FILE: &str = "mnvm.img";
/// The block device in `PoolName` that is the VM's disk.
pub const RBD_IMAGE: &str = "mnvm";

/// The desired state of one zsha cluster: three or more nodes, and the one management-node VM they keep running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "camelCase", deny_unknown_fields)]
pub struct HaCluster {
    /// The version of this form of document.
    pub api_version: ApiVersion,
    /// The kind of the document.
    pub kind: Kind,
    /// The cluster's name.
    pub metadata: Metadata,
    /// The desired state of the cluster.
    pub spec: Spec,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self")]
pub enum ApiVersion {
    #[default]
    #[serde(rename = "zsha.io/v1")]
    V1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self")]
pub enum Kind {
    #[default]
    HaCluster,
}

/// The metadata of the document: the cluster's name, and what the server writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The cluster's name: the first part of every key in Consul, so that several clusters can share one.
    pub name: ClusterName,
    /// Written by the server: how often the document has changed. `zsha get -o json` shows it, `apply` drops it.
    #[serde(default, skip_serializing_if = "ByServer::is_dropped")]
    generation: ByServer,
    /// Written by the server: the index of the document in Consul. `zsha get -o json` shows it, `apply` drops it.
    #[serde(default, skip_serializing_if = "ByServer::is_dropped")]
    resource_version: ByServer,
    /// Written by the server: who applied the document. `zsha get -o json` shows it, `apply` drops it.
    #[serde(default, skip_serializing_if = "ByServer::is_dropped")]
    applied_by: ByServer,
    /// Written by the server: when the document was applied. `zsha get -o json` shows it, `apply` drops it.
    #[serde(default, skip_serializing_if = "ByServer::is_dropped")]
    applied_at: ByServer,
    /// Written by the server: why the document was applied. `zsha get -o json` shows it, `apply` drops it.
    #[serde(default, skip_serializing_if = "ByServer::is_dropped")]
    message: ByServer,
}

/// The kind of place that holds the VM's image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self")]
pub enum ImageType {
    /// A file on a share that every node has mounted.
    FileConf,
    /// A Ceph pool.
    CephConf,
}

/// The format of the image in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "lowercase")]
pub enum ImageFormat {
    /// QEMU's own format.
    Qcow2,
    /// The bytes of the disk, one after the other.
    Raw,
}

impl ImageFormat {
    /// The format by QEMU's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }

    /// The format that QEMU calls so, if zsha starts the VM from such an image.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Qcow2, Self::Raw].into_iter().find(|format| format.as_str() == name)
    }
}

/// The desired state of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "PascalCase", deny_unknown_fields)]
pub struct Spec {
    /// The nodes, each as `IP HOSTNAME`: an odd number, 3 or more; with `Servers` any number from 3 on.
    #[serde(deserialize_with = "three_or_more")]
    #[schemars(length(min = 3))]
    pub node: Vec<Node>,
    /// Memory of the VM in GB: 8 for up to 100 hosts and 1,000 VMs, 16 for up to 1,000 and 10,000, 32 above.
    #[serde(rename = "MemorySizeInGB")]
    pub memory_size_in_gb: Whole<8, 4096>,
    /// Virtual CPUs of the VM: 4 for up to 100 hosts and 1,000 VMs, 8 for up to 1,000 and 10,000, 12 above.
    #[serde(rename = "CPU")]
    pub cpu: Whole<4, 255>,
    /// The kind of storage that holds the VM's image.
    #[serde(rename = "Type")]
    pub image_type: ImageType,
    /// The Ceph monitors: required for CephConf, null or left out for FileConf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = null))]
    pub mon_addrs: Option<Vec<MonAddress>>,
    /// Time sources of the guest and of the nodes, as host names or IPv4 addresses.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<TimeServer>", extend("default" = []))]
    pub chrony_servers: Option<Vec<TimeServer>>,
    /// The Ceph pool of the image: required for CephConf, empty or left out for FileConf.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PoolText", extend("default" = ""))]
    pub pool_name: Option<PoolText>,
    /// The absolute folder of `mnvm.img` on every node: required for FileConf.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FolderText", extend("default" = ""))]
    pub image_folder: Option<FolderText>,
    /// The format of `mnvm.img`, only for FileConf. It is said and never guessed: a guest could write to a raw disk what
    /// makes it look like another format.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ImageFormat", extend("default" = "qcow2"))]
    pub image_format: Option<ImageFormat>,
    /// The guest's name servers.
    #[serde(rename = "DNS", default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Written<std::net::Ipv4Addr>>", extend("default" = []))]
    pub dns: Option<Vec<Written<std::net::Ipv4Addr>>>,
    /// The guest's NICs, in the order the guest sees them.
    #[serde(deserialize_with = "one_or_more")]
    #[schemars(length(min = 1))]
    pub network: Vec<Nic>,
    /// The address handed to the guest for its console proxy; empty for its own, per node as with a NIC.
    #[serde(
        rename = "ConsoleProxyOverriddenIP",
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Written<OptionalPerNode>", extend("default" = ""))]
    pub console_proxy_overridden_ip: Option<Written<OptionalPerNode>>,
    /// True if `zsha reset-MNVM-password` may set the guest's root password back to the default.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool", extend("default" = false))]
    pub allow_reset_root_password: Option<bool>,
    /// File systems zsha mounts on every node where they are missing.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<Mount>", extend("default" = []))]
    pub mounts: Option<Vec<Mount>>,
    /// Bridges to check beyond those the NICs name.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<BridgeCheck>", extend("default" = []))]
    pub bridges: Option<Vec<BridgeCheck>>,
    /// The nodes to prefer, other things being equal.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Placement", extend("default" = {}))]
    pub placement: Option<Placement>,
    /// How fast a failover is, against how much trouble of the network is sat out.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Availability", extend("default" = {}))]
    pub availability: Option<Availability>,
    /// The means that keep the promise that no copy outlives its lease.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Fencing", extend("default" = {}))]
    pub fencing: Option<Fencing>,
    /// What zsha does with a guest that powered itself off.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GuestPowerOff", extend("default" = "Restart"))]
    pub guest_power_off: Option<GuestPowerOff>,
    /// How long the guest has to power off, in seconds, when its host shuts down and the VM can go nowhere else. Then
    /// it is ended; and it is started again once a node is fit, whatever `GuestPowerOff` says.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "GuestShutdownSeconds", extend("default" = HaCluster::DEFAULT_GUEST_SHUTDOWN_SECONDS))]
    pub guest_shutdown_seconds: Option<GuestShutdownSeconds>,
    /// The nodes whose Consul agents are servers, which vote on every write: 3, 5 or 7 of `Node`. The agents of the
    /// others are clients. Left out, all are servers where there are 7 nodes or fewer, and the first 5 where there are
    /// more.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NodeName>")]
    pub servers: Option<Vec<NodeName>>,
}

/// The upper bound is as much as the unit that waits for the shutdown has to spare beside a live migration.
pub type GuestShutdownSeconds = Whole<10, 300>;

from_mapping_only!(HaCluster, Metadata, Spec);
from_word_only!(ApiVersion, Kind, ImageType, ImageFormat);

impl HaCluster {
    pub const DEFAULT_GUEST_SHUTDOWN_SECONDS: u32 = 120;
    /// More voters make every write slower, and a majority of them is needed all the same.
    pub const MOST_SERVERS: usize = 7;
    /// How many of more nodes than that are servers, where nobody says which: five survive the loss of two.
    const SERVERS_OF_MANY: usize = 5;

    pub fn name(&self) -> &ClusterName {
        &self.metadata.name
    }

    /// The VM that the document is for.
    pub fn vm(&self) -> VmId {
        VmId::of(self.name())
    }

    /// The nodes, in the order written.
    pub fn nodes(&self) -> &[Node] {
        &self.spec.node
    }

    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes().iter().find(|node| node.name == *name)
    }

    /// The nodes whose Consul agents are servers, in the order of `Node`: the quorum is a majority of them.
    pub fn servers(&self) -> Vec<&Node> {
        match &self.spec.servers {
            Some(named) => self.nodes().iter().filter(|node| named.contains(&node.name)).collect(),
            None => self.servers_unless_named().iter().collect(),
        }
    }

    pub fn is_server(&self, name: &NodeName) -> bool {
        match &self.spec.servers {
            Some(named) => named.contains(name),
            None => self.servers_unless_named().iter().any(|server| server.name == *name),
        }
    }

    /// The servers of a document that names none.
    pub(crate) fn servers_unless_named(&self) -> &[Node] {
        let nodes = self.nodes();
        if nodes.len() > Self::MOST_SERVERS { &nodes[..Self::SERVERS_OF_MANY] } else { nodes }
    }

    pub fn memory_gib(&self) -> u32 {
        self.spec.memory_size_in_gb.get()
    }

    pub fn cpus(&self) -> u32 {
        self.spec.cpu.get()
    }

    pub fn image_type(&self) -> ImageType {
        self.spec.image_type
    }

    /// The path of `mnvm.img` on every node; none for CephConf.
    pub fn image_path(&self) -> Option<PathBuf> {
        match self.spec.image_type {
            ImageType::FileConf => {
                self.spec.image_folder.as_ref().map(|folder| Path::new(folder.as_str()).join(IMAGE_FILE))
            }
            ImageType::CephConf => None,
        }
    }

    /// The format of the image in a file.
    pub fn image_format(&self) -> ImageFormat {
        self.spec.image_format.unwrap_or(ImageFormat::Qcow2)
    }

    /// The Ceph pool; none for FileConf.
    pub fn pool_name(&self) -> Option<&str> {
        match self.spec.image_type {
            ImageType::FileConf => None,
            ImageType::CephConf => self.spec.pool_name.as_ref().map(PoolText::as_str),
        }
    }

    pub fn mon_addrs(&self) -> &[MonAddress] {
        self.spec.mon_addrs.as_deref().unwrap_or_default()
    }

    pub fn chrony_servers(&self) -> Vec<&str> {
        self.spec.chrony_servers.iter().flatten().map(TimeServer::host).collect()
    }

    pub fn dns(&self) -> Vec<std::net::Ipv4Addr> {
        self.spec.dns.iter().flatten().map(|address| **address).collect()
    }

    /// The guest's NICs, in the order the guest sees them.
    pub fn nics(&self) -> &[Nic] {
        &self.spec.network
    }

    /// The management NIC. There is exactly one once the document was validated.
    pub fn management_nic(&self) -> Option<&Nic> {
        self.nics().iter().find(|nic| nic.is_mgmt)
    }

    /// The address handed to the guest for its console proxy, where one is given.
    pub fn console_proxy(&self) -> Option<&PerNode<std::net::Ipv4Addr>> {
        self.spec.console_proxy_overridden_ip.as_ref()?.0.as_ref()
    }

    pub fn allow_reset_root_password(&self) -> bool {
        self.spec.allow_reset_root_password.unwrap_or(false)
    }

    pub fn mounts(&self) -> &[Mount] {
        self.spec.mounts.as_deref().unwrap_or_default()
    }

    /// Every bridge to check on a node, and whether it must have carrier: those the NICs name must, unless
    /// `Bridges` says otherwise.
    pub fn bridges(&self) -> BTreeMap<String, bool> {
        let of_nics = self.nics().iter().map(|nic| (nic.bridge.to_string(), true));
        let checks = self.spec.bridges.iter().flatten().map(|b| (b.name.to_string(), b.require_carrier()));
        of_nics.chain(checks).collect()
    }

    /// The names of every bridge to check on a node.
    pub fn bridges_named(&self) -> BTreeSet<String> {
        self.bridges().into_keys().collect()
    }

    pub fn placement(&self) -> &Placement {
        static DEFAULT: Placement = Placement::DEFAULT;
        self.spec.placement.as_ref().unwrap_or(&DEFAULT)
    }

    pub fn availability(&self) -> &Availability {
        static DEFAULT: Availability = Availability::DEFAULT;
        self.spec.availability.as_ref().unwrap_or(&DEFAULT)
    }

    /// R, F, K and D of the node leases.
    pub fn timings(&self) -> LeaseTimings {
        self.availability().timings()
    }

    pub fn fencing(&self) -> &Fencing {
        static DEFAULT: Fencing = Fencing::DEFAULT;
        self.spec.fencing.as_ref().unwrap_or(&DEFAULT)
    }

    pub fn guest_power_off(&self) -> GuestPowerOff {
        self.spec.guest_power_off.unwrap_or(GuestPowerOff::Restart)
    }

    /// How long the guest has to power off when its host shuts down and the VM can go nowhere else.
    pub fn guest_shutdown_seconds(&self) -> u32 {
        self.spec
            .guest_shutdown_seconds
            .map_or(Self::DEFAULT_GUEST_SHUTDOWN_SECONDS, GuestShutdownSeconds::get)
    }
}

/// Reads an optional field. If it is there it must have a value, and null is none. As in the schema, only `MonAddrs`
/// may be null.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn at_least<'de, D, T>(deserializer: D, count: usize) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Vec::deserialize(deserializer)?;
    if list.len() < count {
        return Err(de::Error::invalid_length(list.len(), &format!("a list of at least {count}").as_str()));
    }
    Ok(list)
}

fn one_or_more<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    at_least(deserializer, 1)
}

fn three_or_more<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    at_least(deserializer, 3)
}
