//! What is seen of the orders: those that stand, those that cannot be read, and those that came back with an older store.
//!
//! Never here: what an order means (see [`crate::intents`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use zsha_crds::NodeName;
use zsha_crds::records::{HostShutdown, Intent};

use super::{Views, lock, not_ready};
use crate::intents::{self, Intents};
use crate::keeper::Verdict;
use crate::observed::Observed;
use crate::world::MigrateRequest;

impl Views {
    /// The orders of operators that stand until they are taken back. The first `apply` writes whether the VM is to run,
    /// and that is never deleted.
    pub fn intents(&self, lease: &Observed<Verdict>) -> Observed<Intents> {
        if !self.intents.ready() {
            return Observed::Unknown(not_ready(&self.intents, "the operators' intents"));
        }
        let prefix = self.keys.intents();
        let name = |key: &str| key.strip_prefix(&prefix).unwrap_or(key).to_owned();
        let unreadable = self.intents.undecodable().into_iter().map(|(key, bad)| (name(&key), bad.reason));
        let unreadable = unreadable.collect();
        let expected = self.in_force().document().is_some();
        let records = self.intents.state();
        let came_back = self.came_back(lease);
        let stored = records.iter().map(|(key, object)| intents::Stored {
            name: key.strip_prefix(&prefix).unwrap_or(key),
            intent: &object.value,
            came_back: came_back(key, &object.value),
        });
        let undone = lock(&self.shared).orders.undone().clone();
        let undone = undone.into_iter().map(|(key, intent)| (name(&key), intent)).collect();
        intents::read(stored, &unreadable, &undone, expected)
    }

    /// The index of the order that was written last, of those that are there.
    pub fn newest_order(&self) -> Option<u64> {
        self.intents.state().values().map(|object| object.modify_index).max()
    }

    /// Hosts that shut down, as they said in some boot.
    pub fn shutdowns(&self) -> Observed<BTreeMap<NodeName, HostShutdown>> {
        if !self.intents.ready() {
            return Observed::Unknown(not_ready(&self.intents, "the operators' intents"));
        }
        let prefix = self.keys.intents();
        let records = self.intents.state();
        let said =
            records.iter().map(|(key, object)| (key.strip_prefix(&prefix).unwrap_or(key), &*object.value));
        Observed::Known(intents::shutdowns(said))
    }

    /// Tells which orders have come back with an older state of the store: see [`orders`].
    pub(super) fn came_back(&self, lease: &Observed<Verdict>) -> impl Fn(&str, &Intent) -> bool + use<> {
        let (shared, step_back) =
            (Arc::clone(&self.shared), lease.known().and_then(|verdict| verdict.step_back));
        move |key, intent| lock(&shared).orders.has_come_back(key, intent, step_back)
    }

    /// The live migration that an operator asked for last, even if it has been answered. None also where that cannot be
    /// told: a healthy VM is not moved on a guess.
    pub fn migrate(&self, lease: &Observed<Verdict>) -> Option<MigrateRequest> {
        let key = self.keys.intent(Intent::MIGRATE);
        let intent = self.intents.get(&key).filter(|_| self.intents.ready())?;
        if self.came_back(lease)(&key, &intent.value) {
            return None;
        }
        migrate_request(&intent.value, intent.modify_index)
    }
}

fn migrate_request(intent: &Intent, index: u64) -> Option<MigrateRequest> {
    let Intent::Migrate { id, to, by, message, .. } = intent else { return None };
    Some(MigrateRequest { id: *id, index, to: to.clone(), by: intents::who(by, message) })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use zsha_crds::VmName;

    use super::*;

    #[test]
    fn a_migration_is_asked_for_by_somebody_and_for_the_reason_that_was_given() {
        let (vm, to) = (VmName::management(), NodeName::new("nfs-2").unwrap());
        let (id, at) = (Uuid::from_u128(5), jiff::Timestamp::UNIX_EPOCH);
        let (by, message) = ("anna@ops-1".to_owned(), "new memory".to_owned());
        let intent = Intent::Migrate { id, vm, to: to.clone(), by, at, message };
        let by = "anna@ops-1 (new memory)".to_owned();
        assert_eq!(migrate_request(&intent, 90), Some(MigrateRequest { id, index: 90, to, by }));
        assert_eq!(migrate_request(&Intent::None, 91), None);
    }
}
