//! The computed view of a cluster in one value, which the command line prints and the controllers serve. [`summarise`]
//! is a pure function of a [`ClusterView`], so both say the same of the same records.
//!
//! Never here: reading the store, or taking an old word for a present one. A state that no fresh word vouches for is
//! `Unknown`, with the last word beside it.

mod bound;
mod conditions;
mod nodes;
mod protection;
mod view;
mod vm;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bound::{FailoverBound, failover_bound};
pub use conditions::ClusterCondition;
pub use nodes::{ControllerState, LeaseWord, NodeSummary, Role};
pub use view::{Asked, ClusterView, DataAge, LeaseSight, Observed, RawRecord};
pub use vm::{GuestAddress, VmSummary, Wanted};

use crate::records::EventRecord;
use crate::{ClusterName, ConditionKind, ConditionStatus, HaCluster, NodeName};

/// `kind: Status`. Fields are only ever added to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    pub api_version: String,
    pub kind: String,
    pub cluster: ClusterName,
    /// The time when it was computed, by the clock of the process that computed it.
    pub as_of: Timestamp,
    /// How old the records are that it was computed from; absent for a consistent read.
    #[serde(default, skip_serializing_if = "DataAge::is_current")]
    pub data_age: DataAge,
    /// `Ready` and `Protected` are both True.
    pub healthy: bool,
    /// Generation of the document in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The oldest generation that a living controller acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<u64>,
    pub vm: VmSummary,
    /// The nodes in the order of the document. Nodes that it does not name come last.
    pub nodes: Vec<NodeSummary>,
    /// The worst time from the loss of the owner to a running QEMU elsewhere; absent where no timings are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_bound_seconds: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover_bound: Option<FailoverBound>,
    /// True if the VM survives the loss of any one more node.
    pub protected: bool,
    /// The reason why it does, or does not.
    pub protection: String,
    pub conditions: Vec<ClusterCondition>,
    /// The things that are not being done, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingOf>,
    /// The events, oldest first.
    pub events: Vec<EventRecord>,
}

/// A thing that is not done, why, and which nodes say so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingOf {
    pub reason: String,
    pub message: String,
    pub nodes: Vec<NodeName>,
}

impl ClusterStatus {
    pub fn condition(&self, kind: ConditionKind) -> Option<&ClusterCondition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }

    pub fn node(&self, name: &NodeName) -> Option<&NodeSummary> {
        self.nodes.iter().find(|node| node.name == *name)
    }
}

/// A view with its document as types, if there is one.
struct Facts<'a> {
    view: &'a ClusterView,
    document: Result<HaCluster, String>,
}

/// Says everything that can be said of `view`, and nothing that cannot.
pub fn summarise(view: &ClusterView) -> ClusterStatus {
    let facts = Facts { view, document: view.document() };
    let nodes = nodes::summarise(&facts);
    let vm = vm::summarise(&facts, &nodes);
    let bound = bound::in_force(&facts);
    let observed_generation =
        nodes.iter().filter(|node| node.speaks()).filter_map(|n| n.observed_generation).min();
    let protection = protection::judge(&facts, &vm, &nodes);
    let conditions = conditions::summarise(&facts, &vm, &nodes, observed_generation, &protection);
    let is_true =
        |kind: ConditionKind| conditions.iter().any(|c| c.kind == kind && c.status == ConditionStatus::True);
    ClusterStatus {
        api_version: crate::API_VERSION.to_owned(),
        kind: "Status".to_owned(),
        cluster: view.cluster.clone(),
        as_of: view.now,
        data_age: view.data_age.clone(),
        healthy: is_true(ConditionKind::Ready) && is_true(ConditionKind::Protected),
        generation: view.spec.as_ref().map(|spec| spec.generation),
        observed_generation,
        failover_bound_seconds: bound.as_ref().map(|bound| bound.total_seconds),
        failover_bound: bound,
        protected: protection.status == ConditionStatus::True,
        protection: protection.sentence,
        waiting: waiting(view, &nodes),
        events: view.events.clone(),
        conditions,
        vm,
        nodes,
    }
}

/// Sentences said by several nodes are told once.
fn waiting(view: &ClusterView, nodes: &[NodeSummary]) -> Vec<WaitingOf> {
    let mut told: Vec<WaitingOf> = Vec::new();
    for node in nodes.iter().filter(|node| node.speaks()) {
        for waiting in view.node_statuses.get(&node.name).into_iter().flat_map(|status| &status.waiting) {
            match told.iter_mut().find(|t| t.reason == waiting.reason && t.message == waiting.message) {
                Some(same) => same.nodes.push(node.name.clone()),
                None => told.push(WaitingOf {
                    reason: waiting.reason.clone(),
                    message: waiting.message.clone(),
                    nodes: vec![node.name.clone()],
                }),
            }
        }
    }
    told
}

#[cfg(test)]
mod tests;
