//! `zsha status`: where the VM is, the nodes, and what is wrong, as the records and the leases show it now.

mod headed;
mod line;
mod screen;
mod table;
mod watch;

use async_trait::async_trait;
use serde::Serialize;
use zsha_crds::Keys;
use zsha_crds::records::Intent;
use zsha_crds::status::{ClusterStatus, ClusterView, DataAge, summarise};
use zsha_runtime::client::view;
use zsha_runtime::store::consul::Member;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::escape::plain;
use crate::output::form::{self, Form};
use crate::session::{Reach, Session};

const FORMS: &[(Form, &str)] = &[
    (Form::Table, ""),
    (Form::Wide, "The table, and what else is known"),
    (Form::Json, ""),
    (Form::Yaml, ""),
];

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --exit-code, 10 says that the cluster answered and is not healthy: `Ready` or `Protected` \
                        is not True. 7 says that it could not be asked, or had no quorum; what is printed is old then."
)]
pub struct Args {
    #[arg(short, long, value_name = "FORM", default_value = "table", value_parser = form::of(FORMS))]
    pub output: Form,
    /// Go on showing it: redrawn in place on a terminal (q ends it), a line for each change elsewhere
    #[arg(short, long)]
    pub watch: bool,
    /// Exit with 10 where the cluster is not healthy
    #[arg(long)]
    pub exit_code: bool,
}

/// Prints the status as tables under the headings of zsha 2.5.1; `status-conf` does so, too.
pub(crate) async fn print(
    status: &ClusterStatus,
    wide: bool,
    reach: &Reach,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let members = members(reach).await;
    let colour = session.output.out_look.colour;
    Ok(session.output.text(&headed::render(status, &members, wide, colour))?)
}

/// The status beside what Consul says of its members, which is absent where it is not known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    #[serde(flatten)]
    status: &'a ClusterStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    consul_members: Option<Vec<Member>>,
}

impl<'a> Whole<'a> {
    async fn of(status: &'a ClusterStatus, reach: &Reach) -> Self {
        Self { status, consul_members: members(reach).await.ok() }
    }
}

/// Consul's members, or why they are not known. A status without them is no worse.
async fn members(reach: &Reach) -> Result<Vec<Member>, String> {
    let consul = reach.consul.as_ref().ok_or_else(|| "the store is not Consul".to_owned())?;
    match consul.members().await {
        Ok(members) if members.is_empty() => {
            Err("the token may not see Consul's nodes: it lacks `node_prefix \"\"` read".to_owned())
        }
        Ok(members) => Ok(members),
        Err(error) => Err(error.to_string()),
    }
}

#[async_trait(?Send)]
impl Run for Args {
    fn wants_json(&self) -> bool {
        self.output.is_json()
    }

    fn is_endless(&self) -> bool {
        self.watch
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.store()?, session).await
    }
}

async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let cluster = reach.cluster().await?;
    if args.watch {
        return watch::run(args, reach, &cluster, session).await;
    }
    let view = view::once(reach.store.as_ref(), &cluster, session.clock).await?;
    let status = summarise(&view);
    if let Some(banner) = banner(&status) {
        session.output.tell(&banner)?;
    }
    for warning in warnings(&view) {
        session.output.tell(&plain(&warning))?;
    }
    match args.output {
        Form::Json => session.output.json(&Whole::of(&status, reach).await)?,
        Form::Yaml => session.output.yaml(&Whole::of(&status, reach).await)?,
        _ => print(&status, args.output == Form::Wide, reach, session).await?,
    }
    Ok(exit(args, &status))
}

/// A warning for every key that cannot be read or that is missing; for an order it names the command that writes the
/// key anew.
fn warnings(view: &ClusterView) -> Vec<String> {
    let keys = Keys::new(&view.cluster);
    let unreadable = view.unreadable.iter().map(|(key, why)| (key.clone(), format!("cannot be read: {why}")));
    // It came with the first document.
    let power = keys.intent(Intent::POWER);
    let is_there = view.intents.contains_key(Intent::POWER) || view.unreadable.contains_key(&power);
    let missing = (view.spec.is_some() && !is_there).then(|| (power, "is missing".to_owned()));
    unreadable
        .chain(missing)
        .map(|(key, what)| match key.strip_prefix(&keys.intents()).and_then(way_out) {
            Some(way_out) => format!("WARNING: {key} {what}; {way_out}"),
            None => format!("WARNING: {key} {what}"),
        })
        .collect()
}

/// The command to type where nobody knows what is asked for under this name.
fn way_out(name: &str) -> Option<String> {
    let unknown = |what: &str, how: &str| {
        Some(format!("it is not known whether {what}, so zsha begins nothing: {how}"))
    };
    match name {
        Intent::POWER => {
            unknown("the VM is to run", "`zsha start` if it is to run, `zsha stop` if it is to be off")
        }
        Intent::FREEZE => {
            unknown("the cluster is frozen", "`zsha resume` if it is to go on, `zsha freeze` if it is not")
        }
        _ => Intent::drained(name).map(|node| {
            format!("nobody knows whether {node} was drained: `zsha uncordon {node}`, or `zsha drain {node}`")
        }),
    }
}

fn exit(args: &Args, status: &ClusterStatus) -> Exit {
    match &status.data_age {
        DataAge::Stale { .. } => Exit::Unavailable,
        DataAge::Consistent if args.exit_code && !status.healthy => Exit::Unhealthy,
        DataAge::Consistent => Exit::Success,
    }
}

/// The warning that stands above everything that no quorum has confirmed.
pub(crate) fn banner(status: &ClusterStatus) -> Option<String> {
    match &status.data_age {
        DataAge::Consistent => None,
        DataAge::Stale { secs, why } => {
            let age = secs.map_or_else(|| "of unknown age".to_owned(), |secs| format!("about {secs} s old"));
            let why = crate::output::escape::plain(why);
            Some(format!("WARNING: no quorum of Consul answers; what follows is {age}: {why}"))
        }
    }
}
