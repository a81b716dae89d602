//! Finds out how the present process of the VM came to be. The process itself is asked first, since nothing changes its
//! command line: a process that does not wait for memory from elsewhere has booted here. libvirt's reason for its state
//! says more only until the guest is paused or let go on.

use virt::domain::{
    DomainPausedReason, DomainRunningReason, DomainState, DomainStateEnum, DomainStateReason,
    DomainStateReasonEnum,
};
use virt::enumutil::Enum;

use crate::hypervisor::Origin;
use crate::keeper::copies::VmCopy;

/// The origin of a process that is there. `told` is what libvirt told of its start when it began.
pub(super) fn of(
    copies: &[VmCopy],
    state: Option<(DomainStateEnum, DomainStateReasonEnum)>,
    told: Option<Origin>,
) -> Origin {
    let [copy] = copies else { return Origin::Unknown };
    decide(copy.incoming, state, told)
}

fn decide(
    came: bool,
    state: Option<(DomainStateEnum, DomainStateReasonEnum)>,
    told: Option<Origin>,
) -> Origin {
    if !came {
        return Origin::Booted;
    }
    let by_state = state.and_then(|(state, reason)| by_state(state, reason));
    let told = told.filter(|told| *told != Origin::Unknown);
    let (said, hinted) = match by_state {
        Some(Said::Plainly(origin)) => (Some(origin), None),
        Some(Said::Perhaps(origin)) => (None, Some(origin)),
        None => (None, None),
    };
    match said.or(told).or(hinted) {
        // It came from elsewhere, whatever is said of it.
        Some(Origin::Booted) => Origin::Unknown,
        Some(origin) => origin,
        None => Origin::Unknown,
    }
}

enum Said {
    Plainly(Origin),
    /// The process has this origin if it arrives; one that leaves looks the same for a moment.
    Perhaps(Origin),
}

/// The origin by the reason of the state. None where the reason tells of something that happened since.
fn by_state(state: DomainStateEnum, reason: DomainStateReasonEnum) -> Option<Said> {
    let (Enum::Known(state), Enum::Known(reason)) = (state, reason) else { return None };
    match (state, reason) {
        (DomainState::Running, DomainStateReason::Running(Enum::Known(reason))) => match reason {
            DomainRunningReason::Booted => Some(Said::Plainly(Origin::Booted)),
            DomainRunningReason::Migrated | DomainRunningReason::PostCopy => {
                Some(Said::Plainly(Origin::Migrated))
            }
            DomainRunningReason::Restored | DomainRunningReason::FromSnapshot => {
                Some(Said::Plainly(Origin::Restored))
            }
            _ => None,
        },
        (DomainState::Paused, DomainStateReason::Paused(Enum::Known(reason))) => match reason {
            DomainPausedReason::Migration | DomainPausedReason::PostCopy => {
                Some(Said::Perhaps(Origin::Migrated))
            }
            DomainPausedReason::FromSnapshot => Some(Said::Plainly(Origin::Restored)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(reason: DomainRunningReason) -> Option<(DomainStateEnum, DomainStateReasonEnum)> {
        let reason = DomainStateReason::Running(Enum::Known(reason));
        Some((Enum::Known(DomainState::Running), Enum::Known(reason)))
    }

    fn paused(reason: DomainPausedReason) -> Option<(DomainStateEnum, DomainStateReasonEnum)> {
        let reason = DomainStateReason::Paused(Enum::Known(reason));
        Some((Enum::Known(DomainState::Paused), Enum::Known(reason)))
    }

    #[test]
    fn what_waits_for_no_memory_has_booted_whatever_else_is_said() {
        for state in [
            running(DomainRunningReason::Unpaused),
            // A source in the moment of leaving.
            paused(DomainPausedReason::Migration),
            None,
        ] {
            assert_eq!(decide(false, state, None), Origin::Booted);
        }
    }

    #[test]
    fn what_came_from_elsewhere_is_told_by_its_state_or_by_what_was_told_of_its_start() {
        let came = true;
        assert_eq!(decide(came, running(DomainRunningReason::Migrated), None), Origin::Migrated);
        assert_eq!(decide(came, running(DomainRunningReason::Restored), None), Origin::Restored);
        assert_eq!(decide(came, paused(DomainPausedReason::Migration), None), Origin::Migrated);
        let hidden = running(DomainRunningReason::Unpaused);
        assert_eq!(decide(came, hidden, Some(Origin::Migrated)), Origin::Migrated);
        assert_eq!(decide(came, hidden, Some(Origin::Restored)), Origin::Restored);
        assert_eq!(
            decide(came, paused(DomainPausedReason::Migration), Some(Origin::Restored)),
            Origin::Restored,
            "restored here, and about to leave"
        );
    }

    #[test]
    fn what_nothing_tells_of_is_unknown() {
        let hidden = paused(DomainPausedReason::User);
        assert_eq!(decide(true, hidden, None), Origin::Unknown);
        assert_eq!(decide(true, hidden, Some(Origin::Booted)), Origin::Unknown);
        assert_eq!(decide(true, hidden, Some(Origin::Unknown)), Origin::Unknown);
    }
}
