//! `zsha export-config`: the document in force as a config.json, to be changed and imported again.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use zsha_crds::normalise::{normalised, to_yaml};
use zsha_runtime::client::document::Live;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::file;
use crate::session::{Reach, Session};

const DEFAULT: &str = "/tmp/current.config.json";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write it, as YAML in its envelope where it ends in .yaml; `-` for standard output [default:
    /// /tmp/current.config.json]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[async_trait(?Send)]
impl Run for Args {
    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.store()?, session).await
    }
}

async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let path = args.output.as_deref().unwrap_or(Path::new(DEFAULT));
    file::is_meant("export-config", path)?;
    let (_, keys) = reach.keys().await?;
    let document = Live::read(reach.store.as_ref(), &keys).await?.needed()?;
    let yaml = path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    let text = if yaml { to_yaml(&document) } else { config_json(&normalised(&document))? };
    if path == Path::new("-") {
        session.output.text(&text)?;
        return Ok(Exit::Success);
    }
    file::write(path, &text)?;
    session.output.line(&format!("output config json file to {}", path.display()))?;
    Ok(Exit::Success)
}

/// The config.json of zsha 2.5.1: the fields without an envelope, with the lists that it has to have.
pub(super) fn config_json(document: &serde_json::Value) -> Result<String, Failure> {
    let mut fields = document.get("spec").unwrap_or(document).clone();
    if let Some(fields) = fields.as_object_mut() {
        for list in zsha_crds::decode::LISTS_OF_CONFIG_JSON {
            fields.entry(list).or_insert_with(|| serde_json::json!([]));
        }
    }
    let text = serde_json::to_string_pretty(&fields)
        .map_err(|error| Failure::new(Exit::General, "Output", error.to_string()))?;
    Ok(format!("{text}\n"))
}
