//! Bugs planted on purpose, to show that the simulator and the tests would find them: `make planted` plants each of them.
//! In a build without the simulator there are none, and the compiler removes every question after them.

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident,)*) => {
        /// The thing that a bug breaks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$doc])* $bug,)*
        }

        impl Bug {
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => stringify!($bug),)*
                }
            }
        }
    };
}

bugs! {
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
    /// A copy that could not be looked at is taken for one that is not there.
    UnknownIsAbsent,
    /// The node lives by a clock that stands still while its host is suspended.
    ClockStopsInSuspend,
    /// The watchdog is petted whatever the copies do.
    AlwaysPetted,
    /// A write of the ownership record goes out without the check that this node's own lease is still the one it rests on.
    OwnLeaseNotInTheWrite,
    /// The same without the check that the others' leases still say that they have no copy.
    OthersWordNotInTheWrite,
    /// The lease of every node that a write rests on is checked in its transaction, however many there are.
    EveryLeaseChecked,
    /// The word of many nodes is not read again after this node's own write.
    ManyNotReadAgain,
    /// A start is planned under a record that was written before the store went back in time.
    OldWritePlannedBy,
    /// The same where the decision is carried out.
    OldWriteStartedBy,
    /// Ownership is given up while nobody can see the processes of this node.
    GivenUpUnseen,
    /// An ownership write that was not answered is forgotten.
    UnansweredWriteForgotten,
    /// The epoch of a new life is counted from what the store shows, however old that is.
    EpochRepeats,
    /// A keeper that gives its lease up does not look again once no start can find it valid any more.
    NoLookAfterRelease,
    /// A lease that is there and cannot be read is taken for one that is over.
    UnreadableIsDead,
    /// Anything that is wrong with the VM's disk as the host sees it counts as a disk that is not reached.
    AnyFaultIsLostStorage,
    /// A fault of storage that the host was seen to have ends the VM at once.
    StorageNeedsNoPatience,
    /// A definition of the domain is left on a node that may not run it.
    DefinitionLeft,
    /// A lease that is seen for the first time counts as one that was just renewed.
    NewsFromOneLook,
    /// The same after looks that failed.
    NewsAcrossAGap,
    /// A fence rests on what was watched, without a look at what is there now.
    FenceUnread,
    /// D counts from when the node was first seen, whatever it has renewed since.
    CountedFromFirstSight,
    /// D is what a restored snapshot shows, not the longest that was seen.
    LongerDForgotten,
    /// A member without a lease is not waited for.
    SilentMemberIgnored,
    /// A lease that was there before the store went back is not missed after it.
    VanishedLeaseForgotten,
    /// The step back of the store that a keeper has seen is forgotten at once.
    WentBackForgotten,
    /// The leases of others as they were seen while this node's own lease was broken count like what it sees now.
    JudgedWhileCutOff,
    /// A guest is let run without asking the keeper again.
    ResumeUnasked,
    /// A VM that libvirt has written down as moved away is given up like one that has died.
    MovedAwayIsDead,
    CameBackIsObeyed,
    /// A second copy beside the owner's own is left running.
    SecondBesideTheOwn,
    /// A copy is ended for want of a lease, though the keeper has renewed it meanwhile.
    EndedThoughRenewed,
    /// A guest is shut down by an order that was taken back.
    StoppedThoughTakenBack,
    /// The source of a migration that cannot see its hypervisor gives the VM over.
    HandedOverBlind,
    /// A process table that cannot be read counts as one without a copy.
    BlindIsNoCopy,
    /// A shorter F is obeyed once it is confirmed, and not from its sending on.
    ObeyedAfterAnnounced,
    /// The watchdog is petted for as long as the lease holds, however soon others may fence after it.
    PettedPastFence,
    /// A node's word that it has a copy is not listened to.
    CopyElsewhereIgnored,
    /// A controller that was restarted acts on the record as it finds it.
    AdoptedUnwritten,
    /// A controller that was restarted without a copy does not ask the others.
    AdoptedUnasked,
    /// A new life begins while a copy of the one before is alive.
    RebornBesideACopy,
    /// A new life begins though nobody can see whether a copy is alive.
    RebornBlind,
    /// The memory of a keeper counts after a boot, too.
    MemoryOutlivesTheBoot,
    /// The VM of a node is given up for the silence of its controller, with its copy alive.
    FreedWithItsCopy,
    /// A record put in the place of a lease that was gone is fenced after the D of its holder, which nobody knows.
    LostIsFencedEarly,
    /// A node whose own lease is not in the list takes the list for what is there.
    ListNotShownToBeNow,
    /// The VM is taken over while operators want nothing begun.
    TakenWhileFrozen,
    /// The keeper lets a copy live that nobody has said to be there, because the lease is valid.
    KeepsTheUnexpected,
    /// A guest that was moved away past zsha is started afresh.
    DepartedIsGone,
    /// A record of an earlier life that somebody has put under a lease's key again counts as the word of its holder.
    PutBackIsNews,
    /// A start that was asked for before the guest had left counts as the word of somebody who has looked where it is.
    StartOfBeforeCounts,
    /// The owner of a guest that has left takes whatever is started by hand in its place for that guest.
    OwnWhereItHasLeft,
    /// A VM that is gone without a word is started afresh, though libvirt's log could not be read.
    GoneUnread,
    /// A keeper whose controller is down takes what is started by hand, where its own copy has left, for that.
    AnyCopyIsTheOwn,
    /// The owner that cannot see its hypervisor gives the VM up without asking how its copy has ended.
    GivenUpUnread,
    /// A guest that a migration by hand has left paused is let go on though it may go on where it went.
    SourceGoesOnUnasked,
    /// Any process of the VM on the named node, be it one that is arriving, outweighs the guest that runs unnamed.
    AnyCopyElsewhereStays,
    /// The remains of a guest at the source of a migration take it from the target.
    LeftoverEndsTheMove,
    /// A guest that is moved by hand to a node which stands by for it is ended there.
    NotHandedOverIsEnded,
    /// A copy of this life of the lease is ended because a record names somebody else.
    RecordOutweighsTheCopy,
    /// A guest that somebody has restored from a file is taken for the VM.
    SavedFileIsTheVm,
    /// The disk that the VM writes to is not written down where it is another than the document's.
    DiskForgotten,
}

/// Breaks it on this thread, or mends it.
#[cfg(any(test, feature = "sim"))]
pub fn plant(bug: Option<Bug>) {
    zsha_runtime::planted::plant(bug.map(Bug::name));
}

#[cfg(any(test, feature = "sim"))]
pub(crate) fn is_planted(bug: Bug) -> bool {
    zsha_runtime::planted::is_planted(bug.name())
}

#[cfg(not(any(test, feature = "sim")))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}
