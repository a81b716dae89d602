//! The meaning of the document in force for one node: its questions to the host, its domain, its timings. It is a pure
//! function of the document.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use zsha_crds::document::{Failback, GuestPowerOff, HaCluster, ImageType, Node, RBD_IMAGE, Watchdog};
use zsha_crds::records::{DiskInUse, DiskSource, LeaseTimings};
use zsha_crds::{NodeName, VmId};

use crate::guest::{GuestWants, Seed};
use crate::host::{BridgeWant, HostWants, ImageWant, MountWant};
use crate::hypervisor::{DomainImage, DomainNic, DomainSpec};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub generation: u64,
    /// The nodes in the order they are asked to take the VM: the preferred ones, then the others as written.
    pub order: Vec<NodeName>,
    /// The addresses at which the other nodes reach each node's hypervisor.
    pub addresses: BTreeMap<NodeName, Ipv4Addr>,
    /// How many at the head of `order` are preferred, and the VM is moved back to; none unless the document says so.
    pub fail_back_to: usize,
    pub timings: LeaseTimings,
    pub power_off: GuestPowerOff,
    /// How long the guest has to power off when its host shuts down and it can go nowhere else.
    pub guest_shutdown: Duration,
    pub watchdog: Watchdog,
    /// True if an operator may have root's password in the guest set back.
    pub may_reset_password: bool,
    pub domain: DomainSpec,
    /// The seed disk for each node on which the guest may boot.
    pub seeds: BTreeMap<NodeName, Arc<Seed>>,
    /// The questions that are put to every node's host.
    pub wants: HostWants,
}

impl Desired {
    pub fn from_document(document: &HaCluster, generation: u64) -> Self {
        let domain = domain(document, generation);
        let seed = |node: &Node| {
            let seed = domain.guest.seed(&domain.name, &node.name)?;
            Some((node.name.clone(), Arc::new(seed)))
        };
        Self {
            seeds: document.nodes().iter().filter_map(seed).collect(),
            generation,
            order: order(document),
            addresses: document.nodes().iter().map(|node| (node.name.clone(), node.address)).collect(),
            fail_back_to: match document.placement().failback() {
                Failback::Auto => document.placement().preferred().len(),
                Failback::Off => 0,
            },
            timings: document.timings(),
            power_off: document.guest_power_off(),
            guest_shutdown: Duration::from_secs(document.guest_shutdown_seconds().into()),
            watchdog: document.fencing().watchdog(),
            may_reset_password: document.allow_reset_root_password(),
            domain,
            wants: wants(document),
        }
    }

    /// The questions that are put to this node's host, and what it is to have ready for a start of the VM. `disk`: the
    /// one to start from, where it is another than the image.
    pub fn wants_of(&self, node: &NodeName, disk: Option<&DiskInUse>) -> HostWants {
        let image = match disk.map(|disk| &disk.source) {
            Some(DiskSource::File(path)) => Some(ImageWant::File(path.into())),
            Some(DiskSource::Rbd(_) | DiskSource::Other(_) | DiskSource::Nothing) | None => {
                self.wants.image.clone()
            }
        };
        HostWants { seed: self.seeds.get(node).cloned(), image, ..self.wants.clone() }
    }

    pub fn names(&self, node: &NodeName) -> bool {
        self.order.contains(node)
    }
}

fn order(document: &HaCluster) -> Vec<NodeName> {
    let mut order = document.placement().preferred().to_vec();
    for node in document.nodes() {
        if !order.contains(&node.name) {
            order.push(node.name.clone());
        }
    }
    order
}

fn domain(document: &HaCluster, generation: u64) -> DomainSpec {
    let VmId { name, uuid } = document.vm();
    let image = match (document.image_type(), document.image_path()) {
        (ImageType::FileConf, Some(path)) => DomainImage::File { path, format: document.image_format() },
        (ImageType::FileConf, None) | (ImageType::CephConf, _) => DomainImage::Rbd {
            monitors: monitors(document),
            pool: document.pool_name().unwrap_or_default().to_owned(),
            image: RBD_IMAGE.to_owned(),
        },
    };
    DomainSpec {
        uuid,
        name,
        generation,
        memory_mib: u64::from(document.memory_gib()) * 1024,
        vcpus: document.cpus(),
        image,
        nics: document
            .nics()
            .iter()
            .map(|nic| DomainNic { bridge: nic.bridge.to_string(), mac: nic.mac_address.to_string() })
            .collect(),
        guest: GuestWants::from_document(document),
    }
}

fn monitors(document: &HaCluster) -> Vec<String> {
    document.mon_addrs().iter().map(|monitor| monitor.as_str().to_owned()).collect()
}

fn wants(document: &HaCluster) -> HostWants {
    HostWants {
        bridges: document
            .bridges()
            .into_iter()
            .map(|(name, require_carrier)| BridgeWant { name, require_carrier })
            .collect(),
        mounts: document
            .mounts()
            .iter()
            .map(|mount| MountWant {
                source: mount.source.as_str().to_owned(),
                target: mount.target.as_str().into(),
                fs_type: mount.fs_type().to_owned(),
                options: mount.options().to_owned(),
            })
            .collect(),
        image: Some(match document.image_path() {
            Some(path) => ImageWant::File(path),
            None => ImageWant::Ceph(monitors(document)),
        }),
        // By node: see `wants_of`.
        seed: None,
    }
}
