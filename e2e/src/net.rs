//! The lab's network: a namespace with one bridge for each network in it (the switch), a cable from it to every host,
//! and a way for the test process to talk to services inside a host.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{command, leftovers};

const IP_LIMIT: Duration = Duration::from_secs(10);

/// Address of host `number` (from 1) in network `network` (from 0).
pub fn address(network: usize, number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 93, network as u8, 10 + number as u8)
}

/// A process of the lab that lives as long as the pipe to its standard input, and says how far it is on its standard
/// output.
#[derive(Debug)]
pub(crate) struct Tethered {
    pub child: Child,
    lifeline: Option<ChildStdin>,
    lines: Mutex<mpsc::Receiver<String>>,
    what: String,
}

impl Tethered {
    pub(crate) fn spawn(command: &mut Command, log: &Path, what: &str) -> Result<Self> {
        let log =
            File::options().create(true).append(true).open(log).with_context(|| log.display().to_string())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {what}"))?;
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("{what}: no stdout"))?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self { lifeline: child.stdin.take(), child, lines: Mutex::new(lines), what: what.into() })
    }

    /// The next line it says.
    pub(crate) fn hear(&self, limit: Duration) -> Result<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.recv_timeout(limit).with_context(|| format!("{} has not said how far it is", self.what))
    }

    pub(crate) fn tell(&mut self, line: &str) -> Result<()> {
        let lifeline = self.lifeline.as_mut().ok_or_else(|| anyhow!("{} is let go already", self.what))?;
        writeln!(lifeline, "{line}")
            .and_then(|()| lifeline.flush())
            .with_context(|| format!("tell {}", self.what))
    }
}

impl Drop for Tethered {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The switch that all hosts are plugged into.
#[derive(Debug)]
pub struct Switch {
    process: Tethered,
    networks: usize,
    /// The lock on the uplink, while this lab has it.
    uplink: OnceLock<File>,
}

impl Switch {
    pub(crate) fn start(init: &Path, networks: usize, log: &Path) -> Result<Self> {
        let bridges = (0..networks).map(|network| format!("sw{network}"));
        let mut command = Command::new("unshare");
        command.arg("--net").arg("--").arg(init).arg("switch").args(bridges);
        let process = Tethered::spawn(&mut command, log, "the switch")?;
        match process.hear(IP_LIMIT) {
            Ok(line) if line == "ready" => Ok(Self { process, networks, uplink: OnceLock::new() }),
            Ok(line) => bail!("the switch said {line:?}"),
            Err(error) => Err(error.context(std::fs::read_to_string(log).unwrap_or_default())),
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Plugs cables from the switch into the host whose init is `init`; there they are called eth0, eth1, ...
    pub(crate) fn plug_in(&self, number: usize, init: i32) -> Result<()> {
        let cable = |network| {
            let port = port(network, number);
            format!(
                "link add {port} type veth peer name eth{network} netns {init}\n\
                 link set {port} master sw{network}\nlink set {port} up\n"
            )
        };
        self.ip(&(0..self.networks).map(cable).collect::<String>())
    }

    /// Takes the cables of a host that is off away. The kernel does so too, a moment after the host's end.
    pub(crate) fn unplug(&self, number: usize) {
        for network in 0..self.networks {
            self.ip(&format!("link delete {}\n", port(network, number))).ok();
        }
    }

    /// Sets a cable up or down on the switch's side, so that the host sees its carrier go.
    pub(crate) fn set_cable(&self, network: usize, number: usize, state: &str) -> Result<()> {
        self.ip(&format!("link set {} {state}\n", port(network, number)))
    }

    /// Gives the machine itself an address on the hosts' first network, for a person's browser. One lab at a time has
    /// it.
    pub(crate) fn uplink(&self) -> Result<()> {
        let claimed = leftovers::claim_uplink()?;
        self.uplink.get_or_init(|| claimed);
        // Of a lab that has just ended, if it is there: the kernel takes it away a moment after the end of its switch.
        command::run(Command::new("ip").args(["link", "delete", "zsha-lab"]), "", IP_LIMIT)?;
        let outside = std::process::id();
        self.ip(&format!(
            "link add up0 type veth peer name zsha-lab netns {outside}\nlink set up0 master sw0 up\n"
        ))?;
        let script = "address add 10.93.0.1/24 dev zsha-lab\nlink set zsha-lab up\n";
        command::run(Command::new("ip").args(["-batch", "-"]), script, IP_LIMIT)?.success()?;
        Ok(())
    }

    fn ip(&self, script: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string(), "-n", "ip", "-batch", "-"]);
        command::run(&mut command, script, IP_LIMIT)?
            .success()
            .with_context(|| format!("on the switch: {script}"))?;
        Ok(())
    }
}

fn port(network: usize, number: usize) -> String {
    format!("p{network}-{number}")
}

/// Makes a connection inside the network namespace of process `pid`.
pub fn connect_inside(pid: i32, port: u16, limit: Duration) -> Result<TcpStream> {
    connect_from(pid, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), limit)
}

/// Does the same to any address that is reached from there.
pub(crate) fn connect_from(pid: i32, address: SocketAddr, limit: Duration) -> Result<TcpStream> {
    inside(pid, move || {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(stream)
    })
}

/// Listens on the loopback of the network namespace of process `pid`.
pub(crate) fn listen_inside(pid: i32, port: u16) -> Result<TcpListener> {
    inside(pid, move || Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?))
}

/// Connects to a listener that takes no connection up, until it has no room for another: from then on no peer can
/// connect, and none is refused.
pub(crate) fn fill_queue(pid: i32, port: u16) -> Result<Vec<TcpStream>> {
    const MOST: usize = 10_000;
    const FULL: Duration = Duration::from_millis(200);
    inside(pid, move || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, FULL) {
            queue.push(stream);
            if queue.len() > MOST {
                bail!("{MOST} connections do not fill the queue of port {port}");
            }
        }
        Ok(queue)
    })
}

/// Makes a socket inside a namespace. It stays in the namespace that it was made in, so only the thread that makes it
/// moves there.
fn inside<T: Send + 'static>(pid: i32, make: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let namespace =
        File::open(format!("/proc/{pid}/ns/net")).with_context(|| format!("network of process {pid}"))?;
    let made = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).context("setns")?;
        make()
    };
    std::thread::spawn(made).join().map_err(|_| anyhow!("the thread in that network panicked"))?
}

/// Makes a `GET` over a fresh connection. Returns the body of a 200.
pub(crate) fn get(stream: TcpStream, path: &str) -> Result<String> {
    request(stream, "GET", path, "")
}

/// Makes a request over a fresh connection. Returns the body of a 200.
pub fn request(mut stream: TcpStream, method: &str, path: &str, body: &str) -> Result<String> {
    let length = body.len();
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: lab\r\nContent-Length: {length}\r\n\r\n{body}")
        .with_context(|| format!("send {method} {path}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read the answer to {method} {path}"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| anyhow!("{method} {path}: no HTTP answer"))?;
    let status = head.split_ascii_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{method} {path}: HTTP {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}
