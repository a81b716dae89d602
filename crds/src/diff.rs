//! Compares two documents: each difference of meaning, and what it does to the VM.
//!
//! Never here: differences of spelling, order without meaning, or defaults written out; and nothing about the state of
//! the cluster, which is for `status`.

mod compare;
mod effect;
mod text;

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::HaCluster;
use crate::normalise::{effective, normalised};
use crate::path::Path;

pub use text::{DiffLook, unified};

/// The effect of a change on the VM, in order of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum Impact {
    /// The VM is not touched.
    None,
    /// The VM runs on as it is, and has the change when it next boots.
    AtNextBoot,
    /// The VM may be migrated live.
    Migration,
    /// The VM is restarted.
    Restart,
}

impl fmt::Display for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::AtNextBoot => "at next boot",
            Self::Migration => "migration",
            Self::Restart => "restart",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum Op {
    Added,
    Removed,
    Changed,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The place in the new document; if the value was removed, its place in the old one.
    pub path: Path,
    pub op: Op,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
    /// The effect on the VM.
    pub impact: Impact,
    /// The effect as a sentence.
    pub reason: String,
}

/// Every difference between the document in force and `new`, with the defaults in place. Empty exactly when the two
/// mean the same.
pub fn diff(old: Option<&HaCluster>, new: &HaCluster) -> Vec<Change> {
    let new_values = normalised(&effective(new));
    let Some(old) = old else { return first(&new_values) };
    let old_values = normalised(&effective(old));
    let differences = compare::compare(&old_values, &new_values);
    let mut changes: Vec<_> =
        differences.into_iter().map(|difference| effect::judged(difference, new)).collect();
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    changes
}

/// The changes where no document is in force yet: every field is new.
fn first(new: &Value) -> Vec<Change> {
    let spec = new.get("spec").and_then(Value::as_object);
    let change = |(key, value): (&String, &Value)| Change {
        path: Path::spec().key(key),
        op: Op::Added,
        old: None,
        new: Some(value.clone()),
        impact: Impact::None,
        reason: "the cluster is new, and its VM is started for the first time".to_owned(),
    };
    spec.into_iter().flatten().map(change).collect()
}

/// The weightiest of the effects.
pub fn impact(changes: &[Change]) -> Impact {
    changes.iter().map(|change| change.impact).max().unwrap_or(Impact::None)
}

/// `3 changed, 0 added, 1 removed; effect on the VM: at next boot`.
pub fn summary(changes: &[Change]) -> String {
    let count = |op| changes.iter().filter(|change| change.op == op).count();
    format!(
        "{} changed, {} added, {} removed; effect on the VM: {}",
        count(Op::Changed),
        count(Op::Added),
        count(Op::Removed),
        impact(changes)
    )
}
