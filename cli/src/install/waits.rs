//! How long a node is given for what, and looking at it again until it is so.

use std::future::Future;
use std::time::Duration;

use super::ssh::SshError;

/// The time for a script that is over in a moment.
pub(crate) const SHORT: Duration = Duration::from_secs(30);
/// The time until Consul has a leader that a node follows: an election, and a server that comes in anew.
pub(crate) const CONSUL: Duration = Duration::from_secs(90);
/// The pause between two looks.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// Looks until it is so. A look that fails in a way that the next may not is looked past.
pub(crate) async fn until<T, Looking>(
    limit: Duration,
    mut look: impl FnMut() -> Looking,
) -> Result<T, SshError>
where
    Looking: Future<Output = Result<Option<T>, SshError>>,
{
    let looking = async {
        loop {
            match look().await {
                Ok(Some(seen)) => return Ok(seen),
                Ok(None) | Err(SshError::TooLong(_)) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error),
            }
        }
    };
    tokio::time::timeout(limit, looking).await.unwrap_or(Err(SshError::TooLong(limit)))
}
