//! Writes the definition of a domain as libvirt reads it: what the document wants, and what this node adds to it.
//!
//! It is written through a writer that escapes, never by pasting text. Equal wishes make equal text. The file reads
//! back only what it wrote itself: the generation in the metadata. It asks no hypervisor and no file.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

use quick_xml::Writer;
use quick_xml::events::attributes::AttrError;
use quick_xml::events::{BytesStart, BytesText, Event};
use quick_xml::name::ResolveResult;
use quick_xml::reader::NsReader;
use uuid::Uuid;
use zsha_crds::ClusterName;

use super::{DomainImage, DomainNic, DomainSpec};

/// The namespace of our metadata, inside libvirt's definition of the domain.
pub const NAMESPACE: &str = "https://zsha.io/v1";

/// The way a guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DomainType {
    /// The processor executes them.
    Kvm,
    /// QEMU's translator executes them: slow, and works anywhere.
    Qemu,
}

impl DomainType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }
}

/// The things that a node adds to every domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSettings {
    pub cluster: ClusterName,
    pub domain_type: DomainType,
    /// The virtual mainboard.
    pub machine: String,
    /// The path at which this node keeps the guest's seed disk. None: the domain has no such disk.
    pub seed: Option<PathBuf>,
    /// The login of QEMU to Ceph, where the image is there.
    pub ceph: Option<CephLogin>,
}

impl DomainSettings {
    pub fn new(cluster: ClusterName, domain_type: DomainType) -> Self {
        Self { cluster, domain_type, machine: "q35".to_owned(), seed: None, ceph: None }
    }
}

/// A Ceph user and libvirt's secret that holds its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CephLogin {
    pub user: String,
    pub secret: Uuid,
    /// A file with settings of Ceph's client, such as how long it waits for a monitor (300 s by itself). It must have
    /// the same path on every node, or the VM cannot be moved live.
    pub config: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum DomainXmlError {
    #[error("the domain's definition would contain {character:?}, which XML cannot say")]
    Unspeakable { character: char },
    #[error("the domain's definition could not be written: {0}")]
    Write(io::Error),
    #[error("the domain's definition could not be read: {0}")]
    Read(#[from] quick_xml::Error),
    #[error("the domain's definition could not be read: {0}")]
    Attribute(#[from] AttrError),
    #[error("the domain's devices could not be read: {0}")]
    Devices(quick_xml::DeError),
    /// Somebody else defined the domain, or took our metadata out.
    #[error("the domain's definition does not say which generation of the document it was made from")]
    NoGeneration,
}

/// Writes the definition, ready for libvirt.
pub fn write(domain: &DomainSpec, settings: &DomainSettings) -> Result<String, DomainXmlError> {
    let mut out = Elements { writer: Writer::new_with_indent(Vec::new(), b' ', 2) };
    out.domain(domain, settings).map_err(DomainXmlError::Write)?;
    let text = String::from_utf8(out.writer.into_inner())
        .map_err(|error| DomainXmlError::Write(io::Error::other(error)))?;
    match text.chars().find(|c| !is_xml(*c)) {
        Some(character) => Err(DomainXmlError::Unspeakable { character }),
        None => Ok(text),
    }
}

/// Reads the generation in the metadata of a definition that [`write()`] made, however libvirt has rearranged it since.
pub fn generation(xml: &str) -> Result<u64, DomainXmlError> {
    let mut reader = NsReader::from_str(xml);
    loop {
        let (namespace, event) = reader.read_resolved_event()?;
        let ours = matches!(namespace, ResolveResult::Bound(bound) if bound.as_ref() == NAMESPACE);
        match event {
            Event::Start(element) | Event::Empty(element)
                if ours && element.local_name().as_ref() == "vm" =>
            {
                let attribute = element.try_get_attribute("generation")?;
                let number = attribute.and_then(|attribute| attribute.value.parse().ok());
                return number.ok_or(DomainXmlError::NoGeneration);
            }
            Event::Eof => return Err(DomainXmlError::NoGeneration),
            _ => {}
        }
    }
}

/// True for a character that XML 1.0 lets a document contain, even escaped.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

type Attributes<'a> = &'a [(&'a str, &'a str)];

/// The elements, in the order in which libvirt prints them.
struct Elements {
    writer: Writer<Vec<u8>>,
}

impl Elements {
    fn empty(&mut self, name: &str, attributes: Attributes<'_>) -> io::Result<()> {
        let element = BytesStart::new(name).with_attributes(attributes.iter().copied());
        self.writer.write_event(Event::Empty(element))
    }

    fn text(&mut self, name: &str, attributes: Attributes<'_>, text: &str) -> io::Result<()> {
        let element = BytesStart::new(name).with_attributes(attributes.iter().copied());
        let end = element.to_end().into_owned();
        self.writer.write_event(Event::Start(element))?;
        self.writer.write_event(Event::Text(BytesText::new(text)))?;
        self.writer.write_event(Event::End(end))
    }

    fn around(
        &mut self,
        name: &str,
        attributes: Attributes<'_>,
        inside: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let element = BytesStart::new(name).with_attributes(attributes.iter().copied());
        let end = element.to_end().into_owned();
        self.writer.write_event(Event::Start(element))?;
        inside(self)?;
        self.writer.write_event(Event::End(end))
    }

    fn domain(&mut self, domain: &DomainSpec, settings: &DomainSettings) -> io::Result<()> {
        self.around("domain", &[("type", settings.domain_type.as_str())], |xml| {
            xml.text("name", &[], domain.name.as_str())?;
            xml.text("uuid", &[], &domain.uuid.to_string())?;
            xml.metadata(domain, settings)?;
            xml.text("memory", &[("unit", "MiB")], &domain.memory_mib.to_string())?;
            xml.text("vcpu", &[("placement", "static")], &domain.vcpus.to_string())?;
            xml.machine(settings)?;
            xml.lifecycle()?;
            xml.around("devices", &[], |xml| xml.devices(domain, settings))
        })
    }

    fn metadata(&mut self, domain: &DomainSpec, settings: &DomainSettings) -> io::Result<()> {
        let generation = domain.generation.to_string();
        let vm = [
            ("xmlns:zsha", NAMESPACE),
            ("generation", generation.as_str()),
            ("cluster", settings.cluster.as_str()),
        ];
        self.around("metadata", &[], |xml| xml.empty("zsha:vm", &vm))
    }

    fn machine(&mut self, settings: &DomainSettings) -> io::Result<()> {
        self.around("os", &[], |xml| {
            xml.text("type", &[("arch", "x86_64"), ("machine", &settings.machine)], "hvm")
        })?;
        // libvirt 9 would tell QEMU `-no-acpi` without it, which QEMU 10 does not know; and no shutdown without it.
        self.around("features", &[], |xml| {
            xml.empty("acpi", &[])?;
            xml.empty("apic", &[])
        })?;
        match settings.domain_type {
            // The host's features as far as libvirt can name them, so that another host can be compared with them.
            DomainType::Kvm => self.empty("cpu", &[("mode", "host-model"), ("check", "partial")])?,
            DomainType::Qemu => {}
        }
        self.empty("clock", &[("offset", "utc")])
    }

    fn lifecycle(&mut self) -> io::Result<()> {
        self.text("on_poweroff", &[], "destroy")?;
        self.text("on_reboot", &[], "restart")?;
        self.text("on_crash", &[], "destroy")?;
        // A guest that sleeps looks neither running nor off, and nobody would wake it.
        self.around("pm", &[], |xml| {
            xml.empty("suspend-to-mem", &[("enabled", "no")])?;
            xml.empty("suspend-to-disk", &[("enabled", "no")])
        })
    }

    fn devices(&mut self, domain: &DomainSpec, settings: &DomainSettings) -> io::Result<()> {
        self.disk(&domain.image, settings)?;
        settings.seed.as_deref().map_or(Ok(()), |seed| self.seed(seed))?;
        for nic in &domain.nics {
            self.nic(nic)?;
        }
        self.around("serial", &[("type", "pty")], |xml| xml.empty("target", &[("port", "0")]))?;
        self.around("console", &[("type", "pty")], |xml| {
            xml.empty("target", &[("type", "serial"), ("port", "0")])
        })?;
        self.around("channel", &[("type", "unix")], |xml| {
            xml.empty("target", &[("type", "virtio"), ("name", "org.qemu.guest_agent.0")])
        })?;
        self.around("rng", &[("model", "virtio")], |xml| {
            xml.text("backend", &[("model", "random")], "/dev/urandom")
        })
    }

    fn disk(&mut self, image: &DomainImage, settings: &DomainSettings) -> io::Result<()> {
        match image {
            DomainImage::File { path, format } => {
                let path = text_of(path)?;
                self.around("disk", &[("type", "file"), ("device", "disk")], |xml| {
                    xml.driver(format.as_str())?;
                    xml.empty("source", &[("file", path)])?;
                    xml.disk_target()
                })
            }
            DomainImage::Rbd { monitors, pool, image } => {
                let name = format!("{pool}/{image}");
                self.around("disk", &[("type", "network"), ("device", "disk")], |xml| {
                    xml.driver("raw")?;
                    xml.around("source", &[("protocol", "rbd"), ("name", &name)], |xml| {
                        monitors.iter().try_for_each(|monitor| xml.monitor(monitor))?;
                        settings.ceph.as_ref().map_or(Ok(()), |login| xml.ceph_login(login))
                    })?;
                    xml.disk_target()
                })
            }
        }
    }

    /// The seed disk. It is Virtio, since the guest has a driver for that at least. Read-only disks need not be shared
    /// for a live migration: the target has one of its own under the same path.
    fn seed(&mut self, path: &Path) -> io::Result<()> {
        let path = text_of(path)?;
        self.around("disk", &[("type", "file"), ("device", "disk")], |xml| {
            xml.empty("driver", &[("name", "qemu"), ("type", "raw"), ("error_policy", "report")])?;
            xml.empty("source", &[("file", path)])?;
            xml.empty("target", &[("dev", "vdb"), ("bus", "virtio")])?;
            xml.empty("readonly", &[])
        })
    }

    /// `none`: nothing of the guest's is left in a page cache that another host does not see. `threads`: I/O that
    /// waits for a dead server waits in a thread that can be killed. `stop`: an error pauses the guest, and does
    /// not reach its file system.
    fn driver(&mut self, format: &str) -> io::Result<()> {
        let attributes = [
            ("name", "qemu"),
            ("type", format),
            ("cache", "none"),
            ("error_policy", "stop"),
            ("rerror_policy", "stop"),
            ("io", "threads"),
        ];
        self.empty("driver", &attributes)
    }

    fn disk_target(&mut self) -> io::Result<()> {
        self.empty("target", &[("dev", "vda"), ("bus", "virtio")])?;
        self.empty("boot", &[("order", "1")])
    }

    fn monitor(&mut self, monitor: &str) -> io::Result<()> {
        match host_and_port(monitor) {
            (host, Some(port)) => self.empty("host", &[("name", &host), ("port", port)]),
            (host, None) => self.empty("host", &[("name", &host)]),
        }
    }

    fn ceph_login(&mut self, login: &CephLogin) -> io::Result<()> {
        if let Some(config) = &login.config {
            self.empty("config", &[("file", text_of(config)?)])?;
        }
        let secret = login.secret.to_string();
        self.around("auth", &[("username", &login.user)], |xml| {
            xml.empty("secret", &[("type", "ceph"), ("uuid", &secret)])
        })
    }

    fn nic(&mut self, nic: &DomainNic) -> io::Result<()> {
        self.around("interface", &[("type", "bridge")], |xml| {
            xml.empty("mac", &[("address", &nic.mac)])?;
            xml.empty("source", &[("bridge", &nic.bridge)])?;
            xml.empty("model", &[("type", "virtio")])
        })
    }
}

fn text_of(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other(format!("a disk's path is no UTF-8: {}", path.display())))
}

/// Splits `ceph-1`, `10.0.0.1:6789`, `[fd00::1]:6789` or `fd00::1`.
pub(crate) fn host_and_port(monitor: &str) -> (Cow<'_, str>, Option<&str>) {
    if let Some((host, rest)) = monitor.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        return (host.into(), rest.strip_prefix(':'));
    }
    match monitor.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host.into(), Some(port)),
        Some(_) | None => (monitor.into(), None),
    }
}

#[cfg(test)]
mod tests;
