//! `zsha diff`: what a document would change against the one in force, and what that does to the VM. The same
//! comparison decides text, JSON, exit code, and what `apply` does.

use async_trait::async_trait;
use serde::Serialize;
use zsha_crds::diff::{Change, DiffLook, Impact, diff, impact, summary, unified};
use zsha_crds::{API_VERSION, ClusterName, Keys};
use zsha_runtime::client::document::Live;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::input;
use crate::output::form::{self, Form};
use crate::session::{Reach, Session};

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 no differences, 1 differences, above 1 an error.")]
pub struct Args {
    /// The document; `-` for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: String,
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    #[arg(value_parser = form::of(&[(Form::Text, "A unified diff, each change with its effect on the VM"), (Form::Json, "")]))]
    pub output: Form,
}

/// `kind: Diff`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DiffResult<'a> {
    api_version: &'static str,
    kind: &'static str,
    cluster: &'a ClusterName,
    changed: bool,
    /// The generation of the document compared with; 0 where no document is in force.
    generation: u64,
    /// An opaque value: a program may only compare it with another.
    resource_version: String,
    impact: Impact,
    summary: String,
    changes: &'a [Change],
}

#[async_trait(?Send)]
impl Run for Args {
    fn wants_json(&self) -> bool {
        self.output.is_json()
    }

    /// 1 says "there are differences", so none of its failures may.
    fn failure(&self, failure: Failure) -> Failure {
        if failure.exit == Exit::General { Failure { exit: Exit::Usage, ..failure } } else { failure }
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.store()?, session).await
    }
}

async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let decoded = input::document(&args.file, reach.named.as_ref(), Some(reach), session).await?;
    let new = decoded.cluster;
    input::warn(session, &decoded.warnings)?;
    let live = Live::read(reach.store.as_ref(), &Keys::new(new.name())).await?;
    let old = live.document().map_err(|why| unreadable(&why))?;
    let changes = diff(old.as_ref(), &new);
    match args.output {
        Form::Json => session.output.json(&DiffResult {
            api_version: API_VERSION,
            kind: "Diff",
            cluster: new.name(),
            changed: !changes.is_empty(),
            generation: live.generation(),
            resource_version: live.index().to_string(),
            impact: impact(&changes),
            summary: summary(&changes),
            changes: &changes,
        })?,
        _ => {
            let look = if session.output.out_look.colour { DiffLook::Coloured } else { DiffLook::Plain };
            let old_name = format!("{} generation {}", new.name(), live.generation());
            let text = unified(old.as_ref(), &new, &old_name, &args.file, look);
            session.output.text(&text)?;
        }
    }
    if changes.is_empty() {
        return Ok(Exit::Success);
    }
    if !args.output.is_json() && session.output.err_look.terminal {
        let next = format!("next: zsha apply -f {} --if-version {}", args.file, live.generation());
        session.output.tell(&next)?;
    }
    Ok(Exit::General)
}

fn unreadable(why: &str) -> Failure {
    Failure::new(Exit::General, "LiveUnreadable", "the document in force cannot be read by this build")
        .cause(why.to_owned())
        .hint("look at it with `zsha get -o json`; `zsha apply --yes` replaces a document that is merely invalid")
}
