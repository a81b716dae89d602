//! The command: reads settings, sets up the log and hands over. It decides nothing else.

use std::fmt::Display;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};
use zsha_controller::dev::{self, DevSettings};
use zsha_controller::host::probe;
use zsha_controller::keeper::guard::{self, GuardSettings};
use zsha_controller::keeper::process;
use zsha_controller::logs::LogSettings;
use zsha_controller::settings::{self, Flags, Settings};
use zsha_controller::{leave, logs, run};
use zsha_crds::ClusterName;

mod built;

/// Wrong flags, environment or file: as clap's own errors.
const USAGE: u8 = 2;

static VERSION: LazyLock<String> = LazyLock::new(built::version);

/// Keeps the management-node VM running on exactly one node
#[derive(Debug, Parser)]
#[command(name = "zsha-controller", version = VERSION.as_str(), arg_required_else_help = true)]
#[command(
    after_help = "A flag wins over the environment, the environment over the file, the file over the default.\n\
                        Tokens are never flags: set CONSUL_HTTP_TOKEN_FILE, or `consulTokenFile` in the file."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The controller of this node: looks, plans, acts and shows
    Run(Flags),
    /// The keeper of this node: renews its lease and kills in time
    Keeper(Flags),
    /// Before this host shuts down: the VM leaves it live, and keeps away until it has booted again
    Leave {
        #[command(flatten)]
        flags: Flags,
        /// Do nothing unless systemd says that the host is shutting down
        #[arg(long)]
        only_at_shutdown: bool,
        /// Give up after this, with 1
        #[arg(long, value_name = "SPAN", default_value = "600s", value_parser = jiff::SignedDuration::from_str)]
        limit: jiff::SignedDuration,
    },
    /// Three nodes in one process, for trying zsha out: no root, no Consul, no libvirt
    Dev(DevSettings),
    /// What a keeper leaves behind that is stopped beside a living VM
    #[command(name = guard::COMMAND, hide = true)]
    KeeperGuard {
        #[arg(long)]
        cluster: ClusterName,
        #[arg(long)]
        directory: PathBuf,
    },
    /// Looks at one path, in a process that may be killed when the path hangs
    #[command(name = probe::COMMAND, hide = true)]
    Probe {
        /// Tells where the path leads instead
        #[arg(long)]
        resolve: bool,
        path: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(flags) => {
            with_settings(&flags, "zsha-controller", |settings| run::run(settings, built::COMMIT))
        }
        Command::Keeper(flags) => {
            with_settings(&flags, "zsha-keeper", |settings| process::run(&settings.for_keeper()?))
        }
        Command::Leave { only_at_shutdown: true, .. } if !leave::host_shuts_down() => {
            println!("the host stays up: nothing is done");
            ExitCode::SUCCESS
        }
        Command::Leave { flags, limit, .. } => {
            with_settings(&flags, "zsha-leave", |settings| leave::run(settings, limit.unsigned_abs()))
        }
        Command::Dev(settings) => finish(with_log(|| dev::run(&settings))),
        Command::KeeperGuard { cluster, directory } => {
            finish(with_log(|| guard::run(&GuardSettings { cluster, directory })))
        }
        Command::Probe { resolve, path } => finish(probe::run(&path, resolve)),
    }
}

/// `program` as the log files name it.
fn with_settings(
    flags: &Flags,
    program: &str,
    then: impl FnOnce(&Settings) -> anyhow::Result<()>,
) -> ExitCode {
    let resolved = settings::environment(std::env::vars_os()).and_then(|environment| {
        let file = settings::read_file(flags, &environment)?;
        settings::resolve(flags, &environment, file.as_ref())
    });
    match resolved {
        Ok(settings) => finish(logs::init(&settings.log, program).and_then(|_logging| then(&settings))),
        Err(error) => failed(error, USAGE),
    }
}

/// Logs for commands without a node's settings: `RUST_LOG` alone counts.
fn with_log(then: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let said = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = said.unwrap_or_else(|| LogSettings::DEFAULT_FILTER.to_owned());
    let _logging = logs::init(&LogSettings { filter, ..LogSettings::default() }, "zsha-controller")?;
    then()
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(format!("error: {error:#}"), 1),
    }
}

fn failed(message: impl Display, code: u8) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_asks_its_child_in_words_that_this_program_understands() {
        let asked = |arguments: &[&str]| {
            let words = ["zsha-controller", probe::COMMAND].iter().chain(arguments);
            match Arguments::try_parse_from(words).unwrap().command {
                Command::Probe { resolve, path } => (resolve, path),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(asked(&["/share"]), (false, PathBuf::from("/share")));
        assert_eq!(asked(&[probe::RESOLVE, "/share"]), (true, PathBuf::from("/share")));
    }

    /// libvirt orders the scope of a QEMU before this target: it outlives whatever is stopped before the target is, and
    /// only where that is up.
    #[test]
    fn what_a_host_does_first_when_it_shuts_down_is_done_before_qemus_own_scope_is_stopped() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/systemd/zsha-host.service");
        let text = std::fs::read_to_string(file).unwrap();
        for word in ["After=", "Wants="] {
            let lines = text.lines().filter_map(|line| line.strip_prefix(word));
            let mut units = lines.flat_map(str::split_whitespace);
            assert!(units.any(|unit| unit == "virt-guest-shutdown.target"), "{word}");
        }
    }

    #[test]
    fn the_units_start_what_exists_with_settings_from_the_file_alone() {
        let started = |unit: &str| {
            let file = format!("{}/../manifests/systemd/{unit}.service", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(file).unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("Exec")?.split_once("=/usr/bin/zsha-controller"))
                .map(|(_, arguments)| format!("zsha-controller{arguments}"))
                .unwrap();
            Arguments::try_parse_from(line.split_whitespace()).unwrap().command
        };
        let Command::Keeper(flags) = started("zsha-keeper") else { panic!("not the keeper") };
        assert_eq!(flags, Flags::default());
        let Command::Run(flags) = started("zsha-controller") else { panic!("not the controller") };
        assert_eq!(flags, Flags::default());
        let Command::Leave { flags, only_at_shutdown: true, limit } = started("zsha-host") else {
            panic!("not what leaves at shutdown")
        };
        assert_eq!((flags, limit), (Flags::default(), jiff::SignedDuration::from_mins(10)));
    }
}
