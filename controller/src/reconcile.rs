//! Runs the passes of a node's controller, and knows their order: observe, plan, act, status. One pass runs at a time;
//! each step is looked at again before the next that depends on it. It decides nothing about the VM.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::sync::{Mutex, mpsc, watch};
use zsha_crds::records::EventType;
use zsha_crds::status::summarise;
use zsha_crds::{ClusterName, EventReason, VmName};
use zsha_runtime::Moment;
use zsha_runtime::controller::{Action, Controller};
use zsha_runtime::events::{Event, Recorder};
use zsha_runtime::store::{Op, StoreError};

use crate::act::{ActError, Edges, act};
use crate::api::{HypervisorSight, Metrics, Snapshot};
use crate::guest::agent::Told;
use crate::guest::telling::{self, Ask, Telling};
use crate::heard;
use crate::host::{HostWants, MountWant};
use crate::hypervisor::LocalVm;
use crate::in_force;
use crate::observe::{HOST_LOOK, HostSight, observe};
use crate::observed::Observed;
use crate::plan::{self, Notes, SAFETY_NET, Step};
use crate::status::{self, Build};
use crate::views::{self, Reader, Views};
use crate::world::World;

/// The most rounds of one pass: more than any way from nothing to a running VM takes. A pass that needs more begins
/// again as a new one.
const MOST_ROUNDS: usize = 12;

/// The pause after a pass that has not done everything.
const NOT_DONE: Duration = Duration::from_millis(200);
/// The shortest pause between two passes, whatever is due.
const SHORTEST: Duration = Duration::from_millis(10);

/// One node's controller, assembled.
pub struct Node {
    pub cluster: ClusterName,
    pub edges: Edges,
    pub recorder: Recorder,
    pub metrics: Arc<Metrics>,
    pub build: Build,
    /// The seed of the jitter.
    pub seed: u64,
    /// The line to the read-only HTTP; none where nobody serves it.
    pub feed: Option<watch::Sender<Arc<Snapshot>>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("cluster", &self.cluster)
            .field("edges", &self.edges)
            .finish_non_exhaustive()
    }
}

/// The things that a pass works on.
struct Reconciler {
    node: Node,
    views: Views,
    host: HostSight,
    guest: Telling,
    notes: Mutex<Notes>,
    /// The line to the task that mounts beside the passes: a server that does not answer delays no pass.
    mounts: mpsc::Sender<MountWant>,
    /// A counter that moves when the host is to be looked at now.
    look: watch::Sender<u64>,
    /// The questions to the host, as the last pass put them.
    questions: watch::Sender<Option<HostWants>>,
}

/// Runs the controller until `shutdown`; a pass under way is finished. It touches no VM on its way out.
pub async fn run(node: Node, shutdown: impl Future<Output = ()> + Send + 'static) {
    let reader = Reader { me: node.edges.me.clone(), reads: node.build.reads };
    let watched = views::watch(&node.edges.store, &node.cluster, node.edges.clock, node.seed, reader);
    let (mounts, wanted) = mpsc::channel(1);
    let reconciler = Arc::new(Reconciler {
        mounts,
        look: watch::Sender::new(0),
        questions: watch::Sender::new(None),
        node,
        views: watched.views,
        host: HostSight::default(),
        guest: Telling::default(),
        notes: Mutex::default(),
    });
    let mut controller = Controller::new().max_delay(SAFETY_NET).graceful_shutdown_on(shutdown);
    let vm = reconciler.node.edges.keys.vm_id().name.clone();
    for changes in watched.changes {
        let vm = vm.clone();
        controller = controller.watches(changes, move |_| Some(vm.clone()));
    }
    let edges = &reconciler.node.edges;
    for counter in [edges.hypervisor.changes(), edges.lease.changes()] {
        controller = controller.reconcile_on(passes_of(&vm, counter));
    }
    let (host_changed, host_changes) = watch::channel(0);
    controller = controller.reconcile_on(passes_of(&vm, host_changes));
    let (guest_told, guest_tellings) = watch::channel(0);
    controller = controller.reconcile_on(passes_of(&vm, guest_tellings));
    let passes = controller.run(
        |_, reconciler: Arc<Reconciler>| async move { Ok::<_, ActError>(reconciler.pass().await) },
        |_, _, _| Action::requeue(Duration::from_secs(1)),
        Arc::clone(&reconciler),
    );
    let errors = Arc::clone(&reconciler.node.metrics);
    let running = passes.for_each(move |result| {
        if let Err(error) = result {
            errors.failed("store", "watch");
            tracing::debug!(%error, "watch");
        }
        futures::future::ready(())
    });
    let displays = stream::select_all(watched.display).for_each(|_| futures::future::ready(()));
    tokio::select! {
        biased;
        () = running => {}
        () = displays => {}
        () = look_at_host(Arc::clone(&reconciler), host_changed) => {}
        () = mount_beside(Arc::clone(&reconciler), wanted) => {}
        () = tell_guest(Arc::clone(&reconciler), guest_told) => {}
    }
}

/// The configuration that the guest is to be told which runs here as this node's. While the guest is moved nothing is
/// told: the node it booted on says what.
fn to_tell(world: &World) -> Option<Ask> {
    let record = world.record()?;
    let runs = matches!(world.local, Observed::Known(LocalVm::Running { .. }));
    if !runs || !world.owns() || record.migration.is_some() || world.valid_epoch().is_none() {
        return None;
    }
    let config = world.document()?.domain.guest.on(&world.me)?;
    Some(Ask { vm: record.name.clone(), config })
}

/// The VM to make a pass for: once now, and once for every move of the counter.
fn passes_of(vm: &VmName, counter: watch::Receiver<u64>) -> impl Stream<Item = VmName> + Send + 'static {
    let vm = vm.clone();
    let ticks = stream::unfold((counter, true), |(mut counter, first)| async move {
        if !first && counter.changed().await.is_err() {
            // The edge is gone with its node; nothing more will come.
            std::future::pending::<()>().await;
        }
        Some(((), (counter, false)))
    });
    ticks.map(move |()| vm.clone())
}

/// Mounts beside the passes, one mount at a time. A mount that is asked for meanwhile is asked for again, if it is
/// still wanted then.
async fn mount_beside(reconciler: Arc<Reconciler>, mut wanted: mpsc::Receiver<MountWant>) {
    while let Some(want) = wanted.recv().await {
        reconciler.host.mounting();
        reconciler.do_step(&Step::Mount(want), &mut Notes::default()).await;
        while wanted.try_recv().is_ok() {}
        reconciler.host.mounted(reconciler.node.edges.clock.now());
        reconciler.look.send_modify(|count| *count += 1);
    }
}

/// Looks at the host when something there changed, when the questions change, when a pass asks for it, and from time to time.
async fn look_at_host(reconciler: Arc<Reconciler>, changed: watch::Sender<u64>) {
    let mut changes = reconciler.node.edges.host.changes();
    let mut questions = reconciler.questions.subscribe();
    let mut asked = reconciler.look.subscribe();
    let mut for_a_pass = false;
    loop {
        let wants = questions.borrow_and_update().clone();
        if let Some(wants) = wants {
            let began = reconciler.node.edges.clock.now();
            let facts = reconciler.node.edges.host.look(&wants).await;
            if reconciler.host.put(wants, facts, began) || for_a_pass {
                changed.send_modify(|count| *count += 1);
            }
        }
        for_a_pass = tokio::select! {
            biased;
            _ = changes.changed() => false,
            _ = questions.changed() => false,
            asked = asked.changed() => asked.is_ok(),
            () = tokio::time::sleep(HOST_LOOK) => false,
        };
    }
}

/// Tells the guest that runs here its configuration, where it has no cloud-init to read it from its seed disk.
async fn tell_guest(reconciler: Arc<Reconciler>, changed: watch::Sender<u64>) {
    let news = |told: &Told| {
        let (_, reason, message) = told.verdict();
        tracing::debug!(reason, message, "guest");
        if let Some((kind, reason)) = told.event() {
            reconciler.record_of_vm(kind, reason, message);
        }
        changed.send_modify(|count| *count += 1);
    };
    let hypervisor = &reconciler.node.edges.hypervisor;
    let run = |script: String| {
        let hypervisor = Arc::clone(hypervisor);
        async move { hypervisor.run_in_guest(&script).await }
    };
    telling::tell(&reconciler.guest, run, hypervisor.changes(), news).await;
}

/// The time until the next pass, where nothing wakes one before. A retry that is due already is no reason for a pass.
fn next_pass(now: Moment, recheck: Option<Moment>, retry: Option<Moment>, is_done: bool) -> Duration {
    let retry = retry.filter(|retry| *retry > now);
    let due = recheck.into_iter().chain(retry).min();
    let wait = due.map_or(SAFETY_NET, |at| now.until(at).min(SAFETY_NET));
    let wait = if is_done { wait } else { wait.min(NOT_DONE) };
    wait.max(SHORTEST)
}

impl Reconciler {
    async fn pass(&self) -> Action {
        // One pass at a time is the controller's promise; the lock only carries the notes across.
        let mut notes = self.notes.lock().await;
        let mut last = None;
        for _ in 0..MOST_ROUNDS {
            let world = observe(&self.node.edges, &self.views, &self.host, &mut notes.blindness).await;
            let plan = plan::plan(&world, &notes);
            heard::decided(&world, &plan);
            *notes = plan.notes.clone();
            let done = self.carry_out(&plan.steps, &mut notes).await;
            last = Some((world, plan));
            if !done {
                break;
            }
        }
        self.node.metrics.passed();
        let Some((world, plan)) = last else { return Action::requeue(SAFETY_NET) };
        self.guest.want(to_tell(&world));
        self.tell_of_document(&world, &mut notes);
        for news in plan::news::news(&world, &mut notes.told) {
            tracing::warn!(reason = news.reason.as_str(), news.message, "vm");
            self.record_of_vm(news.reason.severity(), news.reason, news.message);
        }
        let questions = world.questions();
        if questions.is_some() {
            self.questions.send_if_modified(|last| {
                *last != questions && {
                    *last = questions;
                    true
                }
            });
        }
        if plan.look {
            self.look.send_modify(|count| *count += 1);
        }
        self.publish(&world).await;
        let told = self.tell(&world, &plan).await;
        let is_done = told && plan.steps.is_empty();
        Action::requeue(next_pass(world.now, plan.recheck, notes.tried.retry_at, is_done))
    }

    /// Does the steps in order, up to the first that is not done. Returns true if anything was done, so that it is
    /// worth looking again at once.
    async fn carry_out(&self, steps: &[Step], notes: &mut Notes) -> bool {
        for step in steps {
            if let Step::Mount(want) = step {
                // A mount may be under way; then this one is asked for again later.
                self.host.mounting();
                notes.tried_to_mount(&want.target, self.node.edges.clock.now());
                let _ = self.mounts.try_send(want.clone());
            } else if !self.do_step(step, notes).await {
                return false;
            }
        }
        !steps.is_empty()
    }

    /// Does one step; returns true if it was done.
    async fn do_step(&self, step: &Step, notes: &mut Notes) -> bool {
        let name = step.name();
        self.node.metrics.stepped(name);
        match act(&self.node.edges, &self.views, step, notes).await {
            Ok(events) => {
                for event in events {
                    tracing::info!(reason = event.reason.as_str(), message = event.message, "vm");
                    self.record_of_vm(event.kind, event.reason, event.message);
                }
                true
            }
            Err(error) => {
                self.failed(name, &error);
                false
            }
        }
    }

    fn failed(&self, step: &'static str, error: &ActError) {
        let edge = match error {
            ActError::Store(_) => "store",
            ActError::Hypervisor(_) => "hypervisor",
            ActError::Host(_) => "host",
            ActError::Keeper(_) => "keeper",
            ActError::Moved(why) => {
                tracing::debug!(step, why, "not done");
                return;
            }
        };
        self.node.metrics.failed(edge, step);
        tracing::warn!(step, %error, "not done");
        self.record_of_vm(EventType::Warning, EventReason::StepFailed, format!("{step}: {error}"));
    }

    /// Tells people when the stored document stops being the one in force, and when it is again.
    fn tell_of_document(&self, world: &World, notes: &mut Notes) {
        let (before, now) = (notes.told.spec_problem.as_ref(), world.spec_problem.as_ref());
        let in_force = world.document().map(|desired| desired.generation);
        if let Some((reason, message)) = in_force::news(before, now, in_force) {
            tracing::info!(reason = reason.as_str(), message, "document");
            self.record(reason.severity(), reason, format!("cluster/{}", self.node.cluster), message);
            notes.told.spec_problem = world.spec_problem.clone();
        }
    }

    fn record_of_vm(&self, kind: EventType, reason: EventReason, message: String) {
        self.record(kind, reason, format!("vm/{}", self.node.edges.keys.vm_id().name), message);
    }

    fn record(&self, kind: EventType, reason: EventReason, regarding: String, message: String) {
        self.node.recorder.publish(Event { kind, ..Event::new(reason, regarding, message) });
    }

    /// Publishes the world for the read-only HTTP of this node.
    async fn publish(&self, world: &World) {
        let Some(feed) = &self.node.feed else { return };
        let (confirmed, store_problem) = self.views.confirmed();
        let snapshot = Snapshot {
            status: confirmed.map(|_| summarise(&self.views.cluster_view())),
            confirmed,
            store_problem,
            hypervisor: match &world.local {
                Observed::Known(_) => HypervisorSight::Seen,
                Observed::Unknown(why) => HypervisorSight::Lost(why.clone()),
            },
            lease_valid_until: world.lease.known().and_then(|verdict| verdict.valid_until),
            vm_running_here: world.local.known().map(|local| matches!(local, LocalVm::Running { .. })),
        };
        feed.send_replace(Arc::new(snapshot));
    }

    /// Writes this node's status, and the VM's as its owner, where they changed. Returns true if they are in the store.
    async fn tell(&self, world: &World, plan: &plan::Plan) -> bool {
        let keys = &self.node.edges.keys;
        let before = self.views.nodes().remove(&world.me);
        let mine = status::of_node(world, plan, before.as_deref(), &self.node.build);
        let vm_before = self.views.vm_status();
        let vm = status::of_vm(world, self.guest.told().as_ref(), vm_before.as_ref());
        let mut ops = Vec::new();
        let (node_key, vm_key) = (keys.node_status(&world.me), keys.vm_status(&world.vm_id.name));
        // The views keep the last good value of a key that somebody has written nonsense over.
        if before.as_deref() != Some(&mine) || self.views.status_is_bad(&node_key) {
            self.replace(node_key, serde_json::to_string(&mine), &mut ops);
        }
        if let Some(vm) = vm
            && (vm_before.as_ref() != Some(&vm) || self.views.status_is_bad(&vm_key))
        {
            self.replace(vm_key, serde_json::to_string(&vm), &mut ops);
        }
        if ops.is_empty() {
            return true;
        }
        match self.node.edges.store.txn(ops).await {
            Ok(txn) => txn.committed(),
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Unknown { .. })) => {
                tracing::debug!(%error, "status not written");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "status not written");
                true
            }
        }
    }

    fn replace(&self, key: String, value: serde_json::Result<String>, ops: &mut Vec<Op>) {
        match (self.views.status_index(&key), value) {
            (Some(Some(index)), Ok(value)) => ops.push(Op::Cas { key, value, index }),
            (Some(None), Ok(value)) => ops.push(Op::Create { key, value }),
            // Not looked yet: the next pass writes it.
            (None, Ok(_)) => {}
            (_, Err(error)) => tracing::error!(%error, key, "status is not JSON"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_that_is_long_due_makes_no_pass_follow_the_other_at_once() {
        let now = Moment::from_millis(1_000_000);
        let at = |secs| Some(now + Duration::from_secs(secs));
        let next = |recheck, retry| next_pass(now, recheck, retry, true);
        assert_eq!(next(None, None), SAFETY_NET);
        assert_eq!(next(None, Some(now - Duration::from_secs(60))), SAFETY_NET);
        assert_eq!(next(None, Some(now)), SAFETY_NET);
        assert_eq!((next(at(1), None), next(at(9), at(1))), (Duration::from_secs(1), Duration::from_secs(1)));
        assert_eq!(next(Some(now), None), SHORTEST);
        assert_eq!(next_pass(now, None, None, false), NOT_DONE);
    }
}
