//! The faults: which there are, and what is expected of each. Never here: how one is done.

use crate::by_hand::Act;
use crate::judge::Expected;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    OwnerLosesPower,
    BystanderLosesPower,
    OwnerCutOff,
    BystanderCutOff,
    Blip,
    QemuKilled,
    QemuHangs,
    ConsulLeaderKilled,
    ConsulLeaderHangs,
    OwnersConsulStopped,
    SlowStore,
    ControllerKilled,
    ControllerHangs,
    KeeperKilled,
    KeeperHangs,
    LibvirtKilled,
    LibvirtHangs,
    Migration,
    MigrationAndPowerLoss,
    /// An operator drains the owner, and takes that back once the VM has left.
    Drain,
    /// The VM dies while the cluster is frozen: it comes back when that is over, and not before.
    FrozenAndQemuKilled,
    Apply,
    /// An administrator does something past zsha, or a neighbour who means harm.
    ByHand(Act),
}

impl Fault {
    const OF_MACHINES: [Self; 22] = [
        Self::OwnerLosesPower,
        Self::BystanderLosesPower,
        Self::OwnerCutOff,
        Self::BystanderCutOff,
        Self::Blip,
        Self::QemuKilled,
        Self::QemuHangs,
        Self::ConsulLeaderKilled,
        Self::ConsulLeaderHangs,
        Self::OwnersConsulStopped,
        Self::SlowStore,
        Self::ControllerKilled,
        Self::ControllerHangs,
        Self::KeeperKilled,
        Self::KeeperHangs,
        Self::LibvirtKilled,
        Self::LibvirtHangs,
        Self::Migration,
        Self::MigrationAndPowerLoss,
        Self::Drain,
        Self::FrozenAndQemuKilled,
        Self::Apply,
    ];

    /// The faults: all of them, or those whose name has one of these words, with a comma between.
    pub(crate) fn named(words: &str) -> Vec<Self> {
        let all = Self::OF_MACHINES.into_iter().chain(Act::ALL.map(Self::ByHand));
        let is_named = |fault: &Self| words.split(',').any(|word| format!("{fault:?}").contains(word));
        all.filter(is_named).collect()
    }

    /// The number of the VM's processes that it may end. A migration that comes to nothing ends none.
    pub(crate) fn ends(self) -> usize {
        match (self, self.expected()) {
            (Self::ByHand(act), _) => act.ends(),
            // The source, and what had arrived when its source died.
            (Self::MigrationAndPowerLoss, _) => 2,
            (_, Expected::Recovers | Expected::Runs) => 1,
            (_, Expected::Untouched) => 0,
        }
    }

    pub(crate) fn expected(self) -> Expected {
        match self {
            Self::OwnerLosesPower | Self::OwnerCutOff | Self::QemuKilled | Self::KeeperHangs => {
                Expected::Recovers
            }
            Self::Migration | Self::MigrationAndPowerLoss | Self::Drain | Self::FrozenAndQemuKilled => {
                Expected::Runs
            }
            Self::BystanderLosesPower
            | Self::BystanderCutOff
            | Self::Blip
            | Self::QemuHangs
            | Self::ConsulLeaderKilled
            | Self::ConsulLeaderHangs
            | Self::OwnersConsulStopped
            | Self::SlowStore
            | Self::ControllerKilled
            | Self::ControllerHangs
            | Self::KeeperKilled
            | Self::LibvirtKilled
            | Self::LibvirtHangs
            | Self::Apply => Expected::Untouched,
            Self::ByHand(act) => act.expected(),
        }
    }
}
