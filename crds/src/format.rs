//! The format of a document: a number that grows when the document gets a field that earlier builds do not know. A
//! document carries the lowest format that has everything it uses, so that nodes of an earlier build go on reading all
//! others.
//!
//! A developer who adds a field to the document raises [`READS`], says in [`needed`] which documents need it, and
//! blesses the list of fields in `tests/format.rs`.

use std::fmt;

use crate::records::NodeStatus;
use crate::{HaCluster, NodeName};

/// The format of every document from before there was a number.
pub const FIRST: u32 = 1;

/// The highest format this build reads.
pub const READS: u32 = 4;

/// The lowest format that has everything this document uses.
pub fn needed(document: &HaCluster) -> u32 {
    let spec = &document.spec;
    match () {
        () if spec.image_format.is_some() => 4,
        () if spec.servers.is_some() => 3,
        () if spec.guest_shutdown_seconds.is_some() => 2,
        () => FIRST,
    }
}

/// The format of a record that does not say.
pub(crate) fn first() -> u32 {
    FIRST
}

pub(crate) fn is_first(format: &u32) -> bool {
    *format == FIRST
}

/// A node that a document waits for: the node cannot read it, or has not said that it can.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReading {
    pub node: NodeName,
    /// The version of its controller; None where it has never said.
    pub version: Option<String>,
}

impl fmt::Display for NotReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}, which runs {version}", self.node),
            None => write!(f, "{}, which has not said what it runs", self.node),
        }
    }
}

/// The nodes that are not known to read a document of this format, each with the version of its controller.
pub fn not_reading<'a>(
    format: u32,
    nodes: impl IntoIterator<Item = (&'a NodeName, Option<&'a NodeStatus>)>,
) -> Vec<NotReading> {
    let not = |(node, status): (&NodeName, Option<&NodeStatus>)| {
        let reads = status.is_some_and(|status| status.document_format >= format);
        let version = status.map(|status| status.controller_version.clone());
        (!reads && format > FIRST).then(|| NotReading { node: node.clone(), version })
    };
    nodes.into_iter().filter_map(not).collect()
}

/// `n1, which runs 0.1.0; n2, ...`
pub fn listed(nodes: &[NotReading]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
