//! The independent check: at any instant at most one QEMU executes the VM.
//!
//! A thread reads the real host's /proc, which shows the processes of every host of the lab, and knows nothing of the
//! product, of Consul or of libvirt. It sees a copy of the VM as a QEMU, in one of the lab's hosts, that has the VM's
//! image on its command line; a QEMU that is a zombie or has begun to exit is dead.
//!
//! It is stricter than the promise: a copy that is started paused counts as well. One exception, live migration: a
//! target (`-incoming`) does not count beside its source. It counts from the moment that it is seen without one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::proc::{self, Process};

/// 20 Hz: a start of QEMU takes longer than that, so no copy that executes anything is missed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Two copies are a violation where so many further readings, one right after the other, still show both.
const READ_AGAIN: usize = 2;

/// One QEMU with the VM's image, from its first sighting to its last.
#[derive(Debug, Clone)]
pub struct Copy {
    pub host: String,
    pub pid: i32,
    started: u64,
    pub command_line: Vec<String>,
    pub first_seen: Instant,
    /// The moment when it was last seen alive; a copy that is gone was dead at the reading after this.
    pub last_seen: Instant,
    cpu_ticks: u64,
    counts: bool,
}

impl Copy {
    pub fn is_incoming(&self) -> bool {
        self.command_line.iter().any(|word| word == "-incoming")
    }

    fn is_same_as(&self, other: &Copy) -> bool {
        (self.pid, self.started) == (other.pid, other.started)
    }
}

/// The record of a moment with two copies.
#[derive(Debug, Clone)]
pub struct Violation {
    pub at: Instant,
    pub copies: Vec<Copy>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} copies of the VM at once:", self.copies.len())?;
        for copy in &self.copies {
            writeln!(
                f,
                "  on {}, pid {}, seen for {:?}, {} ticks of CPU: {}",
                copy.host,
                copy.pid,
                self.at.duration_since(copy.first_seen),
                copy.cpu_ticks,
                copy.command_line.join(" ")
            )?;
        }
        Ok(())
    }
}

/// The sightings so far, and the rule over them. It knows no /proc.
#[derive(Debug, Default)]
struct Sightings {
    alive: Vec<Copy>,
    gone: Vec<Copy>,
    violations: Vec<Violation>,
    readings: u64,
}

impl Sightings {
    /// Takes one reading in; returns the copies that count, where there are two or more.
    fn take(&mut self, now: Instant, reading: Vec<Copy>) -> Option<Vec<Copy>> {
        self.readings += 1;
        let before = std::mem::take(&mut self.alive);
        for mut copy in reading {
            if let Some(known) = before.iter().find(|known| known.is_same_as(&copy)) {
                (copy.first_seen, copy.counts) = (known.first_seen, known.counts);
            }
            copy.last_seen = now;
            self.alive.push(copy);
        }
        self.gone
            .extend(before.into_iter().filter(|old| !self.alive.iter().any(|copy| copy.is_same_as(old))));
        let has_source = self.alive.iter().any(|copy| copy.counts || !copy.is_incoming());
        for copy in &mut self.alive {
            copy.counts |= !copy.is_incoming() || !has_source;
        }
        let counting: Vec<Copy> = self.alive.iter().filter(|copy| copy.counts).cloned().collect();
        (counting.len() > 1).then_some(counting)
    }

    /// Records a violation once for each set of copies, not once a reading.
    fn record(&mut self, violation: Violation) {
        let same = |old: &Violation| {
            old.copies.len() == violation.copies.len()
                && old.copies.iter().zip(&violation.copies).all(|(old, new)| old.is_same_as(new))
        };
        if !self.violations.iter().any(same) {
            eprintln!("VIOLATION: {violation}");
            self.violations.push(violation);
        }
    }
}

/// The places to look for copies: PID namespaces of the lab's hosts, by which /proc tells the host of a process.
pub(crate) type Namespaces = Arc<Mutex<BTreeMap<PathBuf, String>>>;

/// The running check of one lab.
#[derive(Debug)]
pub struct Check {
    hosts: Namespaces,
    sightings: Arc<Mutex<Sightings>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Check {
    pub(crate) fn start(hosts: Namespaces) -> Self {
        let sightings = Arc::new(Mutex::new(Sightings::default()));
        let over = Arc::new(AtomicBool::new(false));
        let thread = {
            let (hosts, sightings, over) = (hosts.clone(), sightings.clone(), over.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let at = Instant::now();
                    drop(look(&hosts, &sightings));
                    std::thread::sleep(LOOK_EVERY.saturating_sub(at.elapsed()));
                }
            })
        };
        Self { hosts, sightings, over, thread: Some(thread) }
    }

    /// The copies that are alive now, targets of a migration included. The reading begins after the call: what a test
    /// has just ended is not among them.
    pub fn alive(&self) -> Vec<Copy> {
        self.now().alive.clone()
    }

    /// Every copy seen so far, oldest first; the last of them by a reading of now.
    pub fn history(&self) -> Vec<Copy> {
        let sightings = self.now();
        let mut copies: Vec<Copy> = sightings.gone.iter().chain(&sightings.alive).cloned().collect();
        copies.sort_by_key(|copy| copy.first_seen);
        copies
    }

    /// The number of copies that have ended and were the VM, and not only about to take it in.
    pub fn ended(&self) -> usize {
        self.now().gone.iter().filter(|copy| copy.counts).count()
    }

    pub fn violations(&self) -> Vec<Violation> {
        locked(&self.sightings).violations.clone()
    }

    fn now(&self) -> MutexGuard<'_, Sightings> {
        look(&self.hosts, &self.sightings)
    }

    /// The number of readings so far.
    pub fn readings(&self) -> u64 {
        locked(&self.sightings).readings
    }

    /// Takes the violations out: for the test that plants one.
    pub fn take_violations(&self) -> Vec<Violation> {
        std::mem::take(&mut locked(&self.sightings).violations)
    }

    pub(crate) fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            panic!("the independent check itself has panicked: nothing it did not report means anything");
        }
    }
}

/// Reads, and takes the reading in. No other reading comes between, so that none is taken in after a later one.
fn look<'a>(hosts: &Namespaces, sightings: &'a Mutex<Sightings>) -> MutexGuard<'a, Sightings> {
    let mut sightings = locked(sightings);
    let mut suspects = None;
    for _ in 0..=READ_AGAIN {
        let reading = read(hosts);
        suspects = sightings.take(Instant::now(), reading);
        if suspects.is_none() {
            return sightings;
        }
    }
    if let Some(copies) = suspects {
        sightings.record(Violation { at: Instant::now(), copies });
    }
    sightings
}

fn read(hosts: &Namespaces) -> Vec<Copy> {
    // A check that cannot look must not pass for one that saw nothing.
    let processes =
        proc::all().unwrap_or_else(|error| panic!("the independent check cannot look: {error:#}"));
    let hosts = hosts.lock().unwrap_or_else(PoisonError::into_inner);
    let copy = |process: Process| {
        if !process.name.starts_with("qemu-system") {
            return None;
        }
        let command_line = process.command_line();
        let host = hosts.get(&proc::pid_namespace(process.pid)?)?;
        // Read again last: what has died meanwhile may have shown an empty or half a command line.
        let process = Process::read(process.pid)
            .filter(|again| again.started == process.started && !again.is_dead())?;
        crate::is_of_the_vm(&command_line).then(|| Copy {
            host: host.clone(),
            pid: process.pid,
            started: process.started,
            command_line,
            first_seen: Instant::now(),
            last_seen: Instant::now(),
            cpu_ticks: process.cpu_ticks,
            counts: false,
        })
    };
    processes.into_iter().filter_map(copy).collect()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(pid: i32, arguments: &str) -> Copy {
        let now = Instant::now();
        Copy {
            host: format!("nfs-{pid}"),
            pid,
            started: 1,
            command_line: arguments.split(' ').map(str::to_owned).collect(),
            first_seen: now,
            last_seen: now,
            cpu_ticks: 0,
            counts: false,
        }
    }

    /// Feeds readings one after another; true where the last one shows two copies that count.
    fn doubled(readings: &[&[(i32, &str)]]) -> bool {
        let mut sightings = Sightings::default();
        let mut take = |reading: &&[(i32, &str)]| {
            sightings
                .take(Instant::now(), reading.iter().map(|(pid, arguments)| copy(*pid, arguments)).collect())
                .is_some()
        };
        readings.iter().map(&mut take).last().unwrap_or_default()
    }

    #[test]
    fn two_plain_copies_are_two() {
        assert!(doubled(&[&[(1, "qemu -S")], &[(1, "qemu -S"), (2, "qemu -S")]]));
    }

    #[test]
    fn a_migration_is_one_copy_before_during_and_after() {
        let source = (1, "qemu -S");
        let target = (2, "qemu -S -incoming defer");
        assert!(!doubled(&[&[source], &[source, target], &[target]]));
    }

    #[test]
    fn the_target_of_a_finished_migration_counts_beside_a_new_copy() {
        let target = (2, "qemu -incoming defer");
        assert!(doubled(&[&[(1, "qemu")], &[(1, "qemu"), target], &[target], &[target, (3, "qemu")]]));
    }

    #[test]
    fn one_copy_after_another_is_never_two() {
        assert!(!doubled(&[&[(1, "qemu")], &[], &[(2, "qemu")]]));
    }
}
