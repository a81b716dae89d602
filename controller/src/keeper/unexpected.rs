//! Finds copies that may not be here though the lease is valid and this node has the VM.

use super::copies::VmCopy;
use crate::planted::{self, Bug};

/// All copies but the one that was here first. A start is refused where there is a process already, so a later copy was
/// made past zsha: by another libvirt daemon, or by hand. A copy that takes in a guest from elsewhere is left to the
/// controllers, as everywhere; and where it cannot be told which copy came first, none is ended.
///
/// Only copies that certainly could run the VM are looked at. While it is not known which user runs QEMU, any user's
/// process that is called so counts as a copy, and one that was here first would make the VM's own a second one.
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

/// The finding of a look in the place of the own copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instead {
    /// There is no finding: the own copy is here, or it is not known which copy that is. Or the copy that is here may
    /// be a stranger's, or is brought by a migration, which is left to the controllers as everywhere.
    Nothing,
    /// There is no process of the VM.
    Nobody,
    /// There is another copy, which was booted here.
    Another,
}

/// The process that is this node's own copy.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    which: Option<VmCopy>,
    was_seen: bool,
}

impl Own {
    /// The own copy for a keeper that is started anew. `was_to_be_here` says whether the keeper before was to find a
    /// copy here; it may have seen one.
    pub(super) fn as_remembered(was_to_be_here: bool) -> Self {
        Self { which: None, was_seen: was_to_be_here }
    }

    /// True if there may have been an own copy, since this keeper or the one before it was told of it.
    pub(super) fn was_seen(&self) -> bool {
        self.was_seen
    }

    /// Forgets which process it is, since the controller has said anew which copy is to be here. The next copy that is
    /// seen is it.
    pub(super) fn forget_which(&mut self) {
        self.which = None;
    }

    /// Says what is here instead of the own copy.
    pub(super) fn instead_of_it(&self, found: &[VmCopy]) -> Instead {
        let Some(own) = &self.which else { return Instead::Nothing };
        if found.is_empty() {
            return Instead::Nobody;
        }
        let is_another = |copy: &VmCopy| copy.certain && !copy.incoming;
        match found.iter().any(|copy| is_one(copy, own)) || !found.iter().any(is_another) {
            true => Instead::Nothing,
            false => Instead::Another,
        }
    }

    /// Takes a copy that was found for the own one: the first that came, where there are more.
    pub(super) fn see(&mut self, found: &[VmCopy]) {
        let first = found.iter().filter(|copy| copy.certain).min_by_key(|copy| copy.started);
        let known = |own: &VmCopy| found.iter().any(|copy| is_one(copy, own));
        if let Some(first) = first.filter(|_| !self.which.as_ref().is_some_and(known)) {
            self.which = Some(first.clone());
            self.was_seen = true;
        }
    }
}

/// True if both are one process, also where one look could not read when it began.
fn is_one(copy: &VmCopy, own: &VmCopy) -> bool {
    let untold = copy.started.is_none() || own.started.is_none();
    copy.is_same_as(own) || untold && copy.process == own.process
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_here_instead_of_the_own_copy_is_found_and_what_arrives_is_not() {
        let mut own = Own::default();
        let (first, second) = (copy(70, Some(500)), copy(71, Some(600)));
        assert_eq!(own.instead_of_it(std::slice::from_ref(&second)), Instead::Nothing, "none is known");
        assert!(!own.was_seen());
        own.see(&[second.clone(), first.clone()]);
        assert!(own.was_seen());
        own.see(&[first.clone(), copy(3, Some(400))]);
        let (mut arriving, mut strangers) = (second.clone(), second.clone());
        arriving.incoming = true;
        strangers.certain = false;
        for (found, instead) in [
            (vec![first.clone(), second.clone()], Instead::Nothing),
            (vec![copy(70, None)], Instead::Nothing),
            (vec![], Instead::Nobody),
            (vec![second.clone()], Instead::Another),
            (vec![copy(70, Some(600))], Instead::Another),
            (vec![arriving, strangers], Instead::Nothing),
        ] {
            assert_eq!(own.instead_of_it(&found), instead, "{found:?}");
        }
        own.forget_which();
        assert_eq!(own.instead_of_it(&[second]), Instead::Nothing);
        assert!(own.was_seen() && Own::as_remembered(true).was_seen());
    }

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
