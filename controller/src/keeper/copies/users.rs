//! Says which users' processes may be a copy of the VM: root's, this program's own user's, and those of the user that
//! libvirt runs QEMU as.
//!
//! The users are read from files of the host, which may hang with its disk. So the thread that scans never reads them:
//! a thread of its own does, and until it has, every user counts.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use zsha_runtime::{Clock, Moment};

use crate::accounts;

/// The time for which the list is believed. An administrator who changes `user` in libvirt's settings restarts libvirtd
/// after it.
const BELIEVED_FOR: Duration = Duration::from_secs(10);
/// The list is read anew after this, while it is asked for.
const READ_EVERY: Duration = Duration::from_secs(3);

/// The number that the kernel shows in the place of a user that this user namespace does not have: it may be any user.
const OVERFLOW: u32 = 65_534;

/// The users that count, as last read.
#[derive(Debug, Clone, Default)]
pub(super) struct Users {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    users: BTreeSet<u32>,
    read: Option<Moment>,
    tried: Option<Moment>,
}

impl Users {
    /// The users that count. None: they are not known just now, so that every user counts. This never waits for a disk.
    pub(super) fn that_count(&self) -> Option<BTreeSet<u32>> {
        let now = Clock::Boottime.now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = known.tried.is_none_or(|tried| now.since(tried) >= READ_EVERY);
        if is_due {
            known.tried = Some(now);
        }
        let users = known.read.filter(|read| now.since(*read) < BELIEVED_FOR).map(|_| known.users.clone());
        // The thread that kills asks here too: nobody makes a thread while it may be waiting.
        drop(known);
        if is_due {
            let known = Arc::clone(&self.known);
            // One that cannot be started leaves it unknown.
            let _ = thread::Builder::new().name("users".to_owned()).stack_size(256 << 10).spawn(move || {
                let begun = Clock::Boottime.now();
                if let Ok(users) = read(Path::new("/")) {
                    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                    (known.users, known.read) = (users, Some(begun));
                }
            });
        }
        users
    }

    /// Says when the list was last begun to be read, and lets it be due again.
    #[cfg(test)]
    pub(super) fn becomes_due(&self) -> Option<Moment> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).tried.take()
    }

    /// The users where no file can be read.
    #[cfg(test)]
    pub(super) fn never_read() -> Self {
        let known = Known { tried: Some(Moment::from_nanos(u64::MAX / 2)), ..Known::default() };
        Self { known: Arc::new(Mutex::new(known)) }
    }

    #[cfg(test)]
    pub(super) fn known_to_be(users: impl IntoIterator<Item = u32>) -> Self {
        let far = Some(Moment::from_nanos(u64::MAX / 2));
        let known = Known { users: users.into_iter().collect(), read: far, tried: far };
        Self { known: Arc::new(Mutex::new(known)) }
    }
}

/// Reads the users from the files below this root.
fn read(root: &Path) -> io::Result<BTreeSet<u32>> {
    let settings = match fs::read_to_string(root.join(accounts::QEMU_SETTINGS)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        other => other?,
    };
    let passwd = fs::read_to_string(root.join("etc/passwd"))?;
    let map = fs::read_to_string(root.join("proc/self/uid_map"))?;
    let mut users = of_qemu(&settings, &passwd)?;
    users.extend([0, rustix::process::geteuid().as_raw()]);
    if !sees_every_user(&map) {
        users.insert(OVERFLOW);
    }
    Ok(users)
}

/// Works out the users by libvirt's settings and the list of accounts. An account that is not in the list (of a
/// directory service, for instance) is an error: its number is not known.
fn of_qemu(settings: &str, passwd: &str) -> io::Result<BTreeSet<u32>> {
    let number = |name: &str| accounts::account(name, passwd).map(|account| account.user);
    let mut users: BTreeSet<u32> = accounts::USUAL.iter().filter_map(|name| number(name)).collect();
    for named in accounts::named(settings) {
        // As libvirt reads it: a name first, and a number where there is no such name or a plus says so.
        let user = number(named).or_else(|| named.trim_start_matches('+').parse().ok());
        let user =
            user.ok_or_else(|| io::Error::other(format!("QEMU's user {named} has no account here")))?;
        users.insert(user);
    }
    Ok(users)
}

/// True if every user of the machine has a number here, as outside of every container.
fn sees_every_user(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str = "root:x:0:0::/root:/bin/sh\nlibvirt-qemu:x:64055:108::/:/bin/false\n\
        kvm-user:x:1007:1007::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";

    #[test]
    fn the_users_of_qemu_are_the_usual_one_and_who_libvirts_settings_name() {
        let of = |settings: &str| of_qemu(settings, ACCOUNTS).map(Vec::from_iter);
        assert_eq!(of("").unwrap(), [64_055]);
        assert_eq!(of("#user = \"nobody\"\n").unwrap(), [64_055]);
        assert_eq!(of("user = \"kvm-user\"\nuser_agent = \"x\"\n").unwrap(), [1007, 64_055]);
        assert_eq!(of("  user=\"+123\" # ours\n").unwrap(), [123, 64_055]);
        assert_eq!(of("user = '456'\n").unwrap(), [456, 64_055]);
        assert!(of("user = \"of-a-directory\"\n").is_err(), "nobody knows its number");
    }

    #[test]
    fn where_not_every_user_has_a_number_the_one_that_stands_for_all_others_counts() {
        assert!(sees_every_user("         0          0 4294967295\n"));
        assert!(!sees_every_user("         0     100000      65536\n"));
    }

    #[test]
    fn files_that_cannot_be_read_leave_it_unknown() {
        let root = tempfile::tempdir().unwrap();
        assert!(read(root.path()).is_err(), "no list of accounts");
        assert!(read(Path::new("/")).unwrap().contains(&0));
    }
}
