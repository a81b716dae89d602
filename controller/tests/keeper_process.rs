//! The keeper as systemd has it: a process that says when it is ready, and leaves when it is asked to.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Ended whatever becomes of the test.
struct Keeper(Child);

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn systemd_is_told_once_its_socket_is_there_and_a_stop_ends_it_cleanly() {
    if !Path::new("/etc/machine-id").exists() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let notify = root.path().join("notify");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let run_dir = root.path().join("run");
    // Nobody listens on this port: it is ready all the same, and has no lease.
    let child = Command::new(env!("CARGO_BIN_EXE_zsha-controller"))
        .args(["keeper", "--cluster", "c", "--node", "n1", "--consul", "http://127.0.0.1:1", "--run-dir"])
        .arg(&run_dir)
        .env("NOTIFY_SOCKET", &notify)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut keeper = Keeper(child);
    let mut told = [0; 64];
    let read = systemd.recv(&mut told).expect("told before the time is over");
    assert_eq!(String::from_utf8_lossy(&told[..read]).trim(), "READY=1");
    assert!(run_dir.join("c/keeper.sock").exists(), "ready before anybody can ask it");
    kill_process(Pid::from_child(&keeper.0), Signal::TERM).unwrap();
    assert!(keeper.0.wait().unwrap().success());
}
