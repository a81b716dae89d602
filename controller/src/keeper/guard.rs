//! The guard: a process that a keeper leaves behind when it is stopped while a copy of the VM is alive. The guard obeys
//! the last deadline until another keeper does.
//!
//! It renews nothing. It was told the deadline when it was posted, and does not take it from the state file, which may
//! not have been writable. It tells the deadline to the keeper that comes next, and goes as soon as that keeper says
//! that it enforces, or the state file shows that it has renewed.

mod handover;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use zsha_crds::records::LeaseTimings;
use zsha_crds::{ClusterName, VmId};
use zsha_runtime::lease::Memory;
use zsha_runtime::{Clock, Moment};

use super::StateFile;
use super::copies::{Copies, ProcCopies};
use super::enforce::{Alarm, CALM_AFTER, Enforce, enforce, pause};
use super::killing::{Killing, log};
use handover::Relief;
pub(super) use handover::Standing;

/// The hidden command that [`run`] stands behind.
pub const COMMAND: &str = "keeper-guard";

/// The arguments after [`COMMAND`] on its command line.
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

/// The time in which a guard says that it obeys the deadline. A guard that has not said it by then does not.
const READY_WITHIN: Duration = Duration::from_secs(2);
const READY: &str = "ready";
/// The longest line that is read. A memory is a few hundred bytes.
const LINE_LIMIT: u64 = 16 << 10;

/// Starts a guard that obeys the deadline of this memory, and returns when it does. `program` understands [`COMMAND`].
pub(super) fn post(program: &Path, settings: &GuardSettings, memory: Option<&Memory>) -> anyhow::Result<u32> {
    let mut child = Command::new(program)
        .args(settings.arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a guard")?;
    let told = child.stdin.take().context("a guard without input")?;
    let output = child.stdout.take().context("a guard without output")?;
    let stands = tell(told, memory).and_then(|()| hear(output, &ready(memory)));
    if let Err(error) = stands {
        child.kill().context("a guard that does not stand cannot be ended")?;
        child.wait()?;
        return Err(error.context("the guard does not stand"));
    }
    Ok(child.id())
}

/// Writes the memory to the guard. A pipe holds many times a memory, so this does not wait for the guard.
fn tell(mut input: ChildStdin, memory: Option<&Memory>) -> anyhow::Result<()> {
    serde_json::to_writer(&mut input, &memory)?;
    writeln!(input)?;
    Ok(())
}

/// The line that a guard writes once it obeys this memory.
fn ready(memory: Option<&Memory>) -> String {
    let deadline = memory.and_then(|memory| memory.deadline);
    format!("{READY} {}", deadline.map_or(0, Moment::as_nanos))
}

fn hear(output: ChildStdout, expected: &str) -> anyhow::Result<()> {
    let (say, heard) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        // Nobody waits any more if it came too late.
        let _ = say.send(read.map(|_| line));
    });
    let outcome = heard.recv_timeout(READY_WITHIN);
    match &outcome {
        Ok(Ok(line)) if line.trim_end() == expected => Ok(()),
        _ => anyhow::bail!("it says {outcome:?} and not '{expected}'"),
    }
}

/// Runs the guard itself: the whole work of the hidden command.
pub fn run(settings: &GuardSettings) -> anyhow::Result<()> {
    // Fails only for a leader of a process group, which has a terminal and a person before it.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    // Once asked for, these no longer end the process: whoever stops the service must not stop its guard.
    let _ignored = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).is_ok());
    let file = StateFile::in_directory(&settings.directory);
    let mut line = String::new();
    std::io::stdin().lock().take(LINE_LIMIT).read_line(&mut line)?;
    let memory: Option<Memory> =
        serde_json::from_str(&line).context("what the keeper believed was not told")?;
    let orders = Orders { memory, shown: file.read().unwrap_or(None) };
    let relief = Relief::new()?;
    if let Err(error) = handover::offer(&settings.directory, orders.memory.clone(), Arc::clone(&relief)) {
        tracing::warn!(%error, "the next keeper can only be told by the state file");
    }
    let copies = ProcCopies::new(VmId::of(&settings.cluster).uuid);
    let alarm = Alarm::new()?;
    let mut output = std::io::stdout();
    // From here on another keeper may start.
    writeln!(output, "{}", ready(orders.memory.as_ref()))?;
    output.flush()?;
    let outcome = watch_over(&file, &orders, &copies, &alarm, &relief);
    drop(entered);
    tracing::info!(?outcome, "guard relieved");
    Ok(())
}

/// The reason why a guard went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relieved {
    /// Another keeper enforces, or has written the state file.
    NewKeeper,
    /// The deadline has passed, and it has been quiet for a while.
    AllDead,
}

/// The state that a guard was posted with.
#[derive(Debug)]
struct Orders {
    /// The memory of its keeper, which the guard obeys.
    memory: Option<Memory>,
    /// The content of the state file before its keeper left. It may be older; what it shows later is a new keeper's.
    shown: Option<Memory>,
}

fn watch_over(
    file: &StateFile,
    orders: &Orders,
    copies: &dyn Copies,
    alarm: &Alarm,
    relief: &Relief,
) -> Relieved {
    let last = orders.memory.as_ref();
    let clock = Clock::Boottime;
    let kill_within = last.map_or(LeaseTimings::FAST, |memory| memory.timings).kill();
    let deadline = last.and_then(|memory| memory.deadline);
    let mut killing = Killing::default();
    let mut clear_since = None;
    loop {
        // A file that has become unreadable is no new keeper.
        let written =
            file.read().is_ok_and(|now| now.is_some() && now != orders.shown && now.as_ref() != last);
        if relief.has_come() || written {
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
        alarm.wait(wake, Some(&relief.bell));
    }
}

#[cfg(test)]
mod strangers;

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use zsha_runtime::store::consul::ConsulSettings;

    use super::*;
    use crate::keeper::copies::tests::Impostor;
    use crate::keeper::process::{self, KeeperSettings};

    const K: Duration = LeaseTimings::FAST.kill();

    pub(super) fn memory(deadline: Moment, seq: u64) -> Memory {
        Memory {
            step_back: None,
            key: None,
            boot_id: "boot".to_owned(),
            incarnation: Uuid::from_u128(1),
            epoch: 1,
            seq,
            deadline: Some(deadline),
            timings: LeaseTimings::FAST,
            fence: None,
            unbroken: None,
            expected: None,
            owned: None,
        }
    }

    fn guarded(deadline: Moment) -> (tempfile::TempDir, StateFile, Impostor, thread::JoinHandle<Relieved>) {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::in_directory(directory.path());
        file.write(&memory(deadline, 1)).unwrap();
        let uuid = Uuid::new_v4();
        let qemu = Impostor::qemu(uuid);
        let last = Some(memory(deadline, 1));
        let (watched, orders) = (file.clone(), Orders { memory: last.clone(), shown: last });
        let guard = thread::spawn(move || {
            let relief = Relief::new().unwrap();
            watch_over(&watched, &orders, &ProcCopies::new(uuid), &Alarm::new().unwrap(), &relief)
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
        let relief = Relief::new().unwrap();
        thread::spawn(move || {
            let orders = Orders { memory: None, shown: None };
            watch_over(&file, &orders, &ProcCopies::new(uuid), &Alarm::new().unwrap(), &relief)
        });
        assert!(qemu.dies_within(K));
    }

    #[test]
    fn a_guard_obeys_what_it_was_told_where_the_state_file_is_older_or_gone() {
        for older in [true, false] {
            let directory = tempfile::tempdir().unwrap();
            let file = StateFile::in_directory(directory.path());
            let now = Clock::Boottime.now();
            if older {
                file.write(&memory(now - Duration::from_secs(9), 1)).unwrap();
            }
            let uuid = Uuid::new_v4();
            let qemu = Impostor::qemu(uuid);
            let last = memory(now + Duration::from_millis(600), 2);
            let orders = Orders { memory: Some(last), shown: file.read().unwrap() };
            let relief = Relief::new().unwrap();
            thread::spawn(move || {
                watch_over(&file, &orders, &ProcCopies::new(uuid), &Alarm::new().unwrap(), &relief)
            });
            assert!(!qemu.dies_within(Duration::from_millis(300)), "killed before what it was told");
            assert!(qemu.dies_within(Duration::from_millis(300) + K));
        }
    }

    #[test]
    fn the_next_keeper_learns_from_the_guard_what_no_file_says_and_relieves_it() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Standing::find(directory.path()).is_none(), "nobody stands there");
        let uuid = Uuid::new_v4();
        let qemu = Impostor::qemu(uuid);
        let believed = memory(Clock::Boottime.now() + Duration::from_secs(60), 7);
        let relief = Relief::new().unwrap();
        handover::offer(directory.path(), Some(believed.clone()), Arc::clone(&relief)).unwrap();
        let file = StateFile::in_directory(directory.path());
        let orders = Orders { memory: Some(believed.clone()), shown: None };
        let guard = thread::spawn(move || {
            watch_over(&file, &orders, &ProcCopies::new(uuid), &Alarm::new().unwrap(), &relief)
        });
        drop(Standing::find(directory.path()).unwrap());
        let standing = Standing::find(directory.path()).unwrap();
        assert_eq!(standing.memory, Some(believed));
        assert!(!guard.is_finished(), "a keeper that only asked, and went, relieves nobody");
        standing.relieve();
        assert_eq!(guard.join().unwrap(), Relieved::NewKeeper);
        assert!(qemu.lives());
    }

    /// Settings of a keeper that cannot be started: it has no address of Consul, or else no room for its socket.
    fn unstartable(root: &Path, cluster: &str, consul: Option<&str>) -> KeeperSettings {
        let word = |name: &str| {
            let path = root.join(name);
            std::fs::write(&path, name).unwrap();
            path
        };
        let settings = KeeperSettings {
            cluster: ClusterName::new(cluster).unwrap(),
            node: zsha_crds::NodeName::new("n1").unwrap(),
            consul: ConsulSettings::new(consul.iter().map(|address| address.parse().unwrap()).collect()),
            run_dir: root.join("run"),
            machine_id: word("machine"),
            boot_id: word("boot"),
            watchdog: None,
            libvirt_logs: root.to_owned(),
        };
        // What lies there is a directory, which nothing replaces.
        std::fs::create_dir_all(process::socket_path(&settings.run_dir, &settings.cluster)).unwrap();
        settings
    }

    #[test]
    fn a_keeper_that_fails_to_start_leaves_the_guard_where_it_stands() {
        let root = tempfile::tempdir().unwrap();
        for (cluster, consul, why) in [
            ("early", None, "no address of Consul was given"),
            ("late", Some("http://127.0.0.1:1"), "cannot listen for the controller"),
        ] {
            let settings = unstartable(root.path(), cluster, consul);
            let directory = process::directory(&settings.run_dir, &settings.cluster);
            // Of the boot that this keeper finds, so that it takes the deadline over and ends nothing.
            let believed = memory(Clock::Boottime.now() + Duration::from_secs(3_600), 7);
            let relief = Relief::new().unwrap();
            handover::offer(&directory, Some(believed.clone()), Arc::clone(&relief)).unwrap();
            let error = process::keep(&settings).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
            let standing = Standing::find(&directory).expect("it stands for the keeper that comes next");
            assert_eq!(standing.memory, Some(believed));
            assert!(!relief.has_come());
        }
    }

    /// A program that reads a line and writes this one.
    fn says(directory: &Path, line: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let program = directory.join("program");
        std::fs::write(&program, format!("#!/bin/sh\nread told\necho '{line}'\nexec sleep 60\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        program
    }

    #[test]
    fn a_guard_that_stands_by_another_deadline_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let settings = GuardSettings { cluster: ClusterName::new("c").unwrap(), directory: "/run".into() };
        let told = memory(Moment::from_nanos(77), 1);
        let wrong = says(directory.path(), "ready 78");
        let error = post(&wrong, &settings, Some(&told)).unwrap_err();
        assert!(format!("{error:#}").contains("and not 'ready 77'"), "{error:#}");
        let right = says(directory.path(), "ready 77");
        let process = post(&right, &settings, Some(&told)).unwrap();
        let process = rustix::process::Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    }

    #[test]
    fn a_program_that_never_says_it_stands_is_no_guard() {
        let settings = GuardSettings { cluster: ClusterName::new("c").unwrap(), directory: "/run".into() };
        assert!(post(Path::new("/bin/false"), &settings, None).is_err());
        assert!(post(Path::new("/nonexistent"), &settings, None).is_err());
    }
}
