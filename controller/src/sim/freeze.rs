//! Stops a process where it is, between any two of its steps, and lets it go on later as if no time had passed for it.
//! Its clock has moved on meanwhile, and so has the world.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

/// The part of a node that is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Controller,
    /// The keeper's loop that renews and answers; not the thread that enforces, which is never late by more than K.
    Renewing,
    /// The thread that enforces. It is stopped only with its whole host.
    Enforcing,
}

/// Holds the process that runs under it, or lets the process go on.
#[derive(Debug, Default)]
pub struct Frost {
    frozen: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

impl Frost {
    pub fn freeze(&self, frozen: bool) {
        self.frozen.store(frozen, Ordering::SeqCst);
        if frozen {
            return;
        }
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    pub async fn over(self: Arc<Self>, process: impl Future<Output = ()>) {
        let mut process = pin!(process);
        std::future::poll_fn(|context| {
            if self.frozen.load(Ordering::SeqCst) {
                let waker = context.waker().clone();
                *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
                return Poll::Pending;
            }
            process.as_mut().poll(context)
        })
        .await;
    }
}
