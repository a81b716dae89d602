//! Finds and kills copies of the VM by the process table. Nothing has to be registered, and no other process is asked.
//!
//! A copy is a QEMU whose command line carries the VM's UUID, and that could run the VM. Any user may give a process
//! such a command line, so a process that could not run the VM must not keep it from running. This file decides
//! nothing: [`super::enforce`] says which copies are killed, and when. Not being able to look is an error, never
//! "none".

mod bearing;
mod entry;
mod simulated;
mod users;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal};
use uuid::Uuid;
use zsha_runtime::Clock;

use crate::hypervisor::{OffReason, libvirt_log};
use bearing::Bearing;
use entry::{
    called, has_memory, is_gone, is_incoming, is_qemu, names_qemu, names_vm, none_if_gone, read_entry,
};
use users::Users;

pub use simulated::SimulatedCopies;

/// One process that runs the VM, executing or paused.
#[derive(Debug, Clone)]
pub struct VmCopy {
    /// The process id; in a simulation, the number of the start.
    pub process: u64,
    /// True if the process was made to take in a guest from elsewhere (`-incoming`): by a live migration, or from a
    /// file.
    pub incoming: bool,
    /// The start of the process, in clock ticks since boot. With the process id, it means this very process and no
    /// later one. None: not known.
    pub started: Option<u64>,
    /// The user of the process. None: not known, or there is no process behind it.
    pub user: Option<u32>,
    /// The first argument of the process; empty in a simulation.
    pub command: String,
    /// True if the process certainly could run the VM. One that only may be able to can be a stranger's. It counts, and
    /// where no copy may live it dies as any other, but it is taken neither for the VM's own nor for a second one.
    pub certain: bool,
    /// A pidfd: it refers to this very process for ever, whatever process gets its number later.
    handle: Option<Arc<OwnedFd>>,
}

impl VmCopy {
    /// A copy that no process stands behind: in a simulation, or in a test.
    pub fn numbered(process: u64) -> Self {
        Self {
            process,
            incoming: false,
            started: None,
            user: None,
            command: String::new(),
            certain: true,
            handle: None,
        }
    }

    /// True if both are one process, and not one that got the number of the other.
    pub fn is_same_as(&self, other: &Self) -> bool {
        (self.process, self.started) == (other.process, other.started)
    }
}

/// The copy as people read it: what to look for on the node, and which user to ask.
impl fmt::Display for VmCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.process)?;
        if let Some(user) = self.user {
            write!(f, " of user {user}")?;
        }
        if self.command.is_empty() { Ok(()) } else { write!(f, " ({})", self.command) }
    }
}

/// The copies on one node. Only the kernel bounds these calls: callers that must not hang ask on a thread.
pub trait Copies: Send + Sync + fmt::Debug + 'static {
    /// Finds every copy that is not dead to its last thread.
    fn alive(&self) -> io::Result<Vec<VmCopy>>;

    /// Sends SIGKILL. A copy that is gone already is no error. A signal that was sent is no proof of death.
    fn kill(&self, copy: &VmCopy) -> io::Result<()>;

    /// Reads how the last copy here has ended, by what was written down of it. The call may wait for a disk. It is an
    /// error where nothing was ever written down.
    fn last_end(&self) -> io::Result<Option<OffReason>> {
        Ok(None)
    }

    /// Reads how the copy before the one that is here now has ended.
    fn end_before_this(&self) -> io::Result<Option<OffReason>> {
        Ok(None)
    }
}

/// The number of a process and its start: no later process has both.
type Identity = (u64, Option<u64>);

/// The real copies, from /proc of this PID namespace.
///
/// Every scan reads every command line afresh: whatever could be remembered of a process (number, start time,
/// name) stays the same when it execs QEMU, and a copy missed for good is worse than a millisecond spent.
#[derive(Debug)]
pub struct ProcCopies {
    uuid: Uuid,
    proc: PathBuf,
    users: Users,
    /// The strangers that were logged already; None where nothing may be logged.
    told: Option<Mutex<BTreeSet<Identity>>>,
    /// The log in which libvirt writes down how the VM has ended.
    log: Option<PathBuf>,
    patience: Patience,
}

/// The most that is read of a command line. It is more than Linux allows with the usual stack limit.
const COMMAND_LINE_LIMIT: u64 = 4 << 20;
/// The most that is read of the command line of a process that could not run the VM. libvirt's command lines take some
/// 6 KiB. Any user may have thousands of processes with megabytes each, and the thread that kills waits for the scan.
const STRANGERS_LIMIT: u64 = 64 << 10;

/// The links of /proc/PID/task: two, as for every directory, and one for each thread.
const LINKS_OF_ONE_THREAD: u64 = 3;

/// The pause before another look. In an exec, some microseconds pass between the moment when the new program takes the
/// place of the old one and the moment when its arguments are there; on a busy machine, it is a turn of another
/// process.
const LOOK_AGAIN_AFTER: Duration = Duration::from_micros(500);

/// How often processes in the middle of an exec are looked at again. They are looked at together, so that a scan takes no
/// longer however many there are.
#[derive(Debug, Clone, Copy)]
struct Patience {
    looks: u32,
    /// The time that all these looks may take, if each takes long.
    within: Duration,
}

impl Patience {
    /// The patience of a scan that the thread that kills waits for.
    const OF_A_KILL: Self = Self { looks: 20, within: Duration::from_millis(20) };
    /// The patience of a scan that is one question among slower ones: half a second, well below the deadline of every
    /// call to libvirt.
    const OF_A_CALL: Self = Self { looks: 1_000, within: Duration::from_millis(500) };

    /// Looks again until nothing is unclear or the patience is over. Returns what still is.
    fn wait(
        self,
        mut unclear: Vec<i32>,
        mut is_unclear: impl FnMut(i32) -> io::Result<bool>,
    ) -> io::Result<Vec<i32>> {
        let begun = Clock::Boottime.now();
        for _ in 0..self.looks {
            if unclear.is_empty() || Clock::Boottime.now().since(begun) > self.within {
                break;
            }
            thread::park_timeout(LOOK_AGAIN_AFTER);
            for number in std::mem::take(&mut unclear) {
                if is_unclear(number)? {
                    unclear.push(number);
                }
            }
        }
        Ok(unclear)
    }
}

/// The number of strangers that one scan logs: a user who makes thousands of them must not fill the log.
const TOLD_AT_ONCE: usize = 4;

/// The kinds of processes.
#[derive(Debug)]
enum Sight {
    Copy(VmCopy),
    /// The process is called as a copy is, but its user could not run the VM.
    Stranger(VmCopy),
    Other,
    /// The process is in the middle of an exec, or has no command line though it has memory.
    Unclear,
}

/// The kinds of command lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Copy,
    Other,
    Unclear,
}

impl ProcCopies {
    /// Finds copies and logs nothing: for a thread that may not wait for a log.
    pub fn new(uuid: Uuid) -> Self {
        let users = Users::default();
        // They are read meanwhile.
        let _ = users.that_count();
        let proc = PathBuf::from("/proc");
        Self { uuid, proc, users, told: None, log: None, patience: Patience::OF_A_KILL }
    }

    /// Finds copies, and logs once for each process that calls itself a copy and is none.
    pub fn telling(uuid: Uuid) -> Self {
        Self { told: Some(Mutex::default()), ..Self::new(uuid) }
    }

    /// Can also say how the last copy has ended: libvirt writes it down in this log.
    pub fn by_log(self, log: PathBuf) -> Self {
        Self { log: Some(log), ..self }
    }

    /// The same, but it logs nothing. It shares the list of users, so that a caller that looks seldom need not begin
    /// without it.
    pub fn silent(&self) -> Self {
        let (proc, users) = (self.proc.clone(), self.users.clone());
        Self { uuid: self.uuid, proc, users, told: None, log: None, patience: self.patience }
    }

    /// The same for a caller that waits half a second before it takes a process in the middle of an exec for a reason not
    /// to know: on a busy host another QEMU, just being started, is not let run to its end for that long. It logs where
    /// this does.
    pub fn patient(&self) -> Self {
        let told = self.told.as_ref().map(|_| Mutex::default());
        Self { told, patience: Patience::OF_A_CALL, ..self.silent() }
    }

    /// Judges the process with this number. The handle is opened before the last look. So what is read afterwards is of
    /// the process that the handle refers to, or that process is dead and the signal meets no process.
    fn look(&self, number: i32, buffer: &mut Vec<u8>) -> io::Result<Sight> {
        let process = self.proc.join(number.to_string());
        match self.claim(&process, buffer)? {
            Claim::Copy => {}
            Claim::Other => return Ok(Sight::Other),
            Claim::Unclear => return Ok(Sight::Unclear),
        }
        let Some(pid) = Pid::from_raw(number) else { return Ok(Sight::Other) };
        let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(error) => return none_if_gone::<()>(error.into()).map(|_| Sight::Other),
        };
        match self.claim(&process, buffer)? {
            Claim::Copy => {}
            Claim::Other => return Ok(Sight::Other),
            Claim::Unclear => return Ok(Sight::Unclear),
        }
        let bearing = Bearing::of(&process);
        let (could_run_vm, certain) = self.judge(&bearing);
        let copy = VmCopy {
            process: u64::from(number.unsigned_abs()),
            incoming: is_incoming(buffer),
            started: bearing.started,
            user: bearing.users.map(|[_, effective, ..]| effective),
            command: called(buffer),
            certain,
            handle: Some(Arc::new(handle)),
        };
        Ok(if could_run_vm { Sight::Copy(copy) } else { Sight::Stranger(copy) })
    }

    fn could_run_vm(&self, bearing: &Bearing) -> bool {
        self.judge(bearing).0
    }

    /// Says whether a process could run the VM, and whether that is certain. The list of users is asked once, so that
    /// both are of one answer, and only where it matters: for a process of root there is no doubt.
    fn judge(&self, bearing: &Bearing) -> (bool, bool) {
        let root = BTreeSet::from([0]);
        if bearing.certainly_could_run_vm(Some(&root)) {
            return (true, true);
        }
        let users = self.users.that_count();
        let could = bearing.could_run_vm(Some(&root)) || bearing.could_run_vm(users.as_ref());
        (could, bearing.certainly_could_run_vm(users.as_ref()))
    }

    fn claim(&self, process: &Path, buffer: &mut Vec<u8>) -> io::Result<Claim> {
        let claimed = |is_copy| if is_copy { Claim::Copy } else { Claim::Other };
        let line = process.join("cmdline");
        if !read_entry(&line, buffer, STRANGERS_LIMIT)? {
            return Ok(Claim::Other);
        }
        if buffer.len() as u64 >= STRANGERS_LIMIT
            && self.could_run_vm(&Bearing::of(process))
            && !read_entry(&line, buffer, COMMAND_LINE_LIMIT)?
        {
            return Ok(Claim::Other);
        }
        if !buffer.is_empty() {
            return Ok(claimed(names_vm(buffer, &self.uuid) && is_qemu(buffer, process)));
        }
        if has_memory(process) {
            return Ok(Claim::Unclear);
        }
        // A kernel thread, a zombie, or the worst of both: a dead leader whose other threads still execute or
        // wait for their I/O. The leader's memory is gone then, its threads' is not.
        match fs::metadata(process.join("task")) {
            Ok(threads) if threads.nlink() == LINKS_OF_ONE_THREAD => Ok(Claim::Other),
            Ok(_) => self.is_copy_by_threads(process, buffer).map(claimed),
            Err(error) => none_if_gone::<()>(error).map(|_| Claim::Other),
        }
    }

    /// Settles the processes that are still unclear after all looks: an error where one could be a copy, since "none"
    /// would be a guess.
    fn settle(&self, unclear: &[i32]) -> io::Result<()> {
        for number in unclear {
            let process = self.proc.join(number.to_string());
            // A program that may not be seen may be one.
            let is_qemu = match fs::read_link(process.join("exe")) {
                Ok(program) => names_qemu(&program),
                Err(error) => !is_gone(&error),
            };
            if is_qemu && self.could_run_vm(&Bearing::of(&process)) {
                return Err(io::Error::other(format!(
                    "process {number} is a QEMU and shows no command line: it may be one of the VM"
                )));
            }
        }
        Ok(())
    }

    /// Logs each stranger once. Strangers that are gone are forgotten.
    fn tell(&self, strangers: &[VmCopy]) {
        let Some(told) = &self.told else { return };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let key = |stranger: &VmCopy| (stranger.process, stranger.started);
        let new: Vec<&VmCopy> = strangers.iter().filter(|stranger| !told.contains(&key(stranger))).collect();
        for stranger in new.iter().take(TOLD_AT_ONCE) {
            tracing::warn!(
                process = stranger.process,
                user = stranger.user,
                command = stranger.command,
                "a process calls itself a QEMU of the VM and is none: its user could not run it. It is left alone"
            );
        }
        if new.len() > TOLD_AT_ONCE {
            tracing::warn!(more = new.len() - TOLD_AT_ONCE, "and others that call themselves so");
        }
        *told = strangers.iter().map(key).collect();
    }

    fn is_copy_by_threads(&self, process: &Path, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let threads = match fs::read_dir(process.join("task")) {
            Ok(threads) => threads,
            Err(error) => return none_if_gone::<()>(error).map(|_| false),
        };
        for thread in threads {
            let Ok(thread) = thread else { continue };
            let read = read_entry(&thread.path().join("cmdline"), buffer, COMMAND_LINE_LIMIT)?;
            if read && names_vm(buffer, &self.uuid) && is_qemu(buffer, &thread.path()) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Copies for ProcCopies {
    fn alive(&self) -> io::Result<Vec<VmCopy>> {
        if self.told.is_some() {
            // Keeps the list fresh while nobody calls himself a QEMU of the VM: the first who does is judged by it. Never
            // by the thread that kills, since that makes a thread.
            let _ = self.users.that_count();
        }
        let (mut copies, mut strangers, mut unclear) = (Vec::new(), Vec::new(), Vec::new());
        let mut buffer = Vec::with_capacity(16 << 10);
        let mut is_unclear = |number| {
            match self.look(number, &mut buffer)? {
                Sight::Copy(copy) => copies.push(copy),
                Sight::Stranger(stranger) => strangers.push(stranger),
                Sight::Other => {}
                Sight::Unclear => return Ok(true),
            }
            Ok(false)
        };
        let mut first_seen = false;
        for entry in fs::read_dir(&self.proc)? {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            first_seen |= number == 1;
            if is_unclear(number)? {
                unclear.push(number);
            }
        }
        let unclear = self.patience.wait(unclear, is_unclear)?;
        // What is there must die, whatever else may be there.
        if copies.is_empty() {
            self.settle(&unclear)?;
        }
        self.tell(&strangers);
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

    fn last_end(&self) -> io::Result<Option<OffReason>> {
        let Some(log) = &self.log else { return Ok(None) };
        libvirt_log::last_end(log, self.uuid)
    }

    fn end_before_this(&self) -> io::Result<Option<OffReason>> {
        let Some(log) = &self.log else { return Ok(None) };
        libvirt_log::end_before_last_start(log, self.uuid)
    }
}

#[cfg(test)]
pub(super) mod tests;
