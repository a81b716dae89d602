//! Sends commands to a host's init, over a unix socket in the host's own /run: one JSON line there, one back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::supervisor::Supervisor;

/// The path in the host's /run; from outside it is reached through `/proc/<pid of init>/root`.
pub const SOCKET: &str = "/run/zsha-lab-init.sock";

/// The time for an answer. It is longer than init takes to stop a service that does not want to.
const REPLY_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Request {
    Status,
    Start {
        service: String,
    },
    /// Sends SIGTERM, then SIGKILL. The service stays down until it is started.
    Stop {
        service: String,
    },
    Restart {
        service: String,
    },
    /// Sends a signal as from outside: a service that dies of it is started again.
    Signal {
        service: String,
        signal: i32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The pid as the host sees it.
    pub pid: Option<i32>,
    pub wanted: bool,
    pub starts: u32,
    pub last_end: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    services: BTreeMap<String, ServiceStatus>,
    error: Option<String>,
}

/// Sends one request to the init behind `socket` and returns how the services are after it.
pub fn send(socket: &Path, request: &Request) -> Result<BTreeMap<String, ServiceStatus>> {
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(REPLY_LIMIT))?;
    writeln!(stream, "{}", serde_json::to_string(request)?).context("send a command to init")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("read init's reply")?;
    let reply: Reply = serde_json::from_str(&line).context("decode init's reply")?;
    match reply.error {
        Some(error) => Err(anyhow!("init: {error}")),
        None => Ok(reply.services),
    }
}

pub(super) fn serve(supervisor: Arc<Supervisor>) -> Result<()> {
    let listener = UnixListener::bind(SOCKET).with_context(|| format!("listen on {SOCKET}"))?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let supervisor = supervisor.clone();
            std::thread::spawn(move || {
                if let Err(error) = answer(&stream, &supervisor) {
                    eprintln!("control: {error:#}");
                }
            });
        }
    });
    Ok(())
}

fn answer(mut stream: &UnixStream, supervisor: &Supervisor) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    let done = serde_json::from_str(&line)
        .context("decode the command")
        .and_then(|request| supervisor.handle(request));
    let reply = Reply { services: supervisor.status(), error: done.err().map(|error| format!("{error:#}")) };
    writeln!(stream, "{}", serde_json::to_string(&reply)?).context("reply")
}
