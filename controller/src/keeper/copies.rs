//! Where copies of the VM are found and killed: in the process table, with nothing registered and nobody asked.
//!
//! A copy is a QEMU whose command line carries the VM's UUID. It decides nothing: who is to be killed, and when,
//! is [`super::enforce`]'s. Not being able to look is an error, never "none".

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal};
use uuid::Uuid;
use zsha_crds::NodeName;

use crate::hypervisor::simulated::{Copy, SimulatedHosts};

/// One process that runs the VM, executing or paused.
#[derive(Debug, Clone)]
pub struct VmCopy {
    /// The process id; in a simulation, the number of the start.
    pub process: u64,
    /// Whether it was made to take in a guest from elsewhere (`-incoming`): by a live migration, or from a file.
    pub incoming: bool,
    /// A pidfd: refers to this very process for ever, whoever gets its number later.
    handle: Option<Arc<OwnedFd>>,
}

impl VmCopy {
    /// One that no process stands behind: in a simulation, or in a test.
    pub fn numbered(process: u64) -> Self {
        Self { process, incoming: false, handle: None }
    }
}

/// The copies on one node. Both calls are bounded only by the kernel: callers that must not hang ask on a thread.
pub trait Copies: Send + Sync + fmt::Debug + 'static {
    /// Every copy that is not dead to its last thread.
    fn alive(&self) -> io::Result<Vec<VmCopy>>;

    /// Sends SIGKILL. A copy that is gone already is no error; that it was sent is no proof of death.
    fn kill(&self, copy: &VmCopy) -> io::Result<()>;
}

/// The real ones, from /proc of this PID namespace.
///
/// Every scan reads every command line afresh: whatever could be remembered of a process (number, start time,
/// name) stays the same when it execs QEMU, and a copy missed for good is worse than a millisecond spent.
#[derive(Debug)]
pub struct ProcCopies {
    uuid: Uuid,
    proc: PathBuf,
}

/// More than Linux lets a command line be with the usual stack limit; what is longer is not read on.
const COMMAND_LINE_LIMIT: u64 = 4 << 20;

/// Of /proc/PID/task: two, as of every directory, and one a thread.
const LINKS_OF_ONE_THREAD: u64 = 3;

impl ProcCopies {
    pub fn new(uuid: Uuid) -> Self {
        Self { uuid, proc: PathBuf::from("/proc") }
    }

    /// The copy with this process number, if it is one. The handle is opened first: what is read after it is of
    /// the process it refers to, or that process is dead and the signal meets nobody.
    fn opened(&self, number: i32) -> io::Result<Option<VmCopy>> {
        let Some(pid) = Pid::from_raw(number) else { return Ok(None) };
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => return none_if_gone(error.into()),
        };
        let process = self.proc.join(number.to_string());
        let mut command_line = Vec::new();
        if !self.is_copy(&process, &mut command_line)? {
            return Ok(None);
        }
        Ok(Some(VmCopy {
            process: u64::from(number.unsigned_abs()),
            incoming: is_incoming(&command_line),
            handle: Some(Arc::new(handle)),
        }))
    }

    fn is_copy(&self, process: &Path, buffer: &mut Vec<u8>) -> io::Result<bool> {
        if !read_entry(&process.join("cmdline"), buffer)? {
            return Ok(false);
        }
        if !buffer.is_empty() {
            return Ok(names_vm(buffer, &self.uuid) && is_qemu(buffer, process));
        }
        // A kernel thread, a zombie, or the worst of both: a dead leader whose other threads still execute or
        // wait for their I/O. The leader's memory is gone then, its threads' is not.
        match fs::metadata(process.join("task")) {
            Ok(threads) if threads.nlink() == LINKS_OF_ONE_THREAD => Ok(false),
            Ok(_) => self.is_copy_by_threads(process, buffer),
            Err(error) => none_if_gone::<()>(error).map(|_| false),
        }
    }

    fn is_copy_by_threads(&self, process: &Path, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let threads = match fs::read_dir(process.join("task")) {
            Ok(threads) => threads,
            Err(error) => return none_if_gone::<()>(error).map(|_| false),
        };
        for thread in threads {
            let Ok(thread) = thread else { continue };
            let read = read_entry(&thread.path().join("cmdline"), buffer)?;
            if read && names_vm(buffer, &self.uuid) && is_qemu(buffer, &thread.path()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Copies for ProcCopies {
    fn alive(&self) -> io::Result<Vec<VmCopy>> {
        let mut copies = Vec::new();
        let mut buffer = Vec::with_capacity(16 << 10);
        let mut first_seen = false;
        for entry in fs::read_dir(&self.proc)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            first_seen |= number == 1;
            if self.is_copy(&entry.path(), &mut buffer)? {
                copies.extend(self.opened(number)?);
            }
        }
        if first_seen {
            Ok(copies)
        } else {
            Err(io::Error::other(format!("{} does not show every process", self.proc.display())))
        }
    }

    fn kill(&self, copy: &VmCopy) -> io::Result<()> {
        let Some(handle) = &copy.handle else { return Ok(()) };
        match rustix::process::pidfd_send_signal(handle, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A process that vanished while it was looked at is not there; any other error is one.
fn none_if_gone<T>(error: io::Error) -> io::Result<Option<T>> {
    let gone = error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error());
    if gone { Ok(None) } else { Err(error) }
}

/// Fills `buffer`; false if the process is not there any more.
fn read_entry(path: &Path, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.clear();
    let read = File::open(path).and_then(|file| file.take(COMMAND_LINE_LIMIT).read_to_end(buffer));
    match read {
        Ok(_) => Ok(true),
        Err(error) => none_if_gone::<()>(error).map(|_| false),
    }
}

/// Whether `-uuid` and this UUID stand side by side in a command line of zero-terminated arguments.
fn names_vm(command_line: &[u8], uuid: &Uuid) -> bool {
    let arguments = || command_line.split(|byte| *byte == 0);
    arguments().zip(arguments().skip(1)).any(|(option, value)| {
        matches!(option, b"-uuid" | b"--uuid")
            && Uuid::try_parse_ascii(value).is_ok_and(|given| given == *uuid)
    })
}

fn is_incoming(command_line: &[u8]) -> bool {
    command_line.split(|byte| *byte == 0).any(|argument| matches!(argument, b"-incoming" | b"--incoming"))
}

/// By the name it was called by, or by its program: either may have been chosen freely, hardly both.
fn is_qemu(command_line: &[u8], process: &Path) -> bool {
    let called = command_line.split(|byte| *byte == 0).next().unwrap_or_default();
    let called = String::from_utf8_lossy(called);
    names_qemu(Path::new(called.as_ref()))
        || fs::read_link(process.join("exe")).is_ok_and(|program| names_qemu(&program))
}

fn names_qemu(program: &Path) -> bool {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    name.contains("qemu") || name == "kvm"
}

/// The copies on one node of a simulation.
#[derive(Debug)]
pub struct SimulatedCopies {
    hosts: Arc<SimulatedHosts>,
    node: NodeName,
}

impl SimulatedCopies {
    pub fn new(hosts: Arc<SimulatedHosts>, node: NodeName) -> Self {
        Self { hosts, node }
    }
}

impl Copies for SimulatedCopies {
    fn alive(&self) -> io::Result<Vec<VmCopy>> {
        let copies = self.hosts.copies_on(&self.node);
        let seen = |copy: &Copy| VmCopy { incoming: copy.incoming, ..VmCopy::numbered(copy.process) };
        Ok(copies.iter().map(seen).collect())
    }

    fn kill(&self, _copy: &VmCopy) -> io::Result<()> {
        self.hosts.kill_now(&self.node);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
