//! Shuts a guest down: it is asked to power off, asked again, and ended after a while.

use std::time::Duration;

use super::decision::Plan;
use super::notes::Notes;
use super::owner::Upkeep;
use super::step::{Step, Still};

/// The time that a guest has to power off before it is ended.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(120);
/// The pause before a guest is asked again: one that boots does not listen yet, and an agent may be busy.
pub const SHUTDOWN_AGAIN: Duration = Duration::from_secs(15);

impl Upkeep<'_> {
    /// Asks the guest to power off, and again; ends it after a while. A guest that is given no time is ended at once.
    pub(super) fn shut_down(
        &self,
        limit: Duration,
        (because, if_still): (&str, Still),
        notes: &Notes,
        plan: &mut Plan,
    ) {
        let now = self.world.now;
        let end = |because: String| Step::KillCopy { because, if_still: Some(if_still) };
        match notes.tried.shutdown_asked {
            None if limit.is_zero() => {
                plan.step(end("an operator asked for it to be ended at once".to_owned()));
            }
            Some((first, _)) if now >= first + limit => {
                let secs = limit.as_secs();
                plan.step(end(format!("the guest did not power off within {secs} s")));
            }
            Some((first, last)) if now < last + SHUTDOWN_AGAIN => {
                plan.recheck_at((first + limit).min(last + SHUTDOWN_AGAIN));
                plan.wait("ShuttingDown", "the guest was asked to power off");
            }
            Some(_) | None => plan.step(Step::Shutdown { because: because.to_owned(), if_still }),
        }
    }
}
