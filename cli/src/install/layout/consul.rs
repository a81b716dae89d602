//! The files of a node's Consul agent.

use serde_json::json;
use zsha_crds::document::Node;

use super::{
    CONSUL_DATA, CONSUL_GOSSIP, CONSUL_NODE, CONSUL_SERVER, CONSUL_UNIT, Cluster, DATACENTER, Part, Wanted,
};

const SERVER: &str = include_str!("../../../../manifests/consul/server.hcl");
const UNIT: &str = include_str!("../../../../manifests/systemd/consul.service");

/// None where the agent is somebody else's.
pub(super) fn files(cluster: &Cluster<'_>, node: &Node) -> Vec<Wanted> {
    let Some(gossip) = cluster.gossip else { return Vec::new() };
    let key = format!(
        "# The key that the agents' gossip is encrypted with: the same on every node.\nencrypt = \"{gossip}\"\n"
    );
    let mut files: Vec<Wanted> = cluster.programs.consul.iter().cloned().collect();
    files.extend([
        Wanted::new(CONSUL_SERVER, "644", Part::Consul, SERVER),
        Wanted::new(CONSUL_NODE, "644", Part::Consul, of_node(cluster, node)),
        Wanted { owner: "consul:consul", ..Wanted::new(CONSUL_GOSSIP, "600", Part::Consul, key) },
        Wanted::new(CONSUL_UNIT, "644", Part::Consul, UNIT),
    ]);
    files
}

/// Who this node's agent is, and who the others are.
fn of_node(cluster: &Cluster<'_>, node: &Node) -> String {
    let nodes = cluster.document.nodes();
    let others = nodes.iter().filter(|other| other.name != node.name).map(|other| other.address);
    let acl = cluster.choice.acl;
    // Whoever reaches the HTTP port may write the keys, unless tokens say who may: only then the others may.
    let clients = if acl { format!("127.0.0.1 {}", node.address) } else { "127.0.0.1".to_owned() };
    let acl = if acl {
        "\nacl {\n  enabled                  = true\n  default_policy           = \"deny\"\n  \
         enable_token_persistence = true\n}\n"
    } else {
        ""
    };
    format!(
        "# Written by `zsha install`, which writes it anew: put settings of your own into a file beside it.\n\
         datacenter       = {}\nnode_name        = {}\ndata_dir         = {}\nbind_addr        = {}\n\
         client_addr      = {}\nbootstrap_expect = {}\nretry_join       = {}\n{acl}",
        json!(DATACENTER),
        json!(node.name.as_str()),
        json!(CONSUL_DATA),
        json!(node.address),
        json!(clients),
        nodes.len(),
        json!(others.collect::<Vec<_>>()),
    )
}
