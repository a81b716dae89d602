//! What runs, held against what would be started: the disk that the VM writes to goes into the ownership record, so that
//! a start goes on from it, and people are told of every other difference.

use zsha_crds::document::ImageFormat;
use zsha_crds::records::{DiskInUse, DiskSource};
use zsha_crds::{EventReason, NodeName, VmName};

use super::decision::Plan;
use super::expecting;
use super::owner::Upkeep;
use crate::desired::Desired;
use crate::hypervisor::devices::{BOOT_DISK, SEED_DISK};
use crate::hypervisor::{Devices, Disk, DomainImage, DomainSpec, LocalVm};
use crate::planted::{self, Bug};
use crate::world::World;

/// The domain that what runs here was to be. None: nothing runs here, or it is not known any more what its generation
/// of the document said. A definition of somebody else's is held against the document in force.
fn was_to_be(world: &World) -> Option<&DomainSpec> {
    let desired = world.document()?;
    match world.local.known().and_then(LocalVm::generation)? {
        0 => Some(&desired.domain),
        running if running == desired.generation => Some(&desired.domain),
        _ => world.running_domain.as_deref(),
    }
}

/// The devices of what runs here, and the domain that it was to be.
fn here(world: &World) -> Option<(&Devices, &DomainSpec)> {
    Some((world.domain.known()?.devices.known()?, was_to_be(world)?))
}

/// The disk of the VM: the one it boots from, by its name, or where a foreign definition calls it otherwise, the one
/// that lies where the document says, or rests on that.
fn own_disk<'d>(devices: &'d Devices, image: &DiskSource) -> Option<&'d Disk> {
    let named = devices.disks.iter().find(|disk| disk.target == BOOT_DISK);
    let is_it = |disk: &&Disk| !disk.read_only && (disk.source == *image || disk.backing.contains(image));
    named.or_else(|| devices.disks.iter().find(is_it))
}

/// The disk that the VM writes to here, where it is another than the document's image. None: it is not known.
fn disk_in_use(world: &World) -> Option<Option<DiskInUse>> {
    let (devices, domain) = here(world)?;
    let image = domain.image.source();
    let Some(disk) = own_disk(devices, &image) else { return Some(None) };
    Some((disk.source != image).then(|| in_use(disk, image)))
}

fn in_use(disk: &Disk, instead_of: DiskSource) -> DiskInUse {
    DiskInUse {
        source: disk.source.clone(),
        format: disk.format.clone(),
        backing: disk.backing.clone(),
        instead_of,
    }
}

/// The differences between what runs here and what would be started, a sentence each. None: they are not known.
pub fn differences(world: &World) -> Option<Vec<String>> {
    let (devices, domain) = here(world)?;
    let image = domain.image.source();
    let own = own_disk(devices, &image);
    let mut all = Vec::new();
    match own {
        None => all.push(format!("its disk ({image}) is detached")),
        Some(disk) if disk.source != image => all.push(format!(
            "it writes to {} and not to {image}: a snapshot or a move of its disk that was not zsha's. {}",
            disk.source,
            goes_on(&in_use(disk, image.clone()))
        )),
        Some(_) => {}
    }
    for disk in &devices.disks {
        let is_seed = disk.target == SEED_DISK && disk.read_only;
        let is_empty = disk.source == DiskSource::Nothing;
        if own.is_none_or(|own| own != disk) && !is_seed && !is_empty {
            all.push(format!("{} is attached as {}, and a start leaves it out", disk.source, disk.target));
        }
    }
    for nic in &domain.nics {
        match devices.nics.iter().find(|there| there.mac.eq_ignore_ascii_case(&nic.mac)) {
            None => all.push(format!("its NIC {} on {} is detached", nic.mac, nic.bridge)),
            Some(there) if there.bridge != nic.bridge => {
                all.push(format!("its NIC {} is on {} and not on {}", nic.mac, there.bridge, nic.bridge));
            }
            Some(_) => {}
        }
    }
    for there in &devices.nics {
        if !domain.nics.iter().any(|nic| nic.mac.eq_ignore_ascii_case(&there.mac)) {
            all.push(format!(
                "a NIC {} on {} is attached, and a start leaves it out",
                there.mac, there.bridge
            ));
        }
    }
    for kind in &devices.others {
        all.push(format!("a device ({kind}) is attached, and a start leaves it out"));
    }
    Some(all)
}

/// The image that a start begins from: the disk that the VM wrote to last. An error says why there is none.
pub(super) fn image_to_start(world: &World, desired: &Desired) -> Result<DomainImage, String> {
    world.disk().map_or_else(|| Ok(desired.domain.image.clone()), startable)
}

/// The disk as one to start from. An error says why it is none.
fn startable(disk: &DiskInUse) -> Result<DomainImage, String> {
    match (&disk.source, ImageFormat::named(&disk.format)) {
        (DiskSource::File(path), Some(format)) => Ok(DomainImage::File { path: path.into(), format }),
        (DiskSource::File(path), None) => Err(not_to_be_started(
            disk,
            &format!("{path}, whose format is '{}', which zsha does not start", disk.format),
        )),
        (DiskSource::Rbd(_) | DiskSource::Other(_) | DiskSource::Nothing, _) => {
            Err(not_to_be_started(disk, &format!("{}, from which zsha cannot start it", disk.source)))
        }
    }
}

/// Says whether a start goes on from this disk.
fn goes_on(disk: &DiskInUse) -> String {
    match startable(disk) {
        Ok(_) => "A start goes on from there".to_owned(),
        Err(_) => {
            format!(
                "zsha cannot start it from there, and starts it from {} only if asked to",
                disk.instead_of
            )
        }
    }
}

/// Says how a snapshot is merged back into the image. Empty: the disk does not rest on the image.
fn merging(disk: &DiskInUse, vm: &VmName, node: &NodeName) -> String {
    if !disk.backing.contains(&disk.instead_of) {
        return String::new();
    }
    format!(
        ". `virsh blockcommit {vm} {BOOT_DISK} --base {} --active --pivot --wait` on {node} merges it back",
        disk.instead_of
    )
}

fn not_to_be_started(disk: &DiskInUse, what: &str) -> String {
    format!("the VM last wrote to {what}. {}", way_out(disk))
}

/// What an operator can do where the disk that the VM wrote to last cannot be had.
pub(super) fn way_out(disk: &DiskInUse) -> String {
    format!(
        "A start from {} would lose what it wrote since. Bring the disk back, or merge it into {}; then, or if that loss \
         is wanted, say `zsha start --from-image`",
        disk.instead_of, disk.instead_of
    )
}

impl Upkeep<'_> {
    /// Writes down the disk that the VM writes to, where that has changed. It is done whatever else is to be done: the
    /// next start rests on it. Returns true if it is written.
    pub(super) fn notes_disk(&self, local: LocalVm, plan: &mut Plan) -> bool {
        // What has not executed has written nothing, and a copy that is not the VM says nothing about it.
        if !local.executes()
            || expecting::is_the_vm(self.world) != Some(true)
            || planted::is_planted(Bug::DiskForgotten)
        {
            return false;
        }
        let Some(seen) = disk_in_use(self.world) else { return false };
        if seen == self.record().disk {
            return false;
        }
        let me = &self.world.me;
        let (reason, message) = match &seen {
            Some(disk) => (
                EventReason::DiskChanged,
                format!(
                    "the VM on {me} writes to {} now, and not to {}: somebody has made a snapshot, or moved its disk. {}{}",
                    disk.source,
                    disk.instead_of,
                    goes_on(disk),
                    merging(disk, &self.record().name, me)
                ),
            ),
            None => {
                (EventReason::DiskBack, format!("the VM on {me} writes to the image of the document again"))
            }
        };
        plan.step(self.change(reason, message, |record| record.disk = seen));
        true
    }
}
