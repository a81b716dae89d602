//! Turns the errors of `zsha_runtime::client` into failures that a person can act on: the exit code, the words, and the
//! next command to try.

use zsha_crds::Keys;
use zsha_runtime::client::ReadError;
use zsha_runtime::client::apply::ApplyError;
use zsha_runtime::client::clusters::ClusterError;
use zsha_runtime::client::commit::CommitError;
use zsha_runtime::client::document::NoDocument;
use zsha_runtime::client::intent::IntentError;
use zsha_runtime::client::order::BeginError;
use zsha_runtime::client::until::UntilError;
use zsha_runtime::history::HistoryError;

use super::Failure;
use crate::exit::Exit;
use crate::output::escape::plain;

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::store(error.doing, &error.source)
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Several(clusters) => {
                let names: Vec<&str> = clusters.iter().map(|name| name.as_str()).collect();
                let first = names.first().copied().unwrap_or("NAME");
                let message = format!("the store holds {} clusters: {}", names.len(), names.join(", "));
                Self::new(Exit::Usage, "ClusterNotNamed", message)
                    .hint(format!("name one: --cluster {first}, or ZSHA_CLUSTER"))
            }
            ClusterError::NoneSeen => Self::new(Exit::General, "NoCluster", error.to_string())
                .cause("there is none yet, or the token may not read below 'zsha/'")
                .hint("zsha apply -f FILE, or --token-file FILE"),
            ClusterError::Read(error) => error.into(),
        }
    }
}

impl From<NoDocument> for Failure {
    fn from(error: NoDocument) -> Self {
        let message = error.to_string();
        match error {
            NoDocument::Absent => not_applied(),
            NoDocument::Unreadable { why } => Self::new(Exit::General, "LiveUnreadable", message)
                .cause(why)
                .hint("a newer zsha may have written it: `zsha -v` on the other nodes"),
        }
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Write { in_doubt, source } => {
                let failure = Self::store("writing the document", &source);
                if in_doubt { doubtful(failure) } else { failure.cause("nothing was written") }
            }
            CommitError::Reread { in_doubt, source } => {
                let failure = source.into();
                if in_doubt { doubtful(failure) } else { failure }
            }
        }
    }
}

impl From<UntilError> for Failure {
    fn from(error: UntilError) -> Self {
        match error {
            UntilError::Read(error) => error.into(),
            UntilError::TimedOut { limit, waits } => {
                let message = format!("timed out after {} s: {}", limit.as_secs_f64(), plain(&waits));
                Self::new(Exit::TimedOut, "TimedOut", message).hint(STAYS)
            }
        }
    }
}

/// The hint for a command that is ended while it waits: the order stays.
pub(crate) const STAYS: &str = "it stays asked for; `zsha status -w` shows how it goes";

/// No transaction could be made for a document with these keys.
pub(crate) fn of_apply(error: ApplyError, keys: &Keys) -> Failure {
    match error {
        ApplyError::Read(error) => error.into(),
        ApplyError::Stored(error) => unwritten(&error, keys),
        ApplyError::Unwritable(error) => unwritable(&error),
    }
}

fn unwritten(error: &HistoryError, keys: &Keys) -> Failure {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    Failure::new(Exit::General, "LiveUnreadable", error.to_string()).cause(cause).hint(way_out(keys))
}

fn unwritable(error: &serde_json::Error) -> Failure {
    Failure::new(Exit::General, "Unwritable", error.to_string())
}

fn doubtful(failure: Failure) -> Failure {
    let mut failure = failure
        .cause("an earlier try went unanswered: the document may be in force, now or in a moment")
        .hint("look with `zsha get`, then apply again: what is in force already is not written twice");
    failure.exit = Exit::Unavailable;
    failure
}

/// `command` could not be begun.
pub(crate) fn of_begin(error: BeginError, command: &str, keys: &Keys) -> Failure {
    match error {
        BeginError::Read(error) => error.into(),
        BeginError::NoQuorum { why } => {
            let message = format!("`{command}` is refused: Consul has no quorum");
            Failure::new(Exit::Unavailable, "StoreUnavailable", message)
                .cause(plain(&why).into_owned())
                .hint("look at `consul operator raft list-peers`")
        }
        BeginError::NoDocument => not_applied(),
        BeginError::Unreadable { why } => unreadable(keys, why),
    }
}

fn not_applied() -> Failure {
    Failure::new(Exit::General, "NotFound", "no document has been applied").hint("zsha apply -f FILE")
}

/// The failure of a write of what `command` asks for.
pub(crate) fn of_intent(error: IntentError, command: &str) -> Failure {
    let doing = format!("asking for `{command}`");
    match error {
        IntentError::Store { in_doubt, source } => {
            let failure = Failure::store(&doing, &source);
            if !in_doubt {
                return failure;
            }
            failure.cause("an earlier try went unanswered: it may be in force, now or in a moment").hint(
                "look with `zsha status`, then ask again: what is in force already is not written twice",
            )
        }
        IntentError::Conflict => Failure::new(Exit::Conflict, "Conflict", format!("{doing}: {error}"))
            .hint("look with `zsha status`, and ask again"),
        IntentError::Unwritable(error) => unwritable(&error),
    }
}

/// The failure where the stored document cannot be read and the command cannot do without it.
pub(crate) fn unreadable(keys: &Keys, why: String) -> Failure {
    Failure::new(Exit::General, "LiveUnreadable", "what is stored as the document cannot be read")
        .cause(why)
        .hint(way_out(keys))
}

/// The hint where the stored document cannot be read. A newer zsha may have written it, so no command overwrites it.
fn way_out(keys: &Keys) -> String {
    format!(
        "a newer zsha may have written it: `zsha -v` on the other nodes. If none has: `consul kv delete {}`, and then \
         `zsha apply -f FILE`; the nodes go on with the last good document meanwhile",
        keys.spec()
    )
}
