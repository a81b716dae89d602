//! `zsha get`: the document in force, as it was applied.

use async_trait::async_trait;
use serde_json::{Value, json};
use zsha_crds::decode_value;
use zsha_crds::normalise::to_yaml;
use zsha_runtime::client::document::Live;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::client::unreadable;
use crate::output::escape::plain;
use crate::output::form::{self, Form};
use crate::output::provenance::provenance;
use crate::session::{Reach, Session};

const FORMS: &[(Form, &str)] = &[
    (Form::Yaml, "The document, ready to be edited and applied again"),
    (Form::Json, "The document with its generation, version, author and time in its metadata"),
    (Form::Name, ""),
];

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long, value_name = "FORM", default_value = "yaml", value_parser = form::of(FORMS))]
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
    let (cluster, keys) = reach.keys().await?;
    let live = Live::read(reach.store.as_ref(), &keys).await?;
    let index = live.index();
    let spec = live.spec.map_err(|why| unreadable(&keys, why))?;
    let Some(spec) = spec else {
        return Err(Failure::new(
            Exit::General,
            "NotFound",
            format!("no document has been applied to {cluster}"),
        )
        .cause("there is none, or the token may not read it")
        .hint("zsha apply -f FILE"));
    };
    match args.output {
        Form::Name => session.output.line(&format!("hacluster.zsha.io/{cluster}"))?,
        Form::Json => {
            let mut document = spec.document.clone();
            if let Some(Value::Object(metadata)) = document.get_mut("metadata") {
                metadata.insert("generation".to_owned(), json!(spec.generation));
                metadata.insert("resourceVersion".to_owned(), json!(index.to_string()));
                metadata.insert("appliedBy".to_owned(), json!(spec.applied_by));
                metadata.insert("appliedAt".to_owned(), json!(spec.applied_at));
                metadata.insert("message".to_owned(), json!(spec.message));
            }
            session.output.json(&document)?;
        }
        _ => {
            session.output.line(&format!("# {}", plain(&provenance(&spec))))?;
            match decode_value(&spec.document) {
                Ok(document) => session.output.text(&to_yaml(&document))?,
                Err(_) => session.output.yaml(&spec.document)?,
            }
        }
    }
    Ok(Exit::Success)
}
