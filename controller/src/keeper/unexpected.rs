//! What may not be here though the lease is valid, where this node has the VM.

use super::copies::VmCopy;
use crate::planted::{self, Bug};

/// All but the one that was here first. A start is refused where there is a process already, so what came later was made past
/// zsha: by another libvirt daemon, or by hand. One that takes in a guest from elsewhere is left to the controllers, as
/// everywhere; and where it cannot be told which came first, nothing is ended.
///
/// Only those that certainly could run the VM are looked at. While nobody knows who runs QEMU, anybody's
/// process that is called so counts as a copy, and one that was here first would make the VM's own a second
/// one.
pub(super) fn beside_the_own(found: &[VmCopy]) -> Vec<VmCopy> {
    if planted::is_planted(Bug::SecondBesideTheOwn) {
        return Vec::new();
    }
    let certain = || found.iter().filter(|copy| copy.certain);
    let Some(starts) = certain().map(|copy| copy.started).collect::<Option<Vec<u64>>>() else {
        return Vec::new();
    };
    let Some(first) = starts.into_iter().min() else { return Vec::new() };
    let later = certain().filter(|copy| copy.started.is_some_and(|at| at > first) && !copy.incoming);
    later.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(process: u64, started: Option<u64>) -> VmCopy {
        let mut copy = VmCopy::numbered(process);
        copy.started = started;
        copy
    }

    fn ended(found: &[VmCopy]) -> Vec<u64> {
        beside_the_own(found).iter().map(|copy| copy.process).collect()
    }

    #[test]
    fn what_came_after_the_own_copy_is_ended() {
        let own = copy(70, Some(500));
        assert_eq!(ended(std::slice::from_ref(&own)), [0u64; 0]);
        assert_eq!(ended(&[copy(9, Some(600)), own.clone(), copy(71, Some(501))]), [9, 71]);
        let mut arrived = own.clone();
        arrived.incoming = true;
        assert_eq!(ended(&[arrived, copy(71, Some(501))]), [71], "the VM came by a migration");
        let mut arriving = copy(71, Some(501));
        arriving.incoming = true;
        assert_eq!(ended(&[own.clone(), arriving]), [0u64; 0]);
        assert_eq!(
            ended(&[own.clone(), copy(71, Some(500))]),
            [0u64; 0],
            "it cannot be told which came first"
        );
        assert_eq!(ended(&[own, copy(71, None)]), [0u64; 0]);
        assert_eq!(ended(&[]), [0u64; 0]);
    }

    #[test]
    fn what_may_be_a_strangers_is_neither_the_own_copy_nor_a_second_one() {
        let own = copy(70, Some(500));
        let mut stranger = copy(9, Some(400));
        stranger.certain = false;
        assert_eq!(
            ended(&[stranger.clone(), own.clone()]),
            [0u64; 0],
            "it was here first, and the VM's own lives"
        );
        assert_eq!(ended(&[stranger.clone(), own.clone(), copy(71, Some(501))]), [71]);
        stranger.started = Some(600);
        assert_eq!(
            ended(&[own.clone(), stranger.clone()]),
            [0u64; 0],
            "nobody knows whether it is a second one"
        );
        stranger.started = None;
        assert_eq!(ended(&[stranger.clone(), own, copy(71, Some(501))]), [71], "nor when it was started");
        assert_eq!(ended(&[stranger]), [0u64; 0]);
    }
}
