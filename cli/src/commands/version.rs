//! `zsha -v`: the four lines of zsha 2.5.1. What the build was not told is `unknown`.

use crate::session::Session;
use crate::{Exit, Failure};

/// What the binary was built from, as far as the build said so.
#[derive(Debug, Clone, Copy, Default)]
pub struct Build {
    pub commit: Option<&'static str>,
    pub branch: Option<&'static str>,
    pub date: Option<&'static str>,
}

pub fn run(session: &mut Session<'_>) -> Result<Exit, Failure> {
    let Build { commit, branch, date } = session.build;
    for (label, value) in [
        ("App Version", Some(env!("CARGO_PKG_VERSION"))),
        ("Build Date", date),
        ("Branch Name", branch),
        ("Commit ID", commit),
    ] {
        session.output.line(&format!("{label}: {}", value.unwrap_or("unknown")))?;
    }
    Ok(Exit::Success)
}
