//! A transaction in the words of `PUT /v1/txn`, and back: operations to its body, its answer to ours. Values only,
//! nothing is sent. rs-consul has no transactions.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::super::{Op, StoreError, Txn};
use super::failure::{Failure, speaks_of_permission};

/// `txn_max_req_len`: larger bodies are answered 413. Base64 and JSON make it more than our own budget of values.
const MAX_BODY: usize = 512 * 1024;

/// A transaction ready to send.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) body: Vec<u8>,
    steps: Vec<Step>,
}

/// One of Consul's operations.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// The place of our operation that it belongs to.
    place: usize,
    key: String,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The step's result holds our operation's index.
    Index,
    /// The step has a result that says nothing new.
    Ignored,
    /// The step has no result; the key is absent afterwards.
    Absent,
}

#[derive(Serialize)]
struct Wrapped<'a> {
    #[serde(rename = "KV")]
    kv: Verb<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Verb<'a> {
    verb: &'static str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    results: Option<Vec<Holder>>,
    errors: Option<Vec<OpError>>,
}

#[derive(Deserialize)]
struct Holder {
    #[serde(rename = "KV")]
    kv: Pair,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    modify_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OpError {
    op_index: usize,
    what: String,
}

impl Request {
    /// Makes the request. It expects operations that [`super::super::limits`] let through.
    pub(super) fn new(ops: &[Op]) -> Result<Self, StoreError> {
        let mut wire = Vec::with_capacity(ops.len());
        let mut steps = Vec::with_capacity(ops.len());
        for (place, op) in ops.iter().enumerate() {
            for (verb, outcome) in verbs(op) {
                wire.push(Wrapped { kv: verb });
                steps.push(Step { place, key: op.key().to_owned(), outcome });
            }
        }
        let invalid = |reason| StoreError::Invalid { operation: "transaction".to_owned(), reason };
        let body = serde_json::to_vec(&wire).map_err(|error| invalid(error.to_string()))?;
        if body.len() > MAX_BODY {
            let reason = format!("its body of {} bytes is more than Consul's {MAX_BODY}", body.len());
            return Err(invalid(reason));
        }
        Ok(Self { body, steps })
    }

    /// The answer to a transaction that was applied (status 200).
    pub(super) fn committed(&self, body: &[u8]) -> Result<Txn, Failure> {
        let answer: Answer = serde_json::from_slice(body).map_err(|e| Failure::Garbled(e.to_string()))?;
        let mut results = answer.results.unwrap_or_default().into_iter();
        let mut indices = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            if step.outcome == Outcome::Absent {
                indices.push(0);
                continue;
            }
            let pair = match results.next() {
                Some(Holder { kv }) if kv.key == step.key => kv,
                Some(_) | None => {
                    return Err(Failure::Garbled(format!("no result for '{}'", step.key)));
                }
            };
            if step.outcome == Outcome::Index {
                indices.push(pair.modify_index);
            }
        }
        Ok(Txn::Committed { indices })
    }

    /// The answer to a transaction that was rolled back (status 409).
    pub(super) fn rolled_back(&self, body: &[u8]) -> Result<Txn, StoreError> {
        let unknown = |reason: String| Failure::Garbled(reason).of_write("transaction");
        let answer: Answer = serde_json::from_slice(body).map_err(|error| unknown(error.to_string()))?;
        let errors = answer.errors.unwrap_or_default();
        let mut failed = Vec::with_capacity(errors.len());
        for error in &errors {
            let step = self.steps.get(error.op_index).ok_or_else(|| unknown(error.what.clone()))?;
            if speaks_of_permission(&error.what) {
                let reason = format!("{}: {}", step.key, error.what);
                return Err(StoreError::Denied { operation: "transaction".to_owned(), reason });
            }
            failed.push(step.place);
        }
        failed.dedup();
        match errors.into_iter().next() {
            Some(first) => Ok(Txn::Conflict { failed, message: first.what }),
            None => Err(unknown("a conflict without a reason".to_owned())),
        }
    }
}

/// Our operation in Consul's operations. Consul's deletion of an absent key succeeds, hence the check before it.
fn verbs(op: &Op) -> Vec<(Verb<'_>, Outcome)> {
    let key = op.key();
    let check = |index| Verb { verb: "check-index", key, value: None, index: Some(index) };
    match op {
        Op::Create { value, .. } => {
            vec![(
                Verb { verb: "cas", key, value: Some(STANDARD.encode(value)), index: Some(0) },
                Outcome::Index,
            )]
        }
        Op::Cas { value, index, .. } => {
            let value = Some(STANDARD.encode(value));
            vec![(Verb { verb: "cas", key, value, index: Some(*index) }, Outcome::Index)]
        }
        Op::DeleteCas { index, .. } => vec![
            (check(*index), Outcome::Ignored),
            (Verb { verb: "delete-cas", key, value: None, index: Some(*index) }, Outcome::Absent),
        ],
        Op::CheckIndex { index, .. } => vec![(check(*index), Outcome::Index)],
        Op::CheckAbsent { .. } => {
            vec![(Verb { verb: "check-not-exists", key, value: None, index: None }, Outcome::Absent)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::new(&[
            Op::DeleteCas { key: "a".into(), index: 4 },
            Op::Create { key: "b".into(), value: "x".into() },
            Op::CheckAbsent { key: "c".into() },
        ])
        .unwrap()
    }

    #[test]
    fn results_are_matched_to_operations_by_key_and_place() {
        let body = br#"{"Results":[{"KV":{"Key":"a","ModifyIndex":4}},{"KV":{"Key":"b","ModifyIndex":9}}],"Errors":null}"#;
        assert_eq!(request().committed(body), Ok(Txn::Committed { indices: vec![0, 9, 0] }));
    }

    #[test]
    fn an_applied_transaction_with_an_answer_that_does_not_fit_is_garbled_never_a_conflict() {
        for body in [
            &b"{"[..],
            br#"{"Results":[],"Errors":null}"#,
            br#"{"Results":[{"KV":{"Key":"z","ModifyIndex":4}}]}"#,
        ] {
            assert!(matches!(request().committed(body), Err(Failure::Garbled(_))));
        }
    }

    #[test]
    fn a_conflict_names_our_operations_once_each() {
        let body = br#"{"Results":null,"Errors":[{"OpIndex":0,"What":"one"},{"OpIndex":1,"What":"two"},{"OpIndex":2,"What":"three"}]}"#;
        let conflict = Txn::Conflict { failed: vec![0, 1], message: "one".into() };
        assert_eq!(request().rolled_back(body), Ok(conflict));
    }

    #[test]
    fn a_missing_right_inside_a_transaction_is_denied_not_a_conflict() {
        let body = br#"{"Results":null,"Errors":[{"OpIndex":2,"What":"Permission denied"}]}"#;
        assert!(matches!(request().rolled_back(body), Err(StoreError::Denied { .. })));
    }

    #[test]
    fn a_conflict_that_cannot_be_read_is_unknown() {
        for body in
            [&b""[..], br#"{"Results":null,"Errors":[]}"#, br#"{"Errors":[{"OpIndex":77,"What":"?"}]}"#]
        {
            assert!(matches!(request().rolled_back(body), Err(StoreError::Unknown { .. })));
        }
    }
}
