//! The files of a node's Consul agent. It is a server, which votes, or a client, which asks the servers: the document
//! says which (`HaCluster::servers`).

use serde_json::json;
use zsha_crds::document::Node;

use super::{
    CONSUL_CLIENT, CONSUL_DATA, CONSUL_GOSSIP, CONSUL_NODE, CONSUL_SERVER, CONSUL_UNIT, Cluster, DATACENTER,
    Part, Wanted,
};

const SERVER: &str = include_str!("../../../../manifests/consul/server.hcl");
const CLIENT: &str = include_str!("../../../../manifests/consul/client.hcl");
const UNIT: &str = include_str!("../../../../manifests/systemd/consul.service");

/// None where the agent is somebody else's. The part that it plays comes before what it is told of the node, so that an
/// agent is started by what is there at any moment: `bootstrap_expect` stops one that is no server.
pub(super) fn files(cluster: &Cluster<'_>, node: &Node) -> Vec<Wanted> {
    let Some(gossip) = cluster.gossip else { return Vec::new() };
    let key = format!(
        "# The key that the agents' gossip is encrypted with: the same on every node.\nencrypt = \"{gossip}\"\n"
    );
    let part = match cluster.document.is_server(&node.name) {
        true => Wanted::new(CONSUL_SERVER, "644", Part::Consul, SERVER),
        false => Wanted::new(CONSUL_CLIENT, "644", Part::Consul, CLIENT),
    };
    let mut files: Vec<Wanted> = cluster.programs.consul.iter().cloned().collect();
    files.extend([
        part,
        Wanted::new(CONSUL_NODE, "644", Part::Consul, of_node(cluster, node)),
        Wanted { owner: "consul:consul", ..Wanted::new(CONSUL_GOSSIP, "600", Part::Consul, key) },
        Wanted::new(CONSUL_UNIT, "644", Part::Consul, UNIT),
    ]);
    files
}

/// The file of the part that an agent does not play. Consul reads its files in the order of their names, so that where
/// both are there the server's holds.
pub(crate) const fn not_its_own(server: bool) -> &'static str {
    if server { CONSUL_CLIENT } else { CONSUL_SERVER }
}

/// Writes the settings of one node's agent: its name, and the servers by which it finds the others.
fn of_node(cluster: &Cluster<'_>, node: &Node) -> String {
    let servers = cluster.document.servers();
    let is_server = cluster.document.is_server(&node.name);
    let others = servers.iter().filter(|server| server.name != node.name).map(|server| server.address);
    let acl = cluster.choice.acl;
    // Whoever reaches the HTTP port may write the keys, unless tokens say who may: only then the others may, who ask
    // servers only.
    let clients =
        if acl && is_server { format!("127.0.0.1 {}", node.address) } else { "127.0.0.1".to_owned() };
    let expect = if is_server { format!("bootstrap_expect = {}\n", servers.len()) } else { String::new() };
    let acl = if acl {
        "\nacl {\n  enabled                  = true\n  default_policy           = \"deny\"\n  \
         enable_token_persistence = true\n}\n"
    } else {
        ""
    };
    format!(
        "# Written by `zsha install`, which writes it anew: put settings of your own into a file beside it.\n\
         datacenter       = {}\nnode_name        = {}\ndata_dir         = {}\nbind_addr        = {}\n\
         client_addr      = {}\n{expect}retry_join       = {}\n{acl}",
        json!(DATACENTER),
        json!(node.name.as_str()),
        json!(CONSUL_DATA),
        json!(node.address),
        json!(clients),
        json!(others.collect::<Vec<_>>()),
    )
}
