//! What is said of a node before anything is done there.

use super::*;
use crate::install::facts::{
    Barrier, CephFacts, ConsulProgram, DiskUser, Image, Installed, Listener, UnitFact,
};
use crate::install::testing::{bare, document, in_ceph, of_nodes};
use serde_yaml::Mapping;
use zsha_crds::{PAGE_PORT, VmName};

fn checked(change: impl FnOnce(&mut Facts), sends_consul: bool) -> Checked {
    let document = document();
    let mut facts = bare("nfs-1");
    change(&mut facts);
    let choice = Choice { acl: true, settings: Mapping::new() };
    let wish = Wish { document: &document, choice: &choice, sends_consul };
    check(&wish, &document.nodes()[0], &facts)
}

fn installed(node: &str) -> Installed {
    Installed {
        cluster: document().name().to_string(),
        node: node.into(),
        consul: true,
        consul_program: true,
        consul_user: true,
        acl: true,
        masked_libvirt_guests: false,
        ceph: false,
    }
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

/// A host that takes 20 s to answer has not a clock that is 20 s slow.
#[test]
fn clocks_are_apart_only_where_no_moment_of_the_look_explains_what_was_read() {
    let said = |now: i64, asked| checked(|facts| (facts.now, facts.asked) = (now, Some(asked)), true).remarks;
    for read in [100, 110, 120, 98, 122] {
        assert_eq!(said(read, 100..=120), [""; 0], "{read}");
    }
    assert_eq!(said(97, 100..=120), ["its clock is 3 s behind this one's"]);
    assert_eq!(said(123, 100..=120), ["its clock is 3 s ahead of this one's"]);
    assert_eq!(said(0, 100..=100), ["its clock is 100 s behind this one's"]);
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
    let shown: Vec<_> = bad.objections.iter().map(|one| format!("{}\n  {}", one.what, one.hint)).collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn what_libvirt_could_start_past_zsha_is_said() {
    use crate::install::facts::DomainFact;
    let ours = VmName::management().domain_uuid(document().name()).to_string();
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
    let uuid = VmName::management().domain_uuid(document().name()).to_string();
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
    let said = objections(|facts| {
        facts.installed = Some(Installed { cluster: "east".into(), ..installed("nfs-1") });
    });
    assert_eq!(said, ["it is node nfs-1 of cluster east already"]);
}

#[test]
fn a_cluster_in_ceph_needs_its_image_a_driver_and_somebody_who_may_make_its_user() {
    let document = in_ceph();
    let choice = Choice { acl: true, settings: Mapping::new() };
    let of = |change: fn(&mut CephFacts)| {
        let mut facts = bare("nfs-1");
        facts.ceph.as_mut().map(change);
        let wish = Wish { document: &document, choice: &choice, sends_consul: true };
        let checked = check(&wish, &document.nodes()[0], &facts);
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
        *ceph = CephFacts { no_admin: Some("there is no program ceph".into()), image: None, ..ceph.clone() };
    });
    let unlocked = of(|ceph| ceph.locks = false);
    let hangs = of(|ceph| ceph.image = Some(Image::Unknown("no answer from Ceph within 10 s".into())));
    insta::assert_snapshot!([fit, nothing_there, no_admin, unlocked, hangs].join("\n\n"));
}

#[test]
fn a_host_that_is_too_small_for_the_vm_is_told_before_the_vm_is_started_there() {
    let small = checked(
        |facts| {
            facts.abilities.memory_kib = Some(1 << 20);
            facts.abilities.cpus = Some(1);
        },
        true,
    );
    let wanted = document().memory_gib();
    let told: Vec<_> = small.objections.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(told, [format!("it has 1 GiB of memory, and the VM needs {wanted}")]);
    assert_eq!(small.remarks, [format!("it has 1 CPUs, and the VM is given {}", document().cpus())]);
}

#[test]
fn who_has_a_port_that_is_needed_is_named() {
    let listener = |port: u16, program: &str| Listener {
        port,
        at: format!("0.0.0.0:{port}"),
        program: program.to_owned(),
    };
    let with = |change: fn(&mut Facts), listeners: Vec<Listener>| {
        let checked = checked(
            |facts| {
                facts.abilities.listeners = Some(listeners);
                change(facts);
            },
            true,
        );
        (checked.objections.into_iter().map(|one| one.what).collect::<Vec<_>>(), checked.remarks)
    };
    let (objections, remarks) = with(|_| (), vec![listener(8301, "kvmagent"), listener(PAGE_PORT, "")]);
    assert_eq!(
        objections,
        ["port 8301, which Consul needs, is taken by kvmagent, which listens at 0.0.0.0:8301"]
    );
    assert!(remarks[0].starts_with("port 7717 is taken by something that listens at 0.0.0.0:7717"));
    // Those that have them rightly.
    let ours = |facts: &mut Facts| facts.installed = Some(installed("nfs-1"));
    let rightly = || vec![listener(8500, "consul"), listener(PAGE_PORT, "zsha-controller")];
    assert_eq!(with(ours, rightly()), (vec![], vec![]));
    let theirs = |facts: &mut Facts| facts.consul_answers = Some(Answers::Consul);
    assert_eq!(with(theirs, rightly()), (vec![], vec![]));
    let unknown = checked(|facts| facts.abilities.listeners = None, true);
    assert_eq!(unknown.remarks, ["which ports are taken there is not known: it has no `ss`"]);
}

#[test]
fn what_keeps_qemu_from_the_image_is_told_each_with_a_way_out() {
    let barriers = vec![
        Barrier::Folder {
            user: "libvirt-qemu".into(),
            folder: "/smp".into(),
            mode: "drwx------ root".into(),
        },
        Barrier::Unreadable("Permission denied".into()),
        Barrier::ReadOnly("its file system is mounted read-only".into()),
        Barrier::SeLinux("virt_use_nfs".into()),
    ];
    let told = checked(|facts| facts.abilities.barriers = barriers, true).objections;
    let hints: Vec<_> = told.iter().map(|one| one.hint.as_str()).collect();
    assert_eq!(told[0].what, "QEMU's user there (libvirt-qemu) may not enter /smp (drwx------ root)");
    for (hint, way_out) in
        hints.iter().zip(["chmod o+x /smp", "root_squash", "writable", "setsebool -P virt_use_nfs on"])
    {
        assert!(hint.contains(way_out), "{hint}");
    }
    assert_eq!(hints.len(), 4);
}

#[test]
fn a_consul_of_somebody_elses_has_to_answer_where_the_controller_asks() {
    let unit = |active: &str, enabled: &str| UnitFact {
        load: "loaded".into(),
        active: active.into(),
        enabled: enabled.into(),
    };
    let told = |answers, runs, unit: UnitFact| {
        objections(|facts| {
            facts.consul_answers = answers;
            facts.consul_runs = runs;
            facts.units.insert("consul.service".into(), unit);
            facts.consul = Some(ConsulProgram { path: "/usr/bin/consul".into(), version: "1.20.0".into() });
        })
    };
    let package = || unit("inactive", "disabled");
    assert_eq!(told(Some(Answers::Nothing), false, package()), [""; 0], "a package's unit is nobody's");
    assert_eq!(told(Some(Answers::Consul), true, unit("active", "enabled")), [""; 0]);
    assert_eq!(told(None, true, unit("active", "enabled")), [""; 0], "it could not be asked");
    // In a container, of another cluster, on a socket only, stopped for a while: it is there, and of no use.
    for (answers, runs, unit) in [
        (Answers::Nothing, true, package()),
        (Answers::Nothing, false, unit("inactive", "enabled")),
        (Answers::Nothing, false, unit("failed", "disabled")),
        (Answers::Other, true, package()),
    ] {
        let told = told(Some(answers), runs, unit);
        assert!(told.len() == 1 && told[0].contains("127.0.0.1:8500"), "{told:?}");
    }
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

#[test]
fn a_server_of_consuls_that_votes_and_is_no_node_is_in_the_way_of_a_consul_of_ours() {
    let peer = |host: &str, votes| Peer { host: host.into(), port: "8300".into(), votes };
    let mut facts: BTreeMap<_, _> =
        document().nodes().iter().map(|node| (node.name.clone(), bare(node.name.as_str()))).collect();
    for of in facts.values_mut() {
        of.peers = Some(vec![
            peer("192.168.10.11", true),
            peer("192.168.10.14", true),
            peer("192.168.10.15", false),
        ]);
    }
    assert_eq!(strange_servers(&document(), &facts), [], "no Consul there is ours");
    facts.values_mut().next().unwrap().installed = Some(installed("nfs-1"));
    let said = strange_servers(&document(), &facts);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].what.starts_with("192.168.10.14 votes"), "{said:?}");
    assert!(
        said[0].hint.contains("`consul operator raft remove-peer -address=192.168.10.14:8300`"),
        "{said:?}"
    );
}

#[test]
fn a_node_that_would_rest_on_one_server_of_consuls_alone_needs_a_lease_that_outlasts_its_loss() {
    let said = |acl: bool, at: usize, profile: &str| {
        let mut spec = zsha_crds::normalise::normalised(&of_nodes(4, &["nfs-1", "nfs-2", "nfs-3"]));
        spec["spec"]["Availability"] = serde_json::json!({ "Profile": profile });
        let document = zsha_crds::decode_value(&spec).unwrap();
        let (choice, node) = (Choice { acl, settings: Mapping::new() }, &document.nodes()[at]);
        let wish = Wish { document: &document, choice: &choice, sends_consul: true };
        let objections = check(&wish, node, &bare(node.name.as_str())).objections;
        objections.into_iter().map(|one| one.what).collect::<Vec<_>>()
    };
    for profile in ["Fast", "Balanced"] {
        let alone = said(false, 3, profile);
        assert!(
            alone.len() == 1 && alone[0].starts_with("by the document it has no server of Consul's"),
            "{alone:?}"
        );
        assert_eq!(said(false, 2, profile), [""; 0], "a server");
        assert_eq!(said(true, 3, profile), [""; 0], "it asks two servers as well");
    }
    assert_eq!(said(false, 3, "Patient"), [""; 0]);
}
