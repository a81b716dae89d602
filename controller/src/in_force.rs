//! Which document is in force on this node: the one of the highest generation that was seen and can be used, whatever
//! became of the key since; and what is wrong with the stored one, where that is another.
//!
//! Values only: it reads no store. [`super::views`] shows it what the key holds, [`super::observe`] what the history
//! has.

use std::fmt;
use std::sync::Arc;

use zsha_crds::decode::decode_value;
use zsha_crds::diagnostic::Diagnostics;
use zsha_crds::records::{EventType, HistoryRecord, StoredSpec};
use zsha_crds::{ClusterName, HaCluster};
use zsha_runtime::store::Entry;

use crate::desired::Desired;

#[cfg(test)]
mod tests;

/// So many faults of a document are told in one sentence; `zsha check-config` tells all of them.
const FAULTS_TOLD: usize = 3;

/// A document as stored, and what it means here.
#[derive(Debug, Clone)]
pub struct Document {
    pub stored: StoredSpec,
    pub desired: Arc<Desired>,
}

impl Document {
    /// Of the key's value, or why it cannot be used.
    pub fn read(value: &str, cluster: &ClusterName) -> Result<Self, String> {
        let stored = serde_json::from_str(value)
            .map_err(|error| format!("it cannot be read, perhaps since a newer zsha wrote it: {error}"))?;
        Self::of(stored, cluster)
    }

    fn of(stored: StoredSpec, cluster: &ClusterName) -> Result<Self, String> {
        let decoded: HaCluster = decode_value(&stored.document).map_err(|faults| first_of(&faults))?;
        if decoded.name() != cluster {
            return Err(format!("it is for cluster '{}' and lies under '{cluster}'", decoded.name()));
        }
        let desired = Arc::new(Desired::from_document(&decoded, stored.generation));
        Ok(Self { stored, desired })
    }

    fn generation(&self) -> u64 {
        self.stored.generation
    }
}

fn first_of(faults: &Diagnostics) -> String {
    let told: Vec<_> = faults.errors().map(|fault| fault.message.as_str()).collect();
    let more = match told.len().saturating_sub(FAULTS_TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("{}{more}", told[..told.len().min(FAULTS_TOLD)].join("; "))
}

/// The document of the newest of these records of the history that can be used.
pub fn newest_usable(history: &[Entry], cluster: &ClusterName) -> Option<Document> {
    let mut records: Vec<HistoryRecord> =
        history.iter().filter_map(|entry| serde_json::from_str(&entry.value).ok()).collect();
    records.sort_by_key(|record| record.generation);
    records.into_iter().rev().find_map(|record| {
        let HistoryRecord { generation, document, applied_by, applied_at, message, command: _ } = record;
        Document::of(StoredSpec { generation, document, applied_by, applied_at, message }, cluster).ok()
    })
}

/// What the key of the document shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    NotReadYet,
    Nothing,
    /// A document of this generation.
    Generation(u64),
    /// At this index something that cannot be used.
    Bad {
        index: u64,
        why: String,
    },
}

/// Why the stored document is not the one in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpecProblem {
    /// It cannot be used. `recovered`: what is in force comes from the history.
    Invalid { why: String, recovered: bool },
    /// It is older than one that was in force: of a snapshot that was restored, or of a server that lags.
    Older { stored: u64, seen: u64 },
    /// Its key is gone.
    Gone,
}

impl SpecProblem {
    /// One word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "Invalid",
            Self::Older { .. } => "OlderGeneration",
            Self::Gone => "Gone",
        }
    }

    /// What happened, what to do about it, and what is in force meanwhile.
    pub fn told(&self, in_force: Option<u64>) -> String {
        let source = match self {
            Self::Invalid { recovered: true, .. } => ", from the history,",
            Self::Invalid { recovered: false, .. } | Self::Older { .. } | Self::Gone => "",
        };
        match in_force {
            Some(generation) => format!("{self}. Generation {generation}{source} stays in force"),
            None => format!("{self}. There is no earlier one to go on with"),
        }
    }
}

impl fmt::Display for SpecProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { why, recovered: _ } => {
                write!(
                    f,
                    "the stored document cannot be used: {why}. Apply one that can: `zsha apply -f FILE`"
                )
            }
            Self::Older { stored, seen } => write!(
                f,
                "the stored document is generation {stored}, and generation {seen} was in force here before: this \
                 node's Consul lags behind, or was put back to an older state. If it stays so, apply the document \
                 again: `zsha apply -f FILE`"
            ),
            Self::Gone => {
                write!(f, "the stored document was deleted. Apply it again: `zsha apply -f FILE`")
            }
        }
    }
}

/// What to tell of a change of the problem, where it did change: one word and a sentence.
pub fn news(
    before: Option<&SpecProblem>,
    now: Option<&SpecProblem>,
    in_force: Option<u64>,
) -> Option<(EventType, &'static str, String)> {
    match (before, now) {
        (before, now) if before == now => None,
        (_, Some(problem)) => Some((EventType::Warning, "SpecInvalid", problem.told(in_force))),
        (_, None) => {
            let generation = in_force.map(|generation| format!(" (generation {generation})"));
            let message = format!("the stored document is in force{}", generation.unwrap_or_default());
            Some((EventType::Normal, "SpecValid", message))
        }
    }
}

/// The document in force.
#[derive(Debug, Default)]
pub struct InForce {
    document: Option<Arc<Document>>,
    /// It comes from the history, not from the key.
    recovered: bool,
    /// For what stands at this index of the key the history has been looked at already.
    looked_up: Option<u64>,
}

impl InForce {
    pub fn document(&self) -> Option<&Arc<Document>> {
        self.document.as_ref()
    }

    /// Takes a document that was seen under the key, unless one of a higher generation was in force before: then the
    /// store went back in time, and what an operator has replaced does not come back by that.
    pub fn offer(&mut self, document: Arc<Document>) {
        if self.document.as_ref().is_none_or(|before| before.generation() <= document.generation()) {
            self.document = Some(document);
            self.recovered = false;
        }
    }

    /// The index of a bad document beside which there is nothing to go on with, and for which the history has not been
    /// looked at.
    pub fn needs_history(&self, shown: &Shown) -> Option<u64> {
        match shown {
            Shown::Bad { index, .. } if self.document.is_none() && self.looked_up != Some(*index) => {
                Some(*index)
            }
            Shown::Bad { .. } | Shown::NotReadYet | Shown::Nothing | Shown::Generation(_) => None,
        }
    }

    /// What the history had when it was looked at for the bad document of this index. Whether that is in force now.
    pub fn recover(&mut self, index: u64, document: Option<Document>) -> bool {
        self.looked_up = Some(index);
        match document {
            Some(document) if self.document.is_none() => {
                self.document = Some(Arc::new(document));
                self.recovered = true;
                true
            }
            Some(_) | None => false,
        }
    }

    pub fn problem(&self, shown: Shown) -> Option<SpecProblem> {
        let in_force = self.document.as_ref().map(|document| document.generation());
        match (shown, in_force) {
            (Shown::Bad { why, .. }, _) => Some(SpecProblem::Invalid { why, recovered: self.recovered }),
            (Shown::Generation(stored), Some(seen)) if stored < seen => {
                Some(SpecProblem::Older { stored, seen })
            }
            (Shown::Nothing, Some(_)) => Some(SpecProblem::Gone),
            (Shown::Generation(_) | Shown::Nothing | Shown::NotReadYet, _) => None,
        }
    }
}
