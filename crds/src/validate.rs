//! The rules a schema cannot say, each over whatever of the document can be read, so that one fault hides no other.
//!
//! Never here: the state of any host. Whether a bridge exists is for its node to say.

mod draft;
pub(crate) mod given;
mod image;
mod network;
mod nodes;
mod sections;

use serde_json::Value;

use crate::HaCluster;
use crate::diagnostic::{Diagnostics, Finding};

use draft::Draft;

/// The numbers of nodes that a document may have.
pub(crate) const NODE_COUNTS: &str = "3, 5, 7, ... nodes; with `Servers` any number from 3 on";

/// Every violation of a rule in `document`, warnings included.
pub(crate) fn violations(document: &Value) -> Vec<Finding> {
    let draft = Draft::of(document);
    let mut found = Vec::new();
    nodes::check(&draft, &mut found);
    image::check(&draft, &mut found);
    network::check(&draft, &mut found);
    network::check_services(&draft, &mut found);
    sections::check(&draft, &mut found);
    found
}

/// Applies the rules to a document that was made and not read. A document that `decode` read has been through them.
pub fn check(cluster: &HaCluster) -> Diagnostics {
    match serde_json::to_value(cluster) {
        Ok(document) => Diagnostics::unplaced(violations(&document)),
        Err(error) => Diagnostics::unplaced(vec![Finding::new(
            crate::diagnostic::Code::Undecodable,
            crate::path::Path::root(),
            format!("the document cannot be written as JSON: {error}"),
        )]),
    }
}
