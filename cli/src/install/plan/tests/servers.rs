//! Which agents of Consul's are changed, in what order, and what is seen to in between.

use super::*;
use crate::install::testing::of_nodes;

impl World {
    /// Consul counts a server from when it is started until it is taken from the servers.
    pub(super) fn count(&mut self, node: &Node, step: &Step) {
        let host = node.address.to_string();
        let starts = matches!(step, Step::StartConsul { .. }) && self.document.is_server(&node.name);
        for facts in self.facts.values_mut() {
            let peers = facts.peers.get_or_insert_default();
            if starts || *step == Step::LeavePeers {
                peers.retain(|peer| peer.host != host);
            }
            if starts {
                peers.push(Peer { host: host.clone(), port: "8300".into(), votes: true });
            }
        }
    }
}

/// The steps of Consul's agents, without what is sent.
fn of_agents(plan: &Plan) -> Vec<(String, Vec<String>)> {
    let is_sent = |word: &String| word.starts_with('/') || word == "OpenFirewall" || word == "record";
    let mut all = words(&plan.consul);
    all.iter_mut().for_each(|(_, words)| words.retain(|word| !is_sent(word)));
    all.retain(|(_, words)| !words.is_empty());
    all
}

fn owned(steps: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    steps.iter().map(|(node, of)| ((*node).to_owned(), words(of))).collect()
}

const ANEW: &str = "StartConsul { anew: true }";
const REMOVE_SERVER: &str = "Remove(\"/etc/consul.d/zsha-server.hcl\", Consul)";
const REMOVE_CLIENT: &str = "Remove(\"/etc/consul.d/zsha-client.hcl\", Consul)";

#[test]
fn servers_are_installed_before_the_clients_that_need_them() {
    let world = World::of(of_nodes(5, &["nfs-2", "nfs-4", "nfs-5"]));
    let steps = ["MakeConsulUser", "StartConsul { anew: false }"].as_slice();
    let expected = ["nfs-2", "nfs-4", "nfs-5", "nfs-1", "nfs-3"].map(|node| (node, steps));
    assert_eq!(of_agents(&world.plan()), owned(&expected));
    let world = World::installed_of(world.document);
    assert!(world.plan().is_empty(), "{:?}", of_agents(&world.plan()));
}

#[test]
fn a_member_that_joins_touches_no_server() {
    let mut world = World::installed_of(of_nodes(3, &["nfs-1", "nfs-2", "nfs-3"]));
    world.document = of_nodes(4, &["nfs-1", "nfs-2", "nfs-3"]);
    let joins = world.document.nodes()[3].name.clone();
    world.facts.insert(joins, bare("nfs-4"));
    let start = &["MakeConsulUser", "StartConsul { anew: false }"][..];
    assert_eq!(of_agents(&world.plan()), owned(&[("nfs-4", start)]));
}

/// Another server joins before one leaves, and each agent is begun only where Consul can spare it.
#[test]
fn a_server_is_replaced_one_agent_at_a_time_and_the_one_that_leaves_is_the_last() {
    let mut world = World::installed_of(of_nodes(4, &["nfs-1", "nfs-2", "nfs-3"]));
    world.document = of_nodes(4, &["nfs-1", "nfs-2", "nfs-4"]);
    world.owner = Some(world.document.nodes()[0].name.clone());
    let plan = world.plan();
    let expected: [(&str, &[&str]); 4] = [
        ("nfs-2", &["SeeSpare", ANEW]),
        ("nfs-4", &["ForgetLog", REMOVE_CLIENT, ANEW]),
        ("nfs-1", &["SeeSpare", ANEW]),
        ("nfs-3", &["SeeSpare", REMOVE_SERVER, ANEW, "LeavePeers"]),
    ];
    assert_eq!(of_agents(&plan), owned(&expected));
    let before: Vec<_> = words(&plan.consul)[3]
        .1
        .iter()
        .map_while(|word| word.strip_prefix("/etc/consul.d/").map(str::to_owned))
        .collect();
    assert_eq!(
        before,
        ["zsha-client.hcl", "zsha-node.hcl"],
        "an agent starts by what is there at any moment"
    );
    world.carry_out(&plan);
    assert!(world.plan().is_empty(), "{:?}", of_agents(&world.plan()));
    assert!(world.facts.values().all(|facts| facts.peers.as_ref().unwrap().len() == 3));
}

#[test]
fn wherever_it_broke_off_a_node_that_is_no_server_any_more_is_taken_from_them_in_the_end() {
    let begin = || {
        let mut world = World::installed_of(of_nodes(7, &["nfs-1", "nfs-2", "nfs-3", "nfs-4", "nfs-5"]));
        world.document = of_nodes(7, &["nfs-1", "nfs-2", "nfs-6"]);
        world
    };
    let whole: usize = begin().plan().consul.iter().map(|on| on.steps.len()).sum();
    for done in 0..whole {
        let mut world = begin();
        let plan = broken_off_after(&world.plan(), done);
        world.carry_out(&plan);
        let rest = world.plan();
        world.carry_out(&rest);
        let counted: Vec<_> = world
            .facts
            .values()
            .next()
            .unwrap()
            .peers
            .iter()
            .flatten()
            .map(|peer| peer.host.as_str())
            .collect();
        assert_eq!(counted.len(), 3, "after {done} steps: {counted:?}");
        assert!(world.plan().is_empty(), "after {done} steps: {:?}", of_agents(&world.plan()));
    }
}

/// An agent that does not say whom Consul counts has not said that it counts nobody.
#[test]
fn where_no_agent_says_whom_consul_counts_one_of_ours_may_be_among_them() {
    let silent = |servers: &[&str]| {
        let mut world = World::installed_of(of_nodes(4, &["nfs-1", "nfs-2", "nfs-3"]));
        world.document = of_nodes(4, servers);
        world.facts.values_mut().for_each(|facts| facts.peers = None);
        world
    };
    let mut world = silent(&["nfs-1", "nfs-2", "nfs-3"]);
    world.programs.consul = Some(Wanted::new(layout::CONSUL, "755", Part::Consul, *b"a newer one"));
    let spared = ["SeeSpare", ANEW].as_slice();
    let of_client = ["SeeSpare", ANEW, "LeavePeers"].as_slice();
    let expected = [("nfs-1", spared), ("nfs-2", spared), ("nfs-3", spared), ("nfs-4", of_client)];
    assert_eq!(of_agents(&world.plan()), owned(&expected));
    let joins = silent(&["nfs-1", "nfs-2", "nfs-4"]);
    let of_joining = of_agents(&joins.plan()).into_iter().find(|(node, _)| node == "nfs-4").unwrap().1;
    assert_eq!(of_joining, ["SeeSpare", REMOVE_CLIENT, ANEW], "its log may be the one it has voted by");
    let mut bare = World::of(of_nodes(4, &["nfs-1", "nfs-2", "nfs-3"]));
    bare.facts.values_mut().for_each(|facts| facts.peers = None);
    assert!(!of_agents(&bare.plan()).iter().any(|(_, steps)| steps.contains(&"LeavePeers".to_owned())));
}

/// Nobody may ask Consul before there are tokens, and no node rests on it yet: waiting for its word would never end.
#[test]
fn before_there_are_tokens_nothing_waits_for_whom_consul_counts() {
    let mut world = World::installed();
    world.programs.consul = Some(Wanted::new(layout::CONSUL, "755", Part::Consul, *b"a newer one"));
    for facts in world.facts.values_mut() {
        facts.peers = None;
        facts.files.remove(layout::MANAGEMENT_TOKEN);
    }
    let anew = [ANEW].as_slice();
    assert_eq!(of_agents(&world.plan()), owned(&["nfs-1", "nfs-2", "nfs-3"].map(|node| (node, anew))));
}

/// A server that is down is started before one that runs is started anew: together they might be the quorum.
#[test]
fn an_agent_that_is_down_comes_before_any_that_runs() {
    let mut world = World::installed();
    world.programs.consul = Some(Wanted::new(layout::CONSUL, "755", Part::Consul, *b"a newer one"));
    let last = world.document.nodes()[2].name.clone();
    world.facts.get_mut(&last).unwrap().units.remove(layout::CONSUL_SERVICE);
    let expected: [(&str, &[&str]); 3] = [
        ("nfs-3", &["StartConsul { anew: false }"]),
        ("nfs-1", &["SeeSpare", ANEW]),
        ("nfs-2", &["SeeSpare", ANEW]),
    ];
    assert_eq!(of_agents(&world.plan()), owned(&expected));
}
