//! Keeps beside the keeper's state file whether the document wants the watchdog, for a keeper that is started anew.
//! Otherwise that keeper would arm a watchdog that was turned off, until its controller has said so once more, and the
//! controller may be down.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::keeper::premises;

/// A file that is there if the watchdog is not wanted.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    path: PathBuf,
}

impl Wish {
    /// The wish in the keeper's directory.
    pub(super) fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("watchdog.off") }
    }

    /// True if the watchdog is wanted, as it is until the controller says otherwise.
    pub(super) fn wanted(&self) -> bool {
        fs::symlink_metadata(&self.path).is_err()
    }

    pub(super) fn keep(&self, wanted: bool) -> io::Result<()> {
        if wanted {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            };
        }
        if let Some(directory) = self.path.parent() {
            // It may have been wiped.
            premises::make(directory)?;
        }
        File::create(&self.path).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_wanted_until_it_is_turned_off_and_again_when_it_is_turned_on_or_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let wish = Wish::in_directory(&root.path().join("c"));
        assert!(wish.wanted());
        for _ in 0..2 {
            wish.keep(false).unwrap();
            assert!(!Wish::in_directory(&root.path().join("c")).wanted());
        }
        for _ in 0..2 {
            wish.keep(true).unwrap();
            assert!(wish.wanted());
        }
    }
}
