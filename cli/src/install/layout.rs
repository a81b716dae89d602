//! What belongs on a node: every file of ours with its content, and what has to be started anew when it changes. The
//! texts are those of `manifests`, which says why they are as they are. Values in, values out.

use serde_json::json;
use serde_yaml::{Mapping, Value};
use sha2::{Digest, Sha256};
use zsha_crds::{ClusterName, HaCluster, NodeName};

use super::ceph::{self, CephLogin};

pub(crate) const ZSHA: &str = "/usr/bin/zsha";
pub(crate) const CONTROLLER: &str = "/usr/bin/zsha-controller";
pub(crate) const CONSUL: &str = "/usr/bin/consul";
/// What runs there; each says its version when it is given `--version`.
pub(crate) const PROGRAMS: [&str; 3] = [ZSHA, CONTROLLER, CONSUL];
pub(crate) const SETTINGS: &str = "/etc/zsha/controller.yaml";
/// Of QEMU's client, where the image is in Ceph.
const CEPH_CONFIG: &str = "/etc/zsha/ceph.conf";
pub(crate) const INSTALLED: &str = "/etc/zsha/installed.json";
pub(crate) const NODES: &str = "/etc/zsha/nodes";
pub(crate) const NODE_TOKEN: &str = "/etc/zsha/node.token";
/// Where the command looks for a token by itself.
pub(crate) const OPERATOR_TOKEN: &str = "/etc/zsha/operator.token";
pub(crate) const MANAGEMENT_TOKEN: &str = "/etc/zsha/management.token";
pub(crate) const CONSUL_SERVER: &str = "/etc/consul.d/zsha-server.hcl";
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

/// Where zsha's own files are.
pub(crate) const ETC: &str = "/etc/zsha";
const CONSUL_DUE: &str = "/etc/zsha/consul.due";
const ZSHA_DUE: &str = "/etc/zsha/zsha.due";
const FIREWALL_DUE: &str = "/etc/zsha/firewall.due";
const HOST_DUE: &str = "/etc/zsha/host.due";

/// Every file that an install can leave on a node; uninstall removes these and no others.
pub(crate) const FILES: [&str; 26] = [
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
pub(crate) const CONSULS_FILES: [&str; 6] =
    [CONSUL, CONSUL_SERVER, CONSUL_NODE, CONSUL_GOSSIP, CONSUL_TOKEN, CONSUL_UNIT];

pub(crate) const CONSUL_SERVICE: &str = "consul.service";
pub(crate) const FIREWALL_SERVICE: &str = "zsha-firewall.service";
/// Whose stop, when the host shuts down, makes the VM leave. Never started anew: nothing runs in it.
pub(crate) const HOST_SERVICE: &str = "zsha-host.service";
/// The keeper first: the controller waits for it.
pub(crate) const SERVICES: [&str; 2] = ["zsha-keeper.service", "zsha-controller.service"];
/// What starts guests by itself after a boot; only zsha may start the VM.
pub(crate) const LIBVIRT_GUESTS: &str = "libvirt-guests.service";
/// Of zsha 2.5.1, whose services would start a VM of the same image.
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

/// Where zsha 2.5.1 wrote them too.
pub(crate) const LOGS: &str = "/var/log/z";
/// The controller's, by its unit.
pub(crate) const STATE: &str = "/var/lib/zsha";

pub(crate) const DATACENTER: &str = "dc1";
const SERVER: &str = include_str!("../../../manifests/consul/server.hcl");
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
    /// What happens when the host shuts down.
    Host,
    /// Nothing runs by it.
    Aside,
}

impl Part {
    /// What is on a node from before a file of this part is sent until what runs by it has been started anew, so that an
    /// install that was broken off between the two goes on from there.
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

/// What makes one cluster's files differ from another's.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    pub(crate) acl: bool,
    /// Keys for every node's settings beside those that install itself writes.
    pub(crate) settings: Mapping,
}

/// For one node. `consul`: its agent is ours; `gossip`: the key that the agents share; `there`: its settings as they are.
pub(crate) fn files(
    document: &HaCluster,
    node: &NodeName,
    programs: &Programs,
    choice: &Choice,
    consul: bool,
    gossip: &str,
    there: Option<&str>,
) -> Vec<Wanted> {
    use Part::{Aside, Consul, Firewall, Host, Zsha};
    let mut files = Vec::new();
    if consul {
        files.extend(programs.consul.clone());
        files.push(Wanted::new(CONSUL_SERVER, "644", Consul, SERVER));
        files.push(Wanted::new(CONSUL_NODE, "644", Consul, consul_node(document, node, choice.acl)));
        let key = format!(
            "# The key that the agents' gossip is encrypted with: the same on every node.\nencrypt = \"{gossip}\"\n"
        );
        files.push(Wanted { owner: "consul:consul", ..Wanted::new(CONSUL_GOSSIP, "600", Consul, key) });
        files.push(Wanted::new(
            CONSUL_UNIT,
            "644",
            Consul,
            include_str!("../../../manifests/systemd/consul.service"),
        ));
    }
    let others: String = document
        .nodes()
        .iter()
        .filter(|other| other.name != *node)
        .map(|other| format!("{}\n", other.address))
        .collect();
    files.push(Wanted::new(NODES, "644", Firewall, others));
    files.push(Wanted::new(
        FIREWALL,
        "755",
        Firewall,
        include_str!("../../../manifests/firewall/firewall.sh"),
    ));
    files.push(Wanted::new(
        FIREWALL_UNIT,
        "644",
        Firewall,
        include_str!("../../../manifests/firewall/zsha-firewall.service"),
    ));
    files.push(programs.zsha.clone());
    files.push(programs.controller.clone());
    if CephLogin::ours(document, &choice.settings, there).is_some() {
        files.push(Wanted::new(CEPH_CONFIG, "644", Zsha, ceph::SETTINGS));
    }
    files.push(Wanted::new(SETTINGS, "644", Zsha, settings(document, node, choice, consul, there)));
    files.push(Wanted::new(
        KEEPER_UNIT,
        "644",
        Zsha,
        include_str!("../../../manifests/systemd/zsha-keeper.service"),
    ));
    let controller_unit = include_str!("../../../manifests/systemd/zsha-controller.service");
    files.push(Wanted::new(CONTROLLER_UNIT, "644", Zsha, controller_unit));
    files.push(Wanted::new(
        HOST_UNIT,
        "644",
        Host,
        include_str!("../../../manifests/systemd/zsha-host.service"),
    ));
    let Completions { bash, zsh, fish } = programs.completions.clone();
    for (path, script) in [(BASH, bash), (ZSH, zsh), (FISH, fish)] {
        files.push(Wanted::new(path, "644", Aside, script));
    }
    files
}

/// Who this node's agent is, and who the others are.
fn consul_node(document: &HaCluster, node: &NodeName, acl: bool) -> String {
    let own = document.node(node).map(|node| node.address.to_string()).unwrap_or_default();
    let others = document.nodes().iter().filter(|other| other.name != *node).map(|other| other.address);
    // Whoever reaches the HTTP port may write the keys, unless tokens say who may: only then the others may.
    let clients = if acl { format!("127.0.0.1 {own}") } else { "127.0.0.1".to_owned() };
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
        json!(node.as_str()),
        json!(CONSUL_DATA),
        json!(own),
        json!(clients),
        document.nodes().len(),
        json!(others.collect::<Vec<_>>()),
    )
}

/// The controller's settings: what somebody else has put there stays, and a file that says the same already is left as it
/// is, comments and all.
fn settings(
    document: &HaCluster,
    node: &NodeName,
    choice: &Choice,
    consul: bool,
    there: Option<&str>,
) -> String {
    let before: Option<Mapping> = there.and_then(|text| serde_yaml::from_str(text).ok());
    let mut all = before.clone().unwrap_or_default();
    all.extend(choice.settings.clone());
    let mut set = |key: &str, value: Value| all.insert(Value::from(key), value);
    set("cluster", document.name().as_str().into());
    set("node", node.as_str().into());
    let local = "http://127.0.0.1:8500".to_owned();
    // A second one, so that restarting the first costs nothing; reached with a token only.
    let next = document.nodes().iter().cycle().skip_while(|other| other.name != *node).nth(1);
    let second = next.filter(|_| consul && choice.acl).map(|other| format!("http://{}:8500", other.address));
    set("consul", std::iter::once(local).chain(second).map(Value::from).collect::<Vec<_>>().into());
    if consul && choice.acl {
        set("consulTokenFile", NODE_TOKEN.into());
    }
    if let Some(login) = CephLogin::ours(document, &choice.settings, there) {
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

/// Keys that install writes itself, and nobody else may give.
pub(crate) const OWN_SETTINGS: [&str; 4] = ["cluster", "node", "consul", "consulTokenFile"];

/// The three policies, for this cluster.
pub(crate) fn policies(cluster: &ClusterName) -> Vec<(&'static str, String)> {
    POLICIES
        .iter()
        .map(|(name, text)| (*name, text.replace("zsha/prod/", &format!("zsha/{cluster}/"))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::testing::{document, in_ceph, programs};

    fn choice(acl: bool) -> Choice {
        Choice { acl, settings: Mapping::new() }
    }

    fn text(files: &[Wanted], path: &str) -> String {
        let file = files.iter().find(|file| file.path == path).unwrap();
        String::from_utf8(file.content.to_vec()).unwrap()
    }

    fn of_first(acl: bool, there: Option<&str>) -> Vec<Wanted> {
        let document = document();
        files(&document, &document.nodes()[0].name, &programs(), &choice(acl), true, "KEY", there)
    }

    #[test]
    fn every_file_is_one_that_uninstall_knows() {
        for file in of_first(true, None) {
            assert!(FILES.contains(&file.path), "{}", file.path);
        }
    }

    #[test]
    fn consul_and_the_controller_are_told_who_they_are() {
        let files = of_first(true, None);
        insta::assert_snapshot!(text(&files, CONSUL_NODE));
        insta::assert_snapshot!(text(&files, SETTINGS));
    }

    #[test]
    fn in_ceph_a_node_is_told_its_login_and_qemus_client_not_to_wait_for_minutes() {
        let document = in_ceph();
        let of = |there| {
            files(&document, &document.nodes()[0].name, &programs(), &choice(true), true, "KEY", there)
        };
        let settings = text(&of(None), SETTINGS);
        let login = CephLogin::of(&document).unwrap();
        let lines = [
            format!("cephUser: {}\n", login.user),
            format!("cephSecret: {}\n", login.secret),
            format!("cephConfig: {CEPH_CONFIG}\n"),
        ];
        assert!(lines.iter().all(|line| settings.contains(line)), "{settings}");
        assert!(text(&of(None), CEPH_CONFIG).contains("client mount timeout = 10\n"));
        assert_eq!(text(&of(Some(&settings)), SETTINGS), settings);
        for file in of(None) {
            assert!(FILES.contains(&file.path), "{}", file.path);
        }
    }

    #[test]
    fn without_tokens_nobody_else_reaches_the_http_port() {
        let files = of_first(false, None);
        assert!(text(&files, CONSUL_NODE).contains("client_addr      = \"127.0.0.1\"\n"));
        assert!(!text(&files, CONSUL_NODE).contains("acl {"));
        assert!(!text(&files, SETTINGS).contains("192."), "{}", text(&files, SETTINGS));
    }

    #[test]
    fn what_somebody_has_set_stays_and_so_do_their_comments() {
        let written = text(&of_first(true, None), SETTINGS);
        let edited = format!("# ours\n{written}migrationUri: qemu+tcp://{{address}}/system\n");
        assert_eq!(text(&of_first(true, Some(&edited)), SETTINGS), edited);
        let wrong_node = edited.replace("node: nfs-1", "node: nfs-9");
        let mended = text(&of_first(true, Some(&wrong_node)), SETTINGS);
        assert!(mended.contains("node: nfs-1") && mended.contains("migrationUri"), "{mended}");
    }

    #[test]
    fn the_policies_are_the_shipped_ones_for_this_cluster() {
        let name = ClusterName::new("east").unwrap();
        for (policy, rules) in policies(&name) {
            assert!(!rules.contains("zsha/prod"), "{policy}: {rules}");
        }
        assert!(policies(&name)[2].1.contains("key_prefix \"zsha/east/leases/\""));
    }
}
