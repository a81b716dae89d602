//! The ownership of the VM: which node may run it, where it is being moved to, and what came of the last orders.
//!
//! Never here: what a node says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(doc)]
use super::intent::Intent;
use crate::{NodeName, VmId, VmName};

/// The node that may run the VM, named with the epoch of the lease it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub node: NodeName,
    pub epoch: u64,
}

/// A live migration. While it is under way only the owner's copy executes, and `to` may hold a paused one. Once the
/// owner *is* `to`, the copy that came with this migration is the VM, and its owner lets it run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    pub to: Owner,
    pub id: Uuid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum VmPhase {
    /// The VM is claimed, and its owner is bringing it up.
    Starting,
    Running,
    /// The owner is shutting the VM down.
    Stopping,
    /// The VM does not run and is not wanted to run, or its owner gave it up; no node has a copy.
    Stopped,
    /// The guest powered itself off, and the document says to leave it so.
    PoweredOff,
    /// The VM could not be started anywhere; an operator is needed.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartFailures {
    pub count: u32,
    pub reason: String,
}

/// Where a disk of the VM lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(from = "StoredSource", into = "StoredSource")]
#[schemars(with = "StoredSource")]
pub enum DiskSource {
    /// The absolute path of a file.
    File(String),
    /// A Ceph block device, as `pool/image`.
    Rbd(String),
    /// Anything else, in words. zsha starts nothing from it.
    Other(String),
    /// A drive with nothing in it.
    Nothing,
}

impl DiskSource {
    /// A file by its absolute path, which has one spelling: `/share//vm/` and `/share/vm` are one place.
    pub fn file(path: impl AsRef<Path>) -> Self {
        Self::File(path.as_ref().components().collect::<PathBuf>().display().to_string())
    }
}

/// The same as it is stored. A kind that only a later build knows is one that this build starts nothing from.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct StoredSource {
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    at: String,
}

const FILE: &str = "File";
const RBD: &str = "Rbd";
const OTHER: &str = "Other";
const NOTHING: &str = "Nothing";

impl From<StoredSource> for DiskSource {
    fn from(StoredSource { kind, at }: StoredSource) -> Self {
        match kind.as_str() {
            FILE => Self::file(at),
            RBD => Self::Rbd(at),
            OTHER => Self::Other(at),
            NOTHING => Self::Nothing,
            of_a_later_build => Self::Other(format!("{of_a_later_build} {at}")),
        }
    }
}

impl From<DiskSource> for StoredSource {
    fn from(source: DiskSource) -> Self {
        let (kind, at) = match source {
            DiskSource::File(path) => (FILE, path),
            DiskSource::Rbd(image) => (RBD, image),
            DiskSource::Other(what) => (OTHER, what),
            DiskSource::Nothing => (NOTHING, String::new()),
        };
        Self { kind: kind.to_owned(), at }
    }
}

impl fmt::Display for DiskSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.write_str(path),
            Self::Rbd(image) => write!(f, "rbd:{image}"),
            Self::Other(what) => f.write_str(what),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// The disk that the VM writes to, where that is another than the image of its document: somebody has made a snapshot
/// of it, or has moved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskInUse {
    pub source: DiskSource,
    /// The format by QEMU's name: `qcow2`, `raw`.
    pub format: String,
    /// The disks that it rests on, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backing: Vec<DiskSource>,
    /// The image of the document at that time. A document that names another since then is an operator's word.
    pub instead_of: DiskSource,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartRecord {
    pub node: NodeName,
    pub at: Timestamp,
    /// The reason of the start: `FirstStart`, `Failover`, `QemuDied`, `GuestPoweredOff`, ...
    pub reason: String,
    /// Generation of the document its domain was defined from.
    pub generation: u64,
}

impl StartRecord {
    /// The reason where there was no start: the guest was moved live, and runs as it booted elsewhere.
    pub const MIGRATED: &str = "Migrated";
    /// The reason where the VM was found to run, and the ownership record did not say so.
    pub const FOUND: &str = "Found";
}

/// `vms/<name>`: ownership. It only ever changes by a cas in one transaction with checks on the leases it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmRecord {
    pub name: VmName,
    pub uuid: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<Migration>,
    pub phase: VmPhase,
    /// Failed starts since the last good one, by node. A node with too many is not given the VM again before it
    /// has run elsewhere, the document has changed, or an operator has said `start`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<NodeName, StartFailures>,
    /// Generation of the document the failures were counted under.
    #[serde(default)]
    pub failures_generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_start: Option<StartRecord>,
    /// A sentence on the last change of this record.
    #[serde(default)]
    pub note: String,
    /// The count of writes, so that every write is a different value and so moves the key's index. That makes an older
    /// write that is still on its way fail.
    #[serde(default)]
    pub revision: u64,
    /// The last migration that was asked for by command and is over, one way or another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Answer>,
    /// The last [`Intent::Start`] that was taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_taken_up: Option<Uuid>,
    /// The last reset of the guest's password that was asked for and is over, one way or another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_reset: Option<Answer>,
    /// The guest has left its owner by a migration that was not zsha's, and has not been found since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub departed: Option<Departed>,
    /// The disk that the VM wrote to last, where that is not the document's image. A start goes on from it. Its owner
    /// keeps it as long as the VM runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskInUse>,
}

/// A guest that was moved past zsha. It may run on a host that is no node of the cluster, where zsha cannot look. So no
/// node starts the VM by itself until the guest is found, or an operator says `start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Departed {
    /// The owner that the guest has left.
    pub from: NodeName,
    pub at: Timestamp,
    /// Nodes that have said since that they have a process of the VM. The guest has gone there, or began to.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seen_on: BTreeSet<NodeName>,
}

/// The outcome of an [`Intent::Migrate`] or an [`Intent::ResetPassword`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The `id` of the intent.
    pub id: Uuid,
    pub outcome: Outcome,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The VM runs on the node that was named, or the guest has the password.
    Done,
    /// It was not begun: the node is unknown or unfit, the document does not allow it, or no guest runs.
    Refused,
    /// It was begun, and the VM runs where it ran or was started afresh, or the guest did not take the password.
    Failed,
}

impl VmRecord {
    /// The record before any node has claimed the VM, as the first `apply` writes it. Nothing else ever creates one: a
    /// missing record is no proof that no node runs the VM.
    pub fn unplaced(vm: VmId) -> Self {
        Self {
            name: vm.name,
            uuid: vm.uuid,
            owner: None,
            migration: None,
            phase: VmPhase::Stopped,
            failures: BTreeMap::new(),
            failures_generation: 0,
            last_start: None,
            note: "never started".to_owned(),
            revision: 0,
            answered: None,
            start_taken_up: None,
            password_reset: None,
            departed: None,
            disk: None,
        }
    }
}
