//! Makes calls of the kernel that may hang. A caller waits for a bounded time, and a call that hangs costs one thread,
//! however often it is made again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

/// A thread for calls that ask the same thing: only one of them is under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct OneThread {
    /// Held by the work itself, also when nobody waits for it any more.
    busy: Arc<Mutex<()>>,
}

impl OneThread {
    /// Waits so long for its turn, and as long again for the work. An error is a sentence: nothing is known.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let hangs = |_| format!("no answer within {} s", within.as_secs());
        let turn = tokio::time::timeout(within, Arc::clone(&self.busy).lock_owned()).await.map_err(hangs)?;
        let working = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        let done = tokio::time::timeout(within, working).await.map_err(hangs)?;
        done.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn what_hangs_is_begun_once_and_the_next_is_done_once_it_has_ended() {
        let one = OneThread::default();
        let begun = Arc::new(AtomicU32::new(0));
        let (end, hanging) = mpsc::channel::<()>();
        let count = Arc::clone(&begun);
        let hangs = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _ = hanging.recv();
        };
        assert_eq!(one.run(SHORT, hangs).await, Err("no answer within 0 s".to_owned()));
        for _ in 0..3 {
            let count = Arc::clone(&begun);
            let more = move || count.fetch_add(1, Ordering::SeqCst);
            assert!(one.run(SHORT, more).await.is_err());
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        drop(end);
        assert_eq!(one.run(Duration::from_secs(60), || 7).await, Ok(7));
    }
}
