//! One file a command. Each has its `Args`, and a `run` that prints its result and says how it ended.

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

use crate::args::{Command, Global};
use crate::session::{Reach, Session};
use crate::{Exit, Failure};

/// Runs `command`; `global` is what it says for every command, and `reach` is there for all that need the store.
pub(crate) async fn run(
    command: &Command,
    global: &Global,
    reach: Option<&Reach>,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let needed = || reach.ok_or_else(|| Failure::new(Exit::General, "NoStore", "there is no store to ask"));
    match command {
        Command::Apply(args) => apply::run(args, global.cluster.as_ref(), reach, session).await,
        Command::Diff(args) => diff::run(args, needed()?, session).await,
        Command::Get(args) => get::run(args, needed()?, session).await,
        Command::Status(args) => status::run(args, needed()?, session).await,
        Command::Events(args) => events::run(args, needed()?, session).await,
        Command::History(args) => history::run(args, needed()?, session).await,
        Command::Migrate(args) => migrate::run(args, global, needed()?, session).await,
        Command::Stop(args) => stop::run(args, global, needed()?, session).await,
        Command::Start(args) => start::run(args, global, needed()?, session).await,
        Command::Drain(args) => drain::run(args, global, needed()?, session).await,
        Command::Uncordon(args) => uncordon::run(args, needed()?, session).await,
        Command::Freeze(args) => freeze::run(args, needed()?, session).await,
        Command::Resume(args) => resume::run(args, needed()?, session).await,
        Command::ExportConfig(args) => export_config::run(args, needed()?, session).await,
        Command::ImportConfig(args) => {
            import_config::run(args, global.cluster.as_ref(), needed()?, session).await
        }
        Command::ResetPassword(args) => reset_password::run(args, global, needed()?, session).await,
        Command::StatusConf(args) => status_conf::run(args, needed()?, session).await,
        Command::Install(args) => install::run(args, global, session).await,
        Command::Uninstall(args) => uninstall::run(args, global, reach, session).await,
        Command::CheckConfig(args) => check_config::run(args, session).await,
        Command::ConfigSample(args) => config_sample::run(args, session),
        Command::Schema(_) => schema::run(session),
        Command::Completion(args) => completion::run(args, session),
        Command::Help(args) => help::run(args, session),
    }
}
