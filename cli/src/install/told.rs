//! What install and uninstall say while they work: a line for a person, an object a line for a program.

use clap::builder::TypedValueParser;
use serde_json::json;
use zsha_crds::API_VERSION;
use zsha_crds::document::Node;

use crate::failure::Failure;
use crate::output::escape::plain;
use crate::output::form::{self, Form};
use crate::session::Session;

/// The forms in which it is said.
pub(crate) fn forms() -> impl TypedValueParser<Value = Form> {
    form::text_or_json("An object a line: `progress`, `warning`, and one `result` at the end")
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    pub(crate) json: bool,
}

/// The state in which the nodes were left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Changed,
    /// Nothing was to be done.
    Unchanged,
    /// Nothing was asked for but a look.
    OnlyLooked,
}

impl End {
    pub(crate) fn of(changed: bool) -> Self {
        if changed { Self::Changed } else { Self::Unchanged }
    }
}

impl Told {
    /// Something that was done or found, of one node or of all.
    pub(crate) fn line(
        self,
        session: &mut Session<'_>,
        node: Option<&Node>,
        text: &str,
    ) -> Result<(), Failure> {
        let text = plain(text);
        if !self.json {
            session.output.line(&text)?;
            return Ok(std::io::Write::flush(&mut session.output.out)?);
        }
        let mut object = json!({ "type": "progress", "message": text });
        if let Some(node) = node {
            object["node"] = json!(node.name);
        }
        session.output.json_line(&object)
    }

    /// Tells of something to look at, though it stops nothing.
    pub(crate) fn remark(
        self,
        session: &mut Session<'_>,
        node: Option<&Node>,
        text: &str,
    ) -> Result<(), Failure> {
        let text = match node {
            Some(node) => format!("{}: {}", node.address, plain(text)),
            None => plain(text).into_owned(),
        };
        if self.json {
            return session.output.json_line(&json!({ "type": "warning", "message": text }));
        }
        Ok(session.output.tell(&format!("warning: {text}"))?)
    }

    /// A blank line between two nodes.
    pub(crate) fn gap(self, session: &mut Session<'_>) -> Result<(), Failure> {
        if !self.json {
            session.output.line("")?;
        }
        Ok(())
    }

    /// The last line: what became of it.
    pub(crate) fn end(self, session: &mut Session<'_>, kind: &str, end: End) -> Result<(), Failure> {
        if self.json {
            let (changed, dry_run) = (end == End::Changed, end == End::OnlyLooked);
            let object = json!({ "apiVersion": API_VERSION, "kind": kind, "type": "result", "changed": changed, "dryRun": dry_run });
            session.output.json_line(&object)?;
        }
        Ok(())
    }
}
