//! The document in force, as everybody reads it who compares with it: confirmed by a quorum, and with its index.

use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::records::StoredSpec;
use zsha_crds::{HaCluster, Keys, decode_value};

use super::ReadError;
use crate::store::{Entry, Read, Store};

/// An election that cuts a read off is over in 2.4 to 3.9 s.
const ELECTION: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(250);

/// The contents of the document's key.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// None: the key is not there, or what is known of the document comes without it.
    pub entry: Option<Entry>,
    /// None: nothing has been applied. An error: there is something, and it cannot be read.
    pub spec: Result<Option<StoredSpec>, String>,
}

/// Why there is no document for a client that cannot do without.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoDocument {
    #[error("no document has been applied")]
    Absent,
    #[error("the document in force cannot be read")]
    Unreadable { why: String },
}

impl Live {
    /// Reads the document, over an election if there is one.
    pub async fn read(store: &dyn Store, keys: &Keys) -> Result<Self, ReadError> {
        let begun = Instant::now();
        let entry = loop {
            match store.get(&keys.spec(), Read::Consistent).await {
                Ok(entry) => break entry,
                Err(error) if error.is_transient() && begun.elapsed() < ELECTION => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(source) => return Err(ReadError { doing: "reading the document in force", source }),
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

    /// The document as a view of the cluster has it, which knows no index.
    pub fn seen(spec: Option<StoredSpec>) -> Self {
        Self { entry: None, spec: Ok(spec) }
    }

    /// The generation in force; 0 where nothing is.
    pub fn generation(&self) -> u64 {
        self.spec.as_ref().ok().and_then(Option::as_ref).map_or(0, |spec| spec.generation)
    }

    /// The index of the key; 0 where it is not there.
    pub fn index(&self) -> u64 {
        self.entry.as_ref().map_or(0, |entry| entry.modify_index)
    }

    /// The document, for a client that cannot do without.
    pub fn needed(&self) -> Result<HaCluster, NoDocument> {
        match self.document() {
            Ok(Some(document)) => Ok(document),
            Ok(None) => Err(NoDocument::Absent),
            Err(why) => Err(NoDocument::Unreadable { why }),
        }
    }

    /// The document as types; an error where this build does not take what is stored.
    pub fn document(&self) -> Result<Option<HaCluster>, String> {
        match &self.spec {
            Err(why) => Err(why.clone()),
            Ok(None) => Ok(None),
            Ok(Some(spec)) => decode_value(&spec.document).map(Some).map_err(|faults| faults.to_string()),
        }
    }
}
