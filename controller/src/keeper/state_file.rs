//! The file in `/run` in which the keeper keeps its memory across its own restart. It is gone after a reboot, as it
//! must be.
//!
//! A file that cannot be read, or makes no sense, counts as absent: then the lease is not valid until it is renewed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use zsha_runtime::lease::Memory;

use super::premises;

/// One file, replaced as a whole.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

/// The longest file that is read. A memory is a few hundred bytes; a larger file is not ours.
const LIMIT: u64 = 64 << 10;

impl StateFile {
    /// The state file in the keeper's directory.
    pub fn in_directory(directory: &Path) -> Self {
        Self { path: directory.join("keeper.json") }
    }

    /// The path of the file, for people.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the memory. `Ok(None)`: there is no file. An error says why the file cannot be used; it counts as none.
    pub fn read(&self) -> anyhow::Result<Option<Memory>> {
        let text = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Ok(metadata) if metadata.len() > LIMIT => {
                anyhow::bail!("{} is too large ({} bytes)", self.path.display(), metadata.len())
            }
            Ok(_) | Err(_) => fs::read_to_string(&self.path)
                .with_context(|| format!("cannot read {}", self.path.display()))?,
        };
        let memory: Memory =
            serde_json::from_str(&text).with_context(|| format!("cannot decode {}", self.path.display()))?;
        anyhow::ensure!(memory.timings.is_safe(), "{} holds timings that are not safe", self.path.display());
        Ok(Some(memory))
    }

    /// True if there is a file, readable or not.
    pub fn exists(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok()
    }

    /// Writes the memory. It is in force when this returns `Ok`. A reader sees the old memory or the new one, never
    /// half of one. But where there is no room for a second file the old one is written over, and a reader finds
    /// something garbled just then.
    pub fn write(&self, memory: &Memory) -> io::Result<()> {
        let text = serde_json::to_vec(memory).map_err(io::Error::other)?;
        let mut replaced = self.replace(&text);
        if replaced.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            && let Some(directory) = self.path.parent()
        {
            // The directory was wiped.
            replaced = premises::make(directory).and_then(|()| self.replace(&text));
        }
        replaced.or_else(|error| self.write_over(text).map_err(|_| error))
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let next = self.path.with_extension("json.next");
        let outcome = File::create(&next)
            .and_then(|mut file| file.write_all(text))
            .and_then(|()| fs::rename(&next, &self.path));
        if outcome.is_err() {
            // Half of one helps nobody, and takes the room of the next.
            let _ = fs::remove_file(&next);
        }
        outcome
    }

    /// Writes in the room that the old file has, since a full disk still lets that file be written to. Blanks fill up
    /// what is left.
    fn write_over(&self, mut text: Vec<u8>) -> io::Result<()> {
        let mut file = File::options().write(true).open(&self.path)?;
        let room = usize::try_from(file.metadata()?.len().min(LIMIT)).unwrap_or_default();
        text.resize(text.len().max(room), b' ');
        file.write_all(&text)
    }

    /// Removes the file, if there is one.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use zsha_crds::records::LeaseTimings;
    use zsha_runtime::Moment;

    use super::*;

    fn memory(deadline: Option<Moment>) -> Memory {
        Memory {
            step_back: None,
            key: None,
            boot_id: "boot".to_owned(),
            incarnation: Uuid::from_u128(5),
            epoch: 3,
            seq: 99,
            deadline,
            timings: LeaseTimings::FAST,
            fence: None,
            unbroken: None,
            expected: None,
            owned: None,
        }
    }

    #[test]
    fn what_was_written_last_is_read_and_nothing_else_lies_about() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(directory.path());
        assert_eq!(file.read().unwrap(), None);
        for deadline in [Some(Moment::from_millis(7)), None] {
            file.write(&memory(deadline)).unwrap();
            assert_eq!(file.read().unwrap(), Some(memory(deadline)));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn a_wiped_directory_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(&root.path().join("run/c"));
        file.write(&memory(None)).unwrap();
        assert!(file.exists());
        fs::remove_dir_all(root.path().join("run")).unwrap();
        assert!(!file.exists());
        file.write(&memory(Some(Moment::from_millis(7)))).unwrap();
        assert_eq!(file.read().unwrap(), Some(memory(Some(Moment::from_millis(7)))));
    }

    #[test]
    fn where_no_second_file_can_be_made_the_old_one_is_written_over_whichever_is_longer() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(directory.path());
        file.write(&memory(Some(Moment::from_millis(7)))).unwrap();
        // A directory where the next file would be written stands in for a full disk.
        fs::create_dir(directory.path().join("keeper.json.next")).unwrap();
        for deadline in [None, Some(Moment::from_nanos(u64::MAX)), Some(Moment::from_millis(8))] {
            file.write(&memory(deadline)).unwrap();
            assert_eq!(file.read().unwrap(), Some(memory(deadline)));
        }
    }

    #[test]
    fn what_is_garbled_cut_short_unsafe_or_huge_is_an_error_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(directory.path());
        let unsafe_timings = Memory {
            step_back: None,
            timings: LeaseTimings { fence_after_millis: 1, ..LeaseTimings::FAST },
            ..memory(Some(Moment::from_millis(7)))
        };
        let whole = serde_json::to_string(&memory(None)).unwrap();
        let bad = [
            String::new(),
            "{".to_owned(),
            whole[..whole.len() / 2].to_owned(),
            serde_json::to_string(&unsafe_timings).unwrap(),
            " ".repeat(100_000),
        ];
        for text in bad {
            fs::write(directory.path().join("keeper.json"), &text).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains("keeper.json"), "{error}");
        }
    }

    #[test]
    fn a_memory_that_cannot_be_written_down_is_an_error() {
        let file = StateFile::in_directory(Path::new("/proc/nowhere"));
        assert!(file.write(&memory(None)).is_err());
    }
}
