//! What this program was built from, in the four lines of zsha 2.5.1. What the build was not told is `unknown`.

pub(crate) fn lines() -> String {
    [
        ("App Version", Some(env!("CARGO_PKG_VERSION"))),
        ("Build Date", option_env!("ZSHA_BUILD_DATE")),
        ("Branch Name", option_env!("ZSHA_BUILD_BRANCH")),
        ("Commit ID", option_env!("ZSHA_BUILD_COMMIT")),
    ]
    .map(|(label, value)| format!("{label}: {}\n", value.unwrap_or("unknown")))
    .concat()
}
