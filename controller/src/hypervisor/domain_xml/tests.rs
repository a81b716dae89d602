//! Tests the text itself, and that nothing a document can hold breaks out of it.

use std::path::PathBuf;

use proptest::prelude::*;
use zsha_crds::VmName;

use crate::guest::GuestWants;

use super::*;

fn settings(domain_type: DomainType) -> DomainSettings {
    DomainSettings::new(ClusterName::new("prod").unwrap(), domain_type)
}

fn domain() -> DomainSpec {
    DomainSpec {
        name: VmName::management(),
        uuid: Uuid::from_u128(0x173d_e36b_4a5d_458e_a5e3_9a99_5845_51ef),
        generation: 3,
        memory_mib: 2048,
        vcpus: 2,
        image: DomainImage::qcow2(PathBuf::from("/opt/smp/mngt/mnvm.img")),
        nics: vec![
            DomainNic { bridge: "br0".to_owned(), mac: "02:98:54:4b:a5:c0".to_owned() },
            DomainNic { bridge: "br1".to_owned(), mac: "02:98:54:4b:a5:c1".to_owned() },
        ],
        guest: GuestWants::default(),
    }
}

/// The values of every attribute and text of the definition, as a reader understands them.
fn said(xml: &str) -> Vec<String> {
    let mut reader = NsReader::from_str(xml);
    let mut said = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(element) | Event::Empty(element) => {
                text.clear();
                for attribute in element.attributes() {
                    let value = quick_xml::escape::unescape(&attribute.unwrap().value).unwrap().into_owned();
                    said.push(value);
                }
            }
            Event::Text(part) => text.push_str(&part.xml10_content()),
            Event::End(_) => said.push(std::mem::take(&mut text)),
            Event::Eof => return said,
            _ => {}
        }
    }
}

#[test]
fn a_domain_on_the_share_under_kvm() {
    insta::assert_snapshot!(write(&domain(), &settings(DomainType::Kvm)).unwrap());
}

#[test]
fn a_domain_on_ceph_without_kvm() {
    let image = DomainImage::Rbd {
        monitors: vec!["10.0.0.1:6789".to_owned(), "[fd00::2]:6789".to_owned(), "ceph-3".to_owned()],
        pool: "vms".to_owned(),
        image: "mnvm".to_owned(),
    };
    let ceph = Some(CephLogin {
        user: "libvirt".to_owned(),
        secret: Uuid::from_u128(1),
        config: Some("/etc/zsha/ceph.conf".into()),
    });
    let settings = DomainSettings { ceph, ..settings(DomainType::Qemu) };
    insta::assert_snapshot!(write(&DomainSpec { image, ..domain() }, &settings).unwrap());
}

#[test]
fn the_guests_seed_is_a_disk_that_cannot_be_written_to_and_stops_no_guest() {
    let seed = Some(PathBuf::from("/var/lib/zsha/prod/seed.img"));
    let xml = write(&domain(), &DomainSettings { seed, ..settings(DomainType::Kvm) }).unwrap();
    let disks: Vec<_> = xml.split_inclusive("</disk>").collect();
    assert_eq!(disks.len(), 3, "two disks, and what follows: {xml}");
    insta::assert_snapshot!(disks[1].trim_start_matches('\n'));
    let without = write(&domain(), &settings(DomainType::Kvm)).unwrap();
    assert_eq!(xml.replace(disks[1], ""), without, "the rest is as it was");
}

#[test]
fn every_special_character_is_escaped() {
    let special = "<a href=\"x\">'&amp;'</a>\t]]>\r\n<!--é𝄞";
    let spec = DomainSpec {
        image: DomainImage::qcow2(PathBuf::from(special)),
        nics: vec![DomainNic { bridge: special.to_owned(), mac: special.to_owned() }],
        ..domain()
    };
    let settings = DomainSettings { machine: special.to_owned(), ..settings(DomainType::Kvm) };
    let xml = write(&spec, &settings).unwrap();
    assert_eq!(said(&xml).iter().filter(|value| *value == special).count(), 4, "{xml}");
}

#[test]
fn what_xml_cannot_say_is_refused_and_not_handed_on() {
    for character in ['\0', '\u{1b}', '\u{ffff}'] {
        let image = DomainImage::qcow2(PathBuf::from(format!("/share/{character}")));
        let refused = write(&DomainSpec { image, ..domain() }, &settings(DomainType::Kvm));
        assert!(matches!(refused, Err(DomainXmlError::Unspeakable { character: c }) if c == character));
    }
}

#[test]
fn a_path_that_is_no_text_is_refused_and_not_bent() {
    use std::os::unix::ffi::OsStringExt;
    let image = DomainImage::qcow2(PathBuf::from(std::ffi::OsString::from_vec(b"/share/\xff.img".to_vec())));
    let refused = write(&DomainSpec { image, ..domain() }, &settings(DomainType::Kvm));
    assert!(matches!(refused, Err(DomainXmlError::Write(_))), "{refused:?}");
}

#[test]
fn the_generation_is_found_under_any_prefix_and_only_in_our_namespace() {
    let found = |metadata: &str| generation(&format!("<domain><metadata>{metadata}</metadata></domain>"));
    assert_eq!(found("<z:vm xmlns:z='https://zsha.io/v1' cluster='a' generation='12'/>").unwrap(), 12);
    assert_eq!(found("<vm xmlns='https://zsha.io/v1' generation='13'></vm>").unwrap(), 13);
    for other in [
        "",
        "<vm generation='1'/>",
        "<z:vm xmlns:z='https://other/' generation='1'/>",
        "<z:vm xmlns:z='https://zsha.io/v1'/>",
        "<z:vm xmlns:z='https://zsha.io/v1' generation='-1'/>",
    ] {
        assert!(matches!(found(other), Err(DomainXmlError::NoGeneration)), "{other}");
    }
    assert!(matches!(generation("<domain><metadata></domain>"), Err(DomainXmlError::Read(_))));
}

#[test]
fn a_monitor_is_read_as_people_write_it() {
    for (monitor, host, port) in [
        ("ceph-1", "ceph-1", None),
        ("10.0.0.1:6789", "10.0.0.1", Some("6789")),
        ("[fd00::1]:6789", "fd00::1", Some("6789")),
        ("[fd00::1]", "fd00::1", None),
        ("fd00::1", "fd00::1", None),
    ] {
        assert_eq!(host_and_port(monitor), (host.into(), port), "{monitor}");
    }
}

proptest! {
    #[test]
    fn the_generation_and_the_path_come_back_whatever_they_are(generation in any::<u64>(), path in "\\PC{1,40}") {
        let spec = DomainSpec { generation, image: DomainImage::qcow2(PathBuf::from(&path)), ..domain() };
        let Ok(xml) = write(&spec, &settings(DomainType::Kvm)) else { return Ok(()) };
        prop_assert_eq!(super::generation(&xml).unwrap(), generation);
        prop_assert!(said(&xml).contains(&path));
    }
}
