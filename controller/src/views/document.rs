//! What is seen of the document: the one in force, why the stored one is not, and what a newer format waits for.
//!
//! Never here: the rules of which document is in force (see [`crate::in_force`]).

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};

use zsha_crds::records::{LeaseRecord, LeaseState, StoredSpec};
use zsha_crds::{NodeName, format};
use zsha_runtime::store::Entry;

use super::{Views, lock, not_ready};
use crate::desired::Desired;
use crate::hypervisor::DomainSpec;
use crate::in_force::{self, Awaited, InForce, Others, Shown, SpecProblem};
use crate::observed::Observed;

impl Views {
    /// The document in force: the last good one, whatever became of the key since.
    pub fn desired(&self) -> Observed<Option<Arc<Desired>>> {
        // Not in the match: what is shown is judged by what is in force, under the same lock.
        let document = self.in_force().document().cloned();
        match (document, self.spec.ready()) {
            (Some(document), _) => Observed::Known(Some(Arc::clone(&document.desired))),
            (None, false) => Observed::Unknown(not_ready(&self.spec, "the document")),
            (None, true) => match self.shown() {
                Shown::Bad { why, .. } => Observed::Unknown(why),
                Shown::Waits { generation, awaited, .. } => {
                    Observed::Unknown(format!("generation {generation} waits {}", awaited.what))
                }
                Shown::NotReadYet | Shown::Nothing | Shown::Generation(_) => Observed::Known(None),
            },
        }
    }

    /// The problem of the stored document, if it has one.
    pub fn spec_problem(&self) -> Option<SpecProblem> {
        let shown = self.shown();
        self.in_force().problem(shown)
    }

    /// The index of a bad document for which the history is to be looked at; see [`InForce::needs_history`].
    pub fn needs_history(&self) -> Option<u64> {
        let shown = self.shown();
        // Which of the history may be in force is said by the nodes.
        if matches!(shown, Shown::Nothing) && !self.statuses.ready() {
            return None;
        }
        self.in_force().needs_history(&shown)
    }

    /// Takes in the history, as it was found when it was looked at for the document of this index.
    pub fn recover(&self, index: u64, history: &[Entry]) {
        let waits = |stored: &StoredSpec| self.awaited(stored, None).is_some();
        let newest = in_force::newest_usable(history, &self.cluster, self.reads, waits);
        self.in_force().recover(index, newest);
    }

    /// The contents of the document's key, as last seen.
    pub(super) fn shown(&self) -> Shown {
        let key = self.keys.spec();
        if let Some(bad) = self.spec.undecodable().remove(&key) {
            return Shown::Bad { index: bad.modify_index, why: bad.reason };
        }
        match self.spec.get(&key) {
            Some(object) => {
                let stored = &object.value.stored;
                let mine = self.in_force.lock().unwrap_or_else(PoisonError::into_inner).generation();
                let (index, generation) = (object.modify_index, stored.generation);
                match self.awaited(stored, mine) {
                    None => Shown::Generation(generation),
                    Some(awaited) => Shown::Waits { index, generation, awaited },
                }
            }
            None if self.spec.ready() => Shown::Nothing,
            None => Shown::NotReadYet,
        }
    }

    /// The document in force, after what was last seen of the key is taken in.
    pub(super) fn in_force(&self) -> MutexGuard<'_, InForce> {
        let seen = self.spec.get(&self.keys.spec());
        let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(object) = seen
            && self.awaited(&object.value.stored, in_force.generation()).is_none()
        {
            in_force.offer(object.value);
        }
        in_force
    }

    /// The things that a document waits for, with this generation in force here.
    pub(super) fn awaited(&self, stored: &StoredSpec, mine: Option<u64>) -> Option<Awaited> {
        // Nearly always so, and the others need not be asked.
        if stored.format <= format::FIRST {
            return None;
        }
        in_force::waits_for(stored, &self.others(mine))
    }

    /// The state of the other nodes that decides on a document of a newer format. `mine`: the generation in force here.
    pub(super) fn others(&self, mine: Option<u64>) -> Others {
        let (now, statuses, sights) = (self.clock.now(), self.nodes(), self.sights());
        let observed = statuses.values().map(|status| status.observed_generation);
        let acted_on = observed.chain(mine).max().unwrap_or(0);
        // Who does not see its own renewals does not see the others' either.
        let mine = sights.get(&self.me);
        let present = mine.is_some_and(|sight| now < sight.sent_by + sight.record.timings.ttl());
        if !present || !self.leases.ready() || !self.statuses.ready() {
            return Others { living: None, acted_on };
        }
        let dead = |node: &NodeName, lease: &LeaseRecord| {
            matches!(lease.state, LeaseState::Fenced | LeaseState::Released)
                || sights.get(node).is_some_and(|sight| sight.is_expired(now))
        };
        let leases = self.leases.state().into_values().map(|object| object.value);
        let living = leases.filter(|lease| !dead(&lease.node, lease)).map(|lease| lease.node.clone());
        // What cannot be read may be of a node that lives.
        let unreadable = self.unreadable_leases().into_keys();
        let living = living.chain(unreadable).filter(|node| *node != self.me);
        let living = living.map(|node| (node.clone(), statuses.get(&node).cloned())).collect();
        Others { living: Some(living), acted_on }
    }

    /// The domain that was found for an earlier generation; None: not looked up yet.
    pub fn past_domain(&self, generation: u64) -> Option<Option<Arc<DomainSpec>>> {
        lock(&self.shared).past.get(&generation).cloned()
    }

    pub fn remember_domain(&self, generation: u64, domain: Option<Arc<DomainSpec>>) {
        // One VM runs, of one generation.
        lock(&self.shared).past = BTreeMap::from([(generation, domain)]);
    }
}
