//! Reads from `/proc/self/mountinfo` what is mounted where, and runs mount(8) in a child that can be left behind.
//!
//! Reading the table touches no file system. [`super::probe`] finds out whether a file system answers.

mod same;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;
use tokio::sync::watch;

use super::child::{Children, Ended};
use super::{HostError, MountFact, MountWant};

const TABLE: &str = "/proc/self/mountinfo";

/// The file system that stands where an automount has not been entered yet.
pub(super) const AUTOMOUNT: &str = "autofs";

/// The time for mount(8), which tries an NFS server that is away for two minutes. A mount that takes longer is tried
/// again later.
const MOUNT_WITHIN: Duration = Duration::from_secs(30);

/// The pause before following the table again when that failed.
const FOLLOW_AGAIN: Duration = Duration::from_secs(5);

pub(crate) use same::{differing, read_only};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mounted {
    target: PathBuf,
    fs_type: String,
    source: String,
    options: String,
}

/// The mount at `target`, which is the want's own or where that leads: the table knows no links. Bind mounts are taken
/// by their target alone, since the table does not name their source.
pub(super) fn fact(want: &MountWant, target: &Path) -> io::Result<MountFact> {
    let table = std::fs::read(TABLE)?;
    let mounts = parse(&table).ok_or_else(|| io::Error::other(format!("{TABLE} makes no sense")))?;
    // The kernel has the device itself, where fstab(5) may have a link to it.
    let device = want.source.starts_with("/dev/").then(|| std::fs::canonicalize(&want.source).ok()).flatten();
    let source = device.map_or_else(|| want.source.clone(), |device| device.display().to_string());
    let fact = compare(&MountWant { source, ..want.clone() }, target, &mounts);
    Ok(match fact {
        // By its own name, as a device mapper has it.
        MountFact::Other { .. } => compare(want, target, &mounts),
        fact => fact,
    })
}

fn compare(want: &MountWant, target: &Path, mounts: &[Mounted]) -> MountFact {
    // The last one covers those before it.
    let Some(there) = mounts.iter().rev().find(|mounted| mounted.target == target) else {
        return MountFact::NotMounted;
    };
    let bind = want.options.split(',').any(|option| matches!(option, "bind" | "rbind"));
    let is_wanted = same::kind(&want.fs_type, &there.fs_type)
        && same::source(&there.fs_type, &want.source, &there.source);
    if bind || is_wanted {
        MountFact::Mounted { fs_type: there.fs_type.clone(), options: there.options.clone() }
    } else {
        MountFact::Other { source: there.source.clone(), fs_type: there.fs_type.clone() }
    }
}

/// Reads all of the table, or nothing: half a table would show mounts as missing.
fn parse(table: &[u8]) -> Option<Vec<Mounted>> {
    table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(line).collect()
}

/// Reads `id parent major:minor root target options [tags...] - type source superblock-options`.
fn line(line: &[u8]) -> Option<Mounted> {
    let mut fields = line.split(|byte| *byte == b' ');
    let target = fields.nth(4)?;
    let options = fields.next()?;
    fields.find(|field| *field == b"-")?;
    let (fs_type, source, more) = (fields.next()?, fields.next()?, fields.next()?);
    let text = |field| String::from_utf8_lossy(&unescape(field)).into_owned();
    Some(Mounted {
        target: PathBuf::from(OsString::from_vec(unescape(target))),
        fs_type: text(fs_type),
        source: text(source),
        options: format!("{},{}", text(options), text(more)),
    })
}

/// Undoes the escapes: space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

/// Makes the directory and mounts. Children do both, since a path below a dead share may hang the process that touches
/// it.
pub(super) async fn mount(children: &Children, want: &MountWant) -> Result<(), HostError> {
    let failed = |reason: String| HostError::Mount { target: want.target.display().to_string(), reason };
    let mut make = Command::new("mkdir");
    make.args(["-p", "--"]).arg(&want.target);
    let mut mount = Command::new("mount");
    mount.arg("-t").arg(&want.fs_type);
    if !want.options.is_empty() {
        mount.arg("-o").arg(&want.options);
    }
    mount.arg("--").arg(&want.source).arg(&want.target);
    for command in [make, mount] {
        let Ended { success, output, errors } =
            children.run(command, MOUNT_WITHIN).await.map_err(|error| failed(error.to_string()))?;
        if !success {
            let said = if errors.trim().is_empty() { output } else { errors };
            return Err(failed(said.trim().to_owned()));
        }
    }
    Ok(())
}

/// Moves the counter when the table changes, and whenever changes may have been missed. It never returns.
pub(super) async fn follow(changes: watch::Sender<u64>) {
    loop {
        if let Err(error) = follow_once(&changes).await {
            tracing::warn!(error = %error, "cannot follow the mount table");
        }
        tokio::time::sleep(FOLLOW_AGAIN).await;
    }
}

async fn follow_once(changes: &watch::Sender<u64>) -> io::Result<()> {
    let table = File::open(TABLE)?;
    #[expect(unsafe_code, reason = "the safe constructors are deprecated")]
    // SAFETY: a `File` owns its descriptor, tells the same one whenever asked, and goes with the `AsyncFd`.
    let table =
        unsafe { AsyncFd::register_with_interest(table, Interest::PRIORITY) }.map_err(io::Error::from)?;
    // What changed before it was opened is no event of it.
    changes.send_modify(|count| *count += 1);
    loop {
        table.ready(Interest::PRIORITY).await?.clear_ready();
        changes.send_modify(|count| *count += 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
22 27 0:21 / /proc rw,nosuid shared:5 - proc proc rw
36 27 98:0 / /srv/two\\040words rw,noatime shared:1 master:2 - ext4 /dev/back\\134slash rw,errors=continue
40 27 0:50 / /share rw,relatime - nfs4 10.0.0.9:/share rw,vers=4.2,hard
43 27 0:53 / /gluster rw,relatime - fuse.glusterfs gl1:/mngt rw,user_id=0,group_id=0
44 27 0:54 / /auto rw,relatime - autofs systemd-1 rw,fd=40,timeout=0,direct
45 44 0:55 / /auto rw,relatime - nfs4 10.0.0.9:/auto rw,vers=4.2
41 27 0:51 / /over rw - tmpfs first rw
42 41 0:52 / /over ro - tmpfs second ro
";

    fn want(source: &str, target: &str, fs_type: &str) -> MountWant {
        MountWant {
            source: source.to_owned(),
            target: target.into(),
            fs_type: fs_type.to_owned(),
            options: String::new(),
        }
    }

    fn seen(want: &MountWant) -> MountFact {
        compare(want, &want.target, &parse(SAMPLE.as_bytes()).unwrap())
    }

    #[test]
    fn a_line_is_read_with_its_escapes_and_both_kinds_of_options() {
        let mounts = parse(SAMPLE.as_bytes()).unwrap();
        assert_eq!(
            mounts[1],
            Mounted {
                target: "/srv/two words".into(),
                fs_type: "ext4".to_owned(),
                source: "/dev/back\\slash".to_owned(),
                options: "rw,noatime,rw,errors=continue".to_owned(),
            }
        );
    }

    #[test]
    fn an_escape_that_is_none_stays_as_it_is() {
        for text in ["\\", "\\04", "\\999", "\\400", "a\\b"] {
            assert_eq!(unescape(text.as_bytes()), text.as_bytes());
        }
        assert_eq!(unescape(b"\\011\\012\\134040"), b"\t\n\\040");
    }

    #[test]
    fn nfs_wants_are_met_by_nfs4_and_a_slash_at_the_end_makes_no_difference() {
        let mounted = MountFact::Mounted {
            fs_type: "nfs4".to_owned(),
            options: "rw,relatime,rw,vers=4.2,hard".to_owned(),
        };
        assert_eq!(seen(&want("10.0.0.9:/share/", "/share", "nfs")), mounted);
        assert_eq!(seen(&want("10.0.0.9:/share", "/share", "nfs4")), mounted);
    }

    #[test]
    fn a_helpers_mount_and_one_over_an_automount_are_what_was_wanted() {
        for (source, target, fs_type) in
            [("gl1:mngt", "/gluster", "glusterfs"), ("10.0.0.9:/auto", "/auto", "nfs4")]
        {
            assert!(matches!(seen(&want(source, target, fs_type)), MountFact::Mounted { .. }), "{target}");
        }
    }

    #[test]
    fn what_is_elsewhere_is_not_mounted_and_what_is_something_else_is_told() {
        assert_eq!(seen(&want("10.0.0.9:/share", "/other", "nfs")), MountFact::NotMounted);
        assert_eq!(
            seen(&want("10.0.0.8:/share", "/share", "nfs")),
            MountFact::Other { source: "10.0.0.9:/share".to_owned(), fs_type: "nfs4".to_owned() }
        );
    }

    #[test]
    fn of_two_mounts_on_one_directory_the_later_counts() {
        assert!(matches!(seen(&want("second", "/over", "tmpfs")), MountFact::Mounted { .. }));
        assert!(matches!(seen(&want("first", "/over", "tmpfs")), MountFact::Other { .. }));
    }

    #[test]
    fn a_table_with_a_line_that_makes_no_sense_is_no_table() {
        assert_eq!(parse(b"36 27 98:0 / /mnt rw - ext4\n"), None);
        assert_eq!(parse(b"garbage\n"), None);
        assert_eq!(parse(b""), Some(Vec::new()));
    }

    #[test]
    fn the_table_of_this_very_machine_is_understood() {
        let proc = want("proc", "/proc", "proc");
        assert!(matches!(fact(&proc, &proc.target).unwrap(), MountFact::Mounted { .. }));
    }
}
