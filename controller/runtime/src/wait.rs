//! Waits for one key to be as wished. It never waits for a time instead of a state, and never takes a failure to look
//! for an answer.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{Backoff, BackoffConfig};
use crate::store::{Entry, Read, Store, StoreError};

/// One look waits this long for a change, so that a dead path is noticed.
const LOOK: Duration = Duration::from_secs(30);

/// The shortest time between two looks: an absent key is woken by every write in the datacenter.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WaitError {
    /// The key was not as wished in time. `last` is how it was, as far as it could be seen.
    #[error("timed out after {waited:?} waiting for {key}")]
    TimedOut { key: String, waited: Duration, last: Option<Entry>, source: Option<StoreError> },
    /// A refusal, for which waiting longer would not help.
    #[error("cannot wait for {key}")]
    Refused { key: String, source: StoreError },
}

/// Returns once `condition` holds for the key's entry (none if it is absent), with that entry.
pub async fn await_condition(
    store: &dyn Store,
    key: &str,
    condition: impl Fn(Option<&Entry>) -> bool,
    timeout: Duration,
) -> Result<Option<Entry>, WaitError> {
    let mut look = Look::new(store, key);
    let waiting = async {
        loop {
            if let Some(seen) = look.next().await? {
                if condition(seen.as_ref()) {
                    return Ok(seen);
                }
                look.last = seen;
            }
        }
    };
    match tokio::time::timeout(timeout, waiting).await {
        Ok(Ok(entry)) => Ok(entry),
        Ok(Err(source)) => Err(WaitError::Refused { key: key.to_owned(), source }),
        Err(_) => {
            let Look { last, error, .. } = look;
            Err(WaitError::TimedOut { key: key.to_owned(), waited: timeout, last, source: error })
        }
    }
}

struct Look<'a> {
    store: &'a dyn Store,
    key: &'a str,
    /// The index to wait beyond. None before the first look, which is a consistent read.
    after: Option<u64>,
    backoff: Backoff,
    not_before: Option<Instant>,
    last: Option<Entry>,
    error: Option<StoreError>,
}

impl<'a> Look<'a> {
    fn new(store: &'a dyn Store, key: &'a str) -> Self {
        let backoff = Backoff::new(BackoffConfig::default(), 0);
        Self { store, key, after: None, backoff, not_before: None, last: None, error: None }
    }

    /// The entry as it is now. None if this look failed, and another may not.
    async fn next(&mut self) -> Result<Option<Option<Entry>>, StoreError> {
        if let Some(moment) = self.not_before.take() {
            tokio::time::sleep_until(moment).await;
        }
        match self.look().await {
            Ok(entry) => {
                self.backoff.reset();
                self.error = None;
                self.not_before = Some(Instant::now() + PAUSE);
                Ok(Some(entry))
            }
            Err(error) if error.is_transient() => {
                self.not_before = Some(Instant::now() + self.backoff.next_delay());
                self.after = None;
                self.error = Some(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn look(&mut self) -> Result<Option<Entry>, StoreError> {
        let Some(after) = self.after else {
            let entry = self.store.get(self.key, Read::Consistent).await?;
            self.after = Some(1);
            return Ok(entry);
        };
        let listing = self.store.watch(self.key, after, LOOK).await?;
        // An index that went back is simply the one to go on from.
        self.after = Some(listing.index);
        Ok(listing.entries.into_iter().next())
    }
}

#[cfg(test)]
mod tests;
