//! Waiting on the embedded store, under a paused clock.

use super::*;
use crate::store::Op;
use crate::store::faulty::FaultyStore;

const MINUTE: Duration = Duration::from_secs(60);

fn create(store: &FaultyStore, value: &str) {
    let op = Op::Create { key: "k".into(), value: value.into() };
    assert!(store.inner.apply(&[op]).unwrap().committed());
}

fn is(value: &'static str) -> impl Fn(Option<&Entry>) -> bool {
    move |entry| entry.is_some_and(|entry| entry.value == value)
}

#[tokio::test(start_paused = true)]
async fn what_holds_already_needs_no_waiting() {
    let store = FaultyStore::default();
    assert_eq!(await_condition(&store, "k", |entry| entry.is_none(), MINUTE).await, Ok(None));
    create(&store, "x");
    assert_eq!(await_condition(&store, "k", is("x"), MINUTE).await.unwrap().unwrap().value, "x");
}

#[tokio::test(start_paused = true)]
async fn it_returns_when_the_state_comes_even_through_an_outage() {
    let store = FaultyStore::default();
    let start = Instant::now();
    let change = async {
        store.make_unavailable();
        tokio::time::sleep(MINUTE / 2).await;
        store.faults().error = None;
        tokio::time::sleep(MINUTE / 4).await;
        create(&store, "x");
    };
    let (seen, ()) = tokio::join!(await_condition(&store, "k", is("x"), MINUTE), change);
    assert!(seen.is_ok());
    assert!(start.elapsed() < MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_does_not_come_times_out_and_says_how_it_was() {
    let store = FaultyStore::default();
    create(&store, "other");
    match await_condition(&store, "k", is("x"), MINUTE).await {
        Err(WaitError::TimedOut { last: Some(last), source: None, .. }) => assert_eq!(last.value, "other"),
        other => panic!("{other:?}"),
    }
    store.make_unavailable();
    let outage = await_condition(&store, "k", is("x"), MINUTE).await;
    assert!(matches!(outage, Err(WaitError::TimedOut { last: None, source: Some(_), .. })));
}

#[tokio::test(start_paused = true)]
async fn a_missing_right_ends_the_wait_at_once() {
    let store = FaultyStore::default();
    let denied = StoreError::Denied { operation: "read".into(), reason: "Permission denied".into() };
    store.faults().error = Some(denied.clone());
    let refused = WaitError::Refused { key: "k".into(), source: denied };
    assert_eq!(await_condition(&store, "k", is("x"), MINUTE).await, Err(refused));
}

#[tokio::test(start_paused = true)]
async fn being_woken_by_neighbours_costs_no_more_than_a_look_each_pause() {
    let store = FaultyStore::default();
    store.faults().woken_by_neighbours_after = Some(Duration::ZERO);
    assert!(await_condition(&store, "k", is("x"), Duration::from_secs(1)).await.is_err());
    assert!(store.faults().calls <= 21, "{}", store.faults().calls);
}
