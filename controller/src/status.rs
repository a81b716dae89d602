//! The status that this node writes of itself and, as the owner, of the VM. It is computed from one look and one plan.

use zsha_crds::records::{ByVm, NodeStatus, VmHere, VmPhase, VmStatus};
use zsha_crds::{Condition, ConditionKind, ConditionStatus, LocalState, VmState, condition, format};

use crate::guest::agent::Told;
use crate::hypervisor::{LocalVm, MigrationJob};
use crate::observed::Observed;
use crate::plan::{Plan, devices, stability};
use crate::world::World;

/// The facts of this build, and of what it runs on, that the other nodes are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    pub version: String,
    /// The highest format of a document that it reads.
    pub reads: u32,
    /// The kind of virtual machine that this host is, as the node's status has it.
    pub virtual_host: Option<String>,
}

impl Build {
    /// A build of this binary with this version.
    pub fn this(version: impl Into<String>) -> Self {
        Self { version: version.into(), reads: format::READS, virtual_host: None }
    }
}

/// The status of this node, `status/nodes/<me>`. `before` lends its transition times, and its own time if nothing else
/// differs.
pub fn of_node(world: &World, plan: &Plan, before: Option<&NodeStatus>, build: &Build) -> NodeStatus {
    let mut conditions = before.map(|status| status.conditions.clone()).unwrap_or_default();
    conditions.retain(|old| plan.conditions.iter().any(|new| new.kind == old.kind));
    for new in &plan.conditions {
        condition::set(&mut conditions, new.clone());
    }
    let status = NodeStatus {
        node: world.me.clone(),
        conditions,
        observed_generation: world.document().map_or(0, |desired| desired.generation),
        controller_version: build.version.clone(),
        document_format: build.reads,
        vms: ByVm::only(world.vm_id.name.clone(), here(world, plan)),
        lost_leases: stability::lost_leases(world),
        virtual_host: build.virtual_host.clone(),
        looked_after: plan.looked_after,
        waiting: plan.waiting.clone(),
        updated_at: world.wall,
    };
    match before {
        Some(before) if (NodeStatus { updated_at: before.updated_at, ..status.clone() }) == *before => {
            before.clone()
        }
        _ => status,
    }
}

/// The part of this node's status that is about the VM.
fn here(world: &World, plan: &Plan) -> VmHere {
    VmHere {
        local_vm: world.local.known().map_or(LocalState::Unknown, LocalVm::word),
        runs_unnamed: plan.runs_unnamed,
        migrated_percent: migrated_percent(world),
    }
}

/// The progress of the migration that the record has, and of no earlier one.
fn migrated_percent(world: &World) -> Option<u8> {
    let record = world.record()?;
    let migration = record.migration.as_ref().filter(|migration| migration.to.node != world.me)?;
    match world.job {
        MigrationJob::Going { id, percent } if id == migration.id => percent,
        MigrationJob::None
        | MigrationJob::Going { .. }
        | MigrationJob::Done { .. }
        | MigrationJob::Failed { .. } => None,
    }
}

/// The status of the VM, `status/vms/<vm>`, written by the owner only. `told`: the result of telling the guest through
/// its agent.
pub fn of_vm(world: &World, told: Option<&Told>, before: Option<&VmStatus>) -> Option<VmStatus> {
    let record = world.record()?;
    if !world.owns() || world.valid_epoch().is_none() {
        return None;
    }
    let observed_generation = world.document().map_or(0, |desired| desired.generation);
    let started = world.local.known().and_then(LocalVm::generation).unwrap_or_default();
    // A change that does not touch the domain is in force there already.
    let running_generation = if world.is_up_to_date() == Some(true) { observed_generation } else { started };
    let mut conditions = before.map(|status| status.conditions.clone()).unwrap_or_default();
    condition::set(&mut conditions, current(world, running_generation, observed_generation));
    match told {
        Some(told) => {
            let (status, reason, message) = told.verdict();
            condition::set(
                &mut conditions,
                Condition::new(ConditionKind::GuestConfigured, status, reason, message, world.wall),
            );
        }
        None => conditions.retain(|condition| !condition.is_of(ConditionKind::GuestConfigured)),
    }
    let status = VmStatus {
        name: record.name.clone(),
        uuid: record.uuid,
        node: world.me.clone(),
        state: state(world, record.phase),
        running_generation,
        observed_generation,
        conditions,
        updated_at: world.wall,
    };
    match before {
        Some(before) if (VmStatus { updated_at: before.updated_at, ..status.clone() }) == *before => {
            Some(before.clone())
        }
        _ => Some(status),
    }
}

/// The state of the VM in one word, from the process and the phase together.
fn state(world: &World, phase: VmPhase) -> VmState {
    match (&world.local, phase) {
        (Observed::Unknown(_), _) => VmState::Unknown,
        (Observed::Known(LocalVm::Running { .. }), _) => VmState::Running,
        (Observed::Known(LocalVm::ShuttingDown { .. }), _) => VmState::ShuttingDown,
        (Observed::Known(LocalVm::Crashed), _) => VmState::Crashed,
        (Observed::Known(LocalVm::Unmanaged), _) => VmState::Unknown,
        (
            Observed::Known(LocalVm::Paused { .. } | LocalVm::Absent | LocalVm::Off { .. }),
            VmPhase::Starting,
        ) => VmState::Starting,
        (Observed::Known(LocalVm::Paused { .. }), _) => VmState::Paused,
        (Observed::Known(LocalVm::Absent | LocalVm::Off { .. }), _) => VmState::Stopped,
    }
}

/// The condition that the running domain is the document's.
fn current(world: &World, running: u64, observed: u64) -> Condition {
    let known = devices::differences(world);
    let differences = known.as_deref().unwrap_or_default();
    let otherwise = format!("the VM runs otherwise than it was started: {}", differences.join("; "));
    let (status, reason, message) = if running == 0 {
        (ConditionStatus::Unknown, "NotRunning", "the VM does not run".to_owned())
    } else if running != observed {
        let pending = format!(
            "the VM was started from generation {running}; what generation {observed} changes about it comes in force \
             when the guest powers off and is started again"
        );
        let also = if differences.is_empty() { String::new() } else { format!(". And {otherwise}") };
        (ConditionStatus::False, "PendingBoot", pending + &also)
    } else if !differences.is_empty() {
        (ConditionStatus::False, condition::RUNS_OTHERWISE, otherwise)
    } else if known.is_none() {
        let unknown = format!("its domain is that of generation {observed}, but its devices are not known");
        (ConditionStatus::Unknown, condition::DEVICES_UNKNOWN, unknown)
    } else {
        (ConditionStatus::True, "UpToDate", format!("the VM runs as generation {observed} says"))
    };
    Condition::new(ConditionKind::UpToDate, status, reason, message, world.wall)
}
