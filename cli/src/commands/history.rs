//! `zsha history`: the documents that were in force, who applied each, when and why; or one of them whole.

use async_trait::async_trait;
use zsha_crds::decode_value;
use zsha_crds::normalise::to_yaml;
use zsha_crds::records::HistoryRecord;
use zsha_runtime::client::past::{self, Past};

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::form::{self, Form};
use crate::output::list::List;
use crate::output::table::{Table, cell};
use crate::session::{Reach, Session};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the document of this generation, ready to be applied again
    #[arg(long, value_name = "N")]
    pub generation: Option<u64>,
    #[arg(short, long, value_name = "FORM", default_value = "table", value_parser = form::table_or_json(""))]
    pub output: Form,
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
    let Past { records, unreadable } = past::history(reach.store.as_ref(), &cluster).await?;
    for (key, why) in unreadable {
        session.output.tell(&format!("warning: {key} cannot be read: {why}"))?;
    }
    if let Some(wanted) = args.generation {
        return one(&records, wanted, args.output, session);
    }
    match args.output {
        Form::Json => {
            session.output.json(&List::new("HistoryList", &records))?;
        }
        _ if records.is_empty() => session.output.tell("no history")?,
        _ => {
            let mut table = Table::new(&["GENERATION", "COMMAND", "BY", "AT", "MESSAGE"]);
            for record in &records {
                table.row(vec![
                    cell(record.generation.to_string()),
                    cell(&*record.command),
                    cell(&*record.applied_by),
                    cell(record.applied_at.to_string()),
                    cell(&*record.message),
                ]);
            }
            let colour = session.output.out_look.colour;
            session.output.text(&table.render(colour))?;
        }
    }
    Ok(Exit::Success)
}

fn one(
    records: &[HistoryRecord],
    wanted: u64,
    form: Form,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let Some(record) = records.iter().find(|record| record.generation == wanted) else {
        return Err(Failure::new(
            Exit::General,
            "NotFound",
            format!("there is no record of generation {wanted}"),
        )
        .hint("zsha history"));
    };
    match form {
        Form::Json => session.output.json(&record.document)?,
        _ => match decode_value(&record.document) {
            Ok(document) => session.output.text(&to_yaml(&document))?,
            Err(_) => session.output.yaml(&record.document)?,
        },
    }
    Ok(Exit::Success)
}
