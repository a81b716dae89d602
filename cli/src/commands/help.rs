//! `zsha help`: on everything, on one command, or on the exit codes.

use async_trait::async_trait;

use super::{Beside, Run};
use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A command, or `exit-codes`
    pub topic: Option<String>,
}

#[async_trait(?Send)]
impl Run for Args {
    fn needs_store(&self) -> bool {
        false
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, (beside.definition)(), session)
    }
}

fn run(args: &Args, mut definition: clap::Command, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let Some(topic) = args.topic.as_deref() else { return overview(definition, session) };
    if topic == "exit-codes" {
        session.output.text(&exit::table())?;
        return Ok(Exit::Success);
    }
    definition.build();
    let Some(found) = definition.find_subcommand_mut(topic) else {
        return Err(Failure::usage(format!("there is no command and no topic '{topic}'")).hint("zsha help"));
    };
    let text = found.render_long_help().to_string();
    session.output.text(&text)?;
    Ok(Exit::Success)
}

pub fn overview(mut definition: clap::Command, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let text = definition.render_help().to_string();
    session.output.text(&text)?;
    Ok(Exit::Success)
}
