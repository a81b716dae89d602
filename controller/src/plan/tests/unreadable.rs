//! Tests records that somebody has written nonsense over.

use super::*;
use crate::plan::ownership::LEFT_ALONE;
use crate::world::{Overwritten, UnreadableLease};

const WHY: &str = "unknown variant `Lent`";

fn spoil_lease(world: &mut World, number: u32, age: Duration) {
    world.sights.remove(&node(number));
    let lease = UnreadableLease { index: 70, since: NOW - age, why: WHY.to_owned() };
    world.unreadable_leases.insert(node(number), lease);
}

/// The record cannot be read any more. `ours`: as this process wrote it last.
fn spoil_record(world: &mut World, ours: Option<VmRecord>) {
    world.vm = Observed::unknown("zsha/prod/vms/mnvm cannot be read: expected value");
    world.vm_overwritten = ours.map(|ours| Overwritten { index: 120, ours, sent: NOW });
}

#[test]
fn an_owner_whose_lease_cannot_be_read_is_given_time_to_write_it_anew_and_then_a_record_is_put_there() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    spoil_lease(&mut world, 1, LEFT_ALONE - Duration::from_millis(1));
    let early = decide(&world);
    assert_eq!((early.steps.as_slice(), reasons(&early)), (&[][..], vec!["OwnerUnknown"]));
    assert!(early.waiting[0].message.contains(WHY), "{early:?}");
    assert_eq!(early.recheck, Some(NOW + Duration::from_millis(1)));

    spoil_lease(&mut world, 1, LEFT_ALONE);
    let of = Owner { node: node(1), epoch: 1 };
    assert_eq!(decide(&world).steps, [Step::ReplaceLease { of, over: Some(70) }]);
    world.sights.remove(&node(2));
    assert_eq!(decide(&world).steps, [], "who does not see its own lease judges nobody's");
}

#[test]
fn a_node_whose_lease_cannot_be_read_is_never_taken_for_one_without_a_copy_where_all_are_asked() {
    // Nobody owns the VM; or this node is back with a record of before it was away; or the store went back.
    let nobody = world(2, None, VmPhase::Stopped, LocalVm::Absent);
    let mut back = world(2, Some(2), VmPhase::Running, LocalVm::Absent);
    vm(&mut back).record.owner = Some(Owner { node: node(2), epoch: 0 });
    vm(&mut back).record.last_start = Some(StartRecord {
        node: node(2),
        at: Timestamp::UNIX_EPOCH,
        reason: "FirstStart".to_owned(),
        generation: 1,
    });
    let mut restored = back.clone();
    restored.went_back = true;
    for mut world in [nobody, back, restored] {
        spoil_lease(&mut world, 3, Duration::ZERO);
        let early = decide(&world);
        assert_eq!((early.steps.as_slice(), reasons(&early)), (&[][..], vec!["CopiesUnknown"]));
        assert!(early.waiting[0].message.contains(WHY), "{early:?}");
        spoil_lease(&mut world, 3, LEFT_ALONE);
        let of = Owner { node: node(3), epoch: 0 };
        assert_eq!(decide(&world).steps, [Step::ReplaceLease { of, over: Some(70) }], "not for ever");
    }
}

#[test]
fn a_bystander_whose_lease_cannot_be_read_does_not_keep_a_dead_owners_vm_from_being_taken_over() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    expire(&mut world, 1);
    spoil_lease(&mut world, 3, Duration::ZERO);
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "Failover");
}

#[test]
fn with_a_record_that_cannot_be_read_nothing_is_started_and_nothing_ended() {
    for me in 1..=3 {
        for local in [RUNNING, DIED, LocalVm::Absent] {
            let mut world = world(me, Some(1), VmPhase::Running, local);
            spoil_record(&mut world, None);
            let plan = decide(&world);
            assert_eq!(
                (plan.steps.as_slice(), reasons(&plan)),
                (&[][..], vec!["Unknown"]),
                "n{me} {local:?}"
            );
            assert!(plan.waiting[0].message.contains("cannot be read"), "{plan:?}");
        }
    }
}

#[test]
fn the_owner_that_wrote_the_record_in_this_life_writes_it_again_over_the_nonsense() {
    for local in [RUNNING, DIED] {
        let mut world = world(1, Some(1), VmPhase::Running, local);
        let ours = VmRecord { revision: 9, ..record(Some(1), VmPhase::Running) };
        spoil_record(&mut world, Some(ours.clone()));
        let plan = decide(&world);
        let write = only_write(&plan);
        assert_eq!((write.reason.as_str(), write.index, write.epoch), ("Reclaimed", Some(120), 1));
        assert_eq!((write.record.revision, &write.record.owner), (10, &ours.owner));
        assert_eq!(reasons(&plan), ["RecordOverwritten"]);
    }
}

#[test]
fn whoever_may_not_be_the_owner_any_more_writes_nothing_over_it() {
    let ours = record(Some(1), VmPhase::Running);
    let spoiled = |ours: VmRecord, change: fn(&mut World, &mut Verdict)| {
        let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
        spoil_record(&mut world, Some(ours));
        let mut verdict = world.lease.known().unwrap().clone();
        change(&mut world, &mut verdict);
        world.lease = Observed::Known(verdict);
        decide(&world).steps
    };
    assert_eq!(spoiled(ours.clone(), |_, _| {}).len(), 1);
    let given_up = VmRecord { owner: None, ..ours.clone() };
    assert_eq!(spoiled(given_up, |_, _| {}), [], "it had given the VM up");
    let handed_over = VmRecord { owner: Some(Owner { node: node(3), epoch: 1 }), ..ours.clone() };
    assert_eq!(spoiled(handed_over, |_, _| {}), [], "or handed it over");
    assert_eq!(spoiled(ours.clone(), |_, verdict| verdict.epoch = 2), [], "it was written in another life");
    let since =
        |_: &mut World, verdict: &mut Verdict| verdict.unbroken_since = Some(NOW + Duration::from_nanos(1));
    assert_eq!(spoiled(ours.clone(), since), [], "or before its renewals had a break");
    assert_eq!(spoiled(ours.clone(), |_, verdict| verdict.unbroken_since = None), []);
    let lapsed = spoiled(ours, |_, verdict| verdict.valid_until = None);
    assert!(matches!(lapsed.as_slice(), [Step::KillCopy { .. }]), "its lease is over: {lapsed:?}");
}
