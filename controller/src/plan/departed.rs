//! The owner has no copy any more, and no step of zsha's explains where it went.
//!
//! A guest that was moved by a command that was not zsha's runs somewhere. Where a node says that it has the guest, the
//! owner hands the VM over to it. Where the guest is seen nowhere, it may be on a host of which nothing can be known:
//! then the VM is not started before an operator has looked, and says `zsha start`. A node that had a process of the VM
//! and has none any more proves nothing: the guest may have been moved on from there, or its arrival broken off.

use std::collections::BTreeSet;

use uuid::Uuid;
use zsha_crds::records::{Departed, Owner, VmPhase, VmRecord};
use zsha_crds::{EventReason, NodeName};
use zsha_runtime::lease::Sight;

use super::decision::Plan;
use super::heard::Heard;
use super::notes::Notes;
use super::others::{Guard, LOOK, has_a_copy, nobody_else_has_a_copy};
use super::owner::Upkeep;
use super::step::Write;
use crate::hypervisor::{LocalVm, OffReason};
use crate::observed::Observed;
use crate::planted::{self, Bug};
use crate::world::{StoredVm, World};

/// The heir: the node that runs the VM without being named, and would keep it. None also where two nodes say so.
pub(super) fn heir(world: &World) -> Option<Owner> {
    let mut heirs = world
        .nodes
        .values()
        .filter(|status| status.node != world.me && status.vms.of(&world.vm_id.name).runs_unnamed);
    let heir = heirs.next().filter(|_| heirs.next().is_none())?;
    let sight = world.sights.get(&heir.node)?;
    let lives = sight.is_renewed(world.now) && would_say_more(world, sight);
    lives.then(|| Owner { node: heir.node.clone(), epoch: sight.record.epoch })
}

/// Writes down that the VM has left its owner past zsha, where nobody has written that yet: the owner had no
/// controller, or lost its lease before it could. Of this very node libvirt knows it; of another, its keeper's lease
/// says it. Whoever may claim the VM writes it down before anything else. Returns true if it is to be written.
pub(super) fn is_first_written_down(world: &World, stored: &StoredVm, plan: &mut Plan) -> bool {
    let record = &stored.record;
    let before = world.departed_before.as_ref();
    // Before the first start here the last end is that of an earlier copy, which zsha may have moved.
    let has_run = record.migration.is_none() && record.phase == VmPhase::Running;
    let is_plain = record.departed.is_none() && (has_run || before.is_some());
    let Some(owner) = record.owner.as_ref().filter(|_| is_plain) else { return false };
    let by_keeper = world
        .sights
        .get(&owner.node)
        .is_some_and(|sight| sight.record.vms.of(&world.vm_id.name).moved_away_in == Some(owner.epoch));
    // After a step back of the store the record may be of a time before the VM was handed over.
    let here = owner.node == world.me
        && !world.went_back
        && world.local.known() == Some(&LocalVm::Off { reason: OffReason::Migrated });
    let Some(epoch) = world.valid_epoch().filter(|_| by_keeper || here || before.is_some()) else {
        return false;
    };
    if planted::is_planted(Bug::DepartedIsGone) {
        return false;
    }
    // A node that has died since counts, too: then the VM has died there.
    let seen_on: BTreeSet<_> = world
        .others()
        .filter(|sight| would_say_more(world, sight))
        .map(|sight| sight.record.node.clone())
        .collect();
    let departed = match before {
        Some(before) => before.clone(),
        None => Departed { from: owner.node.clone(), at: world.wall, seen_on },
    };
    let how = match before {
        Some(_) => ", as the record said before the store was put back to an older state",
        None if by_keeper => {
            " while its controller was down, as libvirt's log there says or, if it could not be read, may say"
        }
        None => "",
    };
    let message = has_left(&owner.node, how);
    let record = VmRecord {
        migration: None,
        departed: Some(departed),
        start_taken_up: asked_before(world).or(record.start_taken_up),
        note: message.clone(),
        revision: record.revision + 1,
        ..record.clone()
    };
    plan.step(Write::over(stored.index, world, epoch, record, (EventReason::MovedAway, message)).step());
    true
}

/// The order `start` that was given before it was written down that the VM has left. Whoever gave it has not looked
/// where the VM is.
fn asked_before(world: &World) -> Option<Uuid> {
    world.start_asked().map(|start| start.id).filter(|_| !planted::is_planted(Bug::StartOfBeforeCounts))
}

/// True if the node has a copy, and a controller that would keep it.
fn would_say_more(world: &World, sight: &Sight) -> bool {
    world.has_copy(sight) && sight.record.controller_alive
}

/// True if every node on which the guest was seen has died with it: it had the VM whole, said so, and has said nothing
/// since. A node that lives, or has booted since, and has no copy may have sent the guest on. A record that a restore
/// has brought back proves nothing.
pub(super) fn has_died_there(world: &World, departed: &Departed) -> bool {
    let has_died = |node: &NodeName| {
        let had_it = world.said_of_vm(node).is_some_and(|said| said.runs_unnamed);
        let sight = world.sights.get(node);
        had_it && sight.is_some_and(|sight| would_say_more(world, sight) && sight.is_expired(world.now))
    };
    !world.went_back && !departed.seen_on.is_empty() && departed.seen_on.iter().all(has_died)
}

fn has_left(from: &NodeName, how: &str) -> String {
    format!(
        "the VM has left {from} by a migration that was not zsha's{how}; it is started nowhere before it is known what \
         became of it"
    )
}

/// True if this node's keeper has lately counted, and found no process of the VM.
fn none_here(world: &World) -> bool {
    world.lease.known().and_then(|verdict| verdict.copies) == Some(0)
        && world.local.known().is_some_and(|local| !local.has_process())
}

impl Upkeep<'_> {
    /// Hands the VM over to the heir. The owner does so when it has no copy; or the target of its migration does, where
    /// the owner is dead and fenced in the same write. It starts nothing, so no other node has to be asked.
    pub(super) fn hands_to_heir(&self, fence: Vec<Sight>, plan: &mut Plan) -> bool {
        let Some(heir) = heir(self.world).filter(|_| none_here(self.world)) else { return false };
        let me = &self.world.me;
        let message = format!(
            "the VM runs on {}, and not on {me}: it was moved there past zsha, or the store was put back; {} goes on \
             with it",
            heir.node, heir.node
        );
        let write = self.changed(EventReason::FoundElsewhere, message, |record| {
            record.owner = Some(heir);
            record.migration = None;
            record.phase = VmPhase::Running;
            record.departed = None;
        });
        plan.step(Write { fence, ..write }.step());
        true
    }

    /// True if the VM may not be started here because it is somewhere else, or may be.
    pub(super) fn is_elsewhere(&self, reason: OffReason, notes: &mut Notes, plan: &mut Plan) -> bool {
        // It does not matter how the copy has ended here: the heir has the guest, whole.
        if self.world.frozen().is_none() && self.hands_to_heir(Vec::new(), plan) {
            return true;
        }
        // libvirt says this for ever of the last copy here, even of one that was handed over years ago.
        let ran = notes.tried.ran || self.record().phase == VmPhase::Running;
        let left = ran && (LocalVm::Off { reason }).may_have_moved();
        if left && reason == OffReason::Unread && self.waits_for_log(notes, plan) {
            return true;
        }
        let moved = left || self.record().departed.is_some();
        let may_have_moved = moved || reason == OffReason::Unknown && self.is_to_ask(notes);
        if !may_have_moved || planted::is_planted(Bug::DepartedIsGone) {
            notes.seen.gone = None;
            return false;
        }
        let heard = notes.seen.gone.get_or_insert_with(|| Heard::now(self.world)).clone();
        if moved && self.writes_down(&heard, plan) {
            return true;
        }
        if moved && !self.may_be_started(plan) {
            return true;
        }
        if let Some(node) = heard.silent(self.world) {
            plan.recheck_at(self.world.now + LOOK);
            plan.wait(
                "CopiesNotConfirmed",
                format!("{node} has to renew its lease, to show that the VM was not moved there"),
            );
            return true;
        }
        false
    }

    /// Deals with a VM that has left past zsha: the heir is given it, or it is written down that the VM has left, or
    /// said that nobody knows where it is. Nothing is started or ended. Returns true if the VM has left.
    pub(super) fn has_moved_away(&self, notes: &mut Notes, plan: &mut Plan) -> bool {
        let record = self.record();
        let left = notes.tried.ran || record.phase == VmPhase::Running;
        if !left && record.departed.is_none() {
            return false;
        }
        let heard = notes.seen.gone.get_or_insert_with(|| Heard::now(self.world)).clone();
        if self.world.frozen().is_none() && self.hands_to_heir(Vec::new(), plan) {
            return true;
        }
        let unread = self.world.local.known() == Some(&LocalVm::Off { reason: OffReason::Unread });
        if unread && self.waits_for_log(notes, plan) || self.writes_down(&heard, plan) {
            return true;
        }
        match record.departed.as_ref().filter(|departed| !has_died_there(self.world, departed)) {
            Some(departed) => {
                self.says_where_it_is(departed, plan);
                true
            }
            None => self.is_with_another(plan),
        }
    }

    /// Says which node has the guest, or that nobody says so.
    fn says_where_it_is(&self, departed: &Departed, plan: &mut Plan) {
        if !self.is_with_another(plan) {
            plan.recheck_at(self.world.now + LOOK);
            plan.wait("MovedAway", moved_away(departed));
        }
    }

    /// Says that another node has a copy, where one says so of itself.
    pub(super) fn is_with_another(&self, plan: &mut Plan) -> bool {
        let Some(sight) =
            self.world.others().find(|sight| self.world.has_copy(sight) && sight.is_renewed(self.world.now))
        else {
            return false;
        };
        plan.recheck_at(self.world.now + LOOK);
        plan.wait("CopyElsewhere", has_a_copy(sight));
        true
    }

    /// Writes into the record what every node has to know of it.
    fn writes_down(&self, heard: &Heard, plan: &mut Plan) -> bool {
        let known = self.record().departed.as_ref();
        let mut seen_on = known.map(|departed| departed.seen_on.clone()).unwrap_or_default();
        let seen =
            self.world.others().filter(|sight| would_say_more(self.world, sight) && heard.is_before(sight));
        seen_on.extend(seen.map(|sight| sight.record.node.clone()));
        let me = &self.world.me;
        let (reason, message) = match known {
            None => (EventReason::MovedAway, has_left(me, self.how_known())),
            Some(departed) if departed.seen_on != seen_on => {
                let names: Vec<_> = seen_on.iter().map(NodeName::as_str).collect();
                let on = names.join(", ");
                (
                    EventReason::SeenElsewhere,
                    format!("a process of the VM that has left {me} is seen on {on}"),
                )
            }
            Some(_) => return false,
        };
        let departed = Departed {
            from: known.map_or_else(|| me.clone(), |departed| departed.from.clone()),
            at: known.map_or(self.world.wall, |departed| departed.at),
            seen_on,
        };
        let start = asked_before(self.world).filter(|_| known.is_none());
        plan.step(self.change(reason, message, |record| {
            record.migration = None;
            record.departed = Some(departed);
            record.start_taken_up = start.or(record.start_taken_up);
        }));
        true
    }

    /// The source of the knowledge that the VM has left: libvirt itself, or its log where libvirt does not answer.
    fn how_known(&self) -> &'static str {
        match (&self.world.local, &self.world.last_end) {
            (Observed::Known(LocalVm::Off { reason: OffReason::Unread }), _) => {
                ", or may have: how it ended could not be read in libvirt's log there"
            }
            (Observed::Known(_), _) => "",
            (Observed::Unknown(_), Observed::Known(_)) => {
                ", as the log of libvirt there says, which does not answer itself"
            }
            (Observed::Unknown(_), Observed::Unknown(_)) => {
                ", or may have: libvirt there does not say how it ended, and its log could not be read"
            }
        }
    }

    /// True if the VM may be started: an operator says so, or the guest has died where it went.
    fn may_be_started(&self, plan: &mut Plan) -> bool {
        let Some(departed) = &self.record().departed else { return true };
        if self.world.start_asked().is_none() && !has_died_there(self.world, departed) {
            self.says_where_it_is(departed, plan);
            return false;
        }
        let guard = Guard { fenced: &[], strict: true, target: None, starts: true };
        nobody_else_has_a_copy(self.world, &guard, plan).is_some()
    }
}

/// The sentence on why nothing is started, and what to do.
pub(super) fn moved_away(departed: &Departed) -> String {
    let seen: Vec<_> = departed.seen_on.iter().map(NodeName::as_str).collect();
    let seen = match seen.as_slice() {
        [] => String::new(),
        nodes => format!(" (a process of it was seen on {})", nodes.join(", ")),
    };
    format!(
        "the VM was moved away from {} by a command that was not zsha's, and no node says that it has it{seen}. It may run \
         on a host that is not a node of this cluster, so it is not started: a second copy would destroy its disk. Look for \
         it (`virsh list` on the host it was moved to) and end it there, or move it back to a node; then `zsha start`",
        departed.from
    )
}
