//! `zsha status`: where the VM is, the nodes, and what is wrong, as the records and the leases show it now.

mod line;
pub(crate) mod look;
mod screen;
mod table;
mod watch;

use clap::ValueEnum;
use zsha_crds::status::{ClusterStatus, DataAge, summarise};

use crate::session::{Reach, Session};
use crate::{Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --exit-code, 10 says that the cluster answered and is not healthy: `Ready` or `Protected` \
                        is not True. 7 says that it could not be asked, or had no quorum; what is printed is old then."
)]
pub struct Args {
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    pub output: Form,
    /// Go on showing it: redrawn in place on a terminal (q ends it), a line for each change elsewhere
    #[arg(short, long)]
    pub watch: bool,
    /// Exit with 10 where the cluster is not healthy
    #[arg(long)]
    pub exit_code: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Table,
    /// The table, and what else is known
    Wide,
    Json,
    Yaml,
}

/// As a table; for `status-conf` too.
pub(crate) fn table(status: &ClusterStatus, wide: bool, session: &mut Session<'_>) -> Result<(), Failure> {
    let colour = session.output.out_look.colour;
    Ok(session.output.text(&table::render(status, wide, colour))?)
}

pub async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let cluster = reach.cluster().await?;
    if args.watch {
        return watch::run(args, reach, &cluster, session).await;
    }
    let view = look::once(reach.store.as_ref(), &cluster, session.clock).await?;
    let status = summarise(&view);
    if let Some(banner) = banner(&status) {
        session.output.tell(&banner)?;
    }
    match args.output {
        Form::Json => session.output.json(&status)?,
        Form::Yaml => session.output.yaml(&status)?,
        Form::Table | Form::Wide => table(&status, args.output == Form::Wide, session)?,
    }
    Ok(exit(args, &status))
}

fn exit(args: &Args, status: &ClusterStatus) -> Exit {
    match &status.data_age {
        DataAge::Stale { .. } => Exit::Unavailable,
        DataAge::Consistent if args.exit_code && !status.healthy => Exit::Unhealthy,
        DataAge::Consistent => Exit::Success,
    }
}

/// Stands above everything that no quorum has confirmed.
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
