//! Does a fault of the machines, and takes it back where it is for a while. Never here: what is expected of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use zsha_e2e::stand_in::{Manner, Upstream};
use zsha_e2e::{Host, wait};

use crate::fault::Fault;
use crate::{Chaos, Inflicted, SEEN_WITHIN, Scene, pass};

/// The time for the slow store's stand-in to connect to a real one: on one machine, at once.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);

/// The time for a drain. The lab's guest is small, so most of the time is the machine's own.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

impl Chaos {
    /// Does the fault. None where the VM's process is meant to be the one that was there.
    pub(crate) fn inflict(&mut self, fault: Fault, scene: &Scene) -> Result<Option<Inflicted>> {
        if fault == Fault::Apply {
            self.memory_gib = if self.memory_gib == 8 { 9 } else { 8 };
            let document = self.lab.document().with("MemorySizeInGB", self.memory_gib);
            return self.lab.apply(&document, "chaos").map(|_| None);
        }
        if let Fault::ByHand(act) = fault {
            return self.by_hand(act, scene).map(Some);
        }
        let (owner, other) = self.owner_and_bystander(scene)?;
        let Scene { length, brief, .. } = *scene;
        let inflicted = match fault {
            Fault::OwnerLosesPower => owner.power_off().map(drop),
            Fault::BystanderLosesPower => other.power_off().and_then(|_| pass(length)),
            Fault::OwnerCutOff => owner.pull_cables().map(drop),
            Fault::BystanderCutOff => other.pull_cables().and_then(|_| pass(length)),
            Fault::Blip => blip(owner, brief),
            Fault::QemuKilled => owner.kill9("qemu").map(drop),
            Fault::QemuHangs => qemu_hangs(scene.qemu, length),
            Fault::ConsulLeaderKilled => self.lab.consul_leader()?.kill9("consul").map(drop),
            Fault::ConsulLeaderHangs => hangs(self.lab.consul_leader()?, "consul", length),
            Fault::OwnersConsulStopped => consul_stops(owner, length),
            Fault::SlowStore => slow_store(owner, other, scene),
            Fault::ControllerKilled => owner.kill9("controller").map(drop),
            Fault::ControllerHangs => hangs(owner, "controller", length),
            Fault::KeeperKilled => owner.kill9("keeper").map(drop),
            Fault::KeeperHangs => owner.hang("keeper"),
            Fault::LibvirtKilled => owner.kill9("libvirtd").map(drop),
            Fault::LibvirtHangs => hangs(owner, "libvirtd", length),
            Fault::Migration => migrates(owner, other),
            Fault::MigrationAndPowerLoss => migrates_and_loses_power(owner, other, scene),
            Fault::Drain => drains(owner, other),
            Fault::FrozenAndQemuKilled => self.dies_while_frozen(owner, other, length),
            Fault::Apply | Fault::ByHand(_) => Ok(()),
        };
        inflicted.map(|()| None)
    }

    /// Kills the VM while the cluster is frozen, and resumes the cluster.
    fn dies_while_frozen(&self, owner: &Host, other: &Host, length: Duration) -> Result<()> {
        owner.zsha(&["freeze", "-m", "chaos"], "")?.success()?;
        pass(SEEN_WITHIN)?;
        owner.kill9("qemu")?;
        let frozen = self.nothing_runs(length);
        other.zsha(&["resume"], "")?.success()?;
        frozen
    }

    /// Waits until the VM's process is gone, and fails unless nothing runs for so long from then on.
    fn nothing_runs(&self, span: Duration) -> Result<()> {
        let alive = || self.alive();
        wait::until("the VM's process gone", SEEN_WITHIN, || Ok(alive().is_empty().then_some(())))?;
        wait::stays("nothing runs while frozen", span, || {
            let alive = alive();
            ensure!(alive.is_empty(), "there is {alive:?}");
            Ok(())
        })
    }
}

/// Cuts a host off for a moment.
fn blip(host: &Host, brief: Duration) -> Result<()> {
    host.pull_cables()?;
    pass(brief)?;
    host.plug_cables().map(drop)
}

/// Stops a service for so long, without ending it.
fn hangs(host: &Host, service: &str, span: Duration) -> Result<()> {
    host.hang(service)?;
    pass(span)?;
    host.unhang(service)
}

/// Stops the VM's process for so long.
fn qemu_hangs(qemu: i32, length: Duration) -> Result<()> {
    let process = Pid::from_raw(qemu).context("no pid")?;
    kill_process(process, Signal::STOP)?;
    pass(length)?;
    Ok(kill_process(process, Signal::CONT)?)
}

/// Takes a host's own Consul agent away for so long.
fn consul_stops(host: &Host, length: Duration) -> Result<()> {
    host.stop("consul")?;
    pass(length)?;
    host.start("consul")
}

/// Puts a slow way to the agent of another host in the place of the owner's own agent.
fn slow_store(owner: &Host, other: &Host, scene: &Scene) -> Result<()> {
    owner.stop("consul")?;
    let init = other.init()?;
    let connect = move || zsha_e2e::net::connect_inside(init, 8500, CONNECT_WITHIN);
    let slow = owner.stand_in_for_consul(Manner::Slow(scene.brief, Upstream::new(connect)))?;
    pass(scene.length)?;
    drop(slow);
    owner.start("consul")
}

fn migrates(owner: &Host, to: &Host) -> Result<()> {
    owner.zsha(&["migrate", &to.name, "--detach"], "")?.success().map(drop)
}

/// Takes the power from the source or the target while the VM is on its way.
fn migrates_and_loses_power(owner: &Host, to: &Host, scene: &Scene) -> Result<()> {
    migrates(owner, to)?;
    pass(scene.brief)?;
    let victim = if scene.length.as_millis().is_multiple_of(2) { owner } else { to };
    victim.power_off().map(drop)
}

/// Drains the owner, and takes that back once the VM has left.
fn drains(owner: &Host, other: &Host) -> Result<()> {
    let limit = DRAINED_WITHIN.as_secs().to_string();
    let drained = owner.zsha(&["drain", &owner.name, "--timeout", &limit], "")?;
    other.zsha(&["uncordon", &owner.name], "")?.success()?;
    drained.success().map(drop)
}
