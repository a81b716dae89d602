//! Tests a node that loses its lease again and again.

use zsha_crds::records::LostLease;

use super::*;
use crate::keeper::Lost;
use crate::plan::fitness::conditions;
use crate::plan::stability::lost_leases;
use crate::plan::{news, placement};

const MINUTE: Duration = Duration::from_secs(60);

/// This node has lost leases of these epochs, each so long ago, as its keeper says.
fn losing(me: u32, lost: &[(u64, Duration)]) -> World {
    let mut world = world(me, Some(1), VmPhase::Running, LocalVm::Absent);
    world.now = NOW + MINUTE * 120;
    world.wall = Timestamp::from_second(100_000).unwrap();
    let Observed::Known(verdict) = &mut world.lease else { panic!("no lease") };
    verdict.valid_until = Some(world.now + MINUTE);
    verdict.lost = lost.iter().map(|(epoch, ago)| Lost { epoch: *epoch, at: world.now - *ago }).collect();
    world
}

fn is_stable(world: &World) -> bool {
    condition::find(&conditions(world), ConditionKind::Stable).unwrap().is_true()
}

#[test]
fn three_lost_leases_within_an_hour_make_a_node_unstable_and_two_do_not() {
    let two = [(4, MINUTE * 59), (6, MINUTE)];
    assert!(is_stable(&losing(1, &two)));
    let three = [(2, MINUTE * 59), (4, MINUTE * 30), (6, MINUTE)];
    let world = losing(1, &three);
    assert!(!is_stable(&world));
    let said = condition::find(&conditions(&world), ConditionKind::Stable).unwrap().message.clone();
    assert!(said.contains("n1 has lost 3 leases since 1970-01-02 02:47:40Z"), "{said}");
    let old = [(2, MINUTE * 60), (4, MINUTE * 30), (6, MINUTE)];
    assert!(is_stable(&losing(1, &old)), "an hour after the first it is forgotten");
}

#[test]
fn what_was_said_before_a_restart_is_remembered_for_an_hour_and_counted_once() {
    let mut world = losing(1, &[(6, MINUTE)]);
    let at = |world: &World, ago: i64| Timestamp::from_second(world.wall.as_second() - ago).unwrap();
    let said = NodeStatus {
        lost_leases: vec![
            LostLease { epoch: 2, at: at(&world, 3_600) },
            LostLease { epoch: 4, at: at(&world, 3_599) },
            LostLease { epoch: 6, at: at(&world, 62) },
        ],
        ..ready(1)
    };
    world.nodes.insert(node(1), Arc::new(said));
    let epochs: Vec<_> = lost_leases(&world).iter().map(|lost| lost.epoch).collect();
    assert_eq!(epochs, [4, 6]);
    world.lease = Observed::unknown("the keeper is being upgraded");
    assert_eq!(lost_leases(&world).len(), 2, "it does not take its keeper to remember");
}

/// `number` says of itself that it is not stable.
fn says_unstable(world: &mut World, number: u32) {
    let mut status = ready(number);
    let at = Timestamp::UNIX_EPOCH;
    status.conditions.push(Condition::new(
        ConditionKind::Stable,
        ConditionStatus::False,
        "LosesLeases",
        "3 leases",
        at,
    ));
    world.nodes.insert(node(number), Arc::new(status));
}

#[test]
fn an_unstable_node_is_ready_and_last_in_line() {
    let unstable = losing(1, &[(2, MINUTE), (4, MINUTE), (6, MINUTE)]);
    let ready = condition::find(&conditions(&unstable), ConditionKind::Ready).unwrap().clone();
    assert!(ready.is_true(), "{ready:?}");
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let line = |world: &World| placement::candidates(world, &desired(), vm_of(world)).fit;
    assert_eq!(line(&world), [node(1), node(2), node(3)]);
    says_unstable(&mut world, 1);
    assert_eq!(line(&world), [node(2), node(3), node(1)]);
    says_unstable(&mut world, 2);
    assert_eq!(line(&world)[0], node(2), "what this node thinks of itself it knows better");
}

#[test]
fn an_unstable_node_is_taken_where_no_other_is_fit_and_not_where_one_is() {
    let mut world = world(2, None, VmPhase::Stopped, LocalVm::Absent);
    says_unstable(&mut world, 1);
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "FirstStart", "the second is first in line now");
    let mut alone = losing(1, &[(2, MINUTE), (4, MINUTE), (6, MINUTE)]);
    alone.vm = super::world(1, None, VmPhase::Stopped, LocalVm::Absent).vm;
    alone.sights.retain(|other, _| *other == node(1));
    let mine = alone.sights.get_mut(&node(1)).unwrap();
    (mine.first_seen, mine.sent_by) = (alone.now, alone.now);
    assert_eq!(only_write(&decide(&alone)).reason.as_str(), "FirstStart");
}

#[test]
fn that_a_node_is_unstable_is_told_once_also_by_a_controller_that_is_started_anew() {
    let unstable = losing(1, &[(2, MINUTE), (4, MINUTE), (6, MINUTE)]);
    let told = |world: &World, notes: &mut Notes| {
        news::news(world, &mut notes.told)
            .into_iter()
            .filter(|news| news.reason == EventReason::Unstable)
            .count()
    };
    let mut notes = Notes::default();
    assert_eq!((told(&unstable, &mut notes), told(&unstable, &mut notes)), (1, 0));
    let mut said = unstable.clone();
    says_unstable(&mut said, 1);
    assert_eq!(told(&said, &mut Notes::default()), 0, "it is in the status already");
    assert_eq!(told(&losing(1, &[]), &mut notes), 0);
    assert_eq!(told(&unstable, &mut notes), 1, "once more");
}
