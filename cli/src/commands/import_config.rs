//! `zsha import-config FILE`: `apply` under the name that the manual of zsha 2.5.1 has for it.

use async_trait::async_trait;
use zsha_crds::ClusterName;

use super::apply;
use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::form::{self, Form};
use crate::session::{Reach, Session};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The document: the config.json of zsha 2.5.1, JSON or YAML; `-` for standard input
    pub file: String,
    /// Why, for the history
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
    /// Go ahead even where it restarts or moves the VM
    #[arg(short, long)]
    pub yes: bool,
    #[arg(short, long, value_name = "FORM", value_parser = form::of(&[(Form::Json, ""), (Form::Name, "")]))]
    pub output: Option<Form>,
}

#[async_trait(?Send)]
impl Run for Args {
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
        run(self, beside.global.cluster.as_ref(), beside.store()?, session).await
    }
}

async fn run(
    args: &Args,
    named: Option<&ClusterName>,
    reach: &Reach,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let as_apply = apply::Args {
        file: args.file.clone(),
        dry_run: apply::DryRun::None,
        message: args.message.clone(),
        if_version: None,
        yes: args.yes,
        error_unchanged: false,
        output: args.output,
        command: "import-config",
    };
    apply::run(&as_apply, named, Some(reach), session).await
}
