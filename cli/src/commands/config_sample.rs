//! `zsha config-sample`: a config.json to fill in, with a comment on every field.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use clap::ValueEnum;
use zsha_crds::document::ImageType;
use zsha_crds::sample::{Form, sample};

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::file;
use crate::session::Session;

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

#[async_trait(?Send)]
impl Run for Args {
    fn needs_store(&self) -> bool {
        false
    }

    async fn run(&self, _: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, session)
    }
}

fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, Failure> {
    if let Some(path) = &args.output {
        file::is_meant("config-sample", path)?;
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
    file::write(&path, text)?;
    session.output.line(&format!("output config json file to {}", path.display()))?;
    Ok(Exit::Success)
}
