//! The commit, branch and date that this binary was built from. They stand in the binary and not in the library, so
//! that another commit builds only one small crate anew.

use zsha::Build;

pub(crate) const BUILD: Build = Build {
    commit: option_env!("ZSHA_BUILD_COMMIT"),
    branch: option_env!("ZSHA_BUILD_BRANCH"),
    date: option_env!("ZSHA_BUILD_DATE"),
};
