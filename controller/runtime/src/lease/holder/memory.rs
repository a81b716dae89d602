//! Holds what a holder remembers over a restart of its keeper: what is kept, and how a holder begins with it. Never
//! here: the file it is kept in, which is the keeper's.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zsha_crds::records::LeaseTimings;

use super::lost::Lost;
use super::{Holder, Identity, Life, Own};
use crate::Moment;
use crate::lease::Expected;
use crate::planted::is_planted;

/// The state that survives a restart of the keeper (and nothing longer: it lives in `/run`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// The key of the lease. A file from before this was kept has none, and is taken to be this node's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub boot_id: String,
    pub incarnation: Uuid,
    pub epoch: u64,
    pub seq: u64,
    pub deadline: Option<Moment>,
    pub timings: LeaseTimings,
    /// The earliest moment when others may fence. A file from before this was kept does not say it. Then it is taken to
    /// be the deadline, since it is never earlier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Moment>,
    /// The same as [`Holder::unbroken_since`]. A file from before this was kept does not say it; then it begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unbroken: Option<Moment>,
    /// See [`Holder::step_back`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_back: Option<StepBack>,
    /// The copy that is to be found here. That is the keeper's affair, and only kept here. A file from before this was
    /// kept does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// The last life in which this node's own copy was to be here, whatever was said since; kept like `expected`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned: Option<Uuid>,
}

/// The store was seen to show an earlier time of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepBack {
    /// The store went back after this moment: by then the last renewal had been sent that was confirmed before.
    pub after: Moment,
    /// Index of the first renewal that was written since. A value with a lower index may be from before. None: none was
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
}

impl Holder {
    /// `memory` counts only within the boot it was written in. Without it the holder is strict: not valid.
    pub fn new(identity: Identity, timings: LeaseTimings, memory: Option<Memory>) -> Self {
        let memory = memory.filter(|m| {
            (m.boot_id == identity.boot_id || is_planted("MemoryOutlivesTheBoot"))
                && m.key.as_ref().is_none_or(|key| *key == identity.key)
                && m.timings.is_safe()
        });
        let timings = memory.as_ref().map_or(timings, |m| m.timings);
        let granted = memory.as_ref().and_then(|m| m.deadline.map(|d| (m.timings, d - m.timings.ttl())));
        Self {
            identity,
            timings,
            own: Own::Unread,
            life: memory.as_ref().map(|m| Life { incarnation: m.incarnation, epoch: m.epoch, seq: m.seq }),
            granted,
            fence: memory.as_ref().and_then(|m| m.fence.or(m.deadline)),
            unbroken: memory.as_ref().and_then(|m| m.unbroken),
            went_back: None,
            step_back: memory.as_ref().and_then(|m| m.step_back),
            confirmed: 0,
            late: None,
            lost: Lost::default(),
            moved_away_in: None,
            paused: (Moment::default(), Duration::ZERO),
            deadline: memory.and_then(|m| m.deadline),
            not_before: Moment::default(),
            silent: None,
            release: false,
            message: "the lease has not been read yet".to_owned(),
        }
    }

    /// The state to keep for the keeper's own restart. None before there is a life to remember.
    pub fn memory(&self) -> Option<Memory> {
        self.life.map(|life| Memory {
            key: Some(self.identity.key.clone()),
            boot_id: self.identity.boot_id.clone(),
            incarnation: life.incarnation,
            epoch: life.epoch,
            seq: life.seq,
            deadline: self.deadline,
            timings: self.granted(),
            fence: self.fence,
            unbroken: self.unbroken,
            step_back: self.step_back,
            expected: None,
            owned: None,
        })
    }
}
