//! `zsha config-sample`: a config.json to fill in, with a comment on every field.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use zsha_crds::document::ImageType;
use zsha_crds::sample::{Form, sample};

use crate::session::Session;
use crate::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_name = "TYPE")]
    pub image_type: Sample,
    /// Where to write it, as YAML where it ends in .yaml; `-` for standard output [default: /tmp/sample.TYPE.config.json]
    #[arg(short, long, value_name = "FILE", conflicts_with = "stdout")]
    pub output: Option<PathBuf>,
    /// The same as `-o -`
    #[arg(long)]
    pub stdout: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sample {
    /// The image in a Ceph pool
    #[value(name = "CephConf")]
    CephConf,
    /// The image as a file on a share that every node has mounted
    #[value(name = "FileConf")]
    FileConf,
}

impl Sample {
    fn image_type(self) -> ImageType {
        match self {
            Self::CephConf => ImageType::CephConf,
            Self::FileConf => ImageType::FileConf,
        }
    }

    fn default_path(self) -> PathBuf {
        let name = match self {
            Self::CephConf => "sample.CephConf.config.json",
            Self::FileConf => "sample.FileConf.config.json",
        };
        Path::new("/tmp").join(name)
    }
}

/// What `-o` takes with other commands, where it names a form and no file.
const FORMS: [&str; 5] = ["json", "yaml", "table", "wide", "name"];

/// A form where a file is meant would come to be a file of that name.
fn is_a_file(path: &Path) -> Result<(), Failure> {
    let Some(form) = FORMS.iter().find(|form| path == Path::new(form)) else { return Ok(()) };
    let ending = if *form == "yaml" { "yaml" } else { "json" };
    Err(Failure::usage(format!("-o must name a file for `config-sample`, and '{form}' is a form of output"))
        .hint(format!("-o cluster.{ending}; for a file of that very name: -o ./{form}")))
}

pub fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, Failure> {
    if let Some(path) = &args.output {
        is_a_file(path)?;
    }
    let path = args.output.clone().unwrap_or_else(|| args.image_type.default_path());
    let form = match path.extension().and_then(|ending| ending.to_str()) {
        Some("yaml" | "yml") => Form::Yaml,
        _ => Form::ConfigJson,
    };
    // Two clusters on one network must not have the same MAC addresses.
    let text = &sample(args.image_type.image_type(), form, uuid::Uuid::new_v4().as_u64_pair().0);
    if args.stdout || path == Path::new("-") {
        session.output.text(text)?;
        return Ok(Exit::Success);
    }
    replace(&path, text).map_err(|error| {
        Failure::new(Exit::General, "Unwritable", format!("{} cannot be written", path.display()))
            .cause(error.to_string())
            .hint("name another file: -o FILE, or print it: --stdout")
    })?;
    session.output.line(&format!("output config json file to {}", path.display()))?;
    Ok(Exit::Success)
}

/// Anybody may put a link under a known name into /tmp, and root runs this: a new file takes the name's place, and
/// nothing is written through it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it names no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}", uuid::Uuid::new_v4()));
    let new = path.with_file_name(hidden);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    let done = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, path));
    if done.is_err() {
        // The error that is told is the first one.
        let _ = fs::remove_file(&new);
    }
    done
}
