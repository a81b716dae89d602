//! Plays an administrator who knows libvirt and Consul, and not zsha: things done to the VM, or to the store, past
//! zsha.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::guest::DOMAIN;
use crate::host::Host;
use crate::init::on_disk;
use crate::services::{self, CLUSTER, SEED};
use crate::{IMAGE, wait};

/// The key of the ownership record.
pub const OWNERSHIP: &str = "zsha/lab/vms/mnvm";
/// The disk of a domain that is made by hand, so that QEMU's image lock is not what ends it: not every storage has one.
const OTHER_IMAGE: &str = "/opt/smp/mngt/by-hand.img";
const VIRSH: [&str; 4] = ["virsh", "-q", "-c", "qemu:///system"];
const MIGRATED_WITHIN: Duration = Duration::from_secs(60);
/// The time after the end of a process until the check has read /proc once more.
const GONE_WITHIN: Duration = Duration::from_secs(1);

impl Host {
    /// Moves the guest to another host as a person would, and waits for the end of it. Returns the process that has it
    /// there.
    pub fn migrates_past_zsha(&self, to: &Host, options: &[&str]) -> Result<i32> {
        let uri = format!("qemu+tcp://{}/system", to.address());
        let migrate = ["migrate", "--p2p", "--unsafe"];
        let words = [&VIRSH[..], &migrate, options, &[DOMAIN, &uri]].concat();
        self.exec_with(&words, "", MIGRATED_WITHIN)?.success()?;
        to.pid_of_qemu()?.with_context(|| format!("no QEMU on {}, to which it was moved", to.name))
    }

    /// Copies the seed disk, without which no host takes the guest in; a node makes it for itself.
    pub fn copies_seed_to(&self, to: &Host) -> Result<()> {
        let seed = |host: &Host| Ok::<_, anyhow::Error>(format!("/proc/{}/root{SEED}", host.init()?));
        let directory = Path::new(SEED).parent().context("the seed is in a directory")?.display().to_string();
        to.ok(&["mkdir", "-p", &directory])?;
        fs::copy(seed(self)?, seed(to)?).map(drop).context("copy the seed")
    }

    /// Starts a domain of the VM's name and UUID, with another disk. Returns its process; none where that was ended
    /// before libvirt had it up.
    pub fn starts_by_hand(&self, owner: &Host) -> Result<Option<i32>> {
        let xml = other_domain(self, owner)?;
        self.begins_by_hand(&["create", "/dev/stdin"], &xml)
    }

    /// Defines such a domain, to be started when libvirtd is.
    pub fn defines_by_hand(&self, owner: &Host) -> Result<()> {
        let xml = other_domain(self, owner)?;
        self.exec_with(&[&VIRSH[..], &["define", "/dev/stdin"]].concat(), &xml, MIGRATED_WITHIN)?
            .success()?;
        self.virsh(&["autostart", DOMAIN]).map(drop)
    }

    /// Lets a guest that was saved to a file go on here, with another disk. Returns its process, or none as above.
    pub fn restores_by_hand(&self, saved: &str) -> Result<Option<i32>> {
        let xml = on_another_disk(self, &self.virsh(&["save-image-dumpxml", saved])?)?;
        self.begins_by_hand(&["restore", saved, "--xml", "/dev/stdin", "--running"], &xml)
    }

    fn begins_by_hand(&self, words: &[&str], xml: &str) -> Result<Option<i32>> {
        let before = self.starts()?;
        let said = self.exec_with(&[&VIRSH[..], words].concat(), xml, MIGRATED_WITHIN)?;
        if self.starts()? == before {
            said.success()?;
            bail!("virsh {} has begun nothing on {}", words.join(" "), self.name);
        }
        Ok(self.by_hand()?.first().copied())
    }

    /// The processes of a domain that was made by hand.
    pub fn by_hand(&self) -> Result<Vec<i32>> {
        self.qemus_with(OTHER_IMAGE)
    }

    /// The number of times that libvirt has begun to start the domain here, or to take it in; also in vain.
    pub fn starts(&self) -> Result<usize> {
        let directory = self.log_dir().parent().context("a host has a directory")?.to_owned();
        let log = on_disk(&directory, "/var/log/libvirt").join("qemu").join(format!("{DOMAIN}.log"));
        match fs::read(&log) {
            Ok(text) => Ok(String::from_utf8_lossy(&text).matches(": starting up").count()),
            // It has never been here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error).with_context(|| log.display().to_string()),
        }
    }

    /// Deletes everything that is stored of this cluster.
    pub fn wipes_the_store(&self) -> Result<()> {
        self.delete_key(&format!("zsha/{CLUSTER}/?recurse"))
    }

    pub fn saves_the_store(&self, file: &str) -> Result<()> {
        self.consul_command(&["snapshot", "save", file])
    }

    pub fn restores_the_store(&self, file: &str) -> Result<()> {
        self.consul_command(&["snapshot", "restore", file])
    }

    fn consul_command(&self, words: &[&str]) -> Result<()> {
        let consul = services::consul()?.display().to_string();
        self.ok(&[&[consul.as_str()], words].concat()).map(drop)
    }

    /// The node that the ownership record names, as this host's Consul has it.
    pub fn recorded_owner(&self) -> Result<Option<String>> {
        let text = self.key(OWNERSHIP)?.context("no ownership record")?;
        let record: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        Ok(record["owner"]["node"].as_str().map(str::to_owned))
    }
}

/// The owner's domain with a disk that no other process has open, and without the seed disk, which a host makes only
/// when it has booted.
fn other_domain(host: &Host, owner: &Host) -> Result<String> {
    let xml = owner.virsh(&["dumpxml", "--inactive", DOMAIN])?;
    let (head, disks) = xml.split_once("<disk ").context("a domain without a disk")?;
    let disks = disks.split("<disk ").map(|disk| match disk.split_once("</disk>") {
        Some((disk, rest)) if disk.contains(SEED) => rest.to_owned(),
        Some(_) | None => format!("<disk {disk}"),
    });
    on_another_disk(host, &format!("{head}{}", disks.collect::<String>()))
}

fn on_another_disk(host: &Host, xml: &str) -> Result<String> {
    ensure!(xml.contains(IMAGE), "the domain does not have {IMAGE}:\n{xml}");
    host.ok(&["qemu-img", "create", "-q", "-f", "qcow2", OTHER_IMAGE, "64M"])?;
    Ok(xml.replace(IMAGE, OTHER_IMAGE))
}

/// The number of times that libvirt had begun to start the VM, on each host that is on. A copy that is started beside
/// another ends at once where QEMU finds the image locked, and that is no merit of zsha's.
#[derive(Debug)]
pub struct Starts<'a> {
    lab: &'a Cluster,
    of: Vec<(&'a Host, usize)>,
}

impl<'a> Starts<'a> {
    pub fn so_far(lab: &'a Cluster) -> Result<Self> {
        let on = lab.hosts().iter().filter(|host| host.is_on());
        Ok(Self { lab, of: on.map(|host| Ok((host, host.starts()?))).collect::<Result<_>>()? })
    }

    /// Counts one more on `host`: the guest that has come there was begun to be taken in.
    pub fn and_one_on(mut self, host: &Host) -> Self {
        self.of.iter_mut().filter(|(of, _)| of.name == host.name).for_each(|(_, starts)| *starts += 1);
        self
    }

    /// Fails if any host has so much as tried to start another copy.
    pub fn no_other(&self) -> Result<()> {
        for (host, before) in &self.of {
            let now = host.starts()?;
            ensure!(now == *before, "{}: {} starts of the VM that nobody asked for", host.name, now - before);
        }
        Ok(())
    }

    /// Fails unless this process is the only one of the VM, by the machine's /proc, for so long.
    pub fn only(&self, pid: i32, span: Duration) -> Result<()> {
        self.lab.until("the other process has gone", GONE_WITHIN, || self.is_only(pid).map(Some))?;
        wait::stays("the VM's one process", span, || self.is_only(pid))
    }

    /// Fails unless nothing of the VM runs for so long.
    pub fn nothing(&self, span: Duration) -> Result<()> {
        wait::stays("nothing runs", span, || {
            let alive = self.lab.check().alive();
            ensure!(alive.is_empty(), "there is {alive:?}");
            self.no_other()
        })
    }

    fn is_only(&self, pid: i32) -> Result<()> {
        let alive = self.lab.check().alive();
        let alive: Vec<_> = alive.iter().map(|copy| (copy.host.as_str(), copy.pid)).collect();
        ensure!(
            matches!(alive.as_slice(), [(_, only)] if *only == pid),
            "it was process {pid}, now {alive:?}"
        );
        self.no_other().with_context(|| format!("beside process {pid}"))
    }
}

impl Cluster {
    /// Waits until nothing of a domain that was made by hand is left on the host. Returns how long it took.
    pub fn ended_by_hand(&self, host: &Host, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        self.until(&format!("the copy made by hand on {} is ended", host.name), limit, || {
            let left = host.by_hand()?;
            ensure!(left.is_empty(), "process {left:?} is there");
            Ok(Some(()))
        })?;
        Ok(begun.elapsed())
    }

    /// Waits until the ownership record names this host.
    pub fn recorded(&self, owner: &Host, limit: Duration) -> Result<()> {
        self.until(&format!("the record names {}", owner.name), limit, || {
            let named = owner.recorded_owner()?;
            ensure!(named.as_deref() == Some(owner.name.as_str()), "it names {named:?}");
            Ok(Some(()))
        })
    }

    /// Ends the controllers of all hosts that are on.
    pub fn stop_controllers(&self) -> Result<()> {
        self.hosts().iter().filter(|host| host.is_on()).try_for_each(|host| host.stop("controller"))
    }

    pub fn start_controllers(&self) -> Result<()> {
        self.hosts().iter().filter(|host| host.is_on()).try_for_each(|host| host.start("controller"))
    }
}
