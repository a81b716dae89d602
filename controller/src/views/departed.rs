//! Remembers what the ownership record said of a guest that was moved past zsha, where an older state of the store does
//! not say it.

use zsha_crds::records::{Departed, Owner, VmRecord};

#[derive(Debug, Default)]
pub(super) struct LastDeparted {
    last: Option<Last>,
    /// The departure that the record which was seen last should tell, and does not.
    gone: Option<Departed>,
}

#[derive(Debug)]
struct Last {
    owner: Owner,
    revision: u64,
    departed: Departed,
}

impl LastDeparted {
    /// Takes in a record. One of the same life of the owner and of no later revision is older than the departure; any
    /// other that does not tell of it was written by a node that knew better.
    pub(super) fn see(&mut self, record: &VmRecord) {
        self.gone = None;
        if let Some(departed) = &record.departed {
            // A record that names nobody any more tells that the VM has left the node that was named before.
            let before = self.last.take().map(|last| last.owner);
            let (owner, departed) = (record.owner.clone().or(before), departed.clone());
            self.last = owner.map(|owner| Last { owner, revision: record.revision, departed });
            return;
        }
        let last = self
            .last
            .take()
            .filter(|last| record.owner.as_ref() == Some(&last.owner) && record.revision <= last.revision);
        self.gone = last.as_ref().map(|last| last.departed.clone());
        self.last = last;
    }

    pub(super) const fn gone(&self) -> Option<&Departed> {
        self.gone.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;
    use zsha_crds::{NodeName, VmId, VmName};

    use super::*;

    fn record(epoch: u64, revision: u64, departed: bool) -> VmRecord {
        let node = NodeName::new("nfs-1").unwrap();
        let departed =
            departed.then(|| Departed { from: node.clone(), at: Timestamp::UNIX_EPOCH, seen_on: [].into() });
        let vm = VmRecord::unplaced(VmId { name: VmName::management(), uuid: Uuid::nil() });
        VmRecord { owner: Some(Owner { node, epoch }), revision, departed, ..vm }
    }

    #[test]
    fn only_an_earlier_record_of_the_same_life_of_the_owner_hides_that_the_guest_has_left() {
        let gone = |seen: &[VmRecord]| {
            let mut last = LastDeparted::default();
            seen.iter().for_each(|record| last.see(record));
            last.gone().is_some()
        };
        let left = record(3, 8, true);
        assert!(!gone(&[record(3, 7, false), left.clone()]), "it says so");
        assert!(gone(&[left.clone(), record(3, 7, false)]));
        assert!(gone(&[left.clone(), record(3, 7, false), record(3, 7, false)]), "until somebody writes");
        assert!(!gone(&[left.clone(), record(3, 7, false), record(3, 8, true)]));
        assert!(!gone(&[left.clone(), record(3, 9, false)]), "it was found again");
        assert!(!gone(&[left.clone(), record(3, 9, false), record(3, 7, false)]));
        assert!(!gone(&[left.clone(), record(2, 5, false)]), "of another life nothing is known");
        let nobodys = |departed| VmRecord { owner: None, ..record(3, 9, departed) };
        assert!(!gone(&[left.clone(), nobodys(false)]));
        assert!(gone(&[left.clone(), nobodys(true), record(3, 9, false)]), "also once it was given up");
        assert!(!gone(&[nobodys(true), record(3, 9, false)]), "whom it has left is not known");
        assert!(gone(&[left, record(3, 8, false)]), "a line of its own that is as long");
    }
}
