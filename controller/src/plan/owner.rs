//! The owner of the VM, and how it changes its record. The files that decide what it does with the VM add methods to
//! [`Upkeep`].

use zsha_crds::EventReason;
use zsha_crds::records::VmRecord;

use super::step::{Step, Write};
use crate::world::{StoredVm, World};

/// The owner's view of its VM.
pub(super) struct Upkeep<'w> {
    pub(super) world: &'w World,
    pub(super) stored: &'w StoredVm,
    pub(super) epoch: u64,
}

impl Upkeep<'_> {
    pub(super) fn record(&self) -> &VmRecord {
        &self.stored.record
    }

    pub(super) fn change(
        &self,
        reason: EventReason,
        message: String,
        change: impl FnOnce(&mut VmRecord),
    ) -> Step {
        self.changed(reason, message, change).step()
    }

    pub(super) fn changed(
        &self,
        reason: EventReason,
        message: String,
        change: impl FnOnce(&mut VmRecord),
    ) -> Write {
        let mut record = self.record().clone();
        record.revision += 1;
        record.note.clone_from(&message);
        change(&mut record);
        Write::over(self.stored.index, self.world, self.epoch, record, (reason, message))
    }
}

pub(super) fn kill(because: impl Into<String>) -> Step {
    Step::KillCopy { because: because.into(), if_still: None }
}
