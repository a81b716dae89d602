//! Finds out whether guests can be executed by the processor here. An operator's setting goes before it.
//!
//! A device that is there and answers is no proof that a guest boots on it: inside some clouds it does not. So there is
//! a setting, and this is only used without it.

use std::fs::OpenOptions;

use quick_xml::events::Event;
use quick_xml::reader::Reader;

use super::super::domain_xml::{DomainType, DomainXmlError};
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
