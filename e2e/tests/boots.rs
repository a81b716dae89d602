//! What is left of the VM on a node's disk, and what a boot makes of it: libvirt starts by itself what somebody has told
//! it to, and asks no lease.
//!
//! The definitions that are left here have the VM's name and UUID and a disk of their own: where the disk is shared,
//! QEMU's image lock would hide what is looked for, and an image in Ceph has none.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use zsha_e2e::guest::{DOMAIN, domain_xml};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SECOND, SETTLE_LIMIT, now};
use zsha_e2e::{Cluster, Host, IMAGE, wait};

/// A disk on the host's own file system, where definitions are.
const OTHER_DISK: &str = "/var/lib/libvirt/images/other.img";
/// The UUID of the lab's plain domain.
const OTHER_UUID: &str = "173de36b-4a5d-458e-a5e3-9a99584551ef";
/// The time for the keeper to have killed what it finds; it takes milliseconds on a machine that is not busy.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// Longer than it takes from a start to a process.
const QUIET: Duration = Duration::from_secs(3);

struct Boots {
    lab: Cluster,
    uuid: String,
}

impl Boots {
    fn begin() -> Result<Self> {
        let lab = Cluster::builder().nodes(3).profile("Fast").build()?;
        lab.start_vm()?;
        let uuid = lab.settled(SETTLE_LIMIT)?.virsh(&["domuuid", DOMAIN])?.trim().to_owned();
        Ok(Self { lab, uuid })
    }

    /// Defines the domain as an administrator does: `virsh define`, `virsh autostart`.
    fn define_by_hand(&self, host: &Host) -> Result<()> {
        host.ok(&["mkdir", "-p", "/var/lib/libvirt/images"])?;
        host.ok(&["qemu-img", "create", "-q", "-f", "qcow2", OTHER_DISK, "1G"])?;
        let xml = domain_xml(1, 1).replace(OTHER_UUID, &self.uuid).replace(IMAGE, OTHER_DISK);
        let words = ["virsh", "-q", "-c", "qemu:///system", "define", "/dev/stdin"];
        host.exec_with(&words, &xml, 30 * SECOND)?.success()?;
        host.virsh(&["autostart", DOMAIN]).map(drop)
    }

    fn is_defined(&self, host: &Host) -> Result<bool> {
        Ok(!host.virsh(&["list", "--all", "--persistent", "--name"])?.trim().is_empty())
    }

    fn nothing_is_defined(&self) -> Result<()> {
        self.lab.until("no host has the VM on its disk", FAILOVER_LIMIT, || {
            for host in self.lab.hosts() {
                ensure!(!self.is_defined(host)?, "{} has", host.name);
                ensure!(host.virsh(&["list", "--all", "--autostart", "--name"])?.trim().is_empty());
            }
            Ok(Some(()))
        })
    }

    /// Every process that is a copy of the VM by its UUID, whatever its disk.
    fn copies(&self, host: &Host) -> Result<Vec<i32>> {
        host.qemus_with(&self.uuid)
    }

    fn has_a_copy(&self, host: &Host) -> Result<()> {
        self.lab.until("libvirt has started what was defined", FAILOVER_LIMIT, || {
            Ok((!self.copies(host)?.is_empty()).then_some(()))
        })
    }

    /// There is no copy, and for a while comes none: libvirt writes down that it starts one before there is a process.
    fn is_ended(&self, host: &Host, what: &str) -> Result<()> {
        let begun = now();
        let mut last_seen = begun;
        let ended = self.lab.until("the second copy is ended", ENDED_WITHIN, || {
            if !self.copies(host)?.is_empty() {
                last_seen = now();
            }
            Ok((last_seen.elapsed() > QUIET).then_some(()))
        });
        ended.with_context(|| what.to_owned())?;
        println!("{what}: last seen {:.2?} later", last_seen.duration_since(begun));
        Ok(())
    }

    fn life(&self, host: &Host) -> Result<Value> {
        let seen = self.lab.others(host).next().context("nobody is on")?;
        let key = format!("zsha/lab/leases/{}", host.name);
        let record = seen.key(&key)?.with_context(|| format!("no {key}"))?;
        Ok(serde_json::from_str::<Value>(&record)?["incarnation"].clone())
    }

    /// The owner with a definition of the VM on its disk, its power lost, and the VM running elsewhere. Which life of it
    /// that was.
    fn left_behind(&self) -> Result<(&Host, &Host, Value)> {
        let host = self.lab.settled(SETTLE_LIMIT)?;
        // It would remove it.
        host.stop("controller")?;
        self.define_by_hand(host)?;
        ensure!(self.is_defined(host)?, "nothing is left behind");
        let life = self.life(host)?;
        // Consul is still to have a quorum, and libvirt its files on the disk.
        host.ok(&["sync"])?;
        let cut = host.power_off()?;
        let back = self.lab.recovered(cut, FAILOVER_LIMIT)?;
        Ok((host, self.lab.named(&back.host.name)?, life))
    }

    fn renews_in_another_life(&self, host: &Host, before: &Value) -> Result<()> {
        self.lab.until("the node's lease is renewed in a new life", FAILOVER_LIMIT, || {
            Ok((self.life(host)? != *before).then_some(()))
        })
    }

    /// How often libvirt has begun to start the VM here: what is ended at once is seen by nobody else.
    fn starts(&self, host: &Host) -> Result<usize> {
        let log = "grep -c 'starting up' /var/log/libvirt/qemu/mnvm.log || true";
        Ok(host.ok(&["sh", "-c", log])?.trim().parse()?)
    }

    /// All is as if nothing had been left behind, and the VM's process is the one that it was.
    fn settles(&self, qemu: i32) -> Result<()> {
        for host in self.lab.hosts() {
            host.start("keeper")?;
            host.start("libvirtd")?;
            host.start("controller")?;
        }
        let owner = self.lab.settled(SETTLE_LIMIT)?;
        ensure!(owner.pid_of_qemu()? == Some(qemu), "the VM's process is another");
        self.nothing_is_defined()?;
        ensure!(owner.pid_of_qemu()? == Some(qemu), "the VM's process is another");
        Ok(())
    }
}

#[test]
fn a_definition_made_by_hand_is_gone_before_a_boot_could_use_it_and_the_vm_goes_on() -> Result<()> {
    let boots = Boots::begin()?;
    let owner = boots.lab.settled(SETTLE_LIMIT)?;
    let qemu = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    for host in boots.lab.hosts() {
        // Between the two commands it would remove what the first has made.
        host.hang("controller")?;
        let defined = boots.define_by_hand(host);
        host.unhang("controller")?;
        defined?;
    }
    boots.nothing_is_defined()?;
    ensure!(owner.pid_of_qemu()? == Some(qemu), "the VM's process is another");
    let cut = owner.power_off()?;
    let back = boots.lab.recovered(cut, FAILOVER_LIMIT)?;
    owner.power_on_holding(&["keeper", "controller"])?;
    boots.lab.wait_until_up(SETTLE_LIMIT)?;
    wait::stays("libvirt starts nothing", 3 * SECOND, || {
        ensure!(boots.copies(owner)?.is_empty(), "a copy: {:?}", boots.copies(owner)?);
        Ok(())
    })?;
    boots.settles(back.pid)?;
    boots.lab.finish()
}

#[test]
fn what_a_boot_starts_before_the_keeper_lives_no_longer_than_that_takes() -> Result<()> {
    let boots = Boots::begin()?;
    let (host, runs_on, life) = boots.left_behind()?;
    let qemu = runs_on.pid_of_qemu()?.context("no QEMU on the new owner")?;
    host.power_on_holding(&["keeper", "controller"])?;
    boots.has_a_copy(host)?;
    host.start("keeper")?;
    boots.is_ended(host, "a copy that was there before the keeper")?;
    boots.renews_in_another_life(host, &life)?;
    ensure!(boots.is_defined(host)?, "the controller is down: nobody has removed the definition");
    boots.settles(qemu)?;
    boots.lab.finish()
}

/// Nobody but the keeper is there to end it.
#[test]
fn what_a_boot_starts_after_the_lease_was_renewed_is_ended_too() -> Result<()> {
    let boots = Boots::begin()?;
    let (host, runs_on, life) = boots.left_behind()?;
    let qemu = runs_on.pid_of_qemu()?.context("no QEMU on the new owner")?;
    host.power_on_holding(&["libvirtd", "controller"])?;
    boots.renews_in_another_life(host, &life)?;
    let before = boots.starts(host)?;
    host.start("libvirtd")?;
    boots.lab.until("libvirt starts what was defined", FAILOVER_LIMIT, || {
        Ok((boots.starts(host)? > before).then_some(()))
    })?;
    boots.is_ended(host, "a copy under a valid lease")?;
    boots.settles(qemu)?;
    boots.lab.finish()
}
