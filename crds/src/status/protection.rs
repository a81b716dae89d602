//! Says whether the VM survives one more failure: another node could take it over, and the store would keep its quorum.

use super::ClusterView;
use super::nodes::{LeaseWord, NodeSummary, Role};
use super::vm::{VmSummary, Wanted};
use crate::ConditionStatus;

pub(super) struct Protection {
    /// Unknown where it cannot be told; only True protects.
    pub(super) status: ConditionStatus,
    pub(super) reason: &'static str,
    pub(super) sentence: String,
}

pub(super) fn judge(view: &ClusterView, vm: &VmSummary, nodes: &[NodeSummary]) -> Protection {
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
    let alive = members.iter().filter(|node| node.alive()).count();
    let majority = members.len() / 2 + 1;
    if alive <= majority {
        let down = names(members.iter().copied().filter(|node| !node.alive()));
        let verb = if members.len() - alive == 1 { "is" } else { "are" };
        let sentence = format!(
            "cannot survive one more failure: {down} {verb} not up, and if one more node fails, Consul loses its quorum"
        );
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
