//! Tests that the seed disk is ready on every node, and that no guest starts where it cannot be.

use super::*;
use crate::guest::{GuestWants, Seed};
use crate::host::SeedFact;

fn seed() -> Arc<Seed> {
    let wants = GuestWants { dns: vec![std::net::Ipv4Addr::new(10, 0, 0, 53)], ..GuestWants::default() };
    Arc::new(wants.seed(&VmName::management(), &node(1)).unwrap())
}

/// The world of node 1, which is told this of its seed disk.
fn told(mut world: World, fact: Observed<SeedFact>) -> World {
    change(&mut world, |desired| desired.seeds = [(node(1), seed())].into());
    let Observed::Known(facts) = &mut world.host else { panic!("not looked") };
    facts.seed = Some(fact);
    world
}

fn refused() -> Observed<SeedFact> {
    Observed::Known(SeedFact::Refused { reason: "no space left on device".to_owned() })
}

fn starting(fact: Observed<SeedFact>) -> World {
    told(world(1, Some(1), VmPhase::Starting, LocalVm::Absent), fact)
}

#[test]
fn a_guest_starts_with_what_it_is_told_on_this_node() {
    let plan = decide(&starting(Observed::Known(SeedFact::Written)));
    let [Step::Start { seed: Some(with), .. }] = plan.steps.as_slice() else { panic!("{:?}", plan.steps) };
    assert_eq!(*with, seed());
}

#[test]
fn a_seed_that_is_not_there_yet_is_written_and_waited_for() {
    let (world, mut notes) = (starting(Observed::Known(SeedFact::NotWritten)), Notes::default());
    let first = pass(&world, &mut notes);
    assert_eq!(
        (first.steps.as_slice(), reasons(&first)),
        ([Step::WriteSeed(seed())].as_slice(), vec!["NotLookedYet"])
    );
    let second = pass(&world, &mut notes);
    assert_eq!(second.steps, [], "not again at once");
    assert!(second.recheck.is_some_and(|at| at > NOW && at <= NOW + Duration::from_secs(2)));
}

#[test]
fn an_owner_that_cannot_write_it_lets_another_node_start_the_vm() {
    let plan = decide(&starting(refused()));
    assert_eq!(
        (only_first_write(&plan).reason.as_str(), &only_first_write(&plan).record.owner),
        ("GaveUp", &None)
    );
    assert!(only_first_write(&plan).message.contains("no space left on device"));
}

/// The write that comes before the next try at the seed.
fn only_first_write(plan: &Plan) -> &Write {
    match plan.steps.as_slice() {
        [Step::Write(write), Step::WriteSeed(_)] => write,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_cannot_write_it_says_so_and_claims_nothing() {
    let free = told(world(1, None, VmPhase::Stopped, LocalVm::Absent), refused());
    let plan = decide(&free);
    assert_eq!(plan.steps, [Step::WriteSeed(seed())]);
    let ready = condition::find(&plan.conditions, ConditionKind::Ready).unwrap();
    assert!(!ready.is_true() && ready.message.contains("no space left on device"), "{ready:?}");
}

#[test]
fn a_vm_that_runs_is_left_alone_whatever_becomes_of_its_seed() {
    for fact in [refused(), Observed::Known(SeedFact::NotWritten), Observed::unknown("the disk hangs")] {
        let steps = decide(&told(world(1, Some(1), VmPhase::Running, RUNNING), fact.clone())).steps;
        assert!(steps.iter().all(|step| matches!(step, Step::WriteSeed(_))), "{fact:?}: {steps:?}");
    }
}

#[test]
fn a_running_guest_that_would_be_told_something_else_is_not_up_to_date() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    world.running_domain = Some(Arc::new(world.document().unwrap().domain.clone()));
    change(&mut world, |desired| (desired.generation, desired.domain.generation) = (2, 2));
    assert_eq!(world.is_up_to_date(), Some(true));
    change(&mut world, |desired| {
        (desired.generation, desired.domain.generation) = (2, 2);
        desired.domain.guest.dns.push(std::net::Ipv4Addr::LOCALHOST);
    });
    assert_eq!(world.is_up_to_date(), Some(false));
    assert_eq!(decide(&world).steps, [], "and that is told, and nothing done");
}
