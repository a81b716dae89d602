//! Tests what is done about a definition of the VM on a node's disk.

use super::*;

fn none() -> DomainFacts {
    DomainFacts::new(Origin::Booted)
}

fn defined(mut world: World) -> World {
    world.domain = Observed::Known(DomainFacts { defined: true, ..none() });
    world
}

fn is_removed(world: &World) -> bool {
    decide(world).steps.iter().any(|step| matches!(step, Step::Undefine { .. }))
}

#[test]
fn a_definition_on_the_disk_goes_wherever_it_is_and_whatever_runs() {
    let off = |reason| LocalVm::Off { reason };
    for local in [LocalVm::Absent, off(OffReason::Migrated), off(OffReason::Died), off(OffReason::Unknown)] {
        let standby = world(2, Some(1), VmPhase::Running, local);
        assert!(!is_removed(&standby), "there is none: {local:?}");
        assert!(is_removed(&defined(standby)), "{local:?}");
    }
    assert!(
        is_removed(&defined(world(1, Some(1), VmPhase::Running, RUNNING))),
        "beside the copy of its owner"
    );
    let mut blind = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    blind.vm = Observed::Unknown("Consul is out of reach".to_owned());
    assert!(is_removed(&defined(blind)), "whoever owns the VM");
}

#[test]
fn a_definition_never_keeps_a_recovery_waiting() {
    let mut claims = defined(world(2, Some(1), VmPhase::Running, DIED));
    claims.sights.insert(node(1), sight(1, Duration::from_secs(11)));
    only_write(&decide(&claims));
    let starts = defined(world(1, Some(1), VmPhase::Starting, LocalVm::Absent));
    assert!(matches!(decide(&starts).steps.as_slice(), [Step::Start { .. }]));
    let ends = defined(world(2, Some(1), VmPhase::Running, RUNNING));
    assert!(matches!(decide(&ends).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn a_definition_is_left_while_libvirt_moves_the_guest_or_says_nothing() {
    let mut moving = defined(world(1, Some(1), VmPhase::Running, RUNNING));
    moving.job = MigrationJob::Going { id: Uuid::from_u128(9), percent: None };
    assert!(!is_removed(&moving));
    let mut silent = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    silent.domain = Observed::Unknown("libvirt does not answer".to_owned());
    assert!(!is_removed(&silent));
}

#[test]
fn it_is_told_that_a_boot_would_have_started_it() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    world.domain = Observed::Known(DomainFacts { defined: true, autostart: true, ..none() });
    let steps = decide(&world).steps;
    let told = matches!(steps.as_slice(), [Step::Undefine { because }] if because.contains("with the boot of this node"));
    assert!(told, "{steps:?}");
}
