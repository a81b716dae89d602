//! The three files as text, what their id depends on, and that a reader of FAT finds them on the disk.

use std::io::{Cursor, Read};

use proptest::prelude::*;
use zsha_crds::{HaCluster, testing};

use super::*;

const EXAMPLE: &str = include_str!("../../../manifests/examples/cluster.yaml");

fn decoded(text: &str) -> HaCluster {
    zsha_crds::decode(text, "cluster.yaml").unwrap_or_else(|faults| panic!("{faults}")).cluster
}

fn example() -> HaCluster {
    decoded(EXAMPLE)
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn seed_of(document: &HaCluster, name: &str) -> Seed {
    GuestWants::from_document(document).seed(&VmName::management(), &node(name)).unwrap()
}

/// The example with one text of it replaced.
fn changed(from: &str, to: &str) -> HaCluster {
    assert!(EXAMPLE.contains(from));
    decoded(&EXAMPLE.replacen(from, to, 1))
}

#[test]
fn the_files_of_the_example_on_its_second_node() {
    let document = changed("ConsoleProxyOverriddenIP: \"\"", "ConsoleProxyOverriddenIP: 203.0.113.99");
    let Seed { meta_data, user_data, network_config } = seed_of(&document, "nfs-2");
    insta::assert_snapshot!(format!(
        "--- meta-data\n{meta_data}--- user-data\n{user_data}--- network-config\n{network_config}"
    ));
}

#[test]
fn a_guest_without_time_sources_and_resolvers_is_told_of_none() {
    let bare = GuestConfig {
        nics: vec![NicConfig {
            mac: "02:10:10:10:10:10".to_owned(),
            address: "10.0.0.5/24".parse().unwrap(),
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            is_default_route: true,
            is_management: true,
        }],
        dns: vec![],
        time_servers: vec![],
        console_proxy: None,
    };
    let Seed { user_data, network_config, .. } = Seed::new(&VmName::management(), &bare);
    insta::assert_snapshot!(format!("--- user-data\n{user_data}--- network-config\n{network_config}"));
}

#[test]
fn the_id_is_another_where_anything_is_and_only_there() {
    let id = |document: &HaCluster, name: &str| seed_of(document, name).meta_data;
    let before = id(&example(), "nfs-1");
    assert_eq!(id(&example(), "nfs-1"), before);
    assert_ne!(id(&example(), "nfs-2"), before, "the addresses are others");
    for (from, to) in [
        ("172.20.10.3@nfs-1", "172.20.10.4@nfs-1"),
        ("172.20.10.2\n", "172.20.10.9\n"),
        ("ChronyServers:\n    - 192.168.10.11", "ChronyServers:\n    - 192.168.10.12"),
        ("ConsoleProxyOverriddenIP: \"\"", "ConsoleProxyOverriddenIP: 203.0.113.99"),
        ("MacAddress: \"02:5a:48:41:00:02\"", "MacAddress: \"02:5a:48:41:00:03\""),
    ] {
        assert_ne!(id(&changed(from, to), "nfs-1"), before, "{to}");
    }
    for (from, to) in [
        ("172.20.20.3@nfs-2", "172.20.20.4@nfs-2"),
        ("CPU: 4", "CPU: 8"),
        ("Ipaddr: 172.20.10.3@nfs-1, 172.20.20.3@nfs-2,", "Ipaddr: 172.20.20.3@nfs-2, 172.20.10.3@nfs-1,"),
    ] {
        assert_eq!(id(&changed(from, to), "nfs-1"), before, "{to}");
    }
}

#[test]
fn a_node_that_the_document_gives_no_address_by_name_has_no_seed() {
    let wants = GuestWants::from_document(&example());
    assert_eq!(wants.on(&node("nfs-4")), None);
}

/// Reads the disk as a reader of FAT does: the label, and each file.
fn read(image: &mut [u8]) -> (String, Seed) {
    let disk = fatfs::FileSystem::new(Cursor::new(image), fatfs::FsOptions::new()).unwrap();
    assert_eq!(disk.root_dir().iter().count(), 3);
    let text = |name: &str| {
        let mut text = String::new();
        disk.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    let label = disk.read_volume_label_from_root_dir().unwrap().unwrap();
    let files = Seed {
        meta_data: text("meta-data"),
        user_data: text("user-data"),
        network_config: text("network-config"),
    };
    (label, files)
}

#[test]
fn files_that_do_not_fit_are_an_error() {
    let text = "x".repeat(1 << 20);
    let seed = Seed { meta_data: text.clone(), user_data: text.clone(), network_config: text };
    assert!(seed.image().is_err());
}

proptest! {
    #[test]
    fn every_node_of_every_document_has_a_disk_that_holds_what_it_is_told(number in any::<u64>()) {
        let document = testing::cluster(number);
        for node in document.nodes() {
            let seed = seed_of(&document, node.name.as_str());
            let mut image = seed.image().unwrap();
            prop_assert_eq!(&image, &seed.image().unwrap());
            prop_assert_eq!(read(&mut image), ("cidata".to_owned(), seed.clone()));
            let cloud_config = seed.user_data.strip_prefix("#cloud-config\n").unwrap();
            for text in [cloud_config, &seed.meta_data, &seed.network_config] {
                prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
                // As cloud-init reads it.
                prop_assert!(serde_yaml::from_str::<serde_json::Value>(text).is_ok());
            }
        }
    }
}
