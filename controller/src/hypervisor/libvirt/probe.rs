//! Finds out what there is to run the VM on here, and whether guests can be executed by the processor. An operator's
//! setting goes before that.
//!
//! A device that is there and answers is no proof that a guest boots on it: inside some clouds it does not. So there is
//! a setting, and this is only used without it.

use std::fs::OpenOptions;

use quick_xml::events::Event;
use quick_xml::reader::Reader;

use uuid::Uuid;
use virt::connect::Connect;
use virt::error::ErrorNumber;
use zsha_crds::VmName;

use super::super::Offer;
use super::super::domain_xml::{DomainType, DomainXmlError};
use super::domain::{is, unless_gone};
use super::refusal::{Refusal, not_looked};
use crate::limits;

const KVM_DEVICE: &str = "/dev/kvm";

/// Finds KVM where the kernel has it for us and libvirt's QEMU can use it. A device that could not be tried for want of
/// a descriptor is tried again, since the finding is kept for good.
pub(super) fn domain_type(capabilities: &str) -> Result<DomainType, Refusal> {
    let device = OpenOptions::new().read(true).write(true).open(KVM_DEVICE);
    if let Err(error) = device.as_ref()
        && limits::is_a_lack(error)
    {
        return Err(not_looked(format!("cannot try {KVM_DEVICE}: {error}")));
    }
    let offered = offers_kvm(capabilities)?;
    let chosen = if offered && device.is_ok() { DomainType::Kvm } else { DomainType::Qemu };
    let device = device.map_or_else(|error| error.to_string(), |_| "usable".to_owned());
    tracing::info!(domain_type = chosen.as_str(), kvm_offered = offered, kvm_device = %device, "probed for KVM");
    Ok(chosen)
}

/// Asks what there is to run a guest of this kind of machine on. `vm`: the VM's name and UUID.
pub(super) fn offer(
    connect: &Connect,
    domain_type: DomainType,
    machine: &str,
    (name, uuid): (&VmName, Uuid),
) -> Result<Offer, Refusal> {
    let host = connect.node_info()?;
    let asked =
        connect.domain_capabilities(None, Some("x86_64"), Some(machine), Some(domain_type.as_str()), 0);
    let (most_vcpus, refuses) = match asked {
        Ok(capabilities) => (most_vcpus(&capabilities)?, None),
        // Any other error is none of libvirt's on the machine.
        Err(error)
            if [ErrorNumber::ConfigUnsupported, ErrorNumber::InvalidArg, ErrorNumber::NoSupport]
                .into_iter()
                .any(|number| is(&error, number)) =>
        {
            (u32::MAX, Some(error.message().trim().to_owned()))
        }
        Err(error) => return Err(error.into()),
    };
    let there = unless_gone(connect.lookup_domain_by_name(name.as_str()))?;
    let namesake = match there {
        Some(domain) => unless_gone(domain.uuid())?.filter(|other| *other != uuid),
        None => None,
    };
    let memory_mib = host.memory >> 10;
    Ok(Offer { accelerated: domain_type == DomainType::Kvm, memory_mib, most_vcpus, refuses, namesake })
}

/// The most virtual processors by the capabilities of a kind of machine; any number, where they do not say.
fn most_vcpus(capabilities: &str) -> Result<u32, DomainXmlError> {
    let mut reader = Reader::from_str(capabilities);
    loop {
        match reader.read_event()? {
            Event::Start(element) | Event::Empty(element) if element.local_name().as_ref() == "vcpu" => {
                let most = element.try_get_attribute("max")?;
                return Ok(most.and_then(|most| most.value.parse().ok()).unwrap_or(u32::MAX));
            }
            Event::Eof => return Ok(u32::MAX),
            _ => {}
        }
    }
}

fn offers_kvm(capabilities: &str) -> Result<bool, DomainXmlError> {
    let mut reader = Reader::from_str(capabilities);
    let mut here = false;
    loop {
        match reader.read_event()? {
            Event::Start(element) | Event::Empty(element) if element.local_name().as_ref() == "arch" => {
                let name = element.try_get_attribute("name")?;
                here = name.is_some_and(|name| name.value == "x86_64");
            }
            Event::Start(element) | Event::Empty(element)
                if here && element.local_name().as_ref() == "domain" =>
            {
                let kind = element.try_get_attribute("type")?;
                if kind.is_some_and(|kind| kind.value == "kvm") {
                    return Ok(true);
                }
            }
            Event::Eof => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_processors_are_those_of_the_kind_of_machine() {
        let of = |vcpu: &str| {
            most_vcpus(&format!("<domainCapabilities><machine>q</machine>{vcpu}<os/></domainCapabilities>"))
        };
        assert_eq!(of("<vcpu max='288'/>").unwrap(), 288);
        assert_eq!((of("").unwrap(), of("<vcpu/>").unwrap()), (u32::MAX, u32::MAX));
    }

    #[test]
    fn kvm_is_offered_only_where_the_guests_own_architecture_has_it() {
        let guest = |arch: &str, domains: &str| {
            format!("<capabilities><guest><arch name='{arch}'>{domains}</arch></guest></capabilities>")
        };
        assert!(offers_kvm(&guest("x86_64", "<domain type='qemu'/><domain type='kvm'/>")).unwrap());
        assert!(offers_kvm(&guest("x86_64", "<domain type='kvm'><machine/></domain>")).unwrap());
        assert!(!offers_kvm(&guest("x86_64", "<domain type='qemu'/>")).unwrap());
        assert!(!offers_kvm(&guest("i686", "<domain type='kvm'/>")).unwrap());
        assert!(!offers_kvm("<capabilities/>").unwrap());
    }
}
