//! The shapes zsha is about: the document a person writes, the records the controllers keep, and the words for
//! their state. Reading, checking and comparing them is here too, as plain functions of values.
//!
//! Never here: I/O, a clock, a thread, tokio.

// The document, in the order it goes through them.
pub mod document;

pub mod decode;

pub mod characters;
pub mod diagnostic;
pub mod path;

pub mod schema;
pub mod validate;

pub mod diff;
pub mod format;
pub mod normalise;
pub mod sample;

// What the controllers keep, and the words for it.
pub mod condition;
pub mod keys;
pub mod names;
mod reason;
pub mod records;
pub mod status;
pub mod tone;
mod vm_state;
mod words;

mod nearest;
#[doc(hidden)]
pub mod testing;

pub use condition::{Condition, ConditionKind, ConditionStatus};
pub use decode::{Decoded, decode, decode_value};
pub use diagnostic::Diagnostics;
pub use document::HaCluster;
pub use keys::Keys;
pub use names::{ClusterName, InvalidName, NodeName, VmId, VmName};
pub use reason::EventReason;
pub use vm_state::{LocalState, VmState};

/// The TCP port of a node's page where its settings name no other. ZStack's agents have 7069 to 7072 and 7770 to 7771.
pub const PAGE_PORT: u16 = 7717;

/// `apiVersion` of every document this build writes.
pub const API_VERSION: &str = "zsha.io/v1";
