//! `PUT /v1/txn`: translates Consul's operations to the store's, and the store's outcome to Consul's answer. It applies
//! all of them at once, or says which did not hold.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zsha_runtime::store::{Op, Txn};

use super::{Pair, Refusal, SharedStore};

#[derive(Debug, Deserialize)]
struct Wrapped {
    #[serde(rename = "KV")]
    kv: Wire,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    verb: String,
    key: String,
    value: Option<String>,
    #[serde(default)]
    index: u64,
}

/// One of the store's operations, and those of Consul's that it stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    op: Op,
    /// The place of the first of them in the request.
    place: usize,
    /// True if Consul gives it a result.
    result: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    results: Option<Vec<Holder<'a>>>,
    errors: Option<Vec<Failed<'a>>>,
}

#[derive(Serialize)]
struct Holder<'a> {
    #[serde(rename = "KV")]
    kv: Pair<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed<'a> {
    op_index: usize,
    what: &'a str,
}

pub(super) fn encode(value: &str) -> String {
    STANDARD.encode(value)
}

pub(super) async fn apply(State(store): State<SharedStore>, body: Bytes) -> Result<Response, Refusal> {
    let steps = steps(&body).map_err(|reason| Refusal(StatusCode::BAD_REQUEST, reason))?;
    let ops = steps.iter().map(|step| step.op.clone()).collect();
    Ok(match store.txn(ops).await? {
        Txn::Committed { indices } => committed(&steps, &indices),
        Txn::Conflict { failed, message } => conflict(&steps, &failed, &message),
    })
}

pub(super) fn steps(body: &[u8]) -> Result<Vec<Step>, String> {
    let wires: Vec<Wrapped> =
        serde_json::from_slice(body).map_err(|error| format!("not a transaction: {error}"))?;
    let mut steps: Vec<Step> = Vec::with_capacity(wires.len());
    for (place, Wrapped { kv }) in wires.into_iter().enumerate() {
        let last = steps.last_mut().filter(|last| last.place + 1 == place);
        match (last, operation(kv)?) {
            // Consul's deletion of an absent key succeeds, so a check goes before it. The store's own deletion
            // checks, and counts for two already.
            (Some(step), delete @ Op::DeleteCas { .. }) if is_check_of(&step.op, &delete) => step.op = delete,
            (_, op) => {
                let result = !matches!(op, Op::DeleteCas { .. } | Op::CheckAbsent { .. });
                steps.push(Step { op, place, result });
            }
        }
    }
    Ok(steps)
}

fn is_check_of(check: &Op, delete: &Op) -> bool {
    match (check, delete) {
        (Op::CheckIndex { key, index }, Op::DeleteCas { key: deleted, index: at }) => {
            key == deleted && index == at
        }
        _ => false,
    }
}

fn operation(wire: Wire) -> Result<Op, String> {
    let Wire { verb, key, value, index } = wire;
    match (verb.as_str(), index) {
        ("cas", 0) => Ok(Op::Create { value: decode(&key, value)?, key }),
        ("cas", _) => Ok(Op::Cas { value: decode(&key, value)?, key, index }),
        ("delete-cas", _) => Ok(Op::DeleteCas { key, index }),
        ("check-index", _) => Ok(Op::CheckIndex { key, index }),
        ("check-not-exists", _) => Ok(Op::CheckAbsent { key }),
        _ => Err(format!(
            "'{verb}' is not among the embedded store's verbs: cas, delete-cas, check-index, check-not-exists"
        )),
    }
}

fn decode(key: &str, value: Option<String>) -> Result<String, String> {
    let bytes = STANDARD
        .decode(value.unwrap_or_default())
        .map_err(|error| format!("the value of '{key}': {error}"))?;
    String::from_utf8(bytes).map_err(|_| format!("the value of '{key}' is not UTF-8 text"))
}

fn committed(steps: &[Step], indices: &[u64]) -> Response {
    let results = steps
        .iter()
        .zip(indices)
        .filter_map(|(step, index)| match &step.op {
            Op::DeleteCas { key, index } if step.result => Some(Pair::without_value(key, *index)),
            op if step.result => Some(Pair::without_value(op.key(), *index)),
            _ => None,
        })
        .map(|kv| Holder { kv })
        .collect();
    axum::Json(Answer { results: Some(results), errors: None }).into_response()
}

fn conflict(steps: &[Step], failed: &[usize], message: &str) -> Response {
    let errors = failed
        .iter()
        .filter_map(|place| steps.get(*place))
        .map(|step| Failed { op_index: step.place, what: message })
        .collect();
    (StatusCode::CONFLICT, axum::Json(Answer { results: None, errors: Some(errors) })).into_response()
}
