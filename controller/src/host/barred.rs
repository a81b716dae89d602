//! Whether QEMU may come to the image, asked of the kernel as the user that libvirt runs it as. Whoever asks gives up
//! root's rights for that user's, and never has them back: only a child asks that has nothing else to do.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use crate::accounts::{self, Account};

/// What keeps QEMU from the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "barred", rename_all = "camelCase")]
pub enum Barred {
    /// A folder above the image that QEMU's user may not enter. libvirt leaves folders as they are.
    Folder { user: String, folder: String },
    /// The file system is mounted read-only here.
    ReadOnly,
    /// QEMU's user may not write the file, and nobody hands it over: root may not write it either, or libvirt is told to
    /// leave files as they are.
    File { user: String },
}

/// The user that libvirt runs QEMU as here, who is not root.
#[derive(Debug, Clone)]
pub(super) struct QemuUser {
    account: Account,
    groups: Vec<u32>,
    /// True if libvirt hands the file over to this user with a start, as it does where nobody forbids it.
    is_given_files: bool,
}

impl QemuUser {
    /// None: it is root, or nobody knows.
    pub(super) fn find() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(Path::new("/").join(path));
        let settings = match read(accounts::QEMU_SETTINGS) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.ok()?,
        };
        let account = accounts::of_qemu(&settings, &read("etc/passwd").ok()?)?;
        let groups = accounts::groups(&account.name, &read("etc/group").unwrap_or_default());
        let is_given_files = accounts::gives_files(&settings);
        (account.user != 0).then_some(Self { account, groups, is_given_files })
    }

    /// Makes this thread that user's. A thread of root's loses what root may with it.
    pub(super) fn become_it(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|group| Gid::from_raw(*group)).collect();
        let user = Uid::from_raw(self.account.user);
        set_thread_groups(&groups)?;
        set_thread_gid(Gid::from_raw(self.account.group))?;
        set_thread_res_uid(user, user, user)?;
        Ok(())
    }
}

fn may(path: &Path, what: Access) -> Result<(), Errno> {
    accessat(CWD, path, what, AtFlags::EACCESS)
}

/// True if this thread's user may read and write the file.
pub(super) fn may_write(path: &Path) -> Result<(), Errno> {
    may(path, Access::READ_OK | Access::WRITE_OK)
}

/// What bars the way. `for_root` is what root was told of the same file; this thread is QEMU's `user` by now. What could
/// not be found out bars nothing.
pub(super) fn by(path: &Path, for_root: Result<(), Errno>, user: &QemuUser) -> Option<Barred> {
    let name = || user.account.name.clone();
    match may_write(path) {
        Err(Errno::ROFS) => Some(Barred::ReadOnly),
        Err(Errno::ACCESS) => match closed(path) {
            Some(folder) => Some(Barred::Folder { user: name(), folder: folder.display().to_string() }),
            None if !user.is_given_files || matches!(for_root, Err(Errno::ACCESS | Errno::PERM)) => {
                Some(Barred::File { user: name() })
            }
            None => None,
        },
        Ok(()) | Err(_) => None,
    }
}

/// The first folder above the file that this thread may not enter.
fn closed(path: &Path) -> Option<PathBuf> {
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    folders.into_iter().find(|folder| may(folder, Access::EXEC_OK) == Err(Errno::ACCESS)).map(Path::to_owned)
}
