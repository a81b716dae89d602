//! A local user without any right, for tests: this very test program once more, as `nobody`, doing one thing. Needs
//! root.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

const NOBODY: u32 = 65_534;
const TOLD: &str = "ZSHA_TEST_STRANGER";
const DONE: &str = "the stranger has done it";

/// A stranger's process, which lives until this is dropped.
#[derive(Debug)]
pub(in crate::keeper) struct Stranger(Child);

impl Stranger {
    /// Takes a name, and says this line to each process that connects to it. None where this is not root, since only
    /// root can start one.
    pub(in crate::keeper) fn who_holds(name: &str, line: &str) -> Option<Self> {
        Self::who("hold", name, line)
    }

    /// Connects to a name and says this line to it.
    pub(in crate::keeper) fn who_says(name: &str, line: &str) -> Option<Self> {
        Self::who("say", name, line)
    }

    fn who(does: &str, name: &str, line: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let mut child = Command::new("/proc/self/exe")
            .args(["--exact", "keeper::names::stranger::what_a_stranger_does", "--nocapture"])
            .env(TOLD, format!("{does}\n{name}\n{line}"))
            .uid(NOBODY)
            .gid(NOBODY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let done = lines.map_while(Result::ok).any(|line| line.contains(DONE));
        assert!(done, "the stranger could not {does} {name}");
        Some(Self(child))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This is the stranger's work. It tests nothing where the variable does not tell it what to do.
#[test]
fn what_a_stranger_does() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let [does, name, line] = told.splitn(3, '\n').collect::<Vec<_>>().try_into().unwrap();
    let address = SocketAddr::from_abstract_name(name).unwrap();
    if does == "hold" {
        let listener = UnixListener::bind_addr(&address).unwrap();
        println!("{DONE}");
        for stream in listener.incoming() {
            // Whoever asked may be gone again.
            let _ = stream.unwrap().write_all(line.as_bytes());
        }
    } else {
        let mut stream = UnixStream::connect_addr(&address).unwrap();
        // It may have been shut out already.
        let _ = stream.write_all(line.as_bytes());
        let _ = stream.read_to_end(&mut Vec::new());
        println!("{DONE}");
    }
}
