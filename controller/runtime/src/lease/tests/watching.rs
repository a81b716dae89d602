//! Tests what an observer concludes of a lease, to the millisecond and to the last word of the record.

use super::*;
use crate::lease::Sight;

const D: u64 = LeaseTimings::BALANCED.fence_after_millis;

/// `n1`'s lease, seen first at `at(0)`.
fn seen(record: LeaseRecord) -> Sight {
    let mut observer = Observer::default();
    observer.see(at(0), record, 7);
    observer.get(&identity("").node).unwrap().clone()
}

#[test]
fn a_lease_is_silent_and_expired_when_d_is_over_and_not_a_moment_before() {
    let sight = seen(sighted(7));
    assert!(!sight.is_silent(at(D - 1)) && sight.is_silent(at(D)));
    assert!(!sight.is_expired(at(D - 1)) && sight.is_expired(at(D)));
}

#[test]
fn a_lease_that_nobody_holds_falls_silent_and_never_expires() {
    for state in [LeaseState::Released, LeaseState::Fenced] {
        let sight = seen(LeaseRecord { state, ..sighted(7) });
        assert!(!sight.is_silent(at(D - 1)) && sight.is_silent(at(D)), "{state:?}");
        assert!(!sight.is_expired(at(D)), "{state:?}");
    }
}

#[test]
fn a_record_that_differs_in_one_thing_is_not_the_one_that_was_watched() {
    let record = sighted(7);
    let sight = seen(record.clone());
    assert!(sight.is_same(&record, 7));
    assert!(!sight.is_same(&record, 8));
    assert!(!sight.is_same(&LeaseRecord { seq: 8, ..record.clone() }, 7));
    assert!(!sight.is_same(&LeaseRecord { incarnation: Uuid::from_u128(9), ..record }, 7));
}

#[test]
fn a_lease_that_was_gone_for_a_while_is_watched_from_the_beginning() {
    let mut observer = Observer::default();
    let node = identity("").node;
    observer.see(at(0), sighted(7), 7);
    assert_eq!(observer.sights().len(), 1);
    observer.missing(&node);
    assert_eq!((observer.get(&node), observer.sights().len()), (None, 0));
    observer.see(at(5_000), sighted(7), 7);
    let sight = &observer.sights()[&node];
    assert_eq!((sight.fence_due(), sight.is_news), (Some(at(5_000 + D)), false));
}

/// The D by which the holder of such a lease lives is not known.
#[test]
fn a_record_in_the_place_of_a_lease_that_was_gone_is_fenced_after_the_longest_d_there_is() {
    let lost = LeaseRecord::lost(&Owner { node: identity("").node, epoch: 1 }, Timestamp::UNIX_EPOCH);
    let (sight, longest) = (seen(lost), LeaseTimings::LONGEST.fence_after_millis);
    assert!(!sight.is_expired(at(longest - 1)) && sight.is_expired(at(longest)));
}
