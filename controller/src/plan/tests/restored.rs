//! A store that was put back to an earlier time of itself.

use super::*;

const STARTED: LocalVm = LocalVm::Paused { reason: PauseReason::Asked, generation: 1 };

/// The owner, whose record of now is not its own any more.
fn put_back(local: LocalVm) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, local);
    vm(&mut world).written = None;
    world.went_back = true;
    world
}

#[test]
fn what_this_process_had_written_later_in_the_same_life_is_written_again() {
    let mut world = put_back(RUNNING);
    let starting = VmRecord { revision: 6, ..record(Some(1), VmPhase::Starting) };
    world.vm_before = Some(starting.clone());
    let adopted = only_write(&decide(&world)).record.clone();
    assert_eq!((adopted.phase, adopted.revision), (VmPhase::Starting, 7));
    vm(&mut world).record.revision = 9;
    let adopted = only_write(&decide(&world)).record.clone();
    assert_eq!((adopted.phase, adopted.revision), (VmPhase::Running, 10), "what is there is later");
    vm(&mut world).record.revision = 0;
    world.vm_before = Some(VmRecord { owner: None, ..starting });
    assert_eq!(only_write(&decide(&world)).record.phase, VmPhase::Running, "of another life");
}

#[test]
fn a_paused_copy_that_nothing_explains_is_ended_once_it_is_this_nodes_again() {
    let mut world = put_back(STARTED);
    world.local = Observed::unknown("it hangs");
    if let Observed::Known(verdict) = &mut world.lease {
        verdict.copies = Some(1);
    }
    let mut notes = Notes::default();
    assert_eq!(only_write(&plan(&world, &mut notes)).reason, "Adopted");
    vm(&mut world).written = Some(NOW);
    world.local = Observed::Known(STARTED);
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]));
    assert_eq!(reasons(&decide(&world)), ["Paused"], "else somebody has paused it, and may have meant it");
    world.local = Observed::Known(RUNNING);
    plan(&world, &mut notes);
    world.local = Observed::Known(STARTED);
    assert_eq!(reasons(&plan(&world, &mut notes)), ["Paused"], "it was seen to run since");
}

#[test]
fn a_migration_that_is_said_to_be_over_while_a_copy_is_here_is_given_up_after_a_while() {
    let mut world = moving(1, 1, 3, STARTED);
    world.job = MigrationJob::Done { id: Uuid::from_u128(9) };
    let mut notes = Notes::default();
    assert_eq!(reasons(&plan(&world, &mut notes)), ["Migrating"]);
    at(&mut world, NOW + Duration::from_millis(9_999));
    assert_eq!(plan(&world, &mut notes).steps, []);
    at(&mut world, NOW + Duration::from_secs(10));
    let given_up = plan(&world, &mut notes);
    assert_eq!(only_write(&given_up).reason, "MigrationFailed");
    assert!(notes.unexplained, "{notes:?}");
}
