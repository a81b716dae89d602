//! What the `zsha` command does, as functions over a store, a clock and two streams, so that tests run the very
//! commands. It edits desired state and shows what is; it never touches a hypervisor, and never writes into the store
//! other than by one compare-and-set transaction. `install` alone reaches past the store, over SSH.

pub mod args;
pub mod commands;
mod connect;
pub mod exit;
pub mod failure;
pub mod global;
mod input;
mod install;
mod order;
pub mod output;
pub mod session;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches};
use zsha_runtime::{Clock, Store};

use args::{Cli, Command};
use commands::{Beside, Run};
pub use exit::Exit;
pub use failure::Failure;
use output::{Look, Output, Stream};
pub use session::Build;
use session::{Reach, Session};

/// How long a command may take where nobody says it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process: this one's arguments, environment, streams and clock.
pub fn main(build: Build) -> Exit {
    let raw: Vec<_> = std::env::args_os().collect();
    let cli = match args::command()
        .try_get_matches_from(&raw)
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => return usage(&error, &raw),
    };
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    let colour = cli.global.colour();
    let output = Output {
        out_look: Look {
            terminal: io::stdout().is_terminal(),
            colour: colour.of(io::stdout().is_terminal()),
        },
        err_look: Look {
            terminal: io::stderr().is_terminal(),
            colour: colour.of(io::stderr().is_terminal()),
        },
        out: Stream::new(&mut out),
        err: Stream::new(&mut err),
    };
    let mut stdin = io::stdin();
    let ask =
        (io::stdin().is_terminal() && io::stderr().is_terminal()).then_some(session::ask as session::Ask);
    let clock = Clock::Boottime;
    let mut session = Session { output, stdin: &mut stdin, clock, who: session::who(), ask, build };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(run(&cli, &mut session));
            // A read of the keyboard or a lost connection may hang on; nobody waits for it.
            runtime.shutdown_background();
            exit
        }
        Err(error) => report(&mut session, false, &Failure::new(Exit::General, "Runtime", error.to_string())),
    }
}

/// Clap's own words; as JSON where JSON was asked for.
fn usage(error: &clap::Error, raw: &[std::ffi::OsString]) -> Exit {
    let wants_json =
        raw.windows(2).any(|pair| (pair[0] == "-o" || pair[0] == "--output") && pair[1] == "json")
            || raw.iter().any(|word| word == "-ojson" || word == "--output=json" || word == "-o=json");
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
    if wants_json && exit == Exit::Usage {
        let failure = Failure::usage(error.to_string().trim_end().to_owned());
        // Nobody is left to tell that stderr is closed.
        let _ = io::stderr().write_all(failure.json().as_bytes());
    } else {
        let _ = error.print();
    }
    exit
}

/// Runs one command and tells how it failed, where it did.
pub async fn run(cli: &Cli, session: &mut Session<'_>) -> Exit {
    let command = cli.command.as_ref().map(Command::as_run);
    let done = match command {
        _ if cli.version => commands::version::run(session),
        None => commands::help::overview(definition(), session),
        Some(command) => reach_and_run(cli, command, session).await,
    };
    let json = command.is_some_and(Run::wants_json);
    match done.and_then(|exit| flush(session).map(|()| exit)) {
        Ok(exit) => exit,
        Err(failure) => report(session, json, &failure),
    }
}

/// Does the same as [`run`] over a given store: for tests, and for whoever embeds the commands.
pub async fn run_on(cli: &Cli, store: Arc<dyn Store>, session: &mut Session<'_>) -> Exit {
    let command = cli.command.as_ref().map(Command::as_run);
    let done = match command {
        Some(command) => {
            let reach = Reach { store, consul: None, named: cli.global.cluster.clone() };
            within(cli, command, Some(&reach), session).await
        }
        None => commands::help::overview(definition(), session),
    };
    let json = command.is_some_and(Run::wants_json);
    match done {
        Ok(exit) => exit,
        Err(failure) => report(session, json, &failure),
    }
}

async fn reach_and_run(cli: &Cli, command: &dyn Run, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let reach = if command.needs_store() { Some(connect::reach(&cli.global)?) } else { None };
    within(cli, command, reach.as_ref(), session).await
}

/// Runs the command for as long as it may take.
async fn within(
    cli: &Cli,
    command: &dyn Run,
    reach: Option<&Reach>,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let is_untimed = command.is_endless() || (session.ask.is_some() && command.may_ask());
    let limit = cli.global.timeout.unwrap_or(PATIENCE);
    if limit.is_zero() && !is_untimed {
        return Err(Failure::usage(
            "--timeout must be more than 0 here; only `stop`, `start` and `drain` take 0",
        ));
    }
    let run = command.run(Beside { global: &cli.global, reach, definition }, session);
    let done = if is_untimed { Ok(run.await) } else { tokio::time::timeout(limit, run).await };
    match done {
        Ok(done) => done.map_err(|failure| command.failure(failure)),
        Err(_) => {
            let message = format!("not done within {} s", limit.as_secs_f64());
            Err(Failure::new(Exit::TimedOut, "TimedOut", message).hint(command.when_late()))
        }
    }
}

fn flush(session: &mut Session<'_>) -> Result<(), Failure> {
    Ok(session.output.out.flush()?)
}

fn report(session: &mut Session<'_>, json: bool, failure: &Failure) -> Exit {
    let colour = session.output.err_look.colour;
    let text = if json { failure.json() } else { failure.text(colour) };
    // The exit code still tells it when stderr is closed.
    let _ = session.output.err.write_all(text.as_bytes());
    failure.exit
}

/// The command line's definition, for completions and tests.
pub fn definition() -> clap::Command {
    Cli::command()
}
