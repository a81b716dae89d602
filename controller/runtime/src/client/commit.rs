//! Sends the transaction of `apply` and finds out what became of it, also where the first answer says nothing.

use std::time::Duration;

use super::ReadError;
use super::apply::Write;
use super::document::Live;
use crate::store::{Op, Store, StoreError, Txn};

/// Once more after this: an election that cut the first try off takes 2.4 to 3.9 s.
const PAUSE: Duration = Duration::from_millis(700);
const TRIES: u32 = 6;

/// The fate of a transaction, as far as it is known for sure.
#[derive(Debug, Clone, PartialEq)]
pub enum Fate {
    /// `index` is that of the document's key.
    InForce { index: u64 },
    /// Somebody else was first; this is what is in force.
    Lost(Live),
}

/// Why it is not known what became of a transaction, or why it was not written. `in_doubt`: a try went unanswered, and
/// the document may be in force, now or in a moment; else nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    #[error("writing the document failed")]
    Write { in_doubt: bool, source: StoreError },
    /// Somebody else has written, and what could not be read.
    #[error("the write conflicts, and with what is not known")]
    Reread { in_doubt: bool, source: ReadError },
}

impl Write {
    /// Sends it, again and again over an election. The same transaction may be sent again: each write in it names the
    /// index it replaces, so of two copies one at most takes effect, and what is read then tells whose it was.
    pub async fn commit(self, store: &dyn Store) -> Result<Fate, CommitError> {
        let mut in_doubt = false;
        let mut tries = 0;
        loop {
            tries += 1;
            match store.txn(self.ops.clone()).await {
                Ok(Txn::Committed { indices }) => {
                    return Ok(Fate::InForce { index: indices.first().copied().unwrap_or_default() });
                }
                Ok(Txn::Conflict { .. }) => return self.whose(store, in_doubt).await,
                Err(source) => {
                    in_doubt |= matches!(source, StoreError::Unknown { .. });
                    if !source.is_transient() || tries == TRIES {
                        return Err(CommitError::Write { in_doubt, source });
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Says, after a conflict, whether what is in force is an earlier try of this very transaction.
    async fn whose(&self, store: &dyn Store, in_doubt: bool) -> Result<Fate, CommitError> {
        let now = Live::read(store, &self.keys).await;
        let now = now.map_err(|source| CommitError::Reread { in_doubt, source })?;
        Ok(match &now.entry {
            Some(entry) if in_doubt && Some(entry.value.as_str()) == self.document() => {
                Fate::InForce { index: entry.modify_index }
            }
            _ => Fate::Lost(now),
        })
    }

    /// The value that it writes under the key of the document.
    fn document(&self) -> Option<&str> {
        let spec = self.keys.spec();
        self.ops.iter().find_map(|op| match op {
            Op::Create { key, value } | Op::Cas { key, value, .. } if *key == spec => Some(value.as_str()),
            Op::Create { .. }
            | Op::Cas { .. }
            | Op::DeleteCas { .. }
            | Op::CheckIndex { .. }
            | Op::CheckAbsent { .. } => None,
        })
    }
}
