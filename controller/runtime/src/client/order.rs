//! An order on its way: what `stop`, `drain` and the like have in common. An order rests on a look that a quorum has
//! confirmed, writes intents, and may then be looked on at until it has come true. The controllers carry it out.

use std::sync::Arc;
use std::time::Duration;

use zsha_crds::records::Intent;
use zsha_crds::status::{ClusterStatus, ClusterView, DataAge, summarise};
use zsha_crds::{ClusterName, Keys, NodeName};

use super::intent::{self, How, IntentError, Mended, Written};
use super::until::{Is, Until};
use super::{ReadError, view};
use crate::clock::Clock;
use crate::store::Store;

/// The pause between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// An election is over in 2.4 to 3.9 s.
const TRIES: u32 = 6;

/// An order on its way, and the cluster as it was last seen.
#[derive(Debug)]
pub struct Order {
    pub(super) store: Arc<dyn Store>,
    pub(super) cluster: ClusterName,
    pub(super) clock: Clock,
    keys: Keys,
    pub view: ClusterView,
    /// The status of `view`.
    pub status: ClusterStatus,
    /// True if something is asked for that was not asked for before.
    pub changed: bool,
    /// The value that was missing or could not be read, and was written all the same.
    pub mended: Option<Mended>,
}

/// Why nothing can be asked of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A server answers, and no quorum confirms what it says.
    #[error("the store has no quorum")]
    NoQuorum { why: String },
    #[error("no document has been applied")]
    NoDocument,
    #[error("what is stored as the document cannot be read")]
    Unreadable { why: String },
}

impl Order {
    /// Reads the cluster. Nothing is asked of one that no quorum speaks for.
    pub async fn begin(
        store: Arc<dyn Store>,
        cluster: ClusterName,
        clock: Clock,
    ) -> Result<Self, BeginError> {
        let keys = Keys::new(&cluster);
        let view = confirmed(store.as_ref(), &cluster, clock).await?;
        if let Some(why) = view.unreadable.get(&keys.spec()) {
            return Err(BeginError::Unreadable { why: why.clone() });
        }
        if view.spec.is_none() {
            return Err(BeginError::NoDocument);
        }
        let status = summarise(&view);
        Ok(Self { store, cluster, clock, keys, view, status, changed: false, mended: None })
    }

    /// True if a node says that it does not know what is asked for: an order that has come back with an older state of
    /// the store counts only once it is given again.
    pub fn is_in_doubt(&self) -> bool {
        let speaks = |node: &NodeName| self.status.node(node).is_some_and(|summary| summary.speaks());
        let mut statuses = self.view.node_statuses.values().filter(|status| speaks(&status.node));
        statuses.any(|status| status.orders_in_doubt().next().is_some())
    }

    /// The node of this name or address; none where the document does not name it.
    pub fn member(&self, word: &str) -> Option<&NodeName> {
        let mut members = self.status.nodes.iter().filter(|node| node.address.is_some());
        let found = members.find(|node| node.name.as_str() == word || node.address.as_deref() == Some(word));
        found.map(|node| &node.name)
    }

    /// Writes the intent under this name, unless what is there is the same already. Sent twice it is one. Where a node is in
    /// doubt, what is there counts for nothing.
    pub async fn put(
        &mut self,
        name: &str,
        intent: &Intent,
        is_same: impl Fn(&Intent) -> bool,
    ) -> Result<(), IntentError> {
        let in_doubt = self.is_in_doubt();
        let is_there = |before: Option<&Intent>| !in_doubt && before.is_some_and(&is_same);
        self.put_over(name, |before| (!is_there(before)).then(|| intent.clone())).await
    }

    /// The same, written also where it is there already: for nodes that may be in doubt, and do not say so.
    pub async fn say_again(&mut self, name: &str, intent: &Intent) -> Result<(), IntentError> {
        self.write(name, |_| Some(intent.clone()), true).await
    }

    /// The same, where what is written depends on what is there, which is none where that cannot be read. Nothing is written
    /// where nothing is wanted.
    pub async fn put_over(
        &mut self,
        name: &str,
        wanted: impl Fn(Option<&Intent>) -> Option<Intent>,
    ) -> Result<(), IntentError> {
        self.write(name, wanted, self.is_in_doubt()).await
    }

    /// `again`: also where the same is there.
    async fn write(
        &mut self,
        name: &str,
        wanted: impl Fn(Option<&Intent>) -> Option<Intent>,
        again: bool,
    ) -> Result<(), IntentError> {
        let how = How { again, doubted: self.is_in_doubt() };
        let written = intent::write(self.store.as_ref(), &self.keys, name, wanted, how).await?;
        let Written { changed, mended } = written;
        self.changed |= changed;
        self.mended = mended.or(self.mended.take());
        Ok(())
    }

    /// Begins to look on at what was asked for, for at most `limit`. `judge` says of each look how far it is.
    pub fn until<J>(&mut self, limit: Duration, judge: J) -> Until<'_, J>
    where
        J: FnMut(&ClusterView, &ClusterStatus) -> Is,
    {
        Until::new(self, limit, judge)
    }
}

/// The view that a quorum confirms, as soon as one does: an election is over in a few seconds.
async fn confirmed(
    store: &dyn Store,
    cluster: &ClusterName,
    clock: Clock,
) -> Result<ClusterView, BeginError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let error = match view::once(store, cluster, clock).await {
            Ok(ClusterView { data_age: DataAge::Stale { why, .. }, .. }) => BeginError::NoQuorum { why },
            Ok(view) => return Ok(view),
            Err(error) if error.is_transient() => error.into(),
            Err(error) => return Err(error.into()),
        };
        if tries == TRIES {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
