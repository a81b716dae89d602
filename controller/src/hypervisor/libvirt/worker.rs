//! Calls that may block for ever, on threads of their own, each with a deadline. Knows nothing of libvirt.
//!
//! A call that is not back in time keeps its thread until it is, and nobody waits for it any more. So that a
//! hypervisor that hangs cannot eat the process, only so many threads may be out at once; the next call fails at
//! once and says so.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};

/// How many calls may hang at once. One VM is looked at and acted on by one loop, so two is a crowd; with the
/// connection's keepalive a call that hangs with its daemon comes back, failed, within seconds.
const MOST_AT_ONCE: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct Workers {
    free: Arc<Semaphore>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// Not within the deadline: the call may yet do its work.
    Late,
    /// It was not even begun: too many others hang.
    AllStuck,
    /// No thread could be made for it.
    NoThread,
    /// It panicked half way.
    Died,
}

impl Workers {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(MOST_AT_ONCE)) }
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| NoAnswer::AllStuck)?;
        let answer = on_own_thread("zsha-call", move || {
            // Held by the thread and not by who waits: a thread that hangs is out for as long as it hangs.
            let _permit = permit;
            call()
        })
        .map_err(|_| NoAnswer::NoThread)?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(NoAnswer::Died),
            Err(_) => Err(NoAnswer::Late),
        }
    }
}

/// Begins `call` on a thread that nobody joins; the answer comes, or the sender is dropped by a panic.
pub(super) fn on_own_thread<T: Send + 'static>(
    name: &str,
    call: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<oneshot::Receiver<T>> {
    let (tell, answer) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Who asked may have stopped waiting; then the answer is for nobody.
        drop(tell.send(call()));
    })?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_call_that_hangs_costs_its_deadline_and_no_more() {
        let (release, wait) = mpsc::channel::<()>();
        let late = Workers::new().run(Duration::from_millis(20), move || wait.recv()).await;
        assert_eq!(late, Err(NoAnswer::Late));
        drop(release);
    }

    #[tokio::test]
    async fn so_many_may_hang_and_their_threads_come_back() {
        let workers = Workers::new();
        let mut releases = Vec::new();
        for _ in 0..MOST_AT_ONCE {
            let (release, wait) = mpsc::channel::<()>();
            releases.push(release);
            assert_eq!(workers.run(Duration::ZERO, move || wait.recv().is_ok()).await, Err(NoAnswer::Late));
        }
        assert_eq!(workers.run(Duration::from_secs(60), || 1).await, Err(NoAnswer::AllStuck));
        drop(releases);
        drop(workers.free.acquire().await.unwrap());
        assert_eq!(workers.run(Duration::from_secs(60), || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_panic_in_a_call_is_told_and_gives_its_place_back() {
        let workers = Workers::new();
        for _ in 0..2 * MOST_AT_ONCE {
            let died = workers.run(Duration::from_secs(60), || panic!("told by the test")).await;
            assert_eq!(died, Err::<(), _>(NoAnswer::Died));
            drop(workers.free.acquire_many(u32::try_from(MOST_AT_ONCE).unwrap()).await.unwrap());
        }
    }
}
