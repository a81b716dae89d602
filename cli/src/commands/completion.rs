//! `zsha completion`: the script that completes commands and flags in a shell.

use std::io::Write;

use clap::ValueEnum;
use clap_complete::Shell;

use crate::session::Session;
use crate::{Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(after_help = "bash: zsha completion bash > /etc/bash_completion.d/zsha\n\
                        zsh:  zsha completion zsh > \"${fpath[1]}/_zsha\"\n\
                        fish: zsha completion fish > ~/.config/fish/completions/zsha.fish")]
pub struct Args {
    pub shell: For,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum For {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: &Args, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let shell = match args.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::definition(), "zsha", &mut script);
    session.output.out.write_all(&script)?;
    Ok(Exit::Success)
}
