//! The settings of a node's keeper and controller: what install writes into them, and what it leaves as it is.

use serde_yaml::{Mapping, Value};
use zsha_crds::document::Node;

use super::super::ceph::{self, CephLogin};
use super::{CEPH_CONFIG, Cluster, LOGS, NODE_TOKEN};

/// Keys that install writes itself, and nobody else may give.
pub(crate) const OWN_SETTINGS: [&str; 4] = ["cluster", "node", "consul", "consulTokenFile"];

/// The file's text. What somebody else has put there stays, and a file that says the same already is left as it is,
/// comments and all.
pub(super) fn text(cluster: &Cluster<'_>, node: &Node, there: Option<&str>) -> String {
    let before: Option<Mapping> = there.and_then(|text| serde_yaml::from_str(text).ok());
    let mut all = before.clone().unwrap_or_default();
    all.extend(cluster.choice.settings.clone());
    let mut set = |key: &str, value: Value| all.insert(Value::from(key), value);
    set("cluster", cluster.document.name().as_str().into());
    set("node", node.name.as_str().into());
    set("consul", endpoints(cluster, node).into());
    if cluster.has_tokens() {
        set("consulTokenFile", NODE_TOKEN.into());
    }
    if let Some(login) = CephLogin::ours(cluster.document, &cluster.choice.settings, there) {
        all.insert(ceph::USER.into(), login.user.into());
        all.insert(ceph::SECRET.into(), login.secret.to_string().into());
        all.entry(ceph::CONFIG.into()).or_insert_with(|| CEPH_CONFIG.into());
    }
    all.entry("logDirectory".into()).or_insert_with(|| LOGS.into());
    match (there, before) {
        (Some(text), Some(before)) if before == all => text.to_owned(),
        _ => serde_yaml::to_string(&all).unwrap_or_default(),
    }
}

/// The agents to ask, the node's own first. Others are reached with a token only, and only servers are: a server is one
/// step nearer to the answer than another node's client. One of them makes that restarting the own agent costs nothing.
/// A client rests on some server itself, so it has two: that server may be the next one.
fn endpoints(cluster: &Cluster<'_>, node: &Node) -> Vec<Value> {
    let others = match (cluster.has_tokens(), cluster.document.is_server(&node.name)) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => 2,
    };
    let servers = cluster.others(&node.name).filter(|other| cluster.document.is_server(&other.name));
    let urls = servers.take(others).map(|other| format!("http://{}:8500", other.address));
    std::iter::once("http://127.0.0.1:8500".to_owned()).chain(urls).map(Value::from).collect()
}
