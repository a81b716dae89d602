//! What the change of one lease costs the views of a node: a store with the records of a settled cluster in which nobody
//! else writes, and one lease in it that is renewed again and again.

use std::sync::Arc;
use std::task::Poll;

use anyhow::{Context as _, ensure};
use futures::{StreamExt, stream};
use zsha_controller::views::{self, Reader};
use zsha_crds::Keys;
use zsha_crds::records::LeaseRecord;
use zsha_runtime::store::{MemoryStore, Op, Store};

use crate::ROUNDS;
use crate::cluster::{CLOCK, Counting, Settled};
use crate::figures::{Figures, Span};

pub(crate) fn measure(settled: &Settled, figures: &mut Figures) -> anyhow::Result<()> {
    let store = MemoryStore::new();
    store.restore(settled.store().snapshot());
    // The time between two looks is not waited for: the runtime's clock is moved on as soon as nothing is left to do.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(renewals(settled, store, figures))
}

async fn renewals(settled: &Settled, store: MemoryStore, figures: &mut Figures) -> anyhow::Result<()> {
    let leases = Keys::new(settled.cluster()).leases();
    let listing = store.read_all(&leases);
    let entry = listing.entries.last().context("nobody has a lease")?;
    let (key, mut index) = (entry.key.clone(), entry.modify_index);
    let mut lease: LeaseRecord = serde_json::from_str(&entry.value)?;
    let counting = Arc::new(Counting::new(store.clone()));
    let reader = Reader { me: lease.node.clone(), reads: u32::MAX };
    let shared = Arc::clone(&counting) as Arc<dyn Store>;
    let watched = views::watch(&shared, settled.cluster(), CLOCK, 0, reader);
    let mut changes = stream::select_all(watched.changes);
    // Polls the watchers until one of them has taken an answer in and asks anew.
    let mut until_asked = async |requests: u64| {
        std::future::poll_fn(|context| {
            while changes.poll_next_unpin(context).is_ready() {}
            if counting.asked().requests < requests { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        counting.asked().requests
    };
    // Each of the five watchers lists once, and then asks to be told.
    let mut requests = until_asked(10).await;
    for _ in 0..ROUNDS {
        lease.seq += 1;
        let ops = [Op::Cas { key: key.clone(), value: serde_json::to_string(&lease)?, index }];
        ensure!(store.apply(&ops)?.committed(), "somebody else writes");
        index = store.index_of(&key).context("the lease is gone")?;
        let span = Span::of_thread();
        let spent = loop {
            // Another watcher may ask anew first, since its wait is over.
            requests = until_asked(requests + 1).await;
            let spent = span.end();
            if watched.views.sights().get(&lease.node).is_some_and(|sight| sight.index == index) {
                break spent;
            }
        };
        figures.spent("watch: a lease is renewed", settled.nodes(), spent);
    }
    Ok(())
}
