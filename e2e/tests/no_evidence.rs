//! What says nothing about the VM's disk ends nothing: a controller that cannot look, and a mount that is not the image's.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Host, wait};

/// A disk that is not reached from the owner for 30 s costs the VM its process there, where another node is fit; it takes
/// 10 s and a look to see that.
const LONG_ENOUGH: Duration = Duration::from_secs(50);
/// The descriptors that a process has unless somebody gave it more; enough half-open requests take them all.
const USUAL_DESCRIPTORS: u32 = 1024;
const HALF_OPEN: usize = 1100;

struct Running {
    lab: Cluster,
    qemu: i32,
}

impl Running {
    fn begin() -> Result<Self> {
        let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
        lab.start_vm()?;
        let qemu = lab.settled(SETTLE_LIMIT)?.pid_of_qemu()?.context("no QEMU on the owner")?;
        Ok(Self { lab, qemu })
    }

    fn owner(&self) -> Result<&Host> {
        self.lab.running_host(SETTLE_LIMIT)
    }

    /// QEMU is the same process all this time; `meanwhile` is done again and again.
    fn untouched(&self, what: &str, owner: &Host, mut meanwhile: impl FnMut() -> Result<()>) -> Result<()> {
        wait::stays(what, LONG_ENOUGH, || {
            let now = owner.pid_of_qemu()?;
            ensure!(now == Some(self.qemu), "{what}: QEMU was {}, it is {now:?}", self.qemu);
            meanwhile()
        })?;
        println!("untouched for {LONG_ENOUGH:?}: {what}");
        Ok(())
    }

    /// Within a few looks, in what the owner says of itself.
    fn says(&self, owner: &Host, words: &str) -> Result<()> {
        let key = format!("zsha/lab/status/nodes/{}", owner.name);
        let said = || -> Result<String> { Ok(owner.key(&key)?.unwrap_or_default()) };
        let heard = self.lab.until(&format!("the owner says '{words}'"), FAILOVER_LIMIT, || {
            Ok(said()?.contains(words).then_some(()))
        });
        heard.or_else(|error| bail!("{error:#}; it says {}", said()?))
    }

    fn finish(self) -> Result<()> {
        let runs_on = self.lab.settled(SETTLE_LIMIT)?;
        ensure!(runs_on.pid_of_qemu()? == Some(self.qemu), "the VM's process changed");
        let seen = self.lab.check().history();
        ensure!(seen.len() == 1, "another QEMU was there meanwhile: {seen:?}");
        self.lab.finish()
    }
}

/// Half a request each, from one host to another's page; whichever the page has closed is made anew.
struct Flood<'a> {
    from: &'a Host,
    to: &'a Host,
    open: Vec<TcpStream>,
}

impl Flood<'_> {
    fn keep_up(&mut self) -> Result<()> {
        self.open.retain(|connection| {
            connection.set_nonblocking(true).is_ok()
                && matches!(connection.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        });
        while self.open.len() < HALF_OPEN {
            // One that is not taken now is tried again next time.
            let Ok(mut connection) = self.from.connect_to_page_of(self.to) else { break };
            if connection.write_all(b"GET / HTTP/1.1\r\nHost: nfs-1\r\n").is_ok() {
                self.open.push(connection);
            }
            if self.open.len().is_multiple_of(100) {
                break;
            }
        }
        Ok(())
    }
}

#[test]
fn half_open_requests_by_the_hundred_touch_neither_the_vm_nor_who_else_asks_for_the_page() -> Result<()> {
    let running = Running::begin()?;
    let owner = running.owner()?;
    let others: Vec<_> = running.lab.others(owner).collect();
    let [from, asks] = others.as_slice() else { bail!("no two other hosts") };
    let controller = owner.services()?["controller"].pid.context("no controller")?.to_string();
    owner.ok(&["prlimit", "--pid", &controller, &format!("--nofile={USUAL_DESCRIPTORS}:")])?;
    let mut flood = Flood { from, to: owner, open: Vec::new() };
    running.untouched("half-open requests by the hundred", owner, || {
        flood.keep_up()?;
        ensure!(asks.page_of(owner, "/healthz")? == "ok\n", "another host is not answered");
        Ok(())
    })?;
    let metrics = asks.page_of(owner, "/metrics")?;
    let refused = metrics.lines().filter(|line| line.starts_with("zsha_page_connections"));
    refused.for_each(|line| println!("{line}"));
    drop(flood);
    ensure!(asks.page_of(owner, "/healthz")? == "ok\n");
    running.finish()
}

/// The limit with which a process keeps what it has open, and has enough left for a word with its keeper or Consul, and
/// for no child.
fn few_left(owner: &Host, pid: &str) -> Result<u32> {
    let listed = owner.ok(&["ls", &format!("/proc/{pid}/fd")])?;
    let open: Vec<u32> = listed.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
    let last = (0..).filter(|number| !open.contains(number)).nth(3).context("no number")?;
    Ok(last + 1)
}

/// The same as with a page that takes too much, whoever takes it: no file, no pipe, no process to look with.
#[test]
fn a_controller_out_of_descriptors_says_so_and_touches_nothing() -> Result<()> {
    let running = Running::begin()?;
    let owner = running.owner()?;
    let controller = owner.services()?["controller"].pid.context("no controller")?.to_string();
    // A look or a request that was on its way as the limit was set gives its descriptors back, and so does a connection
    // that nobody has used for a minute: it is set anew all the time, to less each time.
    let mut limit = u32::MAX;
    running.untouched("a controller that can open nothing", owner, || {
        let left = few_left(owner, &controller)?;
        if left < limit {
            println!("at most {left} descriptors");
        }
        limit = limit.min(left);
        owner.ok(&["prlimit", "--pid", &controller, &format!("--nofile={limit}:")])?;
        Ok(())
    })?;
    running.says(owner, "CouldNotLook")?;
    owner.ok(&["prlimit", "--pid", &controller, "--nofile=4096:"])?;
    running.finish()
}

/// Nobody serves the FUSE on the owner, so whoever touches it waits; elsewhere the same mount is well.
#[test]
fn a_hanging_mount_that_is_not_the_images_ends_nothing() -> Result<()> {
    let running = Running::begin()?;
    let owner = running.owner()?;
    for host in running.lab.hosts() {
        host.ok(&["mkdir", "-p", "/run/second", "/run/beside"])?;
    }
    owner.ok(&[
        "bash",
        "-c",
        "exec 3<>/dev/fuse && \
         mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 nobody /run/beside && \
         (setsid sleep 100000 </dev/null >/dev/null 2>&1 &)",
    ])?;
    let second = serde_json::json!([
        { "Source": "/run/second", "Target": "/run/beside", "FsType": "none", "Options": "bind" }
    ]);
    running.lab.apply(&running.lab.document().with("Mounts", second), "a second mount")?;
    running.says(owner, "NotAnswering")?;
    for other in running.lab.others(owner) {
        running.lab.until("the others are fit", FAILOVER_LIMIT, || {
            Ok(running.lab.status()?.node(&other.name).is_some_and(|node| node.ready).then_some(()))
        })?;
    }
    running.untouched("a second mount that hangs", owner, || Ok(()))?;
    owner.ok(&["umount", "-l", "/run/beside"])?;
    running.finish()
}
