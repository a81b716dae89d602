//! Runs a command to its end, always with a deadline. An error holds what the command printed.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// The result of a command that ended.
#[derive(Debug)]
pub struct Finished {
    pub command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// Its standard output, where it succeeded; else an error with everything it said.
    pub fn success(self) -> Result<String> {
        if self.status.success() {
            return Ok(self.stdout);
        }
        let said = [self.stderr.trim(), self.stdout.trim()].join("\n");
        bail!("`{}` ended with {}: {}", self.command, self.status, said.trim())
    }
}

/// Runs `command` with `input` on its standard input. Past the deadline its whole process group is killed.
pub fn run(command: &mut Command, input: &str, limit: Duration) -> Result<Finished> {
    let shown = shown(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().with_context(|| format!("start `{shown}`"))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A command that ends without reading its input is judged by its exit status, not by this.
        let _ = stdin.write_all(input.as_bytes());
    }
    let in_time = wait_for_exit(&child, limit)?;
    if !in_time {
        kill_process_group(pid_of(&child), Signal::KILL).ok();
    }
    let status = child.wait().with_context(|| format!("wait for `{shown}`"))?;
    let finished = Finished {
        command: shown,
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    };
    if !in_time {
        bail!("`{}` was still running after {limit:?}: {}", finished.command, finished.stderr.trim());
    }
    Ok(finished)
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Waits on a pidfd, so that the end is seen at once; false if the time is over first.
fn wait_for_exit(child: &Child, limit: Duration) -> Result<bool> {
    let pidfd = pidfd_open(pid_of(child), PidfdFlags::empty()).context("pidfd_open of a child")?;
    let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
    loop {
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("poll a child's pidfd"),
        }
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
