//! A status under the headings that zsha 2.5.1 printed, so that whoever knows its manual finds every line, and the
//! tables with what it did not tell below them.

use std::net::Ipv4Addr;

use zsha_crds::ConditionStatus;
use zsha_crds::status::{ClusterStatus, GuestAddress, NodeSummary};
use zsha_crds::tone::Tone;
use zsha_runtime::store::consul::{Member, MemberStatus};

use super::table;
use crate::output::escape::plain;
use crate::output::table::{Table, cell, paint, toned};

pub(super) fn render(
    status: &ClusterStatus,
    members: &Result<Vec<Member>, String>,
    wide: bool,
    colour: bool,
) -> String {
    let of = |kind: fn(&GuestAddress) -> bool| addresses(status, kind);
    let mut sections = vec![
        section(
            "MN-VM Running On",
            &format!("{}\n\n{}", running_on(status, colour), table::the_vm(status, wide, colour)),
        ),
        section("Last MN-VM Start Record", &last_start(status)),
        section("ZStack HA Services Running On", &services(status, wide, colour)),
        section("Consul Members", &consul(members, colour)),
        section("Management Node IP", &of(|nic| nic.management)),
        section("Public Network IP", &of(|nic| !nic.management)),
        section("Checking Host I/O", &host_io(&status.nodes, colour)),
    ];
    sections.extend(table::wrong(status, wide, colour));
    sections.extend(table::recent(status, wide, colour));
    sections.join("\n")
}

fn section(heading: &str, body: &str) -> String {
    format!(">>>{heading}\n{}\n", body.trim_end_matches('\n'))
}

/// `IP : running`.
fn running_on(status: &ClusterStatus, colour: bool) -> String {
    let vm = &status.vm;
    let owner = vm.node.as_ref().and_then(|node| status.node(node));
    let place = match (owner.and_then(|owner| owner.address.as_deref()), &vm.node) {
        (Some(address), _) => address.to_owned(),
        (None, Some(node)) => node.to_string(),
        (None, None) => "<none>".to_owned(),
    };
    let state = vm.state.as_str().to_lowercase();
    format!("{place} : {}", paint(vm.state.tone(), &state, colour))
}

fn last_start(status: &ClusterStatus) -> String {
    let Some(start) = &status.vm.last_start else { return "<none>".to_owned() };
    let at = start.at.strftime("%Y-%m-%d %H:%M:%SZ");
    format!("{at} {}: {}, generation {}", start.node, plain(&start.reason), start.generation)
}

/// The line `IP : NAME` for nodes that run, as zsha 2.5.1 printed it, and below it all nodes with what else is known.
fn services(status: &ClusterStatus, wide: bool, colour: bool) -> String {
    if status.nodes.is_empty() {
        return "<none>".to_owned();
    }
    let up = status.nodes.iter().filter(|node| node.speaks());
    let up: String = up
        .map(|node| format!("{} : {}\n", node.address.as_deref().unwrap_or("<unknown>"), node.name))
        .collect();
    format!("{up}\n{}", table::nodes(&status.nodes, wide).render(colour))
}

fn consul(members: &Result<Vec<Member>, String>, colour: bool) -> String {
    let members = match members {
        Ok(members) => members,
        Err(why) => return format!("<unknown>: {}", plain(why)),
    };
    let mut table = Table::new(&["NODE", "ADDRESS", "STATUS", "TYPE", "BUILD", "PROTOCOL", "DC"]);
    for member in members {
        let tone = match member.status {
            MemberStatus::Alive => Tone::Good,
            MemberStatus::Leaving | MemberStatus::Other => Tone::Doubtful,
            MemberStatus::Left | MemberStatus::Failed => Tone::Bad,
        };
        table.row(vec![
            cell(&*member.node),
            cell(&*member.address),
            toned(member.status.word(), tone),
            cell(if member.server { "server" } else { "client" }),
            cell(&*member.version),
            cell(&*member.protocol),
            cell(&*member.datacenter),
        ]);
    }
    table.render(colour)
}

/// The addresses of one kind. An address may be unknown where it depends on the node that the guest booted on.
fn addresses(status: &ClusterStatus, kind: fn(&GuestAddress) -> bool) -> String {
    let of_kind = status.vm.addresses.iter().filter(|nic| kind(nic));
    let lines: Vec<String> = of_kind
        .map(|nic| nic.address.as_ref().map_or_else(|| "<unknown>".to_owned(), Ipv4Addr::to_string))
        .collect();
    if lines.is_empty() { "<none>".to_owned() } else { lines.join("\n") }
}

/// The word `done.` where every node reaches its mounts and the image; else the nodes that do not.
fn host_io(nodes: &[NodeSummary], colour: bool) -> String {
    let lines = nodes.iter().filter_map(|node| match node.storage {
        ConditionStatus::True => None,
        ConditionStatus::False => Some(format!(
            "{}: {}\n",
            node.name,
            paint(Tone::Bad, "the image or a mount is not reached", colour)
        )),
        ConditionStatus::Unknown => {
            Some(format!("{}: {}\n", node.name, paint(Tone::Doubtful, "<unknown>", colour)))
        }
    });
    lines.collect::<String>() + "done."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: &str, status: MemberStatus) -> Member {
        Member {
            node: node.to_owned(),
            address: "10.0.0.1:8301".to_owned(),
            status,
            server: true,
            version: "1.8.7".to_owned(),
            protocol: "2".to_owned(),
            datacenter: "dc1".to_owned(),
        }
    }

    #[test]
    fn members_are_told_as_consul_tells_them_or_why_not() {
        let members = vec![member("nfs-1", MemberStatus::Alive), member("nfs-2", MemberStatus::Failed)];
        assert_eq!(
            consul(&Ok(members), false),
            "NODE    ADDRESS         STATUS   TYPE     BUILD   PROTOCOL   DC\n\
             nfs-1   10.0.0.1:8301   alive    server   1.8.7   2          dc1\n\
             nfs-2   10.0.0.1:8301   failed   server   1.8.7   2          dc1\n"
        );
        assert_eq!(consul(&Err("denied\u{1b}[2J".to_owned()), false), "<unknown>: denied\\u{1b}[2J");
    }
}
