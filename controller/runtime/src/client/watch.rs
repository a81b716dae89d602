//! A cluster as a client sees it that goes on looking: it has seen for itself which leases are renewed, on its own clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use zsha_crds::status::{ClusterView, LeaseSight};
use zsha_crds::{ClusterName, NodeName};

use super::ReadError;
use super::view::{patience, read};
use crate::clock::{Clock, Moment};
use crate::store::{Read, Store};

/// An onlooker that goes on looking at one cluster.
#[derive(Debug)]
pub struct Onlooker {
    store: Arc<dyn Store>,
    cluster: ClusterName,
    clock: Clock,
    sightings: Sightings,
}

impl Onlooker {
    pub fn new(store: Arc<dyn Store>, cluster: ClusterName, clock: Clock) -> Self {
        Self { store, cluster, clock, sightings: Sightings::default() }
    }

    /// Looks once more. A look is six small reads of the nearest server; how often it is done is the caller's to say.
    pub async fn look(&mut self) -> Result<ClusterView, ReadError> {
        let mut view = read(self.store.as_ref(), &self.cluster, self.clock, Read::Default).await?;
        self.sightings.judge(&mut view, self.clock.now());
        Ok(view)
    }
}

/// Leases as somebody sees them who goes on looking: by when each renewal was first seen here, on our own clock.
#[derive(Debug, Default)]
struct Sightings {
    first_seen: BTreeMap<NodeName, (Uuid, u64, Moment)>,
    /// Nodes that were seen renewing: for the others the wall clock is all there is.
    seen_renewing: BTreeMap<NodeName, Moment>,
    began: Option<Moment>,
}

impl Sightings {
    fn judge(&mut self, view: &mut ClusterView, now: Moment) {
        let began = *self.began.get_or_insert(now);
        for lease in view.leases.values() {
            let seen = self.first_seen.get(&lease.node).copied();
            let since = match seen {
                Some((incarnation, seq, since)) if (incarnation, seq) == (lease.incarnation, lease.seq) => {
                    since
                }
                before => {
                    if before.is_some() {
                        self.seen_renewing.insert(lease.node.clone(), now);
                    }
                    now
                }
            };
            self.first_seen.insert(lease.node.clone(), (lease.incarnation, lease.seq, since));
            let knows =
                self.seen_renewing.contains_key(&lease.node) || now.since(began) >= patience(&lease.timings);
            let age = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            let sight = LeaseSight::from_age_millis(age, &lease.timings);
            match (knows, view.lease_ages.get(&lease.node)) {
                // Never seen to move: what the wall clock says is no fresher than that.
                (true, Some(LeaseSight::Late { .. } | LeaseSight::Expired))
                    if !self.seen_renewing.contains_key(&lease.node) => {}
                (true, _) => drop(view.lease_ages.insert(lease.node.clone(), sight)),
                (false, Some(LeaseSight::Fresh)) => {}
                (false, _) => drop(view.lease_ages.insert(lease.node.clone(), LeaseSight::Unknown)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
