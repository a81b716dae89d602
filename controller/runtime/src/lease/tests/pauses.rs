//! Tests a host that something outside stops for a while, so that its own clock does not count it.

use super::*;

const F: Duration = LeaseTimings::BALANCED.ttl();

/// The moment from which an observer on a true clock may fence the holder, and the moment until which the holder's last
/// renewal holds in truth. The holder is stopped for 14 s after the first renewal, and cut off when it has sent the
/// second, at 15 s of a true clock.
fn paused_and_cut_off(may_be_paused: bool) -> (Moment, Moment) {
    let stood = Duration::from_secs(14);
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let node = holder.node().clone();
    let mut observer = Observer::default();
    let (record, index) = key.value.clone().unwrap();
    observer.see(at(10), record, index);
    let inputs = Inputs { may_be_paused, ..inputs(Copies::Some, 2) };
    let (op, attempt) = write(holder.next(at(1_000), inputs));
    holder.on_write(attempt, at(1_005), Ok(key.apply(&op)));
    let (record, index) = key.value.clone().unwrap();
    observer.see(at(1_010) + stood, record, index);
    (observer.get(&node).unwrap().fence_due().unwrap(), holder.deadline().unwrap() + stood)
}

#[test]
fn the_first_renewal_after_a_pause_that_the_holders_clock_missed_is_not_dated_before_the_pause() {
    let (fence, dead) = paused_and_cut_off(true);
    assert_eq!(dead, at(23_000));
    assert_eq!(fence, at(25_010), "D after it was seen");
}

#[test]
fn a_host_that_cannot_be_paused_says_when_it_sent() {
    // What the rule above keeps from happening: were this host paused all the same, it would be fenced while it holds.
    let (fence, dead) = paused_and_cut_off(false);
    assert!(fence < dead, "{fence:?} {dead:?}");
}

#[test]
fn a_pause_that_was_noticed_moves_the_deadline_and_the_earliest_fence_closer() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let fence = holder.fence().unwrap();
    holder.paused(at(500), Duration::from_secs(3));
    assert_eq!(holder.deadline(), Some(at(5_000)));
    assert_eq!(holder.fence(), Some(fence - Duration::from_secs(3)));
    // What is sent after that has not been through it.
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_005), Ok(key.apply(&op)));
    assert_eq!((holder.deadline(), holder.epoch()), (Some(at(1_000) + F), 1));
}

#[test]
fn a_renewal_that_was_on_its_way_during_a_pause_is_older_by_it() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.paused(at(1_050), Duration::from_secs(2));
    holder.paused(at(1_060), Duration::from_secs(1));
    holder.on_write(attempt, at(1_100), Ok(key.apply(&op)));
    assert_eq!(holder.deadline(), Some(at(6_000)));
}

#[test]
fn a_pause_longer_than_f_ends_the_life() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    holder.paused(at(500), Duration::from_secs(14));
    assert!(!holder.valid(at(500)));
    assert!(
        matches!(holder.next(at(1_000), inputs(Copies::Some, 2)), Next::Sleep { .. }),
        "its copy lives yet"
    );
    let (op, attempt) = write(holder.next(at(1_200), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(1_205), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), holder.unbroken_since(at(1_205))), (2, Some(at(1_200))));
}
