//! libvirt's states and reasons in our words. Values only.

use virt::domain::{
    DomainPausedReason, DomainPausedReasonEnum, DomainRunningReason, DomainShutoffReason,
    DomainShutoffReasonEnum, DomainState, DomainStateEnum, DomainStateReason, DomainStateReasonEnum,
};
use virt::enumutil::Enum;

use crate::hypervisor::{OffReason, PauseReason};

/// The word of libvirt on a domain that it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Off(OffReason),
    Paused(PauseReason),
    Running,
    ShuttingDown,
    Crashed,
}

/// Reads a state. None where it says nothing that could be relied on: the binding passes a state that could not be
/// asked for on as one of an unknown number.
pub(super) fn read(state: DomainStateEnum, reason: DomainStateReasonEnum) -> Option<Told> {
    let Enum::Known(state) = state else { return None };
    match (state, reason) {
        (DomainState::NoState, _) => None,
        (DomainState::Running | DomainState::Blocked, _) => Some(Told::Running),
        (DomainState::Paused, Enum::Known(DomainStateReason::Paused(reason))) => Some(paused(reason)),
        (DomainState::Paused | DomainState::PMSuspended, _) => Some(Told::Paused(PauseReason::Other)),
        // The guest has powered off; its process is about to end.
        (DomainState::Shutdown, _) => Some(Told::ShuttingDown),
        (DomainState::Shutoff, Enum::Known(DomainStateReason::Shutoff(reason))) => {
            Some(Told::Off(off(reason)))
        }
        (DomainState::Shutoff, _) => Some(Told::Off(OffReason::Unknown)),
        (DomainState::Crashed, _) => Some(Told::Crashed),
    }
}

/// True if the guest has powered off, whether or not its process has ended.
pub(super) fn has_powered_off(told: Told) -> bool {
    match told {
        Told::ShuttingDown | Told::Off(_) => true,
        Told::Paused(_) | Told::Running | Told::Crashed => false,
    }
}

fn paused(reason: DomainPausedReasonEnum) -> Told {
    let Enum::Known(reason) = reason else { return Told::Paused(PauseReason::Other) };
    match reason {
        DomainPausedReason::User | DomainPausedReason::StartingUp => Told::Paused(PauseReason::Asked),
        DomainPausedReason::IOError => Told::Paused(PauseReason::IoError),
        DomainPausedReason::Migration | DomainPausedReason::PostCopy => Told::Paused(PauseReason::Incoming),
        // Each side has half of the guest's memory, until somebody goes on with the migration.
        DomainPausedReason::PostCopyFailed => Told::Paused(PauseReason::Leaving),
        DomainPausedReason::Crashed => Told::Crashed,
        // KVM's internal error has no word of its own in libvirt and comes as unknown.
        DomainPausedReason::Unknown | DomainPausedReason::Watchdog | DomainPausedReason::APIError => {
            Told::Paused(PauseReason::Fault)
        }
        DomainPausedReason::Save
        | DomainPausedReason::Dump
        | DomainPausedReason::FromSnapshot
        | DomainPausedReason::ShuttingDown
        | DomainPausedReason::Snapshot => Told::Paused(PauseReason::Other),
    }
}

/// True if the guest executes at the target of a migration that has still to bring a part of its memory.
pub(super) fn is_post_copy(reason: DomainStateReasonEnum) -> bool {
    let Enum::Known(DomainStateReason::Running(Enum::Known(reason))) = reason else { return false };
    matches!(reason, DomainRunningReason::PostCopy | DomainRunningReason::PostCopyFailed)
}

fn off(reason: DomainShutoffReasonEnum) -> OffReason {
    let Enum::Known(reason) = reason else { return OffReason::Unknown };
    match reason {
        DomainShutoffReason::Shutdown => OffReason::Shutdown,
        DomainShutoffReason::Crashed | DomainShutoffReason::Daemon => OffReason::Died,
        DomainShutoffReason::Destroyed => OffReason::Destroyed,
        DomainShutoffReason::Migrated => OffReason::Migrated,
        // A start that failed was told to whoever started; no guest died of it.
        DomainShutoffReason::Failed
        | DomainShutoffReason::Unknown
        | DomainShutoffReason::Saved
        | DomainShutoffReason::FromSnapshot => OffReason::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use virt::enumutil::RawEnum;
    use virt::sys;

    use super::*;

    fn state(raw: sys::virDomainState) -> DomainStateEnum {
        DomainState::from_raw(raw).map_or(Enum::Unknown(raw), Enum::Known)
    }

    fn paused_for(raw: sys::virDomainPausedReason) -> Option<Told> {
        let reason = DomainPausedReason::from_raw(raw).map_or(Enum::Unknown(raw), Enum::Known);
        read(state(sys::VIR_DOMAIN_PAUSED), Enum::Known(DomainStateReason::Paused(reason)))
    }

    fn off_for(raw: sys::virDomainShutoffReason) -> Option<Told> {
        let reason = DomainShutoffReason::from_raw(raw).map_or(Enum::Unknown(raw), Enum::Known);
        read(state(sys::VIR_DOMAIN_SHUTOFF), Enum::Known(DomainStateReason::Shutoff(reason)))
    }

    #[test]
    fn a_state_that_could_not_be_asked_for_is_never_a_state() {
        assert_eq!(read(state(u32::MAX), Enum::Unknown(-1)), None);
        assert_eq!(read(state(sys::VIR_DOMAIN_NOSTATE), Enum::Unknown(0)), None);
        assert_eq!(read(state(99), Enum::Unknown(0)), None);
    }

    /// libvirt counts it as active until its process has ended, and refuses to ask it to shut down.
    #[test]
    fn a_guest_that_has_powered_off_is_told_from_one_that_cannot_be_asked() {
        let told = |raw| read(state(raw), Enum::Unknown(0)).unwrap();
        for raw in [sys::VIR_DOMAIN_SHUTDOWN, sys::VIR_DOMAIN_SHUTOFF] {
            assert!(has_powered_off(told(raw)), "{raw}");
        }
        for raw in [sys::VIR_DOMAIN_RUNNING, sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_CRASHED] {
            assert!(!has_powered_off(told(raw)), "{raw}");
        }
    }

    #[test]
    fn reasons_for_being_off_are_told_apart() {
        for (raw, reason) in [
            (sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN, OffReason::Shutdown),
            (sys::VIR_DOMAIN_SHUTOFF_CRASHED, OffReason::Died),
            (sys::VIR_DOMAIN_SHUTOFF_DAEMON, OffReason::Died),
            (sys::VIR_DOMAIN_SHUTOFF_DESTROYED, OffReason::Destroyed),
            (sys::VIR_DOMAIN_SHUTOFF_MIGRATED, OffReason::Migrated),
            (sys::VIR_DOMAIN_SHUTOFF_FAILED, OffReason::Unknown),
            (sys::VIR_DOMAIN_SHUTOFF_UNKNOWN, OffReason::Unknown),
            (77, OffReason::Unknown),
        ] {
            assert_eq!(off_for(raw), Some(Told::Off(reason)), "{raw}");
        }
    }

    #[test]
    fn reasons_for_being_paused_are_told_apart() {
        for (raw, reason) in [
            (sys::VIR_DOMAIN_PAUSED_USER, PauseReason::Asked),
            (sys::VIR_DOMAIN_PAUSED_STARTING_UP, PauseReason::Asked),
            (sys::VIR_DOMAIN_PAUSED_IOERROR, PauseReason::IoError),
            (sys::VIR_DOMAIN_PAUSED_MIGRATION, PauseReason::Incoming),
            (sys::VIR_DOMAIN_PAUSED_POSTCOPY, PauseReason::Incoming),
            (sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED, PauseReason::Leaving),
            (sys::VIR_DOMAIN_PAUSED_WATCHDOG, PauseReason::Fault),
            (sys::VIR_DOMAIN_PAUSED_UNKNOWN, PauseReason::Fault),
            (sys::VIR_DOMAIN_PAUSED_API_ERROR, PauseReason::Fault),
            (sys::VIR_DOMAIN_PAUSED_SNAPSHOT, PauseReason::Other),
            (77, PauseReason::Other),
        ] {
            assert_eq!(paused_for(raw), Some(Told::Paused(reason)), "{raw}");
        }
        assert_eq!(paused_for(sys::VIR_DOMAIN_PAUSED_CRASHED), Some(Told::Crashed));
    }

    #[test]
    fn a_guest_that_executes_with_memory_at_its_source_is_told_from_one_that_is_whole() {
        for (raw, halved) in [
            (sys::VIR_DOMAIN_RUNNING_POSTCOPY, true),
            (sys::VIR_DOMAIN_RUNNING_POSTCOPY_FAILED, true),
            (sys::VIR_DOMAIN_RUNNING_MIGRATED, false),
            (sys::VIR_DOMAIN_RUNNING_BOOTED, false),
        ] {
            let reason = DomainRunningReason::from_raw(raw).map_or(Enum::Unknown(raw), Enum::Known);
            assert_eq!(is_post_copy(Enum::Known(DomainStateReason::Running(reason))), halved, "{raw}");
        }
        assert!(!is_post_copy(Enum::Unknown(-1)));
    }
}
