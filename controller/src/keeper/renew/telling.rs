//! Tells what is so of the lease: the verdict, the log, and the end of validity, which comes by itself. Never here:
//! anything that changes what is so.

use tokio::sync::watch;
use zsha_runtime::lease::{self, Expected, Holder};
use zsha_runtime::{Clock, Moment};

use super::Renewal;
use super::copies::Looked;
use crate::keeper::watchdog::WatchdogState;
use crate::keeper::{Lost, Verdict};

/// The state that was last logged, so that only changes are.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) valid: bool,
    pub(super) epoch: u64,
    pub(super) late: Option<lease::Late>,
    pub(super) unexpected: u64,
    pub(super) failing: bool,
}

pub(super) fn verdict(
    holder: &Holder,
    now: Moment,
    deadline: Option<Moment>,
    looked: Option<Looked>,
    expected: Expected,
) -> Verdict {
    Verdict {
        node: holder.node().clone(),
        valid_until: deadline,
        incarnation: holder.incarnation(),
        epoch: holder.epoch(),
        seq: holder.seq(),
        timings: holder.timings(),
        message: holder.message().to_owned(),
        unbroken_since: holder.unbroken_since(now),
        store_went_back: holder.store_went_back(),
        step_back: holder.step_back(),
        confirmed: holder.confirmed(),
        copies: looked.and_then(|looked| looked.count),
        counted_at: looked.map(|looked| looked.at),
        incoming: looked.is_some_and(|looked| looked.incoming),
        expects: Some(expected.in_life(holder.incarnation())),
        ended: None,
        unexpected: None,
        late: holder.late(),
        lost: holder.lost().iter().map(|(epoch, at)| Lost { epoch: *epoch, at: *at }).collect(),
        watchdog: WatchdogState::default(),
    }
}

impl Renewal {
    pub(super) fn tell(&mut self, deadline: Option<Moment>) {
        let now = self.settings.clock.now();
        let mut view = verdict(&self.holder, now, deadline, self.looked, self.expected);
        view.unexpected = self.unexpected;
        if let Some(trouble) = self.settings.notebook.trouble() {
            let more = format!(
                "; the keeper's state file cannot be written ({trouble}): make room in its directory"
            );
            view.message.push_str(&more);
        }
        if let Some(who) =
            self.settings.looking.who().filter(|_| view.copies.is_some_and(|copies| copies > 0))
        {
            view.message.push_str(&format!("; of the VM there is {who}"));
        }
        let (valid, epoch, late) = (view.valid(now), view.epoch, view.late);
        let unexpected = view.unexpected.map_or(0, |ended| ended.count);
        let message = view.message.clone();
        self.desk.show(view);
        let news = std::mem::replace(&mut self.told.late, late) != late;
        if std::mem::replace(&mut self.told.unexpected, unexpected) != unexpected || news {
            self.desk.bump();
        }
        if (valid, epoch) == (self.told.valid, self.told.epoch) {
            return;
        }
        (self.told.valid, self.told.epoch) = (valid, epoch);
        self.desk.bump();
        tracing::info!(node = %self.settings.identity.node, valid, epoch, reason = message, "lease");
    }
}

/// Announces the end of validity. It comes by itself, with nothing happening, and those who follow validity must hear
/// of it.
pub(super) async fn announce_expiry(
    clock: Clock,
    mut view: watch::Receiver<Verdict>,
    changes: watch::Sender<u64>,
) {
    loop {
        let until = view.borrow_and_update().valid_until.filter(|until| clock.now() < *until);
        let expired = async {
            match until {
                Some(until) => clock.sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = view.changed() => if outcome.is_err() { return },
            () = expired => changes.send_modify(|count| *count += 1),
        }
    }
}
