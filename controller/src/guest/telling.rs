//! Tells the guest its configuration through its agent, beside the passes: an agent may be slow, hang, or not be there.
//!
//! A pass says what the guest that runs here is to be told. The guest is told when that begins, and whenever anything
//! happens to the VM, since then it may have booted anew; the guest itself knows whether it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use zsha_crds::VmName;

use super::GuestConfig;
use super::agent::{self, Told};
use crate::hypervisor::{GuestRan, HypervisorError};

/// The pause between two tries. The coming of the agent is an event, so this is for what nobody tells of.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(60);

/// The configuration that a guest which runs here is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub vm: VmName,
    pub config: GuestConfig,
}

/// The state that passes share with the task that tells the guest.
#[derive(Debug, Default)]
pub struct Telling {
    wanted: watch::Sender<Option<Arc<Ask>>>,
    last: Mutex<Option<(Arc<Ask>, Told)>>,
}

impl Telling {
    /// Sets what the guest is to be told; None where nothing that runs here is this node's to tell.
    pub fn want(&self, ask: Option<Ask>) {
        let gone = ask.is_none();
        self.wanted.send_if_modified(|wanted| {
            let differs = wanted.as_deref() != ask.as_ref();
            if differs {
                *wanted = ask.map(Arc::new);
            }
            differs
        });
        if gone {
            *self.lock() = None;
        }
    }

    /// The result of the last try, where that was to tell what is wanted now.
    pub fn told(&self) -> Option<Told> {
        let wanted = self.wanted.borrow().clone()?;
        self.lock().as_ref().filter(|(ask, _)| *ask == wanted).map(|(_, told)| told.clone())
    }

    /// Puts a result in place; returns true if it differs from the one before.
    fn put(&self, ask: &Arc<Ask>, told: Told) -> bool {
        // Something else is wanted by now, or nothing: the result says nothing of that.
        if self.wanted.borrow().as_ref() != Some(ask) {
            return false;
        }
        let mut last = self.lock();
        let before = last.as_ref().filter(|(asked, _)| asked == ask).map(|(_, told)| told);
        // A guest that had been told already in this boot is no event; one that was told in another boot is.
        let same = match (before, &told) {
            (_, Told::Applied { anew: true, .. }) => false,
            (Some(Told::Applied { id: before, .. }), Told::Applied { id, .. }) => before == id,
            (before, told) => before == Some(told),
        };
        if !same {
            *last = Some((Arc::clone(ask), told));
        }
        !same
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Arc<Ask>, Told)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the guest, for ever. `run` has a script run in the guest, `changes` moves whenever anything may have happened
/// to the VM, and `news` hears of every result that differs from the one before.
pub async fn tell<Running>(
    telling: &Telling,
    run: impl Fn(String) -> Running,
    mut changes: watch::Receiver<u64>,
    news: impl Fn(&Told),
) where
    Running: Future<Output = Result<GuestRan, HypervisorError>>,
{
    let mut wanted = telling.wanted.subscribe();
    let mut wait = FIRST;
    loop {
        let ask = wanted.borrow_and_update().clone();
        changes.borrow_and_update();
        let mut again = None;
        if let Some(ask) = ask {
            let told = Told::of(run(agent::script(&ask.vm, &ask.config)).await);
            if !told.is_settled() {
                again = Some(wait);
            }
            if telling.put(&ask, told.clone()) {
                news(&told);
            }
        }
        let later = async {
            match again {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = wanted.changed() => wait = FIRST,
            _ = changes.changed() => wait = FIRST,
            () = later => wait = (wait * 2).min(LONGEST),
        }
    }
}

#[cfg(test)]
mod tests;
