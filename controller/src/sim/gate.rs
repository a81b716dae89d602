//! The gate that every call of every node passes on its way to the store, the hypervisor or the keeper. It counts the
//! calls, so that "call 217" is the same call in every run of a seed. It makes one of them go wrong in the way that was
//! asked for; or, for a stretch of time, any of them at random.

mod edges;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use zsha_crds::NodeName;

pub use edges::{GatedHypervisor, GatedLease, GatedStore};

/// The ways in which a call can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFault {
    /// The call is not done, and the caller is told so.
    Refused,
    /// The call is done, and the answer never comes.
    ReplyLost,
    /// The node loses power before the call is done.
    CrashBefore,
    /// The node loses power when the call is done, before it gets the answer.
    CrashAfter,
    /// The controller dies before the call is done. (A call of the keeper ends with its controller, too.)
    ControllerDies,
    /// The call is done a good while later, and the answer never comes.
    Late,
    /// The answer is an empty list, as for a token without rights.
    Empty,
}

impl CallFault {
    pub const ALL: [Self; 7] = [
        Self::Refused,
        Self::ReplyLost,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::ControllerDies,
        Self::Late,
        Self::Empty,
    ];

    /// The name under which faults of this kind are counted.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Refused => "call refused",
            Self::ReplyLost => "call's reply lost",
            Self::CrashBefore => "crash before a call",
            Self::CrashAfter => "crash after a call",
            Self::ControllerDies => "controller dies in a call",
            Self::Late => "call late",
            Self::Empty => "empty list",
        }
    }
}

/// The ways in which a call takes its node down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    Power,
    Controller,
    /// No call has taken the node down, but its watchdog.
    Watchdog,
}

/// A time later than any deadline of a call.
const LATE: Duration = Duration::from_secs(4);
/// The time after which the store's callers give up.
const TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct State {
    rng: SmallRng,
    passed: u64,
    target: Option<(u64, CallFault)>,
    met: Option<String>,
    /// How many calls in a thousand go wrong, for one node or for all.
    odds: BTreeMap<Option<NodeName>, u32>,
    counts: BTreeMap<&'static str, u64>,
    crashes: VecDeque<(NodeName, Crash)>,
}

impl State {
    /// Draws what goes wrong with the next call, if anything does.
    fn draw(&mut self, node: &NodeName) -> Option<CallFault> {
        if let Some((_, fault)) = self.target.filter(|(target, _)| *target == self.passed) {
            return Some(fault);
        }
        if self.odds.is_empty() {
            return None;
        }
        let of = |odds: Option<&u32>| odds.copied().unwrap_or_default();
        let odds = of(self.odds.get(&None)).max(of(self.odds.get(&Some(node.clone()))));
        let met = self.rng.random_ratio(odds.min(1_000), 1_000);
        met.then(|| CallFault::ALL[self.rng.random_range(0..CallFault::ALL.len())])
    }
}

/// The words of an edge for a call that goes wrong, and how long its callers wait for an answer.
struct Words<E> {
    refused: E,
    unanswered: E,
    deadline: Duration,
}

#[derive(Debug)]
pub struct Gate {
    state: Mutex<State>,
    crashed: Notify,
}

impl Gate {
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: SmallRng::seed_from_u64(seed),
            passed: 0,
            target: None,
            met: None,
            odds: BTreeMap::new(),
            counts: BTreeMap::new(),
            crashes: VecDeque::new(),
        };
        Self { state: Mutex::new(state), crashed: Notify::new() }
    }

    /// Makes the call of this number, counted from 0, go wrong in this way.
    pub fn arm(&self, call: u64, fault: CallFault) {
        self.state().target = Some((call, fault));
    }

    pub fn disarm(&self) {
        self.state().target = None;
    }

    /// Makes so many calls in a thousand go wrong from now on, of this node or of all; with 0 none does.
    pub fn trouble(&self, node: Option<NodeName>, per_mille: u32) {
        let mut state = self.state();
        if per_mille > 0 {
            state.odds.insert(node, per_mille);
        } else {
            state.odds.remove(&node);
        }
    }

    /// Lets no call go wrong from now on.
    pub fn mend(&self) {
        let mut state = self.state();
        state.odds.clear();
        state.target = None;
    }

    /// The number of calls so far.
    pub fn passed(&self) -> u64 {
        self.state().passed
    }

    /// The call that was made to go wrong, in words.
    pub fn met(&self) -> Option<String> {
        self.state().met.clone()
    }

    /// The number of faults done to calls so far, by kind.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state().counts.clone()
    }

    /// Waits until a call takes its node down.
    pub async fn crash(&self) -> (NodeName, Crash) {
        loop {
            let crashed = self.crashed.notified();
            if let Some(crash) = self.crashed_meanwhile() {
                return crash;
            }
            crashed.await;
        }
    }

    /// Does the same without waiting.
    pub fn crashed_meanwhile(&self) -> Option<(NodeName, Crash)> {
        self.state().crashes.pop_front()
    }

    /// Takes this node down now.
    pub fn take_down(&self, node: &NodeName, crash: Crash) {
        self.state().crashes.push_back((node.clone(), crash));
        self.crashed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meet(&self, node: &NodeName, call: &str) -> Option<CallFault> {
        let mut state = self.state();
        let fault = state.draw(node);
        state.passed += 1;
        let fault = fault?;
        state.met = Some(format!("{call} of {node}"));
        *state.counts.entry(fault.kind()).or_default() += 1;
        Some(fault)
    }

    async fn end<T>(&self, node: &NodeName, crash: Crash) -> T {
        self.take_down(node, crash);
        std::future::pending().await
    }

    /// One call. `empty` is an answer without anything in it.
    async fn pass<T: Send + 'static, E>(
        &self,
        (node, name): (&NodeName, &'static str),
        call: impl Future<Output = Result<T, E>>,
        empty: impl FnOnce(T) -> T + Send,
        words: Words<E>,
    ) -> Result<T, E> {
        match self.meet(node, name) {
            None => call.await,
            Some(CallFault::Empty) => call.await.map(empty),
            Some(CallFault::Refused) => Err(words.refused),
            Some(CallFault::ReplyLost) => {
                // Done, whatever came of it.
                let _ = call.await;
                tokio::time::sleep(words.deadline).await;
                Err(words.unanswered)
            }
            Some(CallFault::CrashBefore) => self.end(node, Crash::Power).await,
            Some(CallFault::ControllerDies) => self.end(node, Crash::Controller).await,
            Some(CallFault::CrashAfter) => {
                let _ = call.await;
                self.end(node, Crash::Power).await
            }
            Some(CallFault::Late) => {
                tokio::time::sleep(LATE).await;
                let _ = call.await;
                Err(words.unanswered)
            }
        }
    }
}
