//! All that was read of a cluster: records by key, how each lease was seen, and how old it all is.
//!
//! A record that cannot be read is kept as unreadable and never dropped: unreadable is not absent.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::records::{
    self, EventRecord, Intent, LeaseRecord, LeaseTimings, NodeStatus, StoredSpec, VmHere, VmRecord, VmStatus,
};
use crate::{ClusterName, HaCluster, Keys, NodeName, VmId, VmName, decode_value};

/// How a lease that says `Held` was seen by this process. Only its holder knows whether it is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseSight {
    /// The lease was renewed when it should have been.
    Fresh,
    /// The lease is overdue, and still within the time one renewal holds.
    Late { secs: u64 },
    /// One renewal's time is over: the node may run nothing any more.
    Expired,
    /// The lease was not looked at for long enough to tell.
    Unknown,
}

impl LeaseSight {
    /// Judges a lease by the age of the last renewal that was seen.
    pub fn from_age_millis(age: u64, timings: &LeaseTimings) -> Self {
        let on_time = (timings.renew_millis * 3).max(timings.ttl_millis / 2);
        match age {
            age if age <= on_time => Self::Fresh,
            age if age <= timings.ttl_millis => Self::Late { secs: age / 1000 },
            _ => Self::Expired,
        }
    }

    /// Judges a lease by the clocks of two machines, which may differ by any amount: `Unknown` where the record is from
    /// the future.
    pub fn by_wall_clock(lease: &LeaseRecord, now: Timestamp) -> Self {
        let age = now.as_millisecond() - lease.renewed_at.as_millisecond();
        match u64::try_from(age) {
            Ok(age) => Self::from_age_millis(age, &lease.timings),
            // Two clocks half a second apart are not worth a word.
            Err(_) if age > -500 => Self::Fresh,
            Err(_) => Self::Unknown,
        }
    }
}

/// How old the records are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "read")]
pub enum DataAge {
    /// A quorum confirmed them.
    #[default]
    Consistent,
    /// They come from one server that nothing confirmed, and are at least so old where that is known.
    Stale {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secs: Option<u64>,
        why: String,
    },
}

impl DataAge {
    pub fn is_current(&self) -> bool {
        matches!(self, Self::Consistent)
    }
}

/// One key as read, for [`ClusterView::from_records`].
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    pub key: &'a str,
    pub value: &'a str,
    pub modify_index: u64,
}

/// Everything that is known of a cluster at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterView {
    pub cluster: ClusterName,
    /// The document in force, as far as this process can tell. A controller knows the last good one also where the
    /// stored one has a problem. None: there is none (or none that can be read, see `spec_problem`).
    pub spec: Option<StoredSpec>,
    /// Why the stored document is not the one in force, where it is not.
    pub spec_problem: Option<String>,
    pub leases: BTreeMap<NodeName, LeaseRecord>,
    pub vm: Option<VmRecord>,
    pub vm_status: Option<VmStatus>,
    pub node_statuses: BTreeMap<NodeName, NodeStatus>,
    /// The intents by the last part of their key: `power`, `drain.nfs-1`, ...
    pub intents: BTreeMap<String, Intent>,
    /// The events in the order the store saw them, oldest first.
    pub events: Vec<EventRecord>,
    /// How each lease was seen. A lease that is not here was not seen.
    pub lease_ages: BTreeMap<NodeName, LeaseSight>,
    /// Keys whose value could not be read, and why.
    pub unreadable: BTreeMap<String, String>,
    pub now: Timestamp,
    pub data_age: DataAge,
}

/// A record looked for: there, surely not there, or there and unreadable.
#[derive(Debug, PartialEq, Eq)]
pub enum Observed<'a, T> {
    Present(&'a T),
    Absent,
    Unreadable(&'a str),
}

impl<T> Clone for Observed<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Observed<'_, T> {}

impl ClusterView {
    /// The view of a cluster of which nothing is known.
    pub fn empty(cluster: ClusterName, now: Timestamp) -> Self {
        Self {
            cluster,
            spec: None,
            spec_problem: None,
            leases: BTreeMap::new(),
            vm: None,
            vm_status: None,
            node_statuses: BTreeMap::new(),
            intents: BTreeMap::new(),
            events: Vec::new(),
            lease_ages: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            now,
            data_age: DataAge::Consistent,
        }
    }

    /// Makes a view of keys as read, in any order; keys of other kinds are passed over. Leases are judged by the wall
    /// clock until a process that has watched them says better.
    pub fn from_records<'a>(
        cluster: ClusterName,
        now: Timestamp,
        records: impl IntoIterator<Item = RawRecord<'a>>,
    ) -> Self {
        let keys = Keys::new(&cluster);
        let mut view = Self::empty(cluster, now);
        let mut records: Vec<_> = records.into_iter().collect();
        records.sort_by_key(|record| record.modify_index);
        for record in records {
            view.take(&keys, record);
        }
        view.lease_ages = view
            .leases
            .iter()
            .map(|(node, lease)| (node.clone(), LeaseSight::by_wall_clock(lease, now)))
            .collect();
        view
    }

    fn take(&mut self, keys: &Keys, record: RawRecord<'_>) {
        let vm = keys.vm_id();
        let key = record.key;
        if key == keys.spec() {
            // An empty value only keeps the key in being, so that a watch of it is quiet.
            if record.value.trim().is_empty() {
                return;
            }
            self.spec = self.read(record, StoredSpec::read);
            self.spec_problem = self.unreadable.get(key).cloned();
        } else if key == keys.kept_vm() {
            self.vm = self.read(record, |value| VmRecord::read(value, vm));
        } else if key == keys.vm_status(&vm.name) {
            self.vm_status = self.read(record, |value| VmStatus::read(value, vm));
        } else if let Some(name) = key.strip_prefix(&keys.intents()) {
            if let Some(intent) = self.read(record, |value| Intent::read(name, value, &vm.name)) {
                self.intents.insert(name.to_owned(), intent);
            }
        } else if key.starts_with(&keys.leases()) {
            let cluster = self.cluster.clone();
            let of = |value: &str| LeaseRecord::under(key, value, &keys.leases(), &cluster);
            if let Some(lease) = self.read(record, of) {
                self.leases.insert(lease.node.clone(), lease);
            }
        } else if key.starts_with(&keys.node_statuses()) {
            let of = |value: &str| NodeStatus::read(value, &records::node_of(key, &keys.node_statuses())?);
            if let Some(status) = self.read(record, of) {
                self.node_statuses.insert(status.node.clone(), status);
            }
        } else if key.starts_with(&keys.events())
            && let Some(event) = self.read(record, records::read)
        {
            self.events.push(event);
        }
    }

    fn read<T>(&mut self, record: RawRecord<'_>, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match read(record.value) {
            Ok(value) => Some(value),
            Err(why) => {
                self.unreadable.insert(record.key.to_owned(), why);
                None
            }
        }
    }

    /// The document as types, or why there is none, by the rules that the controllers go by.
    pub(super) fn document(&self) -> Result<HaCluster, String> {
        let none = || self.spec_problem.clone().unwrap_or_else(|| "no document has been applied".to_owned());
        let spec = self.spec.as_ref().ok_or_else(none)?;
        let document = decode_value(&spec.document).map_err(|faults| faults.to_string())?;
        if *document.name() != self.cluster {
            let (name, cluster) = (document.name(), &self.cluster);
            return Err(format!("the document is for cluster '{name}' and lies under '{cluster}'"));
        }
        Ok(document)
    }

    /// The VM that the cluster keeps.
    pub fn vm_id(&self) -> VmId {
        VmId::of(&self.cluster)
    }

    /// The part of this node's status that is about the VM. Where there is none, it is the default, by which nothing is
    /// known.
    pub fn here(&self, node: &NodeName) -> VmHere {
        self.node_statuses
            .get(node)
            .map(|status| status.vms.of(&VmName::kept_by(&self.cluster)))
            .unwrap_or_default()
    }

    pub fn lease(&self, node: &NodeName) -> Observed<'_, LeaseRecord> {
        self.observed(self.leases.get(node), |keys| keys.lease(node))
    }

    pub fn ownership(&self) -> Observed<'_, VmRecord> {
        self.observed(self.vm.as_ref(), Keys::kept_vm)
    }

    fn observed<'a, T>(&'a self, found: Option<&'a T>, key: impl FnOnce(&Keys) -> String) -> Observed<'a, T> {
        let unreadable = || self.unreadable.get(&key(&Keys::new(&self.cluster)));
        match found {
            Some(found) => Observed::Present(found),
            None => unreadable().map_or(Observed::Absent, |why| Observed::Unreadable(why)),
        }
    }

    /// The stop that an operator asked for, if one did.
    pub fn stop_wanted(&self) -> Option<Asked<'_>> {
        match self.intents.get(Intent::POWER)? {
            Intent::Stop { by, at, message, .. } => Some(Asked { by, at: *at, message }),
            _ => None,
        }
    }

    /// The freeze that an operator asked for, if one did.
    pub fn frozen(&self) -> Option<Asked<'_>> {
        match self.intents.get(Intent::FREEZE)? {
            Intent::Freeze { by, at, message } => Some(Asked { by, at: *at, message }),
            _ => None,
        }
    }

    /// The drain of this node that an operator asked for, if one did.
    pub fn drained(&self, node: &NodeName) -> Option<Asked<'_>> {
        match self.intents.get(&Intent::drain_of(node))? {
            Intent::Drain { by, at, message, .. } => Some(Asked { by, at: *at, message }),
            _ => None,
        }
    }
}

/// An order of an operator: who asked, when and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    pub by: &'a str,
    pub at: Timestamp,
    pub message: &'a str,
}

impl Asked<'_> {
    /// The time of the order, to the second.
    pub fn since(&self) -> impl std::fmt::Display + use<> {
        self.at.strftime("%Y-%m-%d %H:%M:%SZ")
    }
}

impl std::fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.since();
        match self.message {
            "" => write!(f, "by {} at {at}", self.by),
            message => write!(f, "by {} at {at}: {message}", self.by),
        }
    }
}
