//! The watchdog for real: a guest with a device that resets it, in it the keeper's own program as a process, and what
//! it takes for the VM's QEMU waiting for a write that never ends, which no signal ends either.
//!
//! The keeper renews with a real Consul outside the guest. When that hangs, the lease ends, and what cannot be killed is
//! ended by the reset of the whole guest: after the deadline and K, and before another node may fence.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use zsha_e2e::scenario::{SECOND, figures_are_judged, now};
use zsha_e2e::{command, net, wait};

const BOOT_LIMIT: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(30);
/// The times of `Balanced`, which a keeper begins with: F + K, what a fence waits for at the least, and the most that
/// fits W.
const DEAD_BY: Duration = Duration::from_secs(9);
const FENCED_FROM: Duration = Duration::from_millis(9_800);
const TIMEOUT: Duration = Duration::from_secs(6);
/// The delay from the sending of a renewal until it is seen here, and from a reset until its event is.
const SEEN_LATE: Duration = Duration::from_millis(300);
/// The UUID of `mnvm` in the cluster `lab`.
const UUID: &str = "d2b72d91-ee58-552b-9a34-37207ad14192";
const LEASE: &str = "/v1/kv/zsha/lab/leases/nfs-1?raw";

#[test]
fn a_copy_that_cannot_be_killed_is_ended_by_a_reset_in_time_and_a_clean_stop_resets_nothing() -> Result<()> {
    let consul = Consul::start()?;
    let mut guest = Guest::boot(&consul)?;

    // What a starved host could take from it is kept: its place in memory, and its turn.
    guest.keeper_with_watchdog("")?;
    guest.types("hardened")?;
    for words in ["thread enforce policy 1 priority 1", "memory locked", "spared when memory runs out"] {
        guest.hears(words, LIMIT)?;
    }

    // Stopped without a copy: the letter that drivers know, and no reset.
    guest.types("kill $keeper; wait $keeper; echo \"guest: keeper ended $?\"")?;
    guest.hears("guest: keeper ended 0", LIMIT)?;
    guest.stays_up(TIMEOUT + 2 * SECOND).context("after the keeper has stopped with no copy")?;

    // A copy that does not die of SIGKILL, a lease that ends.
    guest.types("keeper")?;
    guest.hears("the watchdog is armed and petted timeout_secs=6", LIMIT)?;
    guest.hears("valid=true", LIMIT)?;
    guest.types("vm")?;
    guest.types("until busybox ps -o stat,args | grep '^D.*-uuid'; do sleep 0.1; done")?;
    guest.hears(UUID, LIMIT).context("nothing waits uninterruptibly")?;
    let renewed = consul.next_renewal()?;
    consul.signal(Signal::STOP)?;
    guest.hears("killed copy of the VM will not die", LIMIT)?;
    let reset = guest.reset(LIMIT)?.duration_since(renewed);
    println!(
        "reset {reset:.2?} after the last renewal: F + K is {DEAD_BY:?}, others fence after {FENCED_FROM:?}"
    );
    ensure!(reset + SEEN_LATE >= DEAD_BY, "a lease that held was cut short: reset after {reset:?}");
    ensure!(
        !figures_are_judged() || reset <= FENCED_FROM + SEEN_LATE,
        "reset after {reset:?}, when others may run a copy"
    );
    consul.signal(Signal::CONT)?;
    guest.hears("guest: ready", BOOT_LIMIT).context("the second boot")?;

    // A driver that nothing stops: the host is reset if no keeper comes.
    guest.keeper_with_watchdog("nowayout=1")?;
    guest.types("kill $keeper")?;
    guest.hears("the watchdog cannot be disarmed", LIMIT)?;
    let stopped = now();
    let reset = guest.reset(LIMIT)?.duration_since(stopped);
    println!("nowayout: reset {reset:.2?} after the keeper has stopped (W is {TIMEOUT:?})");
    ensure!(reset <= TIMEOUT + SECOND, "reset after {reset:?}");
    Ok(())
}

/// An agent on this machine, for the guest and for nobody else.
struct Consul {
    child: Child,
    port: u16,
}

impl Consul {
    fn start() -> Result<Self> {
        // Held until all are known, so that they differ.
        let held = (0..3).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
        let ports = held.iter().map(|held| Ok(held.local_addr()?.port())).collect::<Result<Vec<_>>>()?;
        drop(held);
        let settings = format!(
            r#"ports {{ http = {}, server = {}, serf_lan = {}, serf_wan = -1, dns = -1, grpc = -1 }}"#,
            ports[0], ports[1], ports[2]
        );
        let child = Command::new(zsha_e2e::consul()?)
            .args(["agent", "-dev", "-bind", "127.0.0.1", "-hcl", &settings])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start Consul")?;
        let consul = Self { child, port: ports[0] };
        wait::until("Consul has a leader", LIMIT, || {
            Ok(consul.get("/v1/status/leader")?.contains(':').then_some(()))
        })?;
        Ok(consul)
    }

    fn get(&self, path: &str) -> Result<String> {
        let stream = std::net::TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(2 * SECOND))?;
        net::request(stream, "GET", path, "")
    }

    /// The moment at which a renewal is first seen.
    fn next_renewal(&self) -> Result<Instant> {
        let seq = || Ok::<_, anyhow::Error>(serde_json::from_str::<Value>(&self.get(LEASE)?)?["seq"].clone());
        let before = seq()?;
        wait::until("a renewal", LIMIT, || Ok((seq()? != before).then(now)))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

struct Guest {
    qemu: Child,
    /// Lines of its console, and events of QEMU itself.
    console: mpsc::Receiver<String>,
    events: mpsc::Receiver<(Instant, Value)>,
    said: Vec<String>,
    /// How much had been said when something was typed last.
    typed: usize,
    _dir: tempfile::TempDir,
}

impl Guest {
    fn boot(consul: &Consul) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let initrd = dir.path().join("initrd");
        let controller = zsha_e2e::product_directory()?.join("zsha-controller");
        let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest/watchdog/build.sh");
        command::run(Command::new(build).arg(zsha_e2e::cache()).arg(controller).arg(&initrd), "", LIMIT)?
            .success()?;

        let qmp = dir.path().join("qmp");
        let append =
            format!("console=ttyS0 quiet panic=1 consul=http://10.0.2.2:{} uuid={UUID}", consul.port);
        let mut qemu = Command::new("qemu-system-x86_64")
            .args(["-machine", "pc,accel=tcg", "-cpu", "max", "-m", "768", "-nodefaults", "-display", "none"])
            .args(["-serial", "stdio", "-append", &append])
            .arg("-kernel")
            .arg(zsha_e2e::cache().join("watchdog/vmlinuz"))
            .arg("-initrd")
            .arg(&initrd)
            .args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"])
            .args(["-device", "i6300esb", "-action", "watchdog=reset"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", qmp.display())])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start QEMU")?;
        let console = lines(qemu.stdout.take().context("no console")?, |line| line);
        let mut guest =
            Self { qemu, console, events: mpsc::channel().1, said: Vec::new(), typed: 0, _dir: dir };
        let mut control = wait::until("QEMU listens", LIMIT, || Ok(Some(UnixStream::connect(&qmp)?)))?;
        control.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
        guest.events = lines(control, |line| (now(), serde_json::from_str(&line).unwrap_or(Value::Null)));
        let begun = now();
        guest.hears("guest: ready", BOOT_LIMIT)?;
        println!("the guest is up after {:.1?}", begun.elapsed());
        Ok(guest)
    }

    /// Types a line. Lines that are heard afterwards were said afterwards.
    fn types(&mut self, line: &str) -> Result<()> {
        self.said.extend(self.console.try_iter());
        self.typed = self.said.len();
        writeln!(self.qemu.stdin.as_mut().context("no console")?, "{line}").context("type on the console")
    }

    /// Waits until a line with these words has been said, in whatever order with others.
    fn hears(&mut self, words: &str, limit: Duration) -> Result<()> {
        let until = now() + limit;
        while !self.said[self.typed..].iter().any(|line| line.contains(words)) {
            let line = self.console.recv_timeout(until.saturating_duration_since(now()));
            let said = || format!("waiting for '{words}'; it said:\n{}", self.said.join("\n"));
            let line = line.with_context(said)?;
            self.said.push(line);
        }
        Ok(())
    }

    fn keeper_with_watchdog(&mut self, parameter: &str) -> Result<()> {
        self.types(&format!("load_watchdog {parameter}; keeper"))?;
        self.hears("the watchdog is armed and petted timeout_secs=6", LIMIT)?;
        self.hears("valid=true", LIMIT)
    }

    /// When the watchdog's reset came.
    fn reset(&self, limit: Duration) -> Result<Instant> {
        let until = now() + limit;
        loop {
            let left = until.saturating_duration_since(now());
            let (at, event) = self.events.recv_timeout(left).context("no reset")?;
            if event["event"] == "WATCHDOG" {
                ensure!(event["data"]["action"] == "reset", "{event}");
                return Ok(at);
            }
        }
    }

    fn stays_up(&self, span: Duration) -> Result<()> {
        wait::stays("no reset", span, || {
            while let Ok((_, event)) = self.events.try_recv() {
                ensure!(event["event"] != "WATCHDOG" && event["event"] != "RESET", "{event}");
            }
            Ok(())
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.qemu.kill().ok();
        self.qemu.wait().ok();
    }
}

/// Reads lines on a thread of its own, so that the time of each is its own.
fn lines<T: Send + 'static>(
    from: impl std::io::Read + Send + 'static,
    make: impl Fn(String) -> T + Send + 'static,
) -> mpsc::Receiver<T> {
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if say.send(make(text)).is_err() {
                return;
            }
        }
    });
    hear
}
