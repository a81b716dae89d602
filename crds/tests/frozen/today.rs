//! What this release writes, of every kind: every field has something in it, so that a field added to a record does not
//! compile here before it has been thought of.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;
use zsha_crds::records::{
    Answer, ByVm, Departed, DiskInUse, DiskSource, EventRecord, EventType, HistoryRecord, HostShutdown,
    Intent, LeaseRecord, LeaseState, LeaseTimings, LostLease, Migration, NodeStatus, Outcome, Owner,
    StartFailures, StartRecord, StoredSpec, VmCount, VmHere, VmPhase, VmRecord, VmStatus, Waiting,
};
use zsha_crds::{ClusterName, Condition, ConditionStatus, LocalState, NodeName, VmName, VmState};

fn node() -> NodeName {
    NodeName::new("nfs-1").unwrap()
}

fn at() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

const SOME: Uuid = Uuid::from_u128(7);

fn owner() -> Owner {
    Owner { node: node(), epoch: 3 }
}

fn condition() -> Condition {
    Condition {
        kind: "Ready".to_owned(),
        status: ConditionStatus::Unknown,
        reason: "NotYet".to_owned(),
        message: "nobody knows".to_owned(),
        observed_generation: Some(5),
        last_transition_time: at(),
    }
}

fn document() -> Value {
    json!({ "apiVersion": "zsha.io/v1", "kind": "HaCluster", "metadata": { "name": "prod" }, "spec": {} })
}

fn lease(state: LeaseState) -> LeaseRecord {
    LeaseRecord {
        cluster: Some(ClusterName::new("prod").unwrap()),
        node: node(),
        incarnation: SOME,
        epoch: 3,
        seq: 9,
        state,
        machine_id: "machine".to_owned(),
        boot_id: "boot".to_owned(),
        timings: LeaseTimings {
            renew_millis: 1_000,
            ttl_millis: 8_000,
            kill_millis: 1_000,
            fence_after_millis: 10_000,
        },
        controller_alive: true,
        vms: ByVm::only(VmName::management(), VmCount { copies: Some(1), moved_away_in: Some(2) }),
        sent_millis: Some(86_400_123),
        renewed_at: at(),
        fenced_by: Some(node()),
    }
}

fn disk() -> DiskInUse {
    DiskInUse {
        source: DiskSource::File("/share/mnvm.overlay".to_owned()),
        format: "qcow2".to_owned(),
        backing: vec![
            DiskSource::Rbd("zsha/mnvm".to_owned()),
            DiskSource::Other("nbd:backup".to_owned()),
            DiskSource::Nothing,
        ],
        instead_of: DiskSource::File("/share/mnvm.img".to_owned()),
    }
}

fn vm(phase: VmPhase, outcome: Outcome) -> VmRecord {
    VmRecord {
        name: VmName::management(),
        uuid: SOME,
        owner: Some(owner()),
        migration: Some(Migration { to: owner(), id: SOME }),
        phase,
        failures: BTreeMap::from([(node(), StartFailures { count: 2, reason: "no memory".to_owned() })]),
        failures_generation: 5,
        last_start: Some(StartRecord {
            node: node(),
            at: at(),
            reason: "Failover".to_owned(),
            generation: 5,
        }),
        note: "it runs".to_owned(),
        revision: 41,
        answered: Some(Answer { id: SOME, outcome, message: "it was not fit".to_owned() }),
        start_taken_up: Some(SOME),
        password_reset: Some(Answer { id: SOME, outcome, message: "the agent does not answer".to_owned() }),
        departed: Some(Departed { from: node(), at: at(), seen_on: [node()].into() }),
        disk: Some(disk()),
    }
}

fn event(kind: EventType) -> EventRecord {
    EventRecord {
        kind,
        reason: "Failover".to_owned(),
        message: "taken over".to_owned(),
        regarding: "vm/mnvm".to_owned(),
        node: node(),
        count: 2,
        first_at: at(),
        last_at: at(),
    }
}

/// Kind and record; every word of every record's own is said once at least.
pub(crate) fn records() -> Vec<(&'static str, Value)> {
    fn of(kind: &'static str, record: impl Serialize) -> (&'static str, Value) {
        (kind, serde_json::to_value(record).unwrap())
    }
    let text = || "why".to_owned();
    let mut records = vec![
        of(
            "spec",
            StoredSpec {
                generation: 5,
                // A higher one is written only with a document that needs it.
                format: zsha_crds::format::READS,
                document: document(),
                applied_by: text(),
                applied_at: at(),
                message: text(),
            },
        ),
        of(
            "history",
            HistoryRecord {
                generation: 5,
                format: zsha_crds::format::READS,
                document: document(),
                applied_by: text(),
                applied_at: at(),
                message: text(),
                command: "apply".to_owned(),
            },
        ),
        of(
            "intent",
            Intent::Stop {
                vm: VmName::management(),
                by: text(),
                at: at(),
                message: text(),
                timeout_seconds: Some(30),
            },
        ),
        of(
            "intent",
            Intent::Start {
                id: SOME,
                vm: VmName::management(),
                by: text(),
                at: at(),
                message: text(),
                from_image: true,
            },
        ),
        of("intent", Intent::Freeze { by: text(), at: at(), message: text() }),
        of(
            "intent",
            Intent::Drain {
                by: text(),
                at: at(),
                message: text(),
                shutdown: Some(HostShutdown { boot_id: text(), no_time_to_move: true }),
            },
        ),
        of(
            "intent",
            Intent::Migrate {
                id: SOME,
                vm: VmName::management(),
                to: node(),
                by: text(),
                at: at(),
                message: text(),
            },
        ),
        of(
            "intent",
            Intent::ResetPassword {
                id: SOME,
                vm: VmName::management(),
                by: text(),
                at: at(),
                message: text(),
            },
        ),
        of("intent", Intent::None),
        of(
            "node-status",
            NodeStatus {
                document_format: zsha_crds::format::READS,
                vms: ByVm::only(
                    VmName::management(),
                    VmHere { local_vm: LocalState::Off, runs_unnamed: true, migrated_percent: Some(42) },
                ),
                virtual_host: Some("a virtual machine (QEMU)".to_owned()),
                looked_after: Some(77),
                lost_leases: vec![LostLease { epoch: 3, at: at() }],
                node: node(),
                conditions: vec![condition()],
                observed_generation: 5,
                controller_version: "0.1.0".to_owned(),
                waiting: vec![Waiting { reason: "NotFirstInLine".to_owned(), message: text() }],
                updated_at: at(),
            },
        ),
        of(
            "vm-status",
            VmStatus {
                name: VmName::management(),
                uuid: SOME,
                node: node(),
                state: VmState::Running,
                running_generation: 5,
                observed_generation: 5,
                conditions: vec![condition()],
                updated_at: at(),
            },
        ),
    ];
    use LeaseState::{Fenced, Held, Lost, Released};
    records.extend([Held, Released, Fenced, Lost].map(|state| of("lease", lease(state))));
    records.extend([EventType::Normal, EventType::Warning].map(|kind| of("event", event(kind))));
    use VmPhase::{Failed, PoweredOff, Running, Starting, Stopped, Stopping};
    for phase in [Starting, Running, Stopping, Stopped, PoweredOff, Failed] {
        for outcome in [Outcome::Done, Outcome::Refused, Outcome::Failed] {
            records.push(of("vm", vm(phase, outcome)));
        }
    }
    records
}
