//! What is seen of the statuses, and all that is seen in one value, for people.

use std::collections::BTreeMap;
use std::sync::Arc;

use zsha_crds::NodeName;
use zsha_crds::records::{NodeStatus, VmStatus};
use zsha_crds::status::{ClusterView, DataAge, LeaseSight};
use zsha_runtime::Moment;

use super::{StatusRecord, Views};

impl Views {
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
