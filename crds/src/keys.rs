//! The keys in Consul KV under which everything lives. Each key has one writer; hot keys share no watched prefix with
//! the document.

use crate::{ClusterName, NodeName, VmId, VmName};

/// The keys of one cluster, all below `zsha/<cluster>/`.
#[derive(Debug, Clone)]
pub struct Keys {
    root: String,
    vm_id: VmId,
}

impl Keys {
    pub fn new(cluster: &ClusterName) -> Self {
        Self { root: format!("zsha/{cluster}/"), vm_id: VmId::of(cluster) }
    }

    /// The VM that the cluster keeps.
    pub fn vm_id(&self) -> &VmId {
        &self.vm_id
    }

    /// Everything of the cluster. Ends in `/`: Consul's recurse is a string prefix, not a directory.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The user's document with its generation: [`crate::records::StoredSpec`].
    pub fn spec(&self) -> String {
        format!("{}spec", self.root)
    }

    /// The orders that operators gave by command, outside the document: [`crate::records::Intent`].
    pub fn intents(&self) -> String {
        format!("{}intent/", self.root)
    }

    pub fn intent(&self, name: &str) -> String {
        format!("{}intent/{name}", self.root)
    }

    /// Node leases: [`crate::records::LeaseRecord`].
    pub fn leases(&self) -> String {
        format!("{}leases/", self.root)
    }

    pub fn lease(&self, node: &NodeName) -> String {
        format!("{}leases/{node}", self.root)
    }

    /// Ownership: [`crate::records::VmRecord`].
    pub fn vms(&self) -> String {
        format!("{}vms/", self.root)
    }

    pub fn vm(&self, vm: &VmName) -> String {
        format!("{}vms/{vm}", self.root)
    }

    /// The ownership record of the VM that the cluster keeps.
    pub fn kept_vm(&self) -> String {
        self.vm(&self.vm_id.name)
    }

    pub fn statuses(&self) -> String {
        format!("{}status/", self.root)
    }

    /// [`crate::records::NodeStatus`]s.
    pub fn node_statuses(&self) -> String {
        format!("{}status/nodes/", self.root)
    }

    pub fn node_status(&self, node: &NodeName) -> String {
        format!("{}status/nodes/{node}", self.root)
    }

    /// [`crate::records::VmStatus`].
    pub fn vm_status(&self, vm: &VmName) -> String {
        format!("{}status/vms/{vm}", self.root)
    }

    /// [`crate::records::EventRecord`]s, one key for each aggregated event, below the node that saw it.
    pub fn events(&self) -> String {
        format!("{}events/", self.root)
    }

    pub fn events_of(&self, node: &NodeName) -> String {
        format!("{}events/{node}/", self.root)
    }

    /// [`crate::records::HistoryRecord`]s of applied documents.
    pub fn history(&self) -> String {
        format!("{}history/", self.root)
    }

    /// The key of one record of the history. The number is zero-padded, so that a listing is in order.
    pub fn history_of(&self, generation: u64) -> String {
        format!("{}history/{generation:010}", self.root)
    }
}
