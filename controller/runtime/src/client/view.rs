//! One look at a whole cluster: confirmed by a quorum where there is one, else whatever a server has, and said to be so.
//! A look judges nothing but how fresh each lease is.

use std::time::Duration;

use zsha_crds::records::{LeaseRecord, LeaseState, LeaseTimings};
use zsha_crds::status::{ClusterView, DataAge, LeaseSight, RawRecord};
use zsha_crds::{ClusterName, Keys};

use super::ReadError;
use crate::clock::Clock;
use crate::store::{Entry, Read, Store, StoreError};

/// One look. Where a lease seems overdue by the wall clock, which may be wrong, it is watched for as long as two
/// renewals take, and believed only then.
pub async fn once(store: &dyn Store, cluster: &ClusterName, clock: Clock) -> Result<ClusterView, ReadError> {
    let mut view = read(store, cluster, clock, Read::Consistent).await?;
    let Some(patience) = doubtful(&view) else { return Ok(view) };
    if !view.data_age.is_current() {
        return Ok(view);
    }
    let first = view.leases.clone();
    let until = clock.now() + patience;
    let keys = Keys::new(cluster);
    let mut index = 0;
    loop {
        let left = clock.now().until(until);
        let listing = match store.watch(&keys.leases(), index, left).await {
            Ok(listing) => listing,
            // What was read before stands as it was read.
            Err(_) => return Ok(view),
        };
        index = listing.index;
        let prefix = keys.leases();
        let leases = listing.entries.iter();
        let leases =
            leases.filter_map(|entry| LeaseRecord::under(&entry.key, &entry.value, &prefix, cluster).ok());
        for lease in leases.filter(|lease| first.get(&lease.node).is_some_and(|first| renewed(first, lease)))
        {
            view.lease_ages.insert(lease.node.clone(), LeaseSight::Fresh);
            view.leases.insert(lease.node.clone(), lease);
        }
        view.now = clock.wall();
        if doubtful(&view).is_none() || left.is_zero() {
            return Ok(view);
        }
    }
}

/// How long to watch until it is known whether the leases that seem overdue are renewed after all.
fn doubtful(view: &ClusterView) -> Option<Duration> {
    let overdue = view.leases.values().filter(|lease| {
        lease.state == LeaseState::Held && view.lease_ages.get(&lease.node) != Some(&LeaseSight::Fresh)
    });
    overdue.map(|lease| patience(&lease.timings)).max()
}

/// Two renewals, and a request that takes its time. Bounded, for a record may say anything.
pub(super) fn patience(timings: &LeaseTimings) -> Duration {
    (timings.renew() * 2 + Duration::from_millis(200)).min(Duration::from_secs(5))
}

fn renewed(before: &LeaseRecord, now: &LeaseRecord) -> bool {
    (before.incarnation, before.seq) != (now.incarnation, now.seq)
}

/// Everything below the cluster's prefix but the history, which is long. Falls back to a stale reading where the
/// store cannot give another.
pub async fn read(
    store: &dyn Store,
    cluster: &ClusterName,
    clock: Clock,
    consistency: Read,
) -> Result<ClusterView, ReadError> {
    let (entries, why) = match records(store, cluster, consistency).await {
        Ok(entries) => (entries, None),
        Err(error) if error.is_transient() => match records(store, cluster, Read::Stale).await {
            Ok(entries) => (entries, Some(error.to_string())),
            Err(_) => return Err(unread(error)),
        },
        Err(error) => return Err(unread(error)),
    };
    let raw = entries.iter().map(|entry| RawRecord {
        key: &entry.key,
        value: &entry.value,
        modify_index: entry.modify_index,
    });
    let now = clock.wall();
    let mut view = ClusterView::from_records(cluster.clone(), now, raw);
    if let Some(why) = why {
        let newest = view.leases.values().map(|lease| lease.renewed_at).max();
        let secs = newest.and_then(|at| u64::try_from(now.as_second() - at.as_second()).ok());
        view.data_age = DataAge::Stale { secs, why };
    }
    Ok(view)
}

fn unread(source: StoreError) -> ReadError {
    ReadError { doing: "reading the status", source }
}

async fn records(store: &dyn Store, cluster: &ClusterName, read: Read) -> Result<Vec<Entry>, StoreError> {
    let keys = Keys::new(cluster);
    let (spec_key, leases, vms) = (keys.spec(), keys.leases(), keys.vms());
    let (statuses, intents, events) = (keys.statuses(), keys.intents(), keys.events());
    let (spec, leases, vms, statuses, intents, events) = tokio::try_join!(
        store.get(&spec_key, read),
        store.list(&leases, read),
        store.list(&vms, read),
        store.list(&statuses, read),
        store.list(&intents, read),
        store.list(&events, read),
    )?;
    let lists = [leases, vms, statuses, intents, events].into_iter().flat_map(|listing| listing.entries);
    Ok(spec.into_iter().chain(lists).collect())
}
