//! What belongs on a node: every file of ours with its content, and what has to be started anew when it changes. The
//! texts are those of `manifests`, which says why they are as they are. Values in, values out.
//!
//! `consul` has the files of its agent, `settings` those of the controller.

mod consul;
mod settings;

use serde_yaml::Mapping;
use sha2::{Digest, Sha256};
use zsha_crds::document::Node;
use zsha_crds::{ClusterName, HaCluster, NodeName};

use super::ceph::{self, CephLogin};
pub(crate) use consul::not_its_own;
pub(crate) use settings::OWN_SETTINGS;

pub(crate) const ZSHA: &str = "/usr/bin/zsha";
pub(crate) const CONTROLLER: &str = "/usr/bin/zsha-controller";
pub(crate) const CONSUL: &str = "/usr/bin/consul";
/// The programs that run there; each says its version when it is given `--version`.
pub(crate) const PROGRAMS: [&str; 3] = [ZSHA, CONTROLLER, CONSUL];
pub(crate) const SETTINGS: &str = "/etc/zsha/controller.yaml";
/// The settings of QEMU's client, where the image is in Ceph.
const CEPH_CONFIG: &str = "/etc/zsha/ceph.conf";
pub(crate) const INSTALLED: &str = "/etc/zsha/installed.json";
pub(crate) const NODES: &str = "/etc/zsha/nodes";
pub(crate) const NODE_TOKEN: &str = "/etc/zsha/node.token";
/// The place where the command looks for a token by itself.
pub(crate) const OPERATOR_TOKEN: &str = "/etc/zsha/operator.token";
pub(crate) const MANAGEMENT_TOKEN: &str = "/etc/zsha/management.token";
pub(crate) const CONSUL_SERVER: &str = "/etc/consul.d/zsha-server.hcl";
pub(crate) const CONSUL_CLIENT: &str = "/etc/consul.d/zsha-client.hcl";
pub(crate) const CONSUL_NODE: &str = "/etc/consul.d/zsha-node.hcl";
pub(crate) const CONSUL_GOSSIP: &str = "/etc/consul.d/zsha-gossip.hcl";
/// The agent's own token; written where it is made.
pub(crate) const CONSUL_TOKEN: &str = "/etc/consul.d/zsha-token.hcl";
pub(crate) const CONSUL_DATA: &str = "/var/lib/consul";
pub(crate) const CONSUL_UNIT: &str = "/etc/systemd/system/consul.service";
const KEEPER_UNIT: &str = "/etc/systemd/system/zsha-keeper.service";
const CONTROLLER_UNIT: &str = "/etc/systemd/system/zsha-controller.service";
const HOST_UNIT: &str = "/etc/systemd/system/zsha-host.service";
const FIREWALL_UNIT: &str = "/etc/systemd/system/zsha-firewall.service";
const FIREWALL: &str = "/usr/lib/zsha/firewall";
const BASH: &str = "/usr/share/bash-completion/completions/zsha";
const ZSH: &str = "/usr/share/zsh/site-functions/_zsha";
const FISH: &str = "/usr/share/fish/vendor_completions.d/zsha.fish";

/// The TCP ports of a Consul of ours: its servers', the gossip of a site and of several, HTTP, DNS.
pub(crate) const CONSULS_PORTS: [u16; 5] = [8300, 8301, 8302, 8500, 8600];

/// The directory of zsha's own files.
pub(crate) const ETC: &str = "/etc/zsha";
const CONSUL_DUE: &str = "/etc/zsha/consul.due";
const ZSHA_DUE: &str = "/etc/zsha/zsha.due";
const FIREWALL_DUE: &str = "/etc/zsha/firewall.due";
const HOST_DUE: &str = "/etc/zsha/host.due";

/// Every file that an install can leave on a node; uninstall removes these and no others.
pub(crate) const FILES: [&str; 27] = [
    ZSHA,
    CONTROLLER,
    CONSUL,
    SETTINGS,
    CEPH_CONFIG,
    NODES,
    NODE_TOKEN,
    OPERATOR_TOKEN,
    MANAGEMENT_TOKEN,
    CONSUL_SERVER,
    CONSUL_CLIENT,
    CONSUL_NODE,
    CONSUL_GOSSIP,
    CONSUL_TOKEN,
    CONSUL_UNIT,
    KEEPER_UNIT,
    CONTROLLER_UNIT,
    HOST_UNIT,
    FIREWALL_UNIT,
    FIREWALL,
    BASH,
    ZSH,
    FISH,
    CONSUL_DUE,
    ZSHA_DUE,
    FIREWALL_DUE,
    HOST_DUE,
];

/// Those that are Consul's: they go only where Consul is ours.
pub(crate) const CONSULS_FILES: [&str; 7] =
    [CONSUL, CONSUL_SERVER, CONSUL_CLIENT, CONSUL_NODE, CONSUL_GOSSIP, CONSUL_TOKEN, CONSUL_UNIT];

pub(crate) const CONSUL_SERVICE: &str = "consul.service";
pub(crate) const FIREWALL_SERVICE: &str = "zsha-firewall.service";
/// Whose stop, when the host shuts down, makes the VM leave. Never started anew: nothing runs in it.
pub(crate) const HOST_SERVICE: &str = "zsha-host.service";
/// The keeper first: the controller waits for it.
pub(crate) const SERVICES: [&str; 2] = ["zsha-keeper.service", "zsha-controller.service"];
/// The service that starts guests by itself after a boot; only zsha may start the VM.
pub(crate) const LIBVIRT_GUESTS: &str = "libvirt-guests.service";
/// The services of zsha 2.5.1, which would start a VM of the same image.
pub(crate) const OLD_SERVICES: [&str; 2] = ["z.service", "zsha.service"];

pub(crate) const UNITS_ASKED: [&str; 8] = [
    CONSUL_SERVICE,
    FIREWALL_SERVICE,
    HOST_SERVICE,
    "zsha-keeper.service",
    "zsha-controller.service",
    LIBVIRT_GUESTS,
    "z.service",
    "zsha.service",
];

/// The directory of the logs, which is that of zsha 2.5.1.
pub(crate) const LOGS: &str = "/var/log/z";
/// The controller's, by its unit.
pub(crate) const STATE: &str = "/var/lib/zsha";

pub(crate) const DATACENTER: &str = "dc1";
const POLICIES: [(&str, &str); 3] = [
    ("zsha-viewer", include_str!("../../../manifests/consul/policies/viewer.hcl")),
    ("zsha-operator", include_str!("../../../manifests/consul/policies/operator.hcl")),
    ("zsha-node", include_str!("../../../manifests/consul/policies/node.hcl")),
];

/// Whose change needs what to be started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Consul,
    Zsha,
    Firewall,
    /// The unit that acts when the host shuts down.
    Host,
    /// Nothing runs by it.
    Aside,
}

impl Part {
    /// The mark that is on a node from before a file of this part is sent until what runs by it has been started anew,
    /// so that an install that was broken off between the two goes on from there.
    pub(crate) const fn due(self) -> Option<&'static str> {
        match self {
            Self::Consul => Some(CONSUL_DUE),
            Self::Zsha => Some(ZSHA_DUE),
            Self::Firewall => Some(FIREWALL_DUE),
            Self::Host => Some(HOST_DUE),
            Self::Aside => None,
        }
    }

    /// Lines of a script that say, until it is done, that what runs by this part has to be started anew.
    pub(crate) fn mark_due(self) -> String {
        let Some(due) = self.due() else { return String::new() };
        format!("[ -d {ETC} ] || install -d -m 755 {ETC}\n: >{due}\nsync {due}\n")
    }
}

/// A file as it has to be on a node.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) path: &'static str,
    pub(crate) mode: &'static str,
    pub(crate) owner: &'static str,
    pub(crate) part: Part,
    pub(crate) content: std::sync::Arc<Vec<u8>>,
    pub(crate) sha256: String,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.path, self.mode)
    }
}

impl Wanted {
    pub(crate) fn new(
        path: &'static str,
        mode: &'static str,
        part: Part,
        content: impl Into<Vec<u8>>,
    ) -> Self {
        let content = content.into();
        let sha256 = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { path, mode, owner: "root:root", part, content: std::sync::Arc::new(content), sha256 }
    }
}

/// The programs to send, read once.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) zsha: Wanted,
    pub(crate) controller: Wanted,
    /// None: the nodes have to have one.
    pub(crate) consul: Option<Wanted>,
    pub(crate) completions: Completions,
}

/// The scripts that complete the command line of `zsha`, one for each shell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Completions {
    pub(crate) bash: Vec<u8>,
    pub(crate) zsh: Vec<u8>,
    pub(crate) fish: Vec<u8>,
}

/// The choices by which one cluster's files differ from another's.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) acl: bool,
    /// Keys for every node's settings beside those that install itself writes.
    pub(crate) settings: Mapping,
}

/// The values that the files of all nodes are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cluster<'a> {
    pub(crate) document: &'a HaCluster,
    pub(crate) programs: &'a Programs,
    pub(crate) choice: &'a Choice,
    /// The key that the agents' gossip is encrypted with; none where Consul is somebody else's.
    pub(crate) gossip: Option<&'a str>,
}

impl Cluster<'_> {
    /// True if Consul's tokens are ours to make.
    fn has_tokens(&self) -> bool {
        self.gossip.is_some() && self.choice.acl
    }

    /// The other nodes, the one after this first.
    fn others(&self, node: &NodeName) -> impl Iterator<Item = &Node> {
        let nodes = self.document.nodes();
        nodes
            .iter()
            .cycle()
            .skip_while(move |other| other.name != *node)
            .skip(1)
            .take(nodes.len().saturating_sub(1))
    }
}

/// The files of one node. `there`: its settings as they are.
pub(crate) fn files(cluster: &Cluster<'_>, node: &Node, there: Option<&str>) -> Vec<Wanted> {
    let mut files = consul::files(cluster, node);
    files.extend(firewall(cluster.document, node));
    files.extend(of_zsha(cluster, node, there));
    let Completions { bash, zsh, fish } = cluster.programs.completions.clone();
    for (path, script) in [(BASH, bash), (ZSH, zsh), (FISH, fish)] {
        files.push(Wanted::new(path, "644", Part::Aside, script));
    }
    files
}

fn firewall(document: &HaCluster, node: &Node) -> [Wanted; 3] {
    let others = document.nodes().iter().filter(|other| other.name != node.name);
    let others: String = others.map(|other| format!("{}\n", other.address)).collect();
    let script = include_str!("../../../manifests/firewall/firewall.sh");
    let unit = include_str!("../../../manifests/firewall/zsha-firewall.service");
    [
        Wanted::new(NODES, "644", Part::Firewall, others),
        Wanted::new(FIREWALL, "755", Part::Firewall, script),
        Wanted::new(FIREWALL_UNIT, "644", Part::Firewall, unit),
    ]
}

fn of_zsha(cluster: &Cluster<'_>, node: &Node, there: Option<&str>) -> Vec<Wanted> {
    let mut files = vec![cluster.programs.zsha.clone(), cluster.programs.controller.clone()];
    if CephLogin::ours(cluster.document, &cluster.choice.settings, there).is_some() {
        files.push(Wanted::new(CEPH_CONFIG, "644", Part::Zsha, ceph::SETTINGS));
    }
    files.push(Wanted::new(SETTINGS, "644", Part::Zsha, settings::text(cluster, node, there)));
    let units = [
        (KEEPER_UNIT, Part::Zsha, include_str!("../../../manifests/systemd/zsha-keeper.service")),
        (CONTROLLER_UNIT, Part::Zsha, include_str!("../../../manifests/systemd/zsha-controller.service")),
        (HOST_UNIT, Part::Host, include_str!("../../../manifests/systemd/zsha-host.service")),
    ];
    files.extend(units.map(|(path, part, unit)| Wanted::new(path, "644", part, unit)));
    files
}

/// The three policies, for this cluster.
pub(crate) fn policies(cluster: &ClusterName) -> Vec<(&'static str, String)> {
    POLICIES
        .iter()
        .map(|(name, text)| (*name, text.replace("zsha/prod/", &format!("zsha/{cluster}/"))))
        .collect()
}

#[cfg(test)]
mod tests;
