//! `zsha completion`: the script that completes commands and flags in a shell.

use std::io::Write;

use async_trait::async_trait;
use clap::ValueEnum;
use clap_complete::Shell;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::Session;

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

#[async_trait(?Send)]
impl Run for Args {
    fn needs_store(&self) -> bool {
        false
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, (beside.definition)(), session)
    }
}

fn run(args: &Args, definition: clap::Command, session: &mut Session<'_>) -> Result<Exit, Failure> {
    session.output.out.write_all(&script(args.shell, definition))?;
    Ok(Exit::Success)
}

/// The script that completes this command line.
pub(crate) fn script(shell: For, mut definition: clap::Command) -> Vec<u8> {
    let shell = match shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition, "zsha", &mut script);
    script
}
