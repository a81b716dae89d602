//! Events on the embedded store and its faults, under a paused clock.

use zsha_crds::records::EventRecord;
use zsha_crds::{ClusterName, EventReason};

use super::*;
use crate::store::Op;
use crate::store::faulty::FaultyStore;

fn keys() -> Keys {
    Keys::new(&ClusterName::new("c").unwrap())
}

fn node() -> NodeName {
    NodeName::new("n1").unwrap()
}

fn recorder(store: &FaultyStore) -> (Recorder, Task) {
    let clock = Clock::Tokio { start: Instant::now(), rate_ppm: 0 };
    Recorder::new(Arc::new(store.clone()), &keys(), node(), clock, Config::default())
}

fn started(message: &str) -> Event {
    Event::new(EventReason::Started, "vm/mnvm", message)
}

fn stored(store: &FaultyStore) -> Vec<EventRecord> {
    let entries = store.inner.read_all(&keys().events_of(&node())).entries;
    let mut records: Vec<EventRecord> =
        entries.iter().map(|entry| serde_json::from_str(&entry.value).unwrap()).collect();
    records.sort_by_key(|record| (record.last_at, record.message.clone()));
    records
}

#[tokio::test(start_paused = true)]
async fn the_same_event_again_counts_up_and_keeps_its_first_time() {
    let store = FaultyStore::default();
    for _ in 0..2 {
        let (recorder, task) = recorder(&store);
        for _ in 0..3 {
            recorder.publish(started("on n1"));
        }
        recorder.publish(Event { kind: EventType::Warning, ..started("on n1") });
        drop(recorder);
        task.run().await;
    }
    let records = stored(&store);
    assert_eq!(records.len(), 2, "of another type it is another event");
    let normal = records.iter().find(|record| record.kind == EventType::Normal).unwrap();
    assert_eq!((normal.count, normal.node.clone()), (6, node()));
}

#[tokio::test(start_paused = true)]
async fn the_newest_events_of_a_node_are_kept_and_no_more() {
    let store = FaultyStore::default();
    let (recorder, task) = recorder(&store);
    let publish = async {
        for n in 0..250 {
            recorder.publish(started(&format!("run {n:03}")));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        drop(recorder);
    };
    tokio::join!(task.run(), publish);
    let records = stored(&store);
    assert_eq!(records.len(), 100);
    assert_eq!(records[0].message, "run 150");
    assert_eq!(records[99].message, "run 249");
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_events_makes_few_writes() {
    let store = FaultyStore::default();
    let (recorder, task) = recorder(&store);
    let publish = async {
        for n in 0..10_000 {
            recorder.publish(started(&format!("run {}", n % 20)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(recorder);
    };
    tokio::join!(task.run(), publish);
    assert_eq!(stored(&store).iter().map(|record| record.count).sum::<u32>(), 10_000);
    assert!(store.faults().calls <= 26, "{} calls in ten seconds", store.faults().calls);
}

#[tokio::test(start_paused = true)]
async fn publishing_into_an_outage_neither_waits_nor_loses_anything() {
    let store = FaultyStore::default();
    store.make_unavailable();
    let (recorder, task) = recorder(&store);
    let publish = async {
        for n in 0..200 {
            recorder.publish(started(&format!("run {n:03}")));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        store.faults().error = None;
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(recorder);
    };
    tokio::join!(task.run(), publish);
    let records = stored(&store);
    assert_eq!(records.len(), 100);
    assert_eq!((&*records[0].message, &*records[99].message), ("run 100", "run 199"));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_is_looked_up_and_the_events_are_there() {
    let store = FaultyStore::default();
    store.faults().lose_next_answer = true;
    let (recorder, task) = recorder(&store);
    recorder.publish(started("on n1"));
    drop(recorder);
    task.run().await;
    let records = stored(&store);
    assert_eq!(records.len(), 1);
    assert!(records[0].count >= 1);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_value_among_the_events_is_in_nobodys_way() {
    let store = FaultyStore::default();
    let key = format!("{}stray", keys().events_of(&node()));
    store.inner.apply(&[Op::Create { key: key.clone(), value: "not an event".into() }]).unwrap();
    let (recorder, task) = recorder(&store);
    for n in 0..100 {
        recorder.publish(started(&n.to_string()));
    }
    drop(recorder);
    task.run().await;
    assert_eq!(store.inner.read(&key), None, "it was the first to make room");
    assert_eq!(stored(&store).len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_dead_store_holds_up_the_end_for_the_farewell_and_no_longer() {
    let store = FaultyStore::default();
    store.make_unavailable();
    let (recorder, task) = recorder(&store);
    recorder.publish(started("on n1"));
    drop(recorder);
    let before = Instant::now();
    task.run().await;
    let longest = Config::default().farewell + Config::default().backoff.cap;
    assert!(before.elapsed() <= longest);
}

#[tokio::test(start_paused = true)]
async fn a_message_of_any_length_fits() {
    let store = FaultyStore::default();
    let (recorder, task) = recorder(&store);
    recorder.publish(started(&"ä".repeat(100_000)));
    drop(recorder);
    task.run().await;
    assert_eq!(stored(&store)[0].message.len(), LONGEST_MESSAGE);
}
