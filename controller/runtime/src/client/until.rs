//! Looks on at what was asked for until it has come true, and says each time why it is not so yet. It never takes a
//! store that does not answer for an answer.

use std::time::Duration;

use zsha_crds::NodeName;
use zsha_crds::status::{ClusterStatus, ClusterView, summarise};

use super::order::Order;
use super::{ReadError, view};
use crate::clock::Moment;

/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// How far something is that was asked for, as one look shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Is {
    /// It has come true; a sentence says how.
    So(String),
    /// The same by an answer to this very request, which no second look makes surer.
    Answered(String),
    /// How far it has come.
    Going(String),
    /// It has not; a sentence says what it waits for.
    NotYet(String),
}

/// The news that [`Until::next`] has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It has come true, with a sentence.
    Done(String),
    /// How far it has come.
    Going(String),
    /// The order waits for this.
    NotYet(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UntilError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It stays asked for. `waits` is how it stood at the last look.
    #[error("timed out after {} s: {waits}", limit.as_secs_f64())]
    TimedOut { limit: Duration, waits: String },
}

/// An onlooker at an order.
#[derive(Debug)]
pub struct Until<'a, J> {
    order: &'a mut Order,
    judge: J,
    limit: Duration,
    until: Moment,
    /// The thing that it waited for at the last look; none before the first.
    waits: Option<String>,
    /// True if the last look showed it to have come true.
    seen_so: bool,
}

impl<'a, J: FnMut(&ClusterView, &ClusterStatus) -> Is> Until<'a, J> {
    pub(super) fn new(order: &'a mut Order, limit: Duration, judge: J) -> Self {
        let until = order.clock.now() + limit;
        Self { order, judge, limit, until, waits: None, seen_so: false }
    }

    /// How far it is, a second after the last time that this was asked. A look that shows it to be so is done once more
    /// before it is believed.
    pub async fn next(&mut self) -> Result<Progress, UntilError> {
        self.pause().await?;
        loop {
            match self.look().await? {
                // A node that has not heard of the order yet may still be about to do the contrary.
                Is::So(_) if !std::mem::replace(&mut self.seen_so, true) && !self.is_over() => {
                    tokio::time::sleep(LOOK).await;
                }
                Is::So(how) | Is::Answered(how) => return Ok(Progress::Done(how)),
                Is::Going(line) => return Ok(Progress::Going(self.not_so(line))),
                Is::NotYet(waits) => return Ok(Progress::NotYet(self.not_so(waits))),
            }
        }
    }

    fn is_over(&self) -> bool {
        self.order.clock.now() >= self.until
    }

    /// Waits until the next look is due, unless the time is over.
    async fn pause(&self) -> Result<(), UntilError> {
        let Some(waits) = &self.waits else { return Ok(()) };
        if self.is_over() {
            return Err(UntilError::TimedOut { limit: self.limit, waits: waits.clone() });
        }
        tokio::time::sleep(LOOK.min(self.order.clock.now().until(self.until))).await;
        Ok(())
    }

    fn not_so(&mut self, waits: String) -> String {
        self.seen_so = false;
        self.waits = Some(waits.clone());
        waits
    }

    async fn look(&mut self) -> Result<Is, UntilError> {
        let order = &mut *self.order;
        let view = match view::once(order.store.as_ref(), &order.cluster, order.clock).await {
            Ok(view) if view.data_age.is_current() => view,
            Ok(_) => return Ok(Is::NotYet("Consul has no quorum".to_owned())),
            Err(error) if error.is_transient() => {
                return Ok(Is::NotYet("Consul does not answer".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        order.status = summarise(&view);
        order.view = view;
        Ok(match ((self.judge)(&order.view, &order.status), order.view.frozen()) {
            (Is::NotYet(_), Some(asked)) => Is::NotYet(format!("the cluster was frozen {asked}")),
            (is, _) => is,
        })
    }
}

/// The sentence on what the nodes say they wait for. It leaves out what an order that was taken back just now still
/// makes them say.
pub fn waits_for(status: &ClusterStatus) -> Option<String> {
    let of_before = |reason: &str| ["Stopped", "Frozen"].contains(&reason);
    let first = status.waiting.iter().find(|waiting| !of_before(&waiting.reason))?;
    let nodes: Vec<_> = first.nodes.iter().map(NodeName::as_str).collect();
    Some(format!("{}: {}", nodes.join(", "), first.message))
}
