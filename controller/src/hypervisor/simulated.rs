//! The hypervisors of several nodes in one process: what the simulator and `zsha-controller dev` run on.
//!
//! [`SimulatedHosts`] is the world: it knows every "QEMU process" on every node. [`SimulatedHypervisor`] is one
//! node's view of it, and keeps the promises of [`super::Hypervisor`]. Time is tokio's. Nothing is spawned: what
//! falls due later (a guest that takes time to shut down, a call that happens after it was given up) is settled
//! by the next one who looks, or on time by [`SimulatedHosts::run`], where somebody drives it.
//!
//! It never decides who may run: two copies are two copies, and told so by [`SimulatedHosts::double_executions`].
//!
//! QEMU's image lock is on by default, as in reality. Whoever wants to show that the *lease* alone keeps copies
//! apart turns it off with [`SimulatedHosts::set_image_locks`], or it will hide the bugs looked for.

mod administrator;
mod moving;
mod state;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;
use zsha_crds::{NodeName, VmName};

use super::OffReason;

use self::state::{Ending, State};
pub use self::view::SimulatedHypervisor;

/// A QEMU process: one start of the VM on one node. No two starts anywhere have the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub node: NodeName,
    pub process: u64,
    /// Whether the guest runs. A paused process holds the image and writes nothing.
    pub executing: bool,
    /// It was killed in uninterruptible sleep: it executes nothing any more, and what it was writing may still land.
    pub may_write: bool,
    /// Whether it was made to take in a guest from elsewhere.
    pub incoming: bool,
    /// Generation of the definition it was started from.
    pub generation: u64,
    pub started: Instant,
}

/// Two copies executed at once: the one thing that may never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoubleExecution {
    pub at: Instant,
    pub first: NodeName,
    pub second: NodeName,
}

/// A guest went on whose memory is older than its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleResume {
    pub node: NodeName,
    /// Where it executed since that memory was taken, and until when.
    pub newer: Vec<(NodeName, Instant)>,
}

/// How long things take on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// A call, from asking to the answer; it happens in the middle. Zero still lets others run in between.
    pub call: Duration,
    /// The same for a start.
    pub start: Duration,
    /// From the request to shut down until the guest is off. None: the guest ignores it.
    pub guest_shutdown: Option<Duration>,
    /// A live migration, until the guest stands still.
    pub migration: Duration,
    /// When a call that is not answered is given up.
    pub deadline: Duration,
}

impl Delays {
    /// Nothing takes time, apart from waiting for an answer that does not come.
    pub const NONE: Self = Self {
        call: Duration::ZERO,
        start: Duration::ZERO,
        guest_shutdown: Some(Duration::ZERO),
        migration: Duration::ZERO,
        deadline: Duration::from_secs(5),
    };
}

impl Default for Delays {
    /// Roughly what libvirt and a small guest take.
    fn default() -> Self {
        Self {
            call: Duration::from_millis(2),
            start: Duration::from_millis(250),
            guest_shutdown: Some(Duration::from_secs(2)),
            migration: Duration::from_millis(1_500),
            deadline: Duration::from_secs(5),
        }
    }
}

/// What is wrong with a node's hypervisor. Its QEMU goes on as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No connection: nothing happens, and the caller is told at once.
    Unreachable,
    /// No answer, and nothing happens.
    Hangs,
    /// It happens, and is not answered.
    AnswersLost,
    /// It is not answered, and happens this much later, perhaps long after the caller has given up.
    Late(Duration),
}

/// What is wrong with the migrations from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationFault {
    /// They break half way.
    Breaks,
    /// The target has the whole guest, and the source never hears of it: it goes on at the source.
    AnswerLost,
}

/// Every host's hypervisor and every process of the one VM.
pub struct SimulatedHosts {
    state: Mutex<State>,
    something_due: Notify,
}

impl SimulatedHosts {
    /// A world without hosts; each comes into being, powered on, with its first [`Self::hypervisor`].
    pub fn new(name: VmName, uuid: Uuid) -> Arc<Self> {
        let state = State::new(name, uuid, Instant::now());
        Arc::new(Self { state: Mutex::new(state), something_due: Notify::new() })
    }

    /// The view of one node.
    pub fn hypervisor(self: &Arc<Self>, node: &NodeName) -> SimulatedHypervisor {
        self.settled().host(node);
        SimulatedHypervisor::new(Arc::clone(self), node.clone())
    }

    /// Every QEMU process anywhere, node by node.
    pub fn copies(&self) -> Vec<Copy> {
        self.settled().copies()
    }

    /// What a scan of one node's processes finds, whatever its hypervisor says.
    pub fn copies_on(&self, node: &NodeName) -> Vec<Copy> {
        self.settled().copies().into_iter().filter(|copy| copy.node == *node).collect()
    }

    /// How the last process on this node has ended, where there is none now.
    pub fn last_end(&self, node: &NodeName) -> Option<OffReason> {
        self.settled().last_end(node)
    }

    /// How the process before the one that is there now has ended.
    pub fn end_before_this(&self, node: &NodeName) -> Option<OffReason> {
        self.settled().end_before_this(node)
    }

    /// SIGKILL from outside the hypervisor, as the keeper sends it. How many processes are gone by it.
    pub fn kill_now(&self, node: &NodeName) -> usize {
        self.settled().end(node, Ending::Killed)
    }

    /// Every time that two copies executed at once, however briefly.
    pub fn double_executions(&self) -> Vec<DoubleExecution> {
        self.settled().double_executions.clone()
    }

    /// QEMU crashes. Whether there was one.
    pub fn qemu_dies(&self, node: &NodeName) -> bool {
        self.settled().end(node, Ending::Killed) > 0
    }

    /// The guest powers itself off. Whether one was executing.
    pub fn guest_powers_off(&self, node: &NodeName) -> bool {
        self.settled().guest_off(node, None)
    }

    /// The disk gives an error and QEMU pauses the guest. Whether one was executing.
    pub fn disk_fails(&self, node: &NodeName) -> bool {
        self.settled().disk_fails(node)
    }

    /// The host is without power: its processes are gone at once, its hypervisor answers nobody, what was under
    /// way there never happens. Definitions are on its disk and stay.
    pub fn power_loss(&self, node: &NodeName) {
        self.settled().power_loss(node);
    }

    /// The host boots. It runs nothing, but what somebody had defined to be started with it.
    pub fn power_on(&self, node: &NodeName) {
        self.settled().power_on(node, Instant::now());
    }

    /// An administrator defines the VM there by hand (`virsh define`, `virsh edit`), to be started with the host or
    /// not. It is on the disk: power does not matter to it.
    pub fn define_by_hand(&self, node: &NodeName, autostart: bool) {
        self.settled().define(node, true, autostart);
    }

    /// From now on, until `None`.
    pub fn set_fault(&self, node: &NodeName, fault: Option<Fault>) {
        self.settled().set_fault(node, fault);
    }

    /// Makes every start there fail with this reason, until `None`.
    pub fn set_start_failure(&self, node: &NodeName, reason: Option<String>) {
        self.settled().host(node).start_failure = reason;
    }

    /// From now on, until `None`.
    pub fn set_migration_fault(&self, node: &NodeName, fault: Option<MigrationFault>) {
        self.settled().host(node).migration_fault = fault;
    }

    /// The process that began migrations there has ended; a new one knows of none.
    pub fn forget_job(&self, node: &NodeName) {
        self.settled().note_job(node, crate::hypervisor::MigrationJob::None);
    }

    /// Every resume of a guest whose memory was older than its disk.
    pub fn stale_resumes(&self) -> Vec<StaleResume> {
        self.settled().stale_resumes.clone()
    }

    /// A QEMU in uninterruptible sleep: no signal ends it, until `false`; what was sent then ends it at once.
    pub fn set_unkillable(&self, node: &NodeName, unkillable: bool) {
        self.settled().host(node).set_unkillable(unkillable);
    }

    /// The host is suspended as a whole: nothing on it runs, nothing of what was asked of it happens.
    pub fn suspend(&self, node: &NodeName) {
        self.settled().suspend(node);
    }

    /// It goes on where it was, its guest first.
    pub fn wake(&self, node: &NodeName) {
        self.settled().wake(node, Instant::now());
        self.tell_due();
    }

    /// From now on every guest there goes on when it is asked to power off.
    pub fn ignore_shutdowns(&self, node: &NodeName) {
        self.settled().host(node).delays.guest_shutdown = None;
    }

    /// Whether the disk gives an error to whatever executes there, from now on.
    pub fn set_disk_gone(&self, node: &NodeName, gone: bool) {
        let mut state = self.settled();
        state.host(node).disk_gone = gone;
        if gone {
            state.disk_fails(node);
        }
    }

    pub fn set_delays(&self, node: &NodeName, delays: Delays) {
        self.settled().host(node).delays = delays;
    }

    /// Whether a process anywhere keeps another from starting, as QEMU's own image lock does.
    pub fn set_image_locks(&self, on: bool) {
        self.settled().image_locks = on;
    }

    /// Nobody can start until then: an NFS server still holds the lock of a client that is gone.
    pub fn leave_image_locked(&self, until: Instant) {
        self.settled().image_locked_until = Some(until);
    }

    /// When the next thing falls due by itself, if any.
    pub fn next_due(&self) -> Option<Instant> {
        self.settled().next_due()
    }

    /// Settles what falls due, on time, so that its events come on time. Never returns.
    pub async fn run(&self) {
        loop {
            let added = self.something_due.notified();
            match self.next_due() {
                Some(due) => {
                    tokio::select! {
                        biased;
                        () = added => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => added.await,
            }
        }
    }

    /// The state, with everything that has fallen due by now done.
    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.settle(Instant::now());
        state
    }

    /// Wakes [`Self::run`] when something was added to what falls due.
    fn tell_due(&self) {
        self.something_due.notify_one();
    }
}

impl fmt::Debug for SimulatedHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copies: BTreeMap<NodeName, bool> =
            self.copies().into_iter().map(|copy| (copy.node, copy.executing)).collect();
        f.debug_struct("SimulatedHosts").field("executing", &copies).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod tests;
