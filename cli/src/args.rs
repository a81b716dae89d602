//! The command line's definition: what every command takes, and what each takes of its own stands in its file.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use zsha_crds::ClusterName;

use crate::commands::{
    apply, check_config, completion, config_sample, diff, drain, events, export_config, freeze, get, help,
    history, import_config, install, migrate, reset_password, resume, schema, start, status, status_conf,
    stop, uncordon, uninstall,
};
use crate::output::form::Form;

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

#[derive(Debug, Args)]
#[command(next_help_heading = "For every command")]
pub struct Global {
    /// Where Consul answers, the nearest first; HOST:PORT means http, or https where CONSUL_HTTP_SSL is true
    #[arg(
        long,
        env = "CONSUL_HTTP_ADDR",
        value_name = "URL[,URL]",
        value_delimiter = ',',
        global = true,
        default_value = "127.0.0.1:8500",
        hide_env_values = true
    )]
    pub consul: Vec<String>,
    /// A file that holds the ACL token
    #[arg(long, env = "CONSUL_HTTP_TOKEN_FILE", value_name = "FILE", global = true, hide_env_values = true)]
    pub token_file: Option<PathBuf>,
    /// The certificate authority of https
    #[arg(
        long,
        env = "CONSUL_CACERT",
        value_name = "FILE",
        global = true,
        hide_short_help = true,
        hide_env_values = true
    )]
    pub ca_cert: Option<PathBuf>,
    /// Our certificate for https, with --client-key
    #[arg(
        long,
        env = "CONSUL_CLIENT_CERT",
        value_name = "FILE",
        global = true,
        hide_short_help = true,
        hide_env_values = true
    )]
    pub client_cert: Option<PathBuf>,
    /// The key of --client-cert
    #[arg(
        long,
        env = "CONSUL_CLIENT_KEY",
        value_name = "FILE",
        global = true,
        hide_short_help = true,
        hide_env_values = true
    )]
    pub client_key: Option<PathBuf>,
    /// The cluster meant; needed only where the store holds several
    #[arg(long, env = "ZSHA_CLUSTER", value_name = "NAME", global = true, hide_env_values = true)]
    pub cluster: Option<ClusterName>,
    /// Give up after this long, such as 30s or 500ms [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration, global = true)]
    pub timeout: Option<Duration>,
    /// When to colour
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: When,
    /// The same as --color never
    #[arg(long, global = true)]
    pub no_color: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb
    Auto,
    Always,
    Never,
}

impl When {
    pub fn of(self, terminal: bool) -> bool {
        match self {
            Self::Auto => terminal,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl Global {
    /// The flags, then the environment, as `NO_COLOR` and `CLICOLOR_FORCE` are meant.
    pub fn colour(&self) -> When {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
        match self.color {
            _ if self.no_color => When::Never,
            When::Auto if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) => When::Never,
            When::Auto if set("CLICOLOR_FORCE") || set("FORCE_COLOR") => When::Always,
            When::Auto if std::env::var_os("TERM").is_some_and(|term| term == "dumb") => When::Never,
            when => when,
        }
    }
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
    /// Have the VM run again after `stop`, and forget failed starts
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
    pub(crate) fn needs_store(&self) -> bool {
        match self {
            Self::Apply(args) => args.dry_run != apply::DryRun::Client,
            Self::Uninstall(args) => args.needs_store(),
            Self::Diff(_)
            | Self::Get(_)
            | Self::Status(_)
            | Self::Events(_)
            | Self::History(_)
            | Self::Migrate(_)
            | Self::Stop(_)
            | Self::Start(_)
            | Self::Drain(_)
            | Self::Uncordon(_)
            | Self::Freeze(_)
            | Self::Resume(_)
            | Self::ExportConfig(_)
            | Self::ImportConfig(_)
            | Self::ResetPassword(_)
            | Self::StatusConf(_) => true,
            Self::Install(_)
            | Self::CheckConfig(_)
            | Self::ConfigSample(_)
            | Self::Schema(_)
            | Self::Completion(_)
            | Self::Help(_) => false,
        }
    }

    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Apply(args) => args.output.is_some_and(Form::is_json),
            Self::Diff(args) => args.output.is_json(),
            Self::Get(args) => args.output.is_json(),
            Self::Status(args) => args.output.is_json(),
            Self::Events(args) => args.output.is_json(),
            Self::History(args) => args.output.is_json(),
            Self::CheckConfig(args) => args.output.is_json(),
            Self::ImportConfig(args) => args.output.is_some_and(Form::is_json),
            Self::StatusConf(args) => args.output.is_json(),
            Self::Install(args) => args.output.is_json(),
            Self::Uninstall(args) => args.output.is_json(),
            Self::Stop(args) => args.order.common.json(),
            Self::Start(args) => args.order.common.json(),
            Self::Drain(args) => args.order.common.json(),
            Self::Migrate(args) => args.order.common.json(),
            Self::Uncordon(args) => args.order.json(),
            Self::Freeze(args) => args.order.json(),
            Self::Resume(args) => args.order.json(),
            Self::ResetPassword(args) => args.common.json(),
            Self::ExportConfig(_)
            | Self::ConfigSample(_)
            | Self::Schema(_)
            | Self::Completion(_)
            | Self::Help(_) => false,
        }
    }

    /// Ends when the person says so, or what was asked for is so; --timeout is not about it, or the command keeps it
    /// itself. Nor is it about somebody thinking over a question.
    pub(crate) fn is_endless(&self) -> bool {
        match self {
            Self::Status(args) => args.watch,
            Self::Migrate(_)
            | Self::Stop(_)
            | Self::Start(_)
            | Self::Drain(_)
            | Self::ResetPassword(_)
            | Self::Install(_)
            | Self::Uninstall(_) => true,
            _ => false,
        }
    }
}

/// `30s`, `500ms`, `2m`, or seconds alone.
fn duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("'{unit}' is no unit; it must be ms, s, m or h")),
    };
    match number.parse::<f64>() {
        Ok(number) if (0.0..=86_400.0).contains(&(number * scale)) => {
            Ok(Duration::from_secs_f64(number * scale))
        }
        Ok(_) => Err("it must be at most 24h".to_owned()),
        Err(_) => Err("it must be a number and a unit, such as 30s".to_owned()),
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
    fn a_duration_has_a_unit_and_a_bound() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO), "`stop` takes it: at once");
        for wrong in ["", "s", "3 fortnights", "-1s", "25h", "1.2.3s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
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
