//! The lease machine by values, and holder against observer over thousands of random interleavings.

use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use uuid::Uuid;
use zsha_crds::NodeName;
use zsha_crds::VmName;
use zsha_crds::records::{ByVm, LeaseRecord, LeaseState, LeaseTimings, Owner, VmCount};

use super::{Attempt, Copies, Holder, Identity, Inputs, Late, Memory, Next, Observer, StepBack};
use crate::Moment;
use crate::store::{Op, StoreError, Txn};

mod lost;
mod nonsense;
mod pauses;
mod reading;
mod watching;

fn at(millis: u64) -> Moment {
    Moment::from_millis(1_000_000 + millis)
}

/// A keeper's count of the VM's processes.
fn counted(copies: u32) -> ByVm<VmCount> {
    ByVm::only(VmName::management(), VmCount { copies: Some(copies), moved_away_in: None })
}

fn moved_away_in(lease: &LeaseRecord) -> Option<u64> {
    lease.vms.of(&VmName::management()).moved_away_in
}

fn identity(boot: &str) -> Identity {
    Identity {
        vm: VmName::management(),
        cluster: zsha_crds::ClusterName::new("c").unwrap(),
        node: NodeName::new("n1").unwrap(),
        key: "leases/n1".to_owned(),
        machine_id: "machine-1".to_owned(),
        boot_id: boot.to_owned(),
    }
}

fn inputs(copies: Copies, incarnation: u128) -> Inputs {
    Inputs {
        copies,
        controller_alive: true,
        may_be_paused: false,
        counted: Some(0),
        may_have_moved: false,
        wall: Timestamp::UNIX_EPOCH,
        fresh_incarnation: Uuid::from_u128(incarnation),
    }
}

fn lost(operation: &str) -> StoreError {
    StoreError::Unknown { operation: operation.to_owned(), reason: "no reply".to_owned() }
}

/// One key with a cas, as the store would do it.
#[derive(Debug, Default, Clone)]
struct Key {
    value: Option<(LeaseRecord, u64)>,
    last_index: u64,
}

impl Key {
    fn apply(&mut self, op: &Op) -> Txn {
        let held = match (op, &self.value) {
            (Op::Create { .. }, None) => true,
            (Op::Cas { index, .. }, Some((_, i))) => i == index,
            _ => false,
        };
        let (Op::Create { value, .. } | Op::Cas { value, .. }) = op else { panic!("the holder only writes") };
        if !held {
            return Txn::Conflict { failed: vec![0], message: "index".to_owned() };
        }
        self.last_index += 1;
        self.value = Some((serde_json::from_str(value).unwrap(), self.last_index));
        Txn::Committed { indices: vec![self.last_index] }
    }
}

fn write(next: Next) -> (Op, Attempt) {
    match next {
        Next::Write { op, attempt } => (op, attempt),
        other => panic!("expected a write, got {other:?}"),
    }
}

/// A holder that holds its lease since `at(0)`.
fn held(key: &mut Key) -> Holder {
    let mut holder = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, None);
    assert_eq!(holder.next(at(0), inputs(Copies::None, 1)), Next::Read);
    holder.on_read(at(0), Ok(key.value.clone()));
    let (op, attempt) = write(holder.next(at(0), inputs(Copies::None, 1)));
    holder.on_write(attempt, at(5), Ok(key.apply(&op)));
    assert_eq!(holder.deadline(), Some(at(8_000)));
    holder
}

#[test]
fn the_deadline_counts_from_sending_and_not_from_the_reply() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_900), Ok(key.apply(&op)));
    assert_eq!(holder.deadline(), Some(at(9_000)));
}

#[test]
fn a_renewal_after_more_than_half_of_f_is_late_and_one_after_all_of_it_is_none() {
    let renewed = |holder: &mut Holder, key: &mut Key, millis| {
        let (op, attempt) = write(holder.next(at(millis), inputs(Copies::None, 2)));
        holder.on_write(attempt, at(millis + 5), Ok(key.apply(&op)));
        holder.late()
    };
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert_eq!(renewed(&mut holder, &mut key, 4_000), None, "half of it");
    let (gap, of) = (Duration::from_millis(4_001), Duration::from_secs(8));
    assert_eq!(renewed(&mut holder, &mut key, 8_001), Some(Late { count: 1, gap, of }));
    assert_eq!(renewed(&mut holder, &mut key, 9_001), Some(Late { count: 1, gap, of }));
    let gap = Duration::from_millis(7_999);
    assert_eq!(renewed(&mut holder, &mut key, 17_000), Some(Late { count: 2, gap, of }));
    assert_eq!(renewed(&mut holder, &mut key, 25_000), Some(Late { count: 2, gap, of }), "a new life");
}

#[test]
fn a_lost_reply_counts_for_nothing_and_is_read_back_before_the_next_write() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    key.apply(&op);
    holder.on_write(attempt, at(2_000), Err(lost("renew")));
    assert_eq!(holder.deadline(), Some(at(8_000)));
    assert_eq!(holder.next(at(2_000), inputs(Copies::Some, 2)), Next::Sleep { until: at(2_050) });
    assert_eq!(holder.next(at(2_050), inputs(Copies::Some, 2)), Next::Read);
    holder.on_read(at(2_060), Ok(key.value.clone()));
    assert_eq!(holder.deadline(), Some(at(8_000)), "a read-back grants nothing");
    let (op, attempt) = write(holder.next(at(2_060), inputs(Copies::Some, 2)));
    assert!(key.apply(&op).committed());
    holder.on_write(attempt, at(2_070), Ok(Txn::Committed { indices: vec![key.last_index] }));
    assert_eq!(holder.deadline(), Some(at(10_060)));
    assert_eq!(holder.epoch(), 1);
}

#[test]
fn a_refused_token_is_tried_about_once_a_second_and_not_as_fast_as_the_refusals_come() {
    let refused = || StoreError::Denied { operation: "renew".to_owned(), reason: "ACL not found".to_owned() };
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let mut writes = 0;
    for millis in (1_000..11_000).step_by(10) {
        match holder.next(at(millis), inputs(Copies::Some, 2)) {
            Next::Write { attempt, .. } => {
                writes += 1;
                holder.on_write(attempt, at(millis), Err(refused()));
            }
            // To read is allowed, or not.
            Next::Read if millis < 6_000 => holder.on_read(at(millis), Ok(key.value.clone())),
            Next::Read => holder.on_read(at(millis), Err(refused())),
            Next::Sleep { .. } => {}
        }
    }
    assert!((4..=6).contains(&writes), "{writes} writes");
    assert!(holder.message().contains("permission denied"));
}

#[test]
fn a_fenced_holder_is_not_valid_and_begins_a_new_life_only_when_its_copy_is_dead() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let mut observer = Observer::default();
    let (record, index) = key.value.clone().unwrap();
    observer.see(at(0), record, index);
    let fenced = observer.get(&NodeName::new("n1").unwrap()).unwrap().fenced(&NodeName::new("n2").unwrap());
    key.last_index += 1;
    key.value = Some((fenced, key.last_index));

    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_001), Ok(key.apply(&op)));
    assert_eq!(holder.next(at(1_001), inputs(Copies::Some, 2)), Next::Read);
    holder.on_read(at(1_002), Ok(key.value.clone()));
    assert_eq!(holder.deadline(), None);
    for copies in [Copies::Some, Copies::Unknown] {
        assert!(matches!(holder.next(at(1_300), inputs(copies, 2)), Next::Sleep { .. }));
    }
    let (op, attempt) = write(holder.next(at(1_600), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(1_601), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), holder.incarnation()), (3, Uuid::from_u128(2)));
    assert!(holder.valid(at(1_601)));
}

#[test]
fn a_restarted_keeper_goes_on_with_what_it_remembers() {
    let mut key = Key::default();
    let first = held(&mut key);
    let mut second = Holder::new(identity("boot-1"), LeaseTimings::FAST, first.memory());
    assert_eq!(second.deadline(), Some(at(8_000)));
    assert_eq!(second.timings(), LeaseTimings::BALANCED);
    second.on_read(at(1_500), Ok(key.value.clone()));
    let (op, attempt) = write(second.next(at(1_500), inputs(Copies::Some, 2)));
    second.on_write(attempt, at(1_501), Ok(key.apply(&op)));
    assert_eq!((second.epoch(), second.deadline()), (1, Some(at(9_500))));
}

#[test]
fn a_keeper_without_memory_is_strict() {
    let mut key = Key::default();
    held(&mut key);
    let mut second = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, None);
    second.on_read(at(1_000), Ok(key.value.clone()));
    assert_eq!(second.deadline(), None);
    assert!(matches!(second.next(at(1_000), inputs(Copies::Some, 2)), Next::Sleep { .. }));
    let (op, _) = write(second.next(at(1_300), inputs(Copies::None, 2)));
    assert!(matches!(key.apply(&op), Txn::Committed { .. }));
    assert_eq!(key.value.unwrap().0.epoch, 2);
}

#[test]
fn memory_of_another_boot_counts_for_nothing() {
    let mut key = Key::default();
    let first = held(&mut key);
    let second = Holder::new(identity("boot-2"), LeaseTimings::BALANCED, first.memory());
    assert_eq!((second.deadline(), second.epoch()), (None, 0));
}

#[test]
fn memory_of_another_nodes_lease_counts_for_nothing() {
    let mut key = Key::default();
    let first = held(&mut key);
    let other = Identity { key: "leases/n-1".to_owned(), ..identity("boot-1") };
    let second = Holder::new(other, LeaseTimings::BALANCED, first.memory());
    assert_eq!((second.deadline(), second.epoch()), (None, 0));
}

#[test]
fn a_reboot_takes_the_own_lease_over_at_once() {
    let mut key = Key::default();
    held(&mut key);
    let mut second = Holder::new(identity("boot-2"), LeaseTimings::BALANCED, None);
    second.on_read(at(300), Ok(key.value.clone()));
    let (op, attempt) = write(second.next(at(300), inputs(Copies::None, 2)));
    second.on_write(attempt, at(301), Ok(key.apply(&op)));
    assert_eq!(second.epoch(), 2);
    assert!(second.valid(at(301)));
}

#[test]
fn another_machine_under_the_same_name_waits_as_a_fence_would() {
    let mut key = Key::default();
    held(&mut key);
    let other = Identity { machine_id: "machine-2".to_owned(), ..identity("boot-9") };
    let mut holder = Holder::new(other, LeaseTimings::BALANCED, None);
    let mut now = 0;
    loop {
        match holder.next(at(now), inputs(Copies::None, 2)) {
            Next::Read => holder.on_read(at(now), Ok(key.value.clone())),
            Next::Sleep { until } => now = until.since(at(0)).as_millis() as u64,
            Next::Write { .. } => break,
        }
    }
    assert_eq!(now, 10_000, "taken over when a fence would be due, to the millisecond");
}

#[test]
fn a_lease_key_deleted_by_hand_is_written_again_without_harm() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    key.value = None;
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_001), Ok(key.apply(&op)));
    holder.on_read(at(1_002), Ok(None));
    assert!(holder.valid(at(1_002)));
    let (op, attempt) = write(holder.next(at(1_002), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_003), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), holder.deadline()), (1, Some(at(9_002))));
    assert_eq!(key.value.unwrap().0.seq, 2, "later than what was in force");
}

/// Another node puts a record in the place of one that was deleted.
fn replaced(key: &mut Key, epoch: u64) {
    let owner = Owner { node: NodeName::new("n1").unwrap(), epoch };
    let value = serde_json::to_string(&LeaseRecord::lost(&owner, Timestamp::UNIX_EPOCH)).unwrap();
    key.value = None;
    assert!(key.apply(&Op::Create { key: "leases/n1".to_owned(), value }).committed());
}

#[test]
fn a_lease_replaced_by_others_is_renewed_over_without_harm() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    replaced(&mut key, 1);
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_001), Ok(key.apply(&op)));
    assert_eq!(holder.next(at(1_001), inputs(Copies::Some, 2)), Next::Read);
    holder.on_read(at(1_002), Ok(key.value.clone()));
    assert_eq!(holder.deadline(), Some(at(8_000)));
    let (op, attempt) = write(holder.next(at(1_002), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_003), Ok(key.apply(&op)));
    let record = &key.value.as_ref().unwrap().0;
    assert_eq!((record.epoch, record.incarnation, record.state), (1, Uuid::from_u128(1), LeaseState::Held));
    assert_eq!(holder.deadline(), Some(at(9_002)));
}

#[test]
fn a_store_that_went_back_to_an_earlier_life_is_written_over_without_harm() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let snapshot = key.value.clone().unwrap();
    // Fenced and reborn: epoch 3.
    let fenced = LeaseRecord { state: LeaseState::Fenced, epoch: 2, ..snapshot.0.clone() };
    key.last_index += 1;
    key.value = Some((fenced, key.last_index));
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(1_001), Ok(key.apply(&op)));
    holder.next(at(1_001), inputs(Copies::None, 2));
    holder.on_read(at(1_002), Ok(key.value.clone()));
    let (op, attempt) = write(holder.next(at(1_002), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(1_003), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), holder.deadline()), (3, Some(at(9_002))));

    key.value = Some(snapshot);
    let (op, attempt) = write(holder.next(at(2_002), inputs(Copies::Some, 4)));
    holder.on_write(attempt, at(2_003), Ok(key.apply(&op)));
    holder.next(at(2_003), inputs(Copies::Some, 4));
    holder.on_read(at(2_004), Ok(key.value.clone()));
    assert_eq!(holder.deadline(), Some(at(9_002)), "nothing of what is lived by has ended");
    let (op, attempt) = write(holder.next(at(2_004), inputs(Copies::Some, 4)));
    holder.on_write(attempt, at(2_005), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), holder.deadline()), (3, Some(at(10_004))));
    assert_eq!(key.value.unwrap().0.epoch, 3);
}

/// The node is away for longer than its lease after the step back, so the store shows nothing of the life it led.
#[test]
fn an_epoch_never_comes_again_though_the_store_shows_an_earlier_one() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let snapshot = key.value.clone().unwrap();
    let (op, attempt) = write(holder.next(at(9_000), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(9_001), Ok(key.apply(&op)));
    assert_eq!(holder.epoch(), 2);
    key.value = Some(snapshot);
    let (op, attempt) = write(holder.next(at(10_000), inputs(Copies::None, 3)));
    holder.on_write(attempt, at(10_001), Ok(key.apply(&op)));
    assert_eq!(holder.next(at(10_001), inputs(Copies::None, 3)), Next::Read);
    holder.on_read(at(30_000), Ok(key.value.clone()));
    let (op, attempt) = write(holder.next(at(30_000), inputs(Copies::None, 4)));
    holder.on_write(attempt, at(30_001), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), key.value.unwrap().0.epoch), (3, 3));
}

#[test]
fn a_holder_that_was_away_begins_a_new_life_after_a_replaced_lease() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    replaced(&mut key, 1);
    holder.on_read(at(9_000), Ok(key.value.clone()));
    assert!(matches!(holder.next(at(9_000), inputs(Copies::Some, 2)), Next::Sleep { .. }));
    let (op, attempt) = write(holder.next(at(9_500), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(9_501), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), holder.incarnation()), (2, Uuid::from_u128(2)));
}

#[test]
fn a_node_without_controller_and_copy_sets_free_what_it_owned_once() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let mut epochs = Vec::new();
    for millis in (1_000..120_000).step_by(1_000) {
        let alone = Inputs { controller_alive: false, ..inputs(Copies::None, u128::from(millis)) };
        if let Next::Write { op, attempt } = holder.next(at(millis), alone) {
            holder.on_write(attempt, at(millis), Ok(key.apply(&op)));
        }
        epochs.push(holder.epoch());
        assert!(holder.valid(at(millis)));
    }
    assert_eq!((epochs[28], epochs[31], epochs.last()), (1, 2, Some(&2)));
}

#[test]
fn setting_free_what_was_owned_is_tried_again_when_its_write_failed() {
    let refused =
        || StoreError::Unavailable { operation: "renew".to_owned(), reason: "no leader".to_owned() };
    for failure in [refused(), lost("renew")] {
        let mut key = Key::default();
        let mut holder = held(&mut key);
        let mut failures = 0;
        for millis in (1_000..60_000).step_by(250) {
            let alone = Inputs { controller_alive: false, ..inputs(Copies::None, u128::from(millis)) };
            match holder.next(at(millis), alone) {
                Next::Write { .. } if millis >= 30_000 && failures < 3 => {
                    failures += 1;
                    let (_, attempt) = write(holder.next(at(millis), alone));
                    holder.on_write(attempt, at(millis), Err(failure.clone()));
                }
                Next::Write { op, attempt } => holder.on_write(attempt, at(millis), Ok(key.apply(&op))),
                Next::Read => holder.on_read(at(millis), Ok(key.value.clone())),
                Next::Sleep { .. } => {}
            }
        }
        let record = &key.value.as_ref().unwrap().0;
        assert!(record.incarnation != Uuid::from_u128(1) && record.epoch > 1, "{failure}: {record:?}");
        assert!(holder.valid(at(60_000)));
    }
}

#[test]
fn a_node_without_controller_keeps_its_copy() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    for millis in (1_000..120_000).step_by(1_000) {
        let alone = Inputs { controller_alive: false, ..inputs(Copies::Some, 2) };
        if let Next::Write { op, attempt } = holder.next(at(millis), alone) {
            holder.on_write(attempt, at(millis), Ok(key.apply(&op)));
        }
    }
    assert_eq!(holder.epoch(), 1);
}

/// Others would take the new life for a copy that has died.
#[test]
fn what_is_set_free_after_a_guest_was_moved_away_by_hand_says_so_from_then_on() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert!(!holder.wants_how_it_ended(at(0)));
    for millis in (1_000..120_000).step_by(1_000) {
        let now = at(millis);
        let may_have_moved = holder.wants_how_it_ended(now);
        let alone = Inputs { controller_alive: false, may_have_moved, ..inputs(Copies::None, 2) };
        if let Next::Write { op, attempt } = holder.next(now, alone) {
            holder.on_write(attempt, now, Ok(key.apply(&op)));
        }
        let record = &key.value.as_ref().unwrap().0;
        assert_eq!(moved_away_in(record), (record.epoch == 2).then_some(1), "{record:?}");
    }
    assert_eq!(holder.epoch(), 2);
    let memory = holder.memory().unwrap();
    let mut restarted = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, Some(memory));
    restarted.on_read(at(120_000), Ok(key.value.clone()));
    let (op, _) = write(restarted.next(at(121_000), inputs(Copies::None, 3)));
    key.apply(&op);
    assert_eq!(moved_away_in(&key.value.unwrap().0), Some(1));
}

#[test]
fn that_a_guest_was_moved_away_is_said_also_where_the_write_that_sets_it_free_fails() {
    let refused = StoreError::Unavailable { operation: "txn".to_owned(), reason: "no leader".to_owned() };
    for (failure, arrives) in [(refused, false), (lost("txn"), false), (lost("txn"), true)] {
        let mut key = Key::default();
        let mut holder = held(&mut key);
        let mut failures = vec![failure.clone()];
        for millis in (1_000..120_000).step_by(1_000) {
            let now = at(millis);
            let may_have_moved = holder.wants_how_it_ended(now);
            let alone = Inputs {
                controller_alive: false,
                may_have_moved,
                ..inputs(Copies::None, u128::from(millis))
            };
            match holder.next(now, alone) {
                Next::Read => holder.on_read(now, Ok(key.value.clone())),
                Next::Write { op, attempt } => {
                    let failed = if may_have_moved { failures.pop() } else { None };
                    let applied = if failed.is_none() || arrives { Some(key.apply(&op)) } else { None };
                    let result = failed.map_or_else(|| Ok(applied.unwrap()), Err);
                    holder.on_write(attempt, now, result);
                }
                Next::Sleep { .. } => {}
            }
        }
        let record = key.value.unwrap().0;
        assert!(record.epoch > 1 && moved_away_in(&record) == Some(1), "{failure}, {arrives}: {record:?}");
    }
}

#[test]
fn a_release_waits_for_the_copy_and_is_final() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    holder.release();
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_001), Ok(key.apply(&op)));
    assert_eq!(key.value.clone().unwrap().0.state, LeaseState::Held, "renewed while the copy lives");
    let (op, attempt) = write(holder.next(at(1_500), inputs(Copies::None, 2)));
    holder.on_write(attempt, at(1_501), Ok(key.apply(&op)));
    assert_eq!(key.value.unwrap().0.state, LeaseState::Released);
    assert!(holder.released() && holder.deadline().is_none());
    assert_eq!(sleep(holder.next(at(2_000), inputs(Copies::None, 2))), at(62_000));
    holder.on_read(at(2_000), Ok(None));
    assert_eq!(
        sleep(holder.next(at(2_000), inputs(Copies::None, 2))),
        at(62_000),
        "also where it was deleted"
    );
}

/// The moment until which nothing is to be done. It is never over already, or the loop would spin.
fn sleep(next: Next) -> Moment {
    match next {
        Next::Sleep { until } => until,
        other => panic!("expected a sleep, got {other:?}"),
    }
}

#[test]
fn whoever_waits_for_a_copy_to_die_or_for_the_store_asks_again_a_little_later() {
    let mut holder = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, None);
    assert_eq!(holder.next(at(0), inputs(Copies::None, 1)), Next::Read);
    holder.on_read(at(0), Err(lost("get")));
    assert_eq!(sleep(holder.next(at(0), inputs(Copies::None, 1))), at(200));
    holder.on_read(at(200), Ok(None));
    for copies in [Copies::Some, Copies::Unknown] {
        assert_eq!(sleep(holder.next(at(200), inputs(copies, 1))), at(400), "{copies:?}");
    }
}

#[test]
fn the_process_table_is_read_for_a_release_and_for_the_life_whose_controller_is_silent() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert!(!holder.wants_copies(at(500)));
    holder.release();
    assert!(holder.wants_copies(at(500)), "though the lease is valid");
    let mut holder = held(&mut Key::default());
    let alone = Inputs { controller_alive: false, ..inputs(Copies::Some, 2) };
    assert_eq!(sleep(holder.next(at(500), alone)), at(1_000));
    assert!(holder.wants_copies(at(600)), "what the life owns may be set free");
}

#[test]
fn a_shorter_ttl_is_announced_at_once_by_a_renewal_that_is_not_late() {
    let limit = LeaseTimings::FAST.renew() + LeaseTimings::FAST.request_timeout();
    for (late, announced) in [(0, LeaseTimings::FAST), (1, LeaseTimings::BALANCED)] {
        let mut holder = held(&mut Key::default());
        holder.set_timings(LeaseTimings::FAST).unwrap();
        let millis = limit.as_millis() as u64 + late;
        let (op, _) = write(holder.next(at(millis), inputs(Copies::Some, 2)));
        let Op::Cas { value, .. } = op else { panic!("{op:?}") };
        assert_eq!(serde_json::from_str::<LeaseRecord>(&value).unwrap().timings, announced, "{late}");
    }
    // The same F with another R shortens nothing, so there is nothing to wait for.
    let mut holder = held(&mut Key::default());
    let quicker = LeaseTimings { renew_millis: 500, ..LeaseTimings::BALANCED };
    holder.set_timings(quicker).unwrap();
    let (op, _) = write(holder.next(at(6_500), inputs(Copies::Some, 2)));
    let Op::Cas { value, .. } = op else { panic!("{op:?}") };
    assert_eq!(serde_json::from_str::<LeaseRecord>(&value).unwrap().timings, quicker);
}

#[test]
fn renewals_are_unbroken_since_the_first_of_them_that_followed_a_lapse() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let renew = |holder: &mut Holder, key: &mut Key, millis| {
        let (op, attempt) = write(holder.next(at(millis), inputs(Copies::None, 2)));
        holder.on_write(attempt, at(millis + 5), Ok(key.apply(&op)));
    };
    renew(&mut holder, &mut key, 1_000);
    assert_eq!(holder.unbroken_since(at(1_500)), Some(at(0)));
    let mut again = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, holder.memory());
    assert_eq!(again.unbroken_since(at(1_500)), Some(at(0)), "a restart in between breaks nothing");
    assert_eq!(holder.unbroken_since(at(9_500)), None, "not while it is not valid");
    again.on_read(at(9_500), Ok(key.value.clone()));
    renew(&mut again, &mut key, 9_500);
    assert_eq!(again.unbroken_since(at(9_600)), Some(at(9_500)));
}

#[test]
fn renewals_are_broken_where_the_store_shows_a_time_before_them() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let old = key.clone();
    let (op, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_005), Ok(key.apply(&op)));
    assert_eq!(holder.store_went_back(), None);
    key = old;
    let (op, attempt) = write(holder.next(at(2_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(2_005), Ok(key.apply(&op)));
    assert_eq!(holder.next(at(2_005), inputs(Copies::Some, 2)), Next::Read);
    holder.on_read(at(2_010), Ok(key.value.clone()));
    let (op, attempt) = write(holder.next(at(2_010), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(2_015), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), holder.valid(at(2_020))), (1, true), "the life itself goes on");
    assert_eq!(holder.unbroken_since(at(2_020)), Some(at(2_010)));
    assert_eq!(holder.store_went_back(), Some(at(2_010)));
    let step = StepBack { after: at(1_000), index: key.value.as_ref().map(|(_, index)| *index) };
    assert_eq!(holder.step_back(), Some(step), "since the last renewal that was confirmed before");
    let again = Holder::new(identity("boot-1"), LeaseTimings::BALANCED, holder.memory());
    assert_eq!(again.step_back(), Some(step), "a restart in between forgets nothing");
    let (op, attempt) = write(holder.next(at(3_010), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(3_015), Ok(key.apply(&op)));
    assert_eq!(holder.step_back(), Some(step), "the first since, and no later one");
}

#[test]
fn a_lost_reply_breaks_nothing() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    let (_, attempt) = write(holder.next(at(1_000), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_005), Err(lost("txn")));
    holder.on_read(at(1_100), Ok(key.value.clone()));
    let (op, attempt) = write(holder.next(at(1_100), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(1_105), Ok(key.apply(&op)));
    assert_eq!(holder.unbroken_since(at(1_200)), Some(at(0)));
}

#[test]
fn the_process_table_is_read_when_a_renewal_is_due() {
    let mut key = Key::default();
    let holder = held(&mut key);
    assert!(!holder.wants_copies(at(500)));
    assert!(holder.wants_copies(at(1_000)), "what it says of the copies is of the moment it is sent");
}

#[test]
fn what_was_watched_before_the_own_lease_lapsed_counts_for_nothing() {
    let mut observer = Observer::default();
    observer.see(at(0), sighted(1), 1);
    observer.see(at(1_000), sighted(2), 2);
    let sight = observer.get(&identity("").node).unwrap();
    let d = LeaseTimings::BALANCED.fence_after();
    assert!(sight.is_news && sight.clone().since(at(0)).is_news);
    assert!(
        !sight.clone().since(at(1)).is_news,
        "between the two looks the store may have gone to another time, later than the first"
    );
    let since = sight.clone().since(at(5_000));
    assert!(!since.is_news);
    assert_eq!(since.fence_due(), Some(at(5_000) + d));
    assert_eq!(sight.clone().since(at(500)).fence_due(), sight.fence_due());
}

#[test]
fn a_conclusion_is_borne_out_by_the_same_record_or_by_a_later_word_of_no_copy() {
    let (mut observer, vm) = (Observer::default(), VmName::management());
    observer.see(at(0), LeaseRecord { vms: counted(1), ..sighted(7) }, 3);
    let with_a_copy = observer.get(&identity("").node).unwrap().clone();
    assert!(with_a_copy.is_borne_out(&with_a_copy.record, 3, &vm));
    assert!(
        !with_a_copy.is_borne_out(&LeaseRecord { vms: counted(1), ..sighted(8) }, 4, &vm),
        "it has spoken"
    );
    observer.see(at(10), LeaseRecord { vms: counted(0), ..sighted(9) }, 5);
    let without = observer.get(&identity("").node).unwrap().clone();
    assert!(without.is_borne_out(&LeaseRecord { vms: counted(0), ..sighted(10) }, 6, &vm));
    assert!(!without.is_borne_out(&LeaseRecord { vms: counted(1), ..sighted(10) }, 6, &vm), "it has one now");
    assert!(
        !without.is_borne_out(&LeaseRecord { vms: counted(0), ..sighted(8) }, 2, &vm),
        "of an earlier time"
    );
    for vms in [
        ByVm::default(),
        ByVm::only("other".parse().unwrap(), VmCount { copies: Some(0), moved_away_in: None }),
    ] {
        assert!(
            !without.is_borne_out(&LeaseRecord { vms, ..sighted(10) }, 6, &vm),
            "it says nothing of this VM"
        );
    }
    let other_life = LeaseRecord { vms: counted(0), epoch: 2, ..sighted(10) };
    assert!(!without.is_borne_out(&other_life, 6, &vm));
}

#[test]
fn a_lease_that_is_not_there_any_more_after_a_step_back_is_remembered_until_it_is_seen() {
    let mut observer = Observer::default();
    let node = identity("").node;
    observer.forget_all();
    observer.see(at(0), sighted(1), 1);
    assert!(observer.vanished().is_empty());
    observer.forget_all();
    assert_eq!(observer.vanished().get(&node), Some(&1));
    observer.see(at(10), sighted(2), 2);
    assert!(observer.vanished().is_empty());
    observer.missing(&node);
    assert!(observer.vanished().is_empty(), "somebody may have deleted it");
    assert_eq!(observer.deleted().get(&node), Some(&1), "or the whole store was emptied");
    observer.see(at(20), LeaseRecord { state: LeaseState::Fenced, ..sighted(3) }, 3);
    assert!(observer.deleted().is_empty());
    observer.missing(&node);
    assert!(observer.deleted().is_empty(), "what was fenced lives by nothing");
    observer.see(at(30), sighted(4), 4);
    observer.doubt_all(at(500));
    let sight = observer.get(&node).unwrap();
    assert_eq!((sight.first_seen, sight.sent_by, sight.is_news), (at(500), at(500), false));
}

/// A document with a longer D was in force when the snapshot was taken that is restored now, or since. The holder may
/// live by that D, and be cut off.
#[test]
fn a_lease_is_waited_for_as_long_as_its_longest_d_before_a_step_back_until_it_is_renewed() {
    let record = |seq, timings| LeaseRecord { timings, ..sighted(seq) };
    let (fast, patient) = (LeaseTimings::FAST, LeaseTimings::PATIENT);
    type Back = fn(&mut Observer);
    let restart: Back = Observer::forget_all;
    let doubt: Back = |observer| observer.doubt_all(at(20));
    for back in [restart, doubt] {
        let mut observer = Observer::default();
        let node = identity("").node;
        let due = |observer: &Observer| observer.get(&node).unwrap().fence_due();
        observer.see(at(0), record(7, fast), 7);
        observer.see(at(10), record(9, patient), 9);
        back(&mut observer);
        observer.see(at(30), record(7, fast), 11);
        assert_eq!(due(&observer), Some(at(30) + patient.fence_after()), "it may be of before the step back");
        back(&mut observer);
        observer.see(at(40), record(7, fast), 12);
        assert_eq!(due(&observer), Some(at(40) + patient.fence_after()), "and so once more");
        observer.see(at(540), record(10, fast), 13);
        assert_eq!(due(&observer), Some(at(540) + fast.fence_after()), "whoever says less obeys it already");
    }
}

#[test]
fn whoever_was_silent_when_it_was_fenced_is_so_since_its_last_renewal() {
    let mut observer = Observer::default();
    let node = identity("").node;
    observer.see(at(0), sighted(7), 7);
    let fenced = |of: &Observer| of.get(&node).unwrap().fenced(&NodeName::new("n2").unwrap());
    let record = fenced(&observer);
    observer.see(at(10_000), record.clone(), 8);
    let d = LeaseTimings::BALANCED.fence_after();
    assert_eq!(observer.get(&node).unwrap().silent_at(), at(0) + d);
    let mut late = Observer::default();
    late.see(at(10_000), record, 8);
    assert_eq!(late.get(&node).unwrap().silent_at(), at(10_000) + d, "nothing is known of before");
    let mut other = Observer::default();
    other.see(at(0), sighted(6), 6);
    other.see(at(10_000), fenced(&observer), 8);
    assert_eq!(other.get(&node).unwrap().silent_at(), at(10_000) + d, "it has renewed in between");
}

/// A lease of `n1`, held, by its sequence number.
fn sighted(seq: u64) -> LeaseRecord {
    let mut key = Key::default();
    held(&mut key);
    LeaseRecord { seq, ..key.value.unwrap().0 }
}

#[test]
fn a_shorter_ttl_is_obeyed_before_it_is_announced() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    holder.set_timings(LeaseTimings::FAST).unwrap();
    let (op, attempt) = write(holder.next(at(100), inputs(Copies::Some, 2)));
    assert_eq!(holder.deadline(), Some(at(6_000)), "lowered before anything was sent");
    holder.on_write(attempt, at(101), Ok(key.apply(&op)));
    assert_eq!(holder.deadline(), Some(at(6_100)));
}

#[test]
fn a_shorter_ttl_that_the_last_renewal_has_outlived_already_waits_for_one_more_renewal() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    holder.set_timings(LeaseTimings::FAST).unwrap();
    let (op, attempt) = write(holder.next(at(6_500), inputs(Copies::Some, 2)));
    assert_eq!(holder.deadline(), Some(at(8_000)), "a healthy copy lives on");
    holder.on_write(attempt, at(6_501), Ok(key.apply(&op)));
    assert_eq!(key.value.as_ref().unwrap().0.timings, LeaseTimings::BALANCED);
    assert_eq!(holder.deadline(), Some(at(14_500)));
    let (op, attempt) = write(holder.next(at(6_501), inputs(Copies::Some, 2)));
    holder.on_write(attempt, at(6_502), Ok(key.apply(&op)));
    assert_eq!(key.value.as_ref().unwrap().0.timings, LeaseTimings::FAST);
    assert_eq!(holder.deadline(), Some(at(12_501)));
}

#[test]
fn a_shorter_ttl_leaves_all_but_one_renewals_time_of_it_whenever_it_is_asked_for() {
    let fast = LeaseTimings::FAST;
    for asked in (100..8_000).step_by(100) {
        let mut key = Key::default();
        let mut holder = held(&mut key);
        holder.set_timings(LeaseTimings::PATIENT).unwrap();
        let (op, attempt) = write(holder.next(at(5), inputs(Copies::Some, 2)));
        holder.on_write(attempt, at(6), Ok(key.apply(&op)));
        assert_eq!(holder.deadline(), Some(at(20_005)));
        holder.set_timings(fast).unwrap();
        let mut now = asked;
        while key.value.as_ref().unwrap().0.timings != fast {
            let (op, attempt) = write(holder.next(at(now), inputs(Copies::Some, 2)));
            let left = at(now).until(holder.deadline().unwrap());
            assert!(
                left >= fast.ttl() - fast.renew() - fast.request_timeout(),
                "asked at {asked}: {left:?} left"
            );
            holder.on_write(attempt, at(now + 300), Ok(key.apply(&op)));
            now += 300;
        }
        assert!(now <= asked + 600, "asked at {asked}: announced at {now}");
    }
}

#[test]
fn the_earliest_fence_moves_closer_with_the_write_that_announces_a_shorter_d_and_is_remembered() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert_eq!(holder.fence(), Some(at(9_800)));
    holder.set_timings(LeaseTimings::FAST).unwrap();
    assert_eq!(holder.fence(), Some(at(9_800)), "asked for, and not announced");
    let (op, attempt) = write(holder.next(at(100), inputs(Copies::Some, 2)));
    assert_eq!(holder.fence(), Some(at(6_860)), "before it is sent");
    assert_eq!(holder.memory().unwrap().fence, Some(at(6_860)));
    holder.on_write(attempt, at(101), Ok(key.apply(&op)));
    assert_eq!(holder.fence(), Some(at(6_960)));
    assert_eq!(Holder::new(identity("boot-1"), LeaseTimings::FAST, holder.memory()).fence(), Some(at(6_960)));
    assert_eq!(Holder::new(identity("boot-1"), LeaseTimings::FAST, None).fence(), None);
    let old = Memory { fence: None, ..holder.memory().unwrap() };
    assert_eq!(Holder::new(identity("boot-1"), LeaseTimings::FAST, Some(old)).fence(), holder.deadline());
}

#[test]
fn unsafe_timings_are_refused_and_change_nothing() {
    let mut holder = held(&mut Key::default());
    let unsafe_ones = LeaseTimings { fence_after_millis: 9_000, ..LeaseTimings::BALANCED };
    assert!(holder.set_timings(unsafe_ones).unwrap_err().contains("fenceAfterMillis (9000)"));
    assert_eq!(holder.timings(), LeaseTimings::BALANCED);
}

#[test]
fn timings_whose_sum_overflows_are_not_safe() {
    let huge = LeaseTimings { ttl_millis: u64::MAX, ..LeaseTimings::BALANCED };
    assert!(!huge.is_safe());
    assert!(!LeaseTimings { fence_after_millis: u64::MAX, ..huge }.is_safe());
    assert!(!LeaseTimings { kill_millis: u64::MAX - 1, ..LeaseTimings::BALANCED }.is_safe());
}

#[test]
fn every_profile_keeps_the_rule() {
    for timings in [LeaseTimings::FAST, LeaseTimings::BALANCED, LeaseTimings::PATIENT] {
        assert!(timings.is_safe(), "{timings:?}");
    }
}

#[test]
fn any_difference_starts_the_count_again() {
    let mut key = Key::default();
    held(&mut key);
    let (record, index) = key.value.unwrap();
    let node = record.node.clone();
    let mut observer = Observer::default();
    observer.see(at(0), record.clone(), index);
    observer.see(at(9_000), record.clone(), index);
    assert_eq!(observer.get(&node).unwrap().fence_due(), Some(at(10_000)));
    observer.see(at(9_500), record, index - 1 + 5);
    assert_eq!(observer.get(&node).unwrap().fence_due(), Some(at(19_500)));
}

#[test]
fn a_life_ends_with_its_deadline_and_what_is_renewed_after_it_is_a_new_one() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert!(holder.wants_copies(at(8_000)));
    assert!(
        matches!(holder.next(at(8_000), inputs(Copies::Some, 2)), Next::Sleep { .. }),
        "its copy is still alive"
    );
    let (op, attempt) = write(holder.next(at(9_000), inputs(Copies::None, 3)));
    holder.on_write(attempt, at(9_005), Ok(key.apply(&op)));
    assert_eq!((holder.epoch(), holder.deadline()), (2, Some(at(17_000))));
    assert_eq!(key.value.unwrap().0.incarnation, Uuid::from_u128(3));
}

#[test]
fn a_renewal_is_news_only_when_it_was_seen_to_follow_another_without_a_gap() {
    let (mut key, node) = (Key::default(), NodeName::new("n1").unwrap());
    held(&mut key);
    let (record, _) = key.value.unwrap();
    let mut observer = Observer::default();
    let see = |observer: &mut Observer, seq: u64| {
        observer.see(at(seq * 1_000), LeaseRecord { seq, ..record.clone() }, seq);
        observer.get(&node).unwrap().is_news
    };
    assert!(!see(&mut observer, 1), "it was there already");
    assert!(see(&mut observer, 2));
    observer.gap();
    assert!(!observer.get(&node).unwrap().is_news);
    assert!(!see(&mut observer, 4), "it may be of before the gap");
    assert!(see(&mut observer, 5));
    observer.forget_all();
    assert!(!see(&mut observer, 6));
}

/// A person puts back a record that he had kept, by `consul kv put`.
#[test]
fn a_record_that_goes_back_is_no_news_of_its_holder() {
    let (mut key, node) = (Key::default(), NodeName::new("n1").unwrap());
    held(&mut key);
    let (record, _) = key.value.unwrap();
    let life = |number: u128, epoch: u64, seq: u64| LeaseRecord {
        incarnation: Uuid::from_u128(number),
        epoch,
        seq,
        ..record.clone()
    };
    let mut observer = Observer::default();
    let mut index = 0;
    let mut is_news = |record: LeaseRecord| {
        index += 1;
        observer.see(at(index * 1_000), record, index);
        observer.get(&node).unwrap().is_news
    };
    is_news(life(1, 5, 7));
    assert!(is_news(life(1, 5, 8)));
    assert!(!is_news(life(2, 4, 90)), "of an earlier life");
    assert!(is_news(life(1, 5, 9)), "its holder has written over it");
    assert!(!is_news(life(1, 5, 3)), "of an earlier moment of this one");
    assert!(is_news(life(1, 5, 10)));
    assert!(!is_news(life(3, 5, 1)), "two lives have no epoch in common");
    assert!(is_news(life(1, 6, 1)) && is_news(life(4, 7, 1)), "a new life");
    let lost = LeaseRecord { state: LeaseState::Lost, ..life(5, 7, 0) };
    assert!(is_news(lost) && is_news(life(4, 7, 2)), "it has written it anew");
}

#[test]
fn a_renewal_that_was_long_on_its_way_counts_from_when_it_was_sent() {
    let mut key = Key::default();
    held(&mut key);
    let (first, index) = key.value.unwrap();
    let node = first.node.clone();
    let sent = first.sent_millis.unwrap();
    let due = |observer: &Observer| observer.get(&node).unwrap().fence_due().unwrap();
    let next = LeaseRecord { seq: 2, sent_millis: Some(sent + 980), ..first.clone() };
    let seen = |after: LeaseRecord| {
        let mut observer = Observer::default();
        observer.see(at(0), first.clone(), index);
        observer.see(at(4_000), after, index + 1);
        observer
    };
    // 981 ms of the holder's clock are 1,002 ms at most of any other.
    assert_eq!(due(&seen(next.clone())), at(1_002 + 10_000));
    // Never later than it was seen, whatever a clock says.
    assert_eq!(due(&seen(LeaseRecord { sent_millis: Some(sent + 9_000), ..next.clone() })), at(14_000));
    // And nothing follows from another life, another boot, a clock that did not move on, or none.
    for other in [
        LeaseRecord { incarnation: Uuid::from_u128(9), ..next.clone() },
        LeaseRecord { boot_id: "boot-2".to_owned(), ..next.clone() },
        LeaseRecord { sent_millis: Some(sent), ..next.clone() },
        LeaseRecord { sent_millis: None, ..next.clone() },
        LeaseRecord { state: LeaseState::Lost, timings: LeaseTimings::BALANCED, ..next },
    ] {
        assert_eq!(due(&seen(other)), at(14_000));
    }
    // What was concluded once is not carried on: the next counts from its own sight of the one before.
    let mut observer = seen(LeaseRecord { seq: 2, sent_millis: Some(sent + 980), ..first.clone() });
    observer.see(at(5_000), LeaseRecord { seq: 3, sent_millis: Some(sent + 1_960), ..first }, index + 2);
    assert_eq!(due(&observer), at(15_000));
}

/// Runs one seed: a holder on a clock that runs up to 1 % fast or slow, replies lost or late, writes delayed, reboots,
/// timings changed; an observer on another clock that looks now and then and fences when it may. At the moment a fence
/// is in force, the holder's deadline plus K must have passed.
fn run(seed: u64) -> (u32, u32) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let profiles = [LeaseTimings::FAST, LeaseTimings::BALANCED, LeaseTimings::PATIENT];
    let rates = [0.99, 1.0, 1.01];
    let (holder_rate, observer_rate): (f64, f64) =
        (rates[rng.random_range(0..3)], rates[rng.random_range(0..3)]);
    let clock = |t: u64, rate: f64| Moment::from_millis(1_000_000 + (t as f64 * rate) as u64);
    let mut key = Key::default();
    let mut holder = Holder::new(identity("boot-1"), profiles[rng.random_range(0..3)], None);
    let mut observer = Observer::default();
    let node = NodeName::new("n1").unwrap();
    let (mut t, mut busy_until, mut cut_until, mut next_look) = (0u64, 0u64, 0u64, 0u64);
    let (mut fences, mut renewals) = (0, 0);
    // A write that nobody waits for any more, and when it arrives.
    let mut late: Option<(u64, Op)> = None;
    while t < 120_000 {
        t += 20;
        let here = clock(t, holder_rate);
        if rng.random_bool(0.000_3) {
            cut_until = t + rng.random_range(1_000..40_000);
        }
        if rng.random_bool(0.001) {
            holder.set_timings(profiles[rng.random_range(0..3)]).unwrap();
        }
        if t >= busy_until {
            let copies = if holder.valid(here) { Copies::Some } else { Copies::None };
            match holder.next(here, inputs(copies, rng.random())) {
                Next::Sleep { .. } => {}
                Next::Read => {
                    let reply = if t < cut_until { Err(lost("read")) } else { Ok(key.value.clone()) };
                    holder.on_read(here, reply);
                }
                Next::Write { op, attempt } => {
                    if rng.random_bool(0.02) {
                        late = Some((t + rng.random_range(500..9_000), op.clone()));
                    }
                    let arrives = late.is_none() && (t >= cut_until || rng.random_bool(0.1));
                    let replies = t >= cut_until && rng.random_bool(0.9);
                    let result = if arrives { Some(key.apply(&op)) } else { None };
                    busy_until = t + rng.random_range(0..1_000);
                    renewals += u32::from(result.as_ref().is_some_and(Txn::committed));
                    let reply = result.filter(|_| replies).ok_or_else(|| lost("renew"));
                    holder.on_write(attempt, clock(busy_until, holder_rate), reply);
                }
            }
        }
        if let Some((_, op)) = late.take_if(|(arrives, _)| t >= *arrives) {
            renewals += u32::from(key.apply(&op).committed());
        }
        if t >= next_look {
            // Now and then the server it reads from lags behind for long.
            next_look = t + if rng.random_bool(0.01) {
                rng.random_range(0..30_000)
            } else {
                rng.random_range(20..1_500)
            };
            let there = clock(t, observer_rate);
            if let Some((record, index)) = key.value.clone() {
                observer.see(there, record, index);
            }
            if let Some(sight) = observer.get(&node).filter(|s| s.is_expired(there)).cloned() {
                let (current, index) = key.value.clone().unwrap();
                assert!(sight.is_same(&current, index));
                // The copy is dead K after the deadline at the latest.
                if let Some(deadline) = holder.deadline() {
                    let dead = deadline + holder.kill_within();
                    assert!(
                        here >= dead,
                        "seed {seed}: fenced at {here:?}, the copy may live until {dead:?}"
                    );
                    let fence = holder.fence().unwrap();
                    assert!(
                        here >= fence,
                        "seed {seed}: fenced at {here:?}, and not before {fence:?} was said"
                    );
                }
                key.last_index += 1;
                key.value = Some((sight.fenced(&NodeName::new("n2").unwrap()), key.last_index));
                fences += 1;
            }
        }
    }
    (fences, renewals)
}

#[test]
fn no_fence_is_ever_in_force_before_the_copy_is_dead() {
    let (mut fences, mut renewals) = (0, 0);
    for seed in 0..2_000 {
        let (f, r) = run(seed);
        fences += f;
        renewals += r;
    }
    assert!(fences > 500 && renewals > 50_000, "too tame: {fences} fences, {renewals} renewals");
}

#[test]
fn a_sleeping_holder_asks_for_no_more_than_one_renewal_a_period() {
    let mut key = Key::default();
    let mut holder = held(&mut key);
    assert_eq!(holder.next(at(400), inputs(Copies::Some, 2)), Next::Sleep { until: at(1_000) });
    assert_eq!(at(400).until(at(1_000)), Duration::from_millis(600));
}

#[test]
fn what_a_node_owned_is_set_free_when_its_controller_was_silent_for_30_s_and_not_a_moment_before() {
    for (millis, epoch) in [(30_499, 1), (30_500, 2)] {
        let mut key = Key::default();
        let mut holder = held(&mut key);
        let alone = Inputs { controller_alive: false, ..inputs(Copies::None, 2) };
        assert_eq!(sleep(holder.next(at(500), alone)), at(1_000), "silent since then");
        for now in [5_000, 10_000, 15_000, 20_000, 25_000, millis] {
            let (op, attempt) = write(holder.next(at(now), alone));
            holder.on_write(attempt, at(now), Ok(key.apply(&op)));
        }
        assert_eq!(holder.epoch(), epoch, "after {millis} ms");
    }
}
