//! Reads keys that anybody may have written. A value is taken for a record only if it can be what this key holds.
//! Everything else is unreadable, and said to be so; nothing is ever concluded from what it says.

use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::{LONGEST_SECONDS, LeaseRecord, NodeStatus, StoredSpec, VmRecord, VmStatus};
use crate::{ClusterName, Condition, NodeName, VmId, VmName};

/// The bound of all that is counted. No count comes near it in the life of a cluster, so a number above it was never
/// counted. Counting on from anything below it overflows nowhere.
pub const HIGHEST: u64 = 1 << 62;

/// A reason is cut after so many characters: a decoder quotes what it did not expect, and a value may be half a MiB.
const LONGEST_REASON: usize = 300;

/// Reads a value as a record of this type, or says why it is none, in a sentence that is never long.
pub fn read<T: DeserializeOwned>(value: &str) -> Result<T, String> {
    serde_json::from_str(value).map_err(|error| brief(&error.to_string()))
}

/// The sentence, cut where it is long.
pub fn brief(reason: &str) -> String {
    match reason.char_indices().nth(LONGEST_REASON) {
        None => reason.to_owned(),
        // The end says where in the value it was.
        Some((cut, _)) => format!("{}... ({} characters)", &reason[..cut], reason.chars().count()),
    }
}

impl StoredSpec {
    /// Reads the value under the key of the document. It does not judge the document.
    pub fn read(value: &str) -> Result<Self, String> {
        let stored: Self = read(value)?;
        if stored.generation >= HIGHEST {
            return Err(format!("nobody counts as far as generation {}", stored.generation));
        }
        Ok(stored)
    }
}

impl LeaseRecord {
    /// The lease under this key, below the prefix of all leases of this cluster.
    pub fn under(key: &str, value: &str, prefix: &str, cluster: &ClusterName) -> Result<Self, String> {
        Self::read(value, &node_of(key, prefix)?, cluster)
    }

    /// Reads the value under the lease key of this node, in this cluster.
    pub fn read(value: &str, node: &NodeName, cluster: &ClusterName) -> Result<Self, String> {
        let record: Self = read(value)?;
        if record.node != *node {
            return Err(format!("it is the lease of {}", record.node));
        }
        if let Some(other) = record.cluster.as_ref().filter(|other| *other != cluster) {
            return Err(format!("it is the lease of {node} in the cluster {other}"));
        }
        if record.epoch >= HIGHEST || record.seq >= HIGHEST {
            return Err(format!("nobody counts as far as epoch {} and renewal {}", record.epoch, record.seq));
        }
        let d = record.timings.fence_after_millis;
        if !record.timings.is_safe() || d > LONGEST_SECONDS * 1_000 {
            return Err(format!(
                "no lease is kept by its timings: ttlMillis {}, killMillis {}, fenceAfterMillis {d}",
                record.timings.ttl_millis, record.timings.kill_millis
            ));
        }
        Ok(record)
    }
}

impl VmRecord {
    /// Reads the value under the key of this VM.
    pub fn read(value: &str, vm: &VmId) -> Result<Self, String> {
        let record: Self = read(value)?;
        same_vm(&record.name, record.uuid, vm)?;
        let owner = record.owner.iter().map(|owner| owner.epoch);
        let target = record.migration.iter().map(|migration| migration.to.epoch);
        let counted = owner.chain(target).chain([record.revision]).max().unwrap_or(0);
        if counted >= HIGHEST {
            return Err(format!("nobody counts as far as {counted}"));
        }
        Ok(record)
    }
}

impl VmStatus {
    /// Reads the value under the status key of this VM.
    pub fn read(value: &str, vm: &VmId) -> Result<Self, String> {
        let status: Self = read(value)?;
        same_vm(&status.name, status.uuid, vm)?;
        Ok(status)
    }
}

impl NodeStatus {
    /// Reads the value under the status key of this node.
    pub fn read(value: &str, node: &NodeName) -> Result<Self, String> {
        let status: Self = read(value)?;
        if status.node != *node {
            return Err(format!("it is the status of {}", status.node));
        }
        if status.observed_generation >= HIGHEST {
            return Err(format!("nobody counts as far as generation {}", status.observed_generation));
        }
        Ok(status)
    }

    /// The conditions by which the node says that it does not know the orders. They count once they are given again.
    pub fn orders_in_doubt(&self) -> impl Iterator<Item = &Condition> {
        let is_of_one = |reason: &str| ["IntentUnknown", "IntentUnreadable"].contains(&reason);
        self.conditions.iter().filter(move |condition| is_of_one(&condition.reason))
    }
}

fn same_vm(found: &VmName, uuid: Uuid, vm: &VmId) -> Result<(), String> {
    if *found != vm.name {
        return Err(format!("it is of the VM '{found}'"));
    }
    if uuid != vm.uuid {
        return Err(format!("it is of the VM of another cluster (uuid {uuid})"));
    }
    Ok(())
}

/// The node whose key this is, below this prefix.
pub fn node_of(key: &str, prefix: &str) -> Result<NodeName, String> {
    let name = key.strip_prefix(prefix).unwrap_or(key);
    NodeName::new(name).map_err(|error| brief(&format!("no node has this name: {error}")))
}
