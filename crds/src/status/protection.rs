//! Says whether the VM survives one more failure: another node could take it over, and the store would keep its quorum.

use super::Facts;
use super::nodes::{LeaseWord, NodeSummary, Role};
use super::vm::{VmSummary, Wanted};
use crate::ConditionStatus;

pub(super) struct Protection {
    /// Unknown where it cannot be told; only True protects.
    pub(super) status: ConditionStatus,
    pub(super) reason: &'static str,
    pub(super) sentence: String,
}

pub(super) fn judge(facts: &Facts<'_>, vm: &VmSummary, nodes: &[NodeSummary]) -> Protection {
    let view = facts.view;
    if !view.data_age.is_current() {
        let sentence =
            "not known: no quorum of the store answers, and without one nothing fails over".to_owned();
        return Protection { status: ConditionStatus::Unknown, reason: "NoQuorum", sentence };
    }
    let members: Vec<&NodeSummary> = nodes.iter().filter(|node| node.role != Role::Removed).collect();
    if members.is_empty() {
        return no("NoDocument", "cannot survive a failure: the nodes are not known".to_owned());
    }
    if vm.wanted == Wanted::Stopped {
        return no("Stopped", "nothing to protect: the VM was stopped by an operator".to_owned());
    }
    if let Some(asked) = view.frozen() {
        let why = if asked.message.is_empty() { String::new() } else { format!(" ({})", asked.message) };
        let sentence = format!(
            "not protected since {}: frozen by {}{why}; nothing is started, stopped or moved until `zsha resume`",
            asked.since(),
            asked.by
        );
        return no("Frozen", sentence);
    }
    let standbys: Vec<&NodeSummary> =
        members.iter().copied().filter(|node| node.ready && node.role != Role::Owner).collect();
    let owner = members.iter().copied().find(|node| node.role == Role::Owner);
    match owner {
        // Without an owner the first fit node is still to become it.
        None if standbys.len() < 2 => return no("TooFewFit", too_few(&standbys, None)),
        Some(owner) if standbys.is_empty() => return no("TooFewFit", too_few(&standbys, Some(owner))),
        None | Some(_) => {}
    }
    if let Some(sentence) = no_quorum_to_spare(facts, &members) {
        return no("NoQuorumToSpare", sentence);
    }
    let sentence = match owner {
        Some(owner) => {
            format!("survives one more failure: {} can take over from {}", names(standbys), owner.name)
        }
        None => format!("survives one more failure: {} are fit", names(standbys)),
    };
    Protection { status: ConditionStatus::True, reason: "CanFailOver", sentence }
}

/// A majority of Consul's servers is its quorum. A node whose agent is a client has no part in it. Without a document every
/// node may be a server.
fn no_quorum_to_spare(facts: &Facts<'_>, members: &[&NodeSummary]) -> Option<String> {
    let is_server = |node: &NodeSummary| facts.document.as_ref().map_or(true, |it| it.is_server(&node.name));
    let servers: Vec<&NodeSummary> = members.iter().copied().filter(|node| is_server(node)).collect();
    let down: Vec<&NodeSummary> = servers.iter().copied().filter(|node| !node.alive()).collect();
    let majority = servers.len() / 2 + 1;
    if servers.len() - down.len() > majority {
        return None;
    }
    let verb = if down.len() == 1 { "is" } else { "are" };
    let of = if servers.len() == members.len() { "node" } else { "of Consul's servers" };
    Some(format!(
        "cannot survive one more failure: {} {verb} not up, and if one more {of} fails, Consul loses its quorum",
        names(down)
    ))
}

fn too_few(standbys: &[&NodeSummary], owner: Option<&NodeSummary>) -> String {
    let fit = owner.into_iter().filter(|owner| owner.ready).chain(standbys.iter().copied());
    match names(fit) {
        fit if fit.is_empty() => match owner.filter(|owner| owner.lease == LeaseWord::Held) {
            Some(owner) => {
                format!("cannot survive one more failure: no node but {} could run it", owner.name)
            }
            None => "cannot survive a failure: no node is fit".to_owned(),
        },
        fit => format!("cannot survive one more failure: only {fit} is fit"),
    }
}

fn no(reason: &'static str, sentence: String) -> Protection {
    Protection { status: ConditionStatus::False, reason, sentence }
}

/// `a`, `a and b`, `a, b and c`.
fn names<'a>(nodes: impl IntoIterator<Item = &'a NodeSummary>) -> String {
    let names: Vec<&str> = nodes.into_iter().map(|node| node.name.as_str()).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}
