//! Bugs planted on purpose, by name. They show that the tests and the simulator find what they are there to find. In a
//! build for production there are none, and the compiler removes every question after them.

#[cfg(any(test, feature = "planted"))]
use std::cell::Cell;

/// The environment variable that tells a test's process which bug is planted in it, on every thread that it has.
pub const VARIABLE: &str = "ZSHA_PLANTED";

#[cfg(any(test, feature = "planted"))]
thread_local! {
    static PLANTED: Cell<Option<&'static str>> = Cell::new(of_this_process());
}

/// The bug of this process. It is read once, since a process has many threads.
#[cfg(any(test, feature = "planted"))]
fn of_this_process() -> Option<&'static str> {
    use std::sync::OnceLock;
    static OF_THIS_PROCESS: OnceLock<Option<String>> = OnceLock::new();
    OF_THIS_PROCESS.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref()
}

/// Plants the bug on this thread, or takes it away.
#[cfg(any(test, feature = "planted"))]
pub fn plant(bug: Option<&'static str>) {
    PLANTED.with(|planted| planted.set(bug));
}

#[cfg(any(test, feature = "planted"))]
pub fn is_planted(bug: &str) -> bool {
    PLANTED.with(|planted| planted.get() == Some(bug))
}

#[cfg(not(any(test, feature = "planted")))]
#[inline]
pub const fn is_planted(_: &str) -> bool {
    false
}
