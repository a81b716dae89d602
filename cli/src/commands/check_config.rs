//! `zsha check-config`: everything that is wrong with a document, without asking or writing anything; with `--online` also
//! what install would find on its nodes, without doing anything there.

use std::path::PathBuf;

use async_trait::async_trait;
use zsha_crds::HaCluster;
use zsha_crds::decode::{Options, decode_bytes};

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::input;
use crate::install::given;
use crate::install::layout::Choice;
use crate::install::login;
use crate::install::nodes::Nodes;
use crate::install::preflight::{self, Wish};
use crate::install::told::{End, Told};
use crate::output::form::{self, Form};
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The document: YAML, JSON, or the config.json of zsha 2.5.1; `-` for standard input
    pub file: String,
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    #[arg(value_parser = form::text_or_json("The faults, or that there are none, as a DiagnosticList"))]
    pub output: Form,
    /// Also look at every node over SSH, as install does before it begins
    #[arg(long)]
    pub online: bool,
    /// As for install: more keys for every node's settings
    #[arg(long, value_name = "FILE", requires = "online")]
    pub settings: Option<PathBuf>,
    #[command(flatten)]
    pub login: login::Args,
}

#[async_trait(?Send)]
impl Run for Args {
    fn needs_store(&self) -> bool {
        false
    }

    fn wants_json(&self) -> bool {
        self.output.is_json()
    }

    /// Each look at a node has a limit of its own, and a share that hangs costs most of that.
    fn is_endless(&self) -> bool {
        self.online
    }

    async fn run(&self, _: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, session).await
    }
}

async fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let (bytes, name) = input::read(&args.file, session.stdin)?;
    match (decode_bytes(&bytes, &name, &Options::default()), args.output) {
        (Ok(decoded), _) if args.online => {
            let told = Told { json: args.output.is_json() };
            input::warn(session, &decoded.warnings)?;
            told.line(session, None, "config file check pass")?;
            nodes(args, &decoded.cluster, told, session).await
        }
        (Ok(decoded), Form::Json) => {
            session.output.json(&decoded.warnings.to_list())?;
            Ok(Exit::Success)
        }
        (Ok(decoded), _) => {
            input::warn(session, &decoded.warnings)?;
            session.output.line("config file check pass")?;
            Ok(Exit::Success)
        }
        // The list is what was asked for, so it is the result and not a message.
        (Err(faults), Form::Json) => {
            session.output.json(&faults.to_list())?;
            Ok(Exit::Invalid)
        }
        (Err(faults), _) => Err(Failure::invalid(&name, faults)),
    }
}

async fn nodes(
    args: &Args,
    document: &HaCluster,
    told: Told,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    // As install has it by itself; whether it has a Consul to send is seen there.
    let choice = Choice { acl: true, settings: given::settings(args.settings.as_deref())? };
    let wish = Wish { document, choice: &choice, sends_consul: true };
    let nodes = Nodes::open(document, &preflight::ports(&wish), &args.login, told, session).await?;
    nodes.judge(&wish, told, session)?;
    told.line(session, None, "Every node is fit.")?;
    told.end(session, "CheckResult", End::OnlyLooked)?;
    Ok(Exit::Success)
}
