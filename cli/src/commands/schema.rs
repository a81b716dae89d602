//! `zsha schema`: the JSON Schema (draft-07) that documents are checked against.

use async_trait::async_trait;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::Session;

#[derive(Debug, clap::Args)]
#[command(after_help = "For an editor: zsha schema > zsha.schema.json, and as the document's first line\n  \
                        # yaml-language-server: $schema=zsha.schema.json")]
pub struct Args {}

#[async_trait(?Send)]
impl Run for Args {
    fn needs_store(&self) -> bool {
        false
    }

    async fn run(&self, _: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(session)
    }
}

fn run(session: &mut Session<'_>) -> Result<Exit, Failure> {
    session.output.text(&zsha_crds::schema::json_schema_text())?;
    Ok(Exit::Success)
}
