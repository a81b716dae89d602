//! The reasons of what happened, one word for each, and whether it is a warning. The events, the record of the last
//! start, the command line and the page all use these words.

use crate::records::EventType;
use crate::words::words;

macro_rules! reasons {
    ($($severity:ident { $($(#[$about:meta])* $name:ident,)* })*) => {
        words! {
            /// The reason why something happened: one CamelCase word in the store.
            #[derive(Hash)]
            EventReason {
                $($($(#[$about])* $name,)*)*
            }
        }

        impl EventReason {
            /// A reason that people should look at is a warning. A few reasons can be either, and say so where they
            /// happen.
            pub fn severity(self) -> EventType {
                match self {
                    $($(Self::$name => EventType::$severity,)*)*
                }
            }
        }
    };
}

reasons! {
    Normal {
        /// A controller that was started anew goes on with what is there.
        Adopted,
        /// The VM writes to the image of its document again.
        DiskBack,
        /// zsha runs the VM for the first time.
        FirstStart,
        /// The VM that had left is back on its node.
        FoundAgain,
        /// The guest was told its configuration, through its agent.
        GuestTold,
        /// A guest that was moved live has left its node; the target lets it go on.
        HandedOver,
        /// The guest was shut down with its host.
        HostShutDown,
        Migrated,
        MigrationAnswered,
        MigrationBegun,
        Mounted,
        /// The request to reset the guest's password is over; a warning where it was not done.
        PasswordAnswered,
        /// A node takes the VM that no node owned.
        Placed,
        /// A guest that QEMU had paused goes on; a warning where QEMU had a fault of its own.
        Resumed,
        Running,
        ShuttingDown,
        SpecValid,
        Started,
        /// The VM ran already when `zsha start` was given.
        StartTakenUp,
        Stopped,
        /// A definition that somebody had made was removed.
        Undefined,
    }
    Warning {
        /// A copy that runs is claimed by the node it runs on.
        ClaimedInPlace,
        /// Consul's elections take longer than the leases allow.
        ConsulElectionSlow,
        Destroyed,
        /// The VM writes to another disk than the image of its document.
        DiskChanged,
        /// The VM could be started on no node.
        Failed,
        Failover,
        Fenced,
        /// The owner gives the VM to the node that it was found on.
        FoundElsewhere,
        GaveUp,
        /// The guest has not been told its configuration.
        GuestNotTold,
        GuestPoweredOff,
        Killed,
        LeaseAtRisk,
        /// The VM was ended because its node's lease was over.
        LeaseEnded,
        LeaseReplaced,
        MigrationAborted,
        MigrationFailed,
        MigrationLost,
        /// The VM has left its node by a migration that was not zsha's.
        MovedAway,
        NotRunning,
        PageNotServed,
        /// The guest stands still.
        Paused,
        PoweredOff,
        QemuDied,
        /// The owner writes itself into the ownership record again.
        Reclaimed,
        /// The owner starts the VM again, by a new lease.
        Returned,
        SeenElsewhere,
        SpecInvalid,
        SpecWaits,
        StartFailed,
        StepFailed,
        UnexpectedCopyEnded,
        Unstable,
    }
}

impl EventReason {
    /// True if a write for this reason is one by which the owner starts its VM again on the spot.
    pub fn starts_again(self) -> bool {
        matches!(
            self,
            Self::LeaseEnded | Self::QemuDied | Self::GuestPoweredOff | Self::Destroyed | Self::NotRunning
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_as_it_was_asked_for_is_no_warning() {
        for good in [EventReason::StartTakenUp, EventReason::PasswordAnswered, EventReason::Migrated] {
            assert_eq!(good.severity(), EventType::Normal, "{good}");
        }
        for bad in [EventReason::Failover, EventReason::QemuDied, EventReason::UnexpectedCopyEnded] {
            assert_eq!(bad.severity(), EventType::Warning, "{bad}");
        }
    }

    #[test]
    fn every_word_is_there_once() {
        let words: std::collections::BTreeSet<_> =
            EventReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), EventReason::ALL.len());
    }
}
