//! Decides which document is in force on this node: the one of the highest generation that was seen and can be used,
//! whatever became of the key since. It also says what is wrong with the stored document, where that is another.
//!
//! It has values only, and reads no store: [`super::views`] shows it what the key holds, [`super::observe`] what the
//! history has.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use zsha_crds::decode::decode_value;
use zsha_crds::diagnostic::Diagnostics;
use zsha_crds::records::{HistoryRecord, NodeStatus, StoredSpec, brief};
use zsha_crds::{ClusterName, EventReason, HaCluster, NodeName, format};
use zsha_runtime::store::Entry;

use crate::desired::Desired;

#[cfg(test)]
mod tests;

/// The number of faults of a document that one sentence tells; `zsha check-config` tells all of them.
const FAULTS_TOLD: usize = 3;

/// A document as stored, and what it means here.
#[derive(Debug, Clone)]
pub struct Document {
    pub stored: StoredSpec,
    pub desired: Arc<Desired>,
}

impl Document {
    /// Reads the key's value, or says why it cannot be used. `reads`: the highest format this build reads.
    pub fn read(value: &str, cluster: &ClusterName, reads: u32) -> Result<Self, String> {
        let stored = StoredSpec::read(value)
            .map_err(|error| format!("it cannot be read, perhaps since a newer zsha wrote it: {error}"))?;
        Self::of(stored, cluster, reads)
    }

    fn of(stored: StoredSpec, cluster: &ClusterName, reads: u32) -> Result<Self, String> {
        if stored.format > reads {
            return Err(format!(
                "it is of format {}, and this node's zsha reads no higher than {reads}: upgrade it",
                stored.format
            ));
        }
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
    format!("{}{more}", brief(&told[..told.len().min(FAULTS_TOLD)].join("; ")))
}

/// The document of the newest of these records of the history that can be used, and waits for nobody.
pub fn newest_usable(
    history: &[Entry],
    cluster: &ClusterName,
    reads: u32,
    waits: impl Fn(&StoredSpec) -> bool,
) -> Option<Document> {
    let mut records: Vec<HistoryRecord> =
        history.iter().filter_map(|entry| serde_json::from_str(&entry.value).ok()).collect();
    records.sort_by_key(|record| record.generation);
    records.into_iter().rev().find_map(|record| {
        let HistoryRecord { generation, format, document, applied_by, applied_at, message, command: _ } =
            record;
        let stored = StoredSpec { generation, format, document, applied_by, applied_at, message };
        if waits(&stored) { None } else { Document::of(stored, cluster, reads).ok() }
    })
}

/// The other nodes, as far as they have a say in whether a document of a newer format comes in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Others {
    /// Those that may live, with what each says of itself. None: this node does not see the present of the store, so it
    /// cannot tell.
    pub living: Option<BTreeMap<NodeName, Option<Arc<NodeStatus>>>>,
    /// The highest generation that any node, dead or alive, or this one, has acted on.
    pub acted_on: u64,
}

/// The thing that a document waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Awaited {
    /// The end of a sentence.
    pub what: String,
    /// True if it is known to wait. Otherwise that cannot be told yet, and nothing follows from it.
    pub known: bool,
}

/// A document of a newer format comes in force on all nodes or on none: when every node that lives can read it. Once it
/// was in force anywhere it stays so, whoever comes back.
pub fn waits_for(stored: &StoredSpec, others: &Others) -> Option<Awaited> {
    if stored.format <= format::FIRST || others.acted_on >= stored.generation {
        return None;
    }
    let Some(living) = &others.living else {
        return Some(Awaited { what: "until this node sees which others live".to_owned(), known: false });
    };
    let nodes = living.iter().map(|(node, status)| (node, status.as_deref()));
    let not = format::not_reading(stored.format, nodes);
    (!not.is_empty()).then(|| Awaited { what: format!("for {}", format::listed(&not)), known: true })
}

/// The contents of the document's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    NotReadYet,
    Nothing,
    /// A document of this generation.
    Generation(u64),
    /// The document at this index is not to be in force yet.
    Waits {
        index: u64,
        generation: u64,
        awaited: Awaited,
    },
    /// The value at this index cannot be used.
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
    /// It comes in force when every node that lives can read it.
    Waits { generation: u64, what: String, recovered: bool },
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
            Self::Waits { .. } => "WaitsForNodes",
            Self::Older { .. } => "OlderGeneration",
            Self::Gone => "Gone",
        }
    }

    /// The sentence on what happened, what to do about it, and what is in force meanwhile.
    pub fn told(&self, in_force: Option<u64>) -> String {
        let source = match self {
            Self::Invalid { recovered: true, .. } | Self::Waits { recovered: true, .. } => {
                ", from the history,"
            }
            Self::Invalid { recovered: false, .. }
            | Self::Waits { recovered: false, .. }
            | Self::Older { .. }
            | Self::Gone => "",
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
            Self::Waits { generation, what, recovered: _ } => write!(
                f,
                "generation {generation} has something new in it that not every node can read, and waits {what}. It comes \
                 in force by itself when every node that lives can read it: upgrade the others, or apply a document \
                 without it"
            ),
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

/// The event to write where the problem has changed: its reason, and a sentence.
pub fn news(
    before: Option<&SpecProblem>,
    now: Option<&SpecProblem>,
    in_force: Option<u64>,
) -> Option<(EventReason, String)> {
    match (before, now) {
        (before, now) if before == now => None,
        (_, Some(problem @ SpecProblem::Waits { .. })) => {
            Some((EventReason::SpecWaits, problem.told(in_force)))
        }
        (_, Some(problem)) => Some((EventReason::SpecInvalid, problem.told(in_force))),
        (_, None) => {
            let generation = in_force.map(|generation| format!(" (generation {generation})"));
            let message = format!("the stored document is in force{}", generation.unwrap_or_default());
            Some((EventReason::SpecValid, message))
        }
    }
}

/// The document in force.
#[derive(Debug, Default)]
pub struct InForce {
    document: Option<Arc<Document>>,
    /// It comes from the history, not from the key.
    recovered: bool,
    /// The index of the key for which the history has been looked at already.
    looked_up: Option<u64>,
}

impl InForce {
    pub fn document(&self) -> Option<&Arc<Document>> {
        self.document.as_ref()
    }

    /// Takes a document that was seen under the key, unless one of a higher generation was in force before: then the
    /// store went back in time, and what an operator has replaced does not come back by that.
    pub fn offer(&mut self, document: Arc<Document>) {
        let before = self.generation();
        if before.is_none_or(|before| before <= document.generation()) {
            self.document = Some(document);
            self.recovered = false;
        }
    }

    /// The generation of the document in force.
    pub fn generation(&self) -> Option<u64> {
        self.document.as_ref().map(|document| document.generation())
    }

    /// The index of a document that is not to be used, beside which there is nothing to go on with, and for which the
    /// history has not been looked at; 0 where there is none, which may have been deleted.
    pub fn needs_history(&self, shown: &Shown) -> Option<u64> {
        match shown {
            Shown::Bad { index, .. } | Shown::Waits { index, awaited: Awaited { known: true, .. }, .. }
                if self.document.is_none() && self.looked_up != Some(*index) =>
            {
                Some(*index)
            }
            Shown::Nothing if self.document.is_none() && self.looked_up.is_none() => Some(0),
            Shown::Bad { .. }
            | Shown::Waits { .. }
            | Shown::NotReadYet
            | Shown::Nothing
            | Shown::Generation(_) => None,
        }
    }

    /// Takes in what the history had when it was looked at for the document of this index. It comes in force where none
    /// is.
    pub fn recover(&mut self, index: u64, document: Option<Document>) {
        self.looked_up = Some(index);
        if let Some(document) = document
            && self.document.is_none()
        {
            self.document = Some(Arc::new(document));
            self.recovered = true;
        }
    }

    pub fn problem(&self, shown: Shown) -> Option<SpecProblem> {
        match (shown, self.generation()) {
            (Shown::Waits { generation, awaited, .. }, _) => {
                Some(SpecProblem::Waits { generation, what: awaited.what, recovered: self.recovered })
            }
            (Shown::Bad { why, .. }, _) => Some(SpecProblem::Invalid { why, recovered: self.recovered }),
            (Shown::Generation(stored), Some(seen)) if stored < seen => {
                Some(SpecProblem::Older { stored, seen })
            }
            (Shown::Nothing, Some(_)) => Some(SpecProblem::Gone),
            (Shown::Generation(_) | Shown::Nothing | Shown::NotReadYet, _) => None,
        }
    }
}
