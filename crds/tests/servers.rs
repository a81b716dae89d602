//! Which nodes' Consul agents are servers, by the document.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use serde_json::{Value, json};
use zsha_crds::diagnostic::Code;
use zsha_crds::{HaCluster, NodeName, decode_value, testing};

fn document(nodes: usize, servers: Option<&[usize]>) -> Value {
    let mut document = testing::document(3);
    let spec = document["spec"].as_object_mut().unwrap();
    spec.retain(|key, _| ["MemorySizeInGB", "CPU"].contains(&key.as_str()));
    spec.insert("Node".into(), (1..=nodes).map(|at| json!(format!("10.0.0.{at} n{at}"))).collect());
    spec.insert("Type".into(), json!("FileConf"));
    spec.insert("ImageFolder".into(), json!("/opt/smp/mngt/"));
    let nic = json!({
        "Bridge": "br_eth0", "MacAddress": "02:98:54:12:34:56", "Ipaddr": "10.0.1.10", "Netmask": "255.255.255.0",
        "Gateway": "10.0.1.1", "IsMgmt": true, "IsDefRoute": true
    });
    spec.insert("Network".into(), json!([nic]));
    if let Some(servers) = servers {
        spec.insert("Servers".into(), servers.iter().map(|at| json!(format!("n{at}"))).collect());
    }
    document
}

fn servers(nodes: usize, named: Option<&[usize]>) -> Vec<String> {
    let cluster: HaCluster = decode_value(&document(nodes, named)).unwrap();
    let names: Vec<_> = cluster.servers().iter().map(|node| node.name.to_string()).collect();
    for node in cluster.nodes() {
        assert_eq!(cluster.is_server(&node.name), names.contains(&node.name.to_string()));
    }
    assert!(!cluster.is_server(&NodeName::new("n99").unwrap()));
    names
}

fn codes(nodes: usize, named: Option<&[usize]>) -> Vec<Code> {
    let faults = decode_value(&document(nodes, named)).unwrap_err();
    faults.items().iter().map(|item| item.code).collect()
}

#[test]
fn the_servers_are_those_named_or_all_or_of_many_the_first_five() {
    assert_eq!(servers(3, None), ["n1", "n2", "n3"]);
    assert_eq!(servers(7, None).len(), 7);
    assert_eq!(servers(9, None), ["n1", "n2", "n3", "n4", "n5"]);
    assert_eq!(servers(65, None).len(), 5);
    assert_eq!(servers(4, Some(&[4, 1, 2])), ["n1", "n2", "n4"], "in the order of the nodes");
    assert_eq!(servers(64, Some(&[64, 7, 9, 1, 2, 3, 4])).len(), 7);
}

#[test]
fn without_servers_nodes_are_an_odd_number_and_with_them_any_from_three_on() {
    for nodes in [4, 6, 8, 64] {
        assert_eq!(codes(nodes, None), [Code::NodeCountEven], "{nodes}");
        assert_eq!(servers(nodes, Some(&[1, 2, 3])).len(), 3, "{nodes}");
    }
    assert_eq!(codes(2, Some(&[1, 2])), [Code::TooFew, Code::ServerCount]);
}

#[test]
fn servers_are_three_five_or_seven() {
    for named in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4], &[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
        assert_eq!(codes(9, Some(named)), [Code::ServerCount], "{named:?}");
    }
}
