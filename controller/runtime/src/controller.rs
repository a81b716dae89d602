//! Runs `reconcile` for a key whenever something may have changed, and again when it asked to be called. It knows
//! nothing of what is reconciled, keeps no state of it, and never runs one key twice at a time.
//!
//! What `reconcile` may rely on:
//!
//! - A wake-up carries no data: it says which key, never what happened. Look at the world as it is.
//! - After a change there is a run that began later. A change during a run starts another right after it.
//! - Changes that come together are one run; every key is run again after `max_delay` at the latest, changes or not.
//! - On shutdown no run begins, and one under way is finished.
//!
//! What callers must ensure: the stream that [`Controller::run`] returns is polled; runs go on inside it, on the
//! caller's task. `reconcile` ends in bounded time.

use std::fmt;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures::{Stream, StreamExt};
use tokio::time::Instant;

use crate::queue::Queue;
use crate::store::StoreError;
use crate::watcher::Event;

/// The safety net: a change that no wake-up told of is seen after this at the latest.
pub const DEFAULT_MAX_DELAY: Duration = Duration::from_secs(30);

/// The wish of a run: when it is to be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action {
    after: Option<Duration>,
}

impl Action {
    /// Asks to be run again after this, or at the next change, whichever comes first.
    pub fn requeue(after: Duration) -> Self {
        Self { after: Some(after) }
    }

    /// Asks to be run again at the next change (and by the safety net).
    pub fn await_change() -> Self {
        Self { after: None }
    }

    /// The delay asked for.
    pub fn after(&self) -> Option<Duration> {
        self.after
    }
}

/// An error in a watched stream or in a run.
#[derive(Debug, thiserror::Error)]
pub enum Error<K: fmt::Debug, E: std::error::Error + 'static> {
    /// A watched stream told of an error. It goes on by itself.
    #[error("cannot watch")]
    Watch(#[source] StoreError),
    /// A run failed; `error_policy` has said when it is run again.
    #[error("cannot reconcile {key:?}")]
    Reconcile { key: K, source: E },
}

/// A wake-up, or a watched stream's error.
type Trigger<K> = Result<K, StoreError>;

/// The runner of one kind of key: first it is told what wakes it, then [`Controller::run`] runs it.
pub struct Controller<K> {
    triggers: SelectAll<BoxStream<'static, Trigger<K>>>,
    shutdown: BoxFuture<'static, ()>,
    max_delay: Duration,
    concurrency: usize,
}

impl<K> fmt::Debug for Controller<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("triggers", &self.triggers.len()).finish_non_exhaustive()
    }
}

impl<K: Ord + Clone + fmt::Debug + Send + 'static> Default for Controller<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone + fmt::Debug + Send + 'static> Controller<K> {
    pub fn new() -> Self {
        Self {
            triggers: SelectAll::new(),
            shutdown: future::pending().boxed(),
            max_delay: DEFAULT_MAX_DELAY,
            concurrency: 1,
        }
    }

    /// Runs the key that `keys` makes of a watcher's event, if it makes one. Bookmarks cause no run.
    pub fn watches(
        mut self,
        stream: impl Stream<Item = Result<Event, StoreError>> + Send + 'static,
        keys: impl Fn(&Event) -> Option<K> + Send + 'static,
    ) -> Self {
        let triggers = stream.filter_map(move |item| {
            future::ready(match item {
                Ok(Event::Bookmark) => None,
                Ok(event) => keys(&event).map(Ok),
                Err(error) => Some(Err(error)),
            })
        });
        self.triggers.push(triggers.boxed());
        self
    }

    /// Runs each key that the stream brings.
    pub fn reconcile_on(mut self, stream: impl Stream<Item = K> + Send + 'static) -> Self {
        self.triggers.push(stream.map(Ok).boxed());
        self
    }

    /// Makes the runner end when this does, once the run under way is finished.
    pub fn graceful_shutdown_on(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = shutdown.boxed();
        self
    }

    /// No key that has been run waits longer than this for its next run.
    pub fn max_delay(mut self, max_delay: Duration) -> Self {
        self.max_delay = max_delay;
        self
    }

    /// The number of keys that may be run side by side; 1 unless set.
    pub fn concurrency(mut self, keys: usize) -> Self {
        self.concurrency = keys.max(1);
        self
    }

    /// The results of all runs, as they end. The stream ends after the shutdown, or when every trigger has ended and
    /// every run asked for no other.
    pub fn run<C, E, F>(
        self,
        reconcile: impl Fn(K, Arc<C>) -> F + Send + 'static,
        error_policy: impl Fn(&K, &E, &C) -> Action + Send + 'static,
        context: Arc<C>,
    ) -> impl Stream<Item = Result<(K, Action), Error<K, E>>> + Send + 'static
    where
        C: Send + Sync + 'static,
        E: std::error::Error + Send + 'static,
        F: Future<Output = Result<Action, E>> + Send + 'static,
    {
        let runner = Runner {
            controller: self,
            queue: Queue::new(),
            runs: FuturesUnordered::new(),
            stopping: false,
            start: Box::new({
                let context = context.clone();
                move |key: K| {
                    let run = reconcile(key.clone(), context.clone());
                    async move { (key, run.await) }.boxed()
                }
            }),
            policy: Box::new(move |key: &K, error: &E| error_policy(key, error, &context)),
        };
        futures::stream::unfold(runner, |mut runner| async move {
            let item = runner.next().await?;
            Some((item, runner))
        })
    }
}

type Policy<K, E> = Box<dyn Fn(&K, &E) -> Action + Send>;
type Run<K, E> = BoxFuture<'static, (K, Result<Action, E>)>;

struct Runner<K, E> {
    controller: Controller<K>,
    queue: Queue<K>,
    runs: FuturesUnordered<Run<K, E>>,
    stopping: bool,
    start: Box<dyn Fn(K) -> Run<K, E> + Send>,
    policy: Policy<K, E>,
}

/// The reason why the runner woke up.
enum Woken<K, E> {
    Shutdown,
    Ended(K, Result<Action, E>),
    Trigger(Trigger<K>),
    Due,
}

impl<K, E> Runner<K, E>
where
    K: Ord + Clone + fmt::Debug + Send + 'static,
    E: std::error::Error + 'static,
{
    /// The next result; none once all is over.
    async fn next(&mut self) -> Option<Result<(K, Action), Error<K, E>>> {
        loop {
            self.start_due();
            if self.is_over() {
                return None;
            }
            match self.wake().await {
                Woken::Shutdown => self.stopping = true,
                Woken::Due => {}
                Woken::Trigger(Ok(key)) => self.queue.add(key, Instant::now()),
                Woken::Trigger(Err(error)) => return Some(Err(Error::Watch(error))),
                Woken::Ended(key, result) => return Some(self.ended(key, result)),
            }
        }
    }

    fn start_due(&mut self) {
        while !self.stopping && self.runs.len() < self.controller.concurrency {
            let Some(key) = self.queue.take(Instant::now()) else { return };
            self.runs.push((self.start)(key));
        }
    }

    fn is_over(&self) -> bool {
        let no_more = self.stopping || (self.controller.triggers.is_empty() && self.queue.is_idle());
        no_more && self.runs.is_empty()
    }

    async fn wake(&mut self) -> Woken<K, E> {
        let may_start = !self.stopping && self.runs.len() < self.controller.concurrency;
        let due = self.queue.next_due().filter(|_| may_start);
        let timer = async {
            match due {
                Some(moment) => tokio::time::sleep_until(moment).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut self.controller.shutdown, if !self.stopping => Woken::Shutdown,
            Some((key, result)) = self.runs.next() => Woken::Ended(key, result),
            Some(trigger) = self.controller.triggers.next(), if !self.stopping => Woken::Trigger(trigger),
            () = timer => Woken::Due,
        }
    }

    fn ended(&mut self, key: K, result: Result<Action, E>) -> Result<(K, Action), Error<K, E>> {
        let action = match &result {
            Ok(action) => *action,
            Err(error) => (self.policy)(&key, error),
        };
        self.queue.done(&key);
        // With nothing left to wake it, a key that awaits a change has had its last run.
        let has_triggers = !self.controller.triggers.is_empty();
        if has_triggers || action.after.is_some() {
            let delay = action.after.unwrap_or(self.controller.max_delay).min(self.controller.max_delay);
            self.queue.add(key.clone(), Instant::now() + delay);
        }
        match result {
            Ok(action) => Ok((key, action)),
            Err(source) => Err(Error::Reconcile { key, source }),
        }
    }
}

#[cfg(test)]
mod tests;
