//! `zsha apply`: a document into force, as one compare-and-set transaction over what was read and compared.
//!
//! In this order: read, check, read what is in force, compare, judge, ask where it disturbs, write, tell. Nothing is
//! written before everything else has succeeded.

mod report;

use async_trait::async_trait;
use clap::ValueEnum;
use zsha_crds::diff::{Change, Impact, diff, impact, summary};
use zsha_crds::{ClusterName, HaCluster, Keys, format};
use zsha_runtime::client::apply::{self, By, Prepared, Write};
use zsha_runtime::client::commit::Fate;
use zsha_runtime::client::document::Live;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::client::of_apply;
use crate::input;
use crate::output::form::{self, Form};
use crate::output::provenance::provenance;
use crate::session::{Reach, Session};
use report::{Done, report};

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 applied or unchanged, 3 unchanged (--error-unchanged), 4 invalid, \
                        5 somebody else changed it, 7 Consul unavailable, 8 refused without --yes.")]
pub struct Args {
    /// The document: YAML, JSON, or the config.json of zsha 2.5.1; `-` for standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub file: String,
    /// Do everything but write. server: compare with what is in force; client: check only, and ask Consul nothing
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_value = "none",
          default_missing_value = "server")]
    pub dry_run: DryRun,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
    /// Applies only if this generation is in force (0: no document yet)
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
    /// Go ahead even where it restarts or moves the VM
    #[arg(short, long)]
    pub yes: bool,
    /// Exit with 3 where nothing is to be changed
    #[arg(long)]
    pub error_unchanged: bool,
    #[arg(short, long, value_name = "FORM", value_parser = form::of(&[(Form::Json, ""), (Form::Name, "")]))]
    pub output: Option<Form>,
    /// The name of the command in the history.
    #[arg(skip = "apply")]
    pub command: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
pub enum DryRun {
    None,
    Client,
    Server,
}

#[async_trait(?Send)]
impl Run for Args {
    fn needs_store(&self) -> bool {
        self.dry_run != DryRun::Client
    }

    fn wants_json(&self) -> bool {
        self.output.is_some_and(Form::is_json)
    }

    fn may_ask(&self) -> bool {
        !self.yes
    }

    fn when_late(&self) -> &'static str {
        "what was sent may still take effect: look with `zsha get`"
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.global.cluster.as_ref(), beside.reach, session).await
    }
}

pub(super) async fn run(
    args: &Args,
    named: Option<&ClusterName>,
    reach: Option<&Reach>,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    if args.dry_run == DryRun::Client {
        let decoded = input::document(&args.file, named, None, session).await?;
        input::warn(session, &decoded.warnings)?;
        return report(args, &decoded.cluster, &Done::Checked, session);
    }
    let reach = reach.ok_or_else(|| Failure::new(Exit::General, "NoStore", "there is no store to ask"))?;
    let decoded = input::document(&args.file, named, Some(reach), session).await?;
    input::warn(session, &decoded.warnings)?;
    let new = decoded.cluster;
    let live = Live::read(reach.store.as_ref(), &Keys::new(new.name())).await?;
    expect_version(args, &new, &live)?;
    let old = live.document();
    let changes = diff(old.as_ref().ok().and_then(Option::as_ref), &new);
    let write = match prepared(args, reach, &live, &new, session).await? {
        Prepared::Unchanged { generation } => {
            return report(args, &new, &Done::Unchanged { generation, index: live.index() }, session);
        }
        Prepared::Write(write) => write,
    };
    consent(args, &new, old.as_ref().map(|_| ()).map_err(String::as_str), &changes, session)?;
    let (created, generation) = (write.created, write.generation);
    if args.dry_run == DryRun::Server {
        return report(args, &new, &Done::Written { created, generation, index: None, changes }, session);
    }
    match write.commit(reach.store.as_ref()).await? {
        Fate::InForce { index } => {
            report(args, &new, &Done::Written { created, generation, index: Some(index), changes }, session)
        }
        Fate::Lost(now) => Err(conflict(&new, &now, args)),
    }
}

fn expect_version(args: &Args, new: &HaCluster, live: &Live) -> Result<(), Failure> {
    match args.if_version {
        Some(expected) if expected != live.generation() => Err(conflict(new, live, args)),
        Some(_) | None => Ok(()),
    }
}

/// Makes the write that puts `new` in force over `live`, and says which living nodes keep the document from coming in
/// force.
async fn prepared(
    args: &Args,
    reach: &Reach,
    live: &Live,
    new: &HaCluster,
    session: &mut Session<'_>,
) -> Result<Prepared, Failure> {
    let by = By {
        who: session.who.clone(),
        at: session.clock.wall(),
        message: args.message.clone(),
        command: args.command.to_owned(),
    };
    let keys = Keys::new(new.name());
    let prepared = apply::prepare(reach.store.as_ref(), &keys, live, new, by).await;
    let prepared = prepared.map_err(|error| of_apply(error, &keys))?;
    if let Prepared::Write(Write { generation, waits_for, .. }) = &prepared
        && !waits_for.is_empty()
    {
        session.output.tell(&format!(
            "generation {generation} comes in force when every node that lives can read it. Not known to: {}",
            format::listed(waits_for)
        ))?;
    }
    Ok(prepared)
}

/// Asks for consent to what disturbs the VM: a yes on a terminal, `--yes` elsewhere. `known` is an error where the
/// document in force cannot be read, and so nobody can say what the new one disturbs.
fn consent(
    args: &Args,
    new: &HaCluster,
    known: Result<(), &str>,
    changes: &[Change],
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let disturbs: Vec<String> = match (known, impact(changes)) {
        (Err(why), _) => {
            vec![format!("the document in force cannot be read, nor what this one changes: {why}")]
        }
        (Ok(()), Impact::None | Impact::AtNextBoot) => return Ok(()),
        (Ok(()), Impact::Migration | Impact::Restart) => {
            let heavy = changes.iter().filter(|change| change.impact >= Impact::Migration);
            heavy.map(|change| format!("{}: {}: {}", change.path, change.impact, change.reason)).collect()
        }
    };
    if args.yes || args.dry_run != DryRun::None {
        return Ok(());
    }
    let refused = |reason: &'static str, message: &str| {
        disturbs
            .iter()
            .fold(Failure::new(Exit::Refused, reason, message), |failure, cause| failure.cause(cause.clone()))
            .hint(format!("zsha diff -f {}; `--yes` goes ahead", args.file))
    };
    let Some(ask) = session.ask.filter(|_| args.file != "-") else {
        let why = if args.file == "-" {
            "this may disturb the VM, and standard input is the document, so nobody can be asked"
        } else {
            "this may disturb the VM, and there is no terminal to ask at"
        };
        return Err(refused("NeedsYes", why));
    };
    session.output.tell(&format!("{}\n{}", disturbs.join("\n"), summary(changes)))?;
    let question = format!("apply it to {}?", new.name());
    if ask(&question, &mut session.output.err)? {
        Ok(())
    } else {
        Err(refused("NotConfirmed", "not confirmed: nothing was written"))
    }
}

fn conflict(new: &HaCluster, now: &Live, args: &Args) -> Failure {
    let name = new.name();
    let (what, generation) = match &now.spec {
        Ok(Some(spec)) => (format!("{name} is at {}", provenance(spec)), spec.generation),
        Ok(None) => (format!("{name} has no document in force"), 0),
        Err(why) => (format!("the document of {name} cannot be read: {why}"), 0),
    };
    let message = match args.if_version {
        Some(expected) => format!("nothing was written: {what}, not generation {expected}"),
        None => format!("nothing was written: {what}, since this command has read it"),
    };
    let file = &args.file;
    Failure::new(Exit::Conflict, "Conflict", message)
        .hint(format!("zsha diff -f {file}, then: zsha apply -f {file} --if-version {generation}"))
}
