//! Things that happened, for people to read.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NodeName;
use crate::tone::Tone;
use crate::words::words;

words! {
    #[derive(Serialize, Deserialize, JsonSchema)]
    EventType {
        Normal,
        Warning,
    }
}

impl EventType {
    pub fn tone(self) -> Tone {
        match self {
            Self::Normal => Tone::Neutral,
            Self::Warning => Tone::Doubtful,
        }
    }
}

/// `events/<node>/<id>`: something that happened, and why; the same thing again counts up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventRecord {
    #[serde(rename = "type")]
    pub kind: EventType,
    /// One CamelCase word: `Fenced`, `Started`, `QemuDied`, ...
    pub reason: String,
    pub message: String,
    /// The thing it is about: `vm/mnvm`, `node/nfs-1`, `cluster/prod`.
    pub regarding: String,
    /// The node that saw it.
    pub node: NodeName,
    pub count: u32,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}
