//! The commit, branch and date that this binary was built from, as far as the build said so. They stand in the binary
//! and not in the library, so that another commit builds only one small crate anew.

pub(crate) const COMMIT: Option<&str> = option_env!("ZSHA_BUILD_COMMIT");

/// The version as `--version` shows it.
pub(crate) fn version() -> String {
    let [commit, branch, date] = [COMMIT, option_env!("ZSHA_BUILD_BRANCH"), option_env!("ZSHA_BUILD_DATE")]
        .map(|told| told.unwrap_or("unknown"));
    format!("{} (commit {commit}, branch {branch}, {date})", env!("CARGO_PKG_VERSION"))
}
