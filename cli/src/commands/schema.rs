//! `zsha schema`: the JSON Schema (draft-07) that documents are checked against.

use crate::session::Session;
use crate::{Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(after_help = "For an editor: zsha schema > zsha.schema.json, and as the document's first line\n  \
                        # yaml-language-server: $schema=zsha.schema.json")]
pub struct Args {}

pub fn run(session: &mut Session<'_>) -> Result<Exit, Failure> {
    session.output.text(&zsha_crds::schema::json_schema_text())?;
    Ok(Exit::Success)
}
