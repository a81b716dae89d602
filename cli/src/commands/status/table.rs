//! A status as a person reads it: the VM first, then whether it is safe, the nodes, and what is wrong.

use zsha_crds::ConditionStatus;
use zsha_crds::status::{ClusterStatus, NodeSummary, Role};
use zsha_crds::tone::Tone;

use crate::commands::events;
use crate::output::age::age;
use crate::output::escape::plain;
use crate::output::table::{Table, cell, or_none, paint, toned};

/// The number of events at the end of the plain table, and of the wide one.
const EVENTS: usize = 5;
const EVENTS_WIDE: usize = 20;

pub(super) fn render(status: &ClusterStatus, wide: bool, colour: bool) -> String {
    let mut sections = vec![the_vm(status, wide, colour)];
    if !status.nodes.is_empty() {
        sections.push(nodes(&status.nodes, wide).render(colour));
    }
    sections.extend(wrong(status, wide, colour));
    sections.extend(recent(status, wide, colour));
    sections.join("\n")
}

/// The VM, and whether it is safe.
pub(super) fn the_vm(status: &ClusterStatus, wide: bool, colour: bool) -> String {
    format!("{}\n{}", vm(status, wide).render(colour), summary(status, wide, colour))
}

/// The sections on what is not as it should be, and on what is not being done.
pub(super) fn wrong(status: &ClusterStatus, wide: bool, colour: bool) -> Option<String> {
    let sections: Vec<_> = conditions(status, wide, colour).into_iter().chain(waiting(status)).collect();
    (!sections.is_empty()).then(|| sections.join("\n"))
}

fn vm(status: &ClusterStatus, wide: bool) -> Table {
    let vm = &status.vm;
    let mut header = vec!["VM", "NODE", "STATE", "GENERATION", "LAST-START", "AGE"];
    let mut row = vec![
        cell(vm.name.as_str()),
        or_none(vm.node.as_ref()),
        toned(vm.state.as_str(), vm.state.tone()),
        or_none(vm.generation),
        or_none(vm.last_start.as_ref().map(|start| &start.reason)),
        or_none(vm.since.map(|since| age(since, status.as_of))),
    ];
    if wide {
        header.extend(["PHASE", "WANTED", "UUID"]);
        row.push(or_none(vm.phase.map(|phase| format!("{phase:?}"))));
        row.push(cell(format!("{:?}", vm.wanted)));
        row.push(cell(vm.uuid.to_string()));
    }
    let mut table = Table::new(&header);
    table.row(row);
    table
}

fn summary(status: &ClusterStatus, wide: bool, colour: bool) -> String {
    let mut lines = Vec::new();
    let vm = &status.vm;
    if !vm.note.is_empty() {
        lines.push(("Note", plain(&vm.note).into_owned()));
    }
    if let Some(last) = &vm.last_known_state {
        let when =
            vm.last_known_at.map(|at| format!(", said {} ago", age(at, status.as_of))).unwrap_or_default();
        lines.push(("Last known", format!("{}{when}", last)));
    }
    if let Some(to) = &vm.migrating_to {
        lines.push(("Migrating to", to.to_string()));
    }
    let or_none =
        |number: Option<u64>| number.map_or_else(|| "<none>".to_owned(), |number| number.to_string());
    let generation = or_none(status.generation);
    lines.push(("Generation", format!("{generation} (observed {})", or_none(status.observed_generation))));
    let tone = Tone::of(status.protected);
    lines.push(("Protected", paint(tone, &plain(&status.protection), colour)));
    if let Some(bound) = &status.failover_bound {
        let total = format!("within {} s", seconds(bound.total_seconds));
        let terms: Vec<String> =
            bound.terms().iter().map(|(name, s)| format!("{name} {}", seconds(*s))).collect();
        lines.push(("Failover", if wide { format!("{total} ({})", terms.join(" + ")) } else { total }));
    }
    let virtual_hosts = status.nodes.iter().filter_map(|node| {
        node.virtual_host.as_ref().map(|host| format!("{} is {}", node.name, plain(host)))
    });
    let virtual_hosts: Vec<_> = virtual_hosts.collect();
    if !virtual_hosts.is_empty() {
        let risk = "paused from outside for long, it may run the VM for a moment beside a new owner";
        lines.push(("Caution", format!("{}: {risk}", virtual_hosts.join(", "))));
    }
    lines.insert(0, ("Cluster", status.cluster.to_string()));
    lines
        .iter()
        .fold(String::new(), |text, (label, value)| text + &format!("{:<14}{value}\n", format!("{label}:")))
}

fn seconds(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(super) fn nodes(nodes: &[NodeSummary], wide: bool) -> Table {
    let mut header = vec!["NODE", "ADDRESS", "LEASE", "READY", "ROLE", "CONTROLLER", "VM"];
    if wide {
        header.extend(["OBSERVED", "VERSION", "WHY"]);
    }
    let mut table = Table::new(&header);
    for node in nodes {
        let mut row = vec![
            cell(node.name.as_str()),
            or_none(node.address.as_ref()),
            toned(format!("{:?}", node.lease), node.lease.tone()),
            toned(if node.ready { "True" } else { "False" }, Tone::of(node.ready)),
            cell(match node.role {
                Role::MigrationTarget => "Target".to_owned(),
                role => format!("{role:?}"),
            }),
            toned(format!("{:?}", node.controller), node.controller.tone()),
            cell(node.local_vm.as_str()),
        ];
        if wide {
            row.push(or_none(node.observed_generation));
            row.push(or_none(node.controller_version.as_ref()));
            row.push(cell(node.reasons.join("; ")));
        }
        table.row(row);
    }
    table
}

/// The plain table tells only what is not as it should be.
fn conditions(status: &ClusterStatus, wide: bool, colour: bool) -> Option<String> {
    let mut table = Table::new(&["CONDITION", "STATUS", "REASON", "MESSAGE"]);
    let told = |c: &&zsha_crds::status::ClusterCondition| wide || c.status != ConditionStatus::True;
    let told: Vec<_> = status.conditions.iter().filter(told).collect();
    for condition in &told {
        table.row(vec![
            cell(condition.kind.as_str()),
            toned(format!("{:?}", condition.status), condition.status.tone()),
            cell(&*condition.reason),
            cell(&*condition.message),
        ]);
    }
    let unfit: Vec<String> = status
        .nodes
        .iter()
        .filter(|node| !wide && !node.reasons.is_empty())
        .map(|node| format!("{}: {}\n", node.name, plain(&node.reasons.join("; "))))
        .collect();
    let table = (!told.is_empty()).then(|| table.render(colour));
    match (unfit.is_empty(), table) {
        (true, table) => table,
        (false, None) => Some(unfit.concat()),
        (false, Some(table)) => Some(format!("{}\n{table}", unfit.concat())),
    }
}

fn waiting(status: &ClusterStatus) -> Option<String> {
    let lines = status.waiting.iter().map(|waiting| {
        let nodes: Vec<&str> = waiting.nodes.iter().map(|node| node.as_str()).collect();
        format!("waiting: {}: {} ({})\n", plain(&waiting.reason), plain(&waiting.message), nodes.join(", "))
    });
    let text: String = lines.collect();
    (!text.is_empty()).then_some(text)
}

pub(super) fn recent(status: &ClusterStatus, wide: bool, colour: bool) -> Option<String> {
    let count = if wide { EVENTS_WIDE } else { EVENTS };
    let from = status.events.len().saturating_sub(count);
    let newest = &status.events[from..];
    (!newest.is_empty()).then(|| events::table(newest, status.as_of).render(colour))
}
