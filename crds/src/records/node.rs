//! What each node says of itself, and what the owner says of the VM.
//!
//! Never here: how old that is, and what follows from it (see [`crate::status`]).

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::by_vm::{self, ByVm, VmHere};
use crate::{Condition, NodeName, VmName, VmState, format};

/// `status/nodes/<node>`: what a node's controller sees and thinks. Written when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    pub node: NodeName,
    /// `Ready` is the summary: may the VM be placed here.
    pub conditions: Vec<Condition>,
    /// Generation of the document this node acts on.
    pub observed_generation: u64,
    pub controller_version: String,
    /// The highest format of a document that it reads.
    #[serde(default = "format::first", skip_serializing_if = "format::is_first")]
    pub document_format: u32,
    /// The word of the controller on each VM.
    #[serde(flatten, with = "by_vm")]
    #[schemars(with = "by_vm::Stored<VmHere>")]
    pub vms: ByVm<VmHere>,
    /// The leases that this node has lost within the last hour though its keeper was renewing them, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost_leases: Vec<LostLease>,
    /// The kind of this host, if it is no real machine or cannot tell: `a virtual machine (QEMU)`. Something outside
    /// may then pause it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<String>,
    /// The index in the store of the newest order that the node had seen when it tried again what had failed, and then
    /// looked at its host. None: there is none, or the node is of an earlier build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked_after: Option<u64>,
    /// The things that this node would do but does not, one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Waiting>,
    pub updated_at: Timestamp,
}

/// A life of a lease that ended though it was to be renewed: it was fenced, or ran out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostLease {
    /// The epoch of that life.
    pub epoch: u64,
    /// The time when it ended, by the node's wall clock.
    pub at: Timestamp,
}

/// A thing not done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// `status/vms/<name>`: written by the owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmStatus {
    pub name: VmName,
    pub uuid: Uuid,
    pub node: NodeName,
    pub state: VmState,
    /// Generation the running domain was defined from, and the one in force.
    pub running_generation: u64,
    pub observed_generation: u64,
    pub conditions: Vec<Condition>,
    pub updated_at: Timestamp,
}
