//! The watchers behind the views: one for each kind of record, how long each waits, and which change wakes the controller.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use zsha_crds::records::{self, Intent, LEASE_LOOK_MILLIS, LeaseRecord, NodeStatus, VmRecord, VmStatus};
use zsha_crds::{ClusterName, Keys, NodeName, VmId};
use zsha_runtime::backoff::BackoffConfig;
use zsha_runtime::store::{Entry, Store, StoreError};
use zsha_runtime::watcher::{self, Event};
use zsha_runtime::{Clock, reflector};

use super::sighting::{forgetting, lease_news, ordering, sighting};
use super::{Shared, StatusRecord, Views};
use crate::in_force::Document;

/// A dead path is noticed after this; a quiet prefix costs one request in it.
const WAIT: Duration = Duration::from_secs(10);
/// Leases change all the time, so a look at them that waits for long is a path that is dead.
const LEASE_WAIT: Duration = Duration::from_secs(2);
/// An election is over in a few seconds, and what was missed in it is wanted at once.
const BACKOFF: BackoffConfig =
    BackoffConfig { base: Duration::from_millis(200), cap: Duration::from_millis(1_000) };

type Changes = BoxStream<'static, Result<Event, StoreError>>;

/// The views, and the streams that keep them: whoever polls those is woken by what matters and nothing else.
pub struct Watched {
    pub views: Views,
    pub changes: Vec<Changes>,
    /// Changes that only people look at.
    pub display: Vec<Changes>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("views", &self.views).finish_non_exhaustive()
    }
}

/// The node whose views these are, and the documents that it reads.
#[derive(Debug, Clone)]
pub struct Reader {
    pub me: NodeName,
    pub reads: u32,
}

pub fn watch(
    store: &Arc<dyn Store>,
    cluster: &ClusterName,
    clock: Clock,
    seed: u64,
    Reader { me, reads }: Reader,
) -> Watched {
    let keys = Keys::new(cluster);
    let shared = Arc::new(Mutex::new(Shared::default()));
    let decoding = cluster.clone();
    let (spec, spec_writer) =
        reflector::store_with(clock, move |entry| Document::read(&entry.value, &decoding, reads));
    let (prefix, vm) = (keys.intents(), keys.vm_id().name.clone());
    let (intents, intents_writer) = reflector::store_with(clock, move |entry| {
        Intent::read(entry.key.trim_start_matches(&prefix), &entry.value, &vm)
    });
    let vm = keys.vm_id().clone();
    let (vms, vms_writer) = reflector::store_with(clock, move |entry| VmRecord::read(&entry.value, &vm));
    let (prefix, vm) = (keys.node_statuses(), keys.vm_id().clone());
    let (statuses, statuses_writer) = reflector::store_with(clock, move |entry| status(entry, &prefix, &vm));
    let (events, events_writer) = reflector::store(clock);
    let (prefix, of_cluster) = (keys.leases(), cluster.clone());
    let (leases, leases_writer) = reflector::store_with(clock, move |entry| {
        LeaseRecord::under(&entry.key, &entry.value, &prefix, &of_cluster)
    });
    let follow = |prefix: String, look: u64| follow(store, prefix, seed, look, WAIT);
    let of_leases = self::follow(store, keys.leases(), seed, LEASE_LOOK_MILLIS, LEASE_WAIT);
    let of_leases = reflector::reflector(leases_writer, of_leases);
    let changes = vec![
        reflector::reflector(spec_writer, follow(keys.spec(), 50)).boxed(),
        reflector::reflector(
            intents_writer,
            ordering(follow(keys.intents(), 50), Arc::clone(&shared), clock),
        )
        .boxed(),
        forgetting(reflector::reflector(vms_writer, follow(keys.vms(), 50)), Arc::clone(&shared), clock)
            .boxed(),
        lease_news(
            sighting(of_leases, (keys.leases(), cluster.clone()), Arc::clone(&shared), clock),
            keys.leases(),
            Arc::clone(&shared),
        )
        .boxed(),
        reflector::reflector(statuses_writer, follow(keys.statuses(), 500)).boxed(),
    ];
    let display = vec![reflector::reflector(events_writer, follow(keys.events(), 1_000)).boxed()];
    let cluster = cluster.clone();
    let views = Views {
        cluster,
        keys,
        clock,
        me,
        reads,
        spec,
        intents,
        vms,
        statuses,
        events,
        leases,
        in_force: Arc::default(),
        shared,
    };
    Watched { views, changes, display }
}

/// Follows what lies below a prefix, looking at most once in `look` milliseconds.
fn follow(
    store: &Arc<dyn Store>,
    prefix: String,
    seed: u64,
    look: u64,
    wait: Duration,
) -> impl Stream<Item = Result<Event, StoreError>> + Send + use<> {
    let config = watcher::Config { seed, min_interval: Duration::from_millis(look), wait, backoff: BACKOFF };
    watcher::watcher(Arc::clone(store), prefix, config)
}

fn status(entry: &Entry, node_prefix: &str, vm: &VmId) -> Result<StatusRecord, String> {
    if !entry.key.starts_with(node_prefix) {
        return VmStatus::read(&entry.value, vm).map(StatusRecord::Vm);
    }
    let node = records::node_of(&entry.key, node_prefix)?;
    NodeStatus::read(&entry.value, &node).map(|status| StatusRecord::Node(Arc::new(status)))
}
