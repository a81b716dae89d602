//! Resets the password of root in the guest where a command asks for it: the owner does it once, while the guest runs,
//! and answers in the ownership record.

use uuid::Uuid;
use zsha_crds::EventReason;
use zsha_crds::records::{Answer, Outcome};

use super::decision::Plan;
use super::notes::Notes;
use super::owner::Upkeep;
use super::step::Step;
use crate::hypervisor::LocalVm;

impl Upkeep<'_> {
    /// Plans what the request needs now; returns true if it plans anything. A request that meets no running guest is
    /// refused at once, so that none lies about until the VM starts some day.
    pub(super) fn reset_password(&self, local: LocalVm, notes: &Notes, plan: &mut Plan) -> bool {
        let asked = self.world.intents.known().and_then(|intents| intents.reset_password.as_ref());
        let over = self.record().password_reset.as_ref().map(|answer| answer.id);
        let Some(asked) = asked.filter(|asked| over != Some(asked.id)) else { return false };
        let allowed = self.world.document().map(|desired| desired.may_reset_password);
        let answer = match (allowed, local, &notes.tried.password) {
            (_, _, Some(done)) if done.id == asked.id => done.clone(),
            (None, _, _) => return false,
            (Some(false), _, _) => {
                refused(asked.id, "the document does not allow it (AllowResetRootPassword)")
            }
            (Some(true), LocalVm::Running { .. }, _) => {
                plan.step(Step::SetPassword { id: asked.id, by: asked.by.clone() });
                return true;
            }
            (Some(true), _, _) => refused(asked.id, "the guest does not run"),
        };
        let message = answer.message.clone();
        plan.step(
            self.change(EventReason::PasswordAnswered, message, |record| {
                record.password_reset = Some(answer)
            }),
        );
        true
    }
}

fn refused(id: Uuid, why: &str) -> Answer {
    let message = format!("the password of root in the guest was not reset: {why}");
    Answer { id, outcome: Outcome::Refused, message }
}
