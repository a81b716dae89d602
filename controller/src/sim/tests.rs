//! The simulator's short form for every day, and the proof that it finds the bugs that it is there to find.

use std::path::Path;

use tokio::time::Instant;
use zsha_crds::records::{Departed, LeaseRecord, LeaseState, Owner, VmRecord};
use zsha_crds::{Keys, NodeName, VmId, VmName};
use zsha_runtime::Clock;
use zsha_runtime::store::MemoryStore;

use crate::heard::{self, Doing};
use crate::hypervisor::simulated::{Copy, SimulatedHosts};
use crate::hypervisor::{DomainImage, DomainSpec};
use crate::plan::Step;
use crate::planted::{Bug, plant};
use crate::sim::check::Checker;
use crate::sim::gate::CallFault;
use crate::sim::reasons::Reasons;
use crate::sim::validity::Validity;
use crate::sim::{matrix, operator, run, scenario};

/// Far more seeds than any of the bugs takes.
const MOST_SEEDS: u64 = 1_500;

/// The number of seeds until the bug shows, and the violation by which it does.
fn found(bug: Bug) -> (u64, String) {
    plant(Some(bug));
    let found = (0..MOST_SEEDS).find_map(|seed| Some((seed + 1, run(seed).violations.first()?.clone())));
    plant(None);
    found.unwrap_or_else(|| panic!("{bug:?} is not found in {MOST_SEEDS} seeds"))
}

/// True if the violation is two copies, one that may not execute, or what leads to that: which of them shows first is
/// chance.
fn is_unsafe(violation: &str) -> bool {
    ["I1", "I2", "R1", "R3", "R4"].iter().any(|kind| violation.starts_with(kind))
}

#[test]
fn a_hundred_and_fifty_seeds_with_faults_violate_nothing() {
    for seed in 0..150 {
        let report = run(seed);
        assert!(
            report.violations.is_empty(),
            "seed {seed}: {:?}\n{}replay: make sim SEED={seed}",
            report.violations,
            report.log
        );
    }
}

/// The judge's operator says `start` only by this rule, and would otherwise wait for what zsha may not do.
#[test]
fn a_guest_is_dead_with_its_node_only_if_that_had_said_that_it_has_it_whole() {
    let (cluster, vm) = (operator::example().name().clone(), VmName::management());
    let (store, keys, node) = (MemoryStore::new(), Keys::new(&cluster), NodeName::new("nfs-3").unwrap());
    let (uuid, at) = (vm.domain_uuid(&cluster), jiff::Timestamp::UNIX_EPOCH);
    let hosts = SimulatedHosts::new(VmId { name: vm.clone(), uuid });
    let mut checker = Checker::new(Instant::now(), store.clone(), hosts, &cluster);
    let from = NodeName::new("nfs-1").unwrap();
    let departed = Departed { from, at, seen_on: [node.clone()].into() };
    let record = VmRecord { departed: Some(departed), ..VmRecord::unplaced(VmId { name: vm.clone(), uuid }) };
    store.overwrite(&keys.vm(&vm), &serde_json::to_string(&record).unwrap());
    checker.check();
    assert!(checker.waits_for_an_operator(None), "the node lives");
    assert!(checker.waits_for_an_operator(Some(&node)), "it had only counted a process");
    let status = serde_json::json!({
        "node": "nfs-3", "conditions": [], "observedGeneration": 1, "controllerVersion": "test",
        "localVm": "Running", "runsUnnamed": true, "updatedAt": at,
    });
    store.overwrite(&keys.node_status(&node), &status.to_string());
    assert!(!checker.waits_for_an_operator(Some(&node)));
}

/// A copy that an earlier start makes after the restore is paused, and the controller may let no copy run by what it
/// wrote before.
#[test]
fn a_start_that_was_under_way_as_a_snapshot_was_restored_makes_nothing_that_could_execute() {
    let (first, second) = (NodeName::new("nfs-1").unwrap(), NodeName::new("nfs-2").unwrap());
    let (vm, start) = (VmName::management(), Instant::now());
    let mut validity = Validity::default();
    for node in [&first, &second] {
        validity.know(node.clone(), Clock::Tokio { start, rate_ppm: 0 });
        let lost = LeaseRecord::lost(&Owner { node: node.clone(), epoch: 1 }, jiff::Timestamp::UNIX_EPOCH);
        let renewal = validity.sending(node, LeaseRecord { state: LeaseState::Held, ..lost });
        validity.answered(&renewal);
    }
    let domain = DomainSpec {
        uuid: vm.domain_uuid(operator::example().name()),
        name: vm,
        generation: 1,
        memory_mib: 64,
        vcpus: 1,
        image: DomainImage::qcow2("/share/mnvm.img"),
        nics: Vec::new(),
        guest: Default::default(),
    };
    let starts = Step::Start { domain, seed: None, epoch: 1 };
    let copy = |node: &NodeName, process: u64| Copy {
        node: node.clone(),
        process,
        executing: false,
        may_write: false,
        incoming: false,
        generation: 1,
        started: start,
    };
    let said = |restored: bool, executing: bool| {
        heard::forget();
        let mut reasons = Reasons::default();
        let late = Doing::begin(&second, &starts);
        if restored {
            reasons.restoring([&first, &second].into_iter());
        }
        let made = Copy { executing, ..copy(&second, 1) };
        assert!(reasons.begun((std::slice::from_ref(&made), &validity), |_| false).is_empty());
        drop(late);
        let _begun = Doing::begin(&first, &starts);
        reasons.begun((&[made, copy(&first, 2)], &validity), |_| false).len()
    };
    assert_eq!((said(true, false), said(false, false)), (0, 1), "it may be let run unless it is of before");
    assert_eq!(said(true, true), 1, "one that executes is told whatever it is of");
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in [1, 7, 23] {
        let (first, second) = (run(seed), run(seed));
        assert!(!first.log.is_empty());
        assert_eq!(first.log, second.log, "seed {seed}");
    }
}

#[test]
fn releasing_before_stopping_is_found() {
    let (seeds, violation) = found(Bug::ReleaseBeforeStop);
    assert!(is_unsafe(&violation), "after {seeds} seeds: {violation}");
}

#[test]
fn starting_without_a_valid_lease_is_found() {
    let (seeds, violation) = found(Bug::StartWithoutLease);
    assert!(is_unsafe(&violation), "after {seeds} seeds: {violation}");
}

#[test]
fn a_deadline_reckoned_from_the_reply_is_found() {
    let (seeds, violation) = found(Bug::DeadlineFromReply);
    assert!(is_unsafe(&violation), "after {seeds} seeds: {violation}");
}

#[test]
fn never_taking_the_vm_from_a_dead_node_is_found() {
    let (seeds, violation) = found(Bug::NeverFence);
    assert!(violation.starts_with("liveness"), "after {seeds} seeds: {violation}");
}

#[test]
fn a_restart_of_the_controller_that_restarts_the_vm_is_found() {
    let (seeds, violation) = found(Bug::RestartKills);
    assert!(violation.starts_with("I3"), "after {seeds} seeds: {violation}");
}

#[test]
fn a_lost_reply_taken_for_a_success_is_found() {
    let (seeds, violation) = found(Bug::LostReplyCounts);
    assert!(is_unsafe(&violation), "after {seeds} seeds: {violation}");
}

#[test]
fn fencing_on_first_sight_is_found() {
    let (seeds, violation) = found(Bug::FenceOnFirstSight);
    assert!(is_unsafe(&violation) || violation.starts_with("I3"), "after {seeds} seeds: {violation}");
}

#[test]
fn a_missing_lease_taken_for_a_dead_node_is_found() {
    let (seeds, violation) = found(Bug::MissingIsDead);
    assert!(is_unsafe(&violation) || violation.starts_with("I3"), "after {seeds} seeds: {violation}");
}

#[test]
fn renewing_after_a_fence_is_found() {
    let (seeds, violation) = found(Bug::RenewAfterFenced);
    assert!(is_unsafe(&violation) || violation.starts_with("I3"), "after {seeds} seeds: {violation}");
}

#[test]
fn handing_a_migrating_vm_over_before_its_copy_is_gone_is_found() {
    let (seeds, violation) = found(Bug::HandOverEarly);
    assert!(is_unsafe(&violation) || violation.starts_with("I3"), "after {seeds} seeds: {violation}");
}

#[test]
fn letting_what_a_migration_brought_run_before_it_was_handed_over_is_found() {
    let (seeds, violation) = found(Bug::ResumeEarly);
    assert!(is_unsafe(&violation) || violation.starts_with("I3"), "after {seeds} seeds: {violation}");
}

/// The owner is asked to stop while nobody can look at it: it counts as stopped, and executes.
#[test]
fn what_cannot_be_looked_at_taken_for_absent_is_found() {
    let (seeds, violation) = found(Bug::UnknownIsAbsent);
    assert!(is_unsafe(&violation) || violation.starts_with("I3"), "after {seeds} seeds: {violation}");
}

/// A copy in uninterruptible sleep was killed, and another executes before the host is reset.
#[test]
fn a_watchdog_that_is_petted_whatever_happens_is_found() {
    let (seeds, violation) = found(Bug::AlwaysPetted);
    assert!(violation.contains("may still write"), "after {seeds} seeds: {violation}");
}

/// The host wakes after others have taken over, and for its own clock no time has passed.
#[test]
fn a_clock_that_stands_still_in_suspend_is_found() {
    let (seeds, violation) = found(Bug::ClockStopsInSuspend);
    assert!(is_unsafe(&violation), "after {seeds} seeds: {violation}");
}

/// Each file of `scenarios/`, and beside it the log of how it went.
#[test]
fn every_scenario_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim/scenarios");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|it| it == "scenario")).collect();
    files.sort();
    assert!(files.len() >= 15, "only {} scenarios", files.len());
    insta::with_settings!({
        snapshot_path => "scenarios", prepend_module_to_snapshot => false, omit_expression => true
    }, {
        for file in files {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            let report = scenario::play(&std::fs::read_to_string(&file).unwrap(), 1).unwrap();
            assert!(report.violations.is_empty(), "{name}: {:?}\n{}", report.violations, report.log);
            insta::assert_snapshot!(name, report.log);
        }
    });
}

#[test]
fn a_line_that_is_no_step_is_named_with_what_is_wrong_with_it() {
    let wrong = |text: &str| scenario::parse(text).unwrap_err().to_string();
    assert_eq!(
        wrong("# a comment\nbegin Balanced\nruns on nfs-1 within soon s"),
        "line 3: 'runs on nfs-1 within soon s' is no step: 'soon' is no number"
    );
    assert!(wrong("begin Quick").contains("there are Fast, Balanced and Patient"));
    assert!(wrong("qemu dies").contains("`begin PROFILE` is the first step"));
    assert!(wrong("begin Fast\nqemu sleeps").contains("the head of scenario.rs lists them all"));
}

/// `make sim MATRIX=1` plays all of it.
#[test]
fn whatever_goes_wrong_with_one_call_violates_nothing() {
    let calls = matrix::calls(1);
    assert!(calls > 300, "only {calls} calls in a day");
    for call in (0..calls).step_by(23) {
        for fault in CallFault::ALL {
            let report = matrix::play(1, call, fault);
            assert!(
                report.violations.is_empty(),
                "{fault:?} of call {call}: {:?}\n{}",
                report.violations,
                report.log
            );
        }
    }
}
