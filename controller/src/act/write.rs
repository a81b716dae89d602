//! Writes a change of the ownership record: one transaction, made after one consistent read of all leases.
//!
//! The transaction does not grow with the cluster. Where a write rests on what the leases of a few nodes say, it checks
//! each of these leases. Where it rests on many, this node first writes the record unchanged, with the next revision,
//! and then reads the leases. Any node that takes the VM or claims a copy meanwhile has to write the same record, and
//! so makes the write that follows fail.

use std::collections::BTreeMap;

use zsha_crds::NodeName;
use zsha_crds::records::{LeaseRecord, LeaseState, VmRecord};
use zsha_runtime::lease::Sight;
use zsha_runtime::store::{Entry, Op, Read, Txn};

use super::{ActError, Edges, Happened, events_of, json};
use crate::plan::notes::Landed;
use crate::plan::{Notes, Write};
use crate::planted::{self, Bug};
use crate::views::Views;

/// The largest number of other nodes whose leases are checked in the transaction itself. A lease that is checked must
/// not be renewed between the read and the commit, and each is renewed every R: of 98 leases with R = 1 s one moves
/// within 10 ms in two cases of three. Consul takes 64 operations.
const MOST_CHECKED: usize = 8;

/// Writes one transaction: the fences, the record, and a check of this node's own lease.
pub(super) async fn write_record(
    edges: &Edges,
    views: &Views,
    write: &Write,
    notes: &mut Notes,
) -> Result<Vec<Happened>, ActError> {
    let given_up = write.record.owner.as_ref().is_none_or(|owner| owner.node != edges.me);
    let early = planted::is_planted(Bug::HandOverEarly) && write.record.migration.is_some();
    if given_up && !early && !planted::is_planted(Bug::ReleaseBeforeStop) {
        nothing_alive(edges).await?;
    }
    let asked_after = match rests_on_many(write) {
        true => Some(announced(edges, views, write).await?),
        false => None,
    };
    let write = asked_after.as_ref().unwrap_or(write);
    let leases = Leases::read(edges, views).await?;
    let ops = transaction(edges, views, &leases, write)?;
    let (at, sent) = (write.fence.len(), edges.clock.now());
    match edges.store.txn(ops).await {
        Ok(Txn::Committed { indices }) => {
            match indices.get(at).copied().filter(|index| *index > 0) {
                Some(index) => views.wrote(write.record.clone(), index, sent),
                None => views.write_is_unknown(&write.record),
            }
            notes.wrote(write, Landed::Surely, sent);
            Ok(events_of(edges, write))
        }
        Ok(Txn::Conflict { message, .. }) => {
            views.write_failed(edges.clock.now());
            Err(ActError::Moved(message))
        }
        Err(error) => {
            // Perhaps it is in force, perhaps it will be.
            if !planted::is_planted(Bug::UnansweredWriteForgotten) {
                views.write_is_unknown(&write.record);
            }
            notes.wrote(write, Landed::Perhaps, sent);
            Err(error.into())
        }
    }
}

fn rests_on_many(write: &Write) -> bool {
    write.rests_on.len() > MOST_CHECKED && !planted::is_planted(Bug::EveryLeaseChecked)
}

/// Writes the record unchanged, with the next revision. Returns the write that is to follow it, over that revision.
async fn announced(edges: &Edges, views: &Views, write: &Write) -> Result<Write, ActError> {
    let leases = Leases::read(edges, views).await?;
    // Where the write does not hold as it is, nothing is written.
    fences(edges, views, &leases, write)?;
    others_word(edges, &leases, write)?;
    let key = edges.keys.vm(&write.record.name);
    let stored = edges.store.get(&key, Read::Consistent).await?;
    let Some(stored) = stored.filter(|stored| Some(stored.modify_index) == write.index) else {
        views.write_failed(edges.clock.now());
        return Err(ActError::Moved("the ownership record has changed".to_owned()));
    };
    let before = VmRecord::read(&stored.value, edges.keys.vm_id()).map_err(ActError::Moved)?;
    let record = VmRecord { revision: before.revision + 1, ..before };
    let mut ops = vec![Op::Cas { key, value: json(&record)?, index: stored.modify_index }];
    ops.extend(own_lease(edges, views, &leases, write)?);
    match edges.store.txn(ops).await {
        Ok(Txn::Committed { indices }) => {
            let Some(index) = indices.first().copied().filter(|index| *index > 0) else {
                views.write_is_unknown(&record);
                return Err(ActError::Moved("the store does not say where the record is now".to_owned()));
            };
            let mut next = Write { index: Some(index), ..write.clone() };
            next.record.revision = next.record.revision.max(record.revision + 1);
            Ok(next)
        }
        Ok(Txn::Conflict { message, .. }) => {
            views.write_failed(edges.clock.now());
            Err(ActError::Moved(message))
        }
        Err(error) => {
            views.write_is_unknown(&record);
            Err(error.into())
        }
    }
}

/// All leases that can be read, each with its index, as one consistent read shows them.
struct Leases {
    by_node: BTreeMap<NodeName, (LeaseRecord, u64)>,
    /// The renewals of this node that were confirmed before the read: they are in it, or the store has gone back since, and this
    /// node's keeper has not seen it yet.
    confirmed: u64,
}

impl Leases {
    async fn read(edges: &Edges, views: &Views) -> Result<Self, ActError> {
        let confirmed = edges.lease.verdict().await?.confirmed;
        // Whatever was seen by now is in the read, too. What is seen while the read is on its way may be newer than it.
        let seen = views.sights();
        let prefix = edges.keys.leases();
        let listing = edges.store.list(&prefix, Read::Consistent).await?;
        let lease = |entry: &Entry| {
            let lease = LeaseRecord::under(&entry.key, &entry.value, &prefix, views.cluster()).ok()?;
            Some((lease.node.clone(), (lease, entry.modify_index)))
        };
        let leases = Self { by_node: listing.entries.iter().filter_map(lease).collect(), confirmed };
        if seen.iter().any(|(node, sight)| leases.of(node).is_some_and(|(_, now)| *now < sight.index)) {
            views.store_went_back();
            return Err(ActError::Moved("the store shows an earlier time of itself".to_owned()));
        }
        Ok(leases)
    }

    fn of(&self, node: &NodeName) -> Option<&(LeaseRecord, u64)> {
        self.by_node.get(node)
    }
}

/// The operations of the transaction. A lease that is to be fenced must be exactly the one that was watched for D, and
/// this node's own lease must be the one that the decision rested on.
fn transaction(edges: &Edges, views: &Views, leases: &Leases, write: &Write) -> Result<Vec<Op>, ActError> {
    let mut ops = fences(edges, views, leases, write)?;
    let (key, value) = (edges.keys.kept_vm(), json(&write.record)?);
    ops.push(match write.index {
        Some(index) => Op::Cas { key, value, index },
        None => Op::Create { key, value },
    });
    ops.extend(others_word(edges, leases, write)?);
    ops.extend(own_lease(edges, views, leases, write)?);
    Ok(ops)
}

fn fences(edges: &Edges, views: &Views, leases: &Leases, write: &Write) -> Result<Vec<Op>, ActError> {
    let fence = |sight: &Sight| {
        let node = &sight.record.node;
        match leases.of(node) {
            Some((record, index))
                if sight.is_same(record, *index) || planted::is_planted(Bug::FenceUnread) =>
            {
                let value = json(&sight.fenced(&edges.me))?;
                Ok(Op::Cas { key: edges.keys.lease(node), value, index: *index })
            }
            Some((record, index)) => {
                views.saw_lease(record.clone(), *index);
                Err(ActError::Moved(format!("{node} has renewed its lease")))
            }
            None => Err(ActError::Moved(format!("the lease of {node} is not readable now"))),
        }
    };
    write.fence.iter().map(fence).collect()
}

/// Fails unless the other nodes' leases still say what the write rests on. The leases of a few are checked once more by
/// the transaction; those of many were read after this node's announcing write.
fn others_word(edges: &Edges, leases: &Leases, write: &Write) -> Result<Vec<Op>, ActError> {
    let unread = rests_on_many(write) && planted::is_planted(Bug::ManyNotReadAgain);
    if unread || planted::is_planted(Bug::OthersWordNotInTheWrite) {
        return Ok(vec![]);
    }
    let check = |sight: &Sight| {
        let node = &sight.record.node;
        match leases.of(node) {
            Some((record, index)) if sight.is_borne_out(record, *index, &edges.keys.vm_id().name) => {
                Ok(Op::CheckIndex { key: edges.keys.lease(node), index: *index })
            }
            _ => Err(ActError::Moved(format!("the lease of {node} has changed"))),
        }
    };
    let checks: Vec<_> = write.rests_on.iter().map(check).collect::<Result<_, _>>()?;
    Ok(if rests_on_many(write) { vec![] } else { checks })
}

/// The check that this node's own lease is still the one the write rests on.
fn own_lease(edges: &Edges, views: &Views, leases: &Leases, write: &Write) -> Result<Option<Op>, ActError> {
    match leases.of(&edges.me) {
        Some((record, _)) if record.incarnation == write.incarnation && record.seq < leases.confirmed => {
            views.store_went_back();
            Err(ActError::Moved(format!(
                "the store shows the lease of {} as it was before it was renewed: it has gone back in time",
                edges.me
            )))
        }
        Some((record, index))
            if record.state == LeaseState::Held
                && record.epoch == write.epoch
                && record.incarnation == write.incarnation =>
        {
            let check = Op::CheckIndex { key: edges.keys.lease(&edges.me), index: *index };
            Ok((!planted::is_planted(Bug::OwnLeaseNotInTheWrite)).then_some(check))
        }
        _ => Err(ActError::Moved(format!("the store does not show the lease of {} in its epoch", edges.me))),
    }
}

/// Fails unless no copy is alive: ownership is given up only when the process table shows no copy, and not only the
/// hypervisor. The keeper's count is as old as its last renewal; where it still has a copy, a new look tells.
async fn nothing_alive(edges: &Edges) -> Result<(), ActError> {
    if planted::is_planted(Bug::UnknownIsAbsent) && edges.hypervisor.look().await.is_err() {
        return Ok(());
    }
    match edges.lease.verdict().await?.copies {
        Some(0) => Ok(()),
        Some(_) if !edges.hypervisor.look().await?.has_process() => Ok(()),
        Some(n) => Err(ActError::Moved(format!("{n} QEMU process of the VM is still alive on {}", edges.me))),
        None if planted::is_planted(Bug::GivenUpUnseen) => Ok(()),
        None => Err(ActError::Moved(format!("the processes of {} cannot be seen", edges.me))),
    }
}
