//! Tests that an order is not judged by what a node said before the order was given.

use super::*;
use crate::guest::GuestWants;
use crate::host::{MountFact, MountWant, SeedFact};
use crate::plan::looked::PATIENCE;

const ORDER: u64 = 90;

/// Node 2 is where the VM is to go, and says that it is unfit.
fn to_an_unfit_one(looked_after: Option<u64>) -> World {
    let mut world = asked_to_move("n2");
    let status = NodeStatus {
        conditions: vec![Condition::new(
            ConditionKind::Ready,
            ConditionStatus::False,
            "Unfit",
            "the seed cannot be written",
            Timestamp::UNIX_EPOCH,
        )],
        looked_after,
        ..ready(2)
    };
    world.nodes.insert(node(2), Arc::new(status));
    world
}

fn answer(plan: &Plan) -> Option<(Outcome, String)> {
    let write = plan.steps.iter().find_map(|step| match step {
        Step::Write(write) => Some(write),
        _ => None,
    });
    let answered = write?.record.answered.clone()?;
    Some((answered.outcome, answered.message))
}

#[test]
fn a_move_is_refused_for_what_its_target_says_since_it_was_asked_for() {
    for looked_after in [Some(ORDER), Some(ORDER + 1)] {
        let (outcome, why) = answer(&decide(&to_an_unfit_one(looked_after))).unwrap();
        assert!(outcome == Outcome::Refused && why.contains("the seed cannot be written"), "{why}");
    }
}

#[test]
fn what_the_target_said_before_is_waited_out_and_said_with_its_age() {
    for looked_after in [Some(ORDER - 1), None] {
        let (mut world, mut notes) = (to_an_unfit_one(looked_after), Notes::default());
        let waits = plan(&world, &mut notes);
        assert_eq!((answer(&waits), reasons(&waits)), (None, vec!["TargetLooks"]));
        let said = &waits.waiting[0].message;
        assert!(
            said.contains(", at 1970-01-01 00:00:00Z") && said.contains("the seed cannot be written"),
            "{said}"
        );
        assert_eq!(waits.recheck, Some(NOW + PATIENCE));
        renewed_at(&mut world, NOW + PATIENCE - Duration::from_millis(1));
        assert_eq!(answer(&plan(&world, &mut notes)), None);
        renewed_at(&mut world, NOW + PATIENCE);
        assert_eq!(answer(&plan(&world, &mut notes)).unwrap().0, Outcome::Refused, "it does not say so");
    }
    let mut unheard = to_an_unfit_one(None);
    unheard.nodes.remove(&node(2));
    let waits = decide(&unheard);
    assert!(
        answer(&waits).is_none() && waits.waiting[0].message.contains("it has not reported yet"),
        "{waits:?}"
    );
    let (mut world, mut notes) = (to_an_unfit_one(None), Notes::default());
    plan(&world, &mut notes);
    world.nodes.insert(node(2), Arc::new(NodeStatus { looked_after: Some(ORDER), ..ready(2) }));
    let begun = plan(&world, &mut notes);
    assert_eq!(only_write(&begun).reason.as_str(), "MigrationBegun", "it was mended before");
}

/// These answers need no word of the target.
#[test]
fn what_is_known_without_the_target_is_answered_at_once() {
    let mut silent = to_an_unfit_one(None);
    expire(&mut silent, 2);
    let mut failing = to_an_unfit_one(None);
    let failures = StartFailures { count: placement::MAX_START_FAILURES, reason: "no".to_owned() };
    vm(&mut failing).record.failures.insert(node(2), failures);
    let mut drained = to_an_unfit_one(None);
    let asked =
        crate::intents::Asked { by: "ann".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
    let cordons = BTreeMap::from([(node(2), crate::intents::Cordon::Drained(asked))]);
    drained.intents = Observed::Known(Intents { drained: cordons, ..Intents::default() });
    for world in [silent, failing, drained] {
        assert_eq!(answer(&decide(&world)).unwrap().0, Outcome::Refused);
    }
}

/// A node whose shares are not mounted, and whose seed could not be written.
fn broken() -> World {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let want = |target: &str| MountWant {
        source: "10.0.0.9:/share".to_owned(),
        target: target.into(),
        fs_type: "nfs4".to_owned(),
        options: String::new(),
    };
    let seed = GuestWants::default().seed(&VmName::management(), &node(2)).unwrap();
    change(&mut world, |desired| {
        desired.seeds.insert(node(2), Arc::new(seed));
        desired.wants.mounts.extend([want("/one"), want("/two")]);
    });
    if let Observed::Known(facts) = &mut world.host {
        for target in ["/one", "/two"] {
            facts.mounts.insert(target.into(), Observed::Known(MountFact::NotMounted));
        }
        facts.seed = Some(Observed::Known(SeedFact::Refused { reason: "no space left".to_owned() }));
    }
    world
}

/// The things that are tried: the targets of mounts, and the seed disk.
fn tries(plan: &Plan) -> Vec<&str> {
    fn tried(step: &Step) -> Option<&str> {
        match step {
            Step::Mount(want) => want.target.to_str(),
            Step::WriteSeed(_) => Some("seed"),
            _ => None,
        }
    }
    plan.steps.iter().filter_map(tried).collect()
}

#[test]
fn a_share_that_cannot_be_mounted_keeps_no_other_from_being_mounted() {
    let (mut world, mut notes) = (broken(), Notes::default());
    assert_eq!(tries(&pass(&world, &mut notes)), ["/one", "seed"]);
    world.mounting = true;
    assert_eq!(tries(&pass(&world, &mut notes)), [""; 0], "one at a time");
    world.mounting = false;
    assert_eq!(tries(&pass(&world, &mut notes)), ["/two"]);
    let waits = pass(&world, &mut notes);
    assert_eq!(
        (tries(&waits), waits.recheck),
        (vec![], Some(NOW + Duration::from_secs(2))),
        "the seed's time"
    );
    renewed_at(&mut world, NOW + Duration::from_secs(5));
    assert_eq!(tries(&pass(&world, &mut notes)), ["/one", "seed"]);
}

#[test]
fn an_order_makes_a_node_try_again_at_once_and_then_look_and_it_says_so_after_that() {
    let (mut world, mut notes) = (broken(), Notes::default());
    for _ in 0..2 {
        pass(&world, &mut notes);
    }
    assert_eq!(tries(&pass(&world, &mut notes)), [""; 0], "not before its time");
    world.orders = Some(ORDER);
    let said = |plan: &Plan| (plan.look, plan.looked_after);
    let first = pass(&world, &mut notes);
    assert_eq!((tries(&first), said(&first)), (vec!["/one", "seed"], (false, None)));
    world.mounting = true;
    assert_eq!(said(&pass(&world, &mut notes)), (false, None), "what comes of it is not known");
    world.mounting = false;
    let second = pass(&world, &mut notes);
    assert_eq!((tries(&second), said(&second)), (vec!["/two"], (false, None)));
    renewed_at(&mut world, NOW + Duration::from_secs(1));
    assert_eq!(said(&pass(&world, &mut notes)), (true, None), "what it sees is older");
    world.host_looked = None;
    assert_eq!(
        said(&pass(&world, &mut notes)),
        (false, None),
        "it is being looked since something was mounted"
    );
    let facts = std::mem::replace(&mut world.host, Observed::unknown("the document has changed"));
    world.host_looked = Some(NOW + Duration::from_secs(1));
    assert_eq!(said(&pass(&world, &mut notes)), (false, None));
    world.host = facts;
    assert_eq!(said(&pass(&world, &mut notes)), (false, Some(ORDER)));
    // A snapshot that is restored has fewer orders, or older ones: it is looked for those too.
    world.orders = Some(ORDER - 50);
    let restored = pass(&world, &mut notes);
    assert_eq!((tries(&restored), said(&restored)), (vec!["/one", "seed"], (false, None)));
}

#[test]
fn a_node_that_the_vm_is_to_leave_does_not_wait_for_the_word_of_one_that_may_be_fit() {
    let mut world = to_an_unfit_one(None);
    let asked =
        crate::intents::Asked { by: "ann".to_owned(), at: Timestamp::UNIX_EPOCH, message: String::new() };
    let cordons = BTreeMap::from([(node(1), crate::intents::Cordon::Drained(asked))]);
    world.intents = Observed::Known(Intents { drained: cordons, ..Intents::default() });
    let write = only_write(&decide(&world)).record.clone();
    assert_eq!(write.migration.map(|migration| migration.to.node), Some(node(3)));
}
