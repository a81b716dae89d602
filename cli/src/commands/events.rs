//! `zsha events`: what happened, and why, oldest first.

use async_trait::async_trait;
use zsha_crds::records::EventRecord;
use zsha_runtime::client::past::{self, Past};

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::age::age;
use crate::output::form::{self, Form};
use crate::output::list::List;
use crate::output::table::{Table, cell, toned};
use crate::session::{Reach, Session};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_name = "FORM", default_value = "table", value_parser = form::table_or_json(""))]
    pub output: Form,
    /// Shows only the newest N events
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

#[async_trait(?Send)]
impl Run for Args {
    fn wants_json(&self) -> bool {
        self.output.is_json()
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.store()?, session).await
    }
}

async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let cluster = reach.cluster().await?;
    let now = session.clock.wall();
    let Past { records, unreadable } = past::events(reach.store.as_ref(), &cluster, now).await?;
    for (key, why) in unreadable {
        session.output.tell(&format!("warning: {key} cannot be read: {why}"))?;
    }
    let from = args.limit.map_or(0, |limit| records.len().saturating_sub(limit));
    let events = &records[from..];
    match args.output {
        Form::Json => {
            session.output.json(&List::new("EventList", events))?;
        }
        _ if events.is_empty() => session.output.tell("no events")?,
        _ => {
            let colour = session.output.out_look.colour;
            session.output.text(&table(events, now).render(colour))?;
        }
    }
    Ok(Exit::Success)
}

/// `LAST-SEEN TYPE REASON OBJECT NODE COUNT MESSAGE`.
pub(crate) fn table(events: &[EventRecord], now: jiff::Timestamp) -> Table {
    let mut table = Table::new(&["LAST-SEEN", "TYPE", "REASON", "OBJECT", "NODE", "COUNT", "MESSAGE"]);
    for event in events {
        table.row(vec![
            cell(age(event.last_at, now)),
            toned(format!("{:?}", event.kind), event.kind.tone()),
            cell(&*event.reason),
            cell(&*event.regarding),
            cell(event.node.as_str()),
            cell(event.count.to_string()),
            cell(&*event.message),
        ]);
    }
    table
}
