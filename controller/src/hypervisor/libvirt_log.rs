//! Reads libvirt's own log of the domain. It is the one place that still says how a process ended, whichever program
//! was away meanwhile. Only its tail is read, and only what libvirt itself wrote counts: QEMU writes into the same
//! file.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;
use zsha_crds::VmName;

use crate::hypervisor::OffReason;

/// The length of the tail. A start writes some 6 KiB, an end one line.
const TAIL: u64 = 64 << 10;

/// The time for which the log is asked how the VM has ended, where it does not answer. A caller that still does not
/// know then takes the VM to have been moved away.
pub(crate) const UNREAD_PATIENCE: Duration = Duration::from_secs(60);

/// The log of the domain of this name, in the directory where libvirt keeps those of QEMU's.
pub(crate) fn of(directory: &Path, name: &VmName) -> PathBuf {
    directory.join(format!("{name}.log"))
}

/// Reads how the last process that came to be has ended. None where the log does not say that it has, or tells of
/// another domain: the log is named after the domain's name, which may have been another cluster's before.
pub(crate) fn last_end(log: &Path, uuid: Uuid) -> io::Result<Option<OffReason>> {
    let tail = tail(log)?;
    Ok(if is_of_another(&tail, uuid) { None } else { read(&tail) })
}

/// The same, but after a start that came to nothing the end is `Unknown`.
#[cfg(any(test, feature = "libvirt"))]
pub(crate) fn last_end_or_failed_start(log: &Path, uuid: Uuid) -> io::Result<Option<OffReason>> {
    let tail = tail(log)?;
    let failed = tail.lines().rev().find_map(told_by) == Some(Told::StartFailed);
    Ok(match is_of_another(&tail, uuid) {
        true => None,
        false if failed => Some(OffReason::Unknown),
        false => read(&tail),
    })
}

fn tail(log: &Path) -> io::Result<String> {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let mut file = OpenOptions::new().read(true).custom_flags(nonblock).open(log)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

/// Reads how the process before the one that was started last has ended. None where the log does not say so.
pub(crate) fn end_before_last_start(log: &Path, uuid: Uuid) -> io::Result<Option<OffReason>> {
    Ok(read_before_start(&tail(log)?, uuid))
}

/// True if the log is of another domain, by the command line that was written last, where one is in the tail.
fn is_of_another(tail: &str, uuid: Uuid) -> bool {
    let said = tail.lines().rev().find_map(|line| line.trim_start().strip_prefix("-uuid "));
    let said = said.and_then(|rest| rest.split_whitespace().next()?.parse::<Uuid>().ok());
    said.is_some_and(|said| said != uuid)
}

/// The things that one line can tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Start,
    /// The start before this line has come to nothing.
    StartFailed,
    End(OffReason),
}

/// Reads the end by the last line that tells of a start or an end: after a start, nothing is known of an end. Starts
/// that came to nothing change nothing of how it ended before them.
fn read(tail: &str) -> Option<OffReason> {
    let mut told = tail.lines().rev().filter_map(told_by);
    loop {
        match told.next()? {
            Told::Start => return None,
            Told::End(reason) => return Some(reason),
            Told::StartFailed => match told.next()? {
                Told::Start | Told::StartFailed => {}
                Told::End(reason) => return Some(reason),
            },
        }
    }
}

/// Reads the end by the line before the last start that tells of a start or an end. Starts between them that came to
/// nothing change nothing.
fn read_before_start(tail: &str, uuid: Uuid) -> Option<OffReason> {
    let lines: Vec<&str> = tail.lines().collect();
    let mut told = lines.iter().enumerate().rev().filter_map(|(at, line)| Some((at, told_by(line)?)));
    while told.next()?.1 == Told::Start {
        match told.next()? {
            (at, Told::End(reason)) => {
                return (!is_of_another(&lines[..at].join("\n"), uuid)).then_some(reason);
            }
            (_, Told::StartFailed) => {}
            (_, Told::Start) => return None,
        }
    }
    None
}

/// Reads one line. None: it tells of neither.
fn told_by(line: &str) -> Option<Told> {
    let said = after_time(line)?;
    if said.starts_with("starting up libvirt version") || said == "starting up" {
        return Some(Told::Start);
    }
    Some(Told::End(match said.strip_prefix("shutting down")? {
        ", reason=shutdown" => OffReason::Shutdown,
        // The daemon ended a process that it could not talk to any more.
        ", reason=crashed" | ", reason=daemon" => OffReason::Died,
        ", reason=destroyed" => OffReason::Destroyed,
        ", reason=migrated" => OffReason::Migrated,
        ", reason=failed" => return Some(Told::StartFailed),
        // A guest that was saved, and what a later libvirt may say.
        _ => OffReason::Unknown,
    }))
}

/// The text after `2026-11-29 14:30:00.123+0000: `, which libvirt puts before its own lines and QEMU before none.
fn after_time(line: &str) -> Option<&str> {
    const SHAPE: &[u8] = b"0000-00-00 00:00:00.000+0000: ";
    let (time, said) = line.split_at_checked(SHAPE.len())?;
    let fits = |(byte, shape): (u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        shape => byte == *shape,
    };
    time.bytes().zip(SHAPE).all(fits).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "2026-11-29 14:30:00.123+0000: starting up libvirt version: 9.0.0, package: 4, qemu version: 10.0.2\n\
        LC_ALL=C \\\n/usr/bin/qemu-system-x86_64 \\\n-name guest=mnvm \\\n";

    const OURS: Uuid = Uuid::from_u128(1);

    #[test]
    fn what_ended_another_domain_of_the_name_says_nothing_of_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("mnvm.log");
        let of = |uuid: Uuid| format!("{START}-uuid {uuid} \\\n{}", end("shutdown"));
        let (ours, other) = (of(OURS), of(Uuid::from_u128(2)));
        for (text, ended) in [
            (other.clone(), None),
            (format!("{ours}{other}"), None),
            (format!("{other}{ours}"), Some(OffReason::Shutdown)),
        ] {
            std::fs::write(&log, text).unwrap();
            assert_eq!(last_end(&log, OURS).unwrap(), ended);
            assert_eq!(last_end_or_failed_start(&log, OURS).unwrap(), ended);
        }
    }

    fn end(reason: &str) -> String {
        format!("2026-11-29 14:31:00.123+0000: shutting down, reason={reason}\n")
    }

    #[test]
    fn the_last_end_is_told_by_libvirts_word_for_it() {
        for (word, reason) in [
            ("shutdown", OffReason::Shutdown),
            ("crashed", OffReason::Died),
            ("daemon", OffReason::Died),
            ("destroyed", OffReason::Destroyed),
            ("migrated", OffReason::Migrated),
            ("failed", OffReason::Shutdown),
            ("saved", OffReason::Unknown),
            ("of a later version", OffReason::Unknown),
        ] {
            assert_eq!(
                read(&format!("{START}{}{START}{}", end("shutdown"), end(word))),
                Some(reason),
                "{word}"
            );
        }
    }

    #[test]
    fn an_end_before_the_last_start_says_nothing() {
        assert_eq!(read(&format!("{START}{}{START}", end("shutdown"))), None);
        assert_eq!(read(START), None);
        assert_eq!(read(""), None);
        assert_eq!(read(&format!("{START}{}", end("failed"))), None, "there was none before it");
        let failed = format!("{START}{}", end("failed"));
        let moved = format!("{START}{}{failed}{failed}", end("migrated"));
        assert_eq!(read(&moved), Some(OffReason::Migrated), "starts that came to nothing hide nothing");
        assert_eq!(read(&format!("{START}{failed}")), None);
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("mnvm.log");
        std::fs::write(&log, moved).unwrap();
        assert_eq!(last_end(&log, OURS).unwrap(), Some(OffReason::Migrated));
        assert_eq!(last_end_or_failed_start(&log, OURS).unwrap(), Some(OffReason::Unknown));
    }

    #[test]
    fn how_it_ended_before_the_last_start_is_told_by_the_line_before_that() {
        for (text, ended) in [
            (format!("{START}{}{START}", end("migrated")), Some(OffReason::Migrated)),
            (format!("{START}{}{START}", end("destroyed")), Some(OffReason::Destroyed)),
            (format!("{START}{}{START}{START}", end("migrated")), None),
            (format!("{START}{}{START}{}{START}", end("migrated"), end("failed")), Some(OffReason::Migrated)),
            (format!("{START}{}{START}{}{START}", end("migrated"), end("saved")), Some(OffReason::Unknown)),
            (format!("{}{START}", end("failed")), None),
            (format!("{START}{}", end("migrated")), None),
            (START.to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(read_before_start(&text, OURS), ended, "{text}");
        }
        let of = |uuid: Uuid| format!("{START}-uuid {uuid} \\\n{}", end("migrated"));
        for (uuid, ended) in [(OURS, Some(OffReason::Migrated)), (Uuid::from_u128(2), None)] {
            let text = format!("{}{START}-uuid {OURS} \\\n", of(uuid));
            assert_eq!(read_before_start(&text, OURS), ended, "what was called so before");
        }
    }

    #[test]
    fn only_libvirts_own_lines_count() {
        let forged = "qemu-system-x86_64: 2026-11-29 14:31:00.123+0000: shutting down, reason=shutdown\n\
             shutting down, reason=shutdown\n2026-11-29T14:31:00.123456Z shutting down, reason=shutdown\n";
        assert_eq!(read(&format!("{START}{forged}")), None);
        let talk = "2026-11-29T14:31:00Z qemu-system-x86_64: terminating on signal 15 from pid 77\n";
        assert_eq!(read(&format!("{START}{talk}{}{talk}", end("destroyed"))), Some(OffReason::Destroyed));
    }

    #[test]
    fn of_a_long_log_the_tail_is_read_and_one_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("mnvm.log");
        assert!(last_end(&log, OURS).is_err());
        std::fs::write(&log, format!("{START}{}", "x".repeat(200_000))).unwrap();
        assert_eq!(last_end(&log, OURS).unwrap(), None);
        std::fs::write(&log, format!("{START}{}\n{}", "x".repeat(200_000), end("shutdown"))).unwrap();
        assert_eq!(last_end(&log, OURS).unwrap(), Some(OffReason::Shutdown));
        assert!(last_end(directory.path(), OURS).is_err());
    }
}
