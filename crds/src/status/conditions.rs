//! The conditions of the whole cluster, always all of them and in this order: Ready, Placed, Converged, SpecValid,
//! StoreReachable, Protected.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::nodes::NodeSummary;
use super::protection::Protection;
use super::vm::{VmSummary, Wanted};
use super::{DataAge, Facts};
use crate::{Condition, ConditionKind, ConditionStatus, VmState, condition};

/// A condition that is computed when asked for: when it last changed is said only where a record tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCondition {
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    pub status: ConditionStatus,
    /// One CamelCase word for machines.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Timestamp>,
}

impl ClusterCondition {
    fn new(kind: ConditionKind, status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, status, reason: reason.to_owned(), message: message.into(), last_transition_time: None }
    }

    fn since(mut self, at: Option<Timestamp>) -> Self {
        self.last_transition_time = at;
        self
    }
}

use ConditionStatus::{False, True, Unknown};

pub(super) fn summarise(
    facts: &Facts<'_>,
    vm: &VmSummary,
    nodes: &[NodeSummary],
    observed_generation: Option<u64>,
    protection: &Protection,
) -> Vec<ClusterCondition> {
    vec![
        ready(vm),
        placed(facts, vm),
        converged(facts, vm, observed_generation),
        spec_valid(facts, nodes),
        store_reachable(&facts.view.data_age),
        ClusterCondition::new(
            ConditionKind::Protected,
            protection.status,
            protection.reason,
            protection.sentence.clone(),
        ),
    ]
}

fn ready(vm: &VmSummary) -> ClusterCondition {
    let of = |status, reason: &str, message: String| {
        ClusterCondition::new(ConditionKind::Ready, status, reason, message).since(vm.since)
    };
    let name = &vm.name;
    let noted = |sentence: String| match vm.note.as_str() {
        "" => sentence,
        note => format!("{sentence}: {note}"),
    };
    match (vm.wanted, vm.state, &vm.node) {
        (_, VmState::Unknown, _) => of(Unknown, "VmUnknown", noted(format!("what {name} does is not known"))),
        (Wanted::Running, VmState::Running, Some(node)) => {
            of(True, "VmRunning", format!("{name} runs on {node}"))
        }
        (Wanted::Stopped, VmState::Stopped, _) => {
            of(False, "StoppedByOperator", noted(format!("{name} is stopped")))
        }
        (Wanted::Stopped, state, _) => {
            of(False, "Stopping", noted(format!("{name} is to be stopped and is {state}")))
        }
        (Wanted::Running, state, _) => of(False, &format!("Vm{state}"), noted(format!("{name} is {state}"))),
    }
}

fn placed(facts: &Facts<'_>, vm: &VmSummary) -> ClusterCondition {
    let at = vm.last_start.as_ref().map(|start| start.at);
    match (&vm.node, facts.view.vm.is_some()) {
        (Some(node), _) => {
            ClusterCondition::new(ConditionKind::Placed, True, "Owned", format!("{node} owns {}", vm.name))
                .since(at)
        }
        (None, true) => ClusterCondition::new(
            ConditionKind::Placed,
            False,
            "NoOwner",
            format!("no node owns {}", vm.name),
        ),
        (None, false) => ClusterCondition::new(ConditionKind::Placed, Unknown, "NoRecord", vm.note.clone()),
    }
}

fn converged(facts: &Facts<'_>, vm: &VmSummary, observed: Option<u64>) -> ClusterCondition {
    let of = |status, reason: &str, message: String| {
        ClusterCondition::new(ConditionKind::Converged, status, reason, message)
    };
    let Some(generation) = facts.view.spec.as_ref().map(|spec| spec.generation) else {
        return of(Unknown, "NoDocument", "there is no document to converge to".to_owned());
    };
    match (observed, vm.generation) {
        (None, _) => of(Unknown, "NobodyReports", "no living controller reports".to_owned()),
        (Some(observed), _) if observed < generation => of(
            False,
            "NotYetObserved",
            format!("a controller still acts on generation {observed} of {generation}"),
        ),
        (Some(_), Some(running)) if running < generation => of(
            False,
            "PendingNextBoot",
            format!(
                "{} runs with generation {running}; the rest of generation {generation} is in force from its next boot",
                vm.name
            ),
        ),
        (Some(_), Some(_)) => match as_started(facts, vm) {
            Some(told) if told.reason == condition::RUNS_OTHERWISE => {
                of(False, condition::RUNS_OTHERWISE, told.message.clone())
            }
            Some(told) if told.reason == condition::DEVICES_UNKNOWN => {
                of(Unknown, condition::DEVICES_UNKNOWN, told.message.clone())
            }
            Some(_) | None => of(True, "UpToDate", format!("generation {generation} is in force")),
        },
        (Some(_), None) if vm.wanted == Wanted::Stopped && vm.state == VmState::Stopped => {
            of(True, "Stopped", format!("{} is stopped, as asked", vm.name))
        }
        (Some(_), None) if vm.state == VmState::Unknown => {
            of(Unknown, "VmUnknown", format!("what {} runs with is not known", vm.name))
        }
        (Some(_), None) => of(False, "NotRunning", format!("{} is {}", vm.name, vm.state)),
    }
}

/// The owner's word on whether the VM runs as it was started.
fn as_started<'a>(facts: &Facts<'a>, vm: &VmSummary) -> Option<&'a Condition> {
    let status = facts.view.vm_status.as_ref().filter(|status| vm.node.as_ref() == Some(&status.node))?;
    condition::find(&status.conditions, ConditionKind::UpToDate)
}

fn spec_valid(facts: &Facts<'_>, nodes: &[NodeSummary]) -> ClusterCondition {
    let of = |status, reason: &str, message: String| {
        ClusterCondition::new(ConditionKind::SpecValid, status, reason, message)
    };
    let view = facts.view;
    let stays = |why: &str| of(False, "Invalid", format!("the last good document stays in force: {why}"));
    match (&facts.document, &view.spec) {
        (Err(why), None) if view.spec_problem.is_none() => of(Unknown, "NoDocument", why.clone()),
        (Err(why), _) => stays(why),
        (Ok(_), _) => {
            if let Some(why) = &view.spec_problem {
                return stays(why);
            }
            let refused = nodes.iter().filter(|node| node.speaks()).find_map(|node| {
                let status = view.node_statuses.get(&node.name)?;
                condition::find(&status.conditions, ConditionKind::SpecValid).filter(|c| c.status == False)
            });
            let applied = view.spec.as_ref().map(|spec| spec.applied_at);
            match refused {
                Some(c) => of(False, &c.reason, c.message.clone()).since(Some(c.last_transition_time)),
                None => of(True, "Valid", "the document in force is valid".to_owned()).since(applied),
            }
        }
    }
}

fn store_reachable(age: &DataAge) -> ClusterCondition {
    match age {
        DataAge::Consistent => ClusterCondition::new(
            ConditionKind::StoreReachable,
            True,
            "Consistent",
            "a quorum of the store answered",
        ),
        DataAge::Stale { secs, why } => {
            let old = secs.map(|secs| format!(", at least {secs} s old")).unwrap_or_default();
            ClusterCondition::new(
                ConditionKind::StoreReachable,
                False,
                "NoQuorum",
                format!("a stale reading{old}: {why}"),
            )
        }
    }
}
