//! A client over an embedded store, as a dashboard would use it: nothing here parses arguments or prints.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use zsha_crds::decode::{Options, decode_bytes};
use zsha_crds::records::Intent;
use zsha_crds::{ClusterName, HaCluster, Keys};

use super::apply::{By, Prepared, Write, prepare};
use super::clusters::{ClusterError, the_only};
use super::commit::Fate;
use super::document::Live;
use super::order::{BeginError, Order};
use super::past::history;
use super::until::{Is, Progress, UntilError};
use super::watch::Onlooker;
use crate::clock::Clock;
use crate::store::{MemoryStore, Op};

fn document() -> HaCluster {
    let text = include_bytes!("../../../../manifests/examples/cluster.yaml");
    decode_bytes(text, "cluster.yaml", &Options::default()).unwrap().cluster
}

fn clock() -> Clock {
    Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 }
}

async fn prepared(store: &MemoryStore, document: &HaCluster) -> (Live, Prepared) {
    let keys = Keys::new(document.name());
    let live = Live::read(store, &keys).await.unwrap();
    let by = By {
        who: "alice@desk".into(),
        at: Timestamp::UNIX_EPOCH,
        message: String::new(),
        command: "apply".into(),
    };
    let prepared = prepare(store, &keys, &live, document, by).await.unwrap();
    (live, prepared)
}

async fn write(store: &MemoryStore, document: &HaCluster) -> Write {
    match prepared(store, document).await.1 {
        Prepared::Write(write) => write,
        unchanged @ Prepared::Unchanged { .. } => panic!("{unchanged:?}"),
    }
}

async fn applied() -> (MemoryStore, ClusterName) {
    let (store, document) = (MemoryStore::new(), document());
    let fate = write(&store, &document).await.commit(&store).await.unwrap();
    assert!(matches!(fate, Fate::InForce { index } if index > 0), "{fate:?}");
    (store, document.name().clone())
}

fn freeze() -> Intent {
    Intent::Freeze { by: "alice@desk".into(), at: Timestamp::UNIX_EPOCH, message: String::new() }
}

#[tokio::test(start_paused = true)]
async fn a_document_is_put_in_force_once_and_the_second_time_nothing_is_to_be_written() {
    let (store, name) = applied().await;
    let (live, again) = prepared(&store, &document()).await;
    assert!(matches!(again, Prepared::Unchanged { generation: 1 }), "{again:?}");
    assert_eq!((live.generation(), live.needed().unwrap()), (1, document()));
    assert_eq!(the_only(&store).await.unwrap(), name);
}

#[tokio::test(start_paused = true)]
async fn of_two_who_apply_over_the_same_look_the_second_is_told_what_is_in_force() {
    let (store, document) = (MemoryStore::new(), document());
    let (first, second) = (write(&store, &document).await, write(&store, &document).await);
    assert!(first.created && second.generation == 1);
    first.commit(&store).await.unwrap();
    match second.commit(&store).await.unwrap() {
        Fate::Lost(now) => assert_eq!(now.generation(), 1),
        fate @ Fate::InForce { .. } => panic!("{fate:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_order_is_written_once_and_is_looked_on_at_until_it_is_so() {
    let (store, name) = applied().await;
    for changed in [true, false] {
        let mut order = Order::begin(Arc::new(store.clone()), name.clone(), clock()).await.unwrap();
        let is_same = |there: &Intent| matches!(there, Intent::Freeze { .. });
        order.put(Intent::FREEZE, &freeze(), is_same).await.unwrap();
        assert_eq!(order.changed, changed);
        let mut looks = 0;
        let mut until = order.until(Duration::from_secs(60), |view, _| {
            looks += 1;
            match (looks, view.frozen()) {
                (1, _) => Is::Going("a first look".into()),
                (_, Some(_)) => Is::So("frozen".into()),
                (_, None) => Is::NotYet("it is not frozen".into()),
            }
        });
        assert_eq!(until.next().await.unwrap(), Progress::Going("a first look".into()));
        assert_eq!(until.next().await.unwrap(), Progress::Done("frozen".into()));
        assert_eq!(looks, 3, "what is so is looked at twice");
    }
    let view = Onlooker::new(Arc::new(store), name, clock()).look().await.unwrap();
    assert!(view.frozen().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_true_says_at_the_end_what_it_waits_for() {
    let (store, name) = applied().await;
    let mut order = Order::begin(Arc::new(store), name, clock()).await.unwrap();
    let limit = Duration::from_secs(3);
    let mut until = order.until(limit, |_, _| Is::NotYet("the tide".into()));
    for _ in 0..4 {
        assert_eq!(until.next().await.unwrap(), Progress::NotYet("the tide".into()));
    }
    assert_eq!(until.next().await, Err(UntilError::TimedOut { limit, waits: "the tide".into() }));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_a_cluster_without_a_document() {
    let store = MemoryStore::new();
    assert_eq!(the_only(&store).await, Err(ClusterError::NoneSeen));
    let name = ClusterName::new("prod").unwrap();
    let begun = Order::begin(Arc::new(store.clone()), name.clone(), clock()).await;
    assert_eq!(begun.unwrap_err(), BeginError::NoDocument);
    store.apply(&[Op::Create { key: Keys::new(&name).spec(), value: "{".into() }]).unwrap();
    let begun = Order::begin(Arc::new(store), name, clock()).await;
    assert!(matches!(begun, Err(BeginError::Unreadable { .. })), "{begun:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_in_force_is_told_beside_what_cannot_be_read() {
    let (store, name) = applied().await;
    let key = Keys::new(&name).history_of(7);
    store.apply(&[Op::Create { key: key.clone(), value: "{".into() }]).unwrap();
    let past = history(&store, &name).await.unwrap();
    let by: Vec<_> = past.records.iter().map(|record| (record.generation, &*record.applied_by)).collect();
    assert_eq!(by, [(1, "alice@desk")]);
    assert_eq!(past.unreadable.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&key]);
}
