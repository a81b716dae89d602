//! The steps that look and act, on one embedded node with a real keeper loop.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use uuid::Uuid;
use zsha_crds::records::{Intent, LeaseRecord, Outcome, VmRecord};
use zsha_crds::{ClusterName, EventReason, Keys, NodeName, VmId, VmName};
use zsha_runtime::Clock;
use zsha_runtime::store::{Entry, Listing, MemoryStore, Op, Read, Store, StoreError, Txn};

use super::{ActError, Edges, act};
use crate::embedded::Machine;
use crate::guest::GuestWants;
use crate::hypervisor::simulated::{Delays, Fault, SimulatedHosts};
use crate::hypervisor::{DomainImage, DomainSpec};
use crate::observe::{HostSight, observe};
use crate::plan::blindness::Blindness;
use crate::plan::{Notes, Step, Still, Write};
use crate::views::{self, Views};

mod writes;

struct Rig {
    edges: Edges,
    views: Views,
    hosts: Arc<SimulatedHosts>,
    me: NodeName,
    keeper: JoinHandle<()>,
}

impl Rig {
    async fn new() -> Self {
        let cluster = ClusterName::new("prod").unwrap();
        let me = NodeName::new("nfs-1").unwrap();
        let clock = Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 };
        let hosts = SimulatedHosts::new(VmId::of(&cluster));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let machine =
            Machine::new(cluster.clone(), me.clone(), clock, Arc::clone(&store), Arc::clone(&hosts));
        let (line, keeper) = machine.keeper();
        let keeper = tokio::spawn(keeper);
        let reader = views::Reader { me: me.clone(), reads: zsha_crds::format::READS };
        let views = views::watch(&store, &cluster, clock, 1, reader).views;
        let edges = Edges {
            me: me.clone(),
            keys: Keys::new(&cluster),
            clock,
            store,
            hypervisor: Arc::clone(&machine.hypervisor),
            host: Arc::clone(&machine.host) as _,
            lease: Arc::new(line),
        };
        let mut changes = edges.lease.changes();
        while !edges.lease.verdict().await.unwrap().valid(clock.now()) {
            changes.changed().await.unwrap();
        }
        Self { edges, views, hosts, me, keeper }
    }
}

#[tokio::test(start_paused = true)]
async fn a_look_that_takes_long_is_judged_by_what_the_keeper_says_after_it() {
    let rig = Rig::new().await;
    let slow = Delays { call: Duration::from_secs(4), ..Delays::NONE };
    rig.hosts.set_delays(&rig.me, slow);
    let before = rig.edges.lease.verdict().await.unwrap();
    let world = observe(&rig.edges, &rig.views, &HostSight::default(), &mut Blindness::default()).await;
    let seen = world.lease.known().unwrap();
    assert!(seen.seq > before.seq + 2, "it was renewed meanwhile: {} and {}", before.seq, seen.seq);
    assert_eq!(seen.seq, rig.edges.lease.verdict().await.unwrap().seq);
    rig.keeper.abort();
}

/// A first record of the VM, written by the holder of this lease.
fn rests_on_the_lease(lease: &LeaseRecord) -> Write {
    Write {
        record: VmRecord::unplaced(VmId::of(&ClusterName::new("prod").unwrap())),
        index: None,
        epoch: lease.epoch,
        incarnation: lease.incarnation,
        rests_on: vec![],
        fence: vec![],
        reason: EventReason::Running,
        message: "a test writes it".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_a_store_that_shows_an_earlier_time_of_a_lease() {
    let rig = Rig::new().await;
    let lease = rig.edges.store.get(&rig.edges.keys.lease(&rig.me), Read::Consistent).await.unwrap().unwrap();
    let record: LeaseRecord = serde_json::from_str(&lease.value).unwrap();
    let vm = VmName::management();
    let write = rests_on_the_lease(&record);
    rig.views.saw_lease(record, lease.modify_index + 1);
    let done =
        act(&rig.edges, &rig.views, &Step::Write(Box::new(write.clone())), &mut Notes::default()).await;
    assert!(matches!(&done, Err(ActError::Moved(why)) if why.contains("an earlier time")), "{done:?}");
    assert!(rig.views.went_back());
    let kept = rig.edges.store.get(&rig.edges.keys.vm(&vm), Read::Consistent).await.unwrap();
    assert_eq!(kept, None);
    rig.views.saw_lease(serde_json::from_str(&lease.value).unwrap(), lease.modify_index);
    act(&rig.edges, &rig.views, &Step::Write(Box::new(write)), &mut Notes::default()).await.unwrap();
    rig.keeper.abort();
}

/// A store in which a watch shows a later lease while a list of it is on its way.
#[derive(Debug)]
struct Overtaken {
    inner: Arc<dyn Store>,
    views: Views,
    later: LeaseRecord,
    index: u64,
}

#[async_trait]
impl Store for Overtaken {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key, read).await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        let listing = self.inner.list(prefix, read).await;
        self.views.saw_lease(self.later.clone(), self.index);
        listing
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        self.inner.watch(prefix, after, wait).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        self.inner.txn(ops).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_while_it_is_read_is_no_sign_that_the_store_went_back() {
    let mut rig = Rig::new().await;
    let lease = rig.edges.store.get(&rig.edges.keys.lease(&rig.me), Read::Consistent).await.unwrap().unwrap();
    let record: LeaseRecord = serde_json::from_str(&lease.value).unwrap();
    rig.edges.store = Arc::new(Overtaken {
        inner: Arc::clone(&rig.edges.store),
        views: rig.views.clone(),
        later: LeaseRecord { seq: record.seq + 1, ..record.clone() },
        index: lease.modify_index + 1,
    });
    let write = Step::Write(Box::new(rests_on_the_lease(&record)));
    act(&rig.edges, &rig.views, &write, &mut Notes::default()).await.unwrap();
    assert!(!rig.views.went_back());
    rig.keeper.abort();
}

/// The restore of a snapshot was a moment ago, and the keeper has not seen it yet.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_a_store_that_shows_the_own_lease_as_it_was_before_it_was_renewed() {
    let rig = Rig::new().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(rig.edges.lease.verdict().await.unwrap().confirmed >= 3, "renewed every second");
    let key = rig.edges.keys.lease(&rig.me);
    let lease = rig.edges.store.get(&key, Read::Consistent).await.unwrap().unwrap();
    let record: LeaseRecord = serde_json::from_str(&lease.value).unwrap();
    let earlier = serde_json::to_string(&LeaseRecord { seq: 1, ..record.clone() }).unwrap();
    let put_back = Op::Cas { key, value: earlier, index: lease.modify_index };
    assert!(rig.edges.store.txn(vec![put_back]).await.unwrap().committed());
    let write = rests_on_the_lease(&record);
    let done = act(&rig.edges, &rig.views, &Step::Write(Box::new(write)), &mut Notes::default()).await;
    assert!(
        matches!(&done, Err(ActError::Moved(why)) if why.contains("it has gone back in time")),
        "{done:?}"
    );
    assert!(rig.views.went_back());
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_not_ended_for_a_lease_that_is_valid_again() {
    let rig = Rig::new().await;
    let lapsed = Step::KillCopy { because: "its lease had lapsed".to_owned(), if_still: Some(Still::Lapsed) };
    let done = act(&rig.edges, &rig.views, &lapsed, &mut Notes::default()).await;
    assert!(matches!(done, Err(ActError::Moved(_))), "{done:?}");
    let not_its_own = Step::KillCopy { because: "it is another's".to_owned(), if_still: None };
    act(&rig.edges, &rig.views, &not_its_own, &mut Notes::default()).await.unwrap();
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_keeper_that_does_not_answer_is_no_reason_to_end_a_copy() {
    let rig = Rig::new().await;
    rig.keeper.abort();
    while rig.edges.lease.verdict().await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let lapsed = Step::KillCopy { because: "its lease had lapsed".to_owned(), if_still: Some(Still::Lapsed) };
    let done = act(&rig.edges, &rig.views, &lapsed, &mut Notes::default()).await;
    assert!(matches!(done, Err(ActError::Keeper(_))), "{done:?}");
}

/// Writes the intent as the only thing under its key.
async fn intend(rig: &Rig, value: &str) {
    let key = rig.edges.keys.intent(Intent::POWER);
    let there = rig.edges.store.get(&key, Read::Consistent).await.unwrap();
    let value = value.to_owned();
    let op = match there {
        Some(entry) => Op::Cas { key, value, index: entry.modify_index },
        None => Op::Create { key, value },
    };
    assert!(rig.edges.store.txn(vec![op]).await.unwrap().committed());
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_not_stopped_by_an_order_that_was_taken_back() {
    let rig = Rig::new().await;
    let steps = [
        Step::Shutdown { because: "an operator asked for it".to_owned(), if_still: Still::ToStop },
        Step::KillCopy { because: "it took too long".to_owned(), if_still: Some(Still::ToStop) },
    ];
    let at = "1970-01-01T00:00:00Z";
    let stop = format!(r#"{{"kind":"stop","by":"ann","at":"{at}","message":""}}"#);
    for step in &steps {
        for not_wanted in [r#"{"kind":"none"}"#, "no JSON"] {
            intend(&rig, not_wanted).await;
            let done = act(&rig.edges, &rig.views, step, &mut Notes::default()).await;
            assert!(matches!(done, Err(ActError::Moved(_))), "{step:?}: {done:?}");
        }
        intend(&rig, &stop).await;
        let mut notes = Notes::default();
        let done = act(&rig.edges, &rig.views, step, &mut notes).await;
        assert!(!matches!(done, Err(ActError::Moved(_))), "{step:?}: {done:?}");
        // There is nothing that could be asked; its time runs all the same, or it would never be ended.
        let asks = matches!(step, Step::Shutdown { .. });
        assert_eq!(notes.tried.shutdown_asked.is_some(), asks, "{step:?}: {done:?}");
    }
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_not_shut_down_with_a_host_that_does_not_say_so_or_said_it_in_another_boot() {
    let rig = Rig::new().await;
    let key = rig.edges.keys.intent(&Intent::drain_of(&rig.me));
    let drain = |shutdown: &str| {
        format!(r#"{{"kind":"drain","by":"ann","at":"1970-01-01T00:00:00Z","message":""{shutdown}}}"#)
    };
    let of_boot = |boot: &str| drain(&format!(r#","shutdown":{{"bootId":"{boot}"}}"#));
    // The lease is of the first boot; its holder's views are filled by watching, which nobody does here.
    let lease = rig.edges.store.get(&rig.edges.keys.lease(&rig.me), Read::Consistent).await.unwrap().unwrap();
    rig.views.saw_lease(serde_json::from_str(&lease.value).unwrap(), lease.modify_index);
    let steps = [
        Step::Shutdown { because: "it shuts down".to_owned(), if_still: Still::HostGoesDown },
        Step::KillCopy { because: "it took too long".to_owned(), if_still: Some(Still::HostGoesDown) },
    ];
    for step in &steps {
        for (value, so) in [
            (r#"{"kind":"none"}"#.to_owned(), false),
            ("no JSON".to_owned(), false),
            (drain(""), false),
            (of_boot("boot-0"), false),
            (of_boot("boot-1"), true),
        ] {
            let there = rig.edges.store.get(&key, Read::Consistent).await.unwrap();
            let op = match there {
                Some(entry) => Op::Cas { key: key.clone(), value: value.clone(), index: entry.modify_index },
                None => Op::Create { key: key.clone(), value: value.clone() },
            };
            assert!(rig.edges.store.txn(vec![op]).await.unwrap().committed());
            let done = act(&rig.edges, &rig.views, step, &mut Notes::default()).await;
            assert_eq!(!matches!(done, Err(ActError::Moved(_))), so, "{step:?}, {value}: {done:?}");
        }
    }
    rig.keeper.abort();
}

#[tokio::test(start_paused = true)]
async fn what_comes_of_a_password_is_kept_until_it_is_in_the_record() {
    let rig = Rig::new().await;
    let id = Uuid::from_u128(7);
    let mut notes = Notes::default();
    let step = Step::SetPassword { id, by: "ann".to_owned() };
    assert!(act(&rig.edges, &rig.views, &step, &mut notes).await.unwrap().is_empty());
    let failed = notes.tried.password.take().unwrap();
    assert_eq!((failed.id, failed.outcome), (id, Outcome::Failed));
    assert!(failed.message.contains("the domain is not running"), "{}", failed.message);
    let vm = VmName::management();
    let domain = DomainSpec {
        uuid: vm.domain_uuid(&ClusterName::new("prod").unwrap()),
        name: vm,
        generation: 1,
        memory_mib: 64,
        vcpus: 1,
        image: DomainImage::qcow2("/share/mnvm.img"),
        nics: Vec::new(),
        guest: GuestWants::default(),
    };
    rig.edges.hypervisor.start_paused(&domain).await.unwrap();
    rig.edges.hypervisor.resume().await.unwrap();
    act(&rig.edges, &rig.views, &step, &mut notes).await.unwrap();
    assert_eq!(notes.tried.password.take().unwrap().outcome, Outcome::Done);
    rig.hosts.set_fault(&rig.me, Some(Fault::AnswersLost));
    act(&rig.edges, &rig.views, &step, &mut notes).await.unwrap();
    let unknown = notes.tried.password.unwrap();
    assert_eq!(unknown.outcome, Outcome::Failed);
    assert!(unknown.message.contains("it is not known whether"), "{}", unknown.message);
    rig.keeper.abort();
}
