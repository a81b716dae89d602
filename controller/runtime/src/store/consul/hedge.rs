//! Sums up the answers to one write that was sent more than once. Values only.

use super::super::{StoreError, Txn};

/// The answers so far to a write, none of which has said `Committed`.
#[derive(Debug, Default)]
pub(super) struct Tally {
    conflict: Option<Txn>,
    refused: Option<StoreError>,
    unknown: Vec<String>,
    unavailable: Vec<String>,
    /// The number of requests that reached a server, or may have.
    sent: usize,
}

/// The fate of one request, by its answer alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    SurelyNot,
    Answered,
    Unknown,
}

impl Tally {
    /// Notes an answer. A commit is not noted: it decides by itself.
    pub(super) fn note(&mut self, answer: &Result<Txn, StoreError>) -> Fate {
        match answer {
            Ok(Txn::Committed { .. }) => return Fate::Committed,
            Err(StoreError::Unavailable { reason, .. }) => {
                self.unavailable.push(reason.clone());
                return Fate::SurelyNot;
            }
            Ok(conflict @ Txn::Conflict { .. }) => self.conflict = Some(conflict.clone()),
            Err(StoreError::Unknown { reason, .. } | StoreError::Malformed { reason, .. }) => {
                self.sent += 1;
                self.unknown.push(reason.clone());
                return Fate::Unknown;
            }
            Err(error @ (StoreError::Denied { .. } | StoreError::Invalid { .. })) => {
                self.refused = Some(error.clone());
            }
        }
        self.sent += 1;
        Fate::Answered
    }

    /// The verdict once no request is outstanding. A conflict proves that nothing was changed only where this was the
    /// one request that reached a server: otherwise it may have collided with the success of the other request.
    pub(super) fn verdict(self) -> Result<Txn, StoreError> {
        let operation = "transaction".to_owned();
        if !self.unknown.is_empty() {
            return Err(StoreError::Unknown { operation, reason: self.unknown.join("; ") });
        }
        match (self.conflict, self.refused) {
            (Some(conflict), None) if self.sent == 1 => Ok(conflict),
            (Some(_), _) => {
                let reason = "sent more than once, and answered with a conflict".to_owned();
                Err(StoreError::Unknown { operation, reason })
            }
            (None, Some(refused)) => Err(refused),
            (None, None) => Err(StoreError::Unavailable { operation, reason: self.unavailable.join("; ") }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(answers: &[Result<Txn, StoreError>]) -> Result<Txn, StoreError> {
        let mut tally = Tally::default();
        for answer in answers {
            tally.note(answer);
        }
        tally.verdict()
    }

    fn conflict() -> Result<Txn, StoreError> {
        Ok(Txn::Conflict { failed: vec![0], message: "stale".into() })
    }

    fn unknown() -> Result<Txn, StoreError> {
        Err(StoreError::Unknown { operation: "t".into(), reason: "no answer".into() })
    }

    fn unavailable() -> Result<Txn, StoreError> {
        Err(StoreError::Unavailable { operation: "t".into(), reason: "refused".into() })
    }

    #[test]
    fn a_conflict_counts_only_where_one_request_alone_was_sent() {
        assert_eq!(tally(&[conflict()]), conflict());
        assert_eq!(tally(&[unavailable(), conflict()]), conflict());
        for answers in [[conflict(), conflict()], [conflict(), unknown()], [unknown(), conflict()]] {
            assert!(matches!(tally(&answers), Err(StoreError::Unknown { .. })));
        }
    }

    #[test]
    fn a_write_that_no_request_could_have_done_is_unavailable() {
        assert!(matches!(tally(&[unavailable(), unavailable()]), Err(StoreError::Unavailable { .. })));
        assert!(matches!(tally(&[unavailable(), unknown()]), Err(StoreError::Unknown { .. })));
    }

    #[test]
    fn a_refusal_beside_an_unknown_is_unknown() {
        let denied = Err(StoreError::Denied { operation: "t".into(), reason: "no".into() });
        assert_eq!(tally(&[denied.clone(), unavailable()]), denied);
        assert!(matches!(tally(&[denied, unknown()]), Err(StoreError::Unknown { .. })));
    }
}
