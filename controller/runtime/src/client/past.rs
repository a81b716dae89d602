//! What is kept to be looked back on: the documents that were in force, and what happened. A record that cannot be read
//! is told beside those that can.

use jiff::Timestamp;
use zsha_crds::records::{self, EventRecord, HistoryRecord};
use zsha_crds::status::{ClusterView, RawRecord};
use zsha_crds::{ClusterName, Keys};

use super::ReadError;
use crate::store::{Read, Store};

/// Records of one kind, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Past<T> {
    pub records: Vec<T>,
    /// Keys whose value could not be read, and why.
    pub unreadable: Vec<(String, String)>,
}

/// The documents that were in force, by generation.
pub async fn history(store: &dyn Store, cluster: &ClusterName) -> Result<Past<HistoryRecord>, ReadError> {
    let listing = store.list(&Keys::new(cluster).history(), Read::Consistent).await;
    let listing = listing.map_err(ReadError::while_doing("reading the history"))?;
    let mut past = Past { records: Vec::new(), unreadable: Vec::new() };
    for entry in listing.entries {
        match records::read(&entry.value) {
            Ok(record) => past.records.push(record),
            Err(why) => past.unreadable.push((entry.key, why)),
        }
    }
    Ok(past)
}

/// The events, in the order in which the store saw them.
pub async fn events(
    store: &dyn Store,
    cluster: &ClusterName,
    now: Timestamp,
) -> Result<Past<EventRecord>, ReadError> {
    let listing = store.list(&Keys::new(cluster).events(), Read::Consistent).await;
    let listing = listing.map_err(ReadError::while_doing("reading the events"))?;
    let records = listing.entries.iter().map(|entry| RawRecord {
        key: &entry.key,
        value: &entry.value,
        modify_index: entry.modify_index,
    });
    let view = ClusterView::from_records(cluster.clone(), now, records);
    Ok(Past { records: view.events, unreadable: view.unreadable.into_iter().collect() })
}
