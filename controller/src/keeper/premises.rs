//! The keeper's directory in `/run`, which others may wipe while it lives (a clean-up that went too far, a unit with
//! `RuntimeDirectory=`): its lock, its socket and the room for its state file. Each of them is made again where it is
//! gone, so that the controller hears its keeper and a keeper started anew finds what this one remembers.
//!
//! Two things ensure that there is one keeper: a lock on a file, and a name in the kernel's own list of sockets, which
//! lives as long as the process and is not a file. Two keepers of one node would be safe, since each obeys its own
//! deadline and both write by cas; but a second one that finds no memory ends the VM at once.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::fs::FlockOperation;
use tokio::net::UnixListener;

use super::LocalLease;
use super::names::{self, Holder};
use super::socket;

/// The pause between two looks. It is shorter than the patience of all that listen to a keeper.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Answers the controller for ever, from a new socket where the old one is gone.
pub(super) async fn answer(mut premises: Premises, mut listener: UnixListener, line: LocalLease) {
    loop {
        listener = tokio::select! {
            biased;
            again = premises.lost() => again,
            () = socket::serve(listener, line.clone()) => return,
        };
    }
}

/// The identity of a file, whatever stands under its name by now.
type Inode = (u64, u64);

/// The things that a keeper holds for as long as it lives.
#[derive(Debug)]
pub(super) struct Premises {
    directory: PathBuf,
    lock: File,
    /// The name is held and never answered.
    _name: Option<StdListener>,
    socket: Option<Inode>,
    trouble: Option<String>,
}

impl Premises {
    /// Claims the directory: one keeper for each cluster and host. It is an error if there is another keeper.
    pub(super) fn claim(directory: &Path) -> anyhow::Result<Self> {
        let name = claim_name(directory)?;
        make(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let path = lock_path(directory);
        let lock = lock(&path)
            .with_context(|| format!("cannot open {}", path.display()))?
            .with_context(|| format!("another keeper holds {}", path.display()))?;
        Ok(Self { directory: directory.to_owned(), lock, _name: name, socket: None, trouble: None })
    }

    /// Binds the socket anew.
    pub(super) fn bind(&mut self) -> io::Result<UnixListener> {
        let path = socket_path(&self.directory);
        let listener = socket::bind(&path)?;
        self.socket = Some(inode(&fs::symlink_metadata(&path)?));
        Ok(listener)
    }

    /// Returns when the socket had to be bound again, which is then to be served instead.
    pub(super) async fn lost(&mut self) -> UnixListener {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            match self.mend() {
                Ok(listener) => {
                    if self.trouble.take().is_some() {
                        tracing::info!(directory = %self.directory.display(), "the keeper's directory is whole again");
                    }
                    if let Some(listener) = listener {
                        return listener;
                    }
                }
                Err(error) => self.say(format!("{error:#}")),
            }
        }
    }

    /// Makes again what is gone. Returns a listener, if that was the socket.
    fn mend(&mut self) -> anyhow::Result<Option<UnixListener>> {
        self.mend_lock()?;
        let path = socket_path(&self.directory);
        if self.socket.is_some() && self.socket == there(&path)? {
            return Ok(None);
        }
        let listener = self.bind().with_context(|| format!("cannot bind {} again", path.display()))?;
        tracing::warn!(socket = %path.display(), "the keeper's socket was gone; it is bound again");
        Ok(Some(listener))
    }

    fn mend_lock(&mut self) -> anyhow::Result<()> {
        let path = lock_path(&self.directory);
        if there(&path)? == Some(inode(&self.lock.metadata()?)) {
            return Ok(());
        }
        make(&self.directory).with_context(|| format!("cannot make {} again", self.directory.display()))?;
        let lock = lock(&path).with_context(|| format!("cannot open {}", path.display()))?;
        self.lock = lock.with_context(|| {
            format!(
                "the directory was wiped, and by now another keeper holds {}: end one of the two; this one goes on \
                 renewing and enforcing by its own deadline, and leaves the socket to the other",
                path.display()
            )
        })?;
        tracing::warn!(lock = %path.display(), "the keeper's lock was gone; it is taken again");
        Ok(())
    }

    /// Logs the trouble once, until it changes.
    fn say(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::error!(trouble, "the keeper's directory cannot be made whole; it is tried again");
            self.trouble = Some(trouble);
        }
    }
}

fn lock_path(directory: &Path) -> PathBuf {
    directory.join("keeper.lock")
}

pub(super) fn socket_path(directory: &Path) -> PathBuf {
    directory.join("keeper.sock")
}

/// Makes the directory, for root alone.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

/// Opens and locks the file. The inner error means that another process has it.
fn lock(path: &Path) -> io::Result<rustix::io::Result<File>> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Ok(file)),
        Err(held @ rustix::io::Errno::WOULDBLOCK) => Ok(Err(held)),
        Err(error) => Err(error.into()),
    }
}

fn inode(metadata: &fs::Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}

/// The identity of the file under this name. None: there is no file.
fn there(path: &Path) -> io::Result<Option<Inode>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(inode(&metadata))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Claims the second lock. Where the name is held by a process that is no keeper of this machine's root, it logs that
/// and returns None: any user may take the name, and must not keep a keeper from starting by that.
fn claim_name(directory: &Path) -> anyhow::Result<Option<StdListener>> {
    let name = names::keeper(directory);
    let address = SocketAddr::from_abstract_name(&name)?;
    match StdListener::bind_addr(&address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name) {
            Ok(holder) if holder.is_ours() => anyhow::bail!(
                "another keeper works in {} (process {}): end that one first",
                directory.display(),
                holder.process.map_or("unknown".to_owned(), |process| process.to_string()),
            ),
            holder => {
                tracing::warn!(
                    name,
                    ?holder,
                    "somebody else holds the keeper's second lock; only the first is kept"
                );
                Ok(None)
            }
        },
        Err(error) => {
            tracing::warn!(name, %error, "the keeper's second lock cannot be had; only the first is kept");
            Ok(None)
        }
    }
}

fn holder(name: &str) -> io::Result<Holder> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { Holder::of(&names::connect(name).await?) })
}

#[cfg(test)]
mod strangers;

#[cfg(test)]
mod tests {
    use zsha_runtime::Clock;

    use super::*;
    use crate::keeper::renew::Notebook;
    use crate::keeper::renew::tests::keeper_on_memory_store;
    use crate::keeper::{Lease, SocketLease, StateFile};

    /// The time from the wipe until all is whole again.
    const WHOLE_WITHIN: Duration = Duration::from_secs(2);

    #[test]
    fn a_second_keeper_does_not_start_whether_the_directory_is_there_or_was_wiped() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("c");
        let first = Premises::claim(&directory).unwrap();
        assert!(Premises::claim(&directory).unwrap_err().to_string().contains("another keeper works in"));
        fs::remove_dir_all(&directory).unwrap();
        assert!(Premises::claim(&directory).is_err());
        drop(first);
        Premises::claim(&directory).unwrap();
    }

    #[test]
    fn a_lock_on_the_file_alone_keeps_a_second_keeper_out_as_well() {
        let root = tempfile::tempdir().unwrap();
        let held = lock(&lock_path(root.path())).unwrap().unwrap();
        let refused = Premises::claim(root.path()).unwrap_err();
        assert!(format!("{refused:#}").contains("another keeper holds"), "{refused:#}");
        drop(held);
        Premises::claim(root.path()).unwrap();
    }

    #[tokio::test]
    async fn after_its_directory_was_wiped_a_keeper_answers_again_and_its_state_is_there() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("c");
        let file = StateFile::in_directory(&directory);
        let mut premises = tokio::task::spawn_blocking({
            let directory = directory.clone();
            move || Premises::claim(&directory).unwrap()
        })
        .await
        .unwrap();
        let listener = premises.bind().unwrap();
        let (line, run) = keeper_on_memory_store(Clock::Boottime, Notebook::file(file.clone()));
        let keeper = tokio::spawn(async move {
            tokio::join!(run, answer(premises, listener, line));
        });
        let lease = SocketLease::new(socket_path(&directory));
        for _ in 0..2 {
            let whole = async {
                let mut look = tokio::time::interval(Duration::from_millis(20));
                while lease.verdict().await.is_err() || !matches!(file.read(), Ok(Some(_))) {
                    look.tick().await;
                }
            };
            tokio::time::timeout(WHOLE_WITHIN, whole).await.expect("whole again");
            assert!(lock(&lock_path(&directory)).unwrap().is_err(), "locked again");
            fs::remove_dir_all(&directory).unwrap();
        }
        keeper.abort();
    }

    #[tokio::test]
    async fn where_another_keeper_has_come_into_the_wiped_directory_its_socket_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("c");
        make(&directory).unwrap();
        let first = lock(&lock_path(&directory)).unwrap().unwrap();
        let mut premises =
            Premises { directory: directory.clone(), lock: first, _name: None, socket: None, trouble: None };
        let _listener = premises.bind().unwrap();
        assert!(premises.mend().unwrap().is_none());
        fs::remove_dir_all(&directory).unwrap();
        make(&directory).unwrap();
        let _other = lock(&lock_path(&directory)).unwrap().unwrap();
        let error = premises.mend().unwrap_err();
        assert!(format!("{error:#}").contains("end one of the two"), "{error:#}");
        assert!(!socket_path(&directory).exists());
    }
}
