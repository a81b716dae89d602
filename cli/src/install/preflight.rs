//! Whether a node can become one of the cluster's, from what it says of itself. What stops it is an objection with a way
//! out; what should be looked at is a remark. Pure.
//!
//! `able` judges the host itself, `alike` the nodes against each other, `disk` the VM's disk, `rbd` the image in Ceph.

mod able;
mod alike;
mod disk;
mod rbd;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use zsha_crds::document::Node;
use zsha_crds::{HaCluster, NodeName};

use super::facts::{Answers, Facts, Firewall, Link};
use super::layout::Choice;
use super::peers::{Peer, WITH_TOKENS};
use super::plan::{Consul, consul_of, has_consul, peers};
pub(crate) use able::ports;
pub(crate) use alike::compare;
pub(crate) use disk::second_copies;
pub(crate) use rbd::ceph;

/// The room for two builds beside each other, and Consul's.
const FREE_USR_KIB: u64 = 512 << 10;
/// The room for Consul's data and the logs.
const FREE_VAR_KIB: u64 = 1 << 20;
const FREE_ETC_KIB: u64 = 1 << 10;
/// Leases count what passes and not what a clock shows, so that this is for those who read logs.
const CLOCKS_APART_SECS: i64 = 2;
/// Measured, 6 to 8 s: so long a client gets no answer where the server that it asks hangs, until its gossip has found that
/// out.
const ANOTHER_SERVER_MILLIS: u64 = 8_000;
/// The first release whose tokens can name a node's own agent.
const CONSUL_WITH_NODE_IDENTITIES: (u32, u32, u32) = (1, 8, 1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Objection {
    pub(crate) node: NodeName,
    pub(crate) what: String,
    pub(crate) hint: String,
}

/// The lines about one node, in the manual's words, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Checked {
    pub(crate) lines: Vec<String>,
    pub(crate) remarks: Vec<String>,
    pub(crate) objections: Vec<Objection>,
}

/// The cluster that is to be made of the nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) document: &'a HaCluster,
    pub(crate) choice: &'a Choice,
    /// A program of Consul's is sent where there is none.
    pub(crate) sends_consul: bool,
}

pub(crate) fn check(wish: &Wish<'_>, node: &Node, facts: &Facts) -> Checked {
    let document = wish.document;
    let mut checked = Checked::default();
    checked.lines.push(format!("check environment for {}", node.address));
    let lacks = host(facts).into_iter().chain(room(facts)).chain(another(document, node, facts));
    let lacks = lacks.chain(consul(wish, facts)).chain(rests_on_one_server(wish, node, facts));
    let lacks: Vec<Wrong> = lacks
        .chain(able::size(document, facts, &mut checked))
        .chain(able::taken(wish, facts, &mut checked))
        .chain(facts.abilities.barriers.iter().map(able::barrier))
        .collect();
    let objection = |(what, hint)| Objection { node: node.name.clone(), what, hint };
    checked.objections.extend(lacks.into_iter().map(objection));
    checked.lines.extend(versions(facts));
    disk::domain(document, node, facts, &mut checked);
    checked.objections.extend(second_copies(document, node, facts));
    disk::image(wish, node, facts, &mut checked);
    bridges(node, facts, &mut checked);
    checked.remarks.extend(remarks(node, facts));
    checked
}

/// Something that is wrong, and a way out.
type Wrong = (String, String);

fn host(facts: &Facts) -> Vec<Wrong> {
    let mut wrong = Vec::new();
    if facts.machine != std::env::consts::ARCH {
        let what = format!("it is a {}, and this build is for {}", facts.machine, std::env::consts::ARCH);
        wrong.push((what, "install with a build for it".into()));
    }
    if facts.systemd == 0 {
        wrong.push(("systemd does not run there".into(), "zsha's services are units of systemd".into()));
    }
    if facts.libvirt.is_none() {
        let hint = "install libvirt-daemon-system (Debian) or libvirt-daemon-kvm";
        wrong.push(("libvirt is not installed there".into(), hint.into()));
    }
    if facts.qemu.is_none() {
        wrong.push((
            "QEMU is not installed there".into(),
            "install qemu-system-x86 (Debian) or qemu-kvm".into(),
        ));
    }
    wrong
}

fn room(facts: &Facts) -> Vec<Wrong> {
    let least = [("/usr", FREE_USR_KIB), ("/var", FREE_VAR_KIB), ("/etc", FREE_ETC_KIB)];
    let wrong = |(at, least): (&str, u64)| match facts.free.get(at) {
        Some(free) if *free >= least => None,
        Some(free) => Some((
            format!("{at} has {} MiB left, and {} MiB are needed", free >> 10, least >> 10),
            "make room there".into(),
        )),
        None => Some((format!("how much room {at} has is not known"), "look at `df` there".into())),
    };
    least.into_iter().filter_map(wrong).collect()
}

/// A host is one node of one cluster.
fn another(document: &HaCluster, node: &Node, facts: &Facts) -> Option<Wrong> {
    let installed = facts.installed.as_ref()?;
    let (cluster, name) = (document.name().as_str(), node.name.as_str());
    (installed.cluster != cluster || installed.node != name).then(|| {
        let what = format!("it is node {} of cluster {} already", installed.node, installed.cluster);
        (what, "one host is one node: `zsha uninstall` there first, or mend the document".into())
    })
}

fn consul(wish: &Wish<'_>, facts: &Facts) -> Option<Wrong> {
    match (consul_of(facts), &facts.consul) {
        (Consul::Ours, _) if !has_consul(facts) && !wish.sends_consul => Some((
            "Consul is not installed there".into(),
            "name a program to send: --consul-program FILE; or install the package consul there".into(),
        )),
        (Consul::Theirs, _) => answering(facts),
        (Consul::Ours, Some(consul))
            if wish.choice.acl
                && has_consul(facts)
                && is_older(&consul.version, CONSUL_WITH_NODE_IDENTITIES) =>
        {
            let what = format!("its Consul is {}, and tokens for nodes need 1.8.1", consul.version);
            Some((what, "install a newer one there, or go without tokens: --no-acl".into()))
        }
        _ => None,
    }
}

/// A client rests on one server at a time. Where that hangs, a lease that is renewed by the client alone is over before it
/// has found another.
fn rests_on_one_server(wish: &Wish<'_>, node: &Node, facts: &Facts) -> Option<Wrong> {
    let ours = consul_of(facts) == Consul::Ours;
    if ours && wish.choice.acl || wish.document.is_server(&node.name) {
        return None;
    }
    let timings = wish.document.timings();
    let request_millis = u64::try_from(timings.request_timeout().as_millis()).unwrap_or(u64::MAX);
    let least = ANOTHER_SERVER_MILLIS + timings.renew_millis + 2 * request_millis;
    (timings.ttl_millis < least).then(|| {
        let what = format!(
            "by the document it has no server of Consul's, and it asks its own agent alone, so a server that hangs ends its \
             lease: that holds {} s, and the agent has found another server, and the lease is renewed, after {} s",
            timings.ttl_millis / 1000,
            least.div_ceil(1000)
        );
        let hint = match ours {
            true => {
                "install with tokens (without --no-acl), name it in `Servers`, or have a longer lease: the profile `Patient`, or \
                 `TtlSeconds`"
            }
            false => "name it in `Servers` if it has a server, or have a longer lease: the profile `Patient`, or `TtlSeconds`",
        };
        (what, hint.into())
    })
}

/// A Consul of somebody else's has to be where the controller is going to ask.
fn answering(facts: &Facts) -> Option<Wrong> {
    let what = match facts.consul_answers? {
        Answers::Consul => return None,
        Answers::Other => "what answers at http://127.0.0.1:8500 is no Consul",
        Answers::Nothing => "nothing answers at http://127.0.0.1:8500",
    };
    Some((
        format!(
            "a Consul that is not zsha's runs there, or is to be started with the host, and {what}, where the controller asks"
        ),
        "let its HTTP listen there; or stop and disable it, and zsha brings one of its own".into(),
    ))
}

/// Names the versions of what is there, for whoever reads the log of an installation later.
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
            Link::OpenVSwitch => (
                format!("{bridge} is a bridge of Open vSwitch, and zsha puts the VM on Linux's bridges"),
                "make a Linux bridge, and a port of Open vSwitch's in it (a veth pair), and name that in the document",
            ),
            Link::Missing => {
                (format!("there is no bridge {bridge}"), "make it, or mend `Bridge` in the document")
            }
        };
        checked.objections.push(Objection { node: node.name.clone(), what, hint: hint.into() });
    }
}

fn remarks(node: &Node, facts: &Facts) -> Vec<String> {
    let mut remarks = Vec::new();
    if facts.hostname != node.name.as_str() && !facts.hostname.starts_with(&format!("{}.", node.name)) {
        remarks.push(format!("it calls itself {}, and the document calls it {}", facts.hostname, node.name));
    }
    remarks.extend(facts.asked.as_ref().and_then(|asked| clocks_apart(facts.now, asked)));
    if facts.synchronized != Some(true) {
        remarks.push("nothing is known to keep its clock: the times in its logs will drift (chrony, maxslewrate 10000)".into());
    }
    remarks
}

/// Says how far a node's clock is from the one here at the least, where that is more than people would overlook.
fn clocks_apart(now: i64, asked: &RangeInclusive<i64>) -> Option<String> {
    let (behind, ahead) = (asked.start() - now, now - asked.end());
    let (seconds, how) = if behind > ahead { (behind, "behind") } else { (ahead, "ahead of") };
    (seconds > CLOCKS_APART_SECS).then(|| format!("its clock is {seconds} s {how} this one's"))
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

/// Servers that vote in Consul and that the document has no node for: a node that was taken out of the document, above
/// all. Install would shut them out by the firewall while they are a part of the quorum.
pub(crate) fn strange_servers(document: &HaCluster, facts: &BTreeMap<NodeName, Facts>) -> Vec<Objection> {
    let is_node = |host: &str| document.nodes().iter().any(|node| node.address.to_string() == host);
    let Some((by, peers)) = peers(document, facts) else { return Vec::new() };
    let strange = peers.iter().filter(|peer| peer.votes && !is_node(&peer.host));
    let objection = |peer: &Peer| Objection {
        node: by.clone(),
        what: format!("{} votes in Consul, and the document has no node of that address", peer.host),
        hint: format!(
            "if it is to stay, name it in `Node`; if not, take such servers away one at a time, while the others are up: stop \
             Consul there, then type here `consul {}` ({WITH_TOKENS})",
            peer.removal()
        ),
    };
    strange.map(objection).collect()
}

/// Compares versions. One that cannot be read counts as older.
fn is_older(version: &str, than: (u32, u32, u32)) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    match (next(), next(), next()) {
        (Some(major), Some(minor), patch) => (major, minor, patch.unwrap_or(0)) < than,
        _ => true,
    }
}

#[cfg(test)]
mod tests;
