//! Waits for a state, with a deadline: the only way in which a test here lets time pass.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// The pause between two looks at a state: small against everything that is measured, large against the cost of a look.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `look` sees what it waits for, at most for `limit`.
///
/// `Ok(None)` and `Err` both mean "not yet"; the last error is part of the message when the time is over, so that a
/// test says what was in the way and not only that it waited.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let reason = match look() {
            Ok(Some(seen)) => return Ok(seen),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= limit {
            match reason {
                Some(error) => bail!("not within {limit:?}: {what}; the last look failed: {error:#}"),
                None => bail!("not within {limit:?}: {what}"),
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Keeps looking for `span` and fails as soon as `look` says what is wrong: for states that have to *stay*.
pub fn stays(what: &str, span: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(error) = look() {
            bail!("did not last {span:?}, only {:?}: {what}: {error:#}", start.elapsed());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}
