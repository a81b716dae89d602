//! Writes one intent, by compare-and-set on what lies under its key, and finds out whether it stands there.

use std::fmt;
use std::time::Duration;

use zsha_crds::Keys;
use zsha_crds::records::Intent;

use crate::store::{Entry, Op, Read, Store, StoreError, Txn};

/// It is tried again after this.
const PAUSE: Duration = Duration::from_secs(1);
/// An election that cut a write off takes 2.4 to 3.9 s.
const TRIES: u32 = 6;

/// The outcome of writing an intent: it stands there, or was not wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// True if something is asked for that was not asked for before.
    pub changed: bool,
    /// The damage that had to be put right on the way.
    pub mended: Option<Mended>,
}

/// Something under the key of an intent that was wrong, and was written over. Its `Display` is a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mended {
    Unreadable { key: String, why: String },
    Missing { key: String },
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { key, why } => {
                write!(f, "{key} could not be read, and was written over: {why}")
            }
            Self::Missing { key } => write!(f, "{key} was missing, and was written anew"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    /// `in_doubt`: a write went unanswered, and may be in force.
    #[error("the store failed")]
    Store { in_doubt: bool, source: StoreError },
    #[error("somebody else asks for the same or the contrary just now")]
    Conflict,
    #[error("the intent cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// How an intent is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct How {
    /// True if the intent is written even where the very same stands there already, so that those who watch see a
    /// write.
    pub again: bool,
    /// True if the intent that stands there counts for nothing: writing it is a change.
    pub doubted: bool,
}

/// Writes the intent of this name. `wanted` is given what stands there, which is none where that cannot be read, and says
/// what is to stand there; nothing is written where it wants nothing. Sent twice it is one.
pub async fn write(
    store: &dyn Store,
    keys: &Keys,
    name: &str,
    wanted: impl Fn(Option<&Intent>) -> Option<Intent>,
    how: How,
) -> Result<Written, IntentError> {
    let key = keys.intent(name);
    let mut written = Written::default();
    let (mut in_doubt, mut sent) = (false, false);
    for tries in 1.. {
        let there = match store.get(&key, Read::Consistent).await {
            Ok(there) => there,
            Err(error) if error.is_transient() && tries < TRIES => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(source) => return Err(IntentError::Store { in_doubt, source }),
        };
        let before = there.as_ref().map(|entry| Intent::read(name, &entry.value, &keys.vm_id().name));
        let Some(intent) = wanted_over(before.as_ref(), &wanted) else { return Ok(written) };
        let mut value = serde_json::to_string(&intent).map_err(IntentError::Unwritable)?;
        if there.as_ref().is_some_and(|entry| entry.value == value) {
            // Said again it is another: a write of the same is none to those who watch.
            if sent || !how.again {
                return Ok(written);
            }
            value.push('\n');
        }
        written.mended = mended(name, &key, before.as_ref()).or(written.mended);
        // Before the answer: where it is lost, the next look finds it there.
        written.changed |= is_new(before.as_ref(), &intent) || how.doubted;
        sent = true;
        let done = store.txn(vec![over(there, &key, value)]).await;
        in_doubt |= matches!(done, Err(StoreError::Unknown { .. }));
        match done {
            Ok(Txn::Committed { .. }) => return Ok(written),
            // It was not written, and perhaps by now there is nothing to mend.
            Ok(Txn::Conflict { .. }) if tries < TRIES => written.mended = None,
            Err(error) if error.is_transient() && tries < TRIES => tokio::time::sleep(PAUSE).await,
            Ok(Txn::Conflict { .. }) => return Err(IntentError::Conflict),
            Err(source) => return Err(IntentError::Store { in_doubt, source }),
        }
    }
    Ok(written)
}

fn wanted_over(
    before: Option<&Result<Intent, String>>,
    wanted: &impl Fn(Option<&Intent>) -> Option<Intent>,
) -> Option<Intent> {
    match before {
        Some(Ok(before)) => wanted(Some(before)),
        // Nobody has ever asked for anything: that is the same as what takes something back.
        None => wanted(Some(&Intent::None)),
        Some(Err(_)) => wanted(None),
    }
}

fn is_new(before: Option<&Result<Intent, String>>, intent: &Intent) -> bool {
    match before {
        Some(Ok(before)) => before != intent,
        Some(Err(_)) => true,
        None => *intent != Intent::None,
    }
}

fn mended(name: &str, key: &str, before: Option<&Result<Intent, String>>) -> Option<Mended> {
    match before {
        Some(Err(why)) => Some(Mended::Unreadable { key: key.to_owned(), why: why.clone() }),
        // It came with the first document, and no client deletes it.
        None if name == Intent::POWER => Some(Mended::Missing { key: key.to_owned() }),
        Some(Ok(_)) | None => None,
    }
}

fn over(there: Option<Entry>, key: &str, value: String) -> Op {
    let key = key.to_owned();
    match there {
        Some(entry) => Op::Cas { key, value, index: entry.modify_index },
        None => Op::Create { key, value },
    }
}
