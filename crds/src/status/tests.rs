//! The status of a cluster, computed from its records.

use std::collections::BTreeMap;

use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::records::{
    ByVm, Intent, LeaseRecord, LeaseState, LeaseTimings, NodeStatus, Owner, StartRecord, StoredSpec, VmHere,
    VmPhase, VmRecord, VmStatus, Waiting,
};
use crate::{Condition, Keys, LocalState, VmName, VmState, condition};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn lease(name: &str) -> LeaseRecord {
    LeaseRecord {
        cluster: None,
        node: node(name),
        incarnation: Uuid::from_u128(7),
        epoch: 3,
        seq: 900,
        state: LeaseState::Held,
        machine_id: "m".to_owned(),
        boot_id: "b".to_owned(),
        timings: LeaseTimings::BALANCED,
        controller_alive: true,
        vms: ByVm::default(),
        sent_millis: None,
        renewed_at: at(100),
        fenced_by: None,
    }
}

fn report(name: &str, local_vm: LocalState) -> NodeStatus {
    NodeStatus {
        document_format: crate::format::FIRST,
        vms: ByVm::only(VmName::management(), VmHere { local_vm, ..VmHere::default() }),
        lost_leases: vec![],
        virtual_host: None,
        looked_after: None,
        node: node(name),
        conditions: vec![Condition::new(ConditionKind::Ready, ConditionStatus::True, "Fit", "fit", at(10))],
        observed_generation: 4,
        controller_version: "0.1.0".to_owned(),
        waiting: Vec::new(),
        updated_at: at(20),
    }
}

/// Three nodes, all well; the VM runs on nfs-1.
fn healthy() -> ClusterView {
    let cluster = ClusterName::new("prod").unwrap();
    let names = ["nfs-1", "nfs-2", "nfs-3"];
    let document = json!({
        "apiVersion": "zsha.io/v1", "kind": "HaCluster", "metadata": {"name": "prod"},
        "spec": {
            "Node": ["10.0.0.1 nfs-1", "10.0.0.2 nfs-2", "10.0.0.3 nfs-3"],
            "MemorySizeInGB": 8, "CPU": 4, "Type": "FileConf", "ImageFolder": "/opt/smp/mngt/",
            "Network": [{
                "Bridge": "br_eth0", "MacAddress": "52:54:00:12:34:56", "Ipaddr": "10.0.1.10",
                "Netmask": "255.255.255.0", "Gateway": "10.0.1.1", "IsMgmt": true, "IsDefRoute": true
            }],
        }
    });
    let vm = VmName::management();
    let uuid = vm.domain_uuid(&cluster);
    let mut view = ClusterView::empty(cluster, at(100));
    view.spec = Some(StoredSpec {
        format: crate::format::FIRST,
        generation: 4,
        document,
        applied_by: "root@nfs-1".to_owned(),
        applied_at: at(0),
        message: String::new(),
    });
    view.leases = names.iter().map(|name| (node(name), lease(name))).collect();
    view.lease_ages = names.iter().map(|name| (node(name), LeaseSight::Fresh)).collect();
    view.node_statuses = BTreeMap::from([
        (node("nfs-1"), report("nfs-1", LocalState::Running)),
        (node("nfs-2"), report("nfs-2", LocalState::Absent)),
        (node("nfs-3"), report("nfs-3", LocalState::Absent)),
    ]);
    let start =
        StartRecord { node: node("nfs-1"), at: at(15), reason: "FirstStart".to_owned(), generation: 4 };
    view.vm = Some(VmRecord {
        name: vm.clone(),
        revision: 9,
        answered: None,
        start_taken_up: None,
        password_reset: None,
        departed: None,
        disk: None,
        uuid,
        owner: Some(Owner { node: node("nfs-1"), epoch: 3 }),
        migration: None,
        phase: VmPhase::Running,
        failures: BTreeMap::new(),
        failures_generation: 4,
        last_start: Some(start),
        note: String::new(),
    });
    view.vm_status = Some(VmStatus {
        name: vm,
        uuid,
        node: node("nfs-1"),
        state: VmState::Running,
        running_generation: 4,
        observed_generation: 4,
        conditions: Vec::new(),
        updated_at: at(16),
    });
    view
}

fn reason_of(status: &ClusterStatus, kind: ConditionKind) -> (ConditionStatus, String) {
    let condition = status.condition(kind).unwrap();
    (condition.status, condition.reason.clone())
}

#[test]
fn a_healthy_cluster_is_ready_converged_and_protected() {
    let status = summarise(&healthy());
    assert_eq!(status.vm.state, VmState::Running);
    assert_eq!(status.vm.node, Some(node("nfs-1")));
    assert_eq!((status.generation, status.observed_generation), (Some(4), Some(4)));
    assert!(status.healthy && status.protected);
    assert_eq!(status.protection, "survives one more failure: nfs-2 and nfs-3 can take over from nfs-1");
    assert!(status.conditions.iter().all(|c| c.status == ConditionStatus::True), "{:?}", status.conditions);
    assert_eq!(status.failover_bound_seconds, Some(13.0));
}

#[test]
fn what_runs_converges_only_if_its_owner_knows_that_it_runs_as_it_was_started() {
    for (status, reason) in [
        (ConditionStatus::True, "UpToDate"),
        (ConditionStatus::False, condition::RUNS_OTHERWISE),
        (ConditionStatus::Unknown, condition::DEVICES_UNKNOWN),
    ] {
        let mut view = healthy();
        view.vm_status.as_mut().unwrap().conditions =
            vec![Condition::new(ConditionKind::UpToDate, status, reason, "so", at(16))];
        assert_eq!(reason_of(&summarise(&view), ConditionKind::Converged), (status, reason.to_owned()));
    }
}

#[test]
fn the_bound_is_the_sum_of_its_named_terms_for_every_profile() {
    for (timings, total) in
        [(LeaseTimings::FAST, 10.0), (LeaseTimings::BALANCED, 13.0), (LeaseTimings::PATIENT, 28.0)]
    {
        let bound = failover_bound(&timings);
        assert_eq!(bound.total_seconds, total);
        assert_eq!(bound.terms().iter().map(|(_, seconds)| seconds).sum::<f64>(), total);
    }
}

#[test]
fn the_bound_is_that_of_the_owner_while_it_still_lives_by_longer_timings() {
    let mut view = healthy();
    view.leases.get_mut(&node("nfs-1")).unwrap().timings = LeaseTimings::PATIENT;
    assert_eq!(summarise(&view).failover_bound_seconds, Some(28.0));
}

#[test]
fn the_state_is_unknown_once_nobody_living_vouches_for_it() {
    type Spoil = fn(&mut ClusterView);
    let spoils: [(&str, Spoil); 9] = [
        ("expired", |v| v.lease_ages = BTreeMap::from([(node("nfs-1"), LeaseSight::Expired)])),
        ("not watched", |v| v.lease_ages.clear()),
        ("fenced", |v| v.leases.get_mut(&node("nfs-1")).unwrap().state = LeaseState::Fenced),
        ("released", |v| v.leases.get_mut(&node("nfs-1")).unwrap().state = LeaseState::Released),
        ("another life", |v| v.leases.get_mut(&node("nfs-1")).unwrap().epoch = 4),
        ("no lease", |v| drop(v.leases.remove(&node("nfs-1")))),
        ("controller down", |v| v.leases.get_mut(&node("nfs-1")).unwrap().controller_alive = false),
        ("no record", |v| v.vm = None),
        ("stale reading", |v| v.data_age = DataAge::Stale { secs: None, why: "no leader".to_owned() }),
    ];
    for (what, spoil) in spoils {
        let mut view = healthy();
        spoil(&mut view);
        let status = summarise(&view);
        assert_eq!(status.vm.state, VmState::Unknown, "{what}");
        assert_eq!(status.vm.last_known_state, Some(VmState::Running), "{what}");
        assert!(!status.vm.note.is_empty(), "{what}");
        assert_eq!(
            status.condition(ConditionKind::Ready).unwrap().status,
            ConditionStatus::Unknown,
            "{what}"
        );
        assert!(!status.healthy, "{what}");
    }
}

#[test]
fn a_stale_reading_vouches_for_nothing() {
    let mut view = healthy();
    view.data_age = DataAge::Stale { secs: Some(1), why: "no leader".to_owned() };
    let status = summarise(&view);
    assert!(!status.protected);
    for node in &status.nodes {
        assert_eq!((node.lease, node.ready, node.local_vm), (LeaseWord::Unknown, false, LocalState::Unknown));
    }
    for kind in [ConditionKind::Ready, ConditionKind::Converged, ConditionKind::Protected] {
        assert_eq!(status.condition(kind).unwrap().status, ConditionStatus::Unknown, "{kind}");
    }
    assert_eq!(status.condition(ConditionKind::StoreReachable).unwrap().status, ConditionStatus::False);
}

#[test]
fn a_report_from_before_the_claim_is_not_taken_for_the_present() {
    let mut view = healthy();
    view.vm.as_mut().unwrap().phase = VmPhase::Starting;
    assert_eq!(summarise(&view).vm.state, VmState::Starting, "same node, record newer than the report");
    view.vm.as_mut().unwrap().owner = Some(Owner { node: node("nfs-2"), epoch: 3 });
    assert_eq!(summarise(&view).vm.state, VmState::Starting, "another node's report");
    view.vm.as_mut().unwrap().phase = VmPhase::Running;
    assert_eq!(summarise(&view).vm.state, VmState::Unknown, "the new owner has not reported");
}

#[test]
fn an_unreadable_record_is_unknown_and_not_missing() {
    let keys = Keys::new(&ClusterName::new("prod").unwrap());
    let (lease_key, vm_key) = (keys.lease(&node("nfs-1")), keys.vm(&VmName::management()));
    let raw = |key| RawRecord { key, value: "{", modify_index: 1 };
    let mut view = healthy();
    let read = ClusterView::from_records(view.cluster.clone(), at(100), [raw(&lease_key), raw(&vm_key)]);
    view.unreadable = read.unreadable;
    view.leases.remove(&node("nfs-1"));
    view.vm = None;
    let status = summarise(&view);
    assert_eq!(status.node(&node("nfs-1")).unwrap().lease, LeaseWord::Unknown);
    assert!(status.vm.note.starts_with("the record of who owns it cannot be read"), "{}", status.vm.note);
}

#[test]
fn protection_says_which_failure_is_one_too_many() {
    let mut view = healthy();
    view.leases.get_mut(&node("nfs-3")).unwrap().state = LeaseState::Fenced;
    let status = summarise(&view);
    assert!(!status.protected && !status.healthy);
    assert_eq!(
        status.protection,
        "cannot survive one more failure: nfs-3 is not up, and if one more node fails, Consul loses its quorum"
    );
    assert_eq!(status.condition(ConditionKind::Ready).unwrap().status, ConditionStatus::True);

    // A node whose Consul is a client takes nothing of the quorum with it, and a server does.
    for (lost, protection) in [
        ("nfs-4", "survives one more failure: nfs-2 and nfs-3 can take over from nfs-1"),
        (
            "nfs-3",
            "cannot survive one more failure: nfs-3 is not up, and if one more of Consul's servers fails, Consul loses \
             its quorum",
        ),
    ] {
        let mut view = healthy();
        let spec = &mut view.spec.as_mut().unwrap().document["spec"];
        spec["Node"].as_array_mut().unwrap().push(json!("10.0.0.4 nfs-4"));
        spec["Servers"] = json!(["nfs-1", "nfs-2", "nfs-3"]);
        view.leases.insert(node("nfs-4"), lease("nfs-4"));
        view.lease_ages.insert(node("nfs-4"), LeaseSight::Fresh);
        view.leases.get_mut(&node(lost)).unwrap().state = LeaseState::Fenced;
        assert_eq!(summarise(&view).protection, protection, "{lost}");
    }

    let mut view = healthy();
    for name in ["nfs-1", "nfs-3"] {
        let conditions = &mut view.node_statuses.get_mut(&node(name)).unwrap().conditions;
        *conditions = vec![
            Condition::new(
                ConditionKind::BridgesReady,
                ConditionStatus::False,
                "NoCarrier",
                "br_eth0 has no carrier",
                at(50),
            ),
            Condition::new(ConditionKind::Ready, ConditionStatus::False, "NotFit", "see the others", at(50)),
        ];
    }
    let status = summarise(&view);
    assert!(status.protected, "nfs-2 can still take it");
    assert_eq!(status.protection, "survives one more failure: nfs-2 can take over from nfs-1");
    assert_eq!(status.node(&node("nfs-3")).unwrap().reasons, ["NoCarrier: br_eth0 has no carrier"]);
    assert_eq!(status.node(&node("nfs-3")).unwrap().role, Role::Unfit);

    view.vm.as_mut().unwrap().owner = Some(Owner { node: node("nfs-2"), epoch: 3 });
    assert_eq!(summarise(&view).protection, "cannot survive one more failure: only nfs-2 is fit");
}

#[test]
fn a_document_that_cannot_be_read_is_said_and_the_nodes_are_still_shown() {
    let mut view = healthy();
    view.spec.as_mut().unwrap().document = json!({"kind": "HaCluster"});
    let status = summarise(&view);
    assert_eq!(reason_of(&status, ConditionKind::SpecValid), (ConditionStatus::False, "Invalid".to_owned()));
    assert_eq!(status.nodes.len(), 3);
    assert_eq!(status.vm.state, VmState::Running);
}

#[test]
fn beside_a_stored_document_with_a_problem_the_one_in_force_is_shown() {
    let mut view = healthy();
    let before = summarise(&view);
    view.spec_problem = Some("the stored document cannot be used: it is no record".to_owned());
    let status = summarise(&view);
    assert_eq!(reason_of(&status, ConditionKind::SpecValid), (ConditionStatus::False, "Invalid".to_owned()));
    assert!(status.condition(ConditionKind::SpecValid).unwrap().message.contains("it is no record"));
    assert_eq!(status.nodes, before.nodes);
    assert_eq!(status.nodes[0].address.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.failover_bound, before.failover_bound);

    // With none in force nothing is made up.
    view.spec = None;
    let status = summarise(&view);
    assert_eq!(reason_of(&status, ConditionKind::SpecValid), (ConditionStatus::False, "Invalid".to_owned()));
    assert!(status.nodes.iter().all(|node| node.address.is_none() && node.role != Role::Removed));
}

#[test]
fn a_document_the_controllers_refuse_is_not_called_valid() {
    let reason = |change: fn(&mut serde_json::Value)| {
        let mut view = healthy();
        change(&mut view.spec.as_mut().unwrap().document);
        let status = summarise(&view);
        let condition = status.condition(ConditionKind::SpecValid).unwrap();
        assert_eq!((condition.status, condition.reason.as_str()), (ConditionStatus::False, "Invalid"));
        condition.message.clone()
    };
    let four =
        reason(|document| document["spec"]["Node"].as_array_mut().unwrap().push(json!("10.0.0.4 nfs-4")));
    assert!(four.contains("must have an odd number of entries, not 4"), "{four}");
    let twice = reason(|document| {
        let mut second = document["spec"]["Network"][0].clone();
        (second["IsMgmt"], second["IsDefRoute"]) = (json!(false), json!(false));
        document["spec"]["Network"].as_array_mut().unwrap().push(second);
    });
    assert!(twice.contains("ZSHA-E0031"), "{twice}");
    let unsafe_timings =
        reason(|document| document["spec"]["Availability"] = json!({"FenceAfterSeconds": 8}));
    assert!(unsafe_timings.contains("ZSHA-E0050"), "{unsafe_timings}");
    let foreign = reason(|document| document["metadata"]["name"] = json!("test"));
    assert!(foreign.ends_with("the document is for cluster 'test' and lies under 'prod'"), "{foreign}");
}

#[test]
fn nothing_applied_is_told_apart_from_something_broken() {
    let status = summarise(&ClusterView::empty(ClusterName::new("prod").unwrap(), at(0)));
    assert_eq!(
        reason_of(&status, ConditionKind::SpecValid),
        (ConditionStatus::Unknown, "NoDocument".to_owned())
    );
    assert_eq!(reason_of(&status, ConditionKind::Placed), (ConditionStatus::Unknown, "NoRecord".to_owned()));
    assert_eq!((status.generation, status.failover_bound), (None, None));
    assert!(!status.healthy);
}

#[test]
fn a_document_newer_than_the_running_vm_is_pending_until_its_next_boot() {
    let mut view = healthy();
    view.spec.as_mut().unwrap().generation = 5;
    assert_eq!(reason_of(&summarise(&view), ConditionKind::Converged).1, "NotYetObserved");
    for status in view.node_statuses.values_mut() {
        status.observed_generation = 5;
    }
    assert_eq!(
        reason_of(&summarise(&view), ConditionKind::Converged),
        (ConditionStatus::False, "PendingNextBoot".to_owned())
    );
    assert!(summarise(&view).healthy, "a boot that is due is no harm");
}

#[test]
fn a_dead_node_does_not_hold_the_observed_generation_back() {
    let mut view = healthy();
    view.node_statuses.get_mut(&node("nfs-3")).unwrap().observed_generation = 2;
    assert_eq!(summarise(&view).observed_generation, Some(2));
    view.lease_ages.insert(node("nfs-3"), LeaseSight::Expired);
    assert_eq!(summarise(&view).observed_generation, Some(4));
}

#[test]
fn a_stop_that_was_asked_for_is_not_a_fault_of_convergence() {
    let mut view = healthy();
    let stop = Intent::Stop {
        vm: VmName::management(),
        by: "root@nfs-1".to_owned(),
        at: at(90),
        message: String::new(),
        timeout_seconds: None,
    };
    view.intents.insert("power".to_owned(), stop);
    view.vm_status.as_mut().unwrap().state = VmState::Stopped;
    view.vm.as_mut().unwrap().phase = VmPhase::Stopped;
    let status = summarise(&view);
    assert_eq!(status.vm.state, VmState::Stopped);
    assert_eq!(
        reason_of(&status, ConditionKind::Ready),
        (ConditionStatus::False, "StoppedByOperator".to_owned())
    );
    assert_eq!(reason_of(&status, ConditionKind::Converged), (ConditionStatus::True, "Stopped".to_owned()));
}

fn by_alice(intent: fn(String, Timestamp, String) -> Intent) -> Intent {
    intent("alice@desk".to_owned(), at(90), "new memory".to_owned())
}

fn drain(view: &mut ClusterView, name: &str) {
    let drain = by_alice(|by, at, message| Intent::Drain { by, at, message, shutdown: None });
    view.intents.insert(Intent::drain_of(&node(name)), drain);
}

#[test]
fn a_drained_node_is_no_standby_and_says_by_whom() {
    let mut view = healthy();
    drain(&mut view, "nfs-2");
    let status = summarise(&view);
    let drained = status.node(&node("nfs-2")).unwrap();
    assert_eq!((drained.role, drained.ready), (Role::Drained, false));
    assert!(drained.reasons[0].starts_with("Drained: it was drained by alice@desk at "), "{drained:?}");
    assert!(drained.reasons[0].ends_with(": new memory"), "{drained:?}");
    assert!(status.protected, "one is left to take over");
    drain(&mut view, "nfs-3");
    let status = summarise(&view);
    assert_eq!(
        reason_of(&status, ConditionKind::Protected),
        (ConditionStatus::False, "TooFewFit".to_owned())
    );
    drain(&mut view, "nfs-1");
    assert_eq!(summarise(&view).node(&node("nfs-1")).unwrap().role, Role::Owner, "it is still there");
}

#[test]
fn a_frozen_cluster_is_not_protected_and_says_since_when() {
    let mut view = healthy();
    let freeze = by_alice(|by, at, message| Intent::Freeze { by, at, message });
    view.intents.insert("freeze".to_owned(), freeze);
    let status = summarise(&view);
    assert_eq!(reason_of(&status, ConditionKind::Protected), (ConditionStatus::False, "Frozen".to_owned()));
    assert!(status.protection.starts_with("not protected since "), "{}", status.protection);
    assert!(status.protection.contains("frozen by alice@desk (new memory)"), "{}", status.protection);
    assert!(!status.healthy);
}

#[test]
fn the_same_sentence_of_several_nodes_is_told_once() {
    let mut view = healthy();
    for name in ["nfs-2", "nfs-3"] {
        let waiting =
            Waiting { reason: "LeaseStillHeld".to_owned(), message: "nfs-1 may still run it".to_owned() };
        view.node_statuses.get_mut(&node(name)).unwrap().waiting.push(waiting);
    }
    let waiting = summarise(&view).waiting;
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].nodes, [node("nfs-2"), node("nfs-3")]);
}

#[test]
fn what_several_conditions_say_in_the_same_words_is_told_once() {
    let mut view = healthy();
    let unknown = |kind: ConditionKind| {
        let message = "the host has not been looked at since the document changed";
        Condition::new(kind, ConditionStatus::Unknown, "NotLooked", message, at(90))
    };
    view.node_statuses.get_mut(&node("nfs-2")).unwrap().conditions =
        [ConditionKind::Ready, ConditionKind::MountsReady, ConditionKind::ImagePresent].map(unknown).into();
    let status = summarise(&view);
    let told = &status.node(&node("nfs-2")).unwrap().reasons;
    assert_eq!(*told, ["NotLooked: the host has not been looked at since the document changed"]);
}

#[test]
fn an_address_that_depends_on_where_the_guest_booted_is_not_known_once_it_was_moved() {
    let mut view = healthy();
    let addresses = |view: &ClusterView| -> Vec<Option<String>> {
        summarise(view).vm.addresses.iter().map(|nic| nic.address.map(|a| a.to_string())).collect()
    };
    let moved = |view: &mut ClusterView, moved: bool| {
        let start = view.vm.as_mut().unwrap().last_start.as_mut().unwrap();
        start.reason = if moved { StartRecord::MIGRATED } else { "Failover" }.to_owned();
    };
    moved(&mut view, true);
    assert_eq!(addresses(&view), [Some("10.0.1.10".to_owned())], "the same on every node");
    let nic = &mut view.spec.as_mut().unwrap().document["spec"]["Network"][0];
    nic["Ipaddr"] = json!("10.0.1.10@nfs-1, 10.0.1.20@nfs-2, 10.0.1.30@nfs-3");
    assert_eq!(addresses(&view), [None]);
    moved(&mut view, false);
    assert_eq!(addresses(&view), [Some("10.0.1.10".to_owned())]);
    view.vm.as_mut().unwrap().owner = None;
    assert_eq!(addresses(&view), [None]);
}

#[test]
fn a_renewal_from_the_future_is_not_judged_by_the_wall_clock() {
    let mut lease = lease("nfs-1");
    let sight = |lease: &LeaseRecord| LeaseSight::by_wall_clock(lease, at(100));
    assert_eq!(sight(&lease), LeaseSight::Fresh);
    lease.renewed_at = at(94);
    assert_eq!(sight(&lease), LeaseSight::Late { secs: 6 });
    lease.renewed_at = at(90);
    assert_eq!(sight(&lease), LeaseSight::Expired);
    lease.renewed_at = at(110);
    assert_eq!(sight(&lease), LeaseSight::Unknown);
}

#[test]
fn the_status_reads_back_as_it_was_written() {
    let status = summarise(&healthy());
    let text = serde_json::to_string(&status).unwrap();
    assert!(!text.contains("null"), "absent is left out: {text}");
    assert_eq!(serde_json::from_str::<ClusterStatus>(&text).unwrap(), status);
}

#[test]
fn a_guest_that_could_not_be_told_its_addresses_is_noted_and_one_that_may_have_them_is_not() {
    let note = |status: ConditionStatus| {
        let mut view = healthy();
        let told =
            Condition::new(ConditionKind::GuestConfigured, status, "R", "it could not be told", at(90));
        view.vm_status.as_mut().unwrap().conditions.push(told);
        summarise(&view).vm.note
    };
    assert_eq!(note(ConditionStatus::False), "it could not be told");
    for open in [ConditionStatus::True, ConditionStatus::Unknown] {
        assert_ne!(note(open), "it could not be told");
    }
}
