//! What this binary was built from. Part of the binary and not of the library: another commit then builds one small
//! crate anew.

use zsha::Build;

pub(crate) const BUILD: Build = Build {
    commit: option_env!("ZSHA_BUILD_COMMIT"),
    branch: option_env!("ZSHA_BUILD_BRANCH"),
    date: option_env!("ZSHA_BUILD_DATE"),
};
