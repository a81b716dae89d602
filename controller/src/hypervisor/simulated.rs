//! The hypervisors of several nodes in one process: what the simulator and `zsha-controller dev` run on.
//!
//! [`SimulatedHosts`] is the world: it knows every "QEMU process" on every node. [`SimulatedHypervisor`] is one node's
//! view of it, and keeps the promises of [`super::Hypervisor`]. Time is tokio's. Nothing is spawned. Whatever falls due
//! later (a guest that takes time to shut down, a call that happens after it was given up) is settled by the next look,
//! or on time by [`SimulatedHosts::run`], where a task drives it.
//!
//! It never decides who may run: two copies are two copies, and told so by [`SimulatedHosts::double_executions`].
//!
//! QEMU's image lock is on by default, as in reality. A test that shows that the *lease* alone keeps copies apart turns
//! it off with [`SimulatedHosts::set_image_locks`], or it will hide the bugs looked for.

mod administrator;
mod host;
mod mishaps;
mod moving;
mod request;
mod state;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use zsha_crds::{NodeName, VmId};

use super::OffReason;

use self::mishaps::Ending;
use self::state::State;
pub use self::view::SimulatedHypervisor;

/// A QEMU process: one start of the VM on one node. No two starts anywhere have the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub node: NodeName,
    pub process: u64,
    /// True if the guest runs. A paused process holds the image and writes nothing.
    pub executing: bool,
    /// True if it was killed in uninterruptible sleep: it executes nothing any more, and what it was writing may still
    /// land.
    pub may_write: bool,
    /// True if it was made to take in a guest from elsewhere.
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
    /// The nodes where it executed since that memory was taken, and until when.
    pub newer: Vec<(NodeName, Instant)>,
}

/// The times that things take on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// The time of a call, from asking to the answer; it happens in the middle. Zero still lets others run in between.
    pub call: Duration,
    /// The same for a start.
    pub start: Duration,
    /// The time from the request to shut down until the guest is off. None: the guest ignores it.
    pub guest_shutdown: Option<Duration>,
    /// The time of a live migration, until the guest stands still.
    pub migration: Duration,
    /// The time after which a call that is not answered is given up.
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

/// The fault of a node's hypervisor. Its QEMU goes on as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no connection: nothing happens, and the caller is told at once.
    Unreachable,
    /// There is no answer, and nothing happens.
    Hangs,
    /// The call happens, and is not answered.
    AnswersLost,
    /// The call is not answered, and happens this much later, perhaps long after the caller has given up.
    Late(Duration),
}

/// The fault of the migrations from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationFault {
    /// The migrations break half way.
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
    pub fn new(vm: VmId) -> Arc<Self> {
        let state = State::new(vm.name, vm.uuid, Instant::now());
        Arc::new(Self { state: Mutex::new(state), something_due: Notify::new() })
    }

    /// The view of one node.
    pub fn hypervisor(self: &Arc<Self>, node: &NodeName) -> SimulatedHypervisor {
        self.settled().host(node);
        SimulatedHypervisor::new(Arc::clone(self), node.clone())
    }

    /// Every QEMU process on all nodes, node by node.
    pub fn copies(&self) -> Vec<Copy> {
        self.settled().copies()
    }

    /// Finds what a scan of one node's processes finds, whatever its hypervisor says.
    pub fn copies_on(&self, node: &NodeName) -> Vec<Copy> {
        self.settled().copies().into_iter().filter(|copy| copy.node == *node).collect()
    }

    /// The way the last process on this node has ended, where there is none now.
    pub fn last_end(&self, node: &NodeName) -> Option<OffReason> {
        self.settled().last_end(node)
    }

    /// The way the process before the present one has ended.
    pub fn end_before_this(&self, node: &NodeName) -> Option<OffReason> {
        self.settled().end_before_this(node)
    }

    /// Sends SIGKILL from outside the hypervisor, as the keeper does. Returns how many processes are gone by it.
    pub fn kill_now(&self, node: &NodeName) -> usize {
        self.settled().end(node, Ending::Killed)
    }

    /// Every time that two copies executed at once, however briefly.
    pub fn double_executions(&self) -> Vec<DoubleExecution> {
        self.settled().double_executions.clone()
    }

    /// Lets QEMU crash. Returns true if there was one.
    pub fn qemu_dies(&self, node: &NodeName) -> bool {
        self.settled().end(node, Ending::Killed) > 0
    }

    /// Lets the guest power itself off. Returns true if one was executing.
    pub fn guest_powers_off(&self, node: &NodeName) -> bool {
        self.settled().guest_off(node, None)
    }

    /// Lets the disk give an error, so that QEMU pauses the guest. Returns true if one was executing.
    pub fn disk_fails(&self, node: &NodeName) -> bool {
        self.settled().disk_fails(node)
    }

    /// Takes the power from the host: its processes are gone at once, its hypervisor does not answer, and calls that
    /// were under way there never happen. Definitions are on its disk and stay.
    pub fn power_loss(&self, node: &NodeName) {
        self.settled().power_loss(node);
    }

    /// Boots the host. It runs nothing but what an administrator had defined to be started with it.
    pub fn power_on(&self, node: &NodeName) {
        self.settled().power_on(node, Instant::now());
    }

    /// Defines the VM there by hand, as an administrator does (`virsh define`, `virsh edit`), to be started with the
    /// host or not. It is on the disk: power does not matter to it.
    pub fn define_by_hand(&self, node: &NodeName, autostart: bool) {
        self.settled().define(node, true, autostart);
    }

    /// Sets the fault of a node's hypervisor from now on; `None` mends it.
    pub fn set_fault(&self, node: &NodeName, fault: Option<Fault>) {
        self.settled().set_fault(node, fault);
    }

    /// Makes every start there fail with this reason, until `None`.
    pub fn set_start_failure(&self, node: &NodeName, reason: Option<String>) {
        self.settled().host(node).start_failure = reason;
    }

    /// Sets the fault of the migrations from a node from now on; `None` mends it.
    pub fn set_migration_fault(&self, node: &NodeName, fault: Option<MigrationFault>) {
        self.settled().host(node).migration_fault = fault;
    }

    /// Forgets the migrations that were begun there: the process that began them has ended, and a new one knows of
    /// none.
    pub fn forget_job(&self, node: &NodeName) {
        self.settled().note_job(node, crate::hypervisor::MigrationJob::None);
    }

    /// Every resume of a guest whose memory was older than its disk.
    pub fn stale_resumes(&self) -> Vec<StaleResume> {
        self.settled().stale_resumes.clone()
    }

    /// Sets QEMU in uninterruptible sleep: no signal ends it, until `false`. A signal that was sent meanwhile ends it
    /// then.
    pub fn set_unkillable(&self, node: &NodeName, unkillable: bool) {
        self.settled().host(node).set_unkillable(unkillable);
    }

    /// Suspends the host as a whole: nothing on it runs, and nothing of what was asked of it happens.
    pub fn suspend(&self, node: &NodeName) {
        self.settled().suspend(node);
    }

    /// Wakes the host. It goes on where it was, its guest first.
    pub fn wake(&self, node: &NodeName) {
        self.settled().wake(node, Instant::now());
        self.tell_due();
    }

    /// Lets every guest there go on, from now on, when it is asked to power off.
    pub fn ignore_shutdowns(&self, node: &NodeName) {
        self.settled().host(node).delays.guest_shutdown = None;
    }

    /// Says whether the disk gives an error to whatever executes there, from now on.
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

    /// Says whether a process on one node keeps another from starting, as QEMU's own image lock does.
    pub fn set_image_locks(&self, on: bool) {
        self.settled().image_locks = on;
    }

    /// Lets no process start until then: an NFS server still holds the lock of a client that is gone.
    pub fn leave_image_locked(&self, until: Instant) {
        self.settled().image_locked_until = Some(until);
    }

    /// The moment when the next thing falls due by itself, if any does.
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

    /// Gives the state, with everything that has fallen due by now done.
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
