//! Makes the one transaction by which a document becomes the stored one, over what was read and compared. `commit`
//! sends it. Between the two a person can be asked.

use std::collections::BTreeMap;

use jiff::Timestamp;
use zsha_crds::format::{self, NotReading};
use zsha_crds::normalise::{normalised, same};
use zsha_crds::records::{self, Intent, NodeStatus, VmRecord};
use zsha_crds::{HaCluster, Keys, NodeName, decode_value};

use super::ReadError;
use super::document::Live;
use crate::history::{self, Change, HistoryError, Outcome};
use crate::store::{Entry, Op, Read, Store};

/// The person who applies a document, when and why, for the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// `user@host`.
    pub who: String,
    pub at: Timestamp,
    pub message: String,
    /// The command that asks for it, for instance `apply`.
    pub command: String,
}

/// The outcome of preparing a document.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// The document in force says the same already: there is nothing to write.
    Unchanged {
        generation: u64,
    },
    Write(Write),
}

/// A transaction that is made and not sent.
#[derive(Debug, Clone)]
pub struct Write {
    pub(super) keys: Keys,
    pub(super) ops: Vec<Op>,
    /// The generation that the document gets.
    pub generation: u64,
    /// True if no document was in force before.
    pub created: bool,
    /// Nodes not known to read the document: while one of them lives, it does not come in force.
    pub waits_for: Vec<NotReading>,
}

/// Why no transaction could be made; nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The stored document cannot be used, and is not written over.
    #[error(transparent)]
    Stored(#[from] HistoryError),
    #[error("a record cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// Makes the transaction that puts `new` in force over `live`, as it was read: the document and its record and, the
/// first time, the keys that others wait for.
pub async fn prepare(
    store: &dyn Store,
    keys: &Keys,
    live: &Live,
    new: &HaCluster,
    by: By,
) -> Result<Prepared, ApplyError> {
    let listing = store.list(&keys.history(), Read::Consistent).await;
    let recorded = listing.map_err(ReadError::while_doing("reading the history"))?.entries;
    let statuses = statuses(store, keys).await?;
    let observed = statuses.values().map(|status| status.observed_generation).max().unwrap_or(0);
    let needed = format::needed(new);
    let By { who, at, message, command } = by;
    let document = normalised(new);
    let change = Change { format: needed, document, applied_by: who, applied_at: at, message, command };
    let equivalent =
        |old: &serde_json::Value, _: &serde_json::Value| decode_value(old).is_ok_and(|old| same(&old, new));
    let outcome = history::apply(keys, live.entry.as_ref(), &recorded, observed, change, equivalent)?;
    let (mut ops, generation) = match outcome {
        Outcome::Unchanged { generation } => return Ok(Prepared::Unchanged { generation }),
        Outcome::Write { ops, generation } => (ops, generation),
    };
    let created = live.generation() == 0;
    if created && recorded.is_empty() {
        ops.extend(placeholders(store, keys, new).await?);
    }
    let nodes = new.nodes().iter().map(|node| (&node.name, statuses.get(&node.name)));
    let waits_for = format::not_reading(needed, nodes);
    Ok(Prepared::Write(Write { keys: keys.clone(), ops, generation, created, waits_for }))
}

/// The nodes' own statuses. The highest generation that one acts on counts: after the store was put back to an older
/// state the nodes go on with theirs, and what is applied has to go past it.
async fn statuses(store: &dyn Store, keys: &Keys) -> Result<BTreeMap<NodeName, NodeStatus>, ReadError> {
    let listing = store.list(&keys.node_statuses(), Read::Consistent).await;
    let entries = listing.map_err(ReadError::while_doing("reading what the nodes act on"))?.entries;
    let status = |entry: &Entry| {
        let node = records::node_of(&entry.key, &keys.node_statuses()).ok()?;
        NodeStatus::read(&entry.value, &node).ok()
    };
    Ok(entries.iter().filter_map(status).map(|status| (status.node.clone(), status)).collect())
}

/// The keys that come with the first document: the ownership record and the place of an operator's orders, so that
/// those who watch them watch something that exists. Where a document was in force before, they are somebody else's to
/// keep: an ownership record that is missing then proves nothing, and is not made anew; nor is it known whether the VM
/// was to run.
async fn placeholders(store: &dyn Store, keys: &Keys, new: &HaCluster) -> Result<Vec<Op>, ApplyError> {
    let vm = new.vm();
    let wanted = [
        (keys.vm(&vm.name), json(&VmRecord::unplaced(vm))?),
        // Whoever had the VM stopped may have said it there: a document is no order to start it.
        (keys.intent(Intent::POWER), json(&Intent::None)?),
    ];
    let mut ops = Vec::new();
    for (key, value) in wanted {
        let there = store.get(&key, Read::Consistent).await;
        let there = there.map_err(ReadError::while_doing("looking for what is there already"))?;
        if there.is_none() {
            ops.push(Op::Create { key, value });
        }
    }
    Ok(ops)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, ApplyError> {
    serde_json::to_string(value).map_err(ApplyError::Unwritable)
}
