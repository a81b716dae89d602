//! The views: what this node has last seen of the store, kept by watchers, and beside it what this very process wrote.

mod asked;
mod departed;
mod document;
mod orders;
mod own;
mod ownership;
mod people;
mod sighting;
mod watching;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zsha_crds::records::{EventRecord, Intent, LeaseRecord, NodeStatus, VmRecord, VmStatus};
use zsha_crds::{ClusterName, Keys, NodeName};
use zsha_runtime::lease::{Observer, Sight};
use zsha_runtime::{Clock, Moment, reflector};

use crate::hypervisor::DomainSpec;
use crate::in_force::{Document, InForce};
use crate::world::UnreadableLease;
use departed::LastDeparted;
use orders::Orders;
use own::Own;
use sighting::saw;

pub use watching::{Reader, Watched, watch};

/// The records below `status/`.
#[derive(Debug, Clone)]
enum StatusRecord {
    Node(Arc<NodeStatus>),
    Vm(VmStatus),
}

/// Everything this node watches.
#[derive(Debug, Clone)]
pub struct Views {
    cluster: ClusterName,
    keys: Keys,
    clock: Clock,
    me: NodeName,
    /// The highest format of a document this build reads.
    reads: u32,
    spec: reflector::Store<Document>,
    intents: reflector::Store<Intent>,
    vms: reflector::Store<VmRecord>,
    statuses: reflector::Store<StatusRecord>,
    events: reflector::Store<EventRecord>,
    leases: reflector::Store<LeaseRecord>,
    in_force: Arc<Mutex<InForce>>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    observer: Observer,
    own: Own,
    departed: LastDeparted,
    orders: Orders,
    /// Domains of earlier generations as the history has them, looked up once; None: it does not have it.
    past: BTreeMap<u64, Option<Arc<DomainSpec>>>,
    /// Leases that are there and make no sense.
    unreadable: BTreeMap<NodeName, UnreadableLease>,
    /// True if the leases have been listed, and if that had to be begun again, since the store went back in time.
    listed: bool,
    went_back: bool,
}

impl Shared {
    /// Nothing that was seen of the leases counts any more.
    fn store_went_back(&mut self, now: Moment) {
        self.went_back = true;
        self.observer.doubt_all(now);
    }

    /// Nodes that had a lease before the store went back or was emptied (`went_back`, as far as this node knows), and have
    /// none that was seen since; with its last epoch.
    fn vanished(&self, went_back: bool) -> BTreeMap<NodeName, u64> {
        let mut vanished = self.observer.vanished().clone();
        if went_back {
            let gone =
                self.observer.deleted().iter().filter(|(node, _)| !self.unreadable.contains_key(*node));
            vanished.extend(gone.map(|(node, epoch)| (node.clone(), *epoch)));
        }
        vanished
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reason why a view shows nothing yet.
fn not_ready<T>(store: &reflector::Store<T>, what: &str) -> String {
    match store.failing() {
        Some(failing) => format!("{what} cannot be read: {}", failing.error),
        None => format!("{what} has not been read yet"),
    }
}

impl Views {
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    pub fn sights(&self) -> BTreeMap<NodeName, Sight> {
        lock(&self.shared).observer.sights().clone()
    }

    /// Leases that are there and cannot be read.
    pub fn unreadable_leases(&self) -> BTreeMap<NodeName, UnreadableLease> {
        lock(&self.shared).unreadable.clone()
    }

    /// True if the store has gone back in time since this process began (a snapshot was restored).
    pub fn went_back(&self) -> bool {
        lock(&self.shared).went_back
    }

    /// The store was found to show an earlier time of itself.
    pub fn store_went_back(&self) {
        lock(&self.shared).store_went_back(self.clock.now());
    }

    /// Nodes that may live by a lease which the store does not show any more; with its last epoch.
    pub fn vanished_leases(&self, went_back: bool) -> BTreeMap<NodeName, u64> {
        lock(&self.shared).vanished(went_back)
    }

    /// A lease read by other means, for instance consistently before a fence.
    pub fn saw_lease(&self, record: LeaseRecord, index: u64) {
        saw(&self.shared, self.clock.now(), record, index);
    }
}
