//! The views: what this node has last seen of the store, kept by watchers, and beside it what this very process wrote.

mod departed;
mod orders;
mod own;
mod sighting;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::watch;
use zsha_crds::records::{
    self, Departed, EventRecord, HostShutdown, Intent, LEASE_LOOK_MILLIS, LeaseRecord, LeaseState,
    NodeStatus, StoredSpec, VmRecord, VmStatus,
};
use zsha_crds::status::{ClusterView, DataAge, LeaseSight};
use zsha_crds::{ClusterName, Keys, NodeName, VmId, format};
use zsha_runtime::backoff::BackoffConfig;
use zsha_runtime::lease::{Observer, Sight};
use zsha_runtime::store::{Entry, Store, StoreError};
use zsha_runtime::watcher::{self, Event};
use zsha_runtime::{Clock, Moment, reflector};

use crate::desired::Desired;
use crate::hypervisor::DomainSpec;
use crate::in_force::{self, Awaited, Document, InForce, Others, Shown, SpecProblem};
use crate::intents::{self, Intents};
use crate::keeper::Verdict;
use crate::observed::Observed;
use crate::world::{MigrateRequest, Overwritten, StoredVm, UnreadableLease};
use departed::LastDeparted;
use orders::Orders;
use own::{LookedUp, Own};
use sighting::{counting, forgetting, lease_news, ordering, saw, sighting};

/// The records below `status/`.
#[derive(Debug, Clone)]
enum StatusRecord {
    Node(Arc<NodeStatus>),
    Vm(VmStatus),
}

/// A dead path is noticed after this; a quiet prefix costs one request in it.
const WAIT: Duration = Duration::from_secs(10);
/// Leases change all the time, so a look at them that waits for long is a path that is dead.
const LEASE_WAIT: Duration = Duration::from_secs(2);
/// An election is over in a few seconds, and what was missed in it is wanted at once.
const BACKOFF: BackoffConfig =
    BackoffConfig { base: Duration::from_millis(200), cap: Duration::from_millis(1_000) };

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
    spec_changes: watch::Sender<u64>,
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
    let patiently = |prefix: String, look: u64, wait: Duration| {
        let min_interval = Duration::from_millis(look);
        let config = watcher::Config { seed, min_interval, wait, backoff: BACKOFF };
        watcher::watcher(Arc::clone(store), prefix, config)
    };
    let follow = |prefix: String, look: u64| patiently(prefix, look, WAIT);
    let of_leases =
        reflector::reflector(leases_writer, patiently(keys.leases(), LEASE_LOOK_MILLIS, LEASE_WAIT));
    let spec_changes = watch::Sender::new(0);
    let changes = vec![
        counting(reflector::reflector(spec_writer, follow(keys.spec(), 50)), spec_changes.clone()).boxed(),
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
        spec_changes,
        in_force: Arc::default(),
        shared,
    };
    Watched { views, changes, display }
}

fn status(entry: &Entry, node_prefix: &str, vm: &VmId) -> Result<StatusRecord, String> {
    if !entry.key.starts_with(node_prefix) {
        return VmStatus::read(&entry.value, vm).map(StatusRecord::Vm);
    }
    let node = records::node_of(&entry.key, node_prefix)?;
    NodeStatus::read(&entry.value, &node).map(|status| StatusRecord::Node(Arc::new(status)))
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

    /// The document in force: the last good one, whatever became of the key since.
    pub fn desired(&self) -> Observed<Option<Arc<Desired>>> {
        // Not in the match: what is shown is judged by what is in force, under the same lock.
        let document = self.in_force().document().cloned();
        match (document, self.spec.ready()) {
            (Some(document), _) => Observed::Known(Some(Arc::clone(&document.desired))),
            (None, false) => Observed::Unknown(not_ready(&self.spec, "the document")),
            (None, true) => match self.shown() {
                Shown::Bad { why, .. } => Observed::Unknown(why),
                Shown::Waits { generation, awaited, .. } => {
                    Observed::Unknown(format!("generation {generation} waits {}", awaited.what))
                }
                Shown::NotReadYet | Shown::Nothing | Shown::Generation(_) => Observed::Known(None),
            },
        }
    }

    /// Moves with every document seen.
    pub fn spec_changes(&self) -> watch::Receiver<u64> {
        self.spec_changes.subscribe()
    }

    /// The problem of the stored document, if it has one.
    pub fn spec_problem(&self) -> Option<SpecProblem> {
        let shown = self.shown();
        self.in_force().problem(shown)
    }

    /// The index of a bad document for which the history is to be looked at; see [`InForce::needs_history`].
    pub fn needs_history(&self) -> Option<u64> {
        let shown = self.shown();
        // Which of the history may be in force is said by the nodes.
        if matches!(shown, Shown::Nothing) && !self.statuses.ready() {
            return None;
        }
        self.in_force().needs_history(&shown)
    }

    /// Takes in the history, as it was found when it was looked at for the document of this index.
    pub fn recover(&self, index: u64, history: &[Entry]) {
        let waits = |stored: &StoredSpec| self.awaited(stored, None).is_some();
        let newest = in_force::newest_usable(history, &self.cluster, self.reads, waits);
        if self.in_force().recover(index, newest) {
            self.spec_changes.send_modify(|count| *count += 1);
        }
    }

    /// The contents of the document's key, as last seen.
    fn shown(&self) -> Shown {
        let key = self.keys.spec();
        if let Some(bad) = self.spec.undecodable().remove(&key) {
            return Shown::Bad { index: bad.modify_index, why: bad.reason };
        }
        match self.spec.get(&key) {
            Some(object) => {
                let stored = &object.value.stored;
                let mine = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).generation();
                let (index, generation) = (object.modify_index, stored.generation);
                match self.awaited(stored, mine) {
                    None => Shown::Generation(generation),
                    Some(awaited) => Shown::Waits { index, generation, awaited },
                }
            }
            None if self.spec.ready() => Shown::Nothing,
            None => Shown::NotReadYet,
        }
    }

    /// The document in force, after what was last seen of the key is taken in.
    fn in_force(&self) -> MutexGuard<'_, InForce> {
        let seen = self.spec.get(&self.keys.spec());
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = seen
            && self.awaited(&object.value.stored, in_force.generation()).is_none()
            && in_force.offer(object.value)
        {
            // It may have waited since it was seen.
            self.spec_changes.send_modify(|count| *count += 1);
        }
        in_force
    }

    /// The things that a document waits for, with this generation in force here.
    fn awaited(&self, stored: &StoredSpec, mine: Option<u64>) -> Option<Awaited> {
        // Nearly always so, and the others need not be asked.
        if stored.format <= format::FIRST {
            return None;
        }
        in_force::waits_for(stored, &self.others(mine))
    }

    /// The state of the other nodes that decides on a document of a newer format. `mine`: the generation in force here.
    fn others(&self, mine: Option<u64>) -> Others {
        let (now, statuses, sights) = (self.clock.now(), self.nodes(), self.sights());
        let observed = statuses.values().map(|status| status.observed_generation);
        let acted_on = observed.chain(mine).max().unwrap_or(0);
        // Who does not see its own renewals does not see the others' either.
        let mine = sights.get(&self.me);
        let present = mine.is_some_and(|sight| now < sight.sent_by + sight.record.timings.ttl());
        if !present || !self.leases.ready() || !self.statuses.ready() {
            return Others { living: None, acted_on };
        }
        let dead = |node: &NodeName, lease: &LeaseRecord| {
            matches!(lease.state, LeaseState::Fenced | LeaseState::Released)
                || sights.get(node).is_some_and(|sight| sight.is_expired(now))
        };
        let leases = self.leases.state().into_values().map(|object| object.value);
        let living = leases.filter(|lease| !dead(&lease.node, lease)).map(|lease| lease.node.clone());
        // What cannot be read may be of a node that lives.
        let unreadable = self.unreadable_leases().into_keys();
        let living = living.chain(unreadable).filter(|node| *node != self.me);
        let living = living.map(|node| (node.clone(), statuses.get(&node).cloned())).collect();
        Others { living: Some(living), acted_on }
    }

    /// The orders of operators that stand until they are taken back. The first `apply` writes whether the VM is to run,
    /// and that is never deleted.
    pub fn intents(&self, lease: &Observed<Verdict>) -> Observed<Intents> {
        if !self.intents.ready() {
            return Observed::Unknown(not_ready(&self.intents, "the operators' intents"));
        }
        let prefix = self.keys.intents();
        let name = |key: &str| key.strip_prefix(&prefix).unwrap_or(key).to_owned();
        let unreadable = self.intents.undecodable().into_iter().map(|(key, bad)| (name(&key), bad.reason));
        let unreadable = unreadable.collect();
        let expected = self.in_force().document().is_some();
        let records = self.intents.state();
        let came_back = self.came_back(lease);
        let stored = records.iter().map(|(key, object)| intents::Stored {
            name: key.strip_prefix(&prefix).unwrap_or(key),
            intent: &object.value,
            came_back: came_back(key, &object.value),
        });
        let undone = lock(&self.shared).orders.undone().clone();
        let undone = undone.into_iter().map(|(key, intent)| (name(&key), intent)).collect();
        intents::read(stored, &unreadable, &undone, expected)
    }

    /// The index of the order that was written last, of those that are there.
    pub fn newest_order(&self) -> Option<u64> {
        self.intents.state().values().map(|object| object.modify_index).max()
    }

    /// Hosts that shut down, as they said in some boot.
    pub fn shutdowns(&self) -> Observed<BTreeMap<NodeName, HostShutdown>> {
        if !self.intents.ready() {
            return Observed::Unknown(not_ready(&self.intents, "the operators' intents"));
        }
        let prefix = self.keys.intents();
        let records = self.intents.state();
        let said =
            records.iter().map(|(key, object)| (key.strip_prefix(&prefix).unwrap_or(key), &*object.value));
        Observed::Known(intents::shutdowns(said))
    }

    /// Tells which orders have come back with an older state of the store: see [`orders`].
    fn came_back(&self, lease: &Observed<Verdict>) -> impl Fn(&str, &Intent) -> bool + use<> {
        let (shared, step_back) =
            (Arc::clone(&self.shared), lease.known().and_then(|verdict| verdict.step_back));
        move |key, intent| lock(&shared).orders.has_come_back(key, intent, step_back)
    }

    /// The live migration that an operator asked for last, even if it has been answered. None also where that cannot be
    /// told: a healthy VM is not moved on a guess.
    pub fn migrate(&self, lease: &Observed<Verdict>) -> Option<MigrateRequest> {
        let key = self.keys.intent(Intent::MIGRATE);
        let intent = self.intents.get(&key).filter(|_| self.intents.ready())?;
        if self.came_back(lease)(&key, &intent.value) {
            return None;
        }
        match &*intent.value {
            Intent::Migrate { id, to, by, .. } => {
                Some(MigrateRequest { id: *id, index: intent.modify_index, to: to.clone(), by: by.clone() })
            }
            _ => None,
        }
    }

    /// The ownership record: the newer of what was last seen and what this process last wrote.
    pub fn vm(&self) -> Observed<Option<StoredVm>> {
        let vm = self.newest_vm();
        if let Observed::Known(Some(stored)) = &vm {
            lock(&self.shared).departed.see(&stored.record);
        }
        vm
    }

    /// See [`crate::world::World::departed_before`]; of the record that was looked at last.
    pub fn departed_before(&self) -> Option<Departed> {
        lock(&self.shared).departed.gone().cloned()
    }

    fn newest_vm(&self) -> Observed<Option<StoredVm>> {
        let key = self.keys.vm(&self.keys.vm_id().name);
        let seen = self.vms.get(&key);
        let bad = self.vms.undecodable().remove(&key);
        // What is there now, whether or not it can be read: the last good one may be older.
        let index = bad.as_ref().map(|bad| bad.modify_index).or(seen.as_ref().map(|seen| seen.modify_index));
        let own = {
            let mut shared = lock(&self.shared);
            if let Some(index) = index {
                shared.own.saw(self.clock.now(), index);
            }
            shared.own.newest(index)
        };
        if own.is_some() {
            return Observed::Known(own);
        }
        if let Some(bad) = bad {
            return Observed::Unknown(format!(
                "{key} cannot be read: {}. Nobody starts the VM, and a running one is left alone; see 'The ownership \
                 record cannot be read' in docs/3am.md",
                bad.reason
            ));
        }
        if !self.vms.ready() {
            return Observed::Unknown(not_ready(&self.vms, "the ownership record"));
        }
        Observed::Known(seen.map(|seen| StoredVm {
            record: (*seen.value).clone(),
            index: seen.modify_index,
            written: None,
        }))
    }

    /// The record that this process wrote last, where something that cannot be read has been written over it.
    pub fn vm_overwritten(&self) -> Option<Overwritten> {
        let bad = self.vms.undecodable().remove(&self.keys.vm(&self.keys.vm_id().name))?;
        let (ours, index, sent) = lock(&self.shared).own.last()?;
        (bad.modify_index > index).then_some(Overwritten { index: bad.modify_index, ours, sent })
    }

    /// The record that this process last wrote, and was told to be in force, before the store went back in time.
    pub fn vm_before(&self) -> Option<VmRecord> {
        lock(&self.shared).own.before().cloned()
    }

    /// This process sent the record then, and was told that it is in force.
    pub fn wrote(&self, record: VmRecord, index: u64, sent: Moment) {
        lock(&self.shared).own.wrote(self.clock.now(), record, index, sent);
    }

    /// This write may or may not be in force: what was written before is in doubt.
    pub fn write_is_unknown(&self, record: &VmRecord) {
        lock(&self.shared).own.write_is_unknown(record);
    }

    /// Something had changed under it, and perhaps what this process wrote before is gone: that is to be looked up.
    pub fn write_failed(&self, now: Moment) {
        lock(&self.shared).own.write_failed(now);
    }

    /// When the record was sent that makes this node the owner, if this process sent it and nothing is in doubt.
    pub fn written(&self) -> Option<Moment> {
        lock(&self.shared).own.sent()
    }

    /// True if the record that this process wrote has not been seen in the store for so long that it must be asked for.
    pub fn own_is_unconfirmed(&self) -> bool {
        lock(&self.shared).own.is_unconfirmed(self.clock.now())
    }

    /// The index of the record as it was just read, consistently. One that is lower than that of what this process wrote
    /// shows that the store is of an earlier time, and with it the leases.
    pub fn own_was_looked_up(&self, index: Option<u64>) {
        let mut shared = lock(&self.shared);
        let now = self.clock.now();
        if shared.own.looked_up(now, index) == LookedUp::WentBack {
            shared.store_went_back(now);
        }
    }

    /// The domain that was found for an earlier generation; None: not looked up yet.
    pub fn past_domain(&self, generation: u64) -> Option<Option<Arc<DomainSpec>>> {
        lock(&self.shared).past.get(&generation).cloned()
    }

    pub fn remember_domain(&self, generation: u64, domain: Option<Arc<DomainSpec>>) {
        // One VM runs, of one generation.
        lock(&self.shared).past = BTreeMap::from([(generation, domain)]);
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

    pub fn nodes(&self) -> BTreeMap<NodeName, Arc<NodeStatus>> {
        let nodes = self.statuses.state().into_values().filter_map(|object| match &*object.value {
            StatusRecord::Node(status) => Some((status.node.clone(), Arc::clone(status))),
            StatusRecord::Vm(_) => None,
        });
        nodes.collect()
    }

    /// True if what is stored under this key cannot be read.
    pub fn status_is_bad(&self, key: &str) -> bool {
        self.statuses.undecodable().contains_key(key)
    }

    /// A status record as it is in the store, for the cas that replaces it. None before the first look.
    pub fn status_index(&self, key: &str) -> Option<Option<u64>> {
        let found = self.statuses.get(key).map(|object| object.modify_index);
        let bad = self.statuses.undecodable().get(key).map(|bad| bad.modify_index);
        self.statuses.ready().then_some(bad.or(found))
    }

    pub fn vm_status(&self) -> Option<VmStatus> {
        let object = self.statuses.get(&self.keys.vm_status(&self.keys.vm_id().name))?;
        match &*object.value {
            StatusRecord::Vm(status) => Some(status.clone()),
            StatusRecord::Node(_) => None,
        }
    }

    /// The time when the store last confirmed the ownership record, and what keeps it from doing so.
    pub fn confirmed(&self) -> (Option<Moment>, Option<String>) {
        // Leases change all the time, so their watcher is the one that is surely answered all the time.
        (self.leases.last_synced(), self.leases.failing().map(|failing| failing.error.to_string()))
    }

    /// The whole view of the cluster, for people.
    pub fn cluster_view(&self) -> ClusterView {
        let now = self.clock.now();
        let mut view = ClusterView::empty(self.cluster.clone(), self.clock.wall());
        view.spec = self.in_force().document().map(|document| document.stored.clone());
        view.spec_problem = self.spec_problem().map(|problem| problem.to_string());
        view.vm = self.vm().known().cloned().flatten().map(|stored| stored.record);
        view.vm_status = self.vm_status();
        view.node_statuses =
            self.nodes().into_iter().map(|(node, status)| (node, (*status).clone())).collect();
        for (node, sight) in self.sights() {
            let age = u64::try_from(now.since(sight.sent_by).as_millis()).unwrap_or(u64::MAX);
            view.lease_ages.insert(node.clone(), LeaseSight::from_age_millis(age, &sight.record.timings));
            view.leases.insert(node, sight.record);
        }
        let bad = [
            self.leases.undecodable(),
            self.vms.undecodable(),
            self.statuses.undecodable(),
            self.intents.undecodable(),
            self.events.undecodable(),
        ];
        view.unreadable.extend(bad.into_iter().flatten().map(|(key, bad)| (key, bad.reason)));
        let prefix = self.keys.intents();
        for (key, object) in self.intents.state() {
            view.intents.insert(key.trim_start_matches(&prefix).to_owned(), (*object.value).clone());
        }
        let mut events: Vec<_> = self.events.state().into_values().collect();
        events.sort_by_key(|object| object.modify_index);
        view.events = events.into_iter().map(|object| (*object.value).clone()).collect();
        if let (confirmed, Some(why)) = self.confirmed() {
            view.data_age = DataAge::Stale { secs: confirmed.map(|at| now.since(at).as_secs()), why };
        }
        view
    }
}
