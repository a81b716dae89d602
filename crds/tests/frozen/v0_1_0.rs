//! How 0.1.0 reads and writes what is stored: its shapes, apart from those of today, never changed again. A node of
//! that release beside nodes of this one knows these fields and no others.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// Read and written back, as it does; of a kind it does not know, nothing.
pub(crate) fn read_and_written(kind: &str, text: &str) -> Option<serde_json::Result<Value>> {
    fn again<T: DeserializeOwned + Serialize>(text: &str) -> serde_json::Result<Value> {
        serde_json::to_value(serde_json::from_str::<T>(text)?)
    }
    Some(match kind {
        "lease" => again::<Lease>(text),
        "vm" => again::<Vm>(text),
        "intent" => again::<Intent>(text),
        "node-status" => again::<NodeStatus>(text),
        "vm-status" => again::<VmStatus>(text),
        "event" => again::<Event>(text),
        "spec" => again::<Spec>(text),
        "history" => again::<History>(text),
        _ => return None,
    })
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    generation: u64,
    document: Value,
    applied_by: String,
    applied_at: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct History {
    generation: u64,
    document: Value,
    applied_by: String,
    applied_at: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
    command: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Timings {
    renew_millis: u64,
    ttl_millis: u64,
    kill_millis: u64,
    fence_after_millis: u64,
}

#[derive(Serialize, Deserialize)]
enum LeaseState {
    Held,
    Released,
    Fenced,
    Lost,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Lease {
    node: String,
    incarnation: Uuid,
    epoch: u64,
    seq: u64,
    state: LeaseState,
    machine_id: String,
    boot_id: String,
    timings: Timings,
    controller_alive: bool,
    #[serde(default)]
    copies: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sent_millis: Option<u64>,
    renewed_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fenced_by: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Owner {
    node: String,
    epoch: u64,
}

#[derive(Serialize, Deserialize)]
struct Migration {
    to: Owner,
    id: Uuid,
}

#[derive(Serialize, Deserialize)]
enum Phase {
    Starting,
    Running,
    Stopping,
    Stopped,
    PoweredOff,
    Failed,
}

#[derive(Serialize, Deserialize)]
struct Failures {
    count: u32,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Start {
    node: String,
    at: Timestamp,
    reason: String,
    generation: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vm {
    name: String,
    uuid: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migration: Option<Migration>,
    phase: Phase,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    failures: BTreeMap<String, Failures>,
    #[serde(default)]
    failures_generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_start: Option<Start>,
    #[serde(default)]
    note: String,
    #[serde(default)]
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered: Option<Answer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_taken_up: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password_reset: Option<Answer>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    id: Uuid,
    outcome: Outcome,
    message: String,
}

#[derive(Serialize, Deserialize)]
enum Outcome {
    Done,
    Refused,
    Failed,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
enum Intent {
    Start {
        id: Uuid,
        by: String,
        at: Timestamp,
        message: String,
    },
    #[serde(rename_all = "camelCase")]
    Stop {
        by: String,
        at: Timestamp,
        message: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u64>,
    },
    Freeze {
        by: String,
        at: Timestamp,
        message: String,
    },
    Drain {
        by: String,
        at: Timestamp,
        message: String,
    },
    Migrate {
        id: Uuid,
        to: String,
        by: String,
        at: Timestamp,
        message: String,
    },
    ResetPassword {
        id: Uuid,
        by: String,
        at: Timestamp,
        message: String,
    },
    None,
}

#[derive(Serialize, Deserialize)]
enum ConditionStatus {
    True,
    False,
    Unknown,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: ConditionStatus,
    reason: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observed_generation: Option<u64>,
    last_transition_time: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Waiting {
    reason: String,
    message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    node: String,
    conditions: Vec<Condition>,
    observed_generation: u64,
    controller_version: String,
    local_vm: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    migrated_percent: Option<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    waiting: Vec<Waiting>,
    updated_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct VmStatus {
    name: String,
    uuid: Uuid,
    node: String,
    state: String,
    running_generation: u64,
    observed_generation: u64,
    conditions: Vec<Condition>,
    updated_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
enum EventType {
    Normal,
    Warning,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "type")]
    kind: EventType,
    reason: String,
    message: String,
    regarding: String,
    node: String,
    count: u32,
    first_at: Timestamp,
    last_at: Timestamp,
}
