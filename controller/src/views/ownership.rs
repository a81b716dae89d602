//! What is seen of the ownership record, and beside it what this very process wrote.
//!
//! Never here: how the two are weighed (see [`super::own`]).

use zsha_crds::records::{Departed, VmRecord};
use zsha_runtime::Moment;

use super::own::LookedUp;
use super::{Views, lock, not_ready};
use crate::observed::Observed;
use crate::world::{Overwritten, StoredVm};

impl Views {
    /// The ownership record: the newer of what was last seen and what this process last wrote.
    pub fn vm(&self) -> Observed<Option<StoredVm>> {
        let vm = self.newest_vm();
        if let Observed::Known(Some(stored)) = &vm {
            lock(&self.shared).departed.see(&stored.record);
        }
        vm
    }

    /// See [`crate::world::World::departed_before`]; of the record that was looked at last.
    pub fn departed_before(&self) -> Option<Departed> {
        lock(&self.shared).departed.gone().cloned()
    }

    pub(super) fn newest_vm(&self) -> Observed<Option<StoredVm>> {
        let key = self.keys.kept_vm();
        let seen = self.vms.get(&key);
        let bad = self.vms.undecodable().remove(&key);
        // What is there now, whether or not it can be read: the last good one may be older.
        let index = bad.as_ref().map(|bad| bad.modify_index).or(seen.as_ref().map(|seen| seen.modify_index));
        let own = {
            let mut shared = lock(&self.shared);
            if let Some(index) = index {
                shared.own.saw(self.clock.now(), index);
            }
            shared.own.newest(index)
        };
        if own.is_some() {
            return Observed::Known(own);
        }
        if let Some(bad) = bad {
            return Observed::Unknown(format!(
                "{key} cannot be read: {}. Nobody starts the VM, and a running one is left alone; see 'The ownership \
                 record cannot be read' in docs/3am.md",
                bad.reason
            ));
        }
        if !self.vms.ready() {
            return Observed::Unknown(not_ready(&self.vms, "the ownership record"));
        }
        Observed::Known(seen.map(|seen| StoredVm {
            record: (*seen.value).clone(),
            index: seen.modify_index,
            written: None,
        }))
    }

    /// The record that this process wrote last, where something that cannot be read has been written over it.
    pub fn vm_overwritten(&self) -> Option<Overwritten> {
        let bad = self.vms.undecodable().remove(&self.keys.kept_vm())?;
        let (ours, index, sent) = lock(&self.shared).own.last()?;
        (bad.modify_index > index).then_some(Overwritten { index: bad.modify_index, ours, sent })
    }

    /// The record that this process last wrote, and was told to be in force, before the store went back in time.
    pub fn vm_before(&self) -> Option<VmRecord> {
        lock(&self.shared).own.before().cloned()
    }

    /// This process sent the record then, and was told that it is in force.
    pub fn wrote(&self, record: VmRecord, index: u64, sent: Moment) {
        lock(&self.shared).own.wrote(self.clock.now(), record, index, sent);
    }

    /// This write may or may not be in force: what was written before is in doubt.
    pub fn write_is_unknown(&self, record: &VmRecord) {
        lock(&self.shared).own.write_is_unknown(record);
    }

    /// Something had changed under it, and perhaps what this process wrote before is gone: that is to be looked up.
    pub fn write_failed(&self, now: Moment) {
        lock(&self.shared).own.write_failed(now);
    }

    /// When the record was sent that makes this node the owner, if this process sent it and nothing is in doubt.
    pub fn written(&self) -> Option<Moment> {
        lock(&self.shared).own.sent()
    }

    /// True if the record that this process wrote has not been seen in the store for so long that it must be asked for.
    pub fn own_is_unconfirmed(&self) -> bool {
        lock(&self.shared).own.is_unconfirmed(self.clock.now())
    }

    /// The index of the record as it was just read, consistently. One that is lower than that of what this process wrote
    /// shows that the store is of an earlier time, and with it the leases.
    pub fn own_was_looked_up(&self, index: Option<u64>) {
        let mut shared = lock(&self.shared);
        let now = self.clock.now();
        if shared.own.looked_up(now, index) == LookedUp::WentBack {
            shared.store_went_back(now);
        }
    }
}
