//! `zin`, the part of zsha inside the guest: prints what it is, which configuration the guest was told and whether it is
//! applied, and puts itself in the place of an older one. It changes nothing else, and asks nobody but the guest itself.

mod applied;
mod built;
mod install;
mod told;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// What runs in the guest of zsha
#[derive(Debug, Parser)]
#[command(
    name = "zin",
    disable_version_flag = true,
    after_help = "Without a flag: the configuration that the guest was told when it booted, and what of it is applied.\n\n\
                  Exit codes: 0 ok; 1 an error, or not all of it is applied; 2 usage; 3 the guest was told nothing."
)]
struct Args {
    /// Print the version and where it was built from
    #[arg(short = 'v', long)]
    version: bool,
    /// Put this very program, a newer build, in the place of the one that is installed
    #[arg(short, long, conflicts_with = "version")]
    install: bool,
    /// The configuration as JSON
    #[arg(long, conflicts_with_all = ["version", "install"])]
    json: bool,
    /// Where the guest's files are
    #[arg(long, default_value = "/", hide = true)]
    root: PathBuf,
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Where nobody reads it, the exit code still tells.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match run(&args) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<ExitCode, String> {
    let mut out = io::stdout().lock();
    let unwritten = |error: io::Error| format!("standard output: {error}");
    if args.version {
        out.write_all(built::lines().as_bytes()).map_err(unwritten)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.install {
        let said = install::install(&args.root, env!("CARGO_PKG_VERSION"))?;
        writeln!(out, "{said}").map_err(unwritten)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(told) = told::read(&args.root)? else {
        eprintln!(
            "error: the guest was told nothing: there is no {}\nhint: cloud-init writes it at the first boot with zsha's disk \
             (label cidata); look at `cloud-init status --long`",
            told::FILE
        );
        return Ok(ExitCode::from(3));
    };
    let report = applied::report(&told, &applied::Guest::look(&args.root));
    let text = if args.json { report.json() } else { report.text() };
    out.write_all(text.as_bytes()).map_err(unwritten)?;
    Ok(if report.is_applied() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_names_every_flag_that_is_meant_for_people() {
        insta::assert_snapshot!(Args::command().render_long_help().to_string());
    }
}
