//! Does what the controller asks of the keeper. Never here: how it asks, which is at the desk.

use uuid::Uuid;
use zsha_crds::records::LeaseTimings;
use zsha_runtime::lease::{self, Expectation, Expected};

use super::Renewal;
use super::desk::Command;

impl Renewal {
    pub(super) async fn obey(&mut self, command: Command) {
        match command {
            Command::SetTimings(timings, reply) => {
                let outcome = self.change_timings(timings).await;
                if outcome.is_ok() {
                    self.adopt_timings = false;
                }
                reply.say(outcome);
            }
            Command::Expect(what, reply) => reply.say(self.expect(what)),
            Command::Release(reply) => match self.look().await {
                lease::Copies::None => {
                    self.holder.release();
                    self.releasing.push(reply);
                }
                lease::Copies::Some => reply.say(Err("a copy of the VM is alive on this node".to_owned())),
                lease::Copies::Unknown => {
                    reply.say(Err(
                        "it cannot be seen whether a copy of the VM is alive on this node".to_owned()
                    ));
                }
            },
        }
    }

    /// Notes which copy to expect. It is in force, and kept for the keeper that is started next, when this returns
    /// `Ok`.
    fn expect(&mut self, what: Expectation) -> Result<(), String> {
        self.own.forget_which();
        let said = Expected { incarnation: self.holder.incarnation(), what };
        let before = std::mem::replace(&mut self.expected, said);
        if said == before {
            return Ok(());
        }
        self.owned = owned(&self.expected).or(self.owned);
        self.publish(self.holder.deadline());
        match self.settings.notebook.trouble() {
            Some(trouble) if what != Expectation::Nothing => {
                let why = format!(
                    "a keeper started anew would not know of it: the state file cannot be written ({trouble}); make room \
                     in its directory"
                );
                self.expected = before;
                self.publish(self.holder.deadline());
                Err(why)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Changes the timings. No other node hears of a shorter D before the watchdog fits into it.
    async fn change_timings(&mut self, timings: LeaseTimings) -> Result<(), String> {
        let before = self.holder.timings();
        self.holder.set_timings(timings)?;
        let fitted = self.settings.watchdog.fit_before([&timings, &self.holder.granted()]).await;
        if fitted.is_err() {
            self.holder.set_timings(before)?;
        }
        fitted
    }

    pub(super) fn settle_releases(&mut self) {
        if self.holder.released() {
            self.releasing.drain(..).for_each(|reply| reply.say(Ok(())));
        }
    }
}

/// The life in which this node's own copy is to be here, if it is. A keeper of an earlier build was not told of it; its
/// life counts too.
pub(super) fn owned(told: &Expected) -> Option<Uuid> {
    matches!(told.what, Expectation::Own | Expectation::Unsaid).then_some(told.incarnation)
}
