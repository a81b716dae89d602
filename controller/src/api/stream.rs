//! The live stream: one for each browser tab, all of them fed from the controller's own memory and none of them from
//! Consul. A slow reader skips to the newest state; it never holds up the controller.
//!
//! Two kinds of event. `status` carries the whole status whenever it says something new. `pulse` comes at least every
//! ten seconds and says how old the data is by the server's clock: a comment would keep the connection alive too,
//! but a page cannot see comments, and without a pulse it could not tell a quiet cluster from a dead line.

use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::Event;
use futures::Stream;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use zsha_crds::status::ClusterStatus;
use zsha_runtime::Clock;

use super::{STALE_AFTER, Snapshot};

pub(super) const PULSE_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    Status(Box<ClusterStatus>),
    Pulse(Pulse),
}

/// The state of the data, beside what the data says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pulse {
    /// The server's wall clock, so that a browser with a wrong one shows right ages.
    now: Timestamp,
    /// The time since the store last confirmed the status. Absent: it never did.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_millis: Option<u128>,
    stale_after_millis: u128,
    /// The time after which to worry that the line is dead.
    next_within_millis: u128,
    /// The reasons why this node is not ready, a sentence each.
    not_ready: Vec<String>,
}

/// One reader's place in the stream.
pub(super) struct Reader {
    feed: watch::Receiver<Arc<Snapshot>>,
    closing: watch::Receiver<bool>,
    clock: Clock,
    /// The status that it was last told.
    told: Option<ClusterStatus>,
    /// True if a status was told, and the pulse that belongs to it is due.
    pulse_due: bool,
    next_pulse: Instant,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    pub(super) fn new(
        mut feed: watch::Receiver<Arc<Snapshot>>,
        closing: watch::Receiver<bool>,
        clock: Clock,
        place: OwnedSemaphorePermit,
    ) -> Self {
        // The state there is now is news to a new reader.
        feed.mark_changed();
        Self { feed, closing, clock, told: None, pulse_due: false, next_pulse: Instant::now(), _place: place }
    }

    /// The next message; none when the controller goes away.
    pub(super) async fn next(&mut self) -> Option<Message> {
        if !std::mem::take(&mut self.pulse_due) {
            tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return None,
                changed = self.feed.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.next_pulse) => {}
            }
            let snapshot = self.feed.borrow_and_update().clone();
            if let Some(status) = snapshot.status.as_ref().filter(|status| self.is_news(status)) {
                self.told = Some(status.clone());
                self.pulse_due = true;
                return Some(Message::Status(Box::new(status.clone())));
            }
        }
        self.next_pulse = Instant::now() + PULSE_EVERY;
        let snapshot = self.feed.borrow().clone();
        Some(Message::Pulse(pulse(&snapshot, self.clock)))
    }

    /// True if the status says something new. The time when it was computed is no news.
    fn is_news(&self, status: &ClusterStatus) -> bool {
        match &self.told {
            Some(told) => ClusterStatus { as_of: told.as_of, ..status.clone() } != *told,
            None => true,
        }
    }

    pub(super) fn into_events(self) -> impl Stream<Item = Result<Event, axum::Error>> {
        futures::stream::unfold((self, 0_u64), |(mut reader, id)| async move {
            let message = reader.next().await?;
            Some((event(&message, id), (reader, id + 1)))
        })
    }
}

fn pulse(snapshot: &Snapshot, clock: Clock) -> Pulse {
    let now = clock.now();
    Pulse {
        now: clock.wall(),
        age_millis: snapshot.age(now).map(|age| age.as_millis()),
        stale_after_millis: STALE_AFTER.as_millis(),
        next_within_millis: PULSE_EVERY.as_millis(),
        not_ready: snapshot.not_ready(now),
    }
}

fn event(message: &Message, id: u64) -> Result<Event, axum::Error> {
    let event = Event::default().id(id.to_string());
    match message {
        Message::Status(status) => event.event("status").json_data(status),
        Message::Pulse(pulse) => event.event("pulse").json_data(pulse),
    }
}
