//! Conditions as Kubernetes knows them: `type`, `status`, `reason`, `message`, when it last changed.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tone::Tone;
use crate::words::words;

words! {
    /// True, False, or Unknown: unknown is never taken for either of the others.
    #[derive(Serialize, Deserialize, JsonSchema)]
    ConditionStatus {
        True,
        False,
        Unknown,
    }
}

impl ConditionStatus {
    pub fn tone(self) -> Tone {
        match self {
            Self::True => Tone::Good,
            Self::False => Tone::Bad,
            Self::Unknown => Tone::Doubtful,
        }
    }
}

/// The reason of [`ConditionKind::UpToDate`], and of [`ConditionKind::Converged`], where the VM has other devices than it
/// was started with.
pub const RUNS_OTHERWISE: &str = "RunsOtherwise";
/// The reason of the same two where the generation is the one in force and the devices cannot be told.
pub const DEVICES_UNKNOWN: &str = "DevicesUnknown";

/// The reason of [`ConditionKind::Schedulable`] while operators keep the VM from the node.
pub const DRAINED: &str = "Drained";

words! {
    /// The kinds of conditions: each says what a condition is about.
    #[derive(Serialize, Deserialize, JsonSchema)]
    ConditionKind {
        /// The summary. For a node: the VM may be placed there. For the cluster: the VM runs.
        Ready,
        // Of a node, in the order in which they are told.
        DocumentKnown,
        /// The stored document is the one in force. This is only told, and is no reason against a node: the VM may well be
        /// placed by the last good document.
        SpecValid,
        LeaseValid,
        HypervisorReachable,
        /// The hypervisor there would take the VM as the document has it.
        DomainAccepted,
        MountsReady,
        BridgesReady,
        ImagePresent,
        SeedReady,
        WatchdogReady,
        /// No operator keeps the VM from the node.
        Schedulable,
        /// The node does not lose its lease again and again. A node that does is the last to be given the VM.
        Stable,
        // Of the VM, as its owner says.
        /// The VM runs as the document in force says.
        UpToDate,
        /// The guest's own configuration is as the document says, as far as its agent was asked.
        GuestConfigured,
        // Of the cluster, beside `Ready` and `SpecValid`.
        /// A node owns the VM.
        Placed,
        Converged,
        StoreReachable,
        /// Another node would run the VM if the owner died now.
        Protected,
    }
}

impl ConditionKind {
    /// True for a part of a node that is told and counts not against it: the VM may be placed there all the same.
    pub fn is_only_told(self) -> bool {
        matches!(self, Self::SpecValid | Self::Stable)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// One of [`ConditionKind`], or a kind that only a later build knows.
    #[serde(rename = "type")]
    pub kind: String,
    pub status: ConditionStatus,
    /// One CamelCase word for machines.
    pub reason: String,
    /// A sentence for people: what is, and what to do about it.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u64>,
    pub last_transition_time: Timestamp,
}

impl Condition {
    pub fn new(
        kind: ConditionKind,
        status: ConditionStatus,
        reason: &str,
        message: impl Into<String>,
        now: Timestamp,
    ) -> Self {
        Self {
            kind: kind.as_str().to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.into(),
            observed_generation: None,
            last_transition_time: now,
        }
    }

    pub fn is_of(&self, kind: ConditionKind) -> bool {
        self.kind == kind.as_str()
    }

    pub fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }
}

/// Puts `new` in the place of the condition of its type, keeping the old transition time where the status is the
/// same, so that two passes in a row write the same bytes.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    match conditions.iter_mut().find(|c| c.kind == new.kind) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time = old.last_transition_time;
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

pub fn find(conditions: &[Condition], kind: ConditionKind) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.is_of(kind))
}
