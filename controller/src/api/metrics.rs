//! Counts what happens while the controller runs, and writes Prometheus' text of it. Counting never fails and never
//! waits; gauges are computed from the snapshot when they are asked for.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zsha_runtime::Moment;

use super::Snapshot;

/// Counters of one controller.
#[derive(Debug, Default)]
pub struct Metrics {
    commit: Option<&'static str>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default, Clone)]
struct Counts {
    passes: u64,
    /// The steps, by the plan step's name.
    steps: BTreeMap<&'static str, u64>,
    /// The errors, by the edge and by the kind.
    errors: BTreeMap<(&'static str, &'static str), u64>,
    /// The requests by kind, as the store counts them.
    store_requests: BTreeMap<&'static str, u64>,
    streams: u64,
    connections: usize,
    /// The connections that were refused, by the limit.
    refused: BTreeMap<&'static str, u64>,
}

impl Metrics {
    /// The metrics of a binary built from this commit, where the build said so.
    pub fn of_build(commit: Option<&'static str>) -> Self {
        Self { commit, ..Self::default() }
    }

    /// Counts a reconcile pass that ended.
    pub fn passed(&self) {
        self.lock().passes += 1;
    }

    /// Counts a step of a plan that was carried out, or tried.
    pub fn stepped(&self, step: &'static str) {
        *self.lock().steps.entry(step).or_default() += 1;
    }

    /// Counts a failure of an edge (`store`, `hypervisor`, `host`, `keeper`), in this way (`unavailable`, `denied`,
    /// ...).
    pub fn failed(&self, edge: &'static str, kind: &'static str) {
        *self.lock().errors.entry((edge, kind)).or_default() += 1;
    }

    /// Sets how many requests of a kind the store has sent since the start: the store counts, and this repeats it.
    pub fn set_store_requests(&self, kind: &'static str, total: u64) {
        self.lock().store_requests.insert(kind, total);
    }

    /// Sets how many connections of the page are open.
    pub(super) fn set_connections(&self, open: usize) {
        self.lock().connections = open;
    }

    /// Counts a connection that was closed at once: `all` together have their share, or its `address` has.
    pub(super) fn refused_connection(&self, because: &'static str) {
        *self.lock().refused.entry(because).or_default() += 1;
    }

    pub(super) fn set_streams(&self, open: u64) {
        self.lock().streams = open;
    }

    /// Locks the numbers. They are only numbers: a panic elsewhere leaves none of them half written.
    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prometheus' text format, in a stable order.
    pub fn render(&self, snapshot: &Snapshot, now: Moment) -> String {
        let counts = self.lock().clone();
        let mut text = Text::default();
        self.build_info(&mut text);
        gauges(&mut text, snapshot, now);
        text.metric("zsha_passes_total", "counter", "Reconcile passes.", [(vec![], counts.passes)]);
        let steps = counts.steps.iter().map(|(step, count)| (vec![("step", *step)], *count));
        text.metric(
            "zsha_plan_steps_total",
            "counter",
            "Steps of plans that were carried out or tried.",
            steps,
        );
        let errors =
            counts.errors.iter().map(|((edge, kind), n)| (vec![("edge", *edge), ("kind", *kind)], *n));
        text.metric("zsha_errors_total", "counter", "Failures of an edge, by kind.", errors);
        let requests = counts.store_requests.iter().map(|(kind, count)| (vec![("kind", *kind)], *count));
        text.metric("zsha_store_requests_total", "counter", "Requests sent to the store.", requests);
        text.metric("zsha_event_streams", "gauge", "Open event streams.", [(vec![], counts.streams)]);
        let open = [(vec![], counts.connections)];
        text.metric("zsha_page_connections", "gauge", "Open connections of the page.", open);
        let refused = ["address", "all"]
            .map(|limit| (vec![("limit", limit)], counts.refused.get(limit).copied().unwrap_or_default()));
        text.metric(
            "zsha_page_connections_refused_total",
            "counter",
            "Connections of the page that were one too many, of all or of their address.",
            refused,
        );
        text.0
    }

    fn build_info(&self, text: &mut Text) {
        let commit = self.commit.unwrap_or("unknown");
        let labels = vec![("version", env!("CARGO_PKG_VERSION")), ("commit", commit)];
        text.metric("zsha_build_info", "gauge", "Always 1; the labels say what runs.", [(labels, 1)]);
    }
}

fn gauges(text: &mut Text, snapshot: &Snapshot, now: Moment) {
    let ready = u8::from(snapshot.not_ready(now).is_empty());
    text.metric(
        "zsha_ready",
        "gauge",
        "Whether store and hypervisor were both seen lately.",
        [(vec![], ready)],
    );
    let age = snapshot.age(now).map(|age| (vec![], age.as_secs_f64()));
    text.metric("zsha_data_age_seconds", "gauge", "Since the store last confirmed what is shown.", age);
    let left = snapshot.lease_valid_until.map(|until| (vec![], now.until(until).as_secs_f64()));
    text.metric("zsha_lease_valid_seconds", "gauge", "Until this node's lease runs out; 0 if it has.", left);
    let here = snapshot.vm_running_here.map(|running| (vec![], u8::from(running)));
    text.metric(
        "zsha_vm_running_here",
        "gauge",
        "Whether the VM runs on this node; absent if unknown.",
        here,
    );
    let Some(status) = &snapshot.status else { return };
    let bound = status.failover_bound_seconds.map(|seconds| (vec![], seconds));
    text.metric("zsha_failover_bound_seconds", "gauge", "Longest failover, computed.", bound);
    text.metric(
        "zsha_protected",
        "gauge",
        "Whether the VM survives the loss of any one more node.",
        [(vec![], u8::from(status.protected))],
    );
    text.metric(
        "zsha_generation",
        "gauge",
        "Of the document in force.",
        status.generation.map(|g| (vec![], g)),
    );
    let nodes = status.nodes.iter().map(|node| (vec![("node", node.name.as_str())], u8::from(node.ready)));
    text.metric("zsha_node_ready", "gauge", "Whether the VM may be placed on the node.", nodes);
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

#[derive(Default)]
struct Text(String);

impl Text {
    /// Writes a metric. One without samples is left out: absent is how Prometheus says unknown.
    fn metric<'a, V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels<'a>, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{} {value}", LabelSet(&labels));
        }
    }
}

struct LabelSet<'a>(&'a Labels<'a>);

impl Display for LabelSet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.0.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{before}{name}=\"{value}\"")?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_char('}') }
    }
}
