//! The world: all that may be looked at when deciding. It has only values, and each is known, or unknown with a reason.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use zsha_crds::records::{Departed, DiskInUse, HostShutdown, NodeStatus, Owner, VmHere, VmPhase, VmRecord};
use zsha_crds::{NodeName, VmId};
use zsha_runtime::Moment;
use zsha_runtime::lease::{Expectation, Sight};

use crate::desired::Desired;
use crate::host::{HostFacts, HostWants};
use crate::hypervisor::{DomainFacts, DomainSpec, LocalVm, MigrationJob, OffReason, Offer};
use crate::in_force::SpecProblem;
use crate::intents::{Asked, Cordon, Intents, Start, Stop};
use crate::keeper::Verdict;
use crate::observed::Observed;
use crate::planted::{self, Bug};

/// The ownership record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVm {
    pub record: VmRecord,
    pub index: u64,
    /// When the value at this index was sent by this very process, if it was. A record that only *says* this node is
    /// the owner may be older than a write still on its way; one's own successful cas cannot be.
    pub written: Option<Moment>,
}

/// A lease key that holds something which cannot be a lease of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableLease {
    pub index: u64,
    /// Since when it has been exactly so.
    pub since: Moment,
    pub why: String,
}

/// The ownership record was written over with something that cannot be read, after this process had written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overwritten {
    /// The index of the value that cannot be read.
    pub index: u64,
    /// The record as this process wrote it last, with nothing in doubt, and when that was sent.
    pub ours: VmRecord,
    pub sent: Moment,
}

/// A live migration that was asked for by command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrateRequest {
    pub id: Uuid,
    /// The index of the order in the store: a node is judged by what it says only if it has looked since.
    pub index: u64,
    pub to: NodeName,
    /// The one who asked, as [`crate::intents::who`] says it.
    pub by: String,
}

/// The leases as far as this node may judge by them: only what it has watched while its own was renewed without a break
/// counts. Where its own has not been renewed since the store went back, nothing counts.
pub fn sights(
    seen: BTreeMap<NodeName, Sight>,
    now: Moment,
    lease: &Observed<Verdict>,
) -> BTreeMap<NodeName, Sight> {
    let Some(verdict) = lease.known() else { return seen };
    if planted::is_planted(Bug::JudgedWhileCutOff) {
        return seen;
    }
    let since = verdict.unbroken_since.unwrap_or(now);
    seen.into_iter().map(|(node, sight)| (node, sight.since(since))).collect()
}

/// The time for which the keeper's verdict counts that the store went back: a controller that began after that has not
/// seen it. It is twice the longest time that anybody waits for a lease.
const REMEMBERED: Duration = Duration::from_secs(600);

/// True if what others wrote may be of any time: this process has seen the store go back, or its keeper has lately.
pub fn went_back(seen: bool, now: Moment, lease: &Observed<Verdict>) -> bool {
    let lately = |verdict: &Verdict| verdict.store_went_back.is_some_and(|at| now.since(at) < REMEMBERED);
    seen || lease.known().is_some_and(lately) && !planted::is_planted(Bug::WentBackForgotten)
}

/// One look at everything, as one node sees it.
#[derive(Debug, Clone)]
pub struct World {
    pub now: Moment,
    /// The wall clock, for what people read. It decides nothing but for how long a lost lease is remembered.
    pub wall: Timestamp,
    pub me: NodeName,
    /// The VM that is kept.
    pub vm_id: VmId,
    /// The last good document; `Known(None)`: there is none yet.
    pub desired: Observed<Option<Arc<Desired>>>,
    /// Why the stored document is not the one in force, where it is not.
    pub spec_problem: Option<SpecProblem>,
    /// The orders of operators that stand until they are taken back.
    pub intents: Observed<Intents>,
    /// Hosts that shut down, as they said in some boot. Known also where it is not what operators want.
    pub shutdowns: Observed<BTreeMap<NodeName, HostShutdown>>,
    /// The last live migration an operator asked for.
    pub migrate: Option<MigrateRequest>,
    /// What the hypervisor here has to run the VM on.
    pub offer: Observed<Offer>,
    /// The keeper's verdict on this node's lease and copies.
    pub lease: Observed<Verdict>,
    /// Every node's lease as last seen, and since when.
    pub sights: BTreeMap<NodeName, Sight>,
    /// Leases that are there and cannot be read.
    pub unreadable_leases: BTreeMap<NodeName, UnreadableLease>,
    /// Nodes whose leases were seen before the store went back in time, and not since; with their last epoch.
    pub vanished_leases: BTreeMap<NodeName, u64>,
    /// True if the store has gone back in time since this process began: what others wrote may be of any time.
    pub went_back: bool,
    pub vm: Observed<Option<StoredVm>>,
    /// The record as this process had written it when the store went back in time.
    pub vm_before: Option<VmRecord>,
    /// The departure of the VM past zsha, by the record that was seen before the store went back to one of the same
    /// owner that does not tell of it.
    pub departed_before: Option<Departed>,
    /// The record that this process wrote, where what stands in its place now cannot be read.
    pub vm_overwritten: Option<Overwritten>,
    /// The nodes' own statuses.
    pub nodes: BTreeMap<NodeName, Arc<NodeStatus>>,
    pub local: Observed<LocalVm>,
    /// The things that the hypervisor keeps of the VM beside its process.
    pub domain: Observed<DomainFacts>,
    /// The end of the last process of the VM here, by what is written down. It is looked at only where `local` is
    /// unknown, or says nothing of a VM that was to be here.
    pub last_end: Observed<Option<OffReason>>,
    /// The last live migration this process began.
    pub job: MigrationJob,
    /// The domain of the generation that runs here, where that is another than the one in force and could be looked
    /// up in the history.
    pub running_domain: Option<Arc<DomainSpec>>,
    pub host: Observed<HostFacts>,
    /// The moment when the look was begun that `host` is of. None: there was none, or something has been mounted since.
    pub host_looked: Option<Moment>,
    /// Something is being mounted.
    pub mounting: bool,
    /// The newest order that is seen, by its index in the store.
    pub orders: Option<u64>,
    /// The keeper counts no copy of the VM where there is one: see [`crate::plan::blindness`].
    pub keeper_blind: bool,
}

impl World {
    pub fn document(&self) -> Option<&Arc<Desired>> {
        self.desired.known().and_then(Option::as_ref)
    }

    /// The ownership record as it was read. None: there is none, or it is not known.
    pub fn stored(&self) -> Option<&StoredVm> {
        self.vm.known().and_then(Option::as_ref)
    }

    /// The number of processes of the VM that the keeper of this lease saw; None: it could not look, or does not say.
    pub fn copies(&self, sight: &Sight) -> Option<u32> {
        sight.record.copies(&self.vm_id.name)
    }

    /// True if the holder of this lease says that it has a process of the VM.
    pub fn has_copy(&self, sight: &Sight) -> bool {
        sight.has_copy(&self.vm_id.name)
    }

    /// The part of a node's status that is about the VM. None: its controller has not reported.
    pub fn said_of_vm(&self, node: &NodeName) -> Option<VmHere> {
        self.nodes.get(node).map(|status| status.vms.of(&self.vm_id.name))
    }

    /// The ownership record. None: there is none, or it is not known.
    pub fn record(&self) -> Option<&VmRecord> {
        self.stored().map(|stored| &stored.record)
    }

    /// True if the ownership record names this node as the owner, in whatever epoch.
    pub fn owns(&self) -> bool {
        self.record().and_then(|record| record.owner.as_ref()).is_some_and(|owner| owner.node == self.me)
    }

    /// The stop an operator asked for.
    pub fn stop(&self) -> Option<&Stop> {
        self.intents.known()?.stop.as_ref()
    }

    /// The start an operator asked for and nobody has taken up.
    pub fn start_asked(&self) -> Option<&Start> {
        let taken_up = self.record().and_then(|record| record.start_taken_up);
        self.intents.known()?.start.as_ref().filter(|start| taken_up != Some(start.id))
    }

    /// The disk to start the VM from, where that is another than the document's image: it wrote there last. It is not
    /// where an operator says `zsha start --from-image`, or the document names another image since.
    pub fn disk(&self) -> Option<&DiskInUse> {
        let disk = self.record()?.disk.as_ref()?;
        let is_to_be_left = self.start_asked().is_some_and(|start| start.from_image);
        let image = self.document().map(|desired| desired.domain.image.source());
        let still_stands = image.is_none_or(|image| image == disk.instead_of);
        (still_stands && !is_to_be_left).then_some(disk)
    }

    /// The questions to this node's host. None: there is no document to ask for anything.
    pub fn questions(&self) -> Option<HostWants> {
        Some(self.document()?.wants_of(&self.me, self.disk()))
    }

    /// Since when nothing is to be begun.
    pub fn frozen(&self) -> Option<&Asked> {
        self.intents.known()?.freeze.as_ref()
    }

    /// Why the VM is not to be on this node, where an operator said so.
    pub fn cordon(&self, node: &NodeName) -> Option<&Cordon> {
        self.intents.known()?.drained.get(node)
    }

    /// The shutdown of a host that has said that it shuts down, if it is still in the boot in which it said so. The
    /// order in the store may be of any time.
    pub fn shutdown_of(&self, node: &NodeName) -> Option<&HostShutdown> {
        let shutdown = self.shutdowns.known()?.get(node)?;
        let present = *node != self.me || self.sees_the_leases();
        let boot = &self.sights.get(node).filter(|_| present)?.record.boot_id;
        (shutdown.boot_id == *boot).then_some(shutdown)
    }

    /// The epoch of this node's lease, if it is valid now.
    pub fn valid_epoch(&self) -> Option<u64> {
        self.lease.known().filter(|v| v.valid(self.now)).map(|v| v.epoch)
    }

    /// True if the VM runs as the document in force says; None if it does not run, or that cannot be told.
    pub fn is_up_to_date(&self) -> Option<bool> {
        let desired = self.document()?;
        let running = self.local.known()?.generation()?;
        if running == desired.generation {
            return Some(true);
        }
        let domain = self.running_domain.as_ref()?;
        Some(DomainSpec { generation: desired.generation, ..(**domain).clone() } == desired.domain)
    }

    /// True if the leases that are seen are of a time when this node's present life was written down already. Then
    /// those of the others are all there, and no older than that.
    pub fn sees_the_leases(&self) -> bool {
        let Some(verdict) = self.lease.known() else { return false };
        let mine = self.sights.get(&self.me).map(|sight| &sight.record);
        mine.is_some_and(|mine| (mine.incarnation, mine.epoch) == (verdict.incarnation, verdict.epoch))
    }

    /// The expectation that this node's keeper was told, in the present life of its lease. None: nobody knows, or it
    /// was told in an earlier life.
    pub fn expects(&self) -> Option<Expectation> {
        self.lease.known()?.expects
    }

    /// True if a copy that is here is this node's own in the present life of its lease, by what its keeper was told.
    pub fn expects_own(&self) -> bool {
        self.expects() == Some(Expectation::Own)
    }

    /// Says how a guest has ended that the record says to be here, and that is gone without a word of the hypervisor.
    /// It may have been moved away. That is written down in one place, libvirt's log; where the log could not be read,
    /// the end counts as unread. A guest of an earlier life of the lease is no concern of this one.
    pub fn doubt_what_is_gone_without_a_word(&mut self) {
        let life = self.lease.known().map(|verdict| verdict.epoch);
        let was_here = runs_on(&self.vm, &self.me).is_some_and(|owner| Some(owner.epoch) == life);
        let gone = self.local.known().is_some_and(LocalVm::is_gone_without_a_word);
        if !was_here || !gone || planted::is_planted(Bug::GoneUnread) {
            return;
        }
        match &self.last_end {
            Observed::Known(Some(reason)) => self.local = Observed::Known(LocalVm::Off { reason: *reason }),
            Observed::Known(None) => {}
            Observed::Unknown(_) => self.local = Observed::Known(LocalVm::Off { reason: OffReason::Unread }),
        }
    }

    /// The leases of the other nodes.
    pub fn others(&self) -> impl Iterator<Item = &Sight> {
        self.sights.values().filter(|sight| sight.record.node != self.me)
    }

    /// The incarnation of this node's lease; nil where it is not known.
    pub fn incarnation(&self) -> Uuid {
        self.lease.known().map_or(Uuid::nil(), |verdict| verdict.incarnation)
    }
}

/// The owner by the record, where that is `node` and the VM has not left it in any way that is known.
pub fn runs_on(vm: &Observed<Option<StoredVm>>, node: &NodeName) -> Option<Owner> {
    let record = &vm.known()?.as_ref()?.record;
    let stays = record.phase == VmPhase::Running && record.migration.is_none() && record.departed.is_none();
    record.owner.clone().filter(|owner| stays && owner.node == *node)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use zsha_crds::records::{LeaseRecord, Owner};
    use zsha_runtime::lease::Observer;

    use super::*;

    const SEEN: Moment = Moment::from_nanos(100_000_000_000);

    /// The sight of another node's lease that was seen to be renewed, by a node whose own lease is renewed without a
    /// break since then.
    fn judged(unbroken_since: Option<Moment>) -> Sight {
        let other = Owner { node: NodeName::new("nfs-2").unwrap(), epoch: 1 };
        let mut observer = Observer::default();
        observer.see(SEEN - Duration::from_secs(1), LeaseRecord::lost(&other, Timestamp::UNIX_EPOCH), 7);
        observer.see(SEEN, LeaseRecord::lost(&other, Timestamp::UNIX_EPOCH), 8);
        let verdict = verdict(unbroken_since);
        let seen =
            sights(observer.sights().clone(), SEEN + Duration::from_secs(60), &Observed::Known(verdict));
        seen[&other.node].clone()
    }

    fn verdict(unbroken_since: Option<Moment>) -> Verdict {
        Verdict {
            unbroken_since,
            copies: Some(0),
            expects: Some(zsha_runtime::lease::Expectation::Nothing),
            ..Verdict::invalid("nfs-1")
        }
    }

    #[test]
    fn what_was_seen_before_the_own_lease_was_last_broken_is_no_news_and_is_waited_for_from_then() {
        let broken = SEEN + Duration::from_millis(1);
        let sight = judged(Some(broken));
        assert_eq!((sight.is_news, sight.sent_by), (false, broken));
    }

    #[test]
    fn news_takes_two_looks_and_both_must_have_been_since() {
        let sight = judged(Some(SEEN));
        assert_eq!((sight.is_news, sight.sent_by), (false, SEEN));
    }

    #[test]
    fn a_keepers_word_that_the_store_went_back_counts_for_a_while() {
        let mut verdict = verdict(None);
        let went = |verdict: &Verdict, now| went_back(false, now, &Observed::Known(verdict.clone()));
        assert!(!went(&verdict, SEEN));
        verdict.store_went_back = Some(SEEN);
        assert!(went(&verdict, SEEN + Duration::from_secs(599)));
        assert!(!went(&verdict, SEEN + Duration::from_secs(600)));
        assert!(went_back(true, SEEN, &Observed::unknown("no keeper")));
    }

    #[test]
    fn what_was_seen_since_counts_as_it_was_seen() {
        let both_looks = SEEN - Duration::from_secs(1);
        for unbroken in [both_looks, SEEN - Duration::from_secs(60)] {
            let sight = judged(Some(unbroken));
            assert_eq!((sight.is_news, sight.sent_by), (true, SEEN), "{unbroken:?}");
        }
    }

    #[test]
    fn until_the_own_lease_is_renewed_after_a_step_back_of_the_store_nobody_is_judged() {
        let sight = judged(None);
        assert_eq!((sight.is_news, sight.sent_by), (false, SEEN + Duration::from_secs(60)));
    }
}
