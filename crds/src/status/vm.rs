//! The VM in one value: where it is and what it does, as far as a living controller says so.
//!
//! Never here: an old word in the place of a present one. It goes to `lastKnownState`, and `state` is `Unknown`.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::nodes::{ControllerState, LeaseWord, NodeSummary};
use super::{DataAge, Facts, Observed};
use crate::document::Nic;
use crate::records::{Owner, StartRecord, VmPhase, VmRecord, VmStatus};
use crate::{ConditionKind, ConditionStatus, NodeName, VmId, VmName, VmState, condition};

/// The state that operators want the VM in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Wanted {
    Running,
    /// An operator asked for a stop.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmSummary {
    pub name: VmName,
    pub uuid: Uuid,
    /// The owner by the record; absent where no node owns the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    pub state: VmState,
    /// The state that was last said, where no living controller says it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_state: Option<VmState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_at: Option<Timestamp>,
    pub wanted: Wanted,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<VmPhase>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrating_to: Option<NodeName>,
    /// The time since when `state` is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Generation of the document the running VM was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_start: Option<StartRecord>,
    /// Its addresses as the document gives them, in the order of the document's NICs. Empty where the document is not
    /// known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<GuestAddress>,
    /// Why it is as it is; empty where nothing is to be said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The address that the document gives one NIC of the guest. Only the guest knows whether it took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GuestAddress {
    /// Absent where it depends on the node the guest booted on, and that is not known: no node owns the VM, or it was
    /// moved live since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    pub bridge: String,
    /// True if this is the management NIC.
    pub management: bool,
    pub default_route: bool,
}

fn addresses(facts: &Facts<'_>, record: Option<&VmRecord>) -> Vec<GuestAddress> {
    let nics = facts.document.iter().flat_map(|document| &document.spec.network);
    // A guest that is moved keeps what it was told where it booted.
    let booted_on = record.and_then(|record| {
        let moved = record.last_start.as_ref().is_some_and(|start| start.reason == StartRecord::MIGRATED);
        record.owner.as_ref().filter(|_| !moved).map(|owner| &owner.node)
    });
    let address = |nic: &Nic| match (booted_on, nic.ipaddr.values().as_slice()) {
        (_, [(None, address)]) => Some(**address),
        (Some(node), _) => nic.ipaddr.for_node(node).copied(),
        (None, _) => None,
    };
    nics.map(|nic| GuestAddress {
        address: address(nic),
        bridge: nic.bridge.to_string(),
        management: nic.is_mgmt,
        default_route: nic.is_def_route,
    })
    .collect()
}

/// The state in a word, or why it is not known.
enum Word {
    Known(VmState),
    Unknown(String),
}

pub(super) fn summarise(facts: &Facts<'_>, nodes: &[NodeSummary]) -> VmSummary {
    let view = facts.view;
    let VmId { name, uuid } = view.vm_id();
    let record = view.vm.as_ref();
    let owner = record.and_then(|record| record.owner.as_ref());
    let status =
        view.vm_status.as_ref().filter(|status| owner.is_some_and(|owner| owner.node == status.node));
    let last_start = record.and_then(|record| record.last_start.clone());
    let mut summary = VmSummary {
        uuid: record.map_or(uuid, |record| record.uuid),
        name,
        node: owner.map(|owner| owner.node.clone()),
        state: VmState::Unknown,
        last_known_state: None,
        last_known_at: None,
        wanted: if view.stop_wanted().is_some() { Wanted::Stopped } else { Wanted::Running },
        phase: record.map(|record| record.phase),
        migrating_to: record.and_then(|r| r.migration.as_ref()).map(|migration| migration.to.node.clone()),
        since: None,
        generation: None,
        last_start,
        addresses: addresses(facts, record),
        note: record.map(|record| record.note.clone()).unwrap_or_default(),
    };
    match word(facts, nodes, status) {
        Word::Known(state) => {
            summary.since = since(state, status, summary.last_start.as_ref());
            if let Some(why) = not_told(status) {
                summary.note = why;
            }
            summary.generation =
                status.filter(|_| state == VmState::Running).map(|status| status.running_generation);
            summary.state = state;
        }
        Word::Unknown(why) => {
            summary.last_known_state = view.vm_status.as_ref().map(|status| status.state);
            summary.last_known_at = view.vm_status.as_ref().map(|status| status.updated_at);
            summary.note = why;
        }
    }
    summary
}

/// The reason why the guest has not been told its configuration, where that was seen.
fn not_told(status: Option<&VmStatus>) -> Option<String> {
    let told = condition::find(&status?.conditions, ConditionKind::GuestConfigured)?;
    (told.status == ConditionStatus::False).then(|| told.message.clone())
}

fn word(facts: &Facts<'_>, nodes: &[NodeSummary], status: Option<&VmStatus>) -> Word {
    if let DataAge::Stale { why, .. } = &facts.view.data_age {
        return Word::Unknown(format!("the store was read without its quorum: {why}"));
    }
    match facts.view.ownership() {
        Observed::Absent => Word::Unknown("there is no record of who owns it".to_owned()),
        Observed::Unreadable(why) => {
            Word::Unknown(format!("the record of who owns it cannot be read: {why}"))
        }
        Observed::Present(VmRecord { owner: None, phase, .. }) => match phase {
            VmPhase::Stopped | VmPhase::PoweredOff | VmPhase::Failed => Word::Known((*phase).into()),
            VmPhase::Starting | VmPhase::Running | VmPhase::Stopping => {
                Word::Unknown(format!("the record says {phase:?} and names no owner"))
            }
        },
        Observed::Present(VmRecord { owner: Some(owner), phase, .. }) => {
            match unspoken(facts, nodes, owner) {
                Some(why) => Word::Unknown(why),
                None => reported(owner, *phase, status),
            }
        }
    }
}

/// The reason why the owner cannot say what is so, if it cannot.
fn unspoken(facts: &Facts<'_>, nodes: &[NodeSummary], owner: &Owner) -> Option<String> {
    let node = &owner.node;
    let Some(summary) = nodes.iter().find(|summary| summary.name == *node) else {
        return Some(format!("it is owned by {node}, of which nothing is known"));
    };
    let later_life = match facts.view.lease(node) {
        Observed::Present(lease) => lease.epoch > owner.epoch,
        Observed::Absent | Observed::Unreadable(_) => false,
    };
    match summary.lease {
        LeaseWord::Held | LeaseWord::Late if later_life => {
            Some(format!("{node} owned it in an earlier life: that copy is dead"))
        }
        LeaseWord::Held | LeaseWord::Late => match summary.controller {
            ControllerState::Up => None,
            ControllerState::Down | ControllerState::Unknown => {
                Some(format!("the controller of {node} is down: what the VM does now is not known"))
            }
        },
        LeaseWord::Expired => Some(format!("{node} owns it and its lease has run out")),
        LeaseWord::Fenced => Some(format!("{node} owned it and was fenced: that copy is dead")),
        LeaseWord::Released => Some(format!("{node} owned it and has released its lease")),
        LeaseWord::Lost => {
            Some(format!("{node} owns it, and its lease was gone: its copy may live for some minutes yet"))
        }
        LeaseWord::Missing => Some(format!("{node} owns it and has no lease")),
        LeaseWord::Unknown => Some(format!("{node} owns it and its lease cannot be judged")),
    }
}

/// The word of an owner that lives: it counts, unless the record has moved on since.
fn reported(owner: &Owner, phase: VmPhase, status: Option<&VmStatus>) -> Word {
    match (phase, status) {
        (VmPhase::Running, None) => Word::Unknown(format!("{} has not reported on it yet", owner.node)),
        (VmPhase::Running, Some(status)) => Word::Known(status.state),
        (_, Some(status)) if status.state != VmState::Running => Word::Known(status.state),
        (
            VmPhase::Starting | VmPhase::Stopping | VmPhase::Stopped | VmPhase::PoweredOff | VmPhase::Failed,
            None | Some(_),
        ) => Word::Known(phase.into()),
    }
}

/// The time since when the state is so. The report is also written when other things change, so for a VM that runs or
/// starts the last start is the better word.
fn since(state: VmState, status: Option<&VmStatus>, last_start: Option<&StartRecord>) -> Option<Timestamp> {
    match (state, last_start) {
        (VmState::Running | VmState::Starting, Some(start)) => Some(start.at),
        _ => status.map(|status| status.updated_at),
    }
}
