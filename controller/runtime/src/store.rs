//! The store, in prose and as a trait: a linearizable key-value store with transactions and a change index.
//!
//! What every implementation promises (one suite of contract tests runs on all of them):
//!
//! - **Keys and values.** A key is a path of printable characters whose parts, between `/`, are neither empty nor `.`
//!   nor `..`; a value is UTF-8 text of at most
//!   256 KiB. Every write of a *different* value gives its key a higher `modify_index`, one sequence for the whole
//!   store. A write of an identical value succeeds and may leave the index as it was.
//! - **Transactions** are all or nothing, at most 64 operations and 256 KiB, checked before anything is sent.
//!   There is no unconditional write. `Committed` means it is in force, exactly as asked. `Conflict` means
//!   that nothing was changed. [`StoreError::Unknown`] means that it may or may not have happened, now or in a
//!   moment: read again before doing anything else. [`StoreError::Unavailable`] means it surely did not happen.
//! - **Reads.** [`Read::Consistent`] sees every write acknowledged before it was called. `Default` may be briefly
//!   behind at a change of leader. `Stale` may be behind by any amount and works without a leader.
//!   A missing key and an empty prefix are answers; not being able to look is an error. An empty list is *not*
//!   proof of absence for a token without rights, and callers treat it so.
//! - **Watching.** [`Store::watch`] may lag behind by any amount, and fails rather than hide that no server leads. It
//!   returns when something under the prefix has an index above `after`, or at the end of `wait`, with the whole
//!   present listing. A return is no proof of a change, a listing's index may be *lower* than `after` (a snapshot was
//!   restored): then start over from the full listing.

pub mod consul;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
#[cfg(any(test, feature = "contract"))]
pub mod faulty;
mod limits;
pub mod memory;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

pub use consul::ConsulStore;
pub use memory::MemoryStore;

/// Operations and bytes of one transaction, whatever newer Consuls allow. A [`Op::DeleteCas`] counts as two
/// operations (see [`Op::weight`]).
pub const MAX_TXN_OPS: usize = 64;
pub const MAX_TXN_BYTES: usize = 256 * 1024;

/// One key as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub value: String,
    pub modify_index: u64,
}

/// Everything below a prefix at one moment, in key order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// The index to hand to [`Store::watch`] next; at least 1.
    pub index: u64,
    pub entries: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Consistent,
    Default,
    Stale,
}

/// One operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Write; fails if the key exists.
    Create { key: String, value: String },
    /// Write; fails unless the key's index is exactly this.
    Cas { key: String, value: String, index: u64 },
    /// Delete; fails unless the key exists and its index is exactly this.
    DeleteCas { key: String, index: u64 },
    /// Fails unless the key's index is exactly this.
    CheckIndex { key: String, index: u64 },
    /// Fails if the key exists.
    CheckAbsent { key: String },
}

impl Op {
    pub fn key(&self) -> &str {
        match self {
            Self::Create { key, .. }
            | Self::Cas { key, .. }
            | Self::DeleteCas { key, .. }
            | Self::CheckIndex { key, .. }
            | Self::CheckAbsent { key } => key,
        }
    }

    /// The number of bytes that this operation puts into a transaction.
    pub fn len(&self) -> usize {
        let value = match self {
            Self::Create { value, .. } | Self::Cas { value, .. } => value.len(),
            Self::DeleteCas { .. } | Self::CheckIndex { .. } | Self::CheckAbsent { .. } => 0,
        };
        self.key().len() + value
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    /// The number of a transaction's [`MAX_TXN_OPS`] that the operation takes. A deletion takes two: Consul's own
    /// reports success for a key that is not there, so it travels with a check beside it.
    pub fn weight(&self) -> usize {
        match self {
            Self::DeleteCas { .. } => 2,
            Self::Create { .. } | Self::Cas { .. } | Self::CheckIndex { .. } | Self::CheckAbsent { .. } => 1,
        }
    }
}

/// The outcome of a transaction that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Txn {
    /// The transaction is in force. There is one index for each operation, in order: that of the key after it (0 for a
    /// deleted or absent one).
    Committed { indices: Vec<u64> },
    /// Nothing was changed. `failed` are the places of the operations that did not hold (at least one).
    Conflict { failed: Vec<usize>, message: String },
}

impl Txn {
    pub fn committed(&self) -> bool {
        matches!(self, Self::Committed { .. })
    }
}

impl StoreError {
    /// True if the same call may well succeed in a moment. A call that is refused or forbidden stays so.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Unknown { .. } => true,
            Self::Denied { .. } | Self::Invalid { .. } | Self::Malformed { .. } => false,
        }
    }
}

/// The kinds of errors, by what the caller may conclude from them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It surely did not happen: there was no connection, or no leader before anything was sent.
    #[error("{operation}: the store is unavailable: {reason}")]
    Unavailable { operation: String, reason: String },
    /// It may or may not have happened: there was no reply in time, or a reply such as `leadership lost while
    /// committing`.
    #[error("{operation}: no answer to rely on: {reason}")]
    Unknown { operation: String, reason: String },
    /// The token may not do this.
    #[error("{operation}: permission denied: {reason}")]
    Denied { operation: String, reason: String },
    /// It was refused before sending: too many operations, too large, a key that cannot be.
    #[error("{operation}: {reason}")]
    Invalid { operation: String, reason: String },
    /// The answer could not be read.
    #[error("{operation}: the store's answer makes no sense: {reason}")]
    Malformed { operation: String, reason: String },
}

/// The store. The head of this file says what it promises.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Reads one key.
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError>;

    /// Reads every key that begins with `prefix`, which must end in `/`.
    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError>;

    /// Reads like [`Store::list`], once something has changed since `after` or `wait` is over. `prefix` is a prefix
    /// ending in `/`, or one key.
    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError>;

    /// Does all the operations or none.
    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError>;

    /// Does the same as [`Store::txn`], but sends it a second way, where there is one, when the first has not answered
    /// within `after`. It is only for writes that a duplicate cannot harm: each names the index it replaces and carries
    /// a value never written before. With a duplicate under way a conflict proves nothing and is told as
    /// [`StoreError::Unknown`].
    async fn txn_hedged(&self, ops: Vec<Op>, after: Duration) -> Result<Txn, StoreError> {
        let _ = after;
        self.txn(ops).await
    }
}
