//! The side that waits: it measures on this node's own clock how long each node's lease has been seen unchanged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zsha_crds::records::{LeaseRecord, LeaseState};
use zsha_crds::{NodeName, VmName};

use crate::Moment;
use crate::planted::is_planted;

/// A lease as last seen, and since when it has been exactly so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    pub record: LeaseRecord,
    pub index: u64,
    pub first_seen: Moment,
    /// The renewal was sent at this moment at the latest: when it was first seen, or earlier where the holder's own
    /// clock shows that it was long on its way (an election, a server that lags behind). A fence counts from this.
    pub sent_by: Moment,
    /// D is not less than this. Since the store went back in time, the holder may live by an earlier record with a
    /// longer D, and be unable to say so.
    pub d_at_least: Duration,
    /// True if the record was seen to take the place of another, with no gap between the two looks: its holder lives,
    /// and what it says is of now. A record that was there when the looking began, or after a gap, may be of any time.
    pub is_news: bool,
    /// The moment when the record was first seen whose place it took; where there was none, when it was seen itself.
    pub follows: Moment,
}

impl Sight {
    /// The moment from which another node may fence the lease. None for a lease that no node holds.
    pub fn fence_due(&self) -> Option<Moment> {
        match self.record.state {
            LeaseState::Held | LeaseState::Lost => Some(self.silent_at()),
            LeaseState::Released | LeaseState::Fenced => None,
        }
    }

    /// The moment from which nothing that the writer holds by this record can be valid, whatever its state.
    pub fn silent_at(&self) -> Moment {
        self.sent_by + self.fence_after()
    }

    /// D: how long after a renewal was sent its holder may still go by it.
    fn fence_after(&self) -> Duration {
        if self.record.state == LeaseState::Lost && is_planted("LostIsFencedEarly") {
            return zsha_crds::records::LeaseTimings::BALANCED.fence_after();
        }
        self.record.timings.fence_after().max(self.d_at_least)
    }

    /// True if the lease is held, and its holder, for all that is seen of it, has not let it run out: by F, and not by
    /// D.
    pub fn is_renewed(&self, now: Moment) -> bool {
        self.record.state == LeaseState::Held && now < self.sent_by + self.record.timings.ttl()
    }

    /// True if the holder says that it has a process of this VM.
    pub fn has_copy(&self, vm: &VmName) -> bool {
        self.record.state == LeaseState::Held && self.record.copies(vm).is_some_and(|copies| copies > 0)
    }

    pub fn is_silent(&self, now: Moment) -> bool {
        now >= self.silent_at()
    }

    /// True if the renewal was sent D ago or longer, and is still the last that was seen.
    pub fn is_expired(&self, now: Moment) -> bool {
        self.fence_due().is_some_and(|due| now >= due)
    }

    /// True if a record just read still bears out what was concluded from this sight: that its holder is silent (the
    /// record is the very same), or that it lives and sees no process of this VM (it has said so again since).
    pub fn is_borne_out(&self, record: &LeaseRecord, index: u64, vm: &VmName) -> bool {
        let one_life = self.record.incarnation == record.incarnation && self.record.epoch == record.epoch;
        let later = record.state == LeaseState::Held && record.seq >= self.record.seq;
        self.is_same(record, index)
            || (one_life && later && self.record.copies(vm) == Some(0) && record.copies(vm) == Some(0))
    }

    /// The worth of this sight to a node whose own lease has been renewed without a break only since then. Whatever the
    /// node saw before may be shown to it again, by a snapshot that was restored while it did not look.
    pub fn since(mut self, unbroken: Moment) -> Self {
        // Two looks make news, and one of before may be at a later time of the store than one of after.
        self.is_news &= self.follows >= unbroken;
        self.sent_by = self.sent_by.max(unbroken);
        self
    }

    /// The record that fences the lease. Write it only by cas on [`Sight::index`], after one consistent read that
    /// showed the same incarnation, seq and index.
    pub fn fenced(&self, by: &NodeName) -> LeaseRecord {
        LeaseRecord {
            state: LeaseState::Fenced,
            epoch: self.record.epoch + 1,
            fenced_by: Some(by.clone()),
            ..self.record.clone()
        }
    }

    /// True if a record just read is the very one that was watched for D.
    pub fn is_same(&self, record: &LeaseRecord, index: u64) -> bool {
        self.index == index && self.record.incarnation == record.incarnation && self.record.seq == record.seq
    }
}

/// The latest moment when a renewal can have been sent, by the one seen before it. The earlier renewal was sent before
/// it was seen; the holder's clock says how much later this one was sent; and two clocks, each up to 1 % off, differ by
/// up to 1/49 of that. The last sight's own `sent_by` is not used: an error of a clock that is over must not be carried
/// on.
///
/// That holds only for a clock that did not stand still between the two, which only its holder can know. So a holder
/// whose clock may stand still (`Inputs::may_be_paused`) does not say when it sent, and its renewal counts from its
/// sight.
fn sent_after(before: &Sight, record: &LeaseRecord) -> Option<Moment> {
    let old = &before.record;
    // Whoever fences sends nothing in its holder's name: that has been silent for as long as before.
    let same_renewal = old.incarnation == record.incarnation && old.seq == record.seq;
    if record.state == LeaseState::Fenced && old.state == LeaseState::Held && same_renewal {
        return Some(before.sent_by);
    }
    let one_life = old.incarnation == record.incarnation
        && old.boot_id == record.boot_id
        && old.state == LeaseState::Held
        && record.state == LeaseState::Held;
    // One more, since both are cut to the millisecond.
    let later = record.sent_millis?.checked_sub(old.sent_millis?)?;
    (one_life && later > 0).then(|| {
        let later = later.saturating_add(1);
        before.first_seen + Duration::from_millis(later.saturating_add(later.div_ceil(49)))
    })
}

/// True if the record is of an earlier life than the one before, or of an earlier moment of the same life. Lives have
/// epochs that rise.
fn is_earlier(record: &LeaseRecord, before: &LeaseRecord) -> bool {
    if record.incarnation == before.incarnation {
        return record.seq < before.seq;
    }
    // A record in the place of a lease that was gone has the epoch of the life whose it was.
    record.epoch <= before.epoch && ![record.state, before.state].contains(&LeaseState::Lost)
}

/// Remembers that the holder may go by this D, whatever the store shows next.
fn outlive(outlived: &mut BTreeMap<NodeName, Duration>, sight: &Sight) {
    if is_planted("LongerDForgotten") {
        return;
    }
    let longest = outlived.entry(sight.record.node.clone()).or_default();
    *longest = sight.fence_after().max(*longest);
}

/// Remembers every lease seen. Old or repeated looks are harmless: any difference starts the count again.
#[derive(Debug, Clone, Default)]
pub struct Observer {
    sights: BTreeMap<NodeName, Sight>,
    /// Nodes whose next record is no news yet.
    after_gap: BTreeSet<NodeName>,
    /// Nodes that had a lease when the store went back in time, and whose lease has not been seen since; with the last
    /// epoch.
    vanished: BTreeMap<NodeName, u64>,
    /// Nodes whose lease was deleted and has not been seen since; with the last epoch.
    deleted: BTreeMap<NodeName, u64>,
    /// The longest D that was seen of a node before the store went back in time. It holds until the node is seen to
    /// renew: a node that announces a shorter D obeys it first.
    outlived: BTreeMap<NodeName, Duration>,
}

impl Observer {
    /// Takes in one look at one lease.
    pub fn see(&mut self, now: Moment, record: LeaseRecord, index: u64) {
        self.vanished.remove(&record.node);
        self.deleted.remove(&record.node);
        match self.sights.get_mut(&record.node) {
            Some(sight) if sight.index == index && sight.record == record => {}
            Some(sight) => {
                let sent_by = match is_planted("CountedFromFirstSight") {
                    true => sight.sent_by,
                    false => sent_after(sight, &record).map_or(now, |sent| sent.min(now)),
                };
                // One that goes back was put there again by somebody: it is of another time, like what follows a gap.
                let goes_back = is_earlier(&record, &sight.record) && !is_planted("PutBackIsNews");
                let is_news = !self.after_gap.remove(&record.node) && !goes_back;
                // Only its holder's own word says by what it lives.
                if is_news && record.state == LeaseState::Held {
                    self.outlived.remove(&record.node);
                }
                let d_at_least = self.outlived.get(&record.node).copied().unwrap_or_default();
                let follows = sight.first_seen;
                *sight = Sight { record, index, first_seen: now, sent_by, d_at_least, is_news, follows };
            }
            None => {
                let d_at_least = self.outlived.get(&record.node).copied().unwrap_or_default();
                let sight = Sight {
                    record,
                    index,
                    first_seen: now,
                    sent_by: now,
                    d_at_least,
                    is_news: is_planted("NewsFromOneLook"),
                    follows: now,
                };
                self.sights.insert(sight.record.node.clone(), sight);
            }
        }
    }

    /// Takes in that the key is gone. Nothing can be concluded from that, so the count starts again when it is back.
    pub fn missing(&mut self, node: &NodeName) {
        if let Some(sight) = self.sights.remove(node) {
            outlive(&mut self.outlived, &sight);
            if !matches!(sight.record.state, LeaseState::Fenced | LeaseState::Released) {
                self.deleted.insert(node.clone(), sight.record.epoch);
            }
        }
    }

    /// Takes in that the store could not be looked at. The next record may be of another time (a snapshot may have been
    /// restored meanwhile), so it is no news before it has changed once more.
    pub fn gap(&mut self) {
        if is_planted("NewsAcrossAGap") {
            return;
        }
        for (node, sight) in &mut self.sights {
            sight.is_news = false;
            self.after_gap.insert(node.clone());
        }
    }

    /// Forgets everything, since the store shows an earlier time of itself: nothing that was seen of it counts any
    /// more.
    pub fn forget_all(&mut self) {
        let sights = std::mem::take(&mut self.sights);
        sights.values().for_each(|sight| outlive(&mut self.outlived, sight));
        self.after_gap.clear();
        if is_planted("VanishedLeaseForgotten") {
            return;
        }
        self.vanished.extend(sights.into_iter().map(|(node, sight)| (node, sight.record.epoch)));
    }

    /// Does the same where the records that are there will not be shown anew: the count begins again.
    pub fn doubt_all(&mut self, now: Moment) {
        self.gap();
        for sight in self.sights.values_mut() {
            outlive(&mut self.outlived, sight);
            (sight.first_seen, sight.sent_by) = (now, now);
        }
    }

    /// Nodes that had a lease before the store went back in time, and whose lease was not seen since, with its last
    /// epoch. The store may not show what they do.
    pub fn vanished(&self) -> &BTreeMap<NodeName, u64> {
        &self.vanished
    }

    /// Nodes whose lease was deleted while it was held, and was not seen since, with its last epoch. That says nothing
    /// where a person has deleted one lease; where the whole store was emptied, the nodes may live unseen.
    pub fn deleted(&self) -> &BTreeMap<NodeName, u64> {
        &self.deleted
    }

    pub fn get(&self, node: &NodeName) -> Option<&Sight> {
        self.sights.get(node)
    }

    pub fn sights(&self) -> &BTreeMap<NodeName, Sight> {
        &self.sights
    }
}
