//! The keeper: the small process that renews the node's lease and, when it could not, kills in time.
//!
//! This file is what the controller sees of it: a verdict, and a few words to say to it. The process itself is
//! below: `renew` drives the lease machine, `enforce` is the thread that kills and never waits for anything,
//! `copies` finds the QEMU processes, `socket` is the line between keeper and controller.

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

/// What the keeper says of the node's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whose lease it is: a controller must not live by the lease of another node's keeper.
    pub node: NodeName,
    /// Until when the node may run anything, on this node's `CLOCK_BOOTTIME`. None: it may not.
    pub valid_until: Option<Moment>,
    pub incarnation: Uuid,
    pub epoch: u64,
    pub seq: u64,
    pub timings: LeaseTimings,
    /// Why it is as it is: a sentence.
    pub message: String,
    /// Since when the lease has been renewed without a break, on this node's `CLOCK_BOOTTIME`; see
    /// [`zsha_runtime::lease::Holder::unbroken_since`]. None: it is not valid, or has not been renewed since the
    /// store went back in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbroken_since: Option<Moment>,
    /// `seq` of the last renewal that the store confirmed. A store that shows less has gone back in time.
    #[serde(default)]
    pub confirmed: u64,
    /// When the keeper was last shown an earlier time of the store, on this node's `CLOCK_BOOTTIME`. None: it never was,
    /// or is from before this was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_went_back: Option<Moment>,
    /// The same, for what somebody has written before it. None: there was none in this boot, or a keeper from before this
    /// was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_back: Option<StepBack>,
    /// QEMU processes of the VM that the keeper last saw on this node. None: it could not look.
    pub copies: Option<u32>,
    /// When they were counted, on this node's `CLOCK_BOOTTIME`: the moment the look began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_at: Option<Moment>,
    /// What it has killed. None: nothing, or a keeper from before this was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Which copy it expects here, as it was told in this life of the lease. None: a keeper from before it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expects: Option<Expectation>,
    /// Whether a copy that it last saw was made to take in a guest from elsewhere.
    #[serde(default)]
    pub incoming: bool,
    /// What it has killed under a valid lease, because nobody had said that there is to be a copy. None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexpected: Option<Ended>,
    /// Renewals that came late. None: there was none, or a keeper from before this was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
    /// Lives of the lease that ended though the keeper was renewing them, since its process was started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// Whether a watchdog stands behind it.
    #[serde(default)]
    pub watchdog: WatchdogState,
}

/// A life of the lease that was lost: by its epoch, and when it ended, on this node's `CLOCK_BOOTTIME`.
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
    /// How many. One that would not die at once counts once.
    pub count: u64,
    /// When the last of them was first sent SIGKILL, on this node's `CLOCK_BOOTTIME`.
    pub at: Moment,
}

impl Verdict {
    pub fn valid(&self, now: Moment) -> bool {
        self.valid_until.is_some_and(|until| now < until)
    }

    /// Whether what was written then still counts: the lease has been renewed without a break since.
    pub fn covers(&self, written: Moment) -> bool {
        self.unbroken_since.is_some_and(|since| written >= since)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeeperError {
    /// Nobody listens, or the line broke.
    #[error("{operation}: the keeper cannot be reached: {reason}")]
    Unreachable { operation: &'static str, reason: String },
    /// This process lacks what a question takes, so the keeper was not asked: it says nothing about the keeper.
    #[error("{operation}: the keeper could not be asked: {reason}")]
    NotAsked { operation: &'static str, reason: String },
    #[error("{operation}: the keeper refused: {reason}")]
    Refused { operation: &'static str, reason: String },
}

/// The line from the controller to its keeper.
#[async_trait]
pub trait Lease: Send + Sync + fmt::Debug + 'static {
    /// What is in force now. Also tells the keeper that its controller lives.
    async fn verdict(&self) -> Result<Verdict, KeeperError>;

    /// The timings of the document in force. Refused where they are unsafe.
    async fn set_timings(&self, timings: LeaseTimings) -> Result<(), KeeperError>;

    /// Whether the document wants a watchdog: turned off, it is disarmed. Only for a keeper whose verdict tells of one.
    async fn set_watchdog(&self, wanted: bool) -> Result<(), KeeperError>;

    /// Which copy is to be found here, in the present life of the lease. Said before one is started, or let in: any other
    /// is ended. Refused where it could not be kept for the keeper's own restart. Only for a keeper whose verdict says
    /// what it expects.
    async fn expect(&self, what: Expectation) -> Result<(), KeeperError>;

    /// Gives the lease up for good (shutdown, uninstall). Refused while a copy lives.
    async fn release(&self) -> Result<(), KeeperError>;

    /// A counter that moves when validity, epoch or the line itself changed; not with every renewal.
    fn changes(&self) -> watch::Receiver<u64>;
}
