//! The things that people do by hand, past zsha (with libvirt, with the store's keys, with the daemons), and how each
//! is done to the simulated cluster.

use zsha_crds::NodeName;

use super::{Simulation, check};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonsense {
    NoJson,
    /// A record of some other kind.
    AnotherKind,
    Large,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hand {
    /// `virsh destroy`, `managedsave`, `suspend` and `resume` of the copy that executes, wherever it is.
    Destroys,
    Saves,
    Suspends,
    Resumes,
    /// `virsh start` on this node, whatever runs elsewhere.
    Starts(NodeName),
    /// `virsh define` and `autostart` on this node, whose host then loses its power and boots.
    DefinesAndLosesPower(NodeName),
    /// `virsh migrate --live` to this node, from wherever the VM executes.
    Migrates(NodeName),
    /// The key of a node's lease is written over with what makes no sense.
    OverwritesLease(NodeName, Nonsense),
    /// All keys of the cluster are deleted, and the document is applied anew.
    Wipes,
    /// Every controller is stopped, and started again.
    StopsControllers,
    StartsControllers,
    /// The processes on this node cannot be counted, or can be again.
    HidesProcesses(NodeName, bool),
}

impl Hand {
    /// The name under which faults of this kind are counted.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Destroys => "virsh destroy",
            Self::Saves => "virsh managedsave",
            Self::Suspends => "virsh suspend",
            Self::Starts(_) => "virsh start",
            Self::DefinesAndLosesPower(_) => "virsh autostart and a boot",
            Self::Migrates(_) => "virsh migrate",
            Self::OverwritesLease(..) => "lease overwritten",
            Self::Wipes => "store wiped",
            Self::StopsControllers => "all controllers stopped",
            Self::HidesProcesses(_, true) => "processes not seen",
            Self::Resumes | Self::StartsControllers | Self::HidesProcesses(_, false) => "mended",
        }
    }
}

impl Simulation {
    pub(super) fn by_hand(&mut self, hand: &Hand) {
        match hand {
            Hand::Destroys => self.on_every_host(|hosts, node| hosts.destroy_by_hand(node)),
            Hand::Saves => self.on_every_host(|hosts, node| hosts.save_by_hand(node)),
            Hand::Suspends => self.on_every_host(|hosts, node| {
                hosts.pause_by_hand(node, true);
            }),
            Hand::Resumes => self.on_every_host(|hosts, node| {
                hosts.pause_by_hand(node, false);
            }),
            Hand::Starts(node) => {
                let mut checker = check::lock(&self.checker);
                if let Some(process) = self.hosts.start_by_hand(node) {
                    checker.by_hand.made(node, process);
                }
                checker.check();
            }
            Hand::DefinesAndLosesPower(node) => {
                self.hosts.define_by_hand(node, true);
                self.lose_power(node);
                self.inflict_power_on(node);
            }
            Hand::Migrates(to) => {
                let from = check::lock(&self.checker).host();
                if let Some(from) = from
                    && let Some(process) = self.hosts.migrate_by_hand(&from, to)
                {
                    let mut checker = check::lock(&self.checker);
                    checker.by_hand.awaits(to, process);
                    checker.moved_by_hand(&from);
                }
            }
            Hand::OverwritesLease(node, nonsense) => {
                let value = match nonsense {
                    Nonsense::NoJson => "{".to_owned(),
                    Nonsense::AnotherKind => r#"{"format":99,"kind":"Other"}"#.to_owned(),
                    Nonsense::Large => "x".repeat(200 << 10),
                };
                self.operator.overwrite_lease(node, value);
                if !self.node(node).is_powered() {
                    check::lock(&self.checker).loses_a_lease();
                }
            }
            Hand::Wipes => {
                check::lock(&self.checker).restoring();
                self.operator.wipe();
                self.operator.apply(None, 8);
            }
            Hand::StopsControllers => self.nodes.values_mut().for_each(super::node::SimNode::stop_controller),
            Hand::StartsControllers => {
                self.nodes.values_mut().for_each(super::node::SimNode::start_controller);
            }
            Hand::HidesProcesses(node, hidden) => self.hosts.set_uncounted(node, *hidden),
        }
    }
}
