//! Says what an answer, or the lack of one, allows the caller to conclude. It sends nothing; the words it knows are
//! Consul's, from 1.8 to the present.

use std::error::Error;

use hyper::StatusCode;
use rs_consul::ConsulError;

use super::super::StoreError;

/// The reason why a request brought no usable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// There was no connection: not one byte of the request was sent.
    NotSent(String),
    /// The request was sent, or perhaps sent, and no whole answer came in time.
    NoAnswer(String),
    Status(StatusCode, String),
    /// A whole answer that could not be read.
    Garbled(String),
    /// The agent answered, and knows no leader: what it says may be old.
    NoLeader,
    /// A value that is not UTF-8, which rs-consul does not hand over.
    NotText,
}

impl Failure {
    pub(super) fn transport(error: &hyper_util::client::legacy::Error) -> Self {
        let reason = chain(error);
        if error.is_connect() { Self::NotSent(reason) } else { Self::NoAnswer(reason) }
    }

    /// The meaning of a failed read. Nothing can have happened, so there is no `Unknown`.
    pub(super) fn of_read(self, operation: &str) -> StoreError {
        let operation = operation.to_owned();
        match self {
            Self::NotSent(reason) | Self::NoAnswer(reason) => StoreError::Unavailable { operation, reason },
            Self::Status(status, body) if forbids(status, &body) => {
                StoreError::Denied { operation, reason: body }
            }
            Self::Status(StatusCode::BAD_REQUEST, body) => StoreError::Invalid { operation, reason: body },
            Self::Status(status, body)
                if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS =>
            {
                StoreError::Unavailable { operation, reason: answered(status, &body) }
            }
            Self::Status(status, body) => {
                StoreError::Malformed { operation, reason: answered(status, &body) }
            }
            Self::Garbled(reason) => StoreError::Malformed { operation, reason },
            Self::NoLeader => StoreError::Unavailable {
                operation,
                reason: "the server that answered knows no leader".to_owned(),
            },
            Self::NotText => {
                StoreError::Malformed { operation, reason: "a value is not UTF-8 text".to_owned() }
            }
        }
    }

    /// The meaning of a failed write. Whatever is not certain is `Unknown`.
    pub(super) fn of_write(self, operation: &str) -> StoreError {
        let operation = operation.to_owned();
        match self {
            Self::NotSent(reason) => StoreError::Unavailable { operation, reason },
            Self::NoAnswer(reason) | Self::Garbled(reason) => StoreError::Unknown { operation, reason },
            Self::NoLeader => StoreError::Unknown {
                operation,
                reason: "the server that answered knows no leader".to_owned(),
            },
            Self::NotText => {
                StoreError::Unknown { operation, reason: "a value is not UTF-8 text".to_owned() }
            }
            Self::Status(status, body) if forbids(status, &body) => {
                StoreError::Denied { operation, reason: body }
            }
            Self::Status(StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE, body) => {
                StoreError::Invalid { operation, reason: body }
            }
            Self::Status(status, body) if surely_not_applied(status, &body) => {
                StoreError::Unavailable { operation, reason: answered(status, &body) }
            }
            Self::Status(status, body) => StoreError::Unknown { operation, reason: answered(status, &body) },
        }
    }
}

impl From<ConsulError> for Failure {
    fn from(error: ConsulError) -> Self {
        match error {
            ConsulError::ResponseError(error) => Self::transport(&error),
            ConsulError::UnexpectedResponseCode(status, body) => {
                Self::Status(status, body.unwrap_or_default())
            }
            ConsulError::InvalidResponse(error) => Self::NoAnswer(chain(&error)),
            ConsulError::TimeoutExceeded(after) => Self::NoAnswer(format!("no answer within {after:?}")),
            ConsulError::InvalidUtf8(_) => Self::NotText,
            other => Self::Garbled(chain(&other)),
        }
    }
}

fn forbids(status: StatusCode, body: &str) -> bool {
    matches!(status, StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED)
        || (status == StatusCode::INTERNAL_SERVER_ERROR && speaks_of_permission(body))
}

/// True if the text tells of a missing right: inside a transaction Consul tells that as a conflict, in these words.
pub(super) fn speaks_of_permission(text: &str) -> bool {
    text.contains("Permission denied") || text.contains("ACL not found")
}

/// True if the write was surely not applied. An agent that found no leader to pass the write to never passed it on.
/// `leadership lost while committing log`, `node is not the leader` and a broken forward are not in this list: such a
/// write may still commit, even after the next election. A 503 counts only in Consul's own words, since a proxy says it
/// after sending, too.
fn surely_not_applied(status: StatusCode, body: &str) -> bool {
    match status {
        StatusCode::INTERNAL_SERVER_ERROR => body.contains("No cluster leader"),
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::SERVICE_UNAVAILABLE => body.contains("rate limit"),
        _ => false,
    }
}

fn answered(status: StatusCode, body: &str) -> String {
    match body.trim() {
        "" => format!("it answered {status}"),
        body => format!("it answered {status}: {body}"),
    }
}

/// The error and all it rests on, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, body: &str) -> Failure {
        Failure::Status(StatusCode::from_u16(code).unwrap(), body.to_owned())
    }

    #[test]
    fn a_write_whose_leader_was_lost_while_committing_is_unknown() {
        for body in [
            "leadership lost while committing log",
            "node is not the leader",
            "rpc error making call: EOF",
            "rpc error making call: stream closed",
            "",
        ] {
            let error = status(500, body).of_write("transaction");
            assert!(matches!(error, StoreError::Unknown { .. }), "{body}: {error}");
        }
        for failure in [
            Failure::NoAnswer("timed out".into()),
            Failure::Garbled("eof".into()),
            status(502, "bad gateway"),
            status(503, "upstream went away"),
            status(504, ""),
        ] {
            assert!(matches!(failure.of_write("transaction"), StoreError::Unknown { .. }));
        }
    }

    #[test]
    fn a_write_that_no_leader_took_surely_did_not_happen() {
        for failure in [
            Failure::NotSent("connection refused".into()),
            status(500, "No cluster leader"),
            status(500, "rpc error making call: No cluster leader"),
            status(429, "Your IP is issuing too many concurrent connections"),
            status(503, "rate limit exceeded, try a different server"),
        ] {
            assert!(matches!(failure.of_write("transaction"), StoreError::Unavailable { .. }));
        }
    }

    #[test]
    fn no_failed_read_is_ever_an_empty_answer_and_none_is_unknown() {
        for failure in [
            Failure::NotSent(String::new()),
            Failure::NoAnswer(String::new()),
            status(500, "No cluster leader"),
            status(500, "leadership lost while committing log"),
            status(429, ""),
            status(503, ""),
        ] {
            assert!(matches!(failure.of_read("list"), StoreError::Unavailable { .. }));
        }
        assert!(matches!(status(404, "page not found").of_read("list"), StoreError::Malformed { .. }));
    }

    #[test]
    fn a_missing_right_is_denied_for_reads_and_writes() {
        for body in ["Permission denied", "ACL not found"] {
            assert!(matches!(status(403, body).of_read("read"), StoreError::Denied { .. }));
            assert!(matches!(status(403, body).of_write("transaction"), StoreError::Denied { .. }));
            assert!(matches!(status(500, body).of_write("transaction"), StoreError::Denied { .. }));
        }
    }

    #[test]
    fn a_body_over_the_limit_is_invalid() {
        assert!(matches!(status(413, "too large").of_write("transaction"), StoreError::Invalid { .. }));
    }
}
