//! The share of its host that this process may have. The process raises its limits as far as it is allowed to, so that
//! it does not depend on what started it: a controller that cannot open a file sees nothing, and a keeper that cannot
//! kills nothing.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of descriptors: far more than either needs. A library that closes every descriptor before it runs a
/// program takes its time with more.
const ENOUGH: u64 = 65_536;

/// Raises how many descriptors may be open as far as an ordinary user may, up to what is enough.
pub fn take_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let Some(wanted) = raised(limit.current, limit.maximum) else { return };
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => tracing::debug!(wanted, "open files"),
        Err(error) => tracing::warn!(%error, wanted, "the limit of open files stays as it is"),
    }
}

/// The limit to set. None where it is right as it is. A limit of None is no limit.
fn raised(current: Option<u64>, maximum: Option<u64>) -> Option<u64> {
    let wanted = maximum.unwrap_or(u64::MAX).min(ENOUGH);
    current.filter(|current| *current < wanted).map(|_| wanted)
}

/// The number of descriptors that may be open.
pub fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// True if an error says only that this process, or this host, has none left of what a question takes: then the
/// question was not asked.
pub fn is_a_lack(error: &io::Error) -> bool {
    let lack = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    Errno::from_io_error(error).is_some_and(|errno| lack.contains(&errno))
}

/// The number of calls that may block at a time: the looks of one pass, and some that hang.
const BLOCKING_THREADS: usize = 16;
/// A time longer than any host is up.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Makes a runtime. One thread for calls that may block is there from the start and stays: where no more is to be had,
/// a call waits for that one, within its own deadline. Without any, tokio would end the process.
pub fn runtime(thread_stack: usize) -> io::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(thread_stack)
        .thread_keep_alive(FOR_EVER)
        .build()?;
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_to_what_is_allowed_and_enough_and_never_lowered() {
        assert_eq!(raised(Some(1024), Some(524_288)), Some(ENOUGH));
        assert_eq!(raised(Some(1024), None), Some(ENOUGH));
        assert_eq!(raised(Some(256), Some(4096)), Some(4096));
        for right in [Some(ENOUGH), Some(1 << 20), None] {
            assert_eq!(raised(right, None), None);
        }
        assert_eq!(raised(Some(4096), Some(4096)), None);
    }
}
