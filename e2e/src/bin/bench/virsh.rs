//! An open session of `virsh` on a host. It asks for the VM's state in a millisecond or two, where starting the command
//! anew would cost more than some of what is measured. It changes nothing.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use zsha_e2e::Host;
use zsha_e2e::guest::DOMAIN;

const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The command that marks the end of an answer. virsh may repeat the commands it is given; quoted like this, virsh's
/// own word differs from the command.
const END_TOLD: &str = "echo 'zsha''-end'";
const END_SAID: &str = "zsha-end";

#[derive(Debug)]
pub(crate) struct Virsh {
    child: Child,
    stdin: ChildStdin,
    said: Receiver<Vec<u8>>,
}

impl Virsh {
    /// Opens a session. Returns once libvirt has answered.
    pub(crate) fn open(host: &Host) -> Result<Self> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &host.init()?.to_string(), "-m", "-u", "-n", "-p", "-r", "-w", "--"]);
        command.args(["virsh", "-q", "-c", "qemu:///system"]).env("LC_ALL", "C.UTF-8").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("start virsh on {}", host.name))?;
        let stdin = child.stdin.take().ok_or_else(|| anyhow!("virsh has no standard input"))?;
        let mut stdout = child.stdout.take().ok_or_else(|| anyhow!("virsh has no standard output"))?;
        let (sender, said) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut session = Self { child, stdin, said };
        session.is_running().with_context(|| format!("virsh on {}", host.name))?;
        Ok(session)
    }

    /// True if the VM runs on the host now. A VM that does not exist there does not run.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        writeln!(self.stdin, "domstate {DOMAIN}\n{END_TOLD}").context("ask virsh")?;
        let start = Instant::now();
        let mut text = String::new();
        while !text.contains(END_SAID) {
            let left = ANSWER_LIMIT.saturating_sub(start.elapsed());
            let bytes = self.said.recv_timeout(left).with_context(|| format!("virsh has said {text:?}"))?;
            text += &String::from_utf8_lossy(&bytes);
        }
        Ok(text.lines().any(|line| line.trim() == "running"))
    }
}

impl Drop for Virsh {
    fn drop(&mut self) {
        // virsh itself, inside, ends with its standard input.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
