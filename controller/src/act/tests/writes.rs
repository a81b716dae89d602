//! What belongs to a write of the ownership record, and what is remembered where no answer came.

use std::fmt;
use std::sync::Mutex;

use tokio::sync::watch;
use zsha_crds::records::{ByVm, LeaseState, LeaseTimings, Owner, VmCount};
use zsha_runtime::Moment;
use zsha_runtime::lease::{Expectation, Observer, Sight};

use super::*;
use crate::keeper::{KeeperError, Lease, Verdict};
use crate::plan::ResumeBecause;

/// A store in which somebody writes after the leases were read and before the record is written, or that loses the
/// answer to the write.
#[derive(Debug)]
struct Meanwhile {
    inner: Arc<dyn Store>,
    others: Mutex<Vec<Op>>,
    answer_lost: bool,
}

#[async_trait]
impl Store for Meanwhile {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key, read).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        self.inner.list(prefix, read).await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.inner.watch(prefix, after, wait).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        let others = std::mem::take(&mut *self.others.lock().unwrap());
        if !others.is_empty() {
            assert!(self.inner.txn(others).await?.committed());
        }
        let done = self.inner.txn(ops).await;
        if self.answer_lost {
            return Err(StoreError::Unknown { operation: "txn".to_owned(), reason: "lost".to_owned() });
        }
        done
    }
}

/// The keeper, with a verdict other than its own, or with something else that happens while it is asked.
struct Retold<F>(Arc<dyn Lease>, F);

impl<F> fmt::Debug for Retold<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Retold").field(&self.0).finish_non_exhaustive()
    }
}

#[async_trait]
impl<F: Fn(Verdict) -> Verdict + Send + Sync + 'static> Lease for Retold<F> {
    async fn verdict(&self) -> Result<Verdict, KeeperError> {
        Ok(self.1(self.0.verdict().await?))
    }

    async fn set_timings(&self, timings: LeaseTimings) -> Result<(), KeeperError> {
        self.0.set_timings(timings).await
    }

    async fn set_watchdog(&self, wanted: bool) -> Result<(), KeeperError> {
        self.0.set_watchdog(wanted).await
    }

    async fn expect(&self, what: Expectation) -> Result<(), KeeperError> {
        self.0.expect(what).await
    }

    async fn release(&self) -> Result<(), KeeperError> {
        self.0.release().await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }
}

async fn lease_of(rig: &Rig, node: &NodeName) -> (LeaseRecord, u64) {
    let entry = rig.edges.store.get(&rig.edges.keys.lease(node), Read::Consistent).await.unwrap().unwrap();
    (serde_json::from_str(&entry.value).unwrap(), entry.modify_index)
}

/// Another node's lease, as it is in the store now.
async fn another(rig: &Rig) -> Sight {
    other(rig, "nfs-2").await
}

async fn other(rig: &Rig, name: &str) -> Sight {
    let node = NodeName::new(name).unwrap();
    let lost = LeaseRecord::lost(&Owner { node: node.clone(), epoch: 1 }, jiff::Timestamp::UNIX_EPOCH);
    let held = LeaseRecord { state: LeaseState::Held, seq: 5, vms: counted(0), ..lost };
    let value = serde_json::to_string(&held).unwrap();
    let create = Op::Create { key: rig.edges.keys.lease(&node), value };
    assert!(rig.edges.store.txn(vec![create]).await.unwrap().committed());
    let (record, index) = lease_of(rig, &node).await;
    let mut observer = Observer::default();
    observer.see(rig.edges.clock.now(), record, index);
    observer.get(&node).unwrap().clone()
}

/// A write of the record by this node, resting on its own lease as it is now.
async fn own_write(rig: &Rig) -> Write {
    rests_on_the_lease(&lease_of(rig, &rig.me).await.0)
}

async fn written(rig: &Rig, write: Write) -> Result<(), ActError> {
    act(&rig.edges, &rig.views, &Step::Write(Box::new(write)), &mut Notes::default()).await.map(|_| ())
}

async fn record_is_there(rig: &Rig) -> bool {
    let key = rig.edges.keys.vm(&VmName::management());
    rig.edges.store.get(&key, Read::Consistent).await.unwrap().is_some()
}

/// Has this written to the store between the read of the leases and the write of the record.
fn meanwhile(rig: &mut Rig, record: &LeaseRecord, index: u64) {
    let (key, value) = (rig.edges.keys.lease(&record.node), serde_json::to_string(record).unwrap());
    rig.edges.store = Arc::new(Meanwhile {
        inner: Arc::clone(&rig.edges.store),
        others: Mutex::new(vec![Op::Cas { key, value, index }]),
        answer_lost: false,
    });
}

/// A keeper's count of the VM's processes.
fn counted(copies: u32) -> ByVm<VmCount> {
    ByVm::only(VmName::management(), VmCount { copies: Some(copies), moved_away_in: None })
}

#[tokio::test(start_paused = true)]
async fn a_write_fails_where_the_own_lease_is_fenced_after_it_was_read() {
    let mut rig = Rig::new().await;
    let write = own_write(&rig).await;
    let (lease, index) = lease_of(&rig, &rig.me).await;
    let fenced = LeaseRecord { state: LeaseState::Fenced, epoch: lease.epoch + 1, ..lease };
    meanwhile(&mut rig, &fenced, index);
    let done = written(&rig, write).await;
    assert!(matches!(done, Err(ActError::Moved(_))), "{done:?}");
    assert!(!record_is_there(&rig).await);
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_write_fails_where_another_that_said_it_had_no_copy_says_otherwise_after_it_was_read() {
    let mut rig = Rig::new().await;
    let sight = another(&rig).await;
    let write = Write { rests_on: vec![sight.clone()], ..own_write(&rig).await };
    let has_one = LeaseRecord { vms: counted(1), seq: 6, ..sight.record };
    meanwhile(&mut rig, &has_one, sight.index);
    let done = written(&rig, write).await;
    assert!(matches!(done, Err(ActError::Moved(_))), "{done:?}");
    assert!(!record_is_there(&rig).await);
    rig.keeper.abort();
}

/// A write over the record of a cluster of 99 nodes, whose word it rests on.
async fn of_many(rig: &Rig) -> Write {
    let own = own_write(rig).await;
    let key = rig.edges.keys.vm(&own.record.name);
    let create = Op::Create { key: key.clone(), value: serde_json::to_string(&own.record).unwrap() };
    assert!(rig.edges.store.txn(vec![create]).await.unwrap().committed());
    let index = rig.edges.store.get(&key, Read::Consistent).await.unwrap().unwrap().modify_index;
    let mut rests_on = Vec::new();
    for number in 2..100 {
        rests_on.push(other(rig, &format!("nfs-{number}")).await);
    }
    let record =
        VmRecord { note: "claimed".to_owned(), revision: own.record.revision + 1, ..own.record.clone() };
    Write { record, index: Some(index), rests_on, ..own }
}

async fn record_of(rig: &Rig) -> VmRecord {
    let key = rig.edges.keys.vm(&VmName::management());
    serde_json::from_str(&rig.edges.store.get(&key, Read::Consistent).await.unwrap().unwrap().value).unwrap()
}

/// The store takes no more than 64 operations.
#[tokio::test(start_paused = true)]
async fn a_write_that_rests_on_the_word_of_98_nodes_commits() {
    let rig = Rig::new().await;
    let write = of_many(&rig).await;
    written(&rig, write.clone()).await.unwrap();
    let record = record_of(&rig).await;
    assert_eq!((record.note.as_str(), record.revision), ("claimed", write.record.revision + 1));
    rig.keeper.abort();
}

/// The owner lives, and would find its record written by another node.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_ahead_of_a_write_that_does_not_hold_as_it_is() {
    let rig = Rig::new().await;
    let write = of_many(&rig).await;
    let before = record_of(&rig).await;
    let now = write.rests_on[7].clone();
    let watched = Sight { record: LeaseRecord { seq: 4, ..now.record.clone() }, ..now.clone() };
    let has_one = Sight { record: LeaseRecord { vms: counted(1), ..now.record.clone() }, index: 1, ..now };
    let spoken = Write { rests_on: [vec![has_one], write.rests_on.clone()].concat(), ..write.clone() };
    for write in [Write { fence: vec![watched], ..write }, spoken] {
        let done = written(&rig, write).await;
        assert!(matches!(done, Err(ActError::Moved(_))), "{done:?}");
        assert_eq!(record_of(&rig).await, before);
    }
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn the_word_of_many_is_read_after_an_own_write() {
    let mut rig = Rig::new().await;
    let write = of_many(&rig).await;
    let sight = write.rests_on[50].clone();
    let has_one = LeaseRecord { vms: counted(1), seq: 6, ..sight.record };
    meanwhile(&mut rig, &has_one, sight.index);
    let done = written(&rig, write).await;
    assert!(matches!(&done, Err(ActError::Moved(why)) if why.contains("nfs-52")), "{done:?}");
    assert_ne!(record_of(&rig).await.note, "claimed");
    rig.keeper.abort();
}

/// A node that claims a copy in place writes the record.
#[tokio::test(start_paused = true)]
async fn a_write_that_rests_on_many_fails_where_another_has_written_the_record_meanwhile() {
    let mut rig = Rig::new().await;
    let write = of_many(&rig).await;
    let (key, theirs) = (
        rig.edges.keys.vm(&write.record.name),
        VmRecord { note: "theirs".to_owned(), ..record_of(&rig).await },
    );
    let value = serde_json::to_string(&theirs).unwrap();
    rig.edges.store = Arc::new(Meanwhile {
        inner: Arc::clone(&rig.edges.store),
        others: Mutex::new(vec![Op::Cas { key, value, index: write.index.unwrap() }]),
        answer_lost: false,
    });
    let done = written(&rig, write).await;
    assert!(matches!(done, Err(ActError::Moved(_))), "{done:?}");
    assert_eq!(record_of(&rig).await.note, "theirs");
    rig.keeper.abort();
}

/// A restored snapshot can bring an index round again, with another renewal under it.
#[tokio::test(start_paused = true)]
async fn nobody_is_fenced_by_an_index_alone() {
    let rig = Rig::new().await;
    let now = another(&rig).await;
    let watched = Sight { record: LeaseRecord { seq: 4, ..now.record.clone() }, ..now.clone() };
    let done = written(&rig, Write { fence: vec![watched], ..own_write(&rig).await }).await;
    assert!(matches!(done, Err(ActError::Moved(_))), "{done:?}");
    assert_eq!(lease_of(&rig, &now.record.node).await.0.state, LeaseState::Held);
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn ownership_is_not_given_up_while_nobody_can_see_the_processes() {
    let mut rig = Rig::new().await;
    let unseeing = |verdict| Verdict { copies: None, ..verdict };
    rig.edges.lease = Arc::new(Retold(Arc::clone(&rig.edges.lease), unseeing));
    let write = own_write(&rig).await;
    let done = written(&rig, write).await;
    assert!(matches!(&done, Err(ActError::Moved(why)) if why.contains("cannot be seen")), "{done:?}");
    assert!(!record_is_there(&rig).await);
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn after_a_write_that_was_not_answered_nothing_is_started_by_what_was_written_before() {
    let mut rig = Rig::new().await;
    let write = own_write(&rig).await;
    rig.views.wrote(write.record.clone(), 1, rig.edges.clock.now());
    assert!(rig.views.written().is_some());
    let others = Mutex::default();
    rig.edges.store = Arc::new(Meanwhile { inner: Arc::clone(&rig.edges.store), others, answer_lost: true });
    let done = written(&rig, write).await;
    assert!(matches!(done, Err(ActError::Store(StoreError::Unknown { .. }))), "{done:?}");
    assert_eq!(rig.views.written(), None);
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_let_run_by_what_was_written_before_the_store_went_back() {
    let rig = Rig::new().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let write = own_write(&rig).await;
    let sent = rig.edges.clock.now();
    rig.views.wrote(write.record.clone(), 1, sent);
    let resume = Step::Resume { epoch: write.epoch, because: ResumeBecause::Started };
    let resumed = async || act(&rig.edges, &rig.views, &resume, &mut Notes::default()).await;
    let done = resumed().await;
    assert!(matches!(done, Err(ActError::Hypervisor(_))), "there is only nothing to let run: {done:?}");
    let (lease, index) = lease_of(&rig, &rig.me).await;
    let earlier = serde_json::to_string(&LeaseRecord { seq: 1, ..lease }).unwrap();
    let put_back = Op::Cas { key: rig.edges.keys.lease(&rig.me), value: earlier, index };
    assert!(rig.edges.store.txn(vec![put_back]).await.unwrap().committed());
    let renewed_since = async || rig.edges.lease.verdict().await.unwrap().unbroken_since;
    while renewed_since().await.is_none_or(|since: Moment| since <= sent) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let done = resumed().await;
    assert!(matches!(&done, Err(ActError::Moved(why)) if why.contains("gone back")), "{done:?}");
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_let_run_in_an_epoch_that_is_over() {
    let rig = Rig::new().await;
    let write = own_write(&rig).await;
    let epoch = write.epoch;
    rig.views.wrote(write.record, 1, rig.edges.clock.now());
    let resume = Step::Resume { epoch: epoch + 1, because: ResumeBecause::Started };
    let done = act(&rig.edges, &rig.views, &resume, &mut Notes::default()).await;
    assert!(matches!(done, Err(ActError::Moved(_))), "{done:?}");
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn no_lease_that_is_seen_is_newer_than_what_the_keeper_says() {
    let mut rig = Rig::new().await;
    let (lease, index) = lease_of(&rig, &rig.me).await;
    rig.views.saw_lease(lease.clone(), index);
    let (views, anew) = (rig.views.clone(), LeaseRecord { seq: lease.seq + 1, ..lease.clone() });
    let listed_meanwhile = move |verdict| {
        views.saw_lease(anew.clone(), index + 1);
        verdict
    };
    rig.edges.lease = Arc::new(Retold(Arc::clone(&rig.edges.lease), listed_meanwhile));
    let world = observe(&rig.edges, &rig.views, &HostSight::default(), &mut Blindness::default()).await;
    assert_eq!(
        rig.views.sights()[&rig.me].record.seq,
        lease.seq + 1,
        "it was listed while the keeper was asked"
    );
    assert_eq!(world.sights[&rig.me].record.seq, lease.seq);
    rig.keeper.abort();
}

/// The notes of a node that gives a move up, after a write that ended in this way.
async fn after_giving_up_a_move(change: impl AsyncFnOnce(&mut Rig)) -> Notes {
    let mut rig = Rig::new().await;
    let write = Write { reason: EventReason::MigrationFailed, ..own_write(&rig).await };
    change(&mut rig).await;
    let mut notes = Notes::default();
    let _ = act(&rig.edges, &rig.views, &Step::Write(Box::new(write)), &mut notes).await;
    rig.keeper.abort();
    notes
}

#[tokio::test(start_paused = true)]
async fn a_write_is_remembered_when_it_is_in_force_and_one_that_lost_its_race_is_not() {
    let done = after_giving_up_a_move(async |_| {}).await;
    assert_eq!((done.tried.move_at.is_some(), done.tried.moves_failed), (true, 1));
    let lost = after_giving_up_a_move(async |rig| {
        let (lease, index) = lease_of(rig, &rig.me).await;
        meanwhile(rig, &LeaseRecord { state: LeaseState::Fenced, epoch: lease.epoch + 1, ..lease }, index);
    })
    .await;
    assert_eq!(lost, Notes::default());
    let unanswered = after_giving_up_a_move(async |rig| {
        let inner = Arc::clone(&rig.edges.store);
        rig.edges.store = Arc::new(Meanwhile { inner, others: Mutex::default(), answer_lost: true });
    })
    .await;
    assert_eq!((unanswered.tried.move_at.is_some(), unanswered.tried.moves_failed), (true, 0), "perhaps");
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_is_remembered_also_where_it_failed_and_what_was_not_tried_is_not() {
    let rig = Rig::new().await;
    written(&rig, own_write(&rig).await).await.unwrap();
    let epoch = rig.edges.lease.verdict().await.unwrap().epoch;
    let tried = async |step: Step| {
        let mut notes = Notes::default();
        let done = act(&rig.edges, &rig.views, &step, &mut notes).await;
        (done.is_ok(), notes.tried)
    };
    let resume = |epoch| Step::Resume { epoch, because: ResumeBecause::IoErrorOver };
    let (done, not_tried) = tried(resume(epoch + 1)).await;
    assert_eq!((done, not_tried.retry_at), (false, None), "it was not this node's to let run");
    let (done, refused) = tried(resume(epoch)).await;
    assert_eq!((done, refused.retry_at.is_some()), (false, true), "there is nothing to let run");
    let (done, aborted) = tried(Step::AbortMigration { id: Uuid::nil(), because: String::new() }).await;
    assert_eq!((done, aborted.aborted.is_some()), (true, true));
    let power_off = Step::Shutdown { because: String::new(), if_still: Still::HostGoesDown };
    let (done, not_asked) = tried(power_off).await;
    assert_eq!((done, not_asked.shutdown_asked), (false, None), "nobody says that the host shuts down");
    let seed = crate::guest::Seed {
        meta_data: String::new(),
        user_data: String::new(),
        network_config: String::new(),
    };
    let (done, seeded) = tried(Step::WriteSeed(Arc::new(seed))).await;
    assert_eq!(
        (done, seeded.seed_at.is_some()),
        (true, true),
        "whether it is there is for the next look to say"
    );
    rig.keeper.abort();
}
