//! What install does on a node, by what the node says of itself. `servers`: where Consul's servers change.

mod servers;

use super::*;
use crate::install::facts::{ConsulProgram, FileFact, UnitFact};
use crate::install::preflight;
use crate::install::testing::{bare, document, in_ceph, programs};
use serde_yaml::Mapping;

fn choice() -> Choice {
    Choice { acl: true, settings: Mapping::new() }
}

struct World {
    document: HaCluster,
    facts: BTreeMap<NodeName, Facts>,
    programs: Programs,
    owner: Option<NodeName>,
    in_force: bool,
}

impl World {
    fn bare() -> Self {
        Self::of(document())
    }

    fn of(document: HaCluster) -> Self {
        let facts =
            document.nodes().iter().map(|node| (node.name.clone(), bare(node.name.as_str()))).collect();
        Self { document, facts, programs: programs(), owner: None, in_force: false }
    }

    fn plan(&self) -> Plan {
        plan(&Given {
            document: &self.document,
            facts: &self.facts,
            programs: &self.programs,
            choice: &choice(),
            gossip: "KEY",
            owner: self.owner.as_ref(),
            in_force: self.in_force,
        })
    }

    /// Leaves the nodes as they are once `plan` was carried out.
    fn carry_out(&mut self, plan: &Plan) {
        let active = |enabled: &str| UnitFact {
            load: "loaded".into(),
            active: "active".into(),
            enabled: enabled.into(),
        };
        if plan.ceph.is_some() {
            for facts in self.facts.values_mut() {
                facts.ceph.as_mut().unwrap().key = Some("the key".into());
            }
        }
        for on in plan.consul.iter().chain(&plan.zsha) {
            for step in &on.steps {
                let facts = self.facts.get_mut(&on.node.name).unwrap();
                let mut put = |path: &str, mode: &str, sha256: &str| {
                    facts.files.insert(path.into(), FileFact { mode: mode.into(), sha256: sha256.into() });
                };
                match step {
                    Step::Send(file) => {
                        if let Some(due) = file.part.due() {
                            put(due, "644", "");
                        }
                        put(file.path, file.mode, &file.sha256);
                        if file.path == layout::SETTINGS {
                            facts.settings = Some(String::from_utf8(file.content.to_vec()).unwrap());
                        }
                        if file.path == layout::CONSUL {
                            let version = "1.8.7".to_owned();
                            facts.consul = Some(ConsulProgram { path: layout::CONSUL.into(), version });
                        }
                    }
                    Step::Remove(path, part) => {
                        put(part.due().unwrap(), "644", "");
                        facts.files.remove(*path);
                    }
                    Step::SeeSpare | Step::ForgetLog | Step::LeavePeers => {}
                    Step::Record(installed) => facts.installed = Some(installed.clone()),
                    Step::MakeConsulUser => facts.consul_user = true,
                    Step::OpenFirewall => {
                        facts.units.insert(layout::FIREWALL_SERVICE.into(), active("enabled"));
                    }
                    Step::StartConsul { .. } => {
                        facts.consul_runs = true;
                        facts.units.insert(layout::CONSUL_SERVICE.into(), active("enabled"));
                    }
                    Step::MakeTokens => {
                        put(Part::Zsha.due().unwrap(), "600", "");
                        for token in [layout::NODE_TOKEN, layout::OPERATOR_TOKEN, layout::CONSUL_TOKEN] {
                            put(token, "600", "secret");
                        }
                    }
                    Step::CopyManagementToken => put(layout::MANAGEMENT_TOKEN, "600", "secret"),
                    Step::WatchShutdown => {
                        facts.units.insert(layout::HOST_SERVICE.into(), active("enabled"));
                    }
                    Step::MaskLibvirtGuests => {
                        let masked = UnitFact { load: "masked".into(), ..active("masked") };
                        facts.units.insert(layout::LIBVIRT_GUESTS.into(), masked);
                    }
                    Step::StartZsha { .. } => {
                        for unit in layout::SERVICES {
                            facts.units.insert(unit.into(), active("enabled"));
                        }
                    }
                    Step::HoldCephKey => facts.ceph.as_mut().unwrap().held = Some("the key".into()),
                    Step::SeeHealthy => {}
                    Step::StopOld(units) => {
                        for unit in units {
                            facts.units.remove(*unit);
                        }
                    }
                }
                if let Some(part) = started(step) {
                    facts.files.remove(part.due().unwrap());
                }
                self.count(&on.node, step);
            }
        }
    }

    fn installed() -> Self {
        Self::installed_of(document())
    }

    fn installed_of(document: HaCluster) -> Self {
        let mut world = Self::of(document);
        let plan = world.plan();
        world.carry_out(&plan);
        world.in_force = true;
        world
    }
}

/// The part whose service this step starts anew.
fn started(step: &Step) -> Option<Part> {
    Some(match step {
        Step::StartConsul { .. } => Part::Consul,
        Step::StartZsha { .. } => Part::Zsha,
        Step::OpenFirewall => Part::Firewall,
        Step::WatchShutdown => Part::Host,
        _ => return None,
    })
}

/// A step in a word.
fn word(step: &Step) -> String {
    match step {
        Step::Send(file) => file.path.to_owned(),
        Step::Record(_) => "record".into(),
        Step::StopOld(units) => format!("stop {}", units.join(" ")),
        other => format!("{other:?}"),
    }
}

fn words(plan: &[OnNode]) -> Vec<(String, Vec<String>)> {
    plan.iter().map(|on| (on.node.name.to_string(), on.steps.iter().map(word).collect())).collect()
}

#[test]
fn a_bare_node_gets_everything_and_in_this_order() {
    let plan = World::bare().plan();
    assert!(plan.bootstrap_acl);
    insta::assert_debug_snapshot!((&words(&plan.consul)[0], &words(&plan.zsha)[0]));
    assert_eq!(plan.consul.len(), 3);
}

#[test]
fn a_second_plan_has_nothing_to_do() {
    let plan = World::installed().plan();
    assert!(plan.is_empty(), "{:?} {:?}", words(&plan.consul), words(&plan.zsha));
}

#[test]
fn a_new_build_is_sent_and_started_node_by_node_with_the_owner_last() {
    let mut world = World::installed();
    world.owner = Some(world.document.nodes()[0].name.clone());
    world.programs.controller = Wanted::new(layout::CONTROLLER, "755", Part::Zsha, *b"a newer one");
    let plan = world.plan();
    assert!(
        plan.consul.iter().all(|on| on.steps.is_empty()),
        "Consul is left alone: {:?}",
        words(&plan.consul)
    );
    let steps = vec![layout::CONTROLLER.to_owned(), "StartZsha { anew: true }".into(), "SeeHealthy".into()];
    assert_eq!(words(&plan.zsha), ["nfs-2", "nfs-3", "nfs-1"].map(|node| (node.to_owned(), steps.clone())));
}

#[test]
fn a_replaced_node_gets_everything_and_the_others_nothing() {
    let mut world = World::installed();
    let replaced = world.document.nodes()[1].name.clone();
    world.facts.insert(replaced.clone(), bare("nfs-2"));
    let plan = world.plan();
    assert!(!plan.bootstrap_acl, "the others have the management token");
    for on in plan.consul.iter().chain(&plan.zsha) {
        assert_eq!(on.steps.is_empty(), on.node.name != replaced, "{:?}", on.steps);
    }
    let zsha = &words(&plan.zsha)[1].1;
    let at = |word: &str| zsha.iter().position(|step| step == word).unwrap();
    assert!(
        at("CopyManagementToken") < at("MakeTokens") && at("MakeTokens") < at("StartZsha { anew: false }")
    );
}

#[test]
fn what_broke_off_is_gone_on_with() {
    let mut world = World::bare();
    let whole = world.plan();
    let half = Plan { zsha: Vec::new(), ..whole.clone() };
    world.carry_out(&half);
    let rest = world.plan();
    assert!(rest.consul.iter().all(|on| on.steps.is_empty()), "{:?}", words(&rest.consul));
    assert_eq!(rest.zsha, whole.zsha);
}

/// The plan without all but the first so many steps.
fn broken_off_after(plan: &Plan, steps: usize) -> Plan {
    let mut left = steps;
    let mut begun = |on: &OnNode| {
        let steps: Vec<Step> = on.steps.iter().take(left).cloned().collect();
        left -= steps.len();
        OnNode { node: on.node.clone(), steps }
    };
    let consul = plan.consul.iter().map(&mut begun).collect();
    let zsha = plan.zsha.iter().map(&mut begun).collect();
    Plan { consul, zsha, ..plan.clone() }
}

#[test]
fn wherever_an_install_or_an_upgrade_broke_off_the_next_starts_anew_what_was_sent_before() {
    let upgraded = || {
        let mut world = World::installed();
        world.programs.controller = Wanted::new(layout::CONTROLLER, "755", Part::Zsha, *b"a newer one");
        world.programs.consul = Some(Wanted::new(layout::CONSUL, "755", Part::Consul, *b"a newer one"));
        world
    };
    let steps = |plan: &Plan| -> Vec<(NodeName, Step)> {
        let on_nodes = plan.consul.iter().chain(&plan.zsha);
        on_nodes.flat_map(|on| on.steps.iter().map(|step| (on.node.name.clone(), step.clone()))).collect()
    };
    for begin in [World::bare, upgraded] {
        let whole = steps(&begin().plan());
        for done in 0..whole.len() {
            let mut world = begin();
            let plan = broken_off_after(&world.plan(), done);
            world.carry_out(&plan);
            let rest = steps(&world.plan());
            for (node, step) in &whole[done..] {
                let Some(part) = started(step) else { continue };
                let is_the_same = |(on, it): &(NodeName, Step)| on == node && started(it) == Some(part);
                assert!(
                    rest.iter().any(is_the_same),
                    "after {done} steps: {node} {step:?} is not in {rest:?}"
                );
            }
        }
    }
}

#[test]
fn somebody_elses_consul_is_left_as_it_is() {
    let mut world = World::bare();
    for facts in world.facts.values_mut() {
        facts.consul_runs = true;
        facts.consul = Some(ConsulProgram { path: "/opt/consul".into(), version: "1.20.0".into() });
    }
    let plan = world.plan();
    assert!(!plan.bootstrap_acl);
    for (_, steps) in words(&plan.consul) {
        assert!(steps.iter().all(|step| !step.contains("onsul")), "{steps:?}");
    }
}

#[test]
fn the_services_of_the_old_zsha_are_stopped_before_anything_else() {
    let mut world = World::bare();
    let first = world.document.nodes()[0].name.clone();
    let old = UnitFact { load: "loaded".into(), active: "active".into(), ..UnitFact::default() };
    let facts = world.facts.get_mut(&first).unwrap();
    facts.units.insert("z.service".into(), old.clone());
    facts.units.insert(layout::CONSUL_SERVICE.into(), old);
    let plan = world.plan();
    assert_eq!(plan.consul[0].steps[0], Step::StopOld(vec!["z.service"]));
    assert!(!words(&plan.consul)[1].1[0].starts_with("stop"), "only where it is");
}

#[test]
fn a_file_that_others_may_read_is_put_right() {
    let mut world = World::installed();
    let second = world.document.nodes()[1].name.clone();
    world.facts.get_mut(&second).unwrap().files.get_mut(layout::CONSUL_GOSSIP).unwrap().mode = "644".into();
    assert_eq!(words(&world.plan().consul)[1].1[0], layout::CONSUL_GOSSIP);
}

#[test]
fn in_ceph_a_user_is_made_once_and_every_node_holds_its_key_before_zsha_is_started() {
    let mut world = World::of(in_ceph());
    let plan = world.plan();
    assert_eq!(plan.ceph.as_ref().map(|node| &node.name), Some(&world.document.nodes()[0].name));
    for (_, steps) in words(&plan.zsha) {
        let at = |word: &str| steps.iter().position(|step| step == word);
        assert!(at("HoldCephKey").unwrap() < at("StartZsha { anew: false }").unwrap(), "{steps:?}");
    }
    world.carry_out(&plan);
    assert!(world.plan().is_empty(), "a second plan has nothing to do");

    // A node that was replaced, and one where somebody has set another key.
    for held in [None, Some("another".to_owned())] {
        let second = world.document.nodes()[1].name.clone();
        world.facts.get_mut(&second).unwrap().ceph.as_mut().unwrap().held = held;
        let plan = world.plan();
        assert!(plan.ceph.is_some());
        let steps: Vec<_> = words(&plan.zsha).into_iter().filter(|(_, steps)| !steps.is_empty()).collect();
        assert_eq!(steps, [(second.to_string(), vec!["HoldCephKey".to_owned()])]);
    }
}

#[test]
fn where_nobody_administers_ceph_any_more_keys_that_are_held_are_enough_and_a_lost_one_is_an_objection() {
    let mut world = World::of(in_ceph());
    let plan = world.plan();
    world.carry_out(&plan);
    for facts in world.facts.values_mut() {
        let ceph = facts.ceph.as_mut().unwrap();
        (ceph.no_admin, ceph.image, ceph.key) = (Some("no answer from Ceph within 7 s".into()), None, None);
    }
    assert!(world.plan().is_empty(), "an upgrade goes on");
    assert_eq!(preflight::ceph(&world.document, &world.facts, &choice()), []);
    world.facts.values_mut().next().unwrap().ceph.as_mut().unwrap().held = None;
    assert_eq!(preflight::ceph(&world.document, &world.facts, &choice()).len(), world.facts.len());
}

#[test]
fn a_user_that_may_something_else_is_put_right_and_one_that_is_gone_is_made_anew() {
    let mut world = World::of(in_ceph());
    let plan = world.plan();
    world.carry_out(&plan);
    // As after a change of `PoolName`.
    let first = world.document.nodes()[0].name.clone();
    world.facts.get_mut(&first).unwrap().ceph.as_mut().unwrap().caps_fit = false;
    let plan = world.plan();
    assert!(plan.ceph.is_some() && plan.zsha.iter().all(|on| on.steps.is_empty()), "{:?}", words(&plan.zsha));
    for facts in world.facts.values_mut() {
        let ceph = facts.ceph.as_mut().unwrap();
        (ceph.caps_fit, ceph.key) = (true, None);
    }
    let plan = world.plan();
    assert!(plan.ceph.is_some() && plan.zsha.iter().all(|on| on.steps == [Step::HoldCephKey]));
}

#[test]
fn the_node_that_administers_ceph_makes_the_user_whichever_it_is() {
    let mut world = World::of(in_ceph());
    let nodes: Vec<_> = world.document.nodes().iter().map(|node| node.name.clone()).collect();
    for node in &nodes[..2] {
        let ceph = world.facts.get_mut(node).unwrap().ceph.as_mut().unwrap();
        ceph.no_admin = Some("there is no program ceph".into());
    }
    assert_eq!(world.plan().ceph.map(|node| node.name), Some(nodes[2].clone()));
}

#[test]
fn a_login_of_an_operators_own_is_left_as_it_is() {
    let mut world = World::of(in_ceph());
    for facts in world.facts.values_mut() {
        facts.settings = Some("cephUser: libvirt\ncephSecret: 7c9a1e44-90f5-4a25-a8f7-9d0a51b0b8ea\n".into());
    }
    let plan = world.plan();
    assert_eq!(plan.ceph, None);
    for on in &plan.zsha {
        let settings = on.steps.iter().find_map(|step| match step {
            Step::Send(file) if file.path == layout::SETTINGS => {
                Some(String::from_utf8(file.content.to_vec()).unwrap())
            }
            _ => None,
        });
        assert!(settings.unwrap().contains("cephUser: libvirt\n"));
        assert!(!on.steps.contains(&Step::HoldCephKey));
    }
}
