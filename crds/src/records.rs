//! The records kept in Consul, key by key. Every record is JSON with camelCase names. A reader ignores fields it does
//! not know (a newer node wrote them) and refuses a record that lacks what it needs.

mod by_vm;
mod event;
mod intent;
mod lease;
mod node;
mod ownership;
mod reading;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::format;

pub use by_vm::{ByVm, VmCount, VmHere};
pub use event::{EventRecord, EventType};
pub use intent::{HostShutdown, Intent};
pub use lease::{LEASE_LOOK_MILLIS, LONGEST_SECONDS, LeaseRecord, LeaseState, LeaseTimings};
pub use node::{LostLease, NodeStatus, VmStatus, Waiting};
pub use ownership::{
    Answer, Departed, DiskInUse, DiskSource, Migration, Outcome, Owner, StartFailures, StartRecord, VmPhase,
    VmRecord,
};
pub use reading::{HIGHEST, brief, node_of, read};

/// `spec`: the document in force, exactly as the person wrote it (normalised: defaults not added), with who applied it,
/// when and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoredSpec {
    /// The number of the document. It moves only when the normalised spec does, and begins at 1.
    pub generation: u64,
    /// The format of the document. Nodes of a build that does not read this format keep the document from coming in
    /// force.
    #[serde(default = "format::first", skip_serializing_if = "format::is_first")]
    pub format: u32,
    /// The whole document, envelope included, as JSON.
    pub document: Value,
    pub applied_by: String,
    pub applied_at: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// `history/<generation>`: a document that was in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryRecord {
    pub generation: u64,
    /// The format of the document, as in [`StoredSpec`].
    #[serde(default = "format::first", skip_serializing_if = "format::is_first")]
    pub format: u32,
    pub document: Value,
    pub applied_by: String,
    pub applied_at: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The command that wrote it, for instance `apply`.
    pub command: String,
}
