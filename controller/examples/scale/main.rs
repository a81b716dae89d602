//! What a cluster costs by the number of its nodes, on the embedded store: `make bench` prints it, and it needs neither
//! root nor a lab. It is a report: it compares the largest cluster with the smallest, and judges nothing.
//!
//! Never here: a decision of zsha, or a limit that a figure has to keep.

mod cluster;
mod figures;
mod watching;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use zsha_controller::observe::{HostSight, observe};
use zsha_controller::plan::blindness::Blindness;
use zsha_controller::plan::{self, Notes};
use zsha_crds::NodeName;
use zsha_crds::status::summarise;
use zsha_runtime::client::view;

use cluster::{CLOCK, Settled};
use figures::{Figures, Span, Unit};

/// The clusters that are measured: the smallest that is of use, a large one, and one that is larger than any seen.
const NODES: [u8; 3] = [3, 31, 99];
/// How often each piece of work is done. A median of so many is the same to a few percent in the next run.
const ROUNDS: usize = 200;
/// How long a settled cluster is left alone to count what its nodes ask: twice the longest wait of a watcher.
const QUIET: Duration = Duration::from_secs(20);

fn main() -> anyhow::Result<()> {
    let mut figures = Figures::default();
    for nodes in NODES {
        eprintln!("scale: a cluster of {nodes} nodes");
        measure(nodes, &mut figures).with_context(|| format!("a cluster of {nodes} nodes"))?;
    }
    println!("{figures}");
    Ok(())
}

fn measure(nodes: u8, figures: &mut Figures) -> anyhow::Result<()> {
    // The nodes have the one worker. What is measured runs on this thread, whose processor time is nobody else's.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let settled = runtime.block_on(Settled::raise(nodes))?;
    runtime.block_on(requests(&settled, figures))?;
    let owner = runtime.block_on(settled.owner())?;
    let standby = settled.other_than(&owner)?;
    runtime.block_on(passes(&settled, &owner, "the owner", figures))?;
    runtime.block_on(passes(&settled, &standby, "a standby", figures))?;
    runtime.block_on(status(&settled, figures))?;
    watching::measure(&settled, figures)
}

/// Counts what the nodes ask of the store while nothing happens, and what all of it costs.
async fn requests(settled: &Settled, figures: &mut Figures) -> anyhow::Result<()> {
    let (before, span) = (settled.asked(), Span::of_process());
    tokio::time::sleep(QUIET).await;
    let (spent, after) = (span.end(), settled.asked());
    let nodes = settled.nodes();
    let seconds = spent.wall.as_secs_f64();
    for (before, after) in before.iter().zip(&after) {
        let rate = |now: u64, then: u64| (now - then) as f64 / seconds;
        let (requests, records) =
            (rate(after.requests, before.requests), rate(after.records, before.records));
        figures.count("settled node: requests", Unit::PerSecond, nodes, requests);
        figures.count("settled node: records in the answers", Unit::PerSecond, nodes, records);
    }
    let share = spent.cpu.as_secs_f64() / seconds / f64::from(nodes) * 100.0;
    figures.count("settled node: keeper, controller and its part of the store", Unit::Percent, nodes, share);
    settled.still_settled().await
}

/// Does what a pass does while there is nothing to do: observe and plan.
async fn passes(settled: &Settled, node: &NodeName, who: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let (edges, views) = settled.seen_by(node).await?;
    let host = HostSight::default();
    let (mut blindness, mut notes) = (Blindness::default(), Notes::default());
    let (observing, planning) = (format!("observe, as {who}"), format!("plan, as {who}"));
    for _ in 0..ROUNDS {
        if let Some(desired) = views.desired().known().cloned().flatten() {
            let (wants, began) = (desired.wants_of(node, None), CLOCK.now());
            host.put(wants.clone(), edges.host.look(&wants).await, began);
        }
        let span = Span::of_thread();
        let world = observe(&edges, &views, &host, &mut blindness).await;
        figures.spent(&observing, settled.nodes(), span.end());
        let span = Span::of_thread();
        let plan = plan::plan(&world, &notes);
        figures.spent(&planning, settled.nodes(), span.end());
        ensure!(plan.steps.is_empty(), "{node} is not settled: it plans {:?}", plan.steps);
        notes = plan.notes;
    }
    Ok(())
}

/// Makes the status as `zsha status` does: the records, and what is said of them.
async fn status(settled: &Settled, figures: &mut Figures) -> anyhow::Result<()> {
    for _ in 0..ROUNDS {
        let span = Span::of_thread();
        let view = view::once(settled.store(), settled.cluster(), CLOCK).await?;
        figures.spent("status: read the records", settled.nodes(), span.end());
        let span = Span::of_thread();
        let status = summarise(&view);
        figures.spent("status: sum them up", settled.nodes(), span.end());
        ensure!(status.nodes.len() == usize::from(settled.nodes()), "a status of other nodes");
    }
    Ok(())
}
