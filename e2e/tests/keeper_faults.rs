//! Everything on a node that can hang, die, vanish or lie to the keeper, on the real processes: what must not touch the
//! VM leaves its process as it is, and what must end it does so in time, and starts it once.
//!
//! `Fast` throughout: the least room for anybody who is late, and the least waiting. One lab for a theme: a case begins
//! when the one before it has settled.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use zsha_e2e::scenario::{FAILOVER_LIMIT, SECOND, SETTLE_LIMIT, now, within_bound};
use zsha_e2e::stand_in::{Manner, Upstream};
use zsha_e2e::{Cluster, Host, wait};

/// Longer than every deadline of the lease in `Fast`.
const LONG_ENOUGH: Duration = Duration::from_secs(8);
/// A time so short that a keeper which does nothing meanwhile still renews in time.
const BRIEF: Duration = Duration::from_secs(2);
const OWNERSHIP: &str = "zsha/lab/vms/mnvm";

struct Faults {
    lab: Cluster,
}

impl Faults {
    fn begin() -> Result<Self> {
        let lab = Cluster::builder().nodes(3).profile("Fast").own_wall_clocks().build()?;
        lab.start_vm()?;
        Ok(Self { lab })
    }

    /// QEMU is the same process through what happens, and when all has settled.
    fn untouched(&self, what: &str, happen: impl FnOnce(&Node<'_>) -> Result<()>) -> Result<()> {
        let node = self.owner()?;
        let (begun, seen) = (now(), self.lab.check().history().len());
        happen(&node).and_then(|()| node.untouched()).with_context(|| what.to_owned())?;
        let runs_on = self.lab.settled(SETTLE_LIMIT).with_context(|| format!("after: {what}"))?;
        ensure!(runs_on.name == node.host.name, "{what}: it moved to {}", runs_on.name);
        node.untouched().with_context(|| what.to_owned())?;
        ensure!(self.lab.check().history().len() == seen, "{what}: another QEMU was there meanwhile");
        println!("untouched: {what} ({:.1?})", begun.elapsed());
        Ok(())
    }

    /// The VM's process ends, and another one runs within the bound: the only one. What hung goes on afterwards.
    fn starts_once(&self, what: &str, happen: impl FnOnce(&Node<'_>) -> Result<Instant>) -> Result<()> {
        let node = self.owner()?;
        let bound = self.lab.failover_bound()?;
        let seen = self.lab.check().history().len();
        let at = happen(&node).with_context(|| what.to_owned())?;
        let back = self.lab.recovered(at, FAILOVER_LIMIT).with_context(|| what.to_owned())?;
        within_bound("Fast", &format!("{what}, then on {}", back.host.name), back.took, bound)?;
        node.go_on()?;
        let runs_on = self.lab.settled(SETTLE_LIMIT).with_context(|| format!("after: {what}"))?;
        ensure!(runs_on.pid_of_qemu()? == Some(back.pid), "{what}: the VM's process changed once more");
        let starts = self.lab.check().history().len() - seen;
        ensure!(starts == 1, "{what}: {starts} starts");
        self.only_defined_on(runs_on).with_context(|| what.to_owned())
    }

    /// Nobody can start a second copy by hand where the VM has been.
    fn only_defined_on(&self, owner: &Host) -> Result<()> {
        self.lab.until("no other host has the domain defined", FAILOVER_LIMIT, || {
            for host in self.lab.others(owner) {
                let defined = host.virsh(&["list", "--all", "--name"])?;
                ensure!(defined.trim().is_empty(), "{} has {}", host.name, defined.trim());
            }
            Ok(Some(()))
        })
    }

    fn owner(&self) -> Result<Node<'_>> {
        let host = self.lab.settled(SETTLE_LIMIT)?;
        let qemu = host.pid_of_qemu()?.context("no QEMU on the owner")?;
        Ok(Node { lab: &self.lab, host, qemu })
    }
}

/// The owner, and the process of its VM.
struct Node<'a> {
    lab: &'a Cluster,
    host: &'a Host,
    qemu: i32,
}

impl Node<'_> {
    fn untouched(&self) -> Result<()> {
        let alive = self.lab.check().alive();
        ensure!(alive.len() == 1 && alive[0].pid == self.qemu, "it was {}, now it is {alive:?}", self.qemu);
        Ok(())
    }

    fn stays_untouched(&self, span: Duration) -> Result<()> {
        wait::stays("the VM's process", span, || self.untouched())
    }

    /// SIGSTOP, or SIGCONT, of services and of `qemu`.
    fn signal(&self, what: &[&str], signal: Signal) -> Result<()> {
        for what in what {
            match (*what, signal) {
                ("qemu", signal) => kill_process(Pid::from_raw(self.qemu).context("no pid")?, signal)?,
                (service, Signal::CONT) => self.host.unhang(service)?,
                (service, _) => self.host.hang(service)?,
            }
        }
        Ok(())
    }

    fn hang(&self, what: &[&str], span: Duration) -> Result<()> {
        self.signal(what, Signal::STOP)?;
        let stayed = self.stays_untouched(span);
        self.signal(what, Signal::CONT)?;
        stayed
    }

    fn go_on(&self) -> Result<()> {
        if !self.host.is_on() {
            return self.host.power_on();
        }
        self.signal(&["keeper", "controller", "libvirtd"], Signal::CONT)
    }

    /// SIGKILL of services, all at once; returns when each has been started again and the lease renewed.
    fn kill(&self, services: &[&str]) -> Result<()> {
        let before = self.host.services()?;
        for service in services {
            self.host.kill9(service)?;
        }
        self.lab.until("what was killed is there again", FAILOVER_LIMIT, || {
            let after = self.host.services()?;
            let back = |name: &&str| after[*name].pid.is_some() && after[*name].starts > before[*name].starts;
            Ok(services.iter().all(back).then_some(()))
        })?;
        self.renews()
    }

    /// Waits until the keeper has renewed twice more.
    fn renews(&self) -> Result<()> {
        let seq = || Ok::<_, anyhow::Error>(self.lease(self.host)?["seq"].as_u64().unwrap_or_default());
        let before = self.lab.until("the lease is there", FAILOVER_LIMIT, || seq().map(Some))?;
        self.lab.until("the lease is renewed", FAILOVER_LIMIT, || {
            let lease = self.lease(self.host)?;
            let held = lease["state"] == "Held" && lease["seq"].as_u64() >= Some(before + 2);
            Ok(held.then_some(()))
        })
    }

    fn lease_key(&self) -> String {
        format!("zsha/lab/leases/{}", self.host.name)
    }

    /// The lease as a host sees it that certainly has Consul.
    fn lease(&self, of: &Host) -> Result<Value> {
        let asked = self.lab.others(self.host).next().context("no other host")?;
        let text = asked.key(&format!("zsha/lab/leases/{}", of.name))?.context("no lease")?;
        Ok(serde_json::from_str(&text)?)
    }

    fn wipe_run(&self) -> Result<()> {
        self.host.ok(&["rm", "-rf", "/run/zsha"]).map(drop)
    }

    /// Waits until status says why nothing is done.
    fn status_says(&self, word: &str) -> Result<()> {
        let says = || Ok(self.host.zsha(&["status"], "")?.stdout.contains(word).then_some(()));
        self.lab.until(&format!("status says '{word}'"), FAILOVER_LIMIT, says)
    }
}

#[test]
fn what_hangs_or_is_killed_beside_a_running_vm_does_not_touch_it() -> Result<()> {
    let faults = Faults::begin()?;
    let long: [&[&str]; 3] = [&["controller"], &["libvirtd"], &["controller", "libvirtd", "qemu"]];
    for what in long {
        faults
            .untouched(&format!("{what:?} hung for {LONG_ENOUGH:?}"), |node| node.hang(what, LONG_ENOUGH))?;
    }
    let brief: [&[&str]; 2] = [&["keeper"], &["keeper", "controller", "libvirtd", "qemu"]];
    for what in brief {
        faults.untouched(&format!("{what:?} hung for {BRIEF:?}"), |node| {
            node.hang(what, BRIEF)?;
            node.renews()
        })?;
    }
    let killed: [&[&str]; 3] = [&["keeper"], &["controller"], &["keeper", "controller", "libvirtd"]];
    for what in killed {
        faults.untouched(&format!("{what:?} killed -9"), |node| node.kill(what))?;
    }
    faults.untouched("the keeper's directory wiped, and then the keeper killed -9", |node| {
        node.wipe_run()?;
        node.renews()?;
        node.kill(&["keeper"])
    })?;
    faults.untouched("the lease's key deleted", |node| {
        node.host.delete_key(&node.lease_key())?;
        node.renews()?;
        node.stays_untouched(LONG_ENOUGH)
    })?;
    faults.untouched("the ownership's key deleted, and put back later", |node| {
        let record = node.host.key(OWNERSHIP)?.context("no record")?;
        node.host.delete_key(OWNERSHIP)?;
        node.status_says("ownership record")?;
        let stayed = node.stays_untouched(BRIEF);
        node.host.put_key(OWNERSHIP, &record)?;
        stayed
    })?;
    faults.lab.finish()
}

#[test]
fn a_wall_clock_that_jumps_by_an_hour_is_only_shown() -> Result<()> {
    let faults = Faults::begin()?;
    let hours_apart = |node: &Node<'_>, host: &Host, from: &Host| {
        let renewed = |host: &Host| -> Result<jiff::Timestamp> {
            Ok(node.lease(host)?["renewedAt"].as_str().unwrap_or_default().parse()?)
        };
        let apart = renewed(host)?.duration_since(renewed(from)?);
        Ok::<_, anyhow::Error>((apart.as_secs_f64() / 3600.0).round())
    };
    faults.untouched("wall clocks an hour ahead on the owner and behind elsewhere", |node| {
        let mut others = node.lab.others(node.host);
        let (behind, right) = others.next().zip(others.next()).context("no two other hosts")?;
        node.host.step_wall_clock("+3600")?;
        behind.step_wall_clock("-3600")?;
        for (host, expected) in [(node.host, 1.0), (behind, -1.0)] {
            node.lab.until("the lease shows the other time", FAILOVER_LIMIT, || {
                Ok((hours_apart(node, host, right)? == expected).then_some(()))
            })?;
        }
        node.stays_untouched(LONG_ENOUGH)?;
        node.host.step_wall_clock("-3600")?;
        node.stays_untouched(BRIEF)
    })?;
    faults.starts_once("power loss while the wall clocks are apart", |node| {
        let other = node.lab.others(node.host).next().context("no other host")?;
        other.step_wall_clock("+3600")?;
        node.host.power_off()
    })?;
    faults.lab.finish()
}

#[test]
fn what_hangs_for_too_long_costs_one_restart_within_the_bound() -> Result<()> {
    let faults = Faults::begin()?;
    let hung: [&[&str]; 3] = [&["keeper"], &["keeper", "libvirtd"], &["keeper", "qemu"]];
    for what in hung {
        faults.starts_once(&format!("{what:?} hung for good"), |node| {
            let at = now();
            node.signal(what, Signal::STOP)?;
            Ok(at)
        })?;
    }
    faults.starts_once("the keeper hung for good, and the controller killed -9", |node| {
        let at = now();
        node.signal(&["keeper"], Signal::STOP)?;
        node.host.kill9("controller")?;
        Ok(at)
    })?;
    faults.starts_once("everything of the owner killed -9 at once", |node| {
        let at = node.host.kill9("qemu")?;
        ["keeper", "controller", "libvirtd"]
            .into_iter()
            .try_for_each(|service| node.host.kill9(service).map(drop))?;
        Ok(at)
    })?;
    faults.starts_once(
        "the keeper's memory wiped and the keeper killed -9 before it can write it again",
        |node| {
            node.signal(&["keeper"], Signal::STOP)?;
            node.wipe_run()?;
            node.host.kill9("keeper")
        },
    )?;
    faults.starts_once("the ownership's key deleted, QEMU killed -9, the key put back", |node| {
        let record = node.host.key(OWNERSHIP)?.context("no record")?;
        node.host.delete_key(OWNERSHIP)?;
        node.status_says("ownership record")?;
        node.host.kill9("qemu")?;
        node.lab
            .until("it is dead", FAILOVER_LIMIT, || Ok(node.lab.check().alive().is_empty().then_some(())))?;
        wait::stays("nobody starts it without a record", 3 * SECOND, || {
            ensure!(node.lab.check().alive().is_empty(), "{:?}", node.lab.check().alive());
            Ok(())
        })?;
        let at = now();
        node.host.put_key(OWNERSHIP, &record)?;
        Ok(at)
    })?;
    faults.lab.finish()
}

#[test]
fn the_owners_own_consul_agent_away_for_a_minute_and_replaced_by_the_worst_does_not_touch_the_vm()
-> Result<()> {
    const EACH: Duration = Duration::from_secs(10);
    let faults = Faults::begin()?;
    faults.untouched("the local Consul agent away for a minute", |node| {
        let begun = now();
        node.host.stop("consul")?;
        node.stays_untouched(EACH)?;
        let init = node.lab.others(node.host).next().context("no other host")?.init()?;
        let upstream = || Upstream::new(move || zsha_e2e::net::connect_inside(init, 8500, 2 * SECOND));
        let manners = [
            ("answers 500", Manner::Fails),
            ("answers 500 and does what it is asked", Manner::FailsAndDoes(upstream())),
            ("answers 0.9 s late", Manner::Slow(Duration::from_millis(900), upstream())),
            ("answers nothing", Manner::Silent),
            ("cannot be connected to", Manner::BlackHole),
        ];
        for (what, manner) in manners {
            let stand_in = node.host.stand_in_for_consul(manner)?;
            node.renews().and_then(|()| node.stays_untouched(EACH)).context(what)?;
            drop(stand_in);
            println!("  while something there {what}: untouched");
        }
        node.host.start("consul")?;
        ensure!(begun.elapsed() >= 60 * SECOND, "that was no minute");
        node.lab.wait_until_up(FAILOVER_LIMIT)
    })?;
    faults.lab.finish()
}
