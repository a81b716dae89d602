//! Nodes and a document for the tests beside it.

use std::collections::BTreeMap;

use serde_json::json;
use zsha_crds::decode::{Options, decode_bytes};
use zsha_crds::{HaCluster, decode_value};

use super::facts::abilities::Cpu;
use super::facts::{Abilities, Answers, CephFacts, Facts, Image, Link, UnitFact};
use super::layout::{self, Completions, Part, Programs, Wanted};

pub(crate) fn document() -> HaCluster {
    let text = include_bytes!("../../../manifests/examples/cluster.yaml");
    decode_bytes(text, "cluster.yaml", &Options::default()).unwrap().cluster
}

/// A cluster of so many nodes, of which these are Consul's servers.
pub(crate) fn of_nodes(count: usize, servers: &[&str]) -> HaCluster {
    let mut document = zsha_crds::normalise::normalised(&document());
    let spec = &mut document["spec"];
    spec["Node"] = (1..=count).map(|at| json!(format!("192.168.10.{} nfs-{at}", 10 + at))).collect();
    spec["Servers"] = json!(servers);
    for nic in spec["Network"].as_array_mut().unwrap().iter_mut().filter(|nic| nic["IsMgmt"] == true) {
        for key in ["Ipaddr", "Netmask", "Gateway"] {
            let first = nic[key].as_str().unwrap().split(['@', ',']).next().unwrap().to_owned();
            nic[key] = json!(first);
        }
    }
    decode_value(&document).unwrap()
}

/// The cluster of the examples with its image in Ceph.
pub(crate) fn in_ceph() -> HaCluster {
    let text = include_bytes!("../../../manifests/examples/ceph.yaml");
    decode_bytes(text, "ceph.yaml", &Options::default()).unwrap().cluster
}

pub(crate) fn programs() -> Programs {
    let program = |path, part| Wanted::new(path, "755", part, format!("the program {path}"));
    Programs {
        zsha: program(layout::ZSHA, Part::Zsha),
        controller: program(layout::CONTROLLER, Part::Zsha),
        consul: Some(program(layout::CONSUL, Part::Consul)),
        completions: Completions::default(),
    }
}

/// A host that can do all that is needed.
fn able(hostname: &str) -> Abilities {
    Abilities {
        kvm: Some(Ok(())),
        machine_id: Some(format!("machine of {hostname}")),
        boot_id: Some(format!("boot of {hostname}")),
        host_uuid: Some(format!("UUID of {hostname}")),
        cpu: Some(Cpu { model: "Xeon".into(), flags: ["sse4_2", "vmx"].map(str::to_owned).into() }),
        cpus: Some(64),
        memory_kib: Some(256 << 20),
        mtus: document().bridges_named().into_iter().map(|bridge| (bridge.to_string(), 1500)).collect(),
        listeners: Some(Vec::new()),
        barriers: Vec::new(),
    }
}

/// A node with all that is needed, and nothing of ours.
pub(crate) fn bare(hostname: &str) -> Facts {
    let unit = UnitFact { load: "loaded".into(), active: "active".into(), enabled: "enabled".into() };
    Facts {
        hostname: hostname.into(),
        system: "Debian GNU/Linux 12 (bookworm)".into(),
        machine: std::env::consts::ARCH.into(),
        systemd: 252,
        libvirt: Some("9.0.0".into()),
        qemu: Some("7.2.19".into()),
        domain: Ok(None),
        disk_users: Vec::new(),
        now: 1_795_876_627,
        asked: Some(1_795_876_627..=1_795_876_627),
        synchronized: Some(true),
        image: Some(Image::There),
        bridges: document()
            .bridges_named()
            .into_iter()
            .map(|bridge| (bridge.to_string(), Link::Yes))
            .collect(),
        abilities: able(hostname),
        free: BTreeMap::from(
            [("/usr", 8 << 20), ("/etc", 8 << 20), ("/var", 8 << 20)].map(|(at, kib)| (at.into(), kib)),
        ),
        files: BTreeMap::new(),
        units: BTreeMap::from([(layout::LIBVIRT_GUESTS.to_owned(), unit)]),
        consul: None,
        consul_runs: false,
        consul_answers: Some(Answers::Nothing),
        consul_user: false,
        peers: None,
        firewalls: Vec::new(),
        installed: None,
        settings: None,
        ceph: Some(CephFacts {
            driver: Some(true),
            no_admin: None,
            image: Some(Image::There),
            locks: true,
            caps_fit: true,
            key: None,
            held: None,
        }),
    }
}
