//! Each node in one line: its lease in a word, whether the VM could be placed there, and why not.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Facts, LeaseSight, Observed};
use crate::condition::DRAINED;
use crate::records::{LeaseRecord, LeaseState, NodeStatus};
use crate::tone::Tone;
use crate::words::words;
use crate::{Condition, ConditionKind, ConditionStatus, LocalState, NodeName, condition};

words! {
    /// A node's lease in one word.
    #[derive(Serialize, Deserialize, JsonSchema)]
    LeaseWord {
        /// The lease is renewed on time.
        Held,
        /// The lease is overdue, and still within the time one renewal holds.
        Late,
        /// The lease was not renewed for longer than one renewal holds: the node may run nothing.
        Expired,
        /// Another node took the lease away.
        Fenced,
        /// The node gave the lease up after its copy was seen dead.
        Released,
        /// The record was gone and another node put one in its place, which the node has not renewed yet.
        Lost,
        /// There is no record: the node has never had one, or it was deleted.
        Missing,
        /// There is a record that cannot be judged.
        Unknown,
    }
}

impl LeaseWord {
    pub fn tone(self) -> Tone {
        match self {
            Self::Held => Tone::Good,
            Self::Late | Self::Released | Self::Lost | Self::Missing | Self::Unknown => Tone::Doubtful,
            Self::Expired | Self::Fenced => Tone::Bad,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// The ownership record names the node.
    Owner,
    /// The VM is being migrated to the node.
    MigrationTarget,
    /// The node could take the VM over now.
    Standby,
    /// Operators keep the VM from the node; whatever else it lacks stands beside that.
    Drained,
    /// The node could not take the VM over; the reasons say why.
    Unfit,
    /// The document does not name the node.
    Removed,
}

words! {
    #[derive(Serialize, Deserialize, JsonSchema)]
    ControllerState {
        Up,
        /// The keeper renews the lease and has not heard from its controller.
        Down,
        Unknown,
    }
}

impl ControllerState {
    pub fn tone(self) -> Tone {
        match self {
            Self::Up => Tone::Good,
            Self::Down => Tone::Bad,
            Self::Unknown => Tone::Doubtful,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    pub name: NodeName,
    /// The address in the document; absent for a node that the document does not name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    pub lease: LeaseWord,
    /// True if a controller that lives says that the VM may be placed here.
    pub ready: bool,
    pub role: Role,
    /// The reasons why it is not ready, a sentence each; empty where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    pub controller: ControllerState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub controller_version: Option<String>,
    /// The local hypervisor's word for the VM; `Unknown` where no living controller says it.
    pub local_vm: LocalState,
    /// True if a controller that lives says that the document's mounts and the image are there and answer.
    #[serde(default = "unknown")]
    pub storage: ConditionStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u64>,
    /// The kind of this host as its controller said last, if it is no real machine or cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_host: Option<String>,
}

fn unknown() -> ConditionStatus {
    ConditionStatus::Unknown
}

/// The status of mounts and image together: True if both are, False if one is.
fn storage(status: Option<&NodeStatus>) -> ConditionStatus {
    let Some(status) = status else { return ConditionStatus::Unknown };
    let part =
        |kind| condition::find(&status.conditions, kind).map_or(ConditionStatus::Unknown, |c| c.status);
    match [ConditionKind::MountsReady, ConditionKind::ImagePresent].map(part) {
        [ConditionStatus::True, ConditionStatus::True] => ConditionStatus::True,
        parts if parts.contains(&ConditionStatus::False) => ConditionStatus::False,
        _ => ConditionStatus::Unknown,
    }
}

impl NodeSummary {
    /// True if the node's lease may still be valid.
    pub fn alive(&self) -> bool {
        matches!(self.lease, LeaseWord::Held | LeaseWord::Late)
    }

    /// True if what its controller wrote is the present: the lease is kept and the controller lives.
    pub fn speaks(&self) -> bool {
        self.alive() && self.controller == ControllerState::Up
    }
}

pub(super) fn summarise(facts: &Facts<'_>) -> Vec<NodeSummary> {
    let named: Vec<(NodeName, Option<String>)> = match &facts.document {
        Ok(document) => {
            document.nodes().iter().map(|node| (node.name.clone(), Some(node.address.to_string()))).collect()
        }
        Err(_) => Vec::new(),
    };
    let known: BTreeSet<&NodeName> = named.iter().map(|(name, _)| name).collect();
    let view = facts.view;
    let others: BTreeSet<&NodeName> =
        view.leases.keys().chain(view.node_statuses.keys()).filter(|name| !known.contains(name)).collect();
    let others: Vec<_> = others.into_iter().map(|name| (name.clone(), None)).collect();
    named.into_iter().chain(others).map(|(name, address)| one(facts, name, address)).collect()
}

fn one(facts: &Facts<'_>, name: NodeName, address: Option<String>) -> NodeSummary {
    let view = facts.view;
    let record = view.lease(&name);
    let lease = lease_word(facts, &name, record);
    let alive = matches!(lease, LeaseWord::Held | LeaseWord::Late);
    let controller = match record {
        Observed::Present(record) if alive && record.controller_alive => ControllerState::Up,
        Observed::Present(_) if alive => ControllerState::Down,
        Observed::Present(_) | Observed::Absent | Observed::Unreadable(_) => ControllerState::Unknown,
    };
    let status = view.node_statuses.get(&name);
    let removed = facts.document.is_ok() && address.is_none();
    let mut reasons = lease_reasons(facts, &name, lease, record);
    if alive && controller == ControllerState::Down {
        reasons.push("its controller is down; its keeper still renews the lease".to_owned());
    }
    if controller == ControllerState::Up {
        reasons.extend(unfit_reasons(status));
    }
    // Where its controller says so itself, it is among its own reasons.
    let says_so = status.filter(|_| controller == ControllerState::Up).is_some_and(is_drained_by_its_word);
    if let Some(asked) = view.drained(&name).filter(|_| !says_so) {
        reasons.push(format!("{DRAINED}: it was drained {asked}"));
    }
    if removed {
        reasons.push("the document does not name it".to_owned());
    }
    let ready = reasons.is_empty();
    // No reason against it: it is the last to be given the VM.
    if ready && let Some(unstable) = status.and_then(|status| unstable(&status.conditions)) {
        reasons.push(unstable);
    }
    let speaking = status.filter(|_| controller == ControllerState::Up);
    NodeSummary {
        role: role(facts, &name, ready, removed),
        local_vm: speaking.map_or(LocalState::Unknown, |_| view.here(&name).local_vm),
        storage: storage(speaking),
        observed_generation: status.map(|status| status.observed_generation),
        controller_version: status.map(|status| status.controller_version.clone()),
        virtual_host: status.and_then(|status| status.virtual_host.clone()),
        name,
        address,
        lease,
        ready,
        reasons,
        controller,
    }
}

fn lease_word(facts: &Facts<'_>, name: &NodeName, record: Observed<'_, LeaseRecord>) -> LeaseWord {
    let record = match record {
        Observed::Present(record) => record,
        Observed::Absent => return LeaseWord::Missing,
        Observed::Unreadable(_) => return LeaseWord::Unknown,
    };
    // What no quorum confirms may be long past, whatever its own time says.
    let sight = facts.view.lease_ages.get(name).filter(|_| facts.view.data_age.is_current());
    match (record.state, sight) {
        (LeaseState::Released, _) => LeaseWord::Released,
        (LeaseState::Fenced, _) => LeaseWord::Fenced,
        (LeaseState::Lost, _) => LeaseWord::Lost,
        (LeaseState::Held, Some(LeaseSight::Fresh)) => LeaseWord::Held,
        (LeaseState::Held, Some(LeaseSight::Late { .. })) => LeaseWord::Late,
        (LeaseState::Held, Some(LeaseSight::Expired)) => LeaseWord::Expired,
        (LeaseState::Held, Some(LeaseSight::Unknown) | None) => LeaseWord::Unknown,
    }
}

fn lease_reasons(
    facts: &Facts<'_>,
    name: &NodeName,
    lease: LeaseWord,
    record: Observed<'_, LeaseRecord>,
) -> Vec<String> {
    let by = match record {
        Observed::Present(record) => record.fenced_by.as_ref(),
        Observed::Absent | Observed::Unreadable(_) => None,
    };
    let sentence = match (lease, record) {
        (LeaseWord::Held, _) => return Vec::new(),
        (LeaseWord::Late, _) => match facts.view.lease_ages.get(name) {
            Some(LeaseSight::Late { secs }) => format!("its lease was last renewed {secs} s ago"),
            Some(LeaseSight::Fresh | LeaseSight::Expired | LeaseSight::Unknown) | None => {
                "its lease is late".to_owned()
            }
        },
        (LeaseWord::Expired, _) => "its lease has run out: the VM may not run on it".to_owned(),
        (LeaseWord::Fenced, _) => match by {
            Some(by) => format!("it was fenced by {by}"),
            None => "it was fenced".to_owned(),
        },
        (LeaseWord::Released, _) => "it has released its lease".to_owned(),
        (LeaseWord::Missing, _) => "it has no lease: its keeper has never run".to_owned(),
        (LeaseWord::Lost, _) => "its lease was gone and it has not renewed it since".to_owned(),
        (LeaseWord::Unknown, Observed::Unreadable(why)) => format!("its lease cannot be read: {why}"),
        (LeaseWord::Unknown, _) if !facts.view.data_age.is_current() => {
            "no quorum of the store confirms its lease".to_owned()
        }
        (LeaseWord::Unknown, Observed::Present(_) | Observed::Absent) => {
            "its lease has not been watched for long enough to tell".to_owned()
        }
    };
    vec![sentence]
}

fn is_drained_by_its_word(status: &NodeStatus) -> bool {
    condition::find(&status.conditions, ConditionKind::Schedulable).is_some_and(|said| said.reason == DRAINED)
}

/// The sentence on a node that loses its lease again and again.
fn unstable(conditions: &[Condition]) -> Option<String> {
    let stable = condition::find(conditions, ConditionKind::Stable).filter(|stable| !stable.is_true())?;
    Some(format!("{}: {}", stable.reason, stable.message))
}

fn unfit_reasons(status: Option<&NodeStatus>) -> Vec<String> {
    let Some(status) = status else { return vec!["its controller has not reported yet".to_owned()] };
    match condition::find(&status.conditions, ConditionKind::Ready) {
        Some(ready) if ready.is_true() => Vec::new(),
        ready => {
            let parts = status
                .conditions
                .iter()
                .filter(|c| !c.is_of(ConditionKind::Ready) && c.status != ConditionStatus::True);
            let mut told = BTreeSet::new();
            let parts = parts.map(|c| format!("{}: {}", c.reason, c.message));
            // What a look that is still to come leaves open, it leaves open for several conditions in the same words.
            let parts: Vec<String> = parts.filter(|part| told.insert(part.clone())).collect();
            match ready {
                Some(ready) if parts.is_empty() => vec![format!("{}: {}", ready.reason, ready.message)],
                None if parts.is_empty() => vec!["its controller has not said that it is ready".to_owned()],
                Some(_) | None => parts,
            }
        }
    }
}

fn role(facts: &Facts<'_>, name: &NodeName, ready: bool, removed: bool) -> Role {
    let vm = facts.view.vm.as_ref();
    let owner = vm.and_then(|vm| vm.owner.as_ref());
    let target = vm.and_then(|vm| vm.migration.as_ref()).map(|migration| &migration.to);
    match () {
        () if owner.is_some_and(|owner| owner.node == *name) => Role::Owner,
        () if target.is_some_and(|to| to.node == *name) => Role::MigrationTarget,
        () if removed => Role::Removed,
        () if facts.view.drained(name).is_some() => Role::Drained,
        () if ready => Role::Standby,
        () => Role::Unfit,
    }
}
