//! The document in force, as every command that compares with it reads it: confirmed by a quorum, and with its index.

use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::records::StoredSpec;
use zsha_crds::{HaCluster, Keys, decode_value};
use zsha_runtime::Store;
use zsha_runtime::store::{Entry, Read};

use crate::{Exit, Failure};

/// An election that cuts a read off is over in 2.4 to 3.9 s.
const ELECTION: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(250);

pub(crate) struct Live {
    pub(crate) entry: Option<Entry>,
    /// None: nothing has been applied. An error: there is something, and it cannot be read.
    pub(crate) spec: Result<Option<StoredSpec>, String>,
}

impl Live {
    pub(crate) async fn read(store: &dyn Store, keys: &Keys) -> Result<Self, Failure> {
        let begun = Instant::now();
        let entry = loop {
            match store.get(&keys.spec(), Read::Consistent).await {
                Ok(entry) => break entry,
                Err(error) if error.is_transient() && begun.elapsed() < ELECTION => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(Failure::store("reading the document in force", &error)),
            }
        };
        let spec = match entry.as_ref().map(|entry| entry.value.as_str()) {
            // An empty value only keeps the key in being, so that a watch of it is quiet.
            None => Ok(None),
            Some(text) if text.trim().is_empty() => Ok(None),
            Some(text) => StoredSpec::read(text).map(Some),
        };
        Ok(Self { entry, spec })
    }

    /// 0 where nothing is in force.
    pub(crate) fn generation(&self) -> u64 {
        self.spec.as_ref().ok().and_then(Option::as_ref).map_or(0, |spec| spec.generation)
    }

    pub(crate) fn index(&self) -> u64 {
        self.entry.as_ref().map_or(0, |entry| entry.modify_index)
    }

    /// The document that a command cannot do without.
    pub(crate) fn needed(&self) -> Result<HaCluster, Failure> {
        match self.document() {
            Ok(Some(document)) => Ok(document),
            Ok(None) => Err(Failure::new(Exit::General, "NotFound", "no document has been applied")
                .hint("zsha apply -f FILE")),
            Err(why) => {
                Err(Failure::new(Exit::General, "LiveUnreadable", "the document in force cannot be read")
                    .cause(why)
                    .hint("a newer zsha may have written it: `zsha -v` on the other nodes"))
            }
        }
    }

    /// The document as types; an error where this build does not take what is stored.
    pub(crate) fn document(&self) -> Result<Option<HaCluster>, String> {
        match &self.spec {
            Err(why) => Err(why.clone()),
            Ok(None) => Ok(None),
            Ok(Some(spec)) => decode_value(&spec.document).map(Some).map_err(|faults| faults.to_string()),
        }
    }
}

/// What lies under the key of the document is none, and a command cannot do without.
pub(crate) fn unreadable(keys: &Keys, why: String) -> Failure {
    Failure::new(Exit::General, "LiveUnreadable", "what is stored as the document cannot be read")
        .cause(why)
        .hint(way_out(keys))
}

/// Nothing that a newer zsha may have written is written over by itself.
pub(crate) fn way_out(keys: &Keys) -> String {
    format!(
        "a newer zsha may have written it: `zsha -v` on the other nodes. If none has: `consul kv delete {}`, and then \
         `zsha apply -f FILE`; the nodes go on with the last good document meanwhile",
        keys.spec()
    )
}

/// `generation 13, applied by alice@nfs-1 at 2026-11-22T10:00:00Z ("more memory")`.
pub(crate) fn provenance(spec: &StoredSpec) -> String {
    let why = if spec.message.is_empty() { String::new() } else { format!(" (\"{}\")", spec.message) };
    format!("generation {}, applied by {} at {}{why}", spec.generation, spec.applied_by, spec.applied_at)
}
