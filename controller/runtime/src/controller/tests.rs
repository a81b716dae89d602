//! The controller under a paused clock: what starts a run, and what does not.

use std::pin::Pin;
use std::sync::Mutex;

use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::store::{MemoryStore, Op};
use crate::watcher::{Config, watcher};

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("failed")]
struct Failed;

/// The runs: when each began, and for which key.
#[derive(Debug, Default)]
struct World {
    runs: Mutex<Vec<(Duration, &'static str)>>,
    beside: Mutex<(usize, usize)>,
}

type Results =
    Pin<Box<dyn Stream<Item = Result<(&'static str, Action), Error<&'static str, Failed>>> + Send>>;

fn keys() -> (mpsc::UnboundedSender<&'static str>, impl Stream<Item = &'static str> + Send + 'static) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|key| (key, receiver))
    });
    (sender, stream)
}

/// Runs that take one second each, and end as `result` says.
fn run(
    controller: Controller<&'static str>,
    world: &Arc<World>,
    result: impl Fn() -> Result<Action, Failed> + Clone + Send + 'static,
) -> Results {
    let start = Instant::now();
    let reconcile = move |key, world: Arc<World>| {
        let result = result.clone();
        async move {
            world.runs.lock().unwrap().push((start.elapsed(), key));
            {
                let mut beside = world.beside.lock().unwrap();
                beside.0 += 1;
                beside.1 = beside.1.max(beside.0);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            world.beside.lock().unwrap().0 -= 1;
            result()
        }
    };
    let policy = |_: &&'static str, _: &Failed, _: &World| Action::requeue(Duration::from_secs(3));
    Box::pin(controller.run(reconcile, policy, world.clone()))
}

fn begun(world: &World) -> Vec<(u64, &'static str)> {
    world.runs.lock().unwrap().iter().map(|(at, key)| (at.as_secs(), *key)).collect()
}

#[tokio::test(start_paused = true)]
async fn wake_ups_that_come_together_are_one_run() {
    let world = Arc::new(World::default());
    let (sender, stream) = keys();
    for _ in 0..100 {
        sender.send("a").unwrap();
    }
    drop(sender);
    let results = run(Controller::new().reconcile_on(stream), &world, || Ok(Action::await_change()));
    assert!(results.count().await <= 2, "those that came before the first run, and those during it");
}

#[tokio::test(start_paused = true)]
async fn a_change_during_a_run_starts_another_right_after_it_and_never_beside_it() {
    let world = Arc::new(World::default());
    let (sender, stream) = keys();
    let controller = Controller::new().reconcile_on(stream).concurrency(4);
    let mut results = run(controller, &world, || Ok(Action::await_change()));
    sender.send("a").unwrap();
    let changes = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sender.send("a").unwrap();
        sender.send("a").unwrap();
    };
    let two = async {
        results.next().await;
        results.next().await;
    };
    tokio::join!(changes, two);
    assert_eq!(begun(&world), [(0, "a"), (1, "a")]);
    assert_eq!(world.beside.lock().unwrap().1, 1);
}

#[tokio::test(start_paused = true)]
async fn different_keys_run_side_by_side_up_to_the_limit() {
    let world = Arc::new(World::default());
    let (sender, stream) = keys();
    for key in ["a", "b", "c"] {
        sender.send(key).unwrap();
    }
    drop(sender);
    let controller = Controller::new().reconcile_on(stream).concurrency(2);
    let results = run(controller, &world, || Ok(Action::await_change()));
    assert_eq!(results.count().await, 3);
    assert_eq!(world.beside.lock().unwrap().1, 2);
    assert_eq!(begun(&world), [(0, "a"), (0, "b"), (1, "c")]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_asks_for_it_is_called_again_and_a_change_comes_first() {
    let world = Arc::new(World::default());
    let (sender, stream) = keys();
    let mut results =
        run(Controller::new().reconcile_on(stream), &world, || Ok(Action::requeue(Duration::from_secs(10))));
    sender.send("a").unwrap();
    results.next().await;
    results.next().await;
    sender.send("a").unwrap();
    results.next().await;
    results.next().await;
    assert_eq!(begun(&world), [(0, "a"), (11, "a"), (12, "a"), (23, "a")]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_awaits_a_change_has_the_safety_net_and_no_delay_is_longer() {
    for action in [Action::await_change(), Action::requeue(Duration::from_secs(9_999))] {
        let world = Arc::new(World::default());
        let (sender, stream) = keys();
        let controller = Controller::new().reconcile_on(stream).max_delay(Duration::from_secs(20));
        let mut results = run(controller, &world, move || Ok(action));
        sender.send("a").unwrap();
        results.next().await;
        results.next().await;
        assert_eq!(begun(&world), [(0, "a"), (21, "a")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_is_told_and_called_again_as_the_policy_says() {
    let world = Arc::new(World::default());
    let (sender, stream) = keys();
    let mut results = run(Controller::new().reconcile_on(stream), &world, || Err(Failed));
    sender.send("a").unwrap();
    for _ in 0..2 {
        let error = results.next().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Reconcile { key: "a", source: Failed }));
    }
    assert_eq!(begun(&world), [(0, "a"), (4, "a")]);
}

#[tokio::test(start_paused = true)]
async fn on_shutdown_the_run_under_way_is_finished_and_no_other_begins() {
    let world = Arc::new(World::default());
    let (sender, stream) = keys();
    let (stop, stopped) = oneshot::channel::<()>();
    let controller = Controller::new()
        .reconcile_on(stream)
        .graceful_shutdown_on(async { stopped.await.unwrap_or_default() });
    let results = run(controller, &world, || Ok(Action::requeue(Duration::ZERO)));
    sender.send("a").unwrap();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        sender.send("b").unwrap();
        stop.send(()).unwrap();
    };
    let (results, ()) = tokio::join!(results.collect::<Vec<_>>(), stop);
    assert_eq!(results.len(), 1);
    assert!(results[0].is_ok());
    assert_eq!(begun(&world), [(0, "a")]);
}

#[tokio::test(start_paused = true)]
async fn a_change_in_the_store_starts_a_run_at_once_and_a_bookmark_does_not() {
    let store = MemoryStore::new();
    let world = Arc::new(World::default());
    let events = watcher(Arc::new(store.clone()), "p/", Config::default());
    let controller = Controller::new()
        .watches(events, |event| event.key().map(|_| "cluster"))
        .max_delay(Duration::from_secs(1_000));
    let mut results = run(controller, &world, || Ok(Action::await_change()));
    let create = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        store.apply(&[Op::Create { key: "p/a".into(), value: "1".into() }]).unwrap();
    };
    tokio::join!(results.next(), create);
    assert_eq!(begun(&world), [(100, "cluster")]);
}

#[tokio::test(start_paused = true)]
async fn a_watched_stream_tells_its_errors_and_runs_go_on() {
    let world = Arc::new(World::default());
    let (sender, stream) = keys();
    let cut = StoreError::Unavailable { operation: "watch".into(), reason: "cut".into() };
    let failing = futures::stream::iter([Err(cut.clone())]);
    let controller = Controller::new().watches(failing, |_| None).reconcile_on(stream);
    let mut results = run(controller, &world, || Ok(Action::await_change()));
    sender.send("a").unwrap();
    let (mut errors, mut runs) = (0, 0);
    for _ in 0..2 {
        match results.next().await.unwrap() {
            Ok(_) => runs += 1,
            Err(Error::Watch(error)) => {
                assert_eq!(error, cut);
                errors += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((errors, runs), (1, 1));
}
