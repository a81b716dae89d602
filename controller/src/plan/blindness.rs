//! Tells whether this node's keeper sees the VM's process. A keeper in a PID namespace of its own (a container) counts
//! no copy where there is one, and would end none in time either. It takes two counts in a row: a single one may be of
//! a process that has just died.

use zsha_runtime::Moment;

use crate::hypervisor::LocalVm;
use crate::keeper::Verdict;
use crate::observed::Observed;

/// The counts of the keeper beside the looks at the hypervisor, carried from look to look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Blindness {
    /// The moment after the first look at the hypervisor that showed the process which is there.
    process_since: Option<Moment>,
    /// The moment when the keeper first counted no process since then.
    missed: Option<Moment>,
    blind: bool,
}

impl Blindness {
    /// Takes in one look at each; `now` is after both. A look that could not be had changes nothing.
    pub fn see(&mut self, now: Moment, local: &Observed<LocalVm>, lease: &Observed<Verdict>) -> bool {
        let (Some(local), Some(verdict)) = (local.known(), lease.known()) else { return self.blind };
        if !local.has_process() {
            *self = Self::default();
            return false;
        }
        let since = *self.process_since.get_or_insert(now);
        match (verdict.copies, verdict.counted_at) {
            (Some(0), Some(counted)) if counted > since => {
                let first = *self.missed.get_or_insert(counted);
                self.blind |= counted > first;
            }
            (Some(copies), _) if copies > 0 => (self.missed, self.blind) = (None, false),
            (Some(_) | None, _) => {}
        }
        self.blind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: LocalVm = LocalVm::Running { generation: 1 };

    /// Takes in what is seen at second `now`, where the keeper counted at `counted`.
    fn see(blindness: &mut Blindness, now: u64, local: LocalVm, counted: u64, copies: Option<u32>) -> bool {
        let verdict = Verdict {
            copies,
            counted_at: Some(Moment::from_millis(counted * 1_000)),
            expects: Some(zsha_runtime::lease::Expectation::Nothing),
            ..Verdict::invalid("n1")
        };
        blindness.see(Moment::from_millis(now * 1_000), &Observed::Known(local), &Observed::Known(verdict))
    }

    #[test]
    fn a_keeper_that_counts_none_twice_beside_a_process_is_blind_until_it_counts_one() {
        let mut blindness = Blindness::default();
        let seen = [(10, 9), (11, 10), (12, 11), (12, 11), (13, 12)]
            .map(|(now, counted)| see(&mut blindness, now, RUNNING, counted, Some(0)));
        assert_eq!(
            seen,
            [false, false, false, false, true],
            "a count from before the process proves nothing"
        );
        let unknown = blindness.see(
            Moment::from_millis(14_000),
            &Observed::unknown("no answer"),
            &Observed::unknown("no answer"),
        );
        assert!(unknown, "not knowing changes nothing");
        assert!(!see(&mut blindness, 15, RUNNING, 14, Some(1)));
    }

    #[test]
    fn a_process_that_has_just_died_or_just_begun_makes_nobody_blind() {
        let mut blindness = Blindness::default();
        assert!(!see(&mut blindness, 10, RUNNING, 9, Some(1)));
        assert!(
            !see(&mut blindness, 20, RUNNING, 19, Some(0)),
            "dead, and the hypervisor does not know it yet"
        );
        assert!(!see(&mut blindness, 21, LocalVm::Absent, 20, Some(0)));
        assert!(!see(&mut blindness, 22, RUNNING, 21, Some(0)));
    }

    #[test]
    fn a_keeper_that_cannot_look_or_does_not_say_when_is_not_called_blind() {
        let mut blindness = Blindness::default();
        for now in 10..20 {
            assert!(!see(&mut blindness, now, RUNNING, now - 1, None));
        }
    }

    #[test]
    fn a_count_of_none_that_is_an_old_one_changes_nothing() {
        let mut blindness = Blindness::default();
        for now in 10..14 {
            see(&mut blindness, now, RUNNING, now - 1, Some(0));
        }
        assert!(see(&mut blindness, 14, RUNNING, 5, Some(0)), "from before the process");
        assert!(!see(&mut blindness, 15, RUNNING, 5, Some(1)), "one that it saw, it sees");
    }
}
