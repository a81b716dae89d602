//! The keeper as systemd has it: a process that says when it is ready, and leaves when it is asked to; and one that is
//! there before libvirt and the network are, after a boot.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use uuid::Uuid;
use zsha_crds::records::LeaseTimings;
use zsha_crds::{ClusterName, VmName};
use zsha_runtime::Clock;
use zsha_runtime::lease::Memory;

/// Ended whatever becomes of the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A keeper, its directory, and systemd's end of the line to it.
struct Keeper {
    process: Process,
    systemd: UnixDatagram,
    socket: PathBuf,
    _root: TempDir,
}

impl Keeper {
    /// Starts a keeper, by `wrapper` where it is to find another world around it. It ends every copy of its cluster on
    /// this machine, so each test has a cluster of its own.
    fn start(cluster: &str, wrapper: &[&str], consul: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), cluster, wrapper, consul)
    }

    fn start_in(root: TempDir, cluster: &str, wrapper: &[&str], consul: &str) -> Self {
        let notify = root.path().join("notify");
        let systemd = UnixDatagram::bind(&notify).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let program = env!("CARGO_BIN_EXE_zsha-controller");
        let words: Vec<&str> = wrapper.iter().copied().chain([program, "keeper"]).collect();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args(["--cluster", cluster, "--node", "n1", "--consul", consul, "--run-dir"])
            .arg(root.path().join("run"))
            .env("NOTIFY_SOCKET", &notify)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            process: Process(child),
            systemd,
            socket: root.path().join("run").join(cluster).join("keeper.sock"),
            _root: root,
        }
    }

    fn is_ready(&self) {
        let mut told = [0; 64];
        let read = self.systemd.recv(&mut told).expect("told before the time is over");
        assert_eq!(String::from_utf8_lossy(&told[..read]).trim(), "READY=1");
        assert!(self.socket.exists(), "ready before anybody can ask it");
    }
}

/// A process that the kernel shows as a QEMU of the cluster's VM, and that nobody has told the keeper of.
fn copy_of(cluster: &str) -> Process {
    let uuid = VmName::management().domain_uuid(&ClusterName::new(cluster).unwrap());
    let mut copy = Command::new("/bin/sh");
    copy.arg0("qemu-system-x86_64").args(["-c", "echo up; read line", "-uuid", &uuid.to_string()]);
    let mut child = copy.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    Process(child)
}

/// Its end, which has to come before the time is over: by SIGKILL, and by nothing else.
fn is_killed(copy: Process) {
    let (tell, told) = mpsc::channel();
    let pid = Pid::from_child(&copy.0);
    thread::spawn(move || {
        let mut copy = copy;
        // Waiting would close it, and the copy end by itself.
        let _stdin = copy.0.stdin.take();
        let _ = tell.send(copy.0.wait().unwrap());
    });
    match told.recv_timeout(Duration::from_secs(20)) {
        Ok(status) => assert_eq!(status.signal(), Some(Signal::KILL.as_raw())),
        Err(_) => {
            kill_process(pid, Signal::TERM).unwrap();
            panic!("it lives");
        }
    }
}

/// Namespaces need root, and an identity is needed by everybody.
fn can_run() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/etc/machine-id").exists()
}

/// The wrapper that leaves no network, not even a loopback that is up.
const WITHOUT_NETWORK: [&str; 2] = ["unshare", "--net"];
/// An address with a name that nobody is there to look up.
const UNKNOWN: &str = "http://consul.example:8500";

#[test]
fn systemd_is_told_once_its_socket_is_there_and_a_stop_ends_it_cleanly() {
    if !Path::new("/etc/machine-id").exists() {
        return;
    }
    // Nobody listens on this port: it is ready all the same, and has no lease.
    let mut keeper = Keeper::start("stopped", &[], "http://127.0.0.1:1");
    keeper.is_ready();
    kill_process(Pid::from_child(&keeper.process.0), Signal::TERM).unwrap();
    assert!(keeper.process.0.wait().unwrap().success());
}

#[test]
fn after_a_boot_it_is_ready_before_there_is_a_network_or_a_resolver() {
    if can_run() {
        Keeper::start("early", &WITHOUT_NETWORK, UNKNOWN).is_ready();
    }
}

#[test]
fn a_copy_that_a_boot_has_brought_is_ended_without_network_or_memory() {
    if can_run() {
        let copy = copy_of("brought");
        let keeper = Keeper::start("brought", &WITHOUT_NETWORK, UNKNOWN);
        is_killed(copy);
        keeper.is_ready();
    }
}

#[test]
fn a_copy_that_comes_after_the_keeper_and_before_the_first_renewal_is_ended() {
    if can_run() {
        let keeper = Keeper::start("comes", &WITHOUT_NETWORK, UNKNOWN);
        keeper.is_ready();
        is_killed(copy_of("comes"));
    }
}

/// It would be valid for an hour more by this boot's clock.
#[test]
fn what_was_written_down_in_an_earlier_boot_explains_no_copy() {
    if can_run() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("run/earlier");
        std::fs::create_dir_all(&directory).unwrap();
        let memory = Memory {
            step_back: None,
            key: None,
            boot_id: Uuid::new_v4().to_string(),
            incarnation: Uuid::new_v4(),
            epoch: 3,
            seq: 99,
            deadline: Some(Clock::Boottime.now() + Duration::from_secs(3600)),
            timings: LeaseTimings::BALANCED,
            fence: None,
            unbroken: None,
            expected: None,
            owned: None,
        };
        std::fs::write(directory.join("keeper.json"), serde_json::to_vec(&memory).unwrap()).unwrap();
        let copy = copy_of("earlier");
        let _keeper = Keeper::start_in(root, "earlier", &WITHOUT_NETWORK, UNKNOWN);
        is_killed(copy);
    }
}
