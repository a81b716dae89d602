//! The lease of a node: the right to run anything at all, and how it is kept.
//!
//! Never here: who judges a lease, and by which clock (see `zsha_runtime::lease`).

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::by_vm::{self, ByVm, VmCount};
use super::ownership::Owner;
use crate::{ClusterName, NodeName, VmName};

/// The shortest time between two looks at the leases, which change all the time. It keeps a node's requests below a
/// handful a second, and is part of the failover bound.
pub const LEASE_LOOK_MILLIS: u64 = 500;

/// The longest span a document may ask for. No operator wants to wait longer for a failover. A lease whose record is
/// gone is only fenced after this time, since its holder may have been told any time up to it.
pub const LONGEST_SECONDS: u64 = 300;

/// How a lease is kept, in the words of the safety argument: R, F, K and D. They travel inside the lease record, so
/// that a fencing node always waits the D that belongs to the F its holder lives by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseTimings {
    /// R: how often the lease is renewed.
    pub renew_millis: u64,
    /// F: how long one successful renewal holds, from the moment its request was sent.
    pub ttl_millis: u64,
    /// K: within this time after F every copy is dead.
    pub kill_millis: u64,
    /// D: how long the same renewal must have been seen by another node before it may fence.
    pub fence_after_millis: u64,
}

impl LeaseTimings {
    pub const FAST: Self =
        Self { renew_millis: 500, ttl_millis: 6_000, kill_millis: 500, fence_after_millis: 7_000 };
    pub const BALANCED: Self =
        Self { renew_millis: 1_000, ttl_millis: 8_000, kill_millis: 1_000, fence_after_millis: 10_000 };
    pub const PATIENT: Self =
        Self { renew_millis: 2_000, ttl_millis: 20_000, kill_millis: 2_000, fence_after_millis: 25_000 };
    /// The timings of a lease of which nothing is known: its D is the longest a document may ask for.
    pub const LONGEST: Self = Self {
        renew_millis: 1_000,
        ttl_millis: 280_000,
        kill_millis: 1_000,
        fence_after_millis: LONGEST_SECONDS * 1_000,
    };

    /// F + K. Anybody may have written the record, so the sum may not overflow into something small.
    fn dead_after(&self) -> u64 {
        self.ttl_millis.saturating_add(self.kill_millis)
    }

    /// The margin covers two clocks of which one runs 1 % fast and the other 1 % slow, over F and K, and one tick of
    /// the enforcing thread.
    pub fn margin_millis(&self) -> u64 {
        self.dead_after().div_ceil(49).saturating_add(100)
    }

    /// The least D that is safe: F + K + margin.
    pub fn least_fence_after_millis(&self) -> u64 {
        self.dead_after().saturating_add(self.margin_millis())
    }

    /// The rule everything rests on: D >= F + K + margin.
    pub fn is_safe(&self) -> bool {
        self.renew_millis > 0
            && self.renew_millis < self.ttl_millis
            && self.fence_after_millis >= self.least_fence_after_millis()
            && self.fence_after_millis < u64::MAX
    }

    pub const fn renew(&self) -> Duration {
        Duration::from_millis(self.renew_millis)
    }

    pub const fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_millis)
    }

    pub const fn kill(&self) -> Duration {
        Duration::from_millis(self.kill_millis)
    }

    pub const fn fence_after(&self) -> Duration {
        Duration::from_millis(self.fence_after_millis)
    }

    /// One request to Consul may take this long before the next endpoint is tried.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis((self.renew_millis * 2).clamp(500, 1_000))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LeaseState {
    /// `node` holds the lease. Only the holder knows whether it is still *valid*; others wait D.
    Held,
    /// The holder gave the lease up, after every copy it had was seen dead.
    Released,
    /// Another node took the lease away. The holder of this epoch can never renew again.
    Fenced,
    /// Another node wrote this in the place of a record that was gone (deleted by hand, say). The holder may still be
    /// valid by a renewal that cannot be read any more, and simply renews over it. If it does not, it may be fenced
    /// after the longest D that any document may ask for.
    Lost,
}

/// `leases/<node>`: the right of a node to run anything at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseRecord {
    /// None if another node put the record in the place of a lease, or a build wrote it that had no such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    pub node: NodeName,
    /// The name of one life of the holder. It is new after a fence, a release or a reboot.
    pub incarnation: Uuid,
    /// The number of this life. It goes up with every life and every fence, by one at least, and is no less than the
    /// seconds since 1970 as the life began. Ownership names an epoch, and a later one proves the earlier one's copies
    /// dead.
    pub epoch: u64,
    /// The count of renewals, so that every renewal is a different value (an identical write changes no index).
    pub seq: u64,
    pub state: LeaseState,
    /// `/etc/machine-id` of the holder: another machine under the same node name is not a reboot.
    pub machine_id: String,
    pub boot_id: String,
    pub timings: LeaseTimings,
    /// True if the node's controller has spoken to its keeper lately. A node that renews without a controller keeps
    /// what it runs and is given nothing new.
    pub controller_alive: bool,
    /// The word of the keeper on each VM.
    #[serde(flatten, with = "by_vm")]
    #[schemars(with = "by_vm::Stored<VmCount>")]
    pub vms: ByVm<VmCount>,
    /// The holder's `CLOCK_BOOTTIME` when this was sent, in milliseconds. Between two records of one life it says how
    /// much later the second was sent, however late it was seen. None from a host that may be paused from outside,
    /// since its clock may not count the pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_millis: Option<u64>,
    /// The wall clock of the holder, for display only.
    pub renewed_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced_by: Option<NodeName>,
}

impl LeaseRecord {
    /// The number of processes of this VM that the keeper saw; None: it could not look, or says nothing of this VM.
    pub fn copies(&self, vm: &VmName) -> Option<u32> {
        self.vms.of(vm).copies
    }

    /// The record to write where the lease of a node that is named as owner is gone.
    pub fn lost(owner: &Owner, wall: Timestamp) -> Self {
        Self {
            cluster: None,
            node: owner.node.clone(),
            incarnation: Uuid::nil(),
            epoch: owner.epoch,
            seq: 0,
            state: LeaseState::Lost,
            machine_id: String::new(),
            boot_id: String::new(),
            timings: LeaseTimings::LONGEST,
            controller_alive: false,
            vms: ByVm::default(),
            sent_millis: None,
            renewed_at: wall,
            fenced_by: None,
        }
    }
}
