//! The work queue: which key is to be run, and when. A key is in it once, however often it was added, and is never
//! handed out while it is being run. It takes `now` and never waits.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

/// The keys to run. Of two additions the earlier moment counts.
#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeMap<K, Instant>,
    running: BTreeSet<K>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), running: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Queue<K> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the key is to be run at `at`, or before if it already was to be. A key that is being run is run again
    /// after.
    pub fn add(&mut self, key: K, at: Instant) {
        let due = self.due.entry(key).or_insert(at);
        *due = at.min(*due);
    }

    /// Takes the key that has been due longest and is not being run. It counts as being run from now on.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let (key, at) = self.first()?;
        if at > now {
            return None;
        }
        let key = key.clone();
        self.due.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// Says that the run of the key is over.
    pub fn done(&mut self, key: &K) {
        self.running.remove(key);
    }

    /// The moment when [`Queue::take`] will next have something, as far as is known now.
    pub fn next_due(&self) -> Option<Instant> {
        self.first().map(|(_, at)| at)
    }

    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// True if nothing is to be run and nothing is being run.
    pub fn is_idle(&self) -> bool {
        self.due.is_empty() && self.running.is_empty()
    }

    fn first(&self) -> Option<(&K, Instant)> {
        self.due
            .iter()
            .filter(|(key, _)| !self.running.contains(key))
            .min_by_key(|(_, at)| **at)
            .map(|(key, at)| (key, *at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_key_added_often_is_run_once_and_at_its_earliest_moment() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.add("a", now + 5 * SECOND);
        queue.add("a", now + SECOND);
        queue.add("a", now + 9 * SECOND);
        assert_eq!(queue.next_due(), Some(now + SECOND));
        assert_eq!(queue.take(now), None);
        assert_eq!(queue.take(now + SECOND), Some("a"));
        assert_eq!(queue.take(now + 20 * SECOND), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_runs_is_run_again_after_and_not_beside() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a", now);
        assert_eq!((queue.take(now), queue.next_due()), (None, None));
        queue.done(&"a");
        assert_eq!(queue.take(now), Some("a"));
        queue.done(&"a");
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_that_is_due_longest_comes_first() {
        let now = Instant::now();
        let mut queue = Queue::new();
        queue.add("a", now + 2 * SECOND);
        queue.add("b", now + SECOND);
        queue.add("c", now + SECOND);
        let later = now + 3 * SECOND;
        let order: Vec<_> = std::iter::from_fn(|| queue.take(later)).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }
}
