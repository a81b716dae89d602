//! Sends the transaction and finds out what became of it, also where the first answer says nothing.

use std::time::Duration;

use zsha_crds::records::{Intent, VmRecord};
use zsha_crds::{HaCluster, Keys, VmName};
use zsha_runtime::Store;
use zsha_runtime::store::{Op, Read, StoreError, Txn};

use crate::live::Live;
use crate::{Exit, Failure};

/// Once more after this: an election that cut the first try off takes 2.4 to 3.9 s.
const PAUSE: Duration = Duration::from_millis(700);
const TRIES: u32 = 6;

pub(super) enum Fate {
    InForce {
        index: u64,
    },
    /// Somebody else was first; this is what is in force.
    Lost(Live),
}

/// The same transaction may be sent again: each write in it names the index it replaces, so of two copies one at most
/// takes effect, and what is read then tells whose it was.
pub(super) async fn commit(store: &dyn Store, keys: &Keys, ops: Vec<Op>) -> Result<Fate, Failure> {
    let ours = ops.iter().find_map(|op| match op {
        Op::Create { key, value } | Op::Cas { key, value, .. } if *key == keys.spec() => Some(value.clone()),
        Op::Create { .. }
        | Op::Cas { .. }
        | Op::DeleteCas { .. }
        | Op::CheckIndex { .. }
        | Op::CheckAbsent { .. } => None,
    });
    let mut in_doubt = false;
    let mut tries = 0;
    loop {
        tries += 1;
        match store.txn(ops.clone()).await {
            Ok(Txn::Committed { indices }) => {
                return Ok(Fate::InForce { index: indices.first().copied().unwrap_or_default() });
            }
            Ok(Txn::Conflict { .. }) => {
                let now = Live::read(store, keys)
                    .await
                    .map_err(|failure| if in_doubt { doubtful(failure) } else { failure })?;
                return Ok(match &now.entry {
                    Some(entry) if in_doubt && Some(&entry.value) == ours.as_ref() => {
                        Fate::InForce { index: entry.modify_index }
                    }
                    _ => Fate::Lost(now),
                });
            }
            Err(error @ (StoreError::Unknown { .. } | StoreError::Unavailable { .. })) => {
                in_doubt |= matches!(error, StoreError::Unknown { .. });
                if tries == TRIES {
                    let failure = Failure::store("writing the document", &error);
                    return Err(if in_doubt {
                        doubtful(failure)
                    } else {
                        failure.cause("nothing was written")
                    });
                }
            }
            Err(error) => {
                let failure = Failure::store("writing the document", &error);
                return Err(if in_doubt { doubtful(failure) } else { failure.cause("nothing was written") });
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn doubtful(failure: Failure) -> Failure {
    let mut failure = failure
        .cause("an earlier try went unanswered: the document may be in force, now or in a moment")
        .hint("look with `zsha get`, then apply again: what is in force already is not written twice");
    failure.exit = Exit::Unavailable;
    failure
}

/// With the first document: the record of ownership and the place of an operator's wishes, so that those who watch
/// them watch something that exists. Where a document was in force before, they are somebody else's to keep: a record
/// of ownership that is missing then proves nothing, and is not made anew; nor is it known whether the VM was to run.
pub(super) async fn placeholders(
    store: &dyn Store,
    keys: &Keys,
    new: &HaCluster,
    had_documents: bool,
) -> Result<Vec<Op>, Failure> {
    let name = VmName::management();
    let unowned = VmRecord::unplaced(name.clone(), name.domain_uuid(new.name()));
    let wanted = [
        (keys.vm(&name), json(&unowned)?, !had_documents),
        // Whoever had the VM stopped may have said it there: a document is no order to start it.
        (keys.intent(Intent::POWER), json(&Intent::None)?, !had_documents),
    ];
    let mut ops = Vec::new();
    for (key, value, may_create) in wanted {
        let there = store.get(&key, Read::Consistent).await;
        let there = there.map_err(|error| Failure::store("looking for what is there already", &error))?;
        if there.is_none() && may_create {
            ops.push(Op::Create { key, value });
        }
    }
    Ok(ops)
}

fn json<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::new(Exit::General, "Unwritable", error.to_string()))
}
