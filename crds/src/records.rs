//! The records kept in Consul, key by key. Every record is JSON with camelCase names. A reader ignores fields it does
//! not know (a newer node wrote them) and refuses a record that lacks what it needs.

mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::tone::Tone;
use crate::words::words;
use crate::{ClusterName, Condition, LocalState, NodeName, VmName, VmState, format};

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

/// The shortest time between two looks at the leases, which change all the time. It keeps a node's requests below a
/// handful a second, and is part of the failover bound.
pub const LEASE_LOOK_MILLIS: u64 = 500;

/// The longest span a document may ask for. No operator wants to wait longer for a failover. A lease whose record is
/// gone is only fenced after this time, since its holder may have been told any time up to it.
pub const LONGEST_SECONDS: u64 = 300;

/// How a lease is kept, in the words of the safety argument: R, F, K and D. They travel inside the lease record, so
/// that a fencing node always waits the D that belongs to the F its holder lives by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseTimings {
    /// R: how often the lease is renewed.
    pub renew_millis: u64,
    /// F: how long one successful renewal holds, from the moment its request was sent.
    pub ttl_millis: u64,
    /// K: within this time after F every copy is dead.
    pub kill_millis: u64,
    /// D: how long the same renewal must have been seen by another node before it may fence.
    pub fence_after_millis: u64,
}

impl LeaseTimings {
    pub const FAST: Self =
        Self { renew_millis: 500, ttl_millis: 6_000, kill_millis: 500, fence_after_millis: 7_000 };
    pub const BALANCED: Self =
        Self { renew_millis: 1_000, ttl_millis: 8_000, kill_millis: 1_000, fence_after_millis: 10_000 };
    pub const PATIENT: Self =
        Self { renew_millis: 2_000, ttl_millis: 20_000, kill_millis: 2_000, fence_after_millis: 25_000 };
    /// The timings of a lease of which nothing is known: its D is the longest a document may ask for.
    pub const LONGEST: Self = Self {
        renew_millis: 1_000,
        ttl_millis: 280_000,
        kill_millis: 1_000,
        fence_after_millis: LONGEST_SECONDS * 1_000,
    };

    /// F + K. Anybody may have written the record, so the sum may not overflow into something small.
    fn dead_after(&self) -> u64 {
        self.ttl_millis.saturating_add(self.kill_millis)
    }

    /// The margin covers two clocks of which one runs 1 % fast and the other 1 % slow, over F and K, and one tick of
    /// the enforcing thread.
    pub fn margin_millis(&self) -> u64 {
        self.dead_after().div_ceil(49).saturating_add(100)
    }

    /// The least D that is safe: F + K + margin.
    pub fn least_fence_after_millis(&self) -> u64 {
        self.dead_after().saturating_add(self.margin_millis())
    }

    /// The rule everything rests on: D >= F + K + margin.
    pub fn is_safe(&self) -> bool {
        self.renew_millis > 0
            && self.renew_millis < self.ttl_millis
            && self.fence_after_millis >= self.least_fence_after_millis()
            && self.fence_after_millis < u64::MAX
    }

    pub const fn renew(&self) -> Duration {
        Duration::from_millis(self.renew_millis)
    }

    pub const fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_millis)
    }

    pub const fn kill(&self) -> Duration {
        Duration::from_millis(self.kill_millis)
    }

    pub const fn fence_after(&self) -> Duration {
        Duration::from_millis(self.fence_after_millis)
    }

    /// One request to Consul may take this long before the next endpoint is tried.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis((self.renew_millis * 2).clamp(500, 1_000))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LeaseState {
    /// `node` holds the lease. Only the holder knows whether it is still *valid*; others wait D.
    Held,
    /// The holder gave the lease up, after every copy it had was seen dead.
    Released,
    /// Another node took the lease away. The holder of this epoch can never renew again.
    Fenced,
    /// Another node wrote this in the place of a record that was gone (deleted by hand, say). The holder may still be
    /// valid by a renewal that cannot be read any more, and simply renews over it. If it does not, it may be fenced
    /// after the longest D that any document may ask for.
    Lost,
}

/// `leases/<node>`: the right of a node to run anything at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRecord {
    /// None if another node put the record in the place of a lease, or a build wrote it that had no such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    pub node: NodeName,
    /// The name of one life of the holder. It is new after a fence, a release or a reboot.
    pub incarnation: Uuid,
    /// The number of this life. It goes up with every life and every fence, by one at least, and is no less than the
    /// seconds since 1970 as the life began. Ownership names an epoch, and a later one proves the earlier one's copies
    /// dead.
    pub epoch: u64,
    /// The count of renewals, so that every renewal is a different value (an identical write changes no index).
    pub seq: u64,
    pub state: LeaseState,
    /// `/etc/machine-id` of the holder: another machine under the same node name is not a reboot.
    pub machine_id: String,
    pub boot_id: String,
    pub timings: LeaseTimings,
    /// True if the node's controller has spoken to its keeper lately. A node that renews without a controller keeps
    /// what it runs and is given nothing new.
    pub controller_alive: bool,
    /// The number of the VM's processes that the keeper saw on its node; None: it could not look. A claim that nothing
    /// else protects (a record that was deleted, or restored from a snapshot) is refused while this is not 0.
    #[serde(default)]
    pub copies: Option<u32>,
    /// The holder's `CLOCK_BOOTTIME` when this was sent, in milliseconds. Between two records of one life it says how
    /// much later the second was sent, however late it was seen. None from a host that may be paused from outside,
    /// since its clock may not count the pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_millis: Option<u64>,
    /// The epoch of the life in which the VM left this node by a migration that was not zsha's. The keeper writes it
    /// where it has set free what the node owned, since its controller is silent. The VM may run anywhere: no node
    /// starts it for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_away_in: Option<u64>,
    /// The wall clock of the holder, for display only.
    pub renewed_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_by: Option<NodeName>,
}

impl LeaseRecord {
    /// The record to write where the lease of a node that is named as owner is gone.
    pub fn lost(owner: &Owner, wall: Timestamp) -> Self {
        Self {
            cluster: None,
            node: owner.node.clone(),
            incarnation: Uuid::nil(),
            epoch: owner.epoch,
            seq: 0,
            state: LeaseState::Lost,
            machine_id: String::new(),
            boot_id: String::new(),
            timings: LeaseTimings::LONGEST,
            controller_alive: false,
            copies: None,
            sent_millis: None,
            moved_away_in: None,
            renewed_at: wall,
            fenced_by: None,
        }
    }
}

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
    pub fn unplaced(name: VmName, uuid: Uuid) -> Self {
        Self {
            name,
            uuid,
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
        }
    }
}

/// `intent/power`, `intent/freeze`, `intent/drain.<node>`, ...: an order that an operator gave by command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Intent {
    /// The VM is to run, whatever has kept it from that before: failed starts, a guest that powered itself off.
    Start { id: Uuid, by: String, at: Timestamp, message: String },
    /// The VM is to be shut down and stay so.
    #[serde(rename_all = "camelCase")]
    Stop {
        by: String,
        at: Timestamp,
        message: String,
        /// How long the guest has to power off before it is ended. None: as long as zsha gives it by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u64>,
    },
    /// No node begins anything: no start, no failover, no migration, no stop. What is under way is finished, and leases
    /// are kept and obeyed as ever.
    Freeze { by: String, at: Timestamp, message: String },
    /// The VM is to leave the node of the key, and not to come there.
    Drain {
        by: String,
        at: Timestamp,
        message: String,
        /// Set by the host itself while it shuts down, beside the operator's own drain where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shutdown: Option<HostShutdown>,
    },
    /// The VM is to be moved live to this node, once. The ownership record tells the outcome, by the `id`; after that
    /// the order means nothing any more.
    Migrate { id: Uuid, to: NodeName, by: String, at: Timestamp, message: String },
    /// The guest's root is to have the default password again, once, and only where the document allows it. The
    /// ownership record tells the outcome, by the `id`; after that the order means nothing any more.
    ResetPassword { id: Uuid, by: String, at: Timestamp, message: String },
    /// A placeholder that keeps the key, and so a quiet watch, in being. It asks for nothing.
    None,
}

/// A host that shuts down, with the VM or without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostShutdown {
    /// The kernel's id of the boot that ends. In another boot this means nothing any more.
    pub boot_id: String,
    /// True if the time in which the VM could leave live is over. Then its guest is shut down, wherever the VM could
    /// go.
    #[serde(default)]
    pub no_time_to_move: bool,
}

impl Intent {
    /// The name, below `intent/`, of the order that says whether the VM is to run at all.
    pub const POWER: &str = "power";
    /// The name of the order that says whether anything may be begun.
    pub const FREEZE: &str = "freeze";
    /// The name of the last order to migrate.
    pub const MIGRATE: &str = "migrate";
    /// The name of the last order to reset the guest's password.
    pub const RESET_PASSWORD: &str = "reset-password";
    /// The beginning of the names of the orders to drain, one for each node.
    const DRAIN: &str = "drain.";

    /// The reason for which an order is unreadable that stands under the name of another kind.
    pub const MISPLACED: &str = "an order of another kind stands there";

    /// True if an order of this kind stands under this name. [`Intent::None`] may stand under any.
    pub fn belongs_under(&self, name: &str) -> bool {
        match self {
            Self::Start { .. } | Self::Stop { .. } => name == Self::POWER,
            Self::Freeze { .. } => name == Self::FREEZE,
            Self::Migrate { .. } => name == Self::MIGRATE,
            Self::ResetPassword { .. } => name == Self::RESET_PASSWORD,
            Self::Drain { .. } => Self::drained(name).is_some(),
            Self::None => true,
        }
    }

    /// The author of a drain that a host asks for itself, as it shuts down in this boot. No command has this author,
    /// since a command names `user@host`.
    pub fn host_itself(node: &NodeName, boot_id: &str) -> String {
        format!("{}{boot_id})", Self::host_in_boot(node))
    }

    fn host_in_boot(node: &NodeName) -> String {
        format!("{node} itself (boot ")
    }

    /// True if the host itself is the author, in some boot.
    pub fn is_host_itself(node: &NodeName, by: &str) -> bool {
        by.starts_with(&Self::host_in_boot(node))
    }

    pub fn drain_of(node: &NodeName) -> String {
        format!("{}{node}", Self::DRAIN)
    }

    /// The node that an intent of this name is about, if it is one to drain.
    pub fn drained(name: &str) -> Option<NodeName> {
        NodeName::new(name.strip_prefix(Self::DRAIN)?).ok()
    }
}

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
    /// The state of the VM in the local hypervisor.
    pub local_vm: LocalState,
    /// True if the VM is here while the ownership record names another node. If that node has no copy, it hands the VM
    /// over to this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub runs_unnamed: bool,
    /// How far the live migration from this node is, where one is under way and it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrated_percent: Option<u8>,
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

words! {
    #[derive(Serialize, Deserialize, JsonSchema)]
    EventType {
        Normal,
        Warning,
    }
}

impl EventType {
    pub fn tone(self) -> Tone {
        match self {
            Self::Normal => Tone::Neutral,
            Self::Warning => Tone::Doubtful,
        }
    }
}

/// `events/<node>/<id>`: something that happened, and why; the same thing again counts up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    #[serde(rename = "type")]
    pub kind: EventType,
    /// One CamelCase word: `Fenced`, `Started`, `QemuDied`, ...
    pub reason: String,
    pub message: String,
    /// The thing it is about: `vm/mnvm`, `node/nfs-1`, `cluster/prod`.
    pub regarding: String,
    /// The node that saw it.
    pub node: NodeName,
    pub count: u32,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}
