//! What this binary was built from, where the build said so. Part of the binary and not of the library: another
//! commit then builds one small crate anew.

pub(crate) const COMMIT: Option<&str> = option_env!("ZSHA_BUILD_COMMIT");

/// The version as `--version` shows it.
pub(crate) fn version() -> String {
    let [commit, branch, date] = [COMMIT, option_env!("ZSHA_BUILD_BRANCH"), option_env!("ZSHA_BUILD_DATE")]
        .map(|told| told.unwrap_or("unknown"));
    format!("{} (commit {commit}, branch {branch}, {date})", env!("CARGO_PKG_VERSION"))
}
