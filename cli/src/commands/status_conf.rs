//! `zsha status-conf`: the status, and the document in force beside it.

use async_trait::async_trait;
use serde_json::json;
use zsha_crds::API_VERSION;
use zsha_crds::normalise::normalised;
use zsha_crds::status::summarise;
use zsha_runtime::client::document::Live;
use zsha_runtime::client::view;

use super::export_config::config_json;
use super::status::{banner, print};
use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::form::{self, Form};
use crate::session::{Reach, Session};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_name = "FORM", default_value = "table")]
    #[arg(value_parser = form::table_or_json("One object with both"))]
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
    let view = view::once(reach.store.as_ref(), &cluster, session.clock).await?;
    let status = summarise(&view);
    let document = Live::seen(view.spec).needed()?;
    let document = normalised(&document);
    if let Some(banner) = banner(&status) {
        session.output.tell(&banner)?;
    }
    match args.output {
        Form::Json => session.output.json(&json!({
            "apiVersion": API_VERSION, "kind": "StatusConf", "status": status, "document": document,
        }))?,
        _ => {
            print(&status, false, reach, session).await?;
            session.output.line("\n>>>Configuration")?;
            session.output.text(&config_json(&document)?)?;
        }
    }
    Ok(if status.data_age.is_current() { Exit::Success } else { Exit::Unavailable })
}
