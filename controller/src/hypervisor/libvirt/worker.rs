//! Makes calls that may block for ever on threads of their own, each with a deadline. It knows nothing of libvirt.
//!
//! A call that is not back in time keeps its thread until it is, and its caller waits no longer. One thread is out at a
//! time: the next call waits for it within its own deadline, and then says so. A hypervisor that hangs cannot eat the
//! process that way; and two calls never meet on one connection, which libvirt's client does not survive (up to 10.3 it
//! leaves a source of its event loop behind, on the stack of a thread that is gone: CVE-2024-4418).

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

#[derive(Debug, Clone)]
pub(super) struct Workers {
    free: Arc<Semaphore>,
}

/// The reason why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It did not come within the deadline: the call may yet do its work.
    Late,
    /// The call was not even begun: the one before it hangs.
    Stuck,
    /// No thread could be made for the call.
    NoThread,
    /// The call panicked half way.
    Died,
}

impl Workers {
    pub(super) fn new() -> Self {
        Self { free: Arc::new(Semaphore::new(1)) }
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let began = Instant::now();
        let free = tokio::time::timeout(deadline, Arc::clone(&self.free).acquire_owned()).await;
        let Ok(Ok(permit)) = free else { return Err(NoAnswer::Stuck) };
        let answer = on_own_thread("zsha-call", move || {
            // Held by the thread and not by who waits: a thread that hangs is out for as long as it hangs.
            let _permit = permit;
            call()
        })
        .map_err(|_| NoAnswer::NoThread)?;
        match tokio::time::timeout(deadline.saturating_sub(began.elapsed()), answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(NoAnswer::Died),
            Err(_) => Err(NoAnswer::Late),
        }
    }
}

/// Begins `call` on a thread that is never joined. The answer comes, or the sender is dropped by a panic.
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
    async fn behind_a_call_that_hangs_the_next_waits_its_deadline_and_runs_once_it_is_back() {
        let workers = Workers::new();
        let (release, wait) = mpsc::channel::<()>();
        let late = workers.run(Duration::from_millis(20), move || wait.recv().is_ok()).await;
        assert_eq!(late, Err(NoAnswer::Late));
        assert_eq!(workers.run(Duration::from_millis(20), || 1).await, Err(NoAnswer::Stuck));
        drop(release);
        assert_eq!(workers.run(Duration::from_secs(60), || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn two_calls_are_never_out_at_once() {
        let (workers, out) = (Workers::new(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
        let call = || {
            let out = Arc::clone(&out);
            workers.run(Duration::from_secs(60), move || {
                let before = out.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                thread::yield_now();
                out.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                before
            })
        };
        let (a, b, c) = tokio::join!(call(), call(), call());
        assert_eq!([a, b, c], [Ok(0), Ok(0), Ok(0)]);
    }

    #[tokio::test]
    async fn a_panic_in_a_call_is_told_and_gives_its_place_back() {
        let workers = Workers::new();
        for _ in 0..3 {
            let died = workers.run(Duration::from_secs(60), || panic!("told by the test")).await;
            assert_eq!(died, Err::<(), _>(NoAnswer::Died));
        }
    }
}
