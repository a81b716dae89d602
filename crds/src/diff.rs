//! What a new document would change: each difference of meaning, and what it does to the VM.
//!
//! Never here: differences of spelling, order without meaning, or defaults written out; and nothing about the state
//! of the cluster, which is for `status`.

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

/// What becomes of the VM. In order of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum Impact {
    /// It is not touched.
    None,
    /// It runs on as it is, and has the change when it next boots.
    AtNextBoot,
    /// It may be migrated live.
    Migration,
    /// It is restarted.
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
    /// In the new document; of what was removed, in the old one.
    pub path: Path,
    pub op: Op,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
    /// What becomes of the VM.
    pub impact: Impact,
    /// The same as a sentence.
    pub reason: String,
}

/// Every difference between what is in force and `new`, defaults in place. Empty exactly when the two mean the same.
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

/// Nothing is in force yet: every field is new.
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
