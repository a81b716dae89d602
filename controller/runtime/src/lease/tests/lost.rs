//! Tests which lives of a lease count as lost.

use super::*;

fn lost_lives(holder: &Holder) -> Vec<u64> {
    holder.lost().iter().map(|(epoch, _)| *epoch).collect()
}

#[test]
fn a_life_that_runs_out_while_it_is_to_be_renewed_is_lost_and_counted_once() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    holder.next(at(7_999), inputs(Copies::Some, 2));
    assert!(lost_lives(&holder).is_empty());
    for millis in [8_000, 8_200, 9_000] {
        holder.next(at(millis), inputs(Copies::Some, 2));
        assert_eq!(holder.lost(), [(1, at(8_000))], "{millis}");
    }
    let (op, attempt) = write(holder.next(at(9_500), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(9_510), Ok(key.apply(&op)));
    holder.next(at(30_000), inputs(Copies::Some, 3));
    assert_eq!(lost_lives(&holder), [1, 2]);
}

#[test]
fn a_life_that_is_fenced_is_lost() {
    let mut holder = held(&mut Key::default());
    let fenced = LeaseRecord { state: LeaseState::Fenced, epoch: 2, ..sighted(7) };
    holder.on_read(at(1_000), Ok(Some((fenced, 50))));
    assert_eq!(holder.lost(), [(1, at(1_000))]);
}

#[test]
fn a_life_that_is_given_up_or_ended_while_nobody_was_there_is_not() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    holder.release();
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(1_010), Ok(key.apply(&op)));
    holder.next(at(60_000), inputs(Copies::None, 2));
    assert!(lost_lives(&holder).is_empty());

    let memory = held(&mut Key::default()).memory();
    let mut upgraded = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, memory);
    upgraded.next(at(60_000), inputs(Copies::None, 2));
    assert!(lost_lives(&upgraded).is_empty());
}

#[test]
fn only_the_last_few_are_remembered() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    for life in 1..30u64 {
        let (op, attempt) = write(holder.next(at(life * 20_000), inputs(Copies::None, u128::from(life) + 1)));
        holder.on_write(attempt, at(life * 20_000), Ok(key.apply(&op)));
    }
    assert_eq!(lost_lives(&holder), (14..30).collect::<Vec<_>>());
}
