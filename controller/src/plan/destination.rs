//! Decides whether the VM moves to another node while it runs, and to which: an operator asks for it, this node is to
//! be left, or a preferred one is back.

use std::time::Duration;

use uuid::Uuid;
use zsha_crds::records::{Answer, Migration, Outcome, Owner};
use zsha_crds::{EventReason, NodeName};

use super::decision::Plan;
use super::notes::Notes;
use super::owner::Upkeep;
use super::step::Step;
use super::{looked, placement};
use crate::desired::Desired;
use crate::hypervisor::LocalVm;
use crate::intents::Cordon;

/// The time for which a preferred node has to be fit before the VM is moved back to it: a node that comes and goes is
/// no reason to move a healthy VM.
const CALM: Duration = Duration::from_secs(10);

/// The node to which the VM should go, and why.
struct Wish {
    to: NodeName,
    because: String,
}

enum Asked {
    Nothing,
    /// The order is answered, by a write that is planned.
    Answered,
    /// The answer has to wait: the target has not looked since the order.
    Waits,
    For(Wish),
}

impl Upkeep<'_> {
    /// Begins a migration where one is wanted. It is called with the VM running here and nothing else to do.
    pub(super) fn move_on(&self, desired: &Desired, notes: &mut Notes, plan: &mut Plan) {
        let line = placement::candidates(self.world, desired, self.record());
        let wish = match self.asked(desired, &line, notes, plan) {
            Asked::Answered => return,
            Asked::Waits if !self.is_to_leave(desired) => return,
            Asked::For(wish) => wish,
            Asked::Waits | Asked::Nothing => match self.better_place(desired, &line, notes, plan) {
                Some(wish) => wish,
                None => return,
            },
        };
        if !matches!(self.world.local.known(), Some(LocalVm::Running { .. })) {
            plan.wait("MigrationWaits", format!("the VM moves to {} once it runs", wish.to));
            return;
        }
        self.begin(&wish, plan);
    }

    fn begin(&self, wish: &Wish, plan: &mut Plan) {
        let Some(sight) = self.world.sights.get(&wish.to) else { return };
        if self.world.copies(sight) != Some(0) {
            plan.wait("MigrationWaits", format!("{} has not said that it has no process of the VM", wish.to));
            return;
        }
        let id =
            Uuid::new_v5(&self.record().uuid, format!("migration {}", self.record().revision).as_bytes());
        let to = Owner { node: wish.to.clone(), epoch: sight.record.epoch };
        let message = format!("the VM is moved live from {} to {}: {}", self.world.me, wish.to, wish.because);
        let mut step = self.change(EventReason::MigrationBegun, message, |record| {
            record.migration = Some(Migration { to, id });
        });
        if let Step::Write(write) = &mut step {
            write.rests_on.push(sight.clone());
        }
        plan.step(step);
    }

    /// The migration that an operator asked for, if it has not been answered yet.
    fn asked(
        &self,
        desired: &Desired,
        line: &placement::Candidates,
        notes: &mut Notes,
        plan: &mut Plan,
    ) -> Asked {
        let Some(request) = &self.world.migrate else { return Asked::Nothing };
        if self.record().answered.as_ref().is_some_and(|answer| answer.id == request.id) {
            return Asked::Nothing;
        }
        let (outcome, message) = if request.to == self.world.me {
            (Outcome::Done, format!("the VM runs on {} already", request.to))
        } else if line.fit.contains(&request.to) {
            let because = format!("{} asked for it", request.by);
            return Asked::For(Wish { to: request.to.clone(), because });
        } else if let Some(said) =
            placement::is_unfit_by_its_word(self.world, desired, self.record(), &request.to)
            && let Some(due) = looked::until(self.world, &request.to, request, notes)
        {
            plan.recheck_at(due);
            let status = self.world.nodes.get(&request.to);
            let at = status.map(|status| status.updated_at.strftime(", at %Y-%m-%d %H:%M:%SZ").to_string());
            plan.wait(
                "TargetLooks",
                format!(
                    "the VM is to move to {}, which looks whether it is fit, and has not said so since that was asked for. \
                     Before that it said{}: {said}",
                    request.to,
                    at.unwrap_or_default(),
                ),
            );
            return Asked::Waits;
        } else {
            let why = line.unfit.get(&request.to).map_or("it is not a node of this cluster", String::as_str);
            (Outcome::Refused, format!("the VM is not moved to {}: {why}", request.to))
        };
        let answer = Answer { id: request.id, outcome, message: message.clone() };
        plan.step(
            self.change(EventReason::MigrationAnswered, message, |record| record.answered = Some(answer)),
        );
        Asked::Answered
    }

    /// True if the VM is not to stay here, wherever it goes.
    fn is_to_leave(&self, desired: &Desired) -> bool {
        let me = &self.world.me;
        !desired.names(me) || matches!(self.world.cordon(me), Some(Cordon::Drained(_)))
    }

    /// The move that is due though nobody has asked: this node has left the document, or a preferred one is back and
    /// the document says so.
    fn better_place(
        &self,
        desired: &Desired,
        line: &placement::Candidates,
        notes: &mut Notes,
        plan: &mut Plan,
    ) -> Option<Wish> {
        let me = &self.world.me;
        let drained = self.world.cordon(me).filter(|cordon| matches!(cordon, Cordon::Drained(_)));
        let leaving = self.is_to_leave(desired);
        let place = desired.order.iter().position(|node| node == me);
        let better = |node: &&NodeName| {
            let at = desired.order.iter().position(|other| other == *node);
            let calls_back = at < place && at.is_some_and(|at| at < desired.fail_back_to);
            leaving || (calls_back && !placement::is_unstable(self.world, node))
        };
        let Some(to) = line.fit.iter().find(|node| *node != me && better(node)) else {
            notes.seen.migration.preferred = None;
            if let Some(drained) = drained {
                let why = format!(
                    "the VM does not leave {me}, though {drained}: no other node is fit. {}",
                    line.why_not()
                );
                plan.wait("DrainWaits", why);
            }
            return None;
        };
        let since = match &notes.seen.migration.preferred {
            Some((node, since)) if node == to => *since,
            _ => self.world.now,
        };
        notes.seen.migration.preferred = Some((to.clone(), since));
        // An operator who drains a node waits for it.
        let calm = if drained.is_some() { Duration::ZERO } else { CALM };
        let due = (since + calm).max(notes.tried.move_at.unwrap_or_default());
        if self.world.now < due {
            plan.recheck_at(due);
            plan.wait("MigrationWaits", format!("the VM moves to {to} if that stays fit"));
            return None;
        }
        let because = match drained {
            Some(drained) => drained.to_string(),
            None if leaving => format!("the document no longer names {me}"),
            None => format!("{to} is preferred, and fit again"),
        };
        Some(Wish { to: to.clone(), because })
    }
}
