//! What a keeper leaves behind when it is stopped while a copy of the VM is alive: somebody who obeys the last
//! deadline until another keeper does.
//!
//! It renews nothing and speaks to nobody. It goes as soon as the state file shows that a new keeper has renewed.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use zsha_crds::records::LeaseTimings;
use zsha_crds::{ClusterName, VmName};
use zsha_runtime::Clock;
use zsha_runtime::lease::Memory;

use super::StateFile;
use super::copies::{Copies, ProcCopies};
use super::enforce::{Alarm, CALM_AFTER, Enforce, enforce, pause};
use super::killing::{Killing, log};

/// The hidden command that [`run`] stands behind.
pub const COMMAND: &str = "keeper-guard";

/// What follows [`COMMAND`] on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardSettings {
    pub cluster: ClusterName,
    /// The directory of this cluster's keeper, with the state file in it.
    pub directory: PathBuf,
}

impl GuardSettings {
    fn arguments(&self) -> [OsString; 5] {
        let directory = self.directory.clone().into_os_string();
        [COMMAND.into(), "--cluster".into(), self.cluster.as_str().into(), "--directory".into(), directory]
    }
}

/// A guard that has not said that it stands by then does not.
const READY_WITHIN: Duration = Duration::from_secs(2);
const READY: &str = "ready";

/// Starts a guard and returns when it stands. `program` understands [`COMMAND`].
pub(super) fn post(program: &Path, settings: &GuardSettings) -> anyhow::Result<u32> {
    let mut child = Command::new(program)
        .args(settings.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a guard")?;
    let output = child.stdout.take().context("a guard without output")?;
    let (say, hear) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        // Nobody waits any more if it came too late.
        let _ = say.send(read.map(|_| line));
    });
    match hear.recv_timeout(READY_WITHIN) {
        Ok(Ok(line)) if line.trim_end() == READY => Ok(child.id()),
        outcome => {
            child.kill().context("a guard that does not stand cannot be ended")?;
            child.wait()?;
            anyhow::bail!("the guard does not stand: {outcome:?}")
        }
    }
}

/// The guard itself: the hidden command's whole work.
pub fn run(settings: &GuardSettings) -> anyhow::Result<()> {
    // Fails only for a leader of a process group, which has a terminal and a person before it.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    // Once asked for, these no longer end the process: whoever stops the service must not stop its guard.
    let _ignored = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).is_ok());
    let file = StateFile::in_directory(&settings.directory);
    let last = file.read().unwrap_or(None);
    let copies = ProcCopies::new(VmName::management().domain_uuid(&settings.cluster));
    let alarm = Alarm::new()?;
    let mut output = std::io::stdout();
    writeln!(output, "{READY}")?;
    output.flush()?;
    let outcome = watch_over(&file, last.as_ref(), &copies, &alarm);
    drop(entered);
    tracing::info!(?outcome, "guard relieved");
    Ok(())
}

/// Why a guard went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relieved {
    /// Another keeper has written the state file.
    NewKeeper,
    /// The deadline has passed, and it has been quiet for a while.
    AllDead,
}

fn watch_over(file: &StateFile, last: Option<&Memory>, copies: &dyn Copies, alarm: &Alarm) -> Relieved {
    let clock = Clock::Boottime;
    let kill_within = last.map_or(LeaseTimings::FAST, |memory| memory.timings).kill();
    let deadline = last.and_then(|memory| memory.deadline);
    let mut killing = Killing::default();
    let mut clear_since = None;
    loop {
        // A file that has become unreadable is no new keeper.
        if file.read().is_ok_and(|now| now.is_some() && now.as_ref() != last) {
            return Relieved::NewKeeper;
        }
        let now = clock.now();
        let wake = match enforce(now, deadline) {
            Enforce::Valid { until } => until,
            Enforce::Kill { overdue } => {
                let round = killing.round(copies, now, kill_within);
                round.reports.iter().for_each(log);
                clear_since = if round.clear { clear_since.or(Some(now)) } else { None };
                if clear_since.is_some_and(|since| now.since(since) > CALM_AFTER) {
                    return Relieved::AllDead;
                }
                now + pause(overdue, round.clear)
            }
        };
        alarm.wait(wake, None::<&OwnedFd>);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use zsha_runtime::Moment;

    use super::*;
    use crate::keeper::copies::tests::Impostor;

    const K: Duration = LeaseTimings::FAST.kill();

    fn memory(deadline: Moment, seq: u64) -> Memory {
        Memory {
            key: None,
            boot_id: "boot".to_owned(),
            incarnation: Uuid::from_u128(1),
            epoch: 1,
            seq,
            deadline: Some(deadline),
            timings: LeaseTimings::FAST,
            fence: None,
        }
    }

    fn guarded(deadline: Moment) -> (tempfile::TempDir, StateFile, Impostor, thread::JoinHandle<Relieved>) {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(directory.path());
        file.write(&memory(deadline, 1)).unwrap();
        let uuid = Uuid::new_v4();
        let qemu = Impostor::qemu(uuid);
        let (watched, last) = (file.clone(), memory(deadline, 1));
        let guard = thread::spawn(move || {
            watch_over(&watched, Some(&last), &ProcCopies::new(uuid), &Alarm::new().unwrap())
        });
        (directory, file, qemu, guard)
    }

    #[test]
    fn a_guard_kills_at_the_last_deadline() {
        let deadline = Clock::Boottime.now() + Duration::from_millis(300);
        let (_directory, _file, qemu, _guard) = guarded(deadline);
        assert!(qemu.dies_within(Duration::from_millis(300) + K));
        assert!(Clock::Boottime.now() >= deadline);
    }

    #[test]
    fn a_guard_goes_and_touches_nothing_when_a_new_keeper_has_renewed() {
        let deadline = Clock::Boottime.now() + Duration::from_millis(300);
        let (_directory, file, qemu, guard) = guarded(deadline);
        file.write(&memory(deadline + Duration::from_secs(6), 2)).unwrap();
        assert_eq!(guard.join().unwrap(), Relieved::NewKeeper);
        assert!(qemu.lives());
    }

    #[test]
    fn a_guard_without_any_memory_kills_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let uuid = Uuid::new_v4();
        let qemu = Impostor::qemu(uuid);
        let file = StateFile::in_directory(directory.path());
        thread::spawn(move || watch_over(&file, None, &ProcCopies::new(uuid), &Alarm::new().unwrap()));
        assert!(qemu.dies_within(K));
    }

    #[test]
    fn a_program_that_never_says_it_stands_is_no_guard() {
        let settings = GuardSettings { cluster: ClusterName::new("c").unwrap(), directory: "/run".into() };
        assert!(post(Path::new("/bin/false"), &settings).is_err());
        assert!(post(Path::new("/nonexistent"), &settings).is_err());
    }
}
