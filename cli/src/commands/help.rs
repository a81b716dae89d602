//! `zsha help`: on everything, on one command, or on the exit codes.

use crate::session::Session;
use crate::{Exit, Failure, exit};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A command, or `exit-codes`
    pub topic: Option<String>,
}

pub fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let Some(topic) = args.topic.as_deref() else { return overview(session) };
    if topic == "exit-codes" {
        session.output.text(&exit::table())?;
        return Ok(Exit::Success);
    }
    let mut command = crate::definition();
    command.build();
    let Some(found) = command.find_subcommand_mut(topic) else {
        return Err(Failure::usage(format!("there is no command and no topic '{topic}'")).hint("zsha help"));
    };
    let text = found.render_long_help().to_string();
    session.output.text(&text)?;
    Ok(Exit::Success)
}

pub fn overview(session: &mut Session<'_>) -> Result<Exit, Failure> {
    let text = crate::definition().render_help().to_string();
    session.output.text(&text)?;
    Ok(Exit::Success)
}
