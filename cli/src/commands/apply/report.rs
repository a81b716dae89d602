//! What `apply` says at its end: kubectl's line, or the result as JSON.

use serde::Serialize;
use zsha_crds::diff::{Change, Impact, impact, summary};
use zsha_crds::{API_VERSION, ClusterName, HaCluster};

use super::{Args, DryRun};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::form::Form;
use crate::session::Session;

pub(super) enum Done {
    /// Valid; nothing was asked or written.
    Checked,
    Unchanged {
        generation: u64,
        index: u64,
    },
    /// `index` is none where it was not really written.
    Written {
        created: bool,
        generation: u64,
        index: Option<u64>,
        changes: Vec<Change>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApplyResult<'a> {
    api_version: &'static str,
    kind: &'static str,
    cluster: &'a ClusterName,
    /// `created`, `configured`, `unchanged` or `valid`.
    outcome: &'static str,
    changed: bool,
    dry_run: DryRun,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
    impact: Impact,
    changes: &'a [Change],
}

pub(super) fn report(
    args: &Args,
    new: &HaCluster,
    done: &Done,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let name = new.name();
    let result = result(args, name, done);
    let suffix = match args.dry_run {
        DryRun::None => "",
        DryRun::Client => " (dry run)",
        DryRun::Server => " (server dry run)",
    };
    match args.output {
        Some(Form::Json) => session.output.json(&result)?,
        Some(Form::Name) => session.output.line(&format!("hacluster.zsha.io/{name}"))?,
        _ => {
            let generation = result.generation.map(|at| format!(" (generation {at})")).unwrap_or_default();
            session
                .output
                .line(&format!("hacluster.zsha.io/{name} {}{generation}{suffix}", result.outcome))?;
        }
    }
    if let (Done::Written { created: false, changes, .. }, None) = (done, args.output) {
        session.output.tell(&summary(changes))?;
    }
    let unchanged = matches!(done, Done::Unchanged { .. }) && args.error_unchanged;
    Ok(if unchanged { Exit::Unchanged } else { Exit::Success })
}

fn result<'a>(args: &Args, cluster: &'a ClusterName, done: &'a Done) -> ApplyResult<'a> {
    let (outcome, changed, generation, index, changes): (_, _, _, _, &[Change]) = match done {
        Done::Checked => ("valid", false, None, None, &[]),
        Done::Unchanged { generation, index } => ("unchanged", false, Some(*generation), Some(*index), &[]),
        Done::Written { created, generation, index, changes } => {
            (if *created { "created" } else { "configured" }, true, Some(*generation), *index, changes)
        }
    };
    ApplyResult {
        api_version: API_VERSION,
        kind: "ApplyResult",
        cluster,
        outcome,
        changed,
        dry_run: args.dry_run,
        generation,
        resource_version: index.map(|index| index.to_string()),
        impact: impact(changes),
        changes,
    }
}
