//! Passes on what comes into the views: every lease is shown to the observer, every step back of the store to what is
//! remembered beside the views.

use std::sync::{Arc, Mutex};

use futures::{Stream, StreamExt};
use zsha_crds::ClusterName;
use zsha_crds::records::{self, LeaseRecord};
use zsha_runtime::store::{Entry, StoreError};
use zsha_runtime::watcher::Event;
use zsha_runtime::{Clock, Moment, predicates};

use super::{Shared, lock};
use crate::world::UnreadableLease;

/// Shows every lease to the observer on its way. `prefix`: the prefix below which the leases lie.
pub(super) fn sighting<S>(
    stream: S,
    (prefix, cluster): (String, ClusterName),
    shared: Arc<Mutex<Shared>>,
    clock: Clock,
) -> impl Stream<Item = S::Item>
where
    S: Stream<Item = Result<Event, StoreError>>,
{
    stream.inspect(move |item| {
        let Ok(event) = item else {
            lock(&shared).observer.gap();
            return;
        };
        match event {
            Event::InitApply(entry) | Event::Apply(entry) => {
                see(&shared, clock.now(), entry, (&prefix, &cluster))
            }
            Event::Delete(key) => forget(&shared, key, &prefix),
            Event::Init => begin_again(&shared),
            Event::InitDone | Event::Bookmark => {}
        }
    })
}

fn see(shared: &Mutex<Shared>, now: Moment, entry: &Entry, (prefix, cluster): (&str, &ClusterName)) {
    let node = match records::node_of(&entry.key, prefix) {
        Ok(node) => node,
        Err(why) => {
            tracing::warn!(key = entry.key, why, "not taken for a lease");
            return;
        }
    };
    match LeaseRecord::read(&entry.value, &node, cluster) {
        Ok(record) => saw(shared, now, record, entry.modify_index),
        Err(why) => {
            tracing::warn!(key = entry.key, error = why, "a lease cannot be read");
            let mut shared = lock(shared);
            shared.observer.missing(&node);
            let before = shared.unreadable.get(&node).filter(|before| before.index == entry.modify_index);
            let since = before.map_or(now, |before| before.since);
            shared.unreadable.insert(node, UnreadableLease { index: entry.modify_index, since, why });
        }
    }
}

pub(super) fn saw(shared: &Mutex<Shared>, now: Moment, record: LeaseRecord, index: u64) {
    let mut shared = lock(shared);
    shared.unreadable.remove(&record.node);
    shared.observer.see(now, record, index);
}

/// Forgets a lease that is not there: nothing can be concluded from it.
fn forget(shared: &Mutex<Shared>, key: &str, prefix: &str) {
    let Ok(node) = records::node_of(key, prefix) else { return };
    let mut shared = lock(shared);
    shared.observer.missing(&node);
    shared.unreadable.remove(&node);
}

/// A full listing begins: the first, or one more because the store went back.
fn begin_again(shared: &Mutex<Shared>) {
    let mut shared = lock(shared);
    shared.went_back |= shared.listed;
    shared.listed = true;
    shared.unreadable.clear();
    shared.observer.forget_all();
}

/// Shows the store's steps back in time to what is remembered beside the views.
pub(super) fn forgetting<S>(
    stream: S,
    shared: Arc<Mutex<Shared>>,
    clock: Clock,
) -> impl Stream<Item = S::Item>
where
    S: Stream<Item = Result<Event, StoreError>>,
{
    let mut listed = false;
    stream.inspect(move |item| {
        if matches!(item, Ok(Event::Init)) {
            let mut shared = lock(&shared);
            if std::mem::replace(&mut listed, true) {
                shared.store_went_back(clock.now());
            }
            shared.own.is_over();
        }
    })
}

/// Shows every order to what tells those that were given from those that came back with an older state of the store.
pub(super) fn ordering<S>(stream: S, shared: Arc<Mutex<Shared>>, clock: Clock) -> impl Stream<Item = S::Item>
where
    S: Stream<Item = Result<Event, StoreError>>,
{
    stream.inspect(move |item| {
        if let Ok(event) = item {
            lock(&shared).orders.see(clock.now(), event);
        }
    })
}

/// Passes on what is new about a lease that was sighted, and not its renewals.
pub(super) fn lease_news<S>(
    stream: S,
    prefix: String,
    shared: Arc<Mutex<Shared>>,
) -> impl Stream<Item = S::Item>
where
    S: Stream<Item = Result<Event, StoreError>>,
{
    predicates::changed(stream, move |entry| {
        let shared = lock(&shared);
        let sight = shared.observer.get(&records::node_of(&entry.key, &prefix).ok()?)?;
        if sight.index != entry.modify_index {
            return None;
        }
        let record = &sight.record;
        let state = record.state as u64;
        Some((record.epoch << 3) | (state << 1) | u64::from(record.controller_alive))
    })
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use jiff::Timestamp;
    use zsha_crds::NodeName;
    use zsha_crds::records::Owner;

    use super::*;

    const PREFIX: &str = "zsha/prod/leases/";

    fn lease(node: &NodeName) -> Event {
        let record = LeaseRecord::lost(&Owner { node: node.clone(), epoch: 4 }, Timestamp::UNIX_EPOCH);
        let value = serde_json::to_string(&record).unwrap();
        Event::InitApply(Entry { key: format!("{PREFIX}{node}"), value, modify_index: 7 })
    }

    /// A node that lives by a lease which went with the whole store is not in the list, nor perhaps in the next
    /// document.
    #[tokio::test]
    async fn a_lease_that_was_deleted_may_be_of_a_node_that_lives_where_the_whole_store_was_emptied() {
        let node = NodeName::new("nfs-1").unwrap();
        let shared = Arc::new(Mutex::new(Shared::default()));
        let clock = Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 };
        let events = [Event::Init, lease(&node), Event::InitDone, Event::Delete(format!("{PREFIX}{node}"))];
        let (whose, events) = ((PREFIX.to_owned(), ClusterName::new("prod").unwrap()), events.map(Ok));
        sighting(stream::iter(events), whose, Arc::clone(&shared), clock).for_each(async |_| {}).await;
        assert!(lock(&shared).vanished(false).is_empty(), "somebody has deleted it");
        assert_eq!(lock(&shared).vanished(true).get(&node), Some(&4));
        let why = "no JSON".to_owned();
        let nonsense = UnreadableLease { index: 9, since: clock.now(), why };
        lock(&shared).unreadable.insert(node, nonsense);
        assert!(lock(&shared).vanished(true).is_empty(), "something is there, and is waited for as that");
    }
}
