//! Faults: which there are. They are drawn once from the seed (`schedule`, and a file for each kind of trouble), so that a
//! run can be read before it is made. Never here: what a fault does.

use std::time::Duration;

use zsha_crds::NodeName;

use super::freeze::Part;
use super::gate::CallFault;
use super::hands::Hand;
use super::net::Way;
use super::operator::Profile;
use crate::hypervisor::simulated;

mod calls;
mod hands;
mod lines;
mod machines;
mod moves;
mod schedule;

pub use schedule::{Schedule, profile};
use schedule::{hypervisor, millis};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    PowerLoss(NodeName),
    PowerOn(NodeName),
    /// The node's network is gone; the node runs on.
    Cut(NodeName),
    Mend(NodeName),
    /// The same happens to the node that is the owner at that moment; or only answers to it come late.
    CutOwner,
    SlowOwner,
    /// Part of the line of this node is cut, or of the node that is the owner. `flapping`: it is one of several cuts in
    /// quick succession.
    Sever {
        node: Option<NodeName>,
        way: Way,
        flapping: bool,
    },
    /// Every node that was hit as the owner is mended.
    MendOwners,
    /// Consul has no leader until it has elected another. Nobody is answered consistently, and of the writes that are
    /// under way some are lost, some done later.
    LeaderLost,
    LeaderElected,
    /// The store has no quorum, and nobody is answered.
    StoreDown,
    StoreUp,
    /// The server that this node reads from stands still; if it does already, it takes one step.
    Lag(NodeName),
    CatchUp(NodeName),
    StopController(NodeName),
    StartController(NodeName),
    StopKeeper(NodeName),
    StartKeeper(NodeName),
    /// The node's processes stop at their next call of the store; the keeper's timer goes on.
    Pause(NodeName),
    Continue(NodeName),
    /// The node's controller, or also the loop that renews, stops where it is, between any two of its steps.
    Freeze(NodeName, Part),
    Thaw(NodeName, Part),
    /// The whole host stops, with its guest and the thread that enforces; only its clock goes on.
    Suspend(NodeName),
    Wake(NodeName),
    /// The host on which the VM executes is suspended; all that sleep are woken.
    SuspendHost,
    WakeHosts,
    /// The QEMU of this node is in uninterruptible sleep (of the owner, where no node is named); and no longer.
    Stuck(Option<NodeName>),
    Unstuck,
    /// Somebody sets the node's wall clock, by so many seconds.
    WallClockStep(NodeName, i64),
    /// The node's watchdog, which nobody has petted, resets the host.
    WatchdogReset(NodeName),
    /// The node that executes loses its power, and an NFS server holds its lock for this long.
    LockOutlivesHost(Duration),
    QemuDies,
    GuestPowersOff,
    /// An operator's `stop`, with the time the guest has for it, and `start`.
    Stop(Option<Duration>),
    Start,
    /// An operator's `freeze` and `resume`.
    Frozen(bool),
    /// An operator's `drain` and `uncordon`.
    Drain(NodeName, bool),
    /// An operator's `apply`.
    Apply {
        profile: Option<Profile>,
        memory_gib: u32,
    },
    /// An operator's `migrate`, and how migrations from everywhere end from now on.
    Migrate(NodeName),
    Migrations(Option<simulated::MigrationFault>),
    /// A document that prefers this node, and whether the VM fails back to it.
    Prefer(NodeName, bool),
    /// The key of the node's lease is deleted by hand.
    DeleteLease(NodeName),
    Hypervisor(NodeName, Option<simulated::Fault>),
    /// Every start on the node is refused, or no longer.
    StartsFail(NodeName, bool),
    /// An NFS server goes on holding the lock of a client that is gone, for this long.
    ImageLocked(Duration),
    BridgeMissing(NodeName),
    HostRepaired(NodeName),
    /// Somebody does this past zsha.
    ByHand(Hand),
    /// A snapshot of the store is taken; the last one is restored.
    Snapshot,
    Restore,
    /// Replies are lost, and requests arrive late or slowly.
    Lossy(bool),
    /// Calls go wrong in the ways of [`CallFault`], so many in a thousand of this node's calls or of all; with 0 none
    /// does.
    CallsFail {
        node: Option<NodeName>,
        per_mille: u32,
    },
    /// One call goes wrong, after so many others.
    CallFails {
        after: u64,
        fault: CallFault,
    },
    /// Every call is as it should be again, and what calls took down is up again.
    CallsMended,
    /// The owner (this node, if there is no owner) is lost for good: its power, or only its network.
    Lost {
        power: bool,
        otherwise: NodeName,
    },
}

impl Fault {
    /// The name under which faults of this kind are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PowerLoss(_) => "power loss",
            Self::Cut(_) | Self::CutOwner => "cut",
            Self::Sever { flapping: true, .. } => "flapping line",
            Self::Sever { way: Way::Both, .. } => "cut",
            Self::Sever { way: Way::Answers, .. } => "answers cut off",
            Self::Sever { way: Way::Requests, .. } => "requests cut off",
            Self::LeaderLost => "leader lost",
            Self::SlowOwner => "slow answers",
            Self::StoreDown => "store down",
            Self::Lag(_) => "stale reads",
            Self::StopController(_) => "controller killed",
            Self::StopKeeper(_) => "keeper killed",
            Self::Pause(_) => "paused",
            Self::Freeze(_, Part::Controller) => "controller stalled",
            Self::Freeze(..) => "processes stalled",
            Self::Suspend(_) | Self::SuspendHost => "host suspended",
            Self::Stuck(_) => "qemu stuck",
            Self::WallClockStep(..) => "wall clock step",
            Self::WatchdogReset(_) => "watchdog reset",
            Self::LockOutlivesHost(_) => "lock outlives its host",
            Self::QemuDies => "qemu killed",
            Self::GuestPowersOff => "guest powered off",
            Self::Stop(_) => "stop asked",
            Self::Frozen(true) => "frozen",
            Self::Drain(_, true) => "node drained",
            Self::Apply { .. } => "document applied",
            Self::Migrate(_) => "migration asked",
            Self::Restore => "snapshot restored",
            Self::Migrations(Some(_)) => "migrations break",
            Self::Prefer(..) => "another node preferred",
            Self::DeleteLease(_) => "lease deleted",
            Self::Hypervisor(_, Some(_)) => "hypervisor fault",
            Self::StartsFail(_, true) => "starts fail",
            Self::ImageLocked(_) => "image locked",
            Self::BridgeMissing(_) => "bridge missing",
            Self::Lossy(true) => "lossy network",
            Self::Lost { .. } => "owner lost for good",
            Self::ByHand(hand) => hand.kind(),
            Self::CallsFail { per_mille: 1.., .. } | Self::CallFails { .. } => "calls fail",
            Self::CallsFail { per_mille: 0, .. }
            | Self::CallsMended
            | Self::LeaderElected
            | Self::PowerOn(_)
            | Self::Mend(_)
            | Self::MendOwners
            | Self::StoreUp
            | Self::CatchUp(_)
            | Self::StartController(_)
            | Self::StartKeeper(_)
            | Self::Continue(_)
            | Self::Thaw(..)
            | Self::Wake(_)
            | Self::WakeHosts
            | Self::Unstuck
            | Self::Start
            | Self::Frozen(false)
            | Self::Drain(_, false)
            | Self::Hypervisor(_, None)
            | Self::StartsFail(_, false)
            | Self::HostRepaired(_)
            | Self::Migrations(None)
            | Self::Snapshot
            | Self::Lossy(false) => "mended",
        }
    }
}
