//! Plans: a synchronous function from what was observed to the steps to take now, to what is not done and why, and to
//! the moment when time alone could change the answer. It does nothing and asks nobody.
//!
//! It returns what is to be remembered (`Plan::notes`), so that planning twice over the same world gives the same
//! steps. A step counts as tried only by its outcome (`notes`), and not because it was planned. Once everything is as
//! wanted, nothing is planned.
//!
//! - `step`: what can be done.
//! - `decision`: the plan itself.
//! - `notes`: what a node remembers from pass to pass, and what came of the steps.
//! - `host`: the node's mounts, timings, watchdog and the guest's seed.
//! - `ownership`: may this node run the VM, and may it take it over.
//! - `placement`: which nodes are fit, in what order, and what the others lack.
//! - `fitness`: the conditions of this node.
//! - `freed`: whether nobody who is named may run the VM any more.
//! - `others`: what the other nodes have to say before one starts it.
//! - `owner`: the owner, and how it changes its record.
//! - `adopt`: what is done before a record that names this node is acted on.
//! - `upkeep`: what the owner does with its VM, in what order.
//! - `start`: start, start again, give up.
//! - `paused`: resume, or end.
//! - `left`: how the owner's copy has ended, where it is gone.
//! - `shutdown`: how a guest is shut down.
//! - `orders`: what the owner does because an operator asked: shut the VM down, or begin nothing.
//! - `host_down`: what the owner does as its host shuts down: the VM leaves live, or the guest is shut down.
//! - `storage`: when the VM is ended for want of its disk.
//! - `destination`: whether the VM moves to another node while it runs, and to which.
//! - `migration`: what the source of a migration does meanwhile.
//! - `arrival`: what is done with the copy that a migration brings.
//! - `ended`: whether it was the keeper that ended the VM.
//! - `claim`: what the others do when nobody may run the VM any more.
//! - `unnamed`: a copy that is here, where the record names another node, or none.
//! - `departed`: the owner's copy has gone by no step of zsha's.
//! - `expecting`: which copy the keeper is told to expect.
//! - `stability`: whether this node loses its lease again and again.
//! - `unreadable`: what is done about records that make no sense, or are not there.

mod adopt;
mod arrival;
pub mod blindness;
pub mod claim;
pub mod decision;
pub mod departed;
mod destination;
pub mod devices;
pub mod ended;
mod expecting;
pub mod fitness;
mod freed;
pub mod heard;
mod host;
pub mod host_down;
mod left;
mod looked;
mod migration;
pub mod news;
pub mod notes;
pub mod orders;
mod others;
mod owner;
pub mod ownership;
pub mod password;
pub mod paused;
pub mod placement;
pub mod shutdown;
pub mod stability;
mod start;
pub mod step;
pub mod storage;
mod unnamed;
pub mod unreadable;
mod upkeep;

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::hypervisor::{LocalVm, MigrationJob};
use crate::planted::{self, Bug};
use crate::world::World;
pub use decision::Plan;
pub use notes::Notes;
use ownership::Right;
pub use step::{ResumeBecause, Step, Still, Write};

/// The pause after which a node looks again though nothing is due: a safety net under the events, and a sign of life to
/// the keeper.
pub const SAFETY_NET: Duration = Duration::from_secs(2);

/// Plans by what is seen (`world`) and what is remembered (`notes`).
pub fn plan(world: &World, notes: &Notes) -> Plan {
    let mut plan = Plan { conditions: fitness::conditions(world), ..Plan::default() };
    let mut next = notes.clone();
    decide(world, &mut next, &mut plan);
    plan.notes = next;
    plan
}

fn decide(world: &World, notes: &mut Notes, plan: &mut Plan) {
    looked::begin(world, notes);
    let right = ownership::right(world);
    let not_mine = match &right {
        Right::NotMine { because } => Some(because.clone()),
        _ => None,
    };
    if !matches!(right, Right::NotMine { .. } | Right::Target) {
        notes.seen.claimable_since = None;
    }
    if not_mine.is_none() {
        notes.seen.migration.unnamed = None;
    }
    if not_mine.is_none() && right != Right::Target {
        notes.seen.unnamed = None;
        notes.seen.also = None;
    }
    if matches!(right, Right::NotMine { .. } | Right::NoLease { .. }) {
        // A process that ran by an earlier right is not the copy of the present one.
        notes.tried.ran = false;
        if world.local.known().is_some_and(|local| !local.has_process()) {
            // A guest that was asked to power off here is off, or is another node's by now.
            notes.tried.shutdown_asked = None;
        }
        notes.seen.gone = None;
        notes.seen.left = None;
    }
    if matches!(right, Right::Mine { .. } | Right::Unconfirmed { .. }) {
        notes.seen.failed_since = None;
    }
    if !matches!(right, Right::Mine { .. }) {
        notes.seen.migration.left_by_ours = false;
        notes.seen.unread_since = None;
    }
    match right.clone() {
        Right::Mine { epoch } => upkeep::keep(world, notes, epoch, plan),
        Right::Unconfirmed { epoch } => adopt::adopt(world, notes, epoch, plan),
        Right::NotMine { because } => {
            if !arrival::comes_before_its_record(world, notes, plan)
                && !unnamed::deal(world, &because, notes, plan)
            {
                claim::consider(world, notes, plan);
            }
        }
        Right::Overtaken { epoch } => adopt::reclaim(world, epoch, plan),
        Right::Target => claim::stand_by(world, notes, plan),
        Right::NoLease { because } => {
            kill_if_there(world, &because, Some(Still::Lapsed), plan);
            plan.wait("NoLease", because);
        }
        Right::Missing => unreadable::missing(world, plan),
        Right::Unknown { because } => unreadable::hold(world, because, plan),
    }
    // Last: a mount that fails must not keep the VM from what it needs.
    host::keep_timings(world, plan);
    host::keep_watchdog(world, plan);
    host::keep_mounts(world, notes, plan);
    host::keep_seed(world, notes, plan);
    looked::end(world, notes, plan);
    forget_definition(world, plan);
    expecting::tell(world, &right, notes, plan);
}

/// Removes a definition of the VM from the disk. A start leaves none behind, so somebody has put it there by hand, or
/// an earlier version has: it is one `virsh start`, or with its autostart flag one boot, away from a second copy. It is
/// removed wherever it is, also beside the copy that runs, which stays as it is. This is done only when there is
/// nothing else to do: it must never keep a recovery waiting.
fn forget_definition(world: &World, plan: &mut Plan) {
    let Some(facts) = world.domain.known().filter(|facts| facts.defined) else { return };
    if planted::is_planted(Bug::DefinitionLeft) {
        return;
    }
    let leaves = matches!(world.job, MigrationJob::Going { .. });
    let arrives = world.local.known().is_some_and(LocalVm::is_incoming);
    if plan.steps.is_empty() && !leaves && !arrives {
        let how = if facts.autostart { " with the boot of this node, or" } else { "" };
        let because =
            format!("it could be started{how} by hand past zsha from there, which keeps none itself");
        plan.step(Step::Undefine { because });
    }
}

/// Ends a process of the VM that may not be here. Returns true if there is one, which must be known.
fn kill_if_there(world: &World, because: &str, if_still: Option<Still>, plan: &mut Plan) -> bool {
    let there = world.local.known().is_some_and(|local| local.has_process());
    if there {
        plan.step(Step::KillCopy { because: because.to_owned(), if_still });
    }
    there
}
