//! A look at one path that may hang for ever: done by this same program in a child of its own, under a hidden
//! command, which says what it saw in one line.
//!
//! The child opens and looks; it writes nothing.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::ImageFact;
use super::child::Children;
use crate::observed::Observed;

/// The hidden command; one argument follows, the path.
pub const COMMAND: &str = "probe";

/// Storage that takes longer cannot carry a VM. One retransmission of NFS over TCP fits.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "seen", rename_all = "camelCase")]
pub(super) enum Seen {
    Missing,
    Directory,
    NotAFile,
    NotReadable {
        reason: String,
    },
    File {
        bytes: u64,
    },
    /// There is an answer, and it is an error: a stale handle, a share that was shut down.
    Failed {
        reason: String,
    },
}

/// Before the path: the other question, where it leads.
pub const RESOLVE: &str = "--resolve";

/// The child's whole work: what is at the path, or where it leads.
pub fn run(path: &Path, resolving: bool) -> anyhow::Result<()> {
    let told = if resolving {
        let real = resolve(path).with_context(|| path.display().to_string())?;
        serde_json::to_string(&real)?
    } else {
        serde_json::to_string(&see(path))?
    };
    println!("{told}");
    Ok(())
}

/// The path without links; None: it leads to nothing.
fn resolve(path: &Path) -> io::Result<Option<PathBuf>> {
    match fs::canonicalize(path) {
        Ok(real) => Ok(Some(real)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn see(path: &Path) -> Seen {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Seen::Missing,
        Err(error) => return Seen::Failed { reason: error.to_string() },
    };
    if metadata.is_dir() {
        // Beyond what the client has in its cache: the file system itself has to answer.
        return match rustix::fs::statfs(path) {
            Ok(_) => Seen::Directory,
            Err(error) => Seen::Failed { reason: io::Error::from(error).to_string() },
        };
    }
    if !metadata.is_file() {
        return Seen::NotAFile;
    }
    match File::open(path).and_then(|mut file| file.read(&mut [0_u8; 512])) {
        Ok(_) => Seen::File { bytes: metadata.len() },
        Err(error) => Seen::NotReadable { reason: error.to_string() },
    }
}

/// How the child is called.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    program: PathBuf,
    arguments: Vec<OsString>,
    limit: Duration,
}

impl Probe {
    /// By this program, also after its file has been replaced.
    pub(super) fn new() -> Self {
        Self::by(Path::new("/proc/self/exe"))
    }

    pub(super) fn by(program: &Path) -> Self {
        Self { program: program.to_owned(), arguments: vec![COMMAND.into()], limit: ANSWER_WITHIN }
    }

    /// An error is a sentence on why it is not known.
    pub(super) async fn see(&self, children: &Children, path: &Path) -> Result<Seen, String> {
        self.ask(children, None, path).await
    }

    /// Where the path leads, as the mount table has it; None: to nothing.
    pub(super) async fn resolve(&self, children: &Children, path: &Path) -> Result<Option<PathBuf>, String> {
        self.ask(children, Some(RESOLVE), path).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        children: &Children,
        question: Option<&str>,
        path: &Path,
    ) -> Result<T, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(question).arg(path);
        let told = |reason: &dyn std::fmt::Display| format!("looking at {}: {reason}", path.display());
        let ended = children.run(command, self.limit).await.map_err(|error| told(&error))?;
        if !ended.success {
            return Err(told(&ended.errors.trim()));
        }
        serde_json::from_str(ended.output.trim()).map_err(|error| told(&error))
    }
}

/// The image, from what was seen at its path.
pub(super) fn image(seen: Result<Seen, String>) -> Observed<ImageFact> {
    match seen {
        Ok(Seen::Missing) => Observed::Known(ImageFact::Missing),
        Ok(Seen::Directory | Seen::NotAFile) => Observed::Known(ImageFact::NotAFile),
        Ok(Seen::NotReadable { reason }) => Observed::Known(ImageFact::NotReadable { reason }),
        Ok(Seen::File { bytes }) => Observed::Known(ImageFact::Present { bytes }),
        Ok(Seen::Failed { reason }) | Err(reason) => Observed::Unknown(reason),
    }
}

/// A script in the place of this program.
#[cfg(test)]
pub(super) fn scripted(script: &str, limit: Duration) -> Probe {
    let arguments = ["-c", script, "probe"].map(OsString::from).to_vec();
    Probe { program: "/bin/sh".into(), arguments, limit }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn each_kind_of_path_is_seen_as_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mnvm.img");
        assert_eq!(see(&file), Seen::Missing);
        fs::write(&file, vec![0_u8; 4096]).unwrap();
        assert_eq!(see(&file), Seen::File { bytes: 4096 });
        assert_eq!(see(directory.path()), Seen::Directory);
        assert_eq!(see(Path::new("/dev/null")), Seen::NotAFile);
        assert!(matches!(see(&file.join("below")), Seen::Failed { .. }));
        // Its first bytes are no page of anybody's: an error of reading, whoever reads.
        assert!(matches!(see(Path::new("/proc/self/mem")), Seen::NotReadable { .. }));
    }

    #[test]
    fn a_path_is_told_without_its_links_and_one_that_leads_nowhere_as_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        let below = |name: &str| directory.path().join(name);
        fs::create_dir_all(below("disk/share")).unwrap();
        symlink("disk", below("link")).unwrap();
        symlink("gone", below("broken")).unwrap();
        symlink("circle", below("circle")).unwrap();
        assert_eq!(resolve(&below("link/share")).unwrap(), Some(real.join("disk/share")));
        assert_eq!(resolve(&below("disk")).unwrap(), Some(real.join("disk")));
        assert_eq!(resolve(&below("none")).unwrap(), None);
        assert_eq!(resolve(&below("broken")).unwrap(), None);
        assert!(resolve(&below("circle")).is_err());
    }

    #[tokio::test]
    async fn what_the_child_says_is_what_is_seen() {
        let path = Path::new("/share/mnvm.img");
        let said = serde_json::to_string(&Seen::File { bytes: 7 }).unwrap();
        let probe = scripted(&format!("test \"$1\" = /share/mnvm.img && echo '{said}'"), LONG);
        assert_eq!(probe.see(&Children::new(), path).await, Ok(Seen::File { bytes: 7 }));
    }

    #[tokio::test]
    async fn a_look_that_hangs_fails_or_babbles_is_not_known_and_never_absent() {
        let path = Path::new("/share/mnvm.img");
        let children = Children::new();
        for script in ["exit 1", "echo nonsense", "true", "kill -9 $$"] {
            let seen = scripted(script, LONG).see(&children, path).await;
            assert!(matches!(image(seen), Observed::Unknown(_)), "{script}");
        }
        let hanging = scripted("exec cat /dev/zero >/dev/null", Duration::from_millis(50));
        let Observed::Unknown(why) = image(hanging.see(&children, path).await) else { panic!("known") };
        assert!(why.contains("/share/mnvm.img") && why.contains("0.05 s"), "{why}");
    }

    #[test]
    fn an_error_from_the_share_is_not_a_missing_image() {
        let stale = Seen::Failed { reason: "Stale file handle".to_owned() };
        assert_eq!(image(Ok(stale)), Observed::unknown("Stale file handle"));
    }
}
