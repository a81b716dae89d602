//! The network between the nodes and the store, and what becomes of a request there: it takes time, is refused, is done
//! and its reply lost, arrives late, or never; or a server answers that lags behind. Never here: a request itself, which
//! is made in `node_store`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use zsha_crds::NodeName;
use zsha_runtime::store::MemoryStore;

use super::lag::Lag;

/// The part of a node's line that is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Both,
    /// Answers are cut: a request arrives and is done, and no answer comes back.
    Answers,
    /// Requests are cut: none arrives. A request that waits already is answered, as a watch is.
    Requests,
}

/// The faults between the nodes and the store.
#[derive(Debug)]
pub struct Net {
    rng: SmallRng,
    /// The nodes whose requests do not arrive.
    pub(super) mute: BTreeSet<NodeName>,
    /// The nodes that get no answers.
    pub(super) deaf: BTreeSet<NodeName>,
    pub(super) paused: BTreeSet<NodeName>,
    slow: BTreeSet<NodeName>,
    pub(super) lagging: BTreeMap<NodeName, Arc<Lag>>,
    pub(super) resumed: Arc<Notify>,
    /// The number of elections that have begun; the last is not over while `electing`.
    pub(super) elections: u64,
    pub(super) electing: bool,
    pub(super) elected: Arc<Notify>,
    pub down: bool,
    /// True while replies are lost and requests delayed now and then.
    pub lossy: bool,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            mute: BTreeSet::new(),
            deaf: BTreeSet::new(),
            paused: BTreeSet::new(),
            slow: BTreeSet::new(),
            lagging: BTreeMap::new(),
            resumed: Arc::default(),
            elections: 0,
            electing: false,
            elected: Arc::default(),
            down: false,
            lossy: false,
        }
    }

    pub fn cut(&mut self, node: &NodeName, way: Way) {
        if way != Way::Answers {
            self.mute.insert(node.clone());
        }
        if way != Way::Requests {
            self.deaf.insert(node.clone());
        }
    }

    pub fn mend(&mut self, node: &NodeName) {
        self.mute.remove(node);
        self.deaf.remove(node);
    }

    /// The leader is lost; or there is another one, and requests are served again.
    pub fn election(&mut self, begins: bool) {
        self.electing = begins;
        if begins {
            self.elections += 1;
        } else {
            self.elected.notify_waiters();
        }
    }

    pub fn pause(&mut self, node: &NodeName, paused: bool) {
        if paused {
            self.paused.insert(node.clone());
        } else {
            self.paused.remove(node);
            self.resumed.notify_waiters();
        }
    }

    /// Answers to this node come late, as on a line that is about to fail.
    pub fn slow(&mut self, node: &NodeName, slow: bool) {
        if slow {
            self.slow.insert(node.clone());
        } else {
            self.slow.remove(node);
        }
    }

    /// The server that this node reads from stands still; if it does already, it takes one step.
    pub fn lag(&mut self, node: &NodeName, store: &MemoryStore) {
        match self.lagging.get(node) {
            Some(lag) => lag.catch_up(store),
            None => {
                self.lagging.insert(node.clone(), Arc::new(Lag::behind(store)));
            }
        }
    }

    pub fn catch_up(&mut self, node: &NodeName, store: &MemoryStore) {
        if let Some(lag) = self.lagging.remove(node) {
            lag.catch_up(store);
        }
    }

    /// Draws whether the leader that did the write, `elections` ago, was gone before it could answer.
    pub(super) fn leader_left_unsaid(&mut self, elections: u64) -> bool {
        self.elections != elections && self.rng.random_bool(0.5)
    }

    /// Draws what becomes of a write that meets no leader.
    pub(super) fn leaderless(&mut self) -> Leaderless {
        match self.rng.random_range(0..4) {
            0 => Leaderless::Refused,
            1 => Leaderless::Lost,
            _ => Leaderless::Held,
        }
    }

    pub(super) fn fate(&mut self, node: &NodeName) -> Fate {
        let mut way = || {
            let latency = Duration::from_micros(self.rng.random_range(200..8_000));
            let slow = self.lossy && self.rng.random_bool(0.1);
            if slow { latency + Duration::from_millis(self.rng.random_range(10..950)) } else { latency }
        };
        let (there, mut back) = (way(), way());
        if self.slow.contains(node) {
            back += Duration::from_millis(self.rng.random_range(100..1_600));
        }
        Fate {
            there,
            back,
            reply_lost: self.lossy && self.rng.random_bool(0.05),
            late: (self.lossy && self.rng.random_bool(0.02))
                .then(|| Duration::from_millis(self.rng.random_range(500..9_000))),
            // A request under way when the cable is pulled may still arrive.
            arrives_all_the_same: self.rng.random_bool(0.1),
        }
    }
}

/// The fate of a write that is under way when the leader is lost, or is sent before there is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaderless {
    Refused,
    /// The write is neither done nor answered.
    Lost,
    /// The write is done by the next leader, even if nobody waits for the answer any more.
    Held,
}

/// The fate of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    pub(super) there: Duration,
    pub(super) back: Duration,
    pub(super) reply_lost: bool,
    pub(super) late: Option<Duration>,
    pub(super) arrives_all_the_same: bool,
}
