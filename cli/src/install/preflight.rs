//! Whether a node can become one of the cluster's, from what it says of itself. What stops it is an objection with a way
//! out; what should be looked at is a remark. Pure.

use std::collections::BTreeMap;

use zsha_crds::document::Node;
use zsha_crds::{HaCluster, NodeName, VmId};

use super::ceph::CephLogin;
use super::facts::{DiskUser, Facts, Firewall, Image, Link};
use super::layout::Choice;
use super::plan::{Consul, ceph_admin, ceph_login, consul_of, has_consul, lacks_ceph_key};

/// For two builds beside each other, and Consul's.
const FREE_USR_KIB: u64 = 512 << 10;
/// For Consul's data and the logs.
const FREE_VAR_KIB: u64 = 1 << 20;
const FREE_ETC_KIB: u64 = 1 << 10;
/// Leases count what passes and not what a clock shows, so that this is for those who read logs.
const CLOCKS_APART_SECS: i64 = 2;
/// The first release whose tokens can name a node's own agent.
const CONSUL_WITH_NODE_IDENTITIES: (u32, u32, u32) = (1, 8, 1);
/// The first whose `virsh secret-set-value` has `--file`.
const LIBVIRT_WITH_KEYS_FROM_FILES: (u32, u32, u32) = (6, 2, 0);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) node: NodeName,
    pub(crate) what: String,
    pub(crate) hint: String,
}

/// What was found of one node, in the manual's words, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checked {
    pub(crate) lines: Vec<String>,
    pub(crate) remarks: Vec<String>,
    pub(crate) objections: Vec<Objection>,
}

pub(crate) fn check(
    document: &HaCluster,
    node: &Node,
    facts: &Facts,
    choice: &Choice,
    sends_consul: bool,
    now: i64,
) -> Checked {
    let mut checked = Checked::default();
    checked.lines.push(format!("check environment for {}", node.address));
    {
        let mut wrong = |what: String, hint: &str| {
            checked.objections.push(Objection { node: node.name.clone(), what, hint: hint.to_owned() });
        };
        if facts.machine != std::env::consts::ARCH {
            let what = format!("it is a {}, and this build is for {}", facts.machine, std::env::consts::ARCH);
            wrong(what, "install with a build for it");
        }
        if facts.systemd == 0 {
            wrong("systemd does not run there".into(), "zsha's services are units of systemd");
        }
        if facts.libvirt.is_none() {
            wrong(
                "libvirt is not installed there".into(),
                "install libvirt-daemon-system (Debian) or libvirt-daemon-kvm",
            );
        }
        if facts.qemu.is_none() {
            wrong("QEMU is not installed there".into(), "install qemu-system-x86 (Debian) or qemu-kvm");
        }
        for (at, least) in [("/usr", FREE_USR_KIB), ("/var", FREE_VAR_KIB), ("/etc", FREE_ETC_KIB)] {
            match facts.free.get(at) {
                Some(free) if *free >= least => {}
                Some(free) => wrong(
                    format!("{at} has {} MiB left, and {} MiB are needed", free >> 10, least >> 10),
                    "make room there",
                ),
                None => wrong(format!("how much room {at} has is not known"), "look at `df` there"),
            }
        }
        if let Some(installed) = &facts.installed {
            let (cluster, name) = (document.name().as_str(), node.name.as_str());
            if installed.cluster != cluster || installed.node != name {
                let what = format!("it is node {} of cluster {} already", installed.node, installed.cluster);
                wrong(what, "one host is one node: `zsha uninstall` there first, or mend the document");
            }
        }
        match (consul_of(facts), &facts.consul) {
            (Consul::Ours, _) if !has_consul(facts) && !sends_consul => wrong(
                "Consul is not installed there".into(),
                "name a program to send: --consul-program FILE; or install the package consul there",
            ),
            (Consul::Ours, Some(consul))
                if choice.acl
                    && has_consul(facts)
                    && is_older(&consul.version, CONSUL_WITH_NODE_IDENTITIES) =>
            {
                wrong(
                    format!("its Consul is {}, and tokens for nodes need 1.8.1", consul.version),
                    "install a newer one there, or go without tokens: --no-acl",
                )
            }
            _ => {}
        }
    }
    checked.lines.extend(versions(facts));
    domain(document, node, facts, &mut checked);
    checked.objections.extend(second_copies(document, node, facts));
    image(document, node, facts, choice, &mut checked);
    bridges(node, facts, &mut checked);
    checked.remarks.extend(remarks(node, facts, now));
    checked
}

/// What libvirt could start past zsha, by hand or with the boot. The VM's own definition goes once zsha runs there, and one
/// of an earlier version is no fault; what only has its name would stand in its way, and may have its disk.
fn domain(document: &HaCluster, node: &Node, facts: &Facts, checked: &mut Checked) {
    let VmId { name, uuid } = document.vm();
    let domain = match &facts.domain {
        Ok(Some(domain)) => domain,
        Ok(None) => return,
        Err(why) => {
            checked.remarks.push(format!(
                "libvirt there does not say whether it has a domain named {name} ({why}); one of another kind would keep \
                 the VM from starting there"
            ));
            return;
        }
    };
    let boots = if domain.autostart { ", to be started with the host" } else { "" };
    if domain.uuid != uuid.to_string() {
        checked.objections.push(Objection {
            node: node.name.clone(),
            what: format!("libvirt there has another domain named {name}, {}{boots}", domain.uuid),
            hint: format!(
                "if it is the VM of an earlier installation, shut it down, and `virsh undefine {name}` there: its image \
                 stays"
            ),
        });
    } else if domain.defined {
        checked.remarks.push(format!(
            "libvirt there has {name} on its disk{boots}; zsha removes it, whether or not it runs"
        ));
    }
}

/// What has the VM's disk and is not the VM, as zsha knows it: the VM of an earlier installation above all. zsha would start its
/// own copy beside it, and not every QEMU locks its image.
pub(crate) fn second_copies(document: &HaCluster, node: &Node, facts: &Facts) -> Vec<Objection> {
    let ours = document.vm().uuid.to_string();
    let disk = match document.image_path() {
        Some(path) => path.display().to_string(),
        None => CephLogin::of(document).map(|login| format!("rbd:{}", login.image())).unwrap_or_default(),
    };
    let objection = |user: &DiskUser| {
        let (what, hint) = match user {
            DiskUser::Process { uuid, .. } if *uuid == ours => return None,
            DiskUser::Process { pid, program, .. } => (
                format!("process {pid} ({program}) there has {disk} open, and is not zsha's VM"),
                "a second copy beside it would destroy the disk: shut that VM down on every node, see that nothing starts \
                 it again, and run this once more"
                    .to_owned(),
            ),
            DiskUser::Domain { name, state } => (
                format!("libvirt there has the domain {name:?} ({state}) with {disk}"),
                format!(
                    "it would be a second copy: shut it down, and `virsh undefine '{name}'` there (or move its file away): its image stays"
                ),
            ),
            DiskUser::Unknown(why) => (
                format!("whether another domain there has {disk} is not known: {why}"),
                "see that `virsh dumpxml` of each domain answers there, and that each file in /etc/libvirt/qemu can be read and \
                 is a domain's, and run this once more"
                    .to_owned(),
            ),
        };
        Some(Objection { node: node.name.clone(), what, hint })
    };
    facts.disk_users.iter().filter_map(objection).collect()
}

/// What is there, for whoever reads the log of an installation later.
fn versions(facts: &Facts) -> Vec<String> {
    let or_none = |version: &Option<String>| version.clone().unwrap_or_else(|| "none".into());
    let (libvirt, qemu) = (or_none(&facts.libvirt), or_none(&facts.qemu));
    let first = format!("{}: systemd {}, libvirt {libvirt}, QEMU {qemu}", facts.system, facts.systemd);
    let name = |firewall: &Firewall| match firewall {
        Firewall::Firewalld => "firewalld",
        Firewall::Iptables => "iptables",
        Firewall::Nftables => "nftables",
    };
    let used: Vec<_> = facts.firewalls.iter().map(name).collect();
    let second = (!used.is_empty()).then(|| format!("Firewall in use: {}", used.join(", ")));
    std::iter::once(first).chain(second).collect()
}

fn image(document: &HaCluster, node: &Node, facts: &Facts, choice: &Choice, checked: &mut Checked) {
    let Some(path) = document.image_path() else {
        return image_in_ceph(document, node, facts, choice, checked);
    };
    let shown = path.display();
    let (what, hint) = match &facts.image {
        Some(Image::There) => {
            checked.lines.push(format!("File {shown} exists"));
            return;
        }
        // zsha mounts the share itself.
        Some(Image::Missing) if !document.mounts().is_empty() => {
            checked.remarks.push(format!("File {shown} is not there yet: the document has mounts"));
            return;
        }
        Some(Image::Missing) => {
            (format!("File {shown} does not exist"), "mount the share there, and put the image on it")
        }
        Some(Image::Unknown(why)) => {
            (format!("whether {shown} exists is not known: {why}"), "is the share mounted?")
        }
        None => (format!("whether {shown} exists was not said"), "run it again"),
    };
    checked.objections.push(Objection { node: node.name.clone(), what, hint: hint.into() });
}

/// What only an administrator of Ceph sees of it is said by one alone.
fn image_in_ceph(document: &HaCluster, node: &Node, facts: &Facts, choice: &Choice, checked: &mut Checked) {
    let Some(login) = CephLogin::of(document) else { return };
    let mut wrong = |what: String, hint: String| {
        checked.objections.push(Objection { node: node.name.clone(), what, hint });
    };
    let Some(ceph) = &facts.ceph else {
        return wrong("what it has of Ceph was not said".into(), "run it again".into());
    };
    let image = login.image();
    let old = facts.libvirt.as_deref().filter(|version| is_older(version, LIBVIRT_WITH_KEYS_FROM_FILES));
    if let (Some(version), Some(_)) =
        (old, ceph_login(document, choice, facts).filter(|_| ceph.held.is_none()))
    {
        let hint = "older ones take a key only by their command line, where everybody can read it: give libvirt there the \
                    key yourself, and name user and secret: cephUser and cephSecret in --settings FILE";
        wrong(format!("its libvirt is {version}, and keys are given to one from 6.2 on"), hint.into());
    }
    if ceph.driver == Some(false) {
        let hint = "install qemu-block-extra (Debian) or qemu-kvm-block-rbd";
        wrong("its QEMU has no driver for Ceph".into(), hint.into());
    }
    if !ceph.locks {
        checked.remarks.push(format!(
            "rbd:{image} has no exclusive-lock, by which Ceph shuts out late writes of a client that has died: \
             rbd feature enable {image} exclusive-lock"
        ));
    }
    match &ceph.image {
        None => {}
        Some(Image::There) => checked.lines.push(format!("Image rbd:{image} exists")),
        Some(Image::Missing) => wrong(
            format!("image rbd:{image} does not exist"),
            format!("bring it there: qemu-img convert -p -O raw mnvm.img rbd:{image}"),
        ),
        Some(Image::Unknown(why)) => {
            wrong(
                format!("whether rbd:{image} exists is not known: {why}"),
                "does `ceph -s` answer there?".into(),
            );
        }
    }
}

/// Somebody has to be able to make the cluster's user there, unless the nodes are told another.
pub(crate) fn ceph(document: &HaCluster, all: &BTreeMap<NodeName, Facts>, choice: &Choice) -> Vec<Objection> {
    let needed = |facts: &Facts| lacks_ceph_key(document, choice, all, facts);
    if ceph_admin(document, all).is_some() || !all.values().any(needed) {
        return Vec::new();
    }
    let why = |facts: &Facts| facts.ceph.as_ref().and_then(|ceph| ceph.no_admin.clone()).unwrap_or_default();
    let objection = |(name, facts): (&NodeName, &Facts)| {
        Objection {
        node: name.clone(),
        what: format!("it cannot make a user in Ceph, and no other node can: {}", why(facts)),
        hint: "let one node have ceph.conf and the keyring of client.admin; or make the user yourself, give libvirt on \
               every node its key, and name both: cephUser and cephSecret in --settings FILE"
            .into(),
    }
    };
    all.iter().map(objection).collect()
}

fn bridges(node: &Node, facts: &Facts, checked: &mut Checked) {
    for (bridge, link) in &facts.bridges {
        let said = if *link == Link::Yes { "yes" } else { "no" };
        checked.lines.push(format!("Settings for {bridge}:"));
        checked.lines.push(format!("Link detected: {said}"));
        let (what, hint) = match link {
            Link::Yes => continue,
            Link::No => {
                (format!("no cable of the bridge {bridge} has a link"), "plug one in, or look at its bond")
            }
            Link::NoBridge => {
                (format!("{bridge} is no bridge"), "the document names bridges, not their ports")
            }
            Link::Missing => {
                (format!("there is no bridge {bridge}"), "make it, or mend `Bridge` in the document")
            }
        };
        checked.objections.push(Objection { node: node.name.clone(), what, hint: hint.into() });
    }
}

fn remarks(node: &Node, facts: &Facts, now: i64) -> Vec<String> {
    let mut remarks = Vec::new();
    if facts.hostname != node.name.as_str() && !facts.hostname.starts_with(&format!("{}.", node.name)) {
        remarks.push(format!("it calls itself {}, and the document calls it {}", facts.hostname, node.name));
    }
    if (facts.now - now).abs() > CLOCKS_APART_SECS {
        remarks.push(format!("its clock is {} s from this one's", facts.now - now));
    }
    if facts.synchronized != Some(true) {
        remarks.push("nothing is known to keep its clock: the times in its logs will drift (chrony, maxslewrate 10000)".into());
    }
    remarks
}

/// Nodes with a Consul of somebody else beside nodes without: whose settings would be the others'?
pub(crate) fn one_consul(facts: &BTreeMap<NodeName, Facts>) -> Vec<Objection> {
    let (theirs, ours): (Vec<_>, Vec<_>) =
        facts.iter().partition(|(_, facts)| consul_of(facts) == Consul::Theirs);
    if theirs.is_empty() || ours.is_empty() {
        return Vec::new();
    }
    let objection = |(name, _): (&NodeName, &Facts)| Objection {
        node: name.clone(),
        what: "a Consul that zsha did not install is there, and none on another node".into(),
        hint: "let every node have one of yours, or none".into(),
    };
    theirs.into_iter().map(objection).collect()
}

/// What cannot be read counts as older.
fn is_older(version: &str, than: (u32, u32, u32)) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    match (next(), next(), next()) {
        (Some(major), Some(minor), patch) => (major, minor, patch.unwrap_or(0)) < than,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::facts::{CephFacts, ConsulProgram};
    use crate::install::testing::{bare, document, in_ceph};
    use serde_yaml::Mapping;

    fn checked(change: impl FnOnce(&mut Facts), sends_consul: bool) -> Checked {
        let document = document();
        let mut facts = bare("nfs-1");
        change(&mut facts);
        let choice = Choice { acl: true, settings: Mapping::new() };
        check(&document, &document.nodes()[0], &facts, &choice, sends_consul, 1_795_876_627)
    }

    fn objections(change: impl FnOnce(&mut Facts)) -> Vec<String> {
        checked(change, true).objections.into_iter().map(|objection| objection.what).collect()
    }

    #[test]
    fn a_node_with_all_that_is_needed_is_shown_in_the_manuals_words() {
        let good = checked(|_| {}, true);
        assert_eq!((good.objections, good.remarks), (vec![], vec![]));
        insta::assert_snapshot!(good.lines.join("\n"));
    }

    #[test]
    fn every_lack_is_said_at_once_and_each_with_a_way_out() {
        let bad = checked(
            |facts| {
                facts.machine = "riscv64".into();
                facts.systemd = 0;
                facts.libvirt = None;
                facts.qemu = None;
                facts.image = Some(Image::Unknown("no answer within 10 s".into()));
                facts.bridges.insert("br_zsn0".into(), Link::No);
                facts.bridges.insert("br_zsn1".into(), Link::Missing);
                facts.free.insert("/usr".into(), 1 << 10);
                facts.free.remove("/var");
            },
            false,
        );
        let shown: Vec<_> =
            bad.objections.iter().map(|one| format!("{}\n  {}", one.what, one.hint)).collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn what_libvirt_could_start_past_zsha_is_said() {
        use crate::install::facts::DomainFact;
        let ours = document().vm().uuid.to_string();
        let with = |uuid: &str, defined, autostart| {
            let domain = DomainFact { uuid: uuid.to_owned(), defined, autostart };
            let checked = checked(|facts| facts.domain = Ok(Some(domain)), true);
            let objections: Vec<_> = checked.objections.into_iter().map(|one| one.what).collect();
            (objections, checked.remarks)
        };
        let silent = checked(|facts| facts.domain = Err("no answer".to_owned()), true);
        assert!(silent.remarks.iter().any(|said| said.contains("no answer")), "{:?}", silent.remarks);
        assert_eq!(with(&ours, false, false), (vec![], vec![]), "it runs, and nothing is on the disk");
        let (objections, remarks) = with(&ours, true, true);
        assert_eq!(objections, Vec::<String>::new());
        assert_eq!(
            remarks,
            [
                "libvirt there has mnvm on its disk, to be started with the host; zsha removes it, whether or not it runs"
            ]
        );
        let (objections, remarks) = with("173de36b-4a5d-458e-a5e3-9a99584551ef", true, false);
        assert_eq!(
            objections,
            ["libvirt there has another domain named mnvm, 173de36b-4a5d-458e-a5e3-9a99584551ef"]
        );
        assert_eq!(remarks, Vec::<String>::new());
    }

    #[test]
    fn whatever_else_has_the_vms_disk_is_in_the_way_and_the_vm_itself_is_not() {
        let uuid = document().vm().uuid.to_string();
        let process = |uuid: &str| DiskUser::Process {
            pid: "4711".into(),
            program: "qemu-kvm".into(),
            uuid: uuid.to_owned(),
        };
        let said = |user: DiskUser| objections(|facts| facts.disk_users = vec![user]);
        assert_eq!(said(process(&uuid)), Vec::<String>::new());
        let disk = document().image_path().unwrap().display().to_string();
        for other in ["", "173de36b-4a5d-458e-a5e3-9a99584551ef"] {
            let expected = format!("process 4711 (qemu-kvm) there has {disk} open, and is not zsha's VM");
            assert_eq!(said(process(other)), [expected]);
        }
        let old = DiskUser::Domain { name: "ZStack Management Node VM".into(), state: "shut off".into() };
        assert_eq!(
            said(old),
            [format!("libvirt there has the domain \"ZStack Management Node VM\" (shut off) with {disk}")]
        );
        assert_eq!(said(DiskUser::Unknown("no answer".into())).len(), 1, "not known is not none");
    }

    #[test]
    fn another_clusters_node_is_not_taken_over() {
        let installed = crate::install::facts::Installed {
            cluster: "east".into(),
            node: "nfs-1".into(),
            consul: true,
            consul_program: true,
            consul_user: true,
            acl: true,
            masked_libvirt_guests: false,
            ceph: false,
        };
        let said = objections(|facts| facts.installed = Some(installed));
        assert_eq!(said, ["it is node nfs-1 of cluster east already"]);
    }

    #[test]
    fn a_cluster_in_ceph_needs_its_image_a_driver_and_somebody_who_may_make_its_user() {
        let document = in_ceph();
        let choice = Choice { acl: true, settings: Mapping::new() };
        let of = |change: fn(&mut CephFacts)| {
            let mut facts = bare("nfs-1");
            facts.ceph.as_mut().map(change);
            let checked = check(&document, &document.nodes()[0], &facts, &choice, true, facts.now);
            let all = BTreeMap::from([(document.nodes()[0].name.clone(), facts)]);
            let told = checked.objections.into_iter().chain(ceph(&document, &all, &choice));
            let told: Vec<_> = told.map(|one| format!("{}\n  {}", one.what, one.hint)).collect();
            checked
                .lines
                .into_iter()
                .filter(|line| line.contains("rbd"))
                .chain(checked.remarks.into_iter().filter(|remark| remark.contains("rbd")))
                .chain(told)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let fit = of(|_| {});
        let nothing_there = of(|ceph| {
            *ceph = CephFacts { driver: Some(false), image: Some(Image::Missing), ..ceph.clone() };
        });
        let no_admin = of(|ceph| {
            *ceph =
                CephFacts { no_admin: Some("there is no program ceph".into()), image: None, ..ceph.clone() };
        });
        let unlocked = of(|ceph| ceph.locks = false);
        let hangs = of(|ceph| ceph.image = Some(Image::Unknown("no answer from Ceph within 10 s".into())));
        insta::assert_snapshot!([fit, nothing_there, no_admin, unlocked, hangs].join("\n\n"));
    }

    #[test]
    fn tokens_need_a_consul_that_knows_nodes() {
        let with = |version: &str| {
            let consul = ConsulProgram { path: "/usr/bin/consul".into(), version: version.into() };
            objections(|facts| facts.consul = Some(consul)).len()
        };
        assert_eq!((with("1.8.7+dfsg1"), with("1.20.0"), with("1.8.1")), (0, 0, 0));
        assert_eq!((with("1.8.0"), with("1.4.4"), with("?")), (1, 1, 1));
    }

    #[test]
    fn a_consul_of_somebody_else_on_some_nodes_only_is_no_start() {
        let mut facts: BTreeMap<_, _> =
            document().nodes().iter().map(|node| (node.name.clone(), bare(node.name.as_str()))).collect();
        assert_eq!(one_consul(&facts), []);
        let first = facts.values_mut().next().unwrap();
        first.consul_runs = true;
        assert_eq!(one_consul(&facts).len(), 1);
    }
}
