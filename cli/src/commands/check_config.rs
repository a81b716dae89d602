//! `zsha check-config`: everything that is wrong with a document, without asking or writing anything.

use std::io::Write;

use clap::ValueEnum;
use zsha_crds::decode::{Options, decode_bytes};
use zsha_crds::diagnostic::Diagnostics;

use crate::session::{Session, read_document};
use crate::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The document: YAML, JSON, or the config.json of zsha 2.5.1; `-` for standard input
    pub file: String,
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Text,
    /// The faults, or that there are none, as a DiagnosticList
    Json,
}

pub fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let (bytes, name) = read_document(&args.file, session.stdin)?;
    match (decode_bytes(&bytes, &name, &Options::default()), args.output) {
        (Ok(decoded), Form::Text) => {
            warn(session, &decoded.warnings)?;
            session.output.line("config file check pass")?;
            Ok(Exit::Success)
        }
        (Ok(decoded), Form::Json) => {
            session.output.json(&decoded.warnings.to_list())?;
            Ok(Exit::Success)
        }
        (Err(faults), Form::Text) => Err(Failure::invalid(&name, faults)),
        // The list is what was asked for, so it is the result and not a message.
        (Err(faults), Form::Json) => {
            session.output.json(&faults.to_list())?;
            Ok(Exit::Invalid)
        }
    }
}

/// What should be looked at, though it stops nothing.
pub(crate) fn warn(session: &mut Session<'_>, warnings: &Diagnostics) -> Result<(), Failure> {
    use zsha_crds::diagnostic::Look;
    let look = if session.output.err_look.colour { Look::Coloured } else { Look::Plain };
    Ok(session.output.err.write_all(warnings.render(look).as_bytes())?)
}
