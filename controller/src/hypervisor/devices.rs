//! The devices of the VM's process as it runs now, read from what libvirt says of it. They may be others than it was
//! started with: `virsh` makes snapshots, moves disks, attaches and detaches.
//!
//! Never here: what they should be, and what follows from a difference (see `plan::devices`).

use serde::Deserialize;
use zsha_crds::document::ImageFormat;
use zsha_crds::records::DiskSource;

use super::domain_xml::DomainXmlError;
use super::{DomainImage, DomainNic, DomainSpec};

/// The devices of a process, as far as people change them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    pub disks: Vec<Disk>,
    pub nics: Vec<DomainNic>,
    /// Devices of a host and directories of it that the guest was given, by libvirt's word for their kind.
    pub others: Vec<&'static str>,
}

/// One disk of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The name by which `virsh` knows it: `vda`.
    pub target: String,
    pub source: DiskSource,
    /// The format by QEMU's name: `qcow2`, `raw`.
    pub format: String,
    pub read_only: bool,
    /// The disks that it rests on, the nearest first.
    pub backing: Vec<DiskSource>,
}

impl Devices {
    /// The devices that a start of this domain makes, but for the node's own seed disk.
    pub fn of(domain: &DomainSpec) -> Self {
        let format = match &domain.image {
            DomainImage::File { format, .. } => *format,
            DomainImage::Rbd { .. } => ImageFormat::Raw,
        };
        let disk = Disk {
            target: BOOT_DISK.to_owned(),
            source: domain.image.source(),
            format: format.as_str().to_owned(),
            read_only: false,
            backing: Vec::new(),
        };
        Self { disks: vec![disk], nics: domain.nics.clone(), others: Vec::new() }
    }
}

/// The target of the disk that the VM boots from.
pub const BOOT_DISK: &str = "vda";
/// The target of its seed disk.
pub const SEED_DISK: &str = "vdb";

/// Reads the devices from a definition as libvirt writes it. What this build does not know is left out.
pub fn read(xml: &str) -> Result<Devices, DomainXmlError> {
    let domain: Domain = quick_xml::de::from_str(xml).map_err(DomainXmlError::Devices)?;
    let devices = domain.devices;
    let others = [
        ("hostdev", devices.hostdev.len()),
        ("filesystem", devices.filesystem.len()),
        ("redirdev", devices.redirdev.len()),
    ];
    Ok(Devices {
        disks: devices.disk.into_iter().map(Disk::from).collect(),
        nics: devices.interface.into_iter().map(DomainNic::from).collect(),
        others: others.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count)).collect(),
    })
}

#[derive(Deserialize)]
struct Domain {
    devices: Elements,
}

#[derive(Deserialize)]
struct Elements {
    #[serde(default)]
    disk: Vec<DiskElement>,
    #[serde(default)]
    interface: Vec<InterfaceElement>,
    #[serde(default)]
    hostdev: Vec<Ignored>,
    #[serde(default)]
    filesystem: Vec<Ignored>,
    #[serde(default)]
    redirdev: Vec<Ignored>,
}

/// An element of which only that it is there is read.
#[derive(Deserialize)]
struct Ignored {}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiskElement {
    #[serde(rename = "@type", default)]
    kind: String,
    driver: Option<FormatElement>,
    source: Option<SourceElement>,
    backing_store: Option<Box<BackingElement>>,
    target: TargetElement,
    readonly: Option<Ignored>,
}

#[derive(Deserialize)]
struct FormatElement {
    #[serde(rename = "@type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct TargetElement {
    #[serde(rename = "@dev")]
    dev: String,
}

#[derive(Deserialize)]
struct SourceElement {
    #[serde(rename = "@file")]
    file: Option<String>,
    #[serde(rename = "@dev")]
    dev: Option<String>,
    #[serde(rename = "@protocol")]
    protocol: Option<String>,
    #[serde(rename = "@name")]
    name: Option<String>,
}

/// A disk below another. The lowest has an empty one below it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BackingElement {
    #[serde(rename = "@type")]
    kind: Option<String>,
    source: Option<SourceElement>,
    backing_store: Option<Box<BackingElement>>,
}

#[derive(Deserialize)]
struct InterfaceElement {
    #[serde(rename = "@type", default)]
    kind: String,
    mac: MacElement,
    source: Option<BridgeElement>,
}

#[derive(Deserialize)]
struct MacElement {
    #[serde(rename = "@address")]
    address: String,
}

#[derive(Deserialize)]
struct BridgeElement {
    #[serde(rename = "@bridge")]
    bridge: Option<String>,
}

/// Says where a disk of this kind with this source lies.
fn source(kind: &str, source: Option<SourceElement>) -> DiskSource {
    let Some(source) = source else { return DiskSource::Nothing };
    match (kind, source) {
        ("file", SourceElement { file: Some(path), .. }) => DiskSource::file(path),
        ("network", SourceElement { protocol: Some(protocol), name: Some(name), .. })
            if protocol == "rbd" =>
        {
            DiskSource::Rbd(name)
        }
        ("network", SourceElement { protocol, name, .. }) => DiskSource::Other(format!(
            "{}:{}",
            protocol.as_deref().unwrap_or("network"),
            name.as_deref().unwrap_or_default()
        )),
        ("block", SourceElement { dev: Some(dev), .. }) => {
            DiskSource::Other(format!("the block device {dev}"))
        }
        (kind, _) => DiskSource::Other(format!("a source of the kind '{kind}'")),
    }
}

impl From<DiskElement> for Disk {
    fn from(disk: DiskElement) -> Self {
        let mut backing = Vec::new();
        let mut below = disk.backing_store;
        while let Some(BackingElement { kind: Some(kind), source: at, backing_store }) =
            below.map(|below| *below)
        {
            backing.push(source(&kind, at));
            below = backing_store;
        }
        Self {
            target: disk.target.dev,
            source: source(&disk.kind, disk.source),
            format: disk.driver.and_then(|driver| driver.kind).unwrap_or_default(),
            read_only: disk.readonly.is_some(),
            backing,
        }
    }
}

impl From<InterfaceElement> for DomainNic {
    fn from(nic: InterfaceElement) -> Self {
        let bridge = nic.source.and_then(|source| source.bridge);
        Self { bridge: bridge.unwrap_or_else(|| format!("<{}>", nic.kind)), mac: nic.mac.address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what libvirt 9 says of a domain after `virsh snapshot-create-as --disk-only` and `virsh attach-disk`.
    const SNAPSHOT: &str = "
<domain type='qemu' id='3'>
  <name>mnvm</name>
  <metadata><zsha:vm xmlns:zsha='https://zsha.io/v1' generation='7' cluster='lab'/></metadata>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none' io='threads'/>
      <source file='/share/mnvm.overlay1' index='4'/>
      <backingStore type='file' index='2'>
        <format type='qcow2'/>
        <source file='/share/mnvm.img'/>
        <backingStore/>
      </backingStore>
      <target dev='vda' bus='virtio'/>
      <boot order='1'/>
      <alias name='virtio-disk0'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/run/seed.img' index='1'/>
      <backingStore/>
      <target dev='vdb' bus='virtio'/>
      <readonly/>
    </disk>
    <disk type='file' device='cdrom'>
      <target dev='sda' bus='sata'/>
      <readonly/>
    </disk>
    <controller type='usb' index='0' model='qemu-xhci'/>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/>
      <source bridge='br_mgmt'/>
      <target dev='vnet0'/>
      <model type='virtio'/>
    </interface>
    <interface type='direct'>
      <mac address='52:54:00:00:00:02'/>
      <source dev='eth0' mode='bridge'/>
    </interface>
    <hostdev mode='subsystem' type='usb'><source><address bus='1' device='2'/></source></hostdev>
  </devices>
  <seclabel type='dynamic' model='dac' relabel='yes'/>
</domain>";

    fn file(path: &str) -> DiskSource {
        DiskSource::File(path.to_owned())
    }

    #[test]
    fn an_overlay_is_read_with_what_it_rests_on() {
        let devices = read(SNAPSHOT).unwrap();
        let overlay = Disk {
            target: BOOT_DISK.to_owned(),
            source: file("/share/mnvm.overlay1"),
            format: "qcow2".to_owned(),
            read_only: false,
            backing: vec![file("/share/mnvm.img")],
        };
        assert_eq!(devices.disks[0], overlay);
        let seed = &devices.disks[1];
        assert_eq!(
            (seed.target.as_str(), &seed.source, seed.read_only),
            (SEED_DISK, &file("/run/seed.img"), true)
        );
        assert!(seed.backing.is_empty());
        assert_eq!(devices.disks[2].source, DiskSource::Nothing, "an empty drive");
    }

    #[test]
    fn nics_and_devices_of_the_host_are_read() {
        let devices = read(SNAPSHOT).unwrap();
        let nics: Vec<_> = devices.nics.iter().map(|nic| (nic.mac.as_str(), nic.bridge.as_str())).collect();
        assert_eq!(nics, [("52:54:00:00:00:01", "br_mgmt"), ("52:54:00:00:00:02", "<direct>")]);
        assert_eq!(devices.others, ["hostdev"]);
    }

    #[test]
    fn where_a_disk_lies_is_told_for_every_kind() {
        let of = |kind: &str, source: &str| {
            let xml = format!(
                "<domain><devices><disk type='{kind}'>{source}<target dev='vda'/></disk></devices></domain>"
            );
            read(&xml).unwrap().disks.remove(0).source.to_string()
        };
        assert_eq!(
            of("network", "<source protocol='rbd' name='zsha/mnvm'><host name='a'/></source>"),
            "rbd:zsha/mnvm"
        );
        assert_eq!(of("network", "<source protocol='nbd' name='x'/>"), "nbd:x");
        assert_eq!(of("block", "<source dev='/dev/vg/mnvm'/>"), "the block device /dev/vg/mnvm");
        assert_eq!(of("file", "<source file='/srv/vm//image/./mnvm.img'/>"), "/srv/vm/image/mnvm.img");
        assert_eq!(of("vhostuser", "<source path='/x'/>"), "a source of the kind 'vhostuser'");
    }

    #[test]
    fn what_is_no_domain_is_an_error_and_not_a_domain_without_disks() {
        assert!(read("").is_err());
        assert!(read("<domain/>").is_err());
        assert!(read("<domain><devices><disk").is_err());
    }
}
