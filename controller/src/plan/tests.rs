//! Tests of decisions by values: one world in, one plan out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use zsha_crds::document::{GuestPowerOff, Watchdog};
use zsha_crds::records::{
    ByVm, LeaseRecord, LeaseState, LeaseTimings, Migration, NodeStatus, Outcome, Owner, StartFailures,
    StartRecord, VmCount, VmHere, VmPhase, VmRecord,
};
use zsha_crds::{
    Condition, ConditionKind, ConditionStatus, EventReason, LocalState, NodeName, VmId, VmName, condition,
};
use zsha_runtime::Moment;
use zsha_runtime::lease::{Expectation, Sight};

use super::notes::{Landed, Seen, Tried};
use super::ownership::{self, Right, Standing};
use super::{Notes, Plan, Step, Write, placement};
use crate::desired::Desired;
use crate::host::{BridgeFact, Content, HostFacts, HostWants, ImageFact};
use crate::hypervisor::{
    Devices, DomainFacts, DomainImage, DomainSpec, LocalVm, MigrationJob, OffReason, Offer, Origin,
    PauseReason,
};
use crate::in_force::SpecProblem;
use crate::intents::Intents;
use crate::keeper::{Ended, Verdict, WatchdogState};
use crate::observed::Observed;
use crate::world::{MigrateRequest, StoredVm, UnreadableLease, World};

mod claims;
mod definitions;
mod departed;
mod devices;
mod fitness;
mod host_down;
mod looked;
mod migrations;
mod news;
mod notes;
mod orders;
mod restored;
mod seed;
mod stability;
mod starts;
mod storage;
mod unnamed;
mod unreadable;

const NOW: Moment = Moment::from_millis(1_000_000);
const RUNNING: LocalVm = LocalVm::Running { generation: 1 };
const DIED: LocalVm = LocalVm::Off { reason: OffReason::Died };

fn node(number: u32) -> NodeName {
    NodeName::new(format!("n{number}")).unwrap()
}

fn desired() -> Desired {
    let name = VmName::management();
    Desired {
        generation: 1,
        order: vec![node(1), node(2), node(3)],
        addresses: (1..=3).map(|n| (node(n), std::net::Ipv4Addr::new(10, 0, 0, n as u8))).collect(),
        fail_back_to: 0,
        timings: LeaseTimings::BALANCED,
        power_off: GuestPowerOff::Restart,
        guest_shutdown: Duration::from_secs(60),
        watchdog: Watchdog::Automatic,
        may_reset_password: false,
        domain: DomainSpec {
            uuid: Uuid::nil(),
            name,
            generation: 1,
            memory_mib: 8192,
            vcpus: 4,
            image: DomainImage::qcow2("/share/mnvm.img"),
            nics: vec![],
            guest: Default::default(),
        },
        seeds: BTreeMap::new(),
        wants: HostWants { image: Some("/share/mnvm.img".into()), ..HostWants::default() },
    }
}

/// Seen for `age`, in epoch 1, unless changed.
fn sight(number: u32, age: Duration) -> Sight {
    Sight {
        record: LeaseRecord {
            cluster: None,
            node: node(number),
            incarnation: Uuid::from_u128(u128::from(number)),
            epoch: 1,
            seq: 7,
            state: LeaseState::Held,
            machine_id: format!("m{number}"),
            boot_id: "b".to_owned(),
            timings: LeaseTimings::BALANCED,
            controller_alive: true,
            vms: ByVm::only(VmName::management(), VmCount { copies: Some(0), moved_away_in: None }),
            sent_millis: None,
            renewed_at: Timestamp::UNIX_EPOCH,
            fenced_by: None,
        },
        index: 40 + u64::from(number),
        first_seen: NOW - age,
        sent_by: NOW - age,
        d_at_least: Duration::ZERO,
        is_news: true,
        follows: NOW - age,
    }
}

fn ready(number: u32) -> NodeStatus {
    NodeStatus {
        node: node(number),
        conditions: vec![Condition::new(
            ConditionKind::Ready,
            ConditionStatus::True,
            "Fit",
            "the VM may be placed here",
            Timestamp::UNIX_EPOCH,
        )],
        observed_generation: 1,
        document_format: zsha_crds::format::FIRST,
        vms: ByVm::only(VmName::management(), VmHere { local_vm: LocalState::Off, ..VmHere::default() }),
        lost_leases: vec![],
        virtual_host: None,
        // Since whatever is asked for in these tests.
        looked_after: Some(90),
        controller_version: "test".to_owned(),
        waiting: vec![],
        updated_at: Timestamp::UNIX_EPOCH,
    }
}

/// The part of the lease that is about the VM.
fn count(lease: &mut LeaseRecord) -> &mut VmCount {
    lease.vms.of_mut(&VmName::management())
}

/// The part of the status that is about the VM.
fn here(status: &mut NodeStatus) -> &mut VmHere {
    status.vms.of_mut(&VmName::management())
}

fn vm_id() -> VmId {
    VmId { name: VmName::management(), uuid: Uuid::nil() }
}

fn record(owner: Option<u32>, phase: VmPhase) -> VmRecord {
    VmRecord {
        owner: owner.map(|number| Owner { node: node(number), epoch: 1 }),
        phase,
        failures_generation: 1,
        ..VmRecord::unplaced(vm_id())
    }
}

/// All is well, as `me` sees it: `owner` runs the VM.
fn world(me: u32, owner: Option<u32>, phase: VmPhase, local: LocalVm) -> World {
    World {
        now: NOW,
        wall: Timestamp::UNIX_EPOCH,
        me: node(me),
        vm_id: vm_id(),
        desired: Observed::Known(Some(Arc::new(desired()))),
        spec_problem: None,
        intents: Observed::Known(Intents::default()),
        shutdowns: Observed::Known(BTreeMap::new()),
        migrate: None,
        job: MigrationJob::None,
        lease: Observed::Known(Verdict {
            valid_until: Some(NOW + Duration::from_secs(7)),
            incarnation: Uuid::from_u128(u128::from(me)),
            seq: 7,
            message: "renewed".to_owned(),
            unbroken_since: Some(Moment::from_millis(0)),
            copies: Some(0),
            // A keeper that is not told what to expect: `unnamed` has the others.
            expects: None,
            ..Verdict::invalid(node(me).as_str())
        }),
        sights: (1..=3).map(|n| (node(n), sight(n, Duration::from_millis(300)))).collect(),
        vm: Observed::Known(Some(StoredVm {
            record: record(owner, phase),
            index: 99,
            written: (owner == Some(me)).then_some(NOW),
        })),
        vm_before: None,
        departed_before: None,
        nodes: (1..=3).map(|n| (node(n), Arc::new(ready(n)))).collect(),
        local: Observed::Known(local),
        last_end: Observed::unknown("it was not asked for"),
        // Of a process, where there is one: it was booted here.
        offer: Observed::Known(Offer {
            accelerated: true,
            memory_mib: 64 << 10,
            most_vcpus: 288,
            refuses: None,
            namesake: None,
        }),
        domain: Observed::Known(DomainFacts {
            devices: Observed::Known(Devices::of(&desired().domain)),
            ..DomainFacts::new(Origin::Booted)
        }),
        unreadable_leases: BTreeMap::new(),
        vm_overwritten: None,
        vanished_leases: BTreeMap::new(),
        went_back: false,
        running_domain: None,
        host: Observed::Known(HostFacts {
            image: Some(Observed::Known(ImageFact::Present(Content::default()))),
            ..HostFacts::default()
        }),
        host_looked: Some(NOW),
        mounting: false,
        orders: None,
        keeper_blind: false,
    }
}

fn vm(world: &mut World) -> &mut StoredVm {
    match &mut world.vm {
        Observed::Known(Some(stored)) => stored,
        other => panic!("no record: {other:?}"),
    }
}

fn vm_of(world: &World) -> &VmRecord {
    world.record().unwrap()
}

fn change(world: &mut World, change: impl FnOnce(&mut Desired)) {
    let mut changed = desired();
    change(&mut changed);
    world.desired = Observed::Known(Some(Arc::new(changed)));
}

/// Moves time on for a node that renews its lease.
fn at(world: &mut World, now: Moment) {
    world.now = now;
    if let Observed::Known(verdict) = &mut world.lease {
        verdict.valid_until = Some(now + Duration::from_secs(7));
    }
}

/// The same, where every other node renews as well.
fn renewed_at(world: &mut World, now: Moment) {
    at(world, now);
    for sight in world.sights.values_mut() {
        (sight.first_seen, sight.sent_by) = (now, now);
    }
}

fn expire(world: &mut World, number: u32) {
    world.sights.insert(node(number), sight(number, Duration::from_secs(10)));
}

/// One pass, after which `notes` are what it remembers. A second over the same world plans the same.
fn plan(world: &World, notes: &mut Notes) -> Plan {
    let plan = super::plan(world, notes);
    let again = super::plan(world, &plan.notes);
    assert_eq!(again, plan, "planned twice");
    *notes = plan.notes.clone();
    plan
}

/// One pass whose steps are all done.
fn pass(world: &World, notes: &mut Notes) -> Plan {
    let plan = plan(world, notes);
    for step in &plan.steps {
        match step {
            Step::Write(write) => notes.wrote(write, Landed::Surely, world.now),
            Step::Mount(want) => notes.tried_to_mount(&want.target, world.now),
            Step::WriteSeed(_) => notes.tried_to_write_seed(world.now),
            Step::Resume { because, .. } => notes.resumed(*because, true, world.now),
            Step::Start { .. } => notes.started(world.now),
            Step::AbortMigration { id, .. } => notes.aborted(*id, world.now),
            Step::Shutdown { .. } => {
                notes.asked_to_power_off(world.now);
            }
            Step::SetTimings(_)
            | Step::SetWatchdog(_)
            | Step::Expect(_)
            | Step::KillCopy { .. }
            | Step::ReplaceLease { .. }
            | Step::Undefine { .. }
            | Step::Migrate(_)
            | Step::SetPassword { .. } => {}
        }
    }
    plan
}

fn decide(world: &World) -> Plan {
    plan(world, &mut Notes::default())
}

fn only_write(plan: &Plan) -> &Write {
    match plan.steps.as_slice() {
        [Step::Write(write)] => write,
        steps => panic!("expected one write, got {steps:?}"),
    }
}

fn reasons(plan: &Plan) -> Vec<&str> {
    plan.waiting.iter().map(|waiting| waiting.reason.as_str()).collect()
}

#[test]
fn a_healthy_cluster_plans_nothing_on_any_node() {
    for (me, local) in [(1, RUNNING), (2, LocalVm::Absent), (3, LocalVm::Absent)] {
        let plan = decide(&world(me, Some(1), VmPhase::Running, local));
        assert_eq!((plan.steps, plan.waiting), (vec![], vec![]), "n{me}");
    }
}

#[test]
fn the_first_in_line_claims_a_vm_nobody_owns() {
    let write = decide(&world(1, None, VmPhase::Stopped, LocalVm::Absent));
    let write = only_write(&write);
    assert_eq!(write.record.owner, Some(Owner { node: node(1), epoch: 1 }));
    assert_eq!(
        (write.record.phase, write.reason.as_str(), write.index),
        (VmPhase::Starting, "FirstStart", Some(99))
    );
    assert!(write.fence.is_empty());
}

#[test]
fn the_second_in_line_waits_its_turn_and_then_tries() {
    let mut world = world(2, None, VmPhase::Stopped, LocalVm::Absent);
    let mut notes = Notes::default();
    let first = plan(&world, &mut notes);
    assert_eq!((first.steps.as_slice(), reasons(&first)), (&[][..], vec!["NotFirstInLine"]));
    let due = first.recheck.unwrap();
    world.now = due;
    for sight in world.sights.values_mut() {
        (sight.first_seen, sight.sent_by) = (due, due);
    }
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "FirstStart");
}

#[test]
fn an_owner_that_may_live_is_left_alone_until_its_lease_is_surely_over() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    world.sights.insert(node(1), sight(1, Duration::from_millis(9_999)));
    let plan = decide(&world);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.recheck, Some(NOW + Duration::from_millis(1)));
}

#[test]
fn an_expired_owner_is_fenced_and_its_vm_claimed_in_one_write() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    expire(&mut world, 1);
    let plan = decide(&world);
    let write = only_write(&plan);
    assert_eq!(write.fence.iter().map(|s| s.record.node.clone()).collect::<Vec<_>>(), [node(1)]);
    assert_eq!((write.reason.as_str(), write.epoch), ("Failover", 1));
    assert!(write.message.contains("n1 has not renewed its lease for 10.0 s"), "{}", write.message);
}

#[test]
fn an_owner_whose_last_renewal_was_seen_late_has_no_place_in_the_line() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let late = Sight { sent_by: NOW - Duration::from_secs(10), ..sight(1, Duration::from_secs(5)) };
    world.sights.insert(node(1), late);
    assert_eq!(only_write(&decide(&world)).fence[0].record.node, node(1));
}

#[test]
fn d_is_the_one_in_the_owners_own_record() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let mut patient = sight(1, Duration::from_secs(24));
    patient.record.timings = LeaseTimings::PATIENT;
    world.sights.insert(node(1), patient);
    assert!(decide(&world).steps.is_empty());
}

#[test]
fn nothing_is_concluded_from_a_lease_that_cannot_be_seen() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    // An empty list may be one that this node has no right to see.
    world.sights.clear();
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["OwnerUnknown"]));
}

#[test]
fn an_owners_lease_that_is_gone_is_replaced_and_the_replacement_fenced_after_the_longest_d() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    world.sights.remove(&node(1));
    let owner = Owner { node: node(1), epoch: 1 };
    assert_eq!(decide(&world).steps, [Step::ReplaceLease { of: owner.clone(), over: None }]);
    let lost = |age| Sight {
        record: LeaseRecord::lost(&owner, Timestamp::UNIX_EPOCH),
        ..sight(1, Duration::from_secs(age))
    };
    world.sights.insert(node(1), lost(299));
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), ([].as_slice(), vec!["OwnerUnknown"]));
    assert_eq!(plan.recheck, Some(NOW + Duration::from_secs(1)));
    world.sights.insert(node(1), lost(300));
    let plan = decide(&world);
    let fenced = &only_write(&plan).fence[0];
    assert_eq!(fenced.fenced(&node(2)).epoch, 2);
}

#[test]
fn what_was_put_in_the_place_of_an_owners_lease_by_one_who_did_not_know_its_epoch_is_replaced() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let unknown = Owner { node: node(1), epoch: 0 };
    let lost = sight(1, Duration::from_secs(400));
    let index = lost.index;
    let record = LeaseRecord::lost(&unknown, Timestamp::UNIX_EPOCH);
    world.sights.insert(node(1), Sight { record, ..lost });
    let owner = Owner { node: node(1), epoch: 1 };
    assert_eq!(decide(&world).steps, [Step::ReplaceLease { of: owner, over: Some(index) }]);
}

#[test]
fn a_lease_older_than_the_record_means_the_store_went_backwards() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut world).record.owner = Some(Owner { node: node(1), epoch: 5 });
    let standing = |world: &World| ownership::standing(world, &Owner { node: node(1), epoch: 5 });
    world.sights.get_mut(&node(1)).unwrap().is_news = false;
    assert!(matches!(standing(&world), Standing::MayLive { until: None, .. }));
    assert!(decide(&world).steps.is_empty());
    world.sights.get_mut(&node(1)).unwrap().is_news = true;
    assert!(matches!(standing(&world), Standing::Dead { .. }), "it is seen to live in epoch 1");
    expire(&mut world, 1);
    assert!(matches!(standing(&world), Standing::Gone { over: Some(41) }));
    assert!(matches!(decide(&world).steps.as_slice(), [Step::ReplaceLease { over: Some(41), .. }]));
}

#[test]
fn a_later_epoch_and_a_released_lease_prove_the_copy_dead() {
    for change in [
        (|s: &mut Sight| s.record.epoch = 2) as fn(&mut Sight),
        |s| s.record.state = LeaseState::Released,
        |s| s.record.state = LeaseState::Fenced,
    ] {
        let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
        let mut owner = sight(1, Duration::from_secs(10));
        change(&mut owner);
        // The owner itself, back in a new life, would be first in line.
        owner.record.controller_alive = false;
        world.sights.insert(node(1), owner);
        assert!(only_write(&decide(&world)).fence.is_empty());
    }
}

#[test]
fn during_a_migration_both_nodes_must_be_dead_before_anyone_claims() {
    let mut world = world(3, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut world).record.migration =
        Some(Migration { to: Owner { node: node(2), epoch: 1 }, id: Uuid::nil() });
    expire(&mut world, 1);
    assert!(decide(&world).steps.is_empty(), "the target may run it");
    expire(&mut world, 2);
    assert_eq!(only_write(&decide(&world)).fence.len(), 2);
}

#[test]
fn a_copy_that_may_not_be_here_is_killed_before_anything_else() {
    let plan = decide(&world(2, Some(1), VmPhase::Running, RUNNING));
    assert!(
        matches!(plan.steps.as_slice(), [Step::KillCopy { because, .. }] if because.contains("belongs to n1"))
    );
}

#[test]
fn a_node_in_a_later_life_does_not_own_what_it_owned_before() {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Absent);
    if let Observed::Known(verdict) = &mut world.lease {
        verdict.epoch = 3;
    }
    assert_eq!(reasons(&decide(&world)), ["LeasesNotSeen"], "what it sees is from before this life");
    world.sights.get_mut(&node(1)).unwrap().record.epoch = 3;
    let plan = decide(&world);
    assert_eq!((only_write(&plan).reason.as_str(), only_write(&plan).epoch), ("Returned", 3));
    world.local = Observed::Known(RUNNING);
    assert!(matches!(decide(&world).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn without_a_valid_lease_the_copy_is_killed_and_nothing_started() {
    for (local, steps) in [(RUNNING, 1), (DIED, 0)] {
        let mut world = world(1, Some(1), VmPhase::Running, local);
        if let Observed::Known(verdict) = &mut world.lease {
            verdict.valid_until = Some(NOW);
        }
        let plan = decide(&world);
        assert_eq!(plan.steps.len(), steps);
        assert_eq!(reasons(&plan), ["NoLease"]);
    }
}

#[test]
fn whatever_is_unknown_holds_the_running_vm_as_it_is() {
    let unknown = || "cannot look".to_owned();
    let all: [fn(&mut World, String); 7] = [
        |w, why| w.lease = Observed::Unknown(why),
        |w, why| w.vm = Observed::Unknown(why),
        |w, why| w.local = Observed::Unknown(why),
        |w, why| w.desired = Observed::Unknown(why),
        |w, why| w.intents = Observed::Unknown(why),
        |w, why| w.host = Observed::Unknown(why),
        |w, _| w.vm = Observed::Known(None),
    ];
    for (number, blind) in all.into_iter().enumerate() {
        for (me, local) in [(1, RUNNING), (2, LocalVm::Absent)] {
            let mut world = world(me, Some(1), VmPhase::Running, local);
            blind(&mut world, unknown());
            assert_eq!(decide(&world).steps, [], "case {number} on n{me}");
        }
    }
}

#[test]
fn a_missing_record_is_never_taken_for_a_free_vm() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    world.vm = Observed::Known(None);
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["RecordMissing"]));
}

#[test]
fn a_restarted_controller_writes_the_record_once_more_before_it_acts_on_it() {
    for local in [RUNNING, DIED] {
        let mut world = world(1, Some(1), VmPhase::Running, local);
        vm(&mut world).written = None;
        assert_eq!(ownership::right(&world), Right::Unconfirmed { epoch: 1 });
        let plan = decide(&world);
        let write = only_write(&plan);
        assert_eq!((write.reason.as_str(), write.record.revision), ("Adopted", 1));
        assert_eq!(write.record.owner, vm(&mut world).record.owner);
    }
}

#[test]
fn a_dead_qemu_is_first_recorded_and_then_started_at_once() {
    let mut world = world(1, Some(1), VmPhase::Running, DIED);
    let plan = decide(&world);
    assert_eq!(
        (only_write(&plan).reason.as_str(), only_write(&plan).record.phase),
        ("QemuDied", VmPhase::Starting)
    );
    vm(&mut world).record.phase = VmPhase::Starting;
    assert!(matches!(decide(&world).steps.as_slice(), [Step::Start { epoch: 1, .. }]));
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Asked, generation: 1 });
    assert!(matches!(decide(&world).steps.as_slice(), [Step::Resume { epoch: 1, .. }]));
    world.local = Observed::Known(RUNNING);
    assert_eq!(only_write(&decide(&world)).record.phase, VmPhase::Running);
}

#[test]
fn a_vm_that_keeps_dying_is_started_ever_more_slowly() {
    let world = world(1, Some(1), VmPhase::Running, DIED);
    let waits = [1, 5, 6, 7, 8, 20].map(|starts| {
        let mut notes =
            Notes { tried: Tried { starts: vec![NOW; starts], ..Tried::default() }, ..Notes::default() };
        plan(&world, &mut notes).recheck.map_or(0, |at| NOW.until(at).as_secs())
    });
    assert_eq!(waits, [0, 0, 1, 2, 4, 60]);
}

#[test]
fn a_guest_that_powered_itself_off_is_started_or_left_as_the_document_says() {
    let off = LocalVm::Off { reason: OffReason::Shutdown };
    let mut world = world(1, Some(1), VmPhase::Running, off);
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "GuestPoweredOff");
    change(&mut world, |desired| desired.power_off = GuestPowerOff::StayOff);
    let plan = decide(&world);
    assert_eq!(
        (only_write(&plan).record.phase, &only_write(&plan).record.owner),
        (VmPhase::PoweredOff, &None)
    );
    *vm(&mut world) = StoredVm { record: record(None, VmPhase::PoweredOff), index: 100, written: None };
    assert_eq!(reasons(&decide(&world)), ["PoweredOff"]);
}

#[test]
fn a_vm_somebody_else_paused_is_left_paused_and_said_so() {
    let paused = LocalVm::Paused { reason: PauseReason::Asked, generation: 1 };
    let plan = decide(&world(1, Some(1), VmPhase::Running, paused));
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["Paused"]));
}

#[test]
fn a_failed_start_is_counted_retried_and_then_given_to_the_others() {
    let mut world = world(1, Some(1), VmPhase::Starting, LocalVm::Absent);
    let mut notes = Notes {
        tried: Tried { failed: Some("no such bridge".to_owned()), ..Tried::default() },
        ..Notes::default()
    };
    let counted = plan(&world, &mut notes);
    assert_eq!(only_write(&counted).record.failures[&node(1)].count, 1);
    vm(&mut world).record.failures = only_write(&counted).record.failures.clone();
    assert!(matches!(decide(&world).steps.as_slice(), [Step::Start { .. }]), "retried in place");
    vm(&mut world).record.failures.insert(node(1), StartFailures { count: 2, reason: "no".to_owned() });
    let given_up = decide(&world);
    assert_eq!(
        (only_write(&given_up).reason.as_str(), &only_write(&given_up).record.owner),
        ("GaveUp", &None)
    );
}

#[test]
fn a_free_vm_is_not_claimed_while_another_living_node_has_a_process_of_it() {
    for (copies, reason) in [(Some(1), "CopyElsewhere"), (None, "CopiesUnknown")] {
        let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
        let mut other = sight(3, Duration::from_millis(300));
        count(&mut other.record).copies = copies;
        world.sights.insert(node(3), other);
        let plan = decide(&world);
        assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec![reason]));
    }
    let plan = decide(&world(1, None, VmPhase::Stopped, LocalVm::Absent));
    let rests_on: Vec<_> = only_write(&plan).rests_on.iter().map(|s| s.record.node.clone()).collect();
    assert_eq!(rests_on, [node(2), node(3)]);
}

#[test]
fn a_copy_that_may_not_be_here_is_killed_before_a_mount_is_tried() {
    let mut world = world(2, Some(1), VmPhase::Running, RUNNING);
    let target = std::path::PathBuf::from("/share");
    let want = crate::host::MountWant {
        source: "nas:/share".to_owned(),
        target: target.clone(),
        fs_type: "nfs4".to_owned(),
        options: String::new(),
    };
    change(&mut world, |desired| desired.wants.mounts = vec![want]);
    world.host = Observed::Known(HostFacts {
        mounts: [(target, Observed::Known(crate::host::MountFact::NotMounted))].into(),
        ..HostFacts::default()
    });
    let mut notes = Notes::default();
    assert!(matches!(pass(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }, Step::Mount(_)]));
    assert!(
        matches!(pass(&world, &mut notes).steps.as_slice(), [Step::KillCopy { .. }]),
        "not asked again at once"
    );
}

#[test]
fn a_qemu_that_libvirt_does_not_know_is_left_alone_by_its_owner_and_killed_by_others() {
    let plan = decide(&world(1, Some(1), VmPhase::Running, LocalVm::Unmanaged));
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["Unmanaged"]));
    let plan = decide(&world(2, Some(1), VmPhase::Running, LocalVm::Unmanaged));
    assert!(matches!(plan.steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn an_owner_that_lost_its_hypervisor_and_its_copy_sets_the_vm_free_after_a_while() {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Absent);
    world.local = Observed::unknown("libvirtd is down");
    world.last_end = Observed::Known(None);
    let mut notes = Notes::default();
    let due = plan(&world, &mut notes).recheck.unwrap();
    world.now = due;
    if let Observed::Known(verdict) = &mut world.lease {
        verdict.valid_until = Some(due + Duration::from_secs(7));
    }
    for sight in world.sights.values_mut() {
        (sight.first_seen, sight.sent_by) = (due, due);
    }
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "GaveUp");
    if let Observed::Known(verdict) = &mut world.lease {
        verdict.copies = Some(1);
    }
    assert!(plan(&world, &mut notes).steps.is_empty(), "a copy that lives is left alone");
}

#[test]
fn a_vm_that_failed_everywhere_is_tried_again_later_and_at_once_after_a_change() {
    let failures: BTreeMap<_, _> =
        (1..=3).map(|n| (node(n), StartFailures { count: 2, reason: "no".to_owned() })).collect();
    let mut world = world(1, Some(1), VmPhase::Starting, LocalVm::Absent);
    vm(&mut world).record.failures = failures.clone();
    assert_eq!(only_write(&decide(&world)).record.phase, VmPhase::Failed);
    *vm(&mut world) = StoredVm {
        record: VmRecord { failures, ..record(None, VmPhase::Failed) },
        index: 100,
        written: None,
    };
    let mut notes = Notes::default();
    let waits = plan(&world, &mut notes);
    assert_eq!(reasons(&waits), ["Failed"]);
    let mut later = world.clone();
    later.now = waits.recheck.unwrap();
    if let Observed::Known(verdict) = &mut later.lease {
        verdict.valid_until = Some(later.now + Duration::from_secs(7));
    }
    for sight in later.sights.values_mut() {
        (sight.first_seen, sight.sent_by) = (later.now, later.now);
    }
    assert!(only_write(&plan(&later, &mut notes)).record.failures.is_empty());
    change(&mut world, |desired| desired.generation = 2);
    let plan = decide(&world);
    assert!(only_write(&plan).record.failures.is_empty());
}

#[test]
fn a_node_without_what_the_vm_needs_claims_nothing_and_says_why() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    world.host = Observed::Known(HostFacts {
        image: Some(Observed::Known(ImageFact::Missing)),
        ..HostFacts::default()
    });
    let line = placement::candidates(&world, &desired(), &record(None, VmPhase::Stopped));
    assert_eq!(line.fit, [node(2), node(3)]);
    assert!(line.unfit[&node(1)].contains("/share/mnvm.img is not there"));
    assert!(decide(&world).steps.is_empty());
    for number in [2, 3] {
        world.nodes.remove(&node(number));
    }
    let plan = decide(&world);
    assert_eq!(reasons(&plan), ["NoNodeFit"]);
    assert!(plan.waiting[0].message.contains("n2: it has not reported yet"), "{}", plan.waiting[0].message);
}

#[test]
fn a_running_vm_is_not_touched_when_its_node_becomes_unfit() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    change(&mut world, |desired| {
        desired.wants.bridges =
            vec![crate::host::BridgeWant { name: "br0".to_owned(), require_carrier: true }];
    });
    world.host = Observed::Known(HostFacts {
        bridges: [("br0".to_owned(), Observed::Known(BridgeFact::Missing))].into(),
        ..HostFacts::default()
    });
    let plan = decide(&world);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.conditions[0].status, ConditionStatus::False);
}

#[test]
fn a_required_watchdog_that_is_not_there_makes_a_node_unfit() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    change(&mut world, |desired| desired.watchdog = Watchdog::Required);
    let plan = decide(&world);
    assert!(plan.steps.is_empty());
    assert!(plan.conditions[0].message.contains("`Fencing.Watchdog` is 'required'"));
}

/// Sets what the keeper says of its watchdog.
fn with_watchdog(world: &mut World, state: WatchdogState) {
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.watchdog = state;
}

#[test]
fn whether_there_is_a_watchdog_is_what_the_keeper_says() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    change(&mut world, |desired| desired.watchdog = Watchdog::Required);
    let refused = WatchdogState::Refused { reason: "its timeout is 60 s".to_owned() };
    for (state, fit) in [
        (WatchdogState::Petted { timeout_secs: 4 }, true),
        (refused, false),
        (WatchdogState::Off, false),
        (WatchdogState::None, false),
    ] {
        with_watchdog(&mut world, state.clone());
        let ready = decide(&world).conditions[0].clone();
        assert_eq!(ready.is_true(), fit, "{state:?}: {}", ready.message);
        let WatchdogState::Refused { reason } = state else { continue };
        assert!(ready.message.contains(&reason), "{}", ready.message);
    }
}

#[test]
fn the_keeper_is_told_once_that_the_document_turns_its_watchdog_off_or_on() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    let petted = WatchdogState::Petted { timeout_secs: 4 };
    for (asked, state, step) in [
        (Watchdog::Off, petted.clone(), Some(Step::SetWatchdog(false))),
        (Watchdog::Off, WatchdogState::Off, None),
        (Watchdog::Off, WatchdogState::None, None),
        (Watchdog::Automatic, WatchdogState::Off, Some(Step::SetWatchdog(true))),
        (Watchdog::Automatic, petted, None),
        (Watchdog::Automatic, WatchdogState::None, None),
    ] {
        change(&mut world, |desired| desired.watchdog = asked);
        with_watchdog(&mut world, state);
        assert_eq!(decide(&world).steps, step.into_iter().collect::<Vec<_>>());
        assert!(decide(&world).conditions[0].is_true());
    }
}

#[test]
fn a_node_whose_keeper_does_not_see_the_process_is_unfit_and_its_vm_is_left_alone() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    world.keeper_blind = true;
    let plan = decide(&world);
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);
    assert!(plan.conditions[0].message.contains("PID namespace"), "{}", plan.conditions[0].message);
}

#[test]
fn a_keeper_that_does_not_count_what_is_here_sets_no_vm_free_while_libvirt_is_silent() {
    for (blind, given_up) in [(true, false), (false, true)] {
        let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
        (world.keeper_blind, world.local) = (blind, Observed::unknown("libvirt does not answer"));
        world.last_end = Observed::Known(None);
        let mut notes = Notes::default();
        assert_eq!(plan(&world, &mut notes).steps, []);
        renewed_at(&mut world, NOW + Duration::from_secs(60));
        assert_eq!(!plan(&world, &mut notes).steps.is_empty(), given_up, "{blind}");
    }
}

#[test]
fn a_node_with_a_last_good_document_in_force_is_fit_and_says_what_is_wrong_with_the_stored_one() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    world.spec_problem = Some(SpecProblem::Invalid { why: "it is no record".to_owned(), recovered: false });
    let plan = decide(&world);
    assert!(only_write(&plan).record.owner.is_some(), "it claims the VM");
    let told = |kind: ConditionKind| condition::find(&plan.conditions, kind).unwrap();
    assert!(told(ConditionKind::Ready).is_true() && told(ConditionKind::DocumentKnown).is_true());
    let spec = told(ConditionKind::SpecValid);
    assert_eq!((spec.status, spec.reason.as_str()), (ConditionStatus::False, "Invalid"));
    assert!(spec.message.contains("it is no record") && spec.message.contains("Generation 1 stays in force"));
}

#[test]
fn with_nothing_but_a_bad_document_a_node_is_unfit() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    world.spec_problem = Some(SpecProblem::Invalid { why: "it is no record".to_owned(), recovered: false });
    world.desired = Observed::unknown("it is no record");
    let plan = decide(&world);
    assert!(plan.steps.is_empty());
    assert!(!condition::find(&plan.conditions, ConditionKind::Ready).unwrap().is_true());
}

#[test]
fn a_vm_the_keeper_ended_is_not_said_to_have_crashed() {
    let mut world = world(1, Some(1), VmPhase::Running, DIED);
    let mut notes = Notes {
        tried: Tried { starts: vec![NOW - Duration::from_secs(60)], ..Tried::default() },
        ..Notes::default()
    };
    let ended = |at| Some(Ended { count: 1, at });
    for (at, reason) in
        [(NOW - Duration::from_secs(5), "LeaseEnded"), (NOW - Duration::from_secs(90), "QemuDied")]
    {
        if let Observed::Known(verdict) = &mut world.lease {
            verdict.ended = ended(at);
        }
        assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), reason);
    }
}

#[test]
fn a_node_that_takes_its_vm_again_names_the_keeper_only_if_it_ended_the_last_copy_and_says_when() {
    let mut world = world(1, Some(1), VmPhase::Running, DIED);
    world.wall = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(100);
    if let Observed::Known(verdict) = &mut world.lease {
        verdict.epoch = 3;
        verdict.ended = Some(Ended { count: 1, at: NOW - Duration::from_secs(5) });
    }
    world.sights.get_mut(&node(1)).unwrap().record.epoch = 3;
    let told = |world: &World, starts: &[u64]| {
        let starts = starts.iter().map(|ago| NOW - Duration::from_secs(*ago)).collect();
        let plan =
            plan(world, &mut Notes { tried: Tried { starts, ..Tried::default() }, ..Notes::default() });
        only_write(&plan).message.clone()
    };
    let ended = "the keeper ended it at 1970-01-01T00:01:35Z";
    assert!(told(&world, &[60]).contains(ended), "{}", told(&world, &[60]));
    assert!(told(&world, &[60, 2]).contains("was restarted"), "it was started since");
    assert!(told(&world, &[]).contains("was restarted"), "nobody knows when it was started");
    let start = |at| StartRecord {
        node: node(1),
        at: Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(at),
        reason: "Failover".to_owned(),
        generation: 1,
    };
    vm(&mut world).record.last_start = Some(start(40));
    assert!(told(&world, &[]).contains(ended), "the controller has restarted since");
    vm(&mut world).record.last_start = Some(start(97));
    assert!(told(&world, &[]).contains("was restarted"));
}

#[test]
fn how_far_a_migration_is_is_told_of_the_one_in_the_record_by_its_source() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    let id = Uuid::from_u128(9);
    vm(&mut world).record.migration = Some(Migration { to: Owner { node: node(2), epoch: 1 }, id });
    let told = |world: &World| {
        let build = crate::status::Build::this("test");
        here(&mut crate::status::of_node(world, &Plan::default(), None, &build)).migrated_percent
    };
    world.job = MigrationJob::Going { id, percent: Some(37) };
    assert_eq!(told(&world), Some(37));
    world.job = MigrationJob::Going { id: Uuid::from_u128(8), percent: Some(37) };
    assert_eq!(told(&world), None);
    world.job = MigrationJob::None;
    assert_eq!(told(&world), None);
}

/// `virsh migrate` without `--live` pauses its source for as long as it takes.
#[test]
fn the_source_of_a_migration_by_hand_is_let_be_for_as_long_as_that_is_under_way() {
    let leaving = LocalVm::Paused { reason: PauseReason::Leaving, generation: 1 };
    let mut world = world(1, Some(1), VmPhase::Running, leaving);
    let mut notes = Notes::default();
    for secs in [0, 5, 60, 3_600] {
        renewed_at(&mut world, NOW + Duration::from_secs(secs));
        let plan = plan(&world, &mut notes);
        assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["MovedByHand"]), "after {secs} s");
    }
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 });
    assert_eq!(reasons(&plan(&world, &mut notes)), ["CopiesNotConfirmed"], "it may have moved all the same");
    for sight in world.sights.values_mut() {
        sight.record.seq += 2;
    }
    let plan = plan(&world, &mut notes);
    assert!(matches!(plan.steps.as_slice(), [Step::KillCopy { .. }]), "nobody has it any more: {plan:?}");
}

#[test]
fn what_qemu_paused_for_a_fault_is_let_go_on_and_then_started_afresh() {
    let faulted = LocalVm::Paused { reason: PauseReason::Fault, generation: 1 };
    let mut world = world(1, Some(1), VmPhase::Running, faulted);
    let mut notes = Notes::default();
    let first = pass(&world, &mut notes);
    assert!(matches!(first.steps.as_slice(), [Step::Resume { .. }]));
    assert!(pass(&world, &mut notes).steps.is_empty(), "not at once again");
    at(&mut world, NOW + super::paused::FAULT_PATIENCE);
    assert!(matches!(pass(&world, &mut notes).steps.as_slice(), [Step::KillCopy { if_still: None, .. }]));
}

#[test]
fn a_node_that_cannot_see_its_processes_does_not_keep_a_dead_owners_vm_down() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    expire(&mut world, 1);
    count(&mut world.sights.get_mut(&node(3)).unwrap().record).copies = None;
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "Failover");
    world.went_back = true;
    assert_eq!(reasons(&decide(&world)), ["CopiesUnknown"], "after a restore the record proves nothing");
}

#[test]
fn a_record_of_this_node_is_not_gone_on_with_while_another_node_has_a_copy() {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut world).written = None;
    assert_eq!(only_write(&decide(&world)).rests_on.len(), 2, "the others' word is part of the write");
    world.sights.get_mut(&node(3)).unwrap().is_news = false;
    assert_eq!(reasons(&decide(&world)), ["CopiesNotConfirmed"], "an old word is none");
    count(&mut world.sights.get_mut(&node(3)).unwrap().record).copies = Some(1);
    assert_eq!(reasons(&decide(&world)), ["CopyElsewhere"]);
    world.local = Observed::Known(RUNNING);
    assert_eq!(
        only_write(&decide(&world)).reason.as_str(),
        "Adopted",
        "with the copy here there is nothing to ask"
    );
}

#[test]
fn what_was_written_before_the_own_lease_broke_is_written_once_more() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    unbroken_since(&mut world, NOW - Duration::from_secs(5));
    assert_eq!(ownership::right(&world), Right::Mine { epoch: 1 });
    unbroken_since(&mut world, NOW + Duration::from_millis(1));
    assert_eq!(ownership::right(&world), Right::Unconfirmed { epoch: 1 });
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "Adopted");
}

fn unbroken_since(world: &mut World, at: Moment) {
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.unbroken_since = Some(at);
}

#[test]
fn the_keepers_old_count_does_not_stand_in_for_a_copy_that_the_hypervisor_does_not_see() {
    let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Absent);
    vm(&mut world).written = None;
    let Observed::Known(verdict) = &mut world.lease else { panic!("no verdict") };
    verdict.copies = Some(1);
    assert_eq!(only_write(&decide(&world)).rests_on.len(), 2, "the others are asked");
    world.local = Observed::unknown("libvirtd is away");
    assert_eq!(only_write(&decide(&world)).rests_on, [], "where nothing else is known, it does");
}

#[test]
fn a_silent_nodes_silence_is_part_of_the_claim() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    expire(&mut world, 1);
    expire(&mut world, 3);
    let plan = decide(&world);
    let write = only_write(&plan);
    assert_eq!(write.rests_on.iter().map(|s| s.record.node.clone()).collect::<Vec<_>>(), [node(3)]);
    assert_eq!(write.fence.len(), 1);
}

#[test]
fn after_a_step_back_a_lease_that_is_not_there_any_more_is_asked_for_first() {
    let mut world = world(2, None, VmPhase::Stopped, LocalVm::Absent);
    world.went_back = true;
    world.sights.remove(&node(3));
    world.vanished_leases.insert(node(3), 4);
    let plan = decide(&world);
    assert_eq!(reasons(&plan), ["LeaseGone"]);
    let of = Owner { node: node(3), epoch: 4 };
    assert_eq!(plan.steps, [Step::ReplaceLease { of: of.clone(), over: None }]);
    // Where nonsense lies under its key, a record is only ever put in the place of that.
    let nonsense = UnreadableLease { index: 90, since: NOW, why: "no JSON".to_owned() };
    world.unreadable_leases.insert(node(3), nonsense);
    let plan = decide(&world);
    assert_eq!((plan.steps.as_slice(), reasons(&plan)), (&[][..], vec!["CopiesUnknown"]));
    world.unreadable_leases.get_mut(&node(3)).unwrap().since = NOW - ownership::LEFT_ALONE;
    let plan = decide(&world);
    assert_eq!(plan.steps, [Step::ReplaceLease { of, over: Some(90) }], "{:?}", plan.waiting);
}

#[test]
fn after_a_step_back_a_fence_is_believed_once_its_node_was_silent_for_d() {
    let mut world = world(1, None, VmPhase::Stopped, LocalVm::Absent);
    world.went_back = true;
    let sight = world.sights.get_mut(&node(3)).unwrap();
    (sight.record.state, sight.is_news) = (LeaseState::Fenced, false);
    assert_eq!(reasons(&decide(&world)), ["CopiesNotConfirmed"]);
    world.sights.get_mut(&node(3)).unwrap().sent_by = NOW - LeaseTimings::LONGEST.fence_after();
    assert_eq!(only_write(&decide(&world)).rests_on.len(), 2);
    world.went_back = false;
    world.sights.get_mut(&node(3)).unwrap().sent_by = NOW;
    assert_eq!(only_write(&decide(&world)).rests_on.len(), 1, "otherwise a fence is a fence");
}

#[test]
fn after_a_step_back_a_paused_copy_that_nobody_accounts_for_is_not_let_run() {
    for reason in [PauseReason::Asked, PauseReason::Incoming] {
        let mut world = world(1, Some(1), VmPhase::Running, LocalVm::Paused { reason, generation: 1 });
        vm(&mut world).written = None;
        assert_eq!(only_write(&decide(&world)).reason.as_str(), "Adopted");
        world.went_back = true;
        assert!(matches!(decide(&world).steps.as_slice(), [Step::KillCopy { if_still: None, .. }]));
    }
}

#[test]
fn an_owner_whose_copy_runs_writes_itself_down_again_when_the_store_went_back() {
    let mut world = world(2, Some(1), VmPhase::Running, RUNNING);
    let before = VmRecord { revision: 9, ..record(Some(2), VmPhase::Running) };
    world.vm_before = Some(before.clone());
    let plan = decide(&world);
    let write = only_write(&plan);
    assert_eq!((write.reason.as_str(), write.record.revision, write.index), ("Reclaimed", 10, Some(99)));
    assert_eq!(write.record.owner, before.owner);

    world.local = Observed::Known(LocalVm::Absent);
    assert!(decide(&world).steps.is_empty(), "without a copy there is nothing to save");
    world.local = Observed::Known(RUNNING);
    vm(&mut world).record.revision = 10;
    assert!(
        matches!(decide(&world).steps.as_slice(), [Step::KillCopy { .. }]),
        "a later record is the truth"
    );
    vm(&mut world).record.revision = 0;
    world.vm_before = Some(VmRecord { owner: Some(Owner { node: node(2), epoch: 4 }), ..before });
    assert!(
        matches!(decide(&world).steps.as_slice(), [Step::KillCopy { .. }]),
        "so is another life of this node"
    );
}

#[test]
fn the_timings_of_the_document_reach_the_keeper() {
    let mut world = world(2, Some(1), VmPhase::Running, LocalVm::Absent);
    change(&mut world, |desired| desired.timings = LeaseTimings::FAST);
    assert_eq!(decide(&world).steps, [Step::SetTimings(LeaseTimings::FAST)]);
}

/// `to` is where the VM is being moved, in its epoch 1.
fn moving(me: u32, owner: u32, to: u32, local: LocalVm) -> World {
    let mut world = world(me, Some(owner), VmPhase::Running, local);
    vm(&mut world).record.migration =
        Some(Migration { to: Owner { node: node(to), epoch: 1 }, id: Uuid::from_u128(9) });
    world
}

fn asked_to_move(to: &str) -> World {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    let to = NodeName::new(to).unwrap();
    world.migrate = Some(MigrateRequest { id: Uuid::from_u128(5), index: 90, to, by: "ann".to_owned() });
    world
}

const ARRIVED: LocalVm = LocalVm::Paused { reason: PauseReason::Asked, generation: 1 };
const MOVED_AWAY: LocalVm = LocalVm::Off { reason: OffReason::Migrated };

#[test]
fn a_migration_begins_with_its_intent_and_the_word_of_the_target() {
    let world = asked_to_move("n3");
    let mut notes = Notes::default();
    let begun = pass(&world, &mut notes);
    let write = only_write(&begun);
    assert_eq!((write.reason.as_str(), &write.record.owner), ("MigrationBegun", &vm_of(&world).owner));
    assert_eq!(write.rests_on.iter().map(|s| s.record.node.clone()).collect::<Vec<_>>(), [node(3)]);
    let migration = write.record.migration.clone().unwrap();
    assert_eq!(migration.to, Owner { node: node(3), epoch: 1 });

    let mut world = moving(1, 1, 3, RUNNING);
    vm(&mut world).record.migration = Some(migration.clone());
    let plan = pass(&world, &mut notes);
    assert!(matches!(plan.steps.as_slice(), [Step::Migrate(order)] if order.id == migration.id), "{plan:?}");
}

#[test]
fn what_cannot_be_done_is_answered_with_its_reason_and_changes_nothing() {
    for (to, outcome, says) in [
        ("n1", Outcome::Done, "runs on n1 already"),
        ("n9", Outcome::Refused, "it is not a node of this cluster"),
        ("n2", Outcome::Refused, "its controller is down"),
    ] {
        let mut world = asked_to_move(to);
        world.sights.get_mut(&node(2)).unwrap().record.controller_alive = false;
        let plan = decide(&world);
        let record = &only_write(&plan).record;
        let answer = record.answered.clone().unwrap();
        assert_eq!((answer.id, answer.outcome), (Uuid::from_u128(5), outcome));
        assert!(answer.message.contains(says), "{}", answer.message);
        assert_eq!(record.migration, None);
        vm(&mut world).record.answered = Some(answer);
        assert!(decide(&world).steps.is_empty(), "once");
    }
}

#[test]
fn the_owner_hands_over_when_its_copy_is_gone_and_not_before() {
    let mut world = moving(1, 1, 3, RUNNING);
    let id = Uuid::from_u128(9);
    world.job = MigrationJob::Done { id };
    assert!(decide(&world).steps.is_empty());
    world.local = Observed::Known(MOVED_AWAY);
    let plan = decide(&world);
    let record = &only_write(&plan).record;
    assert_eq!(record.owner, Some(Owner { node: node(3), epoch: 1 }));
    assert!(record.migration.is_some(), "by it the new owner knows that what arrived is the VM");
    world.job = MigrationJob::None;
    count(&mut world.sights.get_mut(&node(3)).unwrap().record).copies = Some(1);
    assert_eq!(
        only_write(&decide(&world)).reason.as_str(),
        "HandedOver",
        "also after a restart of the controller"
    );
    world.local = Observed::Known(DIED);
    assert_eq!(
        only_write(&decide(&world)).reason.as_str(),
        "MigrationFailed",
        "a copy that died was not moved"
    );
    world.local = Observed::Known(MOVED_AWAY);
    expire(&mut world, 3);
    assert_eq!(only_write(&decide(&world)).reason.as_str(), "MigrationFailed", "a dead node gets nothing");
}

#[test]
fn a_migration_that_failed_leaves_the_vm_where_it_is() {
    let mut world = moving(1, 1, 3, RUNNING);
    world.migrate =
        Some(MigrateRequest { id: Uuid::from_u128(5), index: 90, to: node(3), by: "ann".to_owned() });
    world.job = MigrationJob::Failed { id: Uuid::from_u128(9), reason: "connection reset".to_owned() };
    let plan = decide(&world);
    let record = &only_write(&plan).record;
    assert_eq!((&record.owner, &record.migration), (&vm_of(&world).owner, &None));
    let answer = record.answered.as_ref().unwrap();
    assert_eq!(answer.outcome, Outcome::Failed);
    assert!(answer.message.contains("connection reset"));
}

#[test]
fn a_migration_nobody_here_knows_of_is_aborted_before_the_record_forgets_it() {
    let world = moving(1, 1, 3, RUNNING);
    let mut notes = Notes::default();
    assert!(matches!(plan(&world, &mut notes).steps.as_slice(), [Step::AbortMigration { .. }]));
    notes.tried.aborted = Some((Uuid::from_u128(9), NOW));
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "MigrationFailed");
}

#[test]
fn an_abort_is_asked_for_once_and_again_where_nothing_comes_of_it() {
    let mut world = moving(1, 1, 3, RUNNING);
    let id = Uuid::from_u128(9);
    world.job = MigrationJob::Going { id, percent: None };
    expire(&mut world, 3);
    let mut notes = Notes::default();
    let aborts = |plan: &Plan| matches!(plan.steps.as_slice(), [Step::AbortMigration { .. }]);
    assert!(aborts(&plan(&world, &mut notes)));
    notes.tried.aborted = Some((id, NOW));
    let asked = plan(&world, &mut notes);
    assert_eq!((asked.steps.as_slice(), reasons(&asked)), (&[][..], vec!["Migrating"]));
    at(&mut world, asked.recheck.unwrap());
    expire(&mut world, 3);
    assert!(aborts(&plan(&world, &mut notes)));
}

#[test]
fn an_abort_that_comes_as_the_guest_leaves_is_waited_out() {
    let mut world = moving(1, 1, 3, LocalVm::Paused { reason: PauseReason::Other, generation: 1 });
    let mut notes = Notes::default();
    notes.tried.aborted = Some((Uuid::from_u128(9), NOW));
    assert_eq!(plan(&world, &mut notes).steps, [], "it may go on here, or be gone in a moment");
    world.local = Observed::Known(MOVED_AWAY);
    count(&mut world.sights.get_mut(&node(3)).unwrap().record).copies = Some(1);
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "HandedOver");
    world.local = Observed::Known(LocalVm::Paused { reason: PauseReason::Other, generation: 1 });
    at(&mut world, NOW + Duration::from_secs(10));
    assert_eq!(only_write(&plan(&world, &mut notes)).reason.as_str(), "MigrationFailed");
}

#[test]
fn what_arrives_is_left_alone_and_never_runs_before_it_was_handed_over() {
    for local in [LocalVm::Absent, ARRIVED, LocalVm::Paused { reason: PauseReason::Incoming, generation: 1 }]
    {
        assert!(decide(&moving(3, 1, 3, local)).steps.is_empty(), "{local:?}");
    }
    assert!(matches!(decide(&moving(3, 1, 3, RUNNING)).steps.as_slice(), [Step::KillCopy { .. }]));
}

#[test]
fn what_has_arrived_is_not_trusted_when_the_source_is_dead() {
    let mut world = moving(2, 1, 2, ARRIVED);
    expire(&mut world, 1);
    assert!(matches!(decide(&world).steps.as_slice(), [Step::KillCopy { .. }]));
    world.local = Observed::Known(LocalVm::Absent);
    let plan = decide(&world);
    let write = only_write(&plan);
    assert_eq!(
        (write.record.phase, &write.record.migration, write.fence.len()),
        (VmPhase::Starting, &None, 1)
    );
}

#[test]
fn the_new_owner_lets_what_arrived_run_and_then_ends_the_migration() {
    let plan_of = |local| decide(&moving(3, 3, 3, local));
    assert!(matches!(plan_of(ARRIVED).steps.as_slice(), [Step::Resume { .. }]));
    let done = plan_of(RUNNING);
    assert_eq!((only_write(&done).reason.as_str(), &only_write(&done).record.migration), ("Migrated", &None));
    let lost = plan_of(DIED);
    assert_eq!(
        (only_write(&lost).reason.as_str(), &only_write(&lost).record.migration),
        ("MigrationLost", &None)
    );
}

#[test]
fn a_node_that_has_left_the_document_moves_its_vm_away_after_a_calm() {
    let mut world = world(1, Some(1), VmPhase::Running, RUNNING);
    change(&mut world, |desired| desired.order = vec![node(2), node(3)]);
    let mut notes = Notes::default();
    let first = plan(&world, &mut notes);
    assert_eq!(reasons(&first), ["MigrationWaits"]);
    let due = first.recheck.unwrap();
    at(&mut world, due);
    for sight in world.sights.values_mut() {
        (sight.first_seen, sight.sent_by) = (due, due);
    }
    let plan = plan(&world, &mut notes);
    assert_eq!(only_write(&plan).record.migration.as_ref().unwrap().to.node, node(2));
}
