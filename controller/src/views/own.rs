//! Keeps the one thing that no watcher can know: which ownership record this very process wrote, and whether a later
//! write of it may be in force.

use std::time::Duration;

use zsha_crds::records::VmRecord;
use zsha_runtime::Moment;

use crate::world::StoredVm;

/// The time after which a write of this process must have been seen: a server that lags for longer has a fault.
const UNCONFIRMED: Duration = Duration::from_secs(3);

#[derive(Debug, Default)]
pub(super) struct Own {
    written: Option<Written>,
    /// The record as this process had written it when the store went back in time.
    before: Option<VmRecord>,
    /// True if a later write of this process was not answered, so that `written` may not be in force any more.
    in_doubt: bool,
    /// True if one of the writes in doubt would have changed the owner.
    owner_in_doubt: bool,
}

/// The record as this process last wrote it.
#[derive(Debug, Clone)]
struct Written {
    record: VmRecord,
    /// The index that the write gave it.
    index: u64,
    sent: Moment,
    /// The moment when the record was last known to be in the store: seen there, or written.
    confirmed: Moment,
}

/// The result of a consistent read of the record's index, beside what this process wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookedUp {
    /// The record is there, or a newer one; or this process wrote nothing.
    Fine,
    /// The key is gone.
    Gone,
    /// The record that is there is older: the store shows an earlier time of itself.
    WentBack,
}

impl Own {
    /// The record was sent then, and is in force.
    pub(super) fn wrote(&mut self, now: Moment, record: VmRecord, index: u64, sent: Moment) {
        *self = Self { written: Some(Written { record, index, sent, confirmed: now }), ..Self::default() };
    }

    /// This write may or may not be in force.
    pub(super) fn write_is_unknown(&mut self, record: &VmRecord) {
        self.in_doubt = true;
        self.owner_in_doubt |= self.written.as_ref().is_none_or(|own| own.record.owner != record.owner);
    }

    /// Something had changed under a write, and what was written before may be gone. So the record is looked up.
    pub(super) fn write_failed(&mut self, now: Moment) {
        if let Some(own) = &mut self.written {
            own.confirmed = own.confirmed.min(now - UNCONFIRMED);
        }
    }

    /// A view shows the record with this index.
    pub(super) fn saw(&mut self, now: Moment, index: u64) {
        if let Some(own) = self.written.as_mut().filter(|own| index >= own.index) {
            own.confirmed = now;
        }
    }

    /// The record that this process wrote, unless a view shows something newer, or nothing any more. Nothing older than
    /// one's own write is the present, however much the view lags; and a deleted key shows as gone, not as older.
    pub(super) fn newest(&self, seen: Option<u64>) -> Option<StoredVm> {
        let own = self.written.as_ref().filter(|own| seen.is_some_and(|seen| seen <= own.index))?;
        let written = (!self.in_doubt).then_some(own.sent);
        Some(StoredVm { record: own.record.clone(), index: own.index, written })
    }

    /// The moment when the record was sent, if nothing is in doubt.
    pub(super) fn sent(&self) -> Option<Moment> {
        self.written.as_ref().filter(|_| !self.in_doubt).map(|own| own.sent)
    }

    /// The record that was written last, with its index and when it was sent, if nothing is in doubt.
    pub(super) fn last(&self) -> Option<(VmRecord, u64, Moment)> {
        self.written.as_ref().filter(|_| !self.in_doubt).map(|own| (own.record.clone(), own.index, own.sent))
    }

    /// True if the record has not been seen in the store for so long that it must be asked for.
    pub(super) fn is_unconfirmed(&self, now: Moment) -> bool {
        self.written.as_ref().is_some_and(|own| now >= own.confirmed + UNCONFIRMED)
    }

    /// The index of the record as it was just read, consistently. An answer may come after the watcher has already
    /// begun anew.
    pub(super) fn looked_up(&mut self, now: Moment, index: Option<u64>) -> LookedUp {
        let Some(own) = &mut self.written else { return LookedUp::Fine };
        match index {
            Some(index) if index >= own.index => {
                own.confirmed = now;
                return LookedUp::Fine;
            }
            _ => self.is_over(),
        }
        if index.is_some() { LookedUp::WentBack } else { LookedUp::Gone }
    }

    /// Forgets what this process wrote: after the store went back in time, it may not be there any more.
    pub(super) fn is_over(&mut self) {
        if let (Some(own), false) = (self.written.take(), self.owner_in_doubt) {
            self.before = Some(own.record);
        }
        (self.in_doubt, self.owner_in_doubt) = (false, false);
    }

    pub(super) fn before(&self) -> Option<&VmRecord> {
        self.before.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use zsha_crds::records::Owner;
    use zsha_crds::{NodeName, VmId, VmName};

    use super::*;

    const NOW: Moment = Moment::from_nanos(100_000_000_000);
    const SENT: Moment = Moment::from_nanos(99_900_000_000);

    fn record(epoch: u64) -> VmRecord {
        let owner = Owner { node: NodeName::new("nfs-1").unwrap(), epoch };
        let unplaced = VmRecord::unplaced(VmId { name: VmName::management(), uuid: uuid::Uuid::nil() });
        VmRecord { owner: Some(owner), revision: epoch, ..unplaced }
    }

    /// A record that this process wrote, with index 7.
    fn written() -> Own {
        let mut own = Own::default();
        own.wrote(NOW, record(1), 7, SENT);
        own
    }

    fn later(millis: u64) -> Moment {
        NOW + Duration::from_millis(millis)
    }

    #[test]
    fn ones_own_write_is_the_newest_until_something_newer_or_nothing_is_seen() {
        let own = written();
        let stored = StoredVm { record: record(1), index: 7, written: Some(SENT) };
        assert_eq!((own.newest(Some(6)), own.newest(Some(7))), (Some(stored.clone()), Some(stored)));
        assert_eq!(
            (own.newest(Some(8)), own.newest(None), Own::default().newest(Some(1))),
            (None, None, None)
        );
        assert_eq!((own.sent(), own.before()), (Some(SENT), None));
    }

    #[test]
    fn a_later_write_without_an_answer_puts_it_in_doubt() {
        let mut own = written();
        own.write_is_unknown(&record(1));
        assert_eq!((own.newest(Some(7)).unwrap().written, own.sent()), (None, None));
        own.wrote(NOW, record(1), 9, SENT);
        assert_eq!(own.sent(), Some(SENT), "the next that is answered is beyond doubt");
    }

    #[test]
    fn what_is_not_seen_for_three_seconds_is_to_be_looked_up() {
        let mut own = written();
        assert_eq!((own.is_unconfirmed(later(2_999)), own.is_unconfirmed(later(3_000))), (false, true));
        own.saw(later(3_000), 6);
        assert!(own.is_unconfirmed(later(3_000)), "an older one says nothing");
        own.saw(later(3_000), 7);
        assert!(!own.is_unconfirmed(later(3_000)));
        assert!(!Own::default().is_unconfirmed(later(9_999)));
    }

    #[test]
    fn after_a_write_that_something_had_changed_under_it_is_looked_up_at_once() {
        let mut own = written();
        own.write_failed(later(10));
        assert!(own.is_unconfirmed(later(10)));
        assert_eq!(own.looked_up(later(10), Some(7)), LookedUp::Fine);
        assert!(!own.is_unconfirmed(later(10)));
        assert!(own.newest(Some(7)).is_some());
    }

    #[test]
    fn a_read_that_shows_an_older_record_says_that_the_store_went_back() {
        let mut own = written();
        assert_eq!(own.looked_up(NOW, Some(6)), LookedUp::WentBack);
        assert_eq!((own.newest(Some(6)), own.before()), (None, Some(&record(1))));
        assert_eq!(own.looked_up(NOW, Some(1)), LookedUp::Fine, "it has no more to lose");
    }

    #[test]
    fn a_read_that_shows_none_is_a_deletion_and_no_step_back() {
        let mut own = written();
        assert_eq!(own.looked_up(NOW, None), LookedUp::Gone);
        assert_eq!((own.newest(Some(6)), own.before()), (None, Some(&record(1))));
    }

    #[test]
    fn what_was_written_before_a_step_back_counts_only_if_no_change_of_the_owner_was_in_doubt() {
        let mut same_owner = written();
        same_owner.write_is_unknown(&VmRecord { note: "started".to_owned(), ..record(1) });
        same_owner.is_over();
        assert_eq!(same_owner.before(), Some(&record(1)));
        let mut perhaps_another = written();
        perhaps_another.write_is_unknown(&record(2));
        perhaps_another.is_over();
        assert_eq!(perhaps_another.before(), None);
        same_owner.wrote(NOW, record(3), 9, SENT);
        assert_eq!(same_owner.before(), None, "written anew, it is the present");
    }
}
