//! Bugs planted on purpose, to show that the simulator would find them. In a build without the simulator there are
//! none, and the compiler removes every question after them.

#[cfg(any(test, feature = "sim"))]
use std::cell::Cell;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Ownership is given up before the copy is dead.
    ReleaseBeforeStop,
    /// The VM is started, and kept, whatever the lease says.
    StartWithoutLease,
    /// Nobody ever takes the VM from a node that is dead.
    NeverFence,
    /// The lease is reckoned from the answer to a renewal, not from its sending.
    DeadlineFromReply,
    /// A controller that finds its VM running after a restart starts it anew.
    RestartKills,
    /// A renewal whose answer was lost counts as one that succeeded.
    LostReplyCounts,
    /// A node is fenced as soon as its lease is seen, not D later.
    FenceOnFirstSight,
    /// A lease that is not there is taken for one that is over.
    MissingIsDead,
    /// A holder that was fenced renews as if it had not been.
    RenewAfterFenced,
    /// The source of a migration gives the VM over before its own copy is gone.
    HandOverEarly,
    /// The target of a migration lets what has arrived run before it is the owner.
    ResumeEarly,
    /// What could not be looked at is taken for what is not there.
    UnknownIsAbsent,
    /// The node lives by a clock that stands still while its host is suspended.
    ClockStopsInSuspend,
    /// The watchdog is petted whatever the copies do.
    AlwaysPetted,
    /// The keeper lets a copy live that nobody has said to be there, because the lease is valid.
    KeepsTheUnexpected,
}

impl Bug {
    pub const ALL: [Self; 14] = [
        Self::ReleaseBeforeStop,
        Self::StartWithoutLease,
        Self::NeverFence,
        Self::DeadlineFromReply,
        Self::RestartKills,
        Self::LostReplyCounts,
        Self::FenceOnFirstSight,
        Self::MissingIsDead,
        Self::RenewAfterFenced,
        Self::HandOverEarly,
        Self::ResumeEarly,
        Self::UnknownIsAbsent,
        Self::ClockStopsInSuspend,
        Self::AlwaysPetted,
    ];
}

#[cfg(any(test, feature = "sim"))]
thread_local! {
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Breaks it on this thread, or mends it.
#[cfg(any(test, feature = "sim"))]
pub fn plant(bug: Option<Bug>) {
    PLANTED.with(|planted| planted.set(bug));
}

#[cfg(any(test, feature = "sim"))]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.with(|planted| planted.get() == Some(bug))
}

#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}
