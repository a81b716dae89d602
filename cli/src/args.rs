//! The command line's definition, and the one list of commands. What each takes of its own stands in its file.

use std::ffi::OsStr;

use clap::{CommandFactory, Parser, Subcommand};

use crate::commands::{
    Run, apply, check_config, completion, config_sample, diff, drain, events, export_config, freeze, get,
    help, history, import_config, install, migrate, reset_password, resume, schema, start, status,
    status_conf, stop, uncordon, uninstall,
};
use crate::global::Global;

const AFTER_HELP: &str = "\
Begin with:
  zsha config-sample FileConf -o cluster.json   a sample to fill in
  zsha check-config cluster.json                what is wrong with it, all at once
  zsha diff -f cluster.json                     what it would change, and what that does to the VM
  zsha apply -f cluster.json                    put it in force
  zsha status -w                                watch it become so

`zsha help COMMAND` says more of a command, `zsha help exit-codes` what scripts may rely on.";

/// Keep one virtual machine running on exactly one of several nodes.
#[derive(Debug, Parser)]
#[command(name = "zsha", disable_help_subcommand = true, disable_version_flag = true, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    /// Print the version and where it was built from
    #[arg(short = 'v', long)]
    pub version: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a document in force
    Apply(apply::Args),
    /// Show what a document would change, and what that does to the VM
    Diff(diff::Args),
    /// Print the document in force
    Get(get::Args),
    /// Show where the VM is, the nodes, and what is wrong
    Status(status::Args),
    /// List what happened, oldest first
    Events(events::Args),
    /// List the documents that were in force
    History(history::Args),
    /// Move the VM to another node while it runs
    Migrate(migrate::Args),
    /// Shut the VM down, and keep it so
    Stop(stop::Args),
    /// Start the VM again after `stop`, and forget failed starts
    Start(start::Args),
    /// Make the VM leave a node, and keep it away
    Drain(drain::Args),
    /// Let the VM come to a node again after `drain`
    Uncordon(uncordon::Args),
    /// Begin nothing by itself until `resume`: no start, no failover, no move
    Freeze(freeze::Args),
    /// Go on after `freeze`
    Resume(resume::Args),
    /// Set zsha up on every node of a document over SSH, or bring it to this build
    Install(install::Args),
    /// Shut the VM down and take zsha off every node; the image stays
    Uninstall(uninstall::Args),
    /// Check a document without asking or writing anything
    #[command(name = "check-config")]
    CheckConfig(check_config::Args),
    /// Write the document in force into a config.json
    #[command(name = "export-config")]
    ExportConfig(export_config::Args),
    /// Put a config.json in force, as `apply` does
    #[command(name = "import-config")]
    ImportConfig(import_config::Args),
    /// Show the status, and the configuration with it
    #[command(name = "status-conf")]
    StatusConf(status_conf::Args),
    /// Write a sample config.json to fill in
    #[command(name = "config-sample")]
    ConfigSample(config_sample::Args),
    /// Give root in the guest the default password again
    #[command(name = "reset-MNVM-password", alias = "reset-mnvm-password", hide = true)]
    ResetPassword(reset_password::Args),
    /// Print the JSON Schema of the document, for editors
    Schema(schema::Args),
    /// Print the completion script of a shell
    Completion(completion::Args),
    /// Help on a command, or on `exit-codes`
    Help(help::Args),
}

impl Command {
    /// The command as one that can be run, whichever it is.
    pub(crate) fn as_run(&self) -> &dyn Run {
        match self {
            Self::Apply(args) => args,
            Self::Diff(args) => args,
            Self::Get(args) => args,
            Self::Status(args) => args,
            Self::Events(args) => args,
            Self::History(args) => args,
            Self::Migrate(args) => args,
            Self::Stop(args) => args,
            Self::Start(args) => args,
            Self::Drain(args) => args,
            Self::Uncordon(args) => args,
            Self::Freeze(args) => args,
            Self::Resume(args) => args,
            Self::Install(args) => args,
            Self::Uninstall(args) => args,
            Self::CheckConfig(args) => args,
            Self::ExportConfig(args) => args,
            Self::ImportConfig(args) => args,
            Self::StatusConf(args) => args,
            Self::ConfigSample(args) => args,
            Self::ResetPassword(args) => args,
            Self::Schema(args) => args,
            Self::Completion(args) => args,
            Self::Help(args) => args,
        }
    }
}

/// The definition clap parses by. A variable that is empty is one that is not set.
pub fn command() -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    Cli::command()
        .mut_args(|arg| if arg.get_env().is_some_and(is_empty) { arg.env(None::<&str>) } else { arg })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        command().debug_assert();
    }

    #[test]
    fn a_bare_dry_run_is_the_servers() {
        let parse = |words: &[&str]| match Cli::try_parse_from(words).unwrap().command {
            Some(Command::Apply(args)) => args.dry_run,
            _ => panic!("apply expected"),
        };
        assert_eq!(parse(&["zsha", "apply", "-f", "x"]), apply::DryRun::None);
        assert_eq!(parse(&["zsha", "apply", "--dry-run", "-f", "x"]), apply::DryRun::Server);
        assert_eq!(parse(&["zsha", "apply", "--dry-run=client", "-f", "x"]), apply::DryRun::Client);
    }
}
