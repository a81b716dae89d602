//! Tests how a holder takes the record it reads, and the answers to its writes.

use super::*;

/// A record held by another life of `n1`, in the epoch of the one that is lived.
fn of_another_life(machine: &str) -> LeaseRecord {
    LeaseRecord { incarnation: Uuid::from_u128(9), machine_id: machine.to_owned(), ..sighted(7) }
}

fn read(holder: &mut Holder, millis: u64, record: LeaseRecord) {
    holder.on_read(at(millis), Ok(Some((record, 50))));
}

/// Makes the next renewal, answered with success.
fn renew(holder: &mut Holder, key: &mut Key, millis: u64, inputs: Inputs) {
    let (op, attempt) = write(holder.next(at(millis), inputs));
    holder.on_write(attempt, at(millis), Ok(key.apply(&op)));
}

#[test]
fn the_same_life_shown_at_an_earlier_time_is_a_step_back_each_time_it_is_seen() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let old = key.value.clone().unwrap().0;
    renew(&mut holder, &mut key, 1_000, inputs(Copies::Some, 2));
    for millis in [2_000, 2_100] {
        read(&mut holder, millis, old.clone());
        assert_eq!(holder.store_went_back(), Some(at(millis)));
    }
    let confirmed = key.value.unwrap().0;
    read(&mut holder, 2_200, confirmed);
    assert_eq!(holder.store_went_back(), Some(at(2_100)), "what was confirmed last is no step back");
}

#[test]
fn another_life_in_the_place_of_one_that_was_confirmed_is_a_step_back() {
    let mut holder = held(&mut Key::default());
    read(&mut holder, 500, of_another_life("machine-1"));
    assert_eq!(holder.store_went_back(), Some(at(500)));
}

/// Boots the machine once more, which finds this record or none. Returns the holder, and what it writes then.
fn booted(wall: &str, found: Option<LeaseRecord>) -> (Holder, LeaseRecord) {
    let mut key = Key { value: found.map(|record| (record, 50)), last_index: 50 };
    let mut holder = Holder::new(identity("boot-2"), LeaseTimings::BALANCED, None);
    let inputs = Inputs { wall: wall.parse().unwrap(), ..inputs(Copies::None, 2) };
    assert_eq!(holder.next(at(0), inputs), Next::Read);
    holder.on_read(at(0), Ok(key.value.clone()));
    let (op, attempt) = write(holder.next(at(0), inputs));
    holder.on_write(attempt, at(5), Ok(key.apply(&op)));
    (holder, key.value.unwrap().0)
}

#[test]
fn a_snapshot_of_before_the_boot_shows_no_later_epoch_whatever_was_found_at_the_boot() {
    let (_, before) = booted("2026-11-01T00:00:00Z", None);
    let earlier = Some(LeaseRecord { epoch: 3, ..before.clone() });
    for found in [None, earlier, Some(before.clone())] {
        let (mut holder, now) = booted("2026-11-30T00:00:00Z", found);
        assert!(now.epoch > before.epoch, "{} is after {}", now.epoch, before.epoch);
        let restored = LeaseRecord { epoch: before.epoch + 1000, ..before.clone() };
        read(&mut holder, 1_000, restored);
        assert_eq!(holder.deadline(), Some(at(8_000)), "the lease of now goes on");
        let (op, _) = write(holder.next(at(1_000), inputs(Copies::Some, 3)));
        assert!(matches!(op, Op::Cas { index: 50, .. }), "and is written over the restored one: {op:?}");
    }
}

/// A snapshot that is restored may show a record of the machine that this one has replaced.
#[test]
fn what_was_fenced_or_released_before_this_life_ends_nothing_whichever_machine_had_it() {
    let (_, now) = booted("2026-11-30T00:00:00Z", None);
    for state in [LeaseState::Fenced, LeaseState::Released] {
        for machine in ["machine-1", "machine-0"] {
            let (mut holder, _) = booted("2026-11-30T00:00:00Z", None);
            let epoch = now.epoch - 1;
            read(
                &mut holder,
                1_000,
                LeaseRecord { state, epoch, machine_id: machine.to_owned(), ..sighted(7) },
            );
            assert_eq!(holder.deadline(), Some(at(8_000)), "{state:?} of {machine}");
            let later = LeaseRecord { state, epoch: now.epoch + 1, ..sighted(7) };
            read(&mut holder, 1_100, later);
            assert_eq!(holder.deadline(), None, "a fence of this life");
        }
    }
}

#[test]
fn a_wall_clock_that_was_set_back_makes_no_epoch_earlier_than_the_one_that_is_known() {
    let (_, before) = booted("2026-11-01T00:00:00Z", None);
    let (_, now) = booted("1970-01-01T00:00:03Z", Some(before.clone()));
    assert_eq!(now.epoch, before.epoch + 1);
    assert_eq!(booted("1969-01-01T00:00:00Z", None).1.epoch, 1);
}

#[test]
fn what_others_put_in_the_place_of_a_lease_that_was_gone_is_no_step_back() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    replaced(&mut key, 1);
    holder.on_read(at(500), Ok(key.value));
    assert_eq!(holder.store_went_back(), None);
}

#[test]
fn another_life_where_this_process_has_confirmed_none_is_no_step_back() {
    let first = held(&mut Key::default());
    let memory = Memory { unbroken: None, ..first.memory().unwrap() };
    let mut holder = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, Some(memory));
    read(&mut holder, 500, of_another_life("machine-1"));
    assert_eq!(holder.store_went_back(), None);
}

#[test]
fn a_record_of_another_life_of_this_machine_in_the_same_epoch_ends_this_one() {
    let mut holder = held(&mut Key::default());
    read(&mut holder, 500, of_another_life("machine-1"));
    assert_eq!(holder.deadline(), None);
    assert!(!matches!(holder.next(at(500), inputs(Copies::Some, 2)), Next::Write { .. }));
}

#[test]
fn another_machine_under_the_same_name_that_renews_is_never_taken_over() {
    let mut holder = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, None);
    let record = of_another_life("machine-2");
    let d = LeaseTimings::BALANCED.fence_after().as_millis() as u64;
    let reads = |holder: &mut Holder, millis, seq, index| {
        holder.on_read(at(millis), Ok(Some((LeaseRecord { seq, ..record.clone() }, index))));
        holder.next(at(millis + 200), inputs(Copies::None, 2))
    };
    for seq in 0..20 {
        assert_eq!(reads(&mut holder, seq * 3_000, seq, seq), Next::Read);
    }
    let last = 19 * 3_000;
    assert_eq!(reads(&mut holder, last + d - 201, 19, 19), Next::Read);
    // Written once more, the same in every word: its writer lives.
    assert_eq!(reads(&mut holder, last + d, 19, 20), Next::Read);
    assert_eq!(reads(&mut holder, last + d + d - 201, 19, 20), Next::Read);
    assert!(matches!(reads(&mut holder, last + d + d - 200, 19, 20), Next::Write { .. }));
}

#[test]
fn a_write_that_surely_did_not_arrive_is_tried_again_a_little_later() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let (_, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    let away = StoreError::Unavailable { operation: "renew".to_owned(), reason: "no leader".to_owned() };
    holder.on_write(attempt, at(1_100), Err(away));
    assert_eq!(sleep(holder.next(at(1_100), inputs(Copies::Some, 2))), at(1_300));
    renew(&mut holder, &mut key, 1_300, inputs(Copies::Some, 2));
    assert_eq!(holder.deadline(), Some(at(9_300)));
}

#[test]
fn a_success_without_an_index_grants_nothing_and_is_read_back() {
    for indices in [vec![], vec![0]] {
        let mut key = Key::default();
        let mut holder = held(&mut key);
        let (_, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
        holder.on_write(attempt, at(1_100), Ok(Txn::Committed { indices: indices.clone() }));
        assert_eq!(holder.deadline(), Some(at(8_000)), "{indices:?}");
        assert_eq!(holder.next(at(1_100), inputs(Copies::Some, 2)), Next::Read, "{indices:?}");
    }
}

#[test]
fn renewals_are_numbered_on_within_a_life_and_from_one_in_the_next() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert_eq!(holder.seq(), 1);
    renew(&mut holder, &mut key, 1_000, inputs(Copies::Some, 2));
    renew(&mut holder, &mut key, 2_000, inputs(Copies::Some, 2));
    assert_eq!((holder.epoch(), holder.seq()), (1, 3));
    renew(&mut holder, &mut key, 20_000, inputs(Copies::None, 3));
    assert_eq!((holder.epoch(), holder.seq()), (2, 1));
    assert_eq!(key.value.unwrap().0.seq, 1);
}

#[test]
fn while_timings_change_the_shorter_time_to_kill_in_is_the_one_in_force() {
    let (fast, balanced) = (LeaseTimings::FAST, LeaseTimings::BALANCED);
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert_eq!(holder.kill_within(), balanced.kill());
    holder.set_timings(fast).unwrap();
    assert_eq!(holder.kill_within(), fast.kill(), "asked for, and not announced");
    renew(&mut holder, &mut key, 1_000, inputs(Copies::Some, 2));
    holder.set_timings(balanced).unwrap();
    assert_eq!(holder.kill_within(), fast.kill(), "until the longer one is granted");
    renew(&mut holder, &mut key, 2_000, inputs(Copies::Some, 2));
    assert_eq!(holder.kill_within(), balanced.kill());
    let unread = Holder::new(identity("boot-1"), fast, None);
    assert_eq!(unread.kill_within(), fast.kill());
}

#[test]
fn a_lease_is_released_only_when_it_was_asked_for_and_written() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert!(!holder.released());
    read(&mut holder, 500, LeaseRecord { state: LeaseState::Released, ..sighted(7) });
    assert!(!holder.released(), "an earlier life has");
    let mut holder = held(&mut Key::default());
    holder.release();
    assert!(!holder.released(), "asked for, and not written yet");
    read(&mut holder, 500, of_another_life("machine-2"));
    assert!(!holder.released(), "what is there is held");
}

#[test]
fn who_was_fenced_is_told_by_whom() {
    let mut holder = held(&mut Key::default());
    let mut observer = Observer::default();
    observer.see(at(0), sighted(1), 1);
    let by = NodeName::new("n2").unwrap();
    let fenced = observer.get(&identity("").node).unwrap().fenced(&by);
    assert_eq!(fenced.fenced_by, Some(by));
    read(&mut holder, 500, fenced);
    assert_eq!(holder.message(), "fenced by n2");
}

#[test]
fn the_record_of_another_machine_is_read_again_after_a_pause() {
    let mut holder = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, None);
    for millis in [0, 10] {
        assert_eq!(holder.next(at(millis), inputs(Copies::None, 2)), Next::Read);
        read(&mut holder, millis, of_another_life("machine-2"));
    }
    assert_eq!(sleep(holder.next(at(10), inputs(Copies::None, 2))), at(210));
}
