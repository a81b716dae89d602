//! `zsha -v`: the four lines of zsha 2.5.1. What the build was not told is `unknown`.

use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::{Build, Session};

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
