//! Looks at a path that may hang for ever. A child does it, which is this same program under a hidden command. The
//! child writes one line when it begins to look, and then one with what it saw.
//!
//! The child opens and looks; it writes nothing.
//!
//! The outcome is evidence about the storage only where a child has begun to look and waits for the kernel, or was told
//! an error by the storage itself (`Whose`). A child that could not be made, or did not get to run, says nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::ImageFact;
use super::barred::{self, Barred, QemuUser};
use super::child::{Children, Hung, NotEnded};
use super::content::{Content, HEAD};
use crate::errors::Whose;
use crate::observed::Observed;

/// The hidden command; one argument follows, the path.
pub const COMMAND: &str = "probe";

/// The time for an answer. Storage that takes longer cannot carry a VM. One retransmission of NFS over TCP fits.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The thing at a path.
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
        content: Content,
        /// What keeps QEMU from it. None: nothing that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        barred: Option<Barred>,
    },
    /// The answer is an error of the storage: a stale handle, a share that was shut down.
    Failed {
        reason: String,
    },
    /// The answer is an error, and none of the storage's.
    NotLooked {
        reason: String,
    },
}

/// The reason why a look came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotSeen {
    /// The look was begun, and does not come back.
    Hangs(String),
    /// There was no look, which says nothing about the path.
    NotLooked(String),
}

/// The line that the child writes as soon as nothing is left to do but to look.
const LOOKING: &str = "looking";

/// The option before the path for the other question: where it leads.
pub const RESOLVE: &str = "--resolve";

/// Does the child's whole work: says what is at the path, or where it leads.
pub fn run(path: &Path, resolving: bool) -> anyhow::Result<()> {
    // Before the look is begun: should this hang, the path says nothing by that.
    let user = if resolving { None } else { QemuUser::find() };
    println!("{LOOKING}");
    let told = match resolving {
        true => serde_json::to_string(&resolve(path))?,
        false => serde_json::to_string(&see_for_qemu(path, user))?,
    };
    println!("{told}");
    Ok(())
}

/// The place where a path leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "leads", rename_all = "camelCase")]
pub(super) enum Leads {
    To {
        real: PathBuf,
    },
    Nowhere,
    /// The storage gave an error in the place of an answer.
    Failed {
        reason: String,
    },
    NotLooked {
        reason: String,
    },
}

/// Resolves the path to one without links.
fn resolve(path: &Path) -> Leads {
    match fs::canonicalize(path) {
        Ok(real) => Leads::To { real },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Leads::Nowhere,
        Err(error) => match Whose::is(&error) {
            Whose::Storage => Leads::Failed { reason: error.to_string() },
            Whose::Path | Whose::Nobodys => Leads::NotLooked { reason: error.to_string() },
        },
    }
}

fn see(path: &Path) -> Seen {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Seen::Missing,
        Err(error) => return Seen::of(&error),
    };
    // Beyond what the client has in its cache: the file system itself has to answer.
    let answers = match rustix::fs::statfs(path).map_err(io::Error::from) {
        Err(error) if Whose::is(&error) == Whose::Storage => Err(error),
        other if metadata.is_dir() => other.map(drop),
        // One that does not tell of itself lets its files be read all the same.
        _ => Ok(()),
    };
    if let Err(error) = answers {
        return Seen::of(&error);
    }
    if metadata.is_dir() {
        return Seen::Directory;
    }
    if !metadata.is_file() {
        return Seen::NotAFile;
    }
    match content(path) {
        Ok(content) => Seen::File { content, barred: None },
        Err(error) => Seen::of(&error),
    }
}

/// The same, and whether QEMU may come to it. Where root may not look, as on a share that makes root nobody, QEMU's own
/// user may. This process may be that user's afterwards.
fn see_for_qemu(path: &Path, user: Option<QemuUser>) -> Seen {
    let by_root = see(path);
    let may_be_seen = matches!(by_root, Seen::File { .. } | Seen::NotReadable { .. });
    let for_root = if may_be_seen { barred::may_write(path) } else { Ok(()) };
    if for_root == Err(Errno::ROFS)
        && let Seen::File { content, .. } = by_root
    {
        return Seen::File { content, barred: Some(Barred::ReadOnly) };
    }
    let user = user.filter(|user| may_be_seen && user.become_it().is_ok());
    match (user, by_root) {
        (Some(user), Seen::File { content, .. }) => {
            Seen::File { content, barred: barred::by(path, for_root, &user) }
        }
        (Some(user), not_readable @ Seen::NotReadable { .. }) => match see(path) {
            Seen::File { content, .. } => Seen::File { content, barred: barred::by(path, for_root, &user) },
            _ => not_readable,
        },
        (_, by_root) => by_root,
    }
}

fn content(path: &Path) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let mut head = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    // Of the file that is open: before that, NFS may tell the length that the file had for another host a while ago.
    Ok(Content::of(&head, file.metadata()?.len()))
}

impl Seen {
    fn of(error: &io::Error) -> Self {
        let reason = error.to_string();
        match Whose::is(error) {
            Whose::Storage => Self::Failed { reason },
            Whose::Path => Self::NotReadable { reason },
            Whose::Nobodys => Self::NotLooked { reason },
        }
    }
}

/// The looks that did not come back and are not gone yet, by the question.
type Hanging = BTreeMap<(Option<&'static str>, PathBuf), JoinHandle<()>>;

/// The time by which a process that may go is gone, on a busy machine too.
const GOES_WITHIN: Duration = Duration::from_millis(500);
/// The pause between two looks whether it is gone.
const GOING_LOOK: Duration = Duration::from_millis(20);

/// The way to call the child.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    program: PathBuf,
    arguments: Vec<OsString>,
    limit: Duration,
    hanging: Arc<Mutex<Hanging>>,
}

impl Probe {
    /// Calls this program, also after its file has been replaced.
    pub(super) fn new() -> Self {
        Self::by(Path::new("/proc/self/exe"))
    }

    pub(super) fn by(program: &Path) -> Self {
        Self::asking(program, vec![COMMAND.into()], ANSWER_WITHIN)
    }

    fn asking(program: &Path, arguments: Vec<OsString>, limit: Duration) -> Self {
        Self { program: program.to_owned(), arguments, limit, hanging: Arc::default() }
    }

    pub(super) async fn see(&self, children: &Children, path: &Path) -> Result<Seen, NotSeen> {
        self.ask(children, None, path).await
    }

    /// Finds where the path leads, as the mount table has it.
    pub(super) async fn resolve(&self, children: &Children, path: &Path) -> Result<Leads, NotSeen> {
        self.ask(children, Some(RESOLVE), path).await
    }

    /// Asks a child. One look that hangs is enough for a path: while its child cannot even be killed, the path still
    /// hangs. So a path that hangs takes the place of no other.
    async fn ask<T: DeserializeOwned>(
        &self,
        children: &Children,
        question: Option<&'static str>,
        path: &Path,
    ) -> Result<T, NotSeen> {
        let told = |reason: &dyn fmt::Display| format!("looking at {}: {reason}", path.display());
        let not_looked = |reason: &dyn fmt::Display| NotSeen::NotLooked(told(reason));
        let asked = (question, path.to_owned());
        if !self.earlier_is_gone(&asked).await {
            return Err(NotSeen::Hangs(told(&"an earlier look has not come back")));
        }
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(question).arg(path);
        let ended = match children.run(command, self.limit).await {
            Ok(ended) => ended,
            Err(NotEnded::Hangs(hung)) => return Err(self.hangs(asked, hung, &told)),
            Err(why @ (NotEnded::NotStarted(_) | NotEnded::TooMany)) => return Err(not_looked(&why)),
        };
        if !ended.success {
            return Err(not_looked(&ended.errors.trim()));
        }
        let answer = ended.output.lines().last().unwrap_or_default();
        serde_json::from_str(answer).map_err(|error| not_looked(&error))
    }

    /// True if the earlier child is gone. A child that was killed goes once the storage answers, and not at once. It is
    /// given a moment, so that storage that is back is not told as hanging.
    async fn earlier_is_gone(&self, asked: &(Option<&'static str>, PathBuf)) -> bool {
        let gone = async {
            while self.hanging().get(asked).is_some_and(|earlier| !earlier.is_finished()) {
                tokio::time::sleep(GOING_LOOK).await;
            }
        };
        let is_gone = tokio::time::timeout(GOES_WITHIN, gone).await.is_ok();
        self.hanging().retain(|_, earlier| !earlier.is_finished());
        is_gone
    }

    fn hangs(
        &self,
        asked: (Option<&'static str>, PathBuf),
        hung: Hung,
        told: &impl Fn(&dyn fmt::Display) -> String,
    ) -> NotSeen {
        let secs = hung.limit.as_secs_f64();
        if hung.said.lines().next() != Some(LOOKING) || !hung.in_a_call {
            return NotSeen::NotLooked(told(&format!("this host did not get to it within {secs} s")));
        }
        self.hanging().insert(asked, hung.gone);
        NotSeen::Hangs(told(&format!("no answer within {secs} s")))
    }

    fn hanging(&self) -> std::sync::MutexGuard<'_, Hanging> {
        self.hanging.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The image, by what was seen at its path.
pub(super) fn image(seen: Result<Seen, NotSeen>) -> Observed<ImageFact> {
    match seen {
        Ok(Seen::Missing) => Observed::Known(ImageFact::Missing),
        Ok(Seen::Directory | Seen::NotAFile) => Observed::Known(ImageFact::NotAFile),
        Ok(Seen::NotReadable { reason }) => Observed::Known(ImageFact::NotReadable { reason }),
        Ok(Seen::File { barred: Some(barred), .. }) => Observed::Known(ImageFact::Barred(barred)),
        Ok(Seen::File { content, barred: None }) => Observed::Known(ImageFact::Present(content)),
        Ok(Seen::Failed { reason }) | Err(NotSeen::Hangs(reason)) => {
            Observed::Known(ImageFact::NotAnswering { reason })
        }
        Ok(Seen::NotLooked { reason }) | Err(NotSeen::NotLooked(reason)) => Observed::Unknown(reason),
    }
}

/// The same for a file that QEMU only reads, or has open already: what bars others from writing it says nothing.
pub(super) fn image_to_read(seen: Result<Seen, NotSeen>) -> Observed<ImageFact> {
    image(seen.map(|seen| match seen {
        Seen::File { content, .. } => Seen::File { content, barred: None },
        other => other,
    }))
}

/// A probe that runs a script in the place of this program.
#[cfg(test)]
pub(super) fn scripted(script: &str, limit: Duration) -> Probe {
    let arguments = ["-c", script, "probe"].map(OsString::from).to_vec();
    Probe::asking(Path::new("/bin/sh"), arguments, limit)
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
        fs::write(&file, "").unwrap();
        assert_eq!(see(&file), Seen::File { content: Content::Empty, barred: None });
        fs::write(&file, vec![0_u8; 4096]).unwrap();
        assert!(matches!(see(&file), Seen::File { content: Content::Other { .. }, .. }));
        assert_eq!(see(directory.path()), Seen::Directory);
        assert_eq!(see(Path::new("/dev/null")), Seen::NotAFile);
        assert!(matches!(see(&file.join("below")), Seen::NotReadable { .. }));
        // Its first bytes are no page of anybody's: an I/O error, whoever reads.
        assert!(matches!(see(Path::new("/proc/self/mem")), Seen::Failed { .. }));
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
        let to = |real| Leads::To { real };
        assert_eq!(resolve(&below("link/share")), to(real.join("disk/share")));
        assert_eq!(resolve(&below("disk")), to(real.join("disk")));
        assert_eq!(resolve(&below("none")), Leads::Nowhere);
        assert_eq!(resolve(&below("broken")), Leads::Nowhere);
        assert!(matches!(resolve(&below("circle")), Leads::NotLooked { .. }));
    }

    #[tokio::test]
    async fn what_the_child_says_is_what_is_seen() {
        let path = Path::new("/share/mnvm.img");
        let said = serde_json::to_string(&Seen::File { content: Content::Empty, barred: None }).unwrap();
        let probe = scripted(&format!("test \"$1\" = /share/mnvm.img && echo '{said}'"), LONG);
        assert_eq!(
            probe.see(&Children::new(), path).await,
            Ok(Seen::File { content: Content::Empty, barred: None })
        );
    }

    #[tokio::test]
    async fn a_look_that_fails_or_babbles_is_not_known_and_never_absent() {
        let path = Path::new("/share/mnvm.img");
        let children = Children::new();
        for script in ["exit 1", "echo nonsense", "true", "kill -9 $$", "echo looking"] {
            let seen = scripted(script, LONG).see(&children, path).await;
            assert!(matches!(image(seen), Observed::Unknown(_)), "{script}");
        }
        let nobody = Probe::by(Path::new("/nonexistent"));
        assert!(matches!(image(nobody.see(&children, path).await), Observed::Unknown(_)));
    }

    #[tokio::test]
    async fn a_look_that_was_begun_and_waits_for_the_kernel_says_that_the_storage_does_not_answer() {
        let path = Path::new("/share/mnvm.img");
        let children = Children::new();
        let hanging = scripted("echo looking; exec sleep 1000", Duration::from_millis(500));
        let Observed::Known(ImageFact::NotAnswering { reason }) = image(hanging.see(&children, path).await)
        else {
            panic!("not told")
        };
        assert!(reason.contains("/share/mnvm.img") && reason.contains("0.5 s"), "{reason}");
    }

    #[tokio::test]
    async fn a_look_that_never_got_to_run_says_nothing_about_the_storage() {
        let path = Path::new("/share/mnvm.img");
        let children = Children::new();
        // One that is still being started; one that is never let run; one that waits its turn for a processor.
        for script in ["exec sleep 1000", "echo looking; kill -STOP $$", "echo looking; while :; do :; done"]
        {
            let seen = scripted(script, Duration::from_millis(500)).see(&children, path).await;
            let Observed::Unknown(why) = image(seen) else { panic!("{script}") };
            assert!(why.contains("did not get to it"), "{why}");
        }
    }

    #[tokio::test]
    async fn a_path_that_hangs_is_told_so_by_its_first_look_and_takes_one_place_alone() {
        let path = Path::new("/share/mnvm.img");
        let (probe, children) = (scripted("true", LONG), Children::new());
        let never = tokio::spawn(std::future::pending());
        probe.hanging().insert((None, path.to_owned()), never);
        let seen = probe.see(&children, path).await;
        assert!(matches!(&seen, Err(NotSeen::Hangs(why)) if why.contains("has not come back")), "{seen:?}");
        let another = probe.see(&children, Path::new("/another")).await;
        assert!(
            matches!(another, Err(NotSeen::NotLooked(_))),
            "{another:?}: asked, and the script says nothing"
        );
    }

    #[test]
    fn an_error_from_the_share_is_not_a_missing_image_and_one_of_this_process_says_nothing() {
        let of = |errno: rustix::io::Errno| image(Ok(Seen::of(&errno.into())));
        for errno in [rustix::io::Errno::STALE, rustix::io::Errno::IO] {
            assert!(matches!(of(errno), Observed::Known(ImageFact::NotAnswering { .. })), "{errno}");
        }
        for errno in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE, rustix::io::Errno::NOMEM] {
            assert!(matches!(of(errno), Observed::Unknown(_)), "{errno}");
        }
        assert!(matches!(of(rustix::io::Errno::ACCESS), Observed::Known(ImageFact::NotReadable { .. })));
    }
}
