//! Tests a holder whose own key holds nonsense, or the record of another machine.

use super::*;

const WHY: &str = "expected value at line 1 column 1";
/// D of a lease of which nothing is known.
const LONGEST: u64 = 300_000;

fn nonsense(holder: &mut Holder, millis: u64, value: &str) {
    holder.on_nonsense(at(millis), 50, value, WHY);
}

/// The index that a write replaces, and the record it writes.
fn over(next: Next) -> (u64, LeaseRecord) {
    let (op, _) = write(next);
    let Op::Cas { value, index, .. } = op else { panic!("no cas: {op:?}") };
    (index, serde_json::from_str(&value).unwrap())
}

#[test]
fn a_holder_that_is_valid_writes_over_nonsense_and_keeps_its_life_and_its_deadline() {
    for value in ["garbage", "", r#"{"machineId":"machine-1"}"#] {
        let mut holder = held(&mut Key::default());
        nonsense(&mut holder, 1_000, value);
        assert_eq!(holder.deadline(), Some(at(8_000)), "{value}: nonsense ends nothing, and grants nothing");
        let next = holder.next(at(1_000), inputs(Copies::Some, 2));
        let (index, record) = over(next.clone());
        assert_eq!((index, record.epoch, record.seq, record.state), (50, 1, 2, LeaseState::Held), "{value}");
        holder.on_write(write(next).1, at(1_010), Ok(Txn::Committed { indices: vec![51] }));
        assert_eq!((holder.deadline(), holder.epoch()), (Some(at(9_000)), 1), "{value}");
        let unbroken = holder.unbroken_since(at(1_010));
        assert_eq!(
            unbroken,
            Some(at(1_000)),
            "{value}: what others wrote before may be lost with the record"
        );
        assert_eq!(holder.store_went_back(), None, "{value}");
    }
}

#[test]
fn once_its_life_is_over_nonsense_is_waited_for_as_long_as_any_lease_may_hold() {
    let mut holder = held(&mut Key::default());
    nonsense(&mut holder, 9_000, "garbage");
    let due = 9_000 + LONGEST;
    assert_eq!(holder.next(at(9_000), inputs(Copies::None, 2)), Next::Read);
    assert!(holder.message().contains("another machine of this name"), "{}", holder.message());
    assert_eq!(holder.deadline(), None);
    nonsense(&mut holder, due - 300, "garbage");
    assert_eq!(holder.next(at(due - 1), inputs(Copies::None, 2)), Next::Read);
    nonsense(&mut holder, due, "garbage");
    let (index, record) = over(holder.next(at(due + 200), inputs(Copies::None, 2)));
    assert_eq!((index, record.epoch, record.seq), (50, 2, 1), "a later life than the one it remembers");
}

#[test]
fn nonsense_that_changes_is_waited_for_anew() {
    let mut holder = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, None);
    nonsense(&mut holder, 0, "garbage");
    holder.on_nonsense(at(LONGEST), 51, "garbage", WHY);
    assert_eq!(holder.next(at(LONGEST + 200), inputs(Copies::None, 2)), Next::Read);
    holder.on_nonsense(at(2 * LONGEST), 51, "garbage", WHY);
    assert!(matches!(holder.next(at(2 * LONGEST + 200), inputs(Copies::None, 2)), Next::Write { .. }));
}

#[test]
fn what_this_very_machine_wrote_in_a_form_of_later_is_written_over_at_once_when_no_copy_is_there() {
    let later = r#"{"format":2,"machineId":"machine-1","epochs":[7]}"#;
    let mut holder = Holder::new(identity("boot-2"), LeaseTimings::BALANCED, None);
    nonsense(&mut holder, 0, later);
    assert!(holder.wants_copies(at(0)));
    assert!(matches!(holder.next(at(0), inputs(Copies::Some, 2)), Next::Sleep { .. }), "a copy is alive");
    assert!(matches!(holder.next(at(200), inputs(Copies::Unknown, 2)), Next::Sleep { .. }));
    assert_eq!(over(holder.next(at(400), inputs(Copies::None, 2))).0, 50);
}

#[test]
fn the_record_of_another_machine_ends_no_life_that_is_valid() {
    let mut holder = held(&mut Key::default());
    let foreign =
        LeaseRecord { incarnation: Uuid::from_u128(9), machine_id: "machine-2".to_owned(), ..sighted(7) };
    for epoch in [0, 1, 9] {
        holder.on_read(at(1_000), Ok(Some((LeaseRecord { epoch, ..foreign.clone() }, 50))));
        assert_eq!(holder.deadline(), Some(at(8_000)), "{epoch}");
        let (index, record) = over(holder.next(at(1_000), inputs(Copies::Some, 2)));
        assert_eq!((index, record.epoch, record.machine_id.as_str()), (50, 1, "machine-1"), "{epoch}");
    }
    holder.on_read(at(8_000), Ok(Some((foreign, 50))));
    assert_eq!(holder.deadline(), None, "and one that is over stays so");
    assert_eq!(holder.next(at(8_200), inputs(Copies::None, 2)), Next::Read, "that one may live");
}

#[test]
fn a_fence_is_no_nonsense_whoever_wrote_what_was_fenced() {
    let mut holder = held(&mut Key::default());
    let fenced =
        LeaseRecord { state: LeaseState::Fenced, machine_id: "machine-2".to_owned(), epoch: 2, ..sighted(7) };
    holder.on_read(at(1_000), Ok(Some((fenced, 50))));
    assert_eq!(holder.deadline(), None);
}

#[test]
fn a_lease_that_is_to_be_released_is_written_down_once_more_before_it_is() {
    let mut holder = held(&mut Key::default());
    holder.release();
    nonsense(&mut holder, 1_000, "garbage");
    let next = holder.next(at(1_000), inputs(Copies::None, 2));
    assert_eq!(over(next.clone()).1.state, LeaseState::Held);
    holder.on_write(write(next).1, at(1_010), Ok(Txn::Committed { indices: vec![51] }));
    let (index, record) = over(holder.next(at(1_010), inputs(Copies::None, 2)));
    assert_eq!((index, record.state), (51, LeaseState::Released));
}
