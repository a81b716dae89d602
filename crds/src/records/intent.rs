//! The orders that operators give by command, outside the document.
//!
//! Never here: what follows from an order.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{NodeName, VmName};

/// `intent/power`, `intent/freeze`, `intent/drain.<node>`, ...: an order that an operator gave by command. An order for a
/// VM names it; one of a build that did not is for the management-node VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Intent {
    /// The VM is to run, whatever has kept it from that before: failed starts, a guest that powered itself off.
    #[serde(rename_all = "camelCase")]
    Start {
        id: Uuid,
        #[serde(default = "VmName::management")]
        vm: VmName,
        by: String,
        at: Timestamp,
        message: String,
        /// True if the VM is to start from the image of the document, whatever disk it wrote to last.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        from_image: bool,
    },
    /// The VM is to be shut down and stay so.
    #[serde(rename_all = "camelCase")]
    Stop {
        #[serde(default = "VmName::management")]
        vm: VmName,
        by: String,
        at: Timestamp,
        message: String,
        /// How long the guest has to power off before it is ended. None: as long as zsha gives it by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u64>,
    },
    /// No node begins anything: no start, no failover, no migration, no stop. What is under way is finished, and leases
    /// are kept and obeyed as ever.
    Freeze { by: String, at: Timestamp, message: String },
    /// The VM is to leave the node of the key, and not to come there.
    Drain {
        by: String,
        at: Timestamp,
        message: String,
        /// Set by the host itself while it shuts down, beside the operator's own drain where there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        shutdown: Option<HostShutdown>,
    },
    /// The VM is to be moved live to this node, once. The ownership record tells the outcome, by the `id`; after that
    /// the order means nothing any more.
    Migrate {
        id: Uuid,
        #[serde(default = "VmName::management")]
        vm: VmName,
        to: NodeName,
        by: String,
        at: Timestamp,
        message: String,
    },
    /// The guest's root is to have the default password again, once, and only where the document allows it. The
    /// ownership record tells the outcome, by the `id`; after that the order means nothing any more.
    ResetPassword {
        id: Uuid,
        #[serde(default = "VmName::management")]
        vm: VmName,
        by: String,
        at: Timestamp,
        message: String,
    },
    /// A placeholder that keeps the key, and so a quiet watch, in being. It asks for nothing.
    None,
}

/// A host that shuts down, with the VM or without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostShutdown {
    /// The kernel's id of the boot that ends. In another boot this means nothing any more.
    pub boot_id: String,
    /// True if the time in which the VM could leave live is over. Then its guest is shut down, wherever the VM could
    /// go.
    #[serde(default)]
    pub no_time_to_move: bool,
}

impl Intent {
    /// The name, below `intent/`, of the order that says whether the VM is to run at all.
    pub const POWER: &str = "power";
    /// The name of the order that says whether anything may be begun.
    pub const FREEZE: &str = "freeze";
    /// The name of the last order to migrate.
    pub const MIGRATE: &str = "migrate";
    /// The name of the last order to reset the guest's password.
    pub const RESET_PASSWORD: &str = "reset-password";
    /// The beginning of the names of the orders to drain, one for each node.
    const DRAIN: &str = "drain.";

    /// Reads the value under `intent/<name>` in a cluster that keeps this VM. A value that cannot be an order of this
    /// name is unreadable: whatever had been asked for there was written over, and nobody knows it.
    pub fn read(name: &str, value: &str, vm: &VmName) -> Result<Self, String> {
        let intent = Self::under(name, value)?;
        match intent.vm() {
            Some(other) if other != vm => Err(format!("it is an order for the VM '{other}'")),
            Some(_) | None => Ok(intent),
        }
    }

    /// The same for whichever VM it is.
    pub fn under(name: &str, value: &str) -> Result<Self, String> {
        let intent: Self = super::read(value)?;
        if !intent.belongs_under(name) {
            return Err("an order of another kind stands there".to_owned());
        }
        Ok(intent)
    }

    /// The VM that the order is for. None: it is for a node, or for the whole cluster.
    pub fn vm(&self) -> Option<&VmName> {
        match self {
            Self::Start { vm, .. }
            | Self::Stop { vm, .. }
            | Self::Migrate { vm, .. }
            | Self::ResetPassword { vm, .. } => Some(vm),
            Self::Freeze { .. } | Self::Drain { .. } | Self::None => None,
        }
    }

    /// True if an order of this kind stands under this name. [`Intent::None`] may stand under any.
    fn belongs_under(&self, name: &str) -> bool {
        match self {
            Self::Start { .. } | Self::Stop { .. } => name == Self::POWER,
            Self::Freeze { .. } => name == Self::FREEZE,
            Self::Migrate { .. } => name == Self::MIGRATE,
            Self::ResetPassword { .. } => name == Self::RESET_PASSWORD,
            Self::Drain { .. } => Self::drained(name).is_some(),
            Self::None => true,
        }
    }

    /// The author of a drain that a host asks for itself, as it shuts down in this boot. No command has this author,
    /// since a command names `user@host`.
    pub fn host_itself(node: &NodeName, boot_id: &str) -> String {
        format!("{}{boot_id})", Self::host_in_boot(node))
    }

    fn host_in_boot(node: &NodeName) -> String {
        format!("{node} itself (boot ")
    }

    /// True if the host itself is the author, in some boot.
    pub fn is_host_itself(node: &NodeName, by: &str) -> bool {
        by.starts_with(&Self::host_in_boot(node))
    }

    pub fn drain_of(node: &NodeName) -> String {
        format!("{}{node}", Self::DRAIN)
    }

    /// The node that an intent of this name is about, if it is one to drain.
    pub fn drained(name: &str) -> Option<NodeName> {
        NodeName::new(name.strip_prefix(Self::DRAIN)?).ok()
    }
}
