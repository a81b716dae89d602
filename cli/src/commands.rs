//! The commands, one file each. A command has its arguments (`Args`), and implements `Run`: what has to be known of it
//! before it is run, and the running.

pub mod apply;
pub mod check_config;
pub mod completion;
pub mod config_sample;
pub mod diff;
pub mod drain;
pub mod events;
pub mod export_config;
pub mod freeze;
pub mod get;
pub mod help;
pub mod history;
pub mod import_config;
pub mod install;
pub mod migrate;
pub mod reset_password;
pub mod resume;
pub mod schema;
pub mod start;
pub mod status;
pub mod status_conf;
pub mod stop;
pub mod uncordon;
pub mod uninstall;
pub mod version;

use async_trait::async_trait;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::session::{Reach, Session};

/// The things that a command is given beside its arguments.
#[derive(Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub(crate) global: &'a Global,
    /// There for every command that needs the store.
    pub(crate) reach: Option<&'a Reach>,
    /// The whole command line, for help and completions.
    pub(crate) definition: fn() -> clap::Command,
}

impl<'a> Beside<'a> {
    /// The store, for a command that cannot do without.
    pub(crate) fn store(self) -> Result<&'a Reach, Failure> {
        self.reach.ok_or_else(|| Failure::new(Exit::General, "NoStore", "there is no store to ask"))
    }
}

/// A command: what has to be known before it is run, and the running.
#[async_trait(?Send)]
pub(crate) trait Run {
    /// True if the command talks to Consul, as most do.
    fn needs_store(&self) -> bool {
        true
    }

    /// True if failures are printed as JSON, as the result is.
    fn wants_json(&self) -> bool {
        false
    }

    /// True if the command ends by itself or when the person stops it, so that --timeout does not limit it from
    /// outside.
    fn is_endless(&self) -> bool {
        false
    }

    /// True if the command may put a question to the person. The time of the answer does not count as the command's;
    /// the store's own deadlines hold all the same.
    fn may_ask(&self) -> bool {
        false
    }

    /// A hint on what to do where the command has run out of time.
    fn when_late(&self) -> &'static str {
        "raise it: --timeout 30s"
    }

    /// A failure as this command reports it.
    fn failure(&self, failure: Failure) -> Failure {
        failure
    }

    /// Prints its result, and says how it ended.
    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure>;
}
