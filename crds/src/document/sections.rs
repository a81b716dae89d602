//! The sections config.json does not have. Each may be left out, and so may each of its fields: what is left out has
//! the default said here, and is not added to what the person wrote.
//!
//! Never here: acting on any of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::number::Seconds;
use super::present;
use super::strict::{from_mapping_only, from_word_only};
use super::text::{AbsolutePath, BridgeName, FsType, MountOptions, MountSource};
use crate::NodeName;
use crate::records::LeaseTimings;

/// A file system every node has mounted, mounted by zsha where it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "PascalCase", deny_unknown_fields)]
pub struct Mount {
    /// The source to mount, such as `10.0.0.9:/share/mngt`.
    pub source: MountSource,
    /// The absolute path it is mounted at, such as `/opt/smp/mngt/`.
    pub target: AbsolutePath,
    /// The file system, as mount(8) names it. NFSv4 is recommended: its lock state ends with a dead client.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FsType", extend("default" = Mount::DEFAULT_FS_TYPE))]
    pub fs_type: Option<FsType>,
    /// Mount options as in fstab(5), separated by commas.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MountOptions", extend("default" = ""))]
    pub options: Option<MountOptions>,
}

impl Mount {
    pub(crate) const DEFAULT_FS_TYPE: &str = "nfs4";

    pub fn fs_type(&self) -> &str {
        self.fs_type.as_ref().map_or(Self::DEFAULT_FS_TYPE, FsType::as_str)
    }

    /// The mount options, as in fstab(5); empty for none.
    pub fn options(&self) -> &str {
        self.options.as_ref().map_or("", MountOptions::as_str)
    }
}

/// A bridge to check on every node beyond those the NICs name, or another way to check one of those.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "PascalCase", deny_unknown_fields)]
pub struct BridgeCheck {
    /// The bridge's name, on every node.
    pub name: BridgeName,
    /// True if a node is unfit while the bridge has no carrier.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool", extend("default" = true))]
    pub require_carrier: Option<bool>,
}

impl BridgeCheck {
    pub fn require_carrier(&self) -> bool {
        self.require_carrier.unwrap_or(true)
    }
}

/// The choice whether the VM goes back to a node that is preferred to the one it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "lowercase")]
pub enum Failback {
    /// It is migrated live to the most preferred node that is fit, once that has been so for a while.
    Auto,
    /// It stays where it is: a healthy VM is not moved.
    Off,
}

/// The nodes where the VM is to run, other things being equal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "PascalCase", deny_unknown_fields)]
pub struct Placement {
    /// Nodes in order of preference, the best first. Nodes not named come after them.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<NodeName>", extend("default" = []))]
    pub preferred: Option<Vec<NodeName>>,
    /// The policy for a VM that runs, when a node is fit again that is preferred to its own.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Failback", extend("default" = "off"))]
    pub failback: Option<Failback>,
}

impl Placement {
    pub(super) const DEFAULT: Self = Self { preferred: None, failback: None };

    pub fn preferred(&self) -> &[NodeName] {
        self.preferred.as_deref().unwrap_or_default()
    }

    pub fn failback(&self) -> Failback {
        self.failback.unwrap_or(Failback::Off)
    }
}

/// How fast a failover is, against how much trouble of the network is sat out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self")]
pub enum Profile {
    /// A failover takes about 7.5 s, and 10 s at worst. Needs `raft_multiplier: 1` in Consul's settings.
    Fast,
    /// A failover takes about 11 s, and 13 s at worst.
    Balanced,
    /// A failover takes about 26 s, and 28 s at worst: for slow or shared networks.
    Patient,
}

/// The timings of the node lease: a profile, and single values where it does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "PascalCase", deny_unknown_fields)]
pub struct Availability {
    /// The profile that gives the timings below unless they are set.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Profile", extend("default" = "Balanced"))]
    pub profile: Option<Profile>,
    /// How often a node renews its lease.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub renew_seconds: Option<Seconds>,
    /// How long a renewal holds. It must outlast an election of Consul's leader.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub ttl_seconds: Option<Seconds>,
    /// How soon after that every copy on the node is dead.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub kill_seconds: Option<Seconds>,
    /// How long other nodes must have seen the same renewal before they fence. It must be at least `TtlSeconds` +
    /// `KillSeconds` + a margin of about 2 % of the two and 0.1 s.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Seconds")]
    pub fence_after_seconds: Option<Seconds>,
}

impl Availability {
    pub(super) const DEFAULT: Self = Self {
        profile: None,
        renew_seconds: None,
        ttl_seconds: None,
        kill_seconds: None,
        fence_after_seconds: None,
    };

    pub fn profile(&self) -> Profile {
        self.profile.unwrap_or(Profile::Balanced)
    }

    /// The profile's timings with the given values in their places. Safe once the document was validated.
    pub fn timings(&self) -> LeaseTimings {
        let base = match self.profile() {
            Profile::Fast => LeaseTimings::FAST,
            Profile::Balanced => LeaseTimings::BALANCED,
            Profile::Patient => LeaseTimings::PATIENT,
        };
        let or = |given: Option<Seconds>, millis: u64| given.map_or(millis, Seconds::as_millis);
        LeaseTimings {
            renew_millis: or(self.renew_seconds, base.renew_millis),
            ttl_millis: or(self.ttl_seconds, base.ttl_millis),
            kill_millis: or(self.kill_seconds, base.kill_millis),
            fence_after_millis: or(self.fence_after_seconds, base.fence_after_millis),
        }
    }
}

/// The choice whether a node's hardware watchdog stands behind the keeper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "lowercase")]
pub enum Watchdog {
    /// A node without a working watchdog is not given the VM.
    Required,
    /// zsha uses a watchdog where there is one.
    Automatic,
    /// zsha never opens one.
    Off,
}

/// The means that keep the promise that no copy outlives its lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self", rename_all = "PascalCase", deny_unknown_fields)]
pub struct Fencing {
    /// The use of a node's hardware watchdog, which resets a host whose keeper hangs.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Watchdog", extend("default" = "automatic"))]
    pub watchdog: Option<Watchdog>,
}

impl Fencing {
    pub(super) const DEFAULT: Self = Self { watchdog: None };

    pub fn watchdog(&self) -> Watchdog {
        self.watchdog.unwrap_or(Watchdog::Automatic)
    }
}

/// The choice of what becomes of a guest that powered itself off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self")]
pub enum GuestPowerOff {
    /// It is started again: `halt -p` in the guest boots it with the document in force.
    Restart,
    /// It stays off until `zsha start`.
    StayOff,
}

from_mapping_only!(Mount, BridgeCheck, Placement, Availability, Fencing);
from_word_only!(Failback, Profile, Watchdog, GuestPowerOff);
