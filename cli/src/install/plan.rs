//! What is to be done on which node and in what order: facts, the document and the options in, steps out. It asks and
//! does nothing. What is right already has no step, so that a second plan after a first that was carried out is empty.

use std::collections::BTreeMap;

use zsha_crds::document::Node;
use zsha_crds::{HaCluster, NodeName};

use super::ceph::CephLogin;
use super::facts::{Answers, Facts, Installed, UnitFact};
use super::layout::{self, Choice, Cluster, Part, Programs, Wanted};
use super::peers::Peer;

/// Everything the plan rests on.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) document: &'a HaCluster,
    pub(crate) facts: &'a BTreeMap<NodeName, Facts>,
    pub(crate) programs: &'a Programs,
    pub(crate) choice: &'a Choice,
    pub(crate) gossip: &'a str,
    /// The node where the VM is. It comes last.
    pub(crate) owner: Option<&'a NodeName>,
    /// A document is in force, so that a node that was started anew can be seen to be healthy.
    pub(crate) in_force: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Stops the services of zsha 2.5.1, which would start the same VM.
    StopOld(Vec<&'static str>),
    /// Writes down what is ours on the node, before anything of ours is made there.
    Record(Installed),
    MakeConsulUser,
    Send(Wanted),
    /// Removes a file of a part that the node does not play any more.
    Remove(&'static str, Part),
    OpenFirewall,
    /// Consul keeps its quorum while this server is down.
    SeeSpare,
    /// Removes the servers' log that a node has from when it was a server: it is of long ago.
    ForgetLog,
    StartConsul {
        anew: bool,
    },
    /// A node that is no server any more is counted as none.
    LeavePeers,
    /// The node's own and its operators'.
    MakeTokens,
    CopyManagementToken,
    /// libvirt's, of the cluster's user in Ceph.
    HoldCephKey,
    MaskLibvirtGuests,
    StartZsha {
        anew: bool,
    },
    WatchShutdown,
    /// The lease renewed and the controller alive, before the next node is begun.
    SeeHealthy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnNode {
    pub(crate) node: Node,
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Consul on every node first: it needs most of them to have a leader.
    pub(crate) consul: Vec<OnNode>,
    /// No node has a management token yet.
    pub(crate) bootstrap_acl: bool,
    /// The node that is to make the cluster's user in Ceph, or give the one there is what it needs; none where the image is
    /// not in Ceph, or every node has its key.
    pub(crate) ceph: Option<Node>,
    /// Then zsha, one node after the other.
    pub(crate) zsha: Vec<OnNode>,
}

impl Plan {
    pub(crate) fn is_empty(&self) -> bool {
        !self.bootstrap_acl
            && self.ceph.is_none()
            && self.consul.iter().chain(&self.zsha).all(|on| on.steps.is_empty())
    }
}

/// Whose Consul a node has, or is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consul {
    Ours,
    /// Somebody else's: its settings are left alone.
    Theirs,
}

pub(crate) fn consul_of(facts: &Facts) -> Consul {
    let ours = facts.installed.as_ref().is_some_and(|installed| installed.consul);
    let answers = facts.consul_answers == Some(Answers::Consul);
    // A package brings a unit that is neither started nor enabled, and is nobody's.
    let has_unit = facts.units.get(layout::CONSUL_SERVICE).is_some_and(UnitFact::is_in_use);
    let there = answers || facts.consul_runs || has_unit;
    if there && !ours && !is_replaced(facts) { Consul::Theirs } else { Consul::Ours }
}

/// True if zsha 2.5.1 is there, whose Consul is stopped with it.
pub(crate) fn is_replaced(facts: &Facts) -> bool {
    !old_services(facts).is_empty()
}

fn old_services(facts: &Facts) -> Vec<&'static str> {
    let is_there = |unit: &&&str| facts.units.get(**unit).is_some_and(|fact| fact.exists());
    layout::OLD_SERVICES.iter().filter(is_there).copied().collect()
}

pub(crate) fn plan(given: &Given<'_>) -> Plan {
    let nodes = in_order(given.document, given.owner);
    let known: Vec<(&Node, &Facts)> =
        nodes.iter().filter_map(|node| Some((*node, given.facts.get(&node.name)?))).collect();
    let ours = known.iter().all(|(_, facts)| consul_of(facts) == Consul::Ours);
    let acl = ours && given.choice.acl;
    let ceph = ceph_admin(given.document, given.facts).filter(|admin| {
        let of_admin = given.facts.get(&admin.name).and_then(|facts| facts.ceph.as_ref());
        let caps = of_admin.is_none_or(|ceph| ceph.caps_fit);
        known.iter().any(|(_, facts)| {
            ceph_login(given.document, given.choice, facts).is_some()
                && (!caps || lacks_ceph_key(given.document, given.choice, given.facts, facts))
        })
    });
    Plan {
        ceph: ceph.cloned(),
        consul: agents_in_order(given, &known)
            .iter()
            .map(|(node, facts)| on_node(node, consul_steps(given, node, facts, ours)))
            .collect(),
        bootstrap_acl: acl && !known.iter().any(|(_, facts)| has_management_token(facts)),
        zsha: known
            .iter()
            .map(|(node, facts)| on_node(node, zsha_steps(given, node, facts, ours, acl)))
            .collect(),
    }
}

/// The first that can administer Ceph.
pub(crate) fn ceph_admin<'a>(document: &'a HaCluster, facts: &BTreeMap<NodeName, Facts>) -> Option<&'a Node> {
    let is_admin = |node: &&Node| {
        let ceph = facts.get(&node.name).and_then(|facts| facts.ceph.as_ref());
        ceph.is_some_and(|ceph| ceph.no_admin.is_none())
    };
    document.nodes().iter().find(is_admin)
}

/// Makes the login of a node to Ceph, where install makes it.
pub(crate) fn ceph_login(document: &HaCluster, choice: &Choice, facts: &Facts) -> Option<CephLogin> {
    CephLogin::ours(document, &choice.settings, facts.settings.as_deref())
}

/// True if libvirt there holds no key of the cluster's user, or is seen to hold another than that user has.
pub(crate) fn lacks_ceph_key(
    document: &HaCluster,
    choice: &Choice,
    all: &BTreeMap<NodeName, Facts>,
    facts: &Facts,
) -> bool {
    if ceph_login(document, choice, facts).is_none() {
        return false;
    }
    let (admin, held) = (ceph_admin(document, all), facts.ceph.as_ref().and_then(|ceph| ceph.held.as_ref()));
    let Some(held) = held else { return true };
    let Some(admin) = admin else { return false };
    let key = all.get(&admin.name).and_then(|facts| facts.ceph.as_ref()?.key.as_ref());
    // An administrator who sees no such user sees that it has to be made anew.
    key != Some(held)
}

fn on_node(node: &Node, steps: Vec<Step>) -> OnNode {
    OnNode { node: node.clone(), steps }
}

/// The owner of the VM last: until then the others have shown that the new build runs.
fn in_order<'a>(document: &'a HaCluster, owner: Option<&NodeName>) -> Vec<&'a Node> {
    let is_owner = |node: &&Node| Some(&node.name) == owner;
    let others = document.nodes().iter().filter(|node| !is_owner(node));
    others.chain(document.nodes().iter().filter(is_owner)).collect()
}

/// Servers before clients, which need them: so one that joins votes before another leaves. An agent that is down comes
/// before any that runs is started anew.
fn agents_in_order<'a>(given: &Given<'_>, known: &[(&'a Node, &'a Facts)]) -> Vec<(&'a Node, &'a Facts)> {
    let mut agents = known.to_vec();
    agents.sort_by_key(|(node, facts)| {
        (!given.document.is_server(&node.name), is_active(facts, layout::CONSUL_SERVICE))
    });
    agents
}

/// Consul's servers, as the first agent of ours knows them that does, and the node of that agent; none where no one does.
pub(crate) fn peers<'a>(
    document: &'a HaCluster,
    facts: &'a BTreeMap<NodeName, Facts>,
) -> Option<(&'a NodeName, &'a [Peer])> {
    let of = |node: &'a Node| {
        let facts = facts.get(&node.name)?;
        facts.installed.as_ref().filter(|installed| installed.consul)?;
        Some((&node.name, facts.peers.as_deref()?))
    };
    document.nodes().iter().find_map(of)
}

fn consul_steps(given: &Given<'_>, node: &Node, facts: &Facts, ours: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let old = old_services(facts);
    if !old.is_empty() {
        steps.push(Step::StopOld(old));
    }
    let installed = record(given, node, facts, ours);
    if facts.installed.as_ref() != Some(&installed) {
        steps.push(Step::Record(installed));
    }
    let changed = changed(given, node, facts, ours);
    let firewall = send(&mut steps, facts, &changed, Part::Firewall);
    if firewall || !is_active(facts, layout::FIREWALL_SERVICE) {
        steps.push(Step::OpenFirewall);
    }
    if ours {
        if !facts.consul_user {
            steps.push(Step::MakeConsulUser);
        }
        agent_steps(&mut steps, given, (node, facts), &changed);
    }
    steps
}

/// A server is only started anew where the others are a quorum without it; until that is seen its files go on to make it
/// one, whatever starts it. One that becomes a client is taken from the servers once it is one: while it ran as a server,
/// Consul would count it again.
fn agent_steps(steps: &mut Vec<Step>, given: &Given<'_>, (node, facts): (&Node, &Facts), changed: &[Wanted]) {
    let serves = given.document.is_server(&node.name);
    let mut anew = send(steps, facts, changed, Part::Consul);
    let stale = layout::not_its_own(serves);
    let has_stale = facts.files.contains_key(stale);
    anew |= has_stale;
    let counts = counts(given, node, facts);
    let leaves = !serves && (has_stale || counts != Counts::No);
    let runs = is_active(facts, layout::CONSUL_SERVICE);
    if anew && runs && (leaves || counts != Counts::No) {
        steps.push(Step::SeeSpare);
    }
    // The log of one that may be counted is the one that it has voted by.
    if serves && has_stale && counts == Counts::No {
        steps.push(Step::ForgetLog);
    }
    if has_stale {
        steps.push(Step::Remove(stale, Part::Consul));
    }
    if anew || !runs {
        steps.push(Step::StartConsul { anew: runs });
    }
    if leaves {
        steps.push(Step::LeavePeers);
    }
}

/// The answer to whether Consul counts a node as a server, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Yes,
    No,
    /// No agent says whom it counts, and this one has been one of ours before.
    Unknown,
}

fn counts(given: &Given<'_>, node: &Node, facts: &Facts) -> Counts {
    let host = node.address.to_string();
    match peers(given.document, given.facts) {
        Some((_, all)) if all.iter().any(|peer| peer.host == host) => Counts::Yes,
        Some(_) => Counts::No,
        // Before there are tokens nobody may ask, and nothing rests on Consul yet.
        None if given.choice.acl && !given.facts.values().any(has_management_token) => Counts::No,
        None if facts.installed.as_ref().is_some_and(|installed| installed.consul) => Counts::Unknown,
        None => Counts::No,
    }
}

fn has_management_token(facts: &Facts) -> bool {
    facts.files.contains_key(layout::MANAGEMENT_TOKEN)
}

fn zsha_steps(given: &Given<'_>, node: &Node, facts: &Facts, ours: bool, acl: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let changed = changed(given, node, facts, ours);
    let mut anew = send(&mut steps, facts, &changed, Part::Zsha);
    if acl && !has_management_token(facts) {
        steps.push(Step::CopyManagementToken);
    }
    let tokens = [layout::NODE_TOKEN, layout::OPERATOR_TOKEN, layout::CONSUL_TOKEN];
    if acl && !tokens.iter().all(|token| facts.files.contains_key(*token)) {
        steps.push(Step::MakeTokens);
        anew = true;
    }
    if lacks_ceph_key(given.document, given.choice, given.facts, facts) {
        steps.push(Step::HoldCephKey);
    }
    if facts.units.get(layout::LIBVIRT_GUESTS).is_some_and(|unit| unit.load != "masked" && unit.exists()) {
        steps.push(Step::MaskLibvirtGuests);
    }
    let watches = send(&mut steps, facts, &changed, Part::Host);
    send(&mut steps, facts, &changed, Part::Aside);
    let runs = layout::SERVICES.iter().all(|unit| is_active(facts, unit));
    if anew || !runs {
        steps.push(Step::StartZsha { anew: runs });
        if given.in_force {
            steps.push(Step::SeeHealthy);
        }
    }
    if watches || !is_active(facts, layout::HOST_SERVICE) {
        steps.push(Step::WatchShutdown);
    }
    steps
}

fn is_active(facts: &Facts, unit: &str) -> bool {
    facts.units.get(unit).is_some_and(|unit| unit.is_active() && unit.enabled == "enabled")
}

fn changed(given: &Given<'_>, node: &Node, facts: &Facts, ours: bool) -> Vec<Wanted> {
    let Given { document, programs, choice, .. } = *given;
    let cluster = Cluster { document, programs, choice, gossip: ours.then_some(given.gossip) };
    let mut files = layout::files(&cluster, node, facts.settings.as_deref());
    // A program of Consul's that somebody else has put there is used and not replaced.
    let sends_consul = record(given, node, facts, ours).consul_program;
    files.retain(|file| {
        let is = facts.files.get(file.path);
        let same = is.is_some_and(|is| is.sha256 == file.sha256 && is.mode == file.mode);
        !same && (file.path != layout::CONSUL || sends_consul)
    });
    files
}

/// Adds the files of this part that are to be sent. Returns true if what runs by them has to be started anew.
fn send(steps: &mut Vec<Step>, facts: &Facts, changed: &[Wanted], part: Part) -> bool {
    let before = steps.len();
    steps.extend(changed.iter().filter(|file| file.part == part).cloned().map(Step::Send));
    steps.len() > before || part.due().is_some_and(|due| facts.files.contains_key(due))
}

/// True if Consul's program is where the unit looks for it.
pub(crate) fn has_consul(facts: &Facts) -> bool {
    facts.consul.as_ref().is_some_and(|consul| consul.path == layout::CONSUL)
}

/// Makes the list of what is ours on a node. What was made there before stays ours.
fn record(given: &Given<'_>, node: &Node, facts: &Facts, ours: bool) -> Installed {
    let before = facts.installed.as_ref();
    let made = |of: fn(&Installed) -> bool| before.is_some_and(of);
    Installed {
        cluster: given.document.name().to_string(),
        node: node.name.to_string(),
        consul: ours,
        consul_program: ours
            && (made(|is| is.consul_program) || (given.programs.consul.is_some() && !has_consul(facts))),
        consul_user: ours && (made(|is| is.consul_user) || !facts.consul_user),
        acl: ours && given.choice.acl,
        ceph: made(|is| is.ceph) || ceph_login(given.document, given.choice, facts).is_some(),
        masked_libvirt_guests: made(|is| is.masked_libvirt_guests)
            || facts
                .units
                .get(layout::LIBVIRT_GUESTS)
                .is_some_and(|unit| unit.exists() && unit.load != "masked"),
    }
}

#[cfg(test)]
mod tests;
