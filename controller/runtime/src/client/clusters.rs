//! Finds which clusters a store holds, for a client that was told none.

use zsha_crds::ClusterName;

use super::ReadError;
use crate::store::{Read, Store};

/// Every cluster's keys are below this.
const ALL: &str = "zsha/";

/// Why there is not exactly one cluster to be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// The names are in the order of their keys; there are at least two.
    #[error("the store holds several clusters")]
    Several(Vec<ClusterName>),
    /// There is none, or the token may not read it: the store's answer is the same.
    #[error("no cluster is to be seen in the store")]
    NoneSeen,
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The only cluster there is.
pub async fn the_only(store: &dyn Store) -> Result<ClusterName, ClusterError> {
    let mut clusters = all(store).await?;
    match (clusters.pop(), clusters.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(last), false) => {
            clusters.push(last);
            Err(ClusterError::Several(clusters))
        }
        (None, _) => Err(ClusterError::NoneSeen),
    }
}

/// Every cluster that has a key, in the order of the keys.
pub async fn all(store: &dyn Store) -> Result<Vec<ClusterName>, ReadError> {
    let listing = match store.list(ALL, Read::Consistent).await {
        // A name is no more true for being confirmed: without a leader a client is to get as far as saying so.
        Err(error) if error.is_transient() => store.list(ALL, Read::Stale).await.map_err(|_| error),
        other => other,
    }
    .map_err(ReadError::while_doing("looking for the clusters"))?;
    let names = listing.entries.iter().filter_map(|entry| entry.key.strip_prefix(ALL)?.split_once('/'));
    let mut clusters: Vec<_> = names.filter_map(|(name, _)| ClusterName::new(name).ok()).collect();
    clusters.dedup();
    Ok(clusters)
}
