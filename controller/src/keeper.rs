//! The keeper: the small process that renews the node's lease and, when it could not, kills in time.
//!
//! This file is the controller's side: the keeper's verdict, and the few things that the controller can say to it. The
//! process itself is below: `renew` drives the lease machine, `enforce` is the thread that kills and never waits for
//! anything, `copies` finds the QEMU processes, `socket` is the line between keeper and controller.

pub mod copies;
pub mod enforce;
pub mod guard;
pub mod killing;
mod names;
pub mod pauses;
mod premises;
pub mod process;
pub mod renew;
pub mod second_net;
pub mod socket;
mod state_file;
mod unexpected;
pub mod watchdog;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;
use zsha_crds::NodeName;
use zsha_crds::records::LeaseTimings;
use zsha_runtime::Moment;
use zsha_runtime::lease::{Expectation, Late, StepBack};

pub use process::KeeperSettings;
pub use renew::LocalLease;
pub use socket::SocketLease;
pub use state_file::StateFile;
pub use watchdog::WatchdogState;

/// The keeper's word on the lease of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The node of the lease: a controller must not live by the lease of another node's keeper.
    pub node: NodeName,
    /// The moment until which the node may run anything, on this node's `CLOCK_BOOTTIME`. None: it may not.
    pub valid_until: Option<Moment>,
    pub incarnation: Uuid,
    pub epoch: u64,
    pub seq: u64,
    pub timings: LeaseTimings,
    /// A sentence on why the lease is as it is.
    pub message: String,
    /// The moment since when the lease has been renewed without a break, on this node's `CLOCK_BOOTTIME`; see
    /// [`zsha_runtime::lease::Holder::unbroken_since`]. None: the lease is not valid, or has not been renewed since the
    /// store went back in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbroken_since: Option<Moment>,
    /// `seq` of the last renewal that the store confirmed. A store that shows less has gone back in time.
    #[serde(default)]
    pub confirmed: u64,
    /// The moment when the keeper was last shown an earlier time of the store, on this node's `CLOCK_BOOTTIME`. None:
    /// it never was, or it is of an earlier build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_went_back: Option<Moment>,
    /// The last step back of the store, for judging what was written before it. None: there was none in this boot, or
    /// the keeper is of an earlier build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_back: Option<StepBack>,
    /// The number of QEMU processes of the VM that the keeper last saw on this node. None: it could not look.
    pub copies: Option<u32>,
    /// The moment when they were counted, on this node's `CLOCK_BOOTTIME`: the beginning of the look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_at: Option<Moment>,
    /// The copies that the keeper has killed. None: it killed none, or it is of an earlier build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// The copy that the keeper expects here, as it was told in this life of the lease. None: it is of an earlier
    /// build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expects: Option<Expectation>,
    /// True if a copy that the keeper last saw was made to take in a guest from elsewhere.
    #[serde(default)]
    pub incoming: bool,
    /// The copies that the keeper has killed under a valid lease, because it was not told to expect any. None: it
    /// killed none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexpected: Option<Ended>,
    /// The renewals that came late. None: there was none, or the keeper is of an earlier build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
    /// The lives of the lease that ended though the keeper was renewing them, since its process was started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// The state of the watchdog that stands behind the keeper, if one does.
    #[serde(default)]
    pub watchdog: WatchdogState,
}

/// A life of the lease that was lost: its epoch, and when it ended, on this node's `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    pub epoch: u64,
    pub at: Moment,
}

/// Copies of the VM that a keeper has killed, since its process was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The number of copies. A copy that would not die at once counts once.
    pub count: u64,
    /// The moment when the last of them was first sent SIGKILL, on this node's `CLOCK_BOOTTIME`.
    pub at: Moment,
}

impl Verdict {
    pub fn valid(&self, now: Moment) -> bool {
        self.valid_until.is_some_and(|until| now < until)
    }

    /// True if what was written then still counts, since the lease has been renewed without a break from then on.
    pub fn covers(&self, written: Moment) -> bool {
        self.unbroken_since.is_some_and(|since| written >= since)
    }
}

#[cfg(test)]
impl Verdict {
    /// The word of a keeper of this node whose lease is not valid, and that says nothing more than it has to.
    pub(crate) fn invalid(node: &str) -> Self {
        Self {
            node: NodeName::new(node).unwrap(),
            valid_until: None,
            incarnation: Uuid::nil(),
            epoch: 1,
            seq: 1,
            timings: LeaseTimings::BALANCED,
            message: String::new(),
            unbroken_since: None,
            confirmed: 0,
            store_went_back: None,
            step_back: None,
            copies: None,
            counted_at: None,
            ended: None,
            expects: None,
            incoming: false,
            unexpected: None,
            late: None,
            lost: Vec::new(),
            watchdog: WatchdogState::None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// No keeper listens, or the line broke.
    #[error("{operation}: the keeper cannot be reached: {reason}")]
    Unreachable { operation: &'static str, reason: String },
    /// This process lacks what a question takes, so it did not ask the keeper. This says nothing about the keeper.
    #[error("{operation}: the keeper could not be asked: {reason}")]
    NotAsked { operation: &'static str, reason: String },
    #[error("{operation}: the keeper refused: {reason}")]
    Refused { operation: &'static str, reason: String },
}

/// The line from the controller to its keeper.
#[async_trait]
pub trait Lease: Send + Sync + fmt::Debug + 'static {
    /// Asks for the verdict that is in force now. The question also tells the keeper that its controller lives.
    async fn verdict(&self) -> Result<Verdict, KeeperError>;

    /// Sets the timings of the document in force. They are refused where they are unsafe.
    async fn set_timings(&self, timings: LeaseTimings) -> Result<(), KeeperError>;

    /// Says whether the document wants a watchdog; a watchdog that is turned off is disarmed. Only for a keeper whose
    /// verdict tells of one.
    async fn set_watchdog(&self, wanted: bool) -> Result<(), KeeperError>;

    /// Says which copy is to be found here, in the present life of the lease. The controller says it before it starts a
    /// copy or lets one in: any other is ended. It is refused where it could not be kept for the keeper's own restart.
    /// Only for a keeper whose verdict says what it expects.
    async fn expect(&self, what: Expectation) -> Result<(), KeeperError>;

    /// Gives the lease up for good (shutdown, uninstall). This is refused while a copy lives.
    async fn release(&self) -> Result<(), KeeperError>;

    /// A counter that moves when validity, epoch or the line itself changed; not with every renewal.
    fn changes(&self) -> watch::Receiver<u64>;
}
