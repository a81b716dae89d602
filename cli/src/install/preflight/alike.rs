//! Nodes held against each other: two that are one machine, and what would stop a live move or a start on one of them.

use std::collections::BTreeMap;

use zsha_crds::{HaCluster, NodeName};

use super::Objection;
use crate::install::facts::{Abilities, Facts};
use crate::install::layout::Choice;

/// The features of a CPU that are named where one lacks some.
const NAMED: usize = 6;

/// What follows from nodes that differ, or do not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    pub(crate) objections: Vec<Objection>,
    pub(crate) remarks: BTreeMap<NodeName, Vec<String>>,
}

impl Compared {
    fn remark(&mut self, node: &NodeName, what: String) {
        self.remarks.entry(node.clone()).or_default().push(what);
    }
}

/// Compares each node with those before it in the document.
pub(crate) fn compare(document: &HaCluster, choice: &Choice, facts: &BTreeMap<NodeName, Facts>) -> Compared {
    let known: Vec<(&NodeName, &Facts)> =
        document.nodes().iter().filter_map(|node| facts.get_key_value(&node.name)).collect();
    let emulates = choice.settings.get("domainType").and_then(|kind| kind.as_str()) == Some("qemu");
    let mut compared = Compared::default();
    if !emulates {
        kvm(&known, &mut compared);
    }
    for (at, (node, facts)) in known.iter().enumerate() {
        let before = &known[..at];
        identity(node, &facts.abilities, before, &mut compared);
        networks(node, &facts.abilities, before, &mut compared);
        versions(node, facts, before, &mut compared);
    }
    if !emulates {
        cpus(&known, &mut compared);
    }
    compared
}

fn is_same(one: Option<&String>, other: Option<&String>) -> bool {
    one.is_some() && one == other
}

/// Two addresses may lead to one host, and hosts are copied.
fn identity(node: &NodeName, own: &Abilities, before: &[(&NodeName, &Facts)], compared: &mut Compared) {
    let mut is_copy = false;
    for (other, facts) in before {
        let theirs = &facts.abilities;
        let same_id = is_same(own.machine_id.as_ref(), theirs.machine_id.as_ref());
        if same_id && is_same(own.boot_id.as_ref(), theirs.boot_id.as_ref()) {
            compared.objections.push(Objection {
                node: node.clone(),
                what: format!("it is the same machine as {other}: both addresses lead to one host"),
                hint: "give each node the address of a host of its own in `Node`".into(),
            });
            return;
        }
        // Of several copies one is named.
        if same_id && !std::mem::replace(&mut is_copy, true) {
            compared.remark(
                node,
                format!(
                    "it has the machine id of {other}: one is a copy of the other. `rm /etc/machine-id && \
                     systemd-machine-id-setup` there, and a boot, give it one of its own"
                ),
            );
        }
        if is_same(own.host_uuid.as_ref(), theirs.host_uuid.as_ref()) {
            compared.remark(
                node,
                format!(
                    "its libvirt has the host UUID of {other}'s, and takes both for one host: the VM cannot be moved live \
                     between them. `host_uuid_source = \"machine-id\"` in /etc/libvirt/libvirtd.conf there gives it another \
                     once libvirtd is restarted"
                ),
            );
        }
    }
}

/// A node that can only emulate the VM is a bad home for it beside others that need not.
fn kvm(known: &[(&NodeName, &Facts)], compared: &mut Compared) {
    let able = known.iter().find(|(_, facts)| facts.abilities.kvm == Some(Ok(())));
    for (node, facts) in known {
        let Some(Err(why)) = &facts.abilities.kvm else { continue };
        match able {
            Some((other, _)) => compared.objections.push(Objection {
                node: (*node).clone(),
                what: format!("KVM cannot be used there, as it can on {other}: {why}"),
                hint: "switch it on there. `domainType: qemu` in a file given with --settings has the VM emulated on every \
                       node instead, which is slow"
                    .into(),
            }),
            None => {
                compared.remark(node, format!("KVM cannot be used there, so the VM is emulated, which is slow: {why}"));
            }
        }
    }
}

fn networks(node: &NodeName, own: &Abilities, before: &[(&NodeName, &Facts)], compared: &mut Compared) {
    let Some((first, facts)) = before.first() else { return };
    for (bridge, mtu) in &own.mtus {
        if let Some(other) = facts.abilities.mtus.get(bridge).filter(|other| *other != mtu) {
            compared.remark(
                node,
                format!(
                    "{bridge} has an MTU of {mtu} there, and of {other} on {first}: a guest that was started on one loses \
                     large packets on the other"
                ),
            );
        }
    }
}

fn versions(node: &NodeName, own: &Facts, before: &[(&NodeName, &Facts)], compared: &mut Compared) {
    let Some((first, facts)) = before.first() else { return };
    for (what, own, other) in [("QEMU", &own.qemu, &facts.qemu), ("libvirt", &own.libvirt, &facts.libvirt)] {
        if let (Some(own), Some(other)) = (own, other)
            && own != other
        {
            compared.remark(
                node,
                format!("its {what} is {own}, and {first}'s is {other}: a live move to the older one may be refused"),
            );
        }
    }
}

/// A guest that was started with the features of one CPU cannot go on without them on another.
fn cpus(known: &[(&NodeName, &Facts)], compared: &mut Compared) {
    for (node, facts) in known {
        let Some(own) = &facts.abilities.cpu else { continue };
        let richer = known.iter().find_map(|(other, facts)| {
            let cpu = facts.abilities.cpu.as_ref()?;
            let lacking: Vec<&str> = cpu.flags.difference(&own.flags).map(String::as_str).collect();
            (!lacking.is_empty()).then_some((other, cpu, lacking))
        });
        let Some((other, cpu, lacking)) = richer else { continue };
        let more = match lacking.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        compared.remark(
            node,
            format!(
                "its CPU ({}) lacks {}{more} of {other}'s ({}): a VM that was started there may not be moved here live",
                own.model,
                lacking.iter().take(NAMED).copied().collect::<Vec<_>>().join(", "),
                cpu.model
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_yaml::Mapping;

    use super::*;
    use crate::install::testing::{bare, document};

    fn compared(change: impl FnOnce(&mut Facts, &mut Facts)) -> (Vec<String>, Vec<String>) {
        let document = document();
        let mut facts: Vec<_> =
            document.nodes().iter().map(|node| (node.name.clone(), bare(node.name.as_str()))).collect();
        let [first, second, ..] = &mut *facts else { panic!("the example has more nodes") };
        change(&mut first.1, &mut second.1);
        let choice = Choice { acl: true, settings: Mapping::new() };
        let Compared { objections, remarks } = compare(&document, &choice, &facts.into_iter().collect());
        let objections = objections.into_iter().map(|one| format!("{}: {}", one.node, one.what)).collect();
        let of = |(node, remarks): (NodeName, Vec<String>)| {
            remarks.into_iter().map(move |remark| format!("{node}: {remark}")).collect::<Vec<_>>()
        };
        (objections, remarks.into_iter().flat_map(of).collect())
    }

    #[test]
    fn nodes_that_are_alike_are_told_nothing() {
        assert_eq!(compared(|_, _| ()), (vec![], vec![]));
        // Nor is what was not said a likeness, or a difference.
        let silent = |facts: &mut Facts| facts.abilities = Abilities::default();
        assert_eq!(compared(|first, second| [first, second].into_iter().for_each(silent)), (vec![], vec![]));
    }

    #[test]
    fn two_addresses_of_one_machine_are_refused_and_a_copied_host_is_told() {
        let (objections, _) = compared(|first, second| second.abilities = first.abilities.clone());
        assert_eq!(objections, ["nfs-2: it is the same machine as nfs-1: both addresses lead to one host"]);
        let (objections, remarks) =
            compared(|first, second| second.abilities.machine_id.clone_from(&first.abilities.machine_id));
        assert_eq!((objections.len(), remarks.len()), (0, 1), "{remarks:?}");
        assert!(remarks[0].starts_with("nfs-2: it has the machine id of nfs-1"), "{remarks:?}");
        // Containers share the kernel, and so its boot.
        let (objections, remarks) =
            compared(|first, second| second.abilities.boot_id.clone_from(&first.abilities.boot_id));
        assert_eq!((objections.len(), remarks.len()), (0, 0));
    }

    #[test]
    fn one_host_uuid_on_two_hosts_is_told_with_the_way_to_another() {
        let (objections, remarks) =
            compared(|first, second| second.abilities.host_uuid.clone_from(&first.abilities.host_uuid));
        assert_eq!(objections.len(), 0);
        assert!(remarks[0].contains("cannot be moved live") && remarks[0].contains("host_uuid_source"));
    }

    #[test]
    fn a_node_without_kvm_beside_others_with_it_is_refused_and_where_none_has_it_that_is_told() {
        let off = || Some(Err("the firmware".to_owned()));
        let (objections, _) = compared(|_, second| second.abilities.kvm = off());
        assert_eq!(objections, ["nfs-2: KVM cannot be used there, as it can on nfs-1: the firmware"]);
        let document = document();
        let all_off = document.nodes().iter().map(|node| {
            let mut facts = bare(node.name.as_str());
            facts.abilities.kvm = off();
            (node.name.clone(), facts)
        });
        let all_off: BTreeMap<_, _> = all_off.collect();
        let told = |settings: Mapping| {
            let compared = compare(&document, &Choice { acl: true, settings }, &all_off);
            (compared.objections.len(), compared.remarks.len())
        };
        assert_eq!(told(Mapping::new()), (0, document.nodes().len()));
        let emulated = Mapping::from_iter([("domainType".into(), "qemu".into())]);
        assert_eq!(told(emulated), (0, 0), "it is asked for");
    }

    #[test]
    fn what_would_stop_a_live_move_is_told_before_it_is_needed() {
        let (objections, remarks) = compared(|first, second| {
            second.abilities.mtus.insert("br_zsn0".into(), 9000);
            second.qemu = Some("10.0.2".into());
            let cpu = first.abilities.cpu.as_mut().unwrap();
            cpu.flags.extend(["a1", "a2", "a3", "a4", "a5", "a6", "a7"].map(str::to_owned));
        });
        assert_eq!(objections.len(), 0);
        let of_second: Vec<_> = remarks.iter().filter(|remark| remark.starts_with("nfs-2")).collect();
        assert_eq!(of_second.len(), 3, "{remarks:?}");
        assert!(of_second[0].contains("br_zsn0 has an MTU of 9000 there, and of 1500 on nfs-1"));
        assert!(of_second[1].contains("its QEMU is 10.0.2, and nfs-1's is 7.2.19"));
        assert!(of_second[2].contains("lacks a1, a2, a3, a4, a5, a6 and 1 more of nfs-1's (Xeon)"));
    }
}
