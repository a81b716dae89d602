//! The situations that a scenario sets up or looks at and that no seed draws: storage and links of one node, a guest or
//! a QEMU that does not end, what the nodes say in their records.

use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::NodeName;
use zsha_crds::records::NodeStatus;

use super::inflict::BRIDGE;
use super::{Simulation, TICK, check};
use crate::host::{BridgeFact, ImageFact};
use crate::keeper::WatchdogState;
use crate::observed::Observed;
use crate::status::Build;

/// A situation that is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Situation {
    /// The share does not answer on this node: the guest goes on and gets nothing from its disk.
    ShareHangs(NodeName),
    /// The share answers with errors on this node: the guest is paused as soon as it uses its disk.
    ShareGone(NodeName),
    ShareBack(NodeName),
    /// The bridge is there, and its cable is unplugged.
    NoCarrier(NodeName),
    /// The guest's seed disk can be written on this node, or cannot and the one that was there is gone.
    Seeds(NodeName, bool),
    /// No signal ends the QEMU of this node, or signals do again.
    Unkillable(NodeName, bool),
    /// Every guest goes on when it is asked to power off.
    ShutdownsIgnored,
    /// This node's keeper pets a watchdog, or has none.
    Watchdog(NodeName, bool),
    /// `zsha apply` of a document with `Fencing.Watchdog: required`.
    WatchdogRequired,
    DocumentDeleted,
    /// Systemd begins to take the host down; it goes once `leave` has ended there.
    HostShutsDown(NodeName),
    /// The node's controller is replaced by a build that reads documents up to this format.
    Build(NodeName, u32),
    /// `zsha apply` of a document that only builds which read this format know.
    ApplyNewer(u32),
}

impl Simulation {
    pub(super) fn set_up(&mut self, situation: &Situation) {
        self.note(format_args!("! {situation:?}"));
        match situation {
            Situation::ShareHangs(node) => {
                let reason = "it does not answer within 3 s".to_owned();
                let fact = Observed::Known(ImageFact::NotAnswering { reason });
                self.node(node).machine.host.set_image(fact);
                self.without_disk(node, true);
            }
            Situation::ShareGone(node) => {
                let reason = "Stale file handle (os error 116)".to_owned();
                let fact = Observed::Known(ImageFact::NotReadable { reason });
                self.node(node).machine.host.set_image(fact);
                self.without_disk(node, true);
                self.hosts.set_disk_gone(node, true);
            }
            Situation::ShareBack(node) => {
                self.node(node).machine.host.repair();
                self.hosts.set_disk_gone(node, false);
                self.without_disk(node, false);
            }
            Situation::NoCarrier(node) => {
                let fact = BridgeFact::Bridge { up: true, carrier: false };
                self.node(node).machine.host.set_bridge(BRIDGE, Observed::Known(fact));
            }
            Situation::Seeds(node, work) => {
                let refused = (!work).then_some("no space left on device");
                self.node(node).machine.host.refuse_seeds(refused);
            }
            Situation::Unkillable(node, on) => self.hosts.set_unkillable(node, *on),
            Situation::ShutdownsIgnored => {
                for node in self.nodes.keys() {
                    self.hosts.ignore_shutdowns(node);
                }
            }
            Situation::Watchdog(node, there) => {
                let state =
                    if *there { WatchdogState::Petted { timeout_secs: 5 } } else { WatchdogState::None };
                self.node(node).machine.watchdog_said.send_replace(state);
            }
            Situation::WatchdogRequired => {
                self.operator.require_watchdog();
                self.operator.apply(None, 8);
            }
            Situation::DocumentDeleted => self.operator.delete_document(),
            Situation::HostShutsDown(node) => {
                check::lock(&self.checker).going_down.insert(node.clone());
                self.node(node).shut_down();
            }
            Situation::Build(node, reads) => {
                let node = self.node(node);
                node.stop_controller();
                node.machine.build = Build { reads: *reads, ..Build::this(format!("0.{reads}.0")) };
                node.start_controller();
            }
            Situation::ApplyNewer(format) => self.operator.apply_as(*format, None, 8),
        }
        check::lock(&self.checker).check();
    }

    fn without_disk(&self, node: &NodeName, without: bool) {
        let mut checker = check::lock(&self.checker);
        checker.check();
        if without {
            checker.without_disk.insert(node.clone());
        } else {
            checker.without_disk.remove(node);
        }
    }

    /// Fails unless `leave` ends there within this time and the host goes down.
    pub(super) async fn goes_down(&mut self, line: &str, node: &NodeName, limit: Duration) {
        let begun = Instant::now();
        while !self.violated() {
            if let Some(left) = self.node(node).has_left().await {
                let took = begun.elapsed().as_secs_f64();
                match left {
                    Ok(()) => self.note(format_args!("= {line}: after {took:.1} s")),
                    Err(error) => self.note(format_args!("= {line}: after {took:.1} s, with {error:#}")),
                }
                self.inflict(&super::faults::Fault::PowerLoss(node.clone()));
                return;
            }
            if begun.elapsed() >= limit {
                self.violate(format_args!("not so: '{line}'"));
                return;
            }
            self.wait_until(Instant::now() + TICK).await;
        }
    }

    /// Fails unless the record names this node as the owner for all of this time.
    pub(super) async fn owned(&mut self, line: &str, node: &NodeName, time: Duration) {
        let until = Instant::now() + time;
        while !self.violated() {
            if check::lock(&self.checker).owner().as_ref() != Some(node) {
                self.violate(format_args!("not so: '{line}'"));
                return;
            }
            if Instant::now() >= until {
                self.note(format_args!("= {line}"));
                return;
            }
            self.wait_until(until.min(Instant::now() + TICK)).await;
        }
    }

    /// Fails unless, within this time, these words are in what the node says of its conditions and of what it waits
    /// for.
    pub(super) async fn says(&mut self, line: &str, node: &NodeName, words: &str, limit: Duration) {
        let begun = Instant::now();
        while !self.violated() {
            if let Some(sentence) = self.said(node).into_iter().find(|sentence| sentence.contains(words)) {
                self.note(format_args!("= {line}: {sentence}"));
                return;
            }
            if begun.elapsed() >= limit {
                self.violate(format_args!("not so: '{line}', but {:?}", self.said(node)));
                return;
            }
            self.wait_until(Instant::now() + TICK).await;
        }
    }

    /// Within this time the node acts on this generation.
    pub(super) async fn comes_to_act_on(
        &mut self,
        line: &str,
        node: &NodeName,
        generation: u64,
        limit: Duration,
    ) {
        let until = Instant::now() + limit;
        while !self.violated() {
            let acts_on = self.acts_on(node);
            if acts_on == Some(generation) {
                self.note(format_args!("= {line}"));
                return;
            }
            if Instant::now() >= until {
                self.violate(format_args!("not so: '{line}', but on {acts_on:?}"));
                return;
            }
            self.wait_until(until.min(Instant::now() + TICK)).await;
        }
    }

    /// All this time the node acts on this generation.
    pub(super) async fn acts_all_along_on(
        &mut self,
        line: &str,
        node: &NodeName,
        generation: u64,
        time: Duration,
    ) {
        let until = Instant::now() + time;
        while !self.violated() {
            let acts_on = self.acts_on(node);
            if acts_on != Some(generation) {
                self.violate(format_args!("not so: '{line}', but on {acts_on:?}"));
                return;
            }
            if Instant::now() >= until {
                self.note(format_args!("= {line}"));
                return;
            }
            self.wait_until(until.min(Instant::now() + TICK)).await;
        }
    }

    /// The generation that the node says it acts on.
    fn acts_on(&self, node: &NodeName) -> Option<u64> {
        self.status(node).map(|status| status.observed_generation)
    }

    /// Every sentence of the node's status that is not about something being well.
    fn said(&self, node: &NodeName) -> Vec<String> {
        let Some(status) = self.status(node) else { return Vec::new() };
        let faults = status.conditions.into_iter().filter(|condition| !condition.is_true());
        let faults = faults.map(|condition| condition.message);
        faults.chain(status.waiting.into_iter().map(|waiting| waiting.message)).collect()
    }

    fn status(&self, node: &NodeName) -> Option<NodeStatus> {
        let keys = zsha_crds::Keys::new(&self.nodes.get(node)?.machine.cluster);
        let entry = self.store.read(&keys.node_status(node))?;
        serde_json::from_str(&entry.value).ok()
    }
}
