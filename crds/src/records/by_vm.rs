//! The parts of a node's records that are about its VMs, each under the name of its VM.
//!
//! Builds from before VMs were named knew one VM and named it nowhere. Their fields are written beside `vms`, since
//! nodes are upgraded one after the other, and are read where there is no `vms`; they are the management-node VM's.
//!
//! Never here: which VM a reader is interested in. It names it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{LocalState, VmName};

/// One value for each VM that the writer knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ByVm<T>(BTreeMap<VmName, T>);

impl<T: Copy + Default> ByVm<T> {
    /// The value of one VM, where the writer knows no other.
    pub fn only(vm: VmName, value: T) -> Self {
        Self(BTreeMap::from([(vm, value)]))
    }

    /// The record of this VM. Where there is none, it is the default, by which nothing is known.
    pub fn of(&self, vm: &VmName) -> T {
        self.0.get(vm).copied().unwrap_or_default()
    }

    /// The value of this VM, to be changed.
    pub fn of_mut(&mut self, vm: &VmName) -> &mut T {
        self.0.entry(vm.clone()).or_default()
    }
}

/// The word of a keeper on one VM, in the lease of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmCount {
    /// The number of the VM's processes that the keeper saw on its node; None: it could not look. A claim that nothing
    /// else protects (a record that was deleted, or restored from a snapshot) is refused while this is not 0.
    #[serde(default)]
    pub copies: Option<u32>,
    /// The epoch of the life in which the VM left this node by a migration that was not zsha's. The keeper writes it
    /// where it has set free what the node owned, since its controller is silent. The VM may run anywhere: no node
    /// starts it for this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_away_in: Option<u64>,
}

/// The word of a controller on one VM, in the status of its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmHere {
    /// The state of the VM in the local hypervisor.
    pub local_vm: LocalState,
    /// True if the VM is here while the ownership record names another node. If that node has no copy, it hands the VM
    /// over to this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub runs_unnamed: bool,
    /// How far the live migration from this node is, where one is under way and it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrated_percent: Option<u8>,
}

impl Default for VmHere {
    fn default() -> Self {
        Self { local_vm: LocalState::Unknown, runs_unnamed: false, migrated_percent: None }
    }
}

/// The fields as they are stored: those of each VM by name, and beside them those of before.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stored<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vms: Option<BTreeMap<VmName, T>>,
    /// None: a build that names its VMs has left them out, as all will do one day.
    #[serde(flatten)]
    unnamed: Option<T>,
}

/// Writes the field of a record that holds one value for each VM.
pub(super) fn serialize<T: Serialize + Copy + Default, S: Serializer>(
    of_vms: &ByVm<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let unnamed = Some(of_vms.of(&VmName::management()));
    Stored { vms: Some(of_vms.0.clone()), unnamed }.serialize(serializer)
}

/// Reads the field of a record that holds one value for each VM.
pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<ByVm<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let Stored { vms, unnamed } = Stored::deserialize(deserializer)?;
    let before = || unnamed.map(|value| BTreeMap::from([(VmName::management(), value)]));
    let named = vms.or_else(before).ok_or_else(|| {
        serde::de::Error::custom(
            "it says nothing of any VM: neither `vms` nor the fields of before are there",
        )
    })?;
    Ok(ByVm(named))
}
