//! Says which labs may stand side by side on a machine, and takes away what is left of earlier ones.
//!
//! A lab's namespaces end with its process however that ends, so only things that outlive a SIGKILL are swept here: its
//! directory, and processes in the one case that a host's init was stopped and could not see its lifeline end.

use std::fs::{self, DirEntry, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

use crate::init::remove_groups_of;
use crate::proc::{self, Process};

/// The number of labs that failed whose logs are kept.
const KEPT: usize = 5;

/// `ZSHA_LAB_CACHE`, or `target/lab` of the repository.
pub fn cache() -> PathBuf {
    match std::env::var_os("ZSHA_LAB_CACHE") {
        Some(directory) => directory.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("lab"),
    }
}

/// The other labs that may run on this machine at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Every lab that lets others run beside it too: labs share nothing but the machine's speed.
    Others,
    /// No other lab, because the times are measured.
    Nobody,
}

/// A lab's directory, and the lock that says which labs may run beside it.
#[derive(Debug)]
pub(crate) struct Territory {
    pub id: String,
    pub dir: PathBuf,
    _lock: File,
}

impl Territory {
    /// Waits until no lab runs on this machine that may not be beside this one, sweeps, and makes a directory for it.
    pub(crate) fn claim(beside: Beside) -> Result<Self> {
        let labs = cache().join("labs");
        fs::create_dir_all(&labs).with_context(|| format!("create {}", labs.display()))?;
        let lock = hold(&labs.join("lock"), beside, "another lab on this machine to end")?;
        // Of two that come at once one sweeps after the other.
        let _sweeping = hold(&labs.join("sweeping"), Beside::Nobody, "another lab to have swept")?;
        sweep(&labs)?;

        let me = std::process::id();
        let started = Process::read(me as i32).map_or(0, |process| process.started);
        let id = format!("{me}-{started}-{}", next_number());
        let dir = labs.join(&id);
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self { id, dir, _lock: lock })
    }

    /// Cleans up: after a success nothing is kept; after a failure the logs are.
    pub(crate) fn leave(&self, failed: bool) {
        if failed {
            eprintln!("lab: logs kept in {}", retire(&self.dir).display());
        } else if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("lab: {} stays behind: {error}", self.dir.display());
        }
    }
}

/// The lock that the one lab holds that has the machine's own link into its network.
pub(crate) fn claim_uplink() -> Result<File> {
    hold(&cache().join("labs").join("uplink"), Beside::Nobody, "the lab that this machine is linked to")
}

/// Locks the file until it is dropped. It says what it waits for, if it has to wait.
fn hold(path: &Path, beside: Beside, awaited: &str) -> Result<File> {
    let lock =
        File::options().create(true).append(true).open(path).with_context(|| path.display().to_string())?;
    let free = match beside {
        Beside::Others => lock.try_lock_shared(),
        Beside::Nobody => lock.try_lock(),
    };
    if free.is_err() {
        eprintln!("lab: waiting for {awaited} ({})", path.display());
        match beside {
            Beside::Others => lock.lock_shared(),
            Beside::Nobody => lock.lock(),
        }
        .with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(lock)
}

fn next_number() -> usize {
    static LABS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
    LABS.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn sweep(labs: &Path) -> Result<()> {
    let mut failed = Vec::new();
    for entry in fs::read_dir(labs).with_context(|| format!("list {}", labs.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.file_type()?.is_dir() {
            continue;
        }
        if name.starts_with("failed-") {
            failed.push((written(&entry)?, entry.path()));
        } else if owner_is_dead(&name) {
            kill_inits_of(&entry.path())?;
            for host in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                remove_groups_of(&host.path());
            }
            failed.push((written(&entry)?, retire(&entry.path())));
        }
    }
    failed.sort();
    for (_, path) in failed.iter().rev().skip(KEPT) {
        gone(fs::remove_dir_all(path)).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// The moment when it was written last. None: a lab that ends has taken it away meanwhile.
fn written(entry: &DirEntry) -> Result<Option<SystemTime>> {
    Ok(gone(entry.metadata().map(Some))?.map(|metadata| metadata.modified()).transpose()?)
}

/// Takes whatever is not there for gone.
fn gone<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        result => result,
    }
}

/// True if the lab's process is dead. The name holds its pid and start time.
fn owner_is_dead(name: &str) -> bool {
    let mut parts = name.split('-').filter_map(|part| part.parse::<u64>().ok());
    let (Some(pid), Some(started)) = (parts.next(), parts.next()) else { return false };
    Process::read(pid as i32).is_none_or(|process| process.started != started)
}

fn kill_inits_of(dir: &Path) -> Result<()> {
    let marker = dir.to_string_lossy().into_owned();
    for process in proc::all()? {
        let is_init = process
            .command_line()
            .iter()
            .any(|word| word.starts_with(&marker) && word.ends_with("/host.json"));
        if is_init {
            let pid = Pid::from_raw(process.pid).ok_or_else(|| anyhow!("pid 0 in /proc"))?;
            kill_process(pid, Signal::KILL).ok();
        }
    }
    Ok(())
}

/// Keeps the small files and drops the large ones: disks and Consul's data go, configuration and logs stay.
fn retire(dir: &Path) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kept = dir.with_file_name(format!("failed-{name}"));
    fs::remove_dir_all(dir.join("share")).ok();
    for host in fs::read_dir(dir).into_iter().flatten().flatten() {
        fs::remove_dir_all(host.path().join("consul")).ok();
    }
    match fs::rename(dir, &kept) {
        Ok(()) => kept,
        Err(_) => dir.to_owned(),
    }
}
