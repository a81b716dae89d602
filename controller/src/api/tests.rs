//! Tests the window over a real socket, as a browser and a shell see it, and the stream by values.

pub(crate) mod asking;
mod connections;

use std::future::pending;

use asking::{Server, ask};
use futures::StreamExt;

use super::stream::{Message, PULSE_EVERY, Reader};
use super::*;

fn status(text: &str) -> ClusterStatus {
    serde_json::from_str(text).unwrap()
}

fn healthy() -> ClusterStatus {
    status(include_str!("testdata/healthy.json"))
}

fn failing() -> ClusterStatus {
    status(include_str!("testdata/failing.json"))
}

/// A snapshot of this status at the time of `clock`, confirmed by the store at this moment.
fn showing(status: ClusterStatus, clock: Clock) -> Arc<Snapshot> {
    Arc::new(Snapshot {
        status: Some(status),
        confirmed: Some(clock.now()),
        hypervisor: HypervisorSight::Seen,
        ..Snapshot::default()
    })
}

fn window(first: Arc<Snapshot>, clock: Clock) -> (watch::Sender<Arc<Snapshot>>, Window) {
    let (sender, feed) = watch::channel(first);
    let own_names = OwnNames::new(["nfs-1".to_owned()]);
    (sender, Window { feed, metrics: Arc::default(), clock, own_names })
}

async fn serving(first: Arc<Snapshot>) -> (watch::Sender<Arc<Snapshot>>, Server) {
    let (sender, window) = window(first, Clock::Boottime);
    (sender, Server::start(|listener| serve(listener, window, pending())).await)
}

async fn healthy_server() -> (watch::Sender<Arc<Snapshot>>, Server) {
    serving(showing(healthy(), Clock::Boottime)).await
}

#[tokio::test]
async fn the_process_is_alive_before_anything_is_known_and_ready_only_after() {
    let (feed, server) = serving(Arc::default()).await;
    assert_eq!(server.get("/healthz").await.status, 200);
    let not_yet = server.get("/readyz").await;
    assert_eq!(not_yet.status, 503);
    assert_eq!(not_yet.body, "the store has not been read yet\nthe hypervisor has not been looked at yet\n");
    assert_eq!(server.get("/api/v1/status").await.status, 503);
    feed.send_replace(showing(healthy(), Clock::Boottime));
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn the_status_is_the_summary_itself_with_its_age_beside_it() {
    let (_feed, server) = healthy_server().await;
    let answer = server.get("/api/v1/status").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert!(answer.header("x-zsha-data-age-millis").unwrap().parse::<u64>().is_ok());
    assert_eq!(status(&answer.body), healthy());
}

#[tokio::test]
async fn whatever_is_not_reading_is_refused_on_every_path() {
    let (_feed, server) = healthy_server().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        for path in ["/", "/api/v1/status", "/api/v1/events", "/nowhere"] {
            let answer = ask(server.address, &format!("{method} {path}"), "localhost").await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
            assert_eq!(answer.json()["reason"], "ReadOnly");
        }
    }
    let head = ask(server.address, "HEAD /api/v1/status", "localhost").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn an_unknown_path_is_a_404_in_json() {
    let (_feed, server) = healthy_server().await;
    let answer = server.get("/api/v2/status").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["kind"], "Status");
}

#[tokio::test]
async fn a_request_that_names_another_host_is_refused() {
    let (_feed, server) = healthy_server().await;
    for host in ["127.0.0.1", "localhost:7717", "nfs-1", "NFS-1:7717"] {
        assert_eq!(ask(server.address, "GET /api/v1/status", host).await.status, 200, "{host}");
    }
    for target in ["/api/v1/status", "/", "/metrics", "/nowhere"] {
        assert_eq!(ask(server.address, &format!("GET {target}"), "evil.example").await.status, 421);
    }
    let absolute = ask(server.address, "GET http://evil.example/api/v1/status", "localhost").await;
    assert_eq!(absolute.status, 421);
}

#[tokio::test]
async fn every_answer_tells_browsers_to_be_strict() {
    let (_feed, server) = healthy_server().await;
    for path in ["/", "/page.js", "/page.css", "/icon.svg", "/api/v1/status", "/nowhere"] {
        let answer = server.get(path).await;
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere_and_nothing_inline() {
    let (_feed, server) = healthy_server().await;
    let page = server.get("/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    for forbidden in ["http://", "https://", "<style", "style=", "onclick", "<script>"] {
        assert!(!page.body.contains(forbidden), "{forbidden}");
    }
    let script = server.get("/page.js").await;
    assert_eq!(script.header("content-type"), Some("text/javascript; charset=utf-8"));
    for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
        assert!(!script.body.contains(forbidden), "{forbidden}");
    }
}

#[tokio::test]
async fn the_page_is_told_the_tone_of_every_word_by_its_type() {
    let (_feed, server) = healthy_server().await;
    let script = server.get("/page.js").await.body;
    let tones = script.split("const TONES = ").nth(1).and_then(|rest| rest.split(";\n").next()).unwrap();
    let tones: serde_json::Value = serde_json::from_str(tones).unwrap();
    for lease in LeaseWord::ALL {
        assert_eq!(tones["lease"][format!("{lease:?}")], serde_json::json!(lease.tone()), "{lease:?}");
    }
    assert_eq!(
        (&tones["state"]["Running"], &tones["event"]["Warning"]),
        (&"good".into(), &"doubtful".into())
    );
}

#[tokio::test]
async fn the_schema_is_served_as_it_is_published() {
    let (_feed, server) = healthy_server().await;
    let schema = server.get("/schema/v1.json").await;
    assert_eq!(schema.json(), *zsha_crds::schema::json_schema());
}

#[tokio::test]
async fn a_stream_begins_with_the_present_state_and_goes_on_with_every_change() {
    let (feed, server) = healthy_server().await;
    let mut stream = server.open("/api/v1/events").await;
    let first = stream.until("event: pulse").await;
    assert!(first.contains("text/event-stream"), "{first}");
    assert!(first.contains("event: status") && first.contains(r#""state":"Running""#), "{first}");
    feed.send_replace(showing(failing(), Clock::Boottime));
    let next = stream.until(r#""state":"Unknown""#).await;
    assert!(next.contains("event: status"), "{next}");
}

#[tokio::test]
async fn a_stream_too_many_is_refused_and_a_closed_one_makes_room() {
    let (_feed, server) = healthy_server().await;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        let mut stream = server.open("/api/v1/events").await;
        stream.until("event: pulse").await;
        streams.push(stream);
    }
    assert!(server.get("/metrics").await.body.contains("zsha_event_streams 64\n"));
    let refused = server.get("/api/v1/events").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.json()["reason"], "TooManyStreams");
    drop(streams.pop());
    let room = async {
        while !server.get("/metrics").await.body.contains("zsha_event_streams 63\n") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(asking::LONG, room).await.expect("the closed stream still has its place");
}

#[tokio::test]
async fn a_shutdown_ends_the_streams_and_the_server() {
    let (_feed, window) = window(showing(healthy(), Clock::Boottime), Clock::Boottime);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = Server::start(|listener| {
        serve(listener, window, async move {
            let _ = stopped.await;
        })
    })
    .await;
    let mut stream = server.open("/api/v1/events").await;
    stream.until("event: pulse").await;
    stop.send(()).unwrap();
    stream.ends().await;
    server.ended().await.unwrap();
}

fn reader(feed: watch::Receiver<Arc<Snapshot>>, clock: Clock) -> (watch::Sender<bool>, Reader) {
    let (close, closing) = watch::channel(false);
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    (close, Reader::new(feed, closing, clock, place))
}

fn paused_clock() -> Clock {
    Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 }
}

#[tokio::test(start_paused = true)]
async fn a_status_computed_anew_that_says_the_same_is_only_a_pulse() {
    let clock = paused_clock();
    let (feed, window) = window(showing(healthy(), clock), clock);
    let (_close, mut reader) = reader(window.feed, clock);
    assert!(matches!(reader.next().await, Some(Message::Status(_))));
    assert!(matches!(reader.next().await, Some(Message::Pulse(_))));
    let later = ClusterStatus { as_of: "2026-11-22T20:00:00Z".parse().unwrap(), ..healthy() };
    feed.send_replace(showing(later, clock));
    assert!(matches!(reader.next().await, Some(Message::Pulse(_))));
    feed.send_replace(showing(failing(), clock));
    assert!(matches!(reader.next().await, Some(Message::Status(_))));
}

#[tokio::test(start_paused = true)]
async fn a_quiet_cluster_has_a_pulse_every_ten_seconds_with_the_age_of_the_data() {
    let clock = paused_clock();
    let (_feed, window) = window(showing(healthy(), clock), clock);
    let (_close, reader) = reader(window.feed, clock);
    let events: Vec<_> = reader.into_events().take(4).collect().await;
    let text = format!("{events:?}");
    assert_eq!(
        clock.now().since(Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 }.now()),
        PULSE_EVERY * 2
    );
    assert!(text.contains(r#"\"ageMillis\":20"#), "{text}");
    assert!(text.contains("has not confirmed the data for over 15 s"), "{text}");
}

#[test]
fn old_data_and_a_lost_hypervisor_are_reasons_not_to_be_ready() {
    let now = Moment::from_millis(100_000);
    let mut snapshot = Snapshot {
        confirmed: Some(now - STALE_AFTER),
        hypervisor: HypervisorSight::Seen,
        ..Snapshot::default()
    };
    assert!(snapshot.not_ready(now).is_empty());
    assert_eq!(
        snapshot.not_ready(now + Duration::from_secs(1)),
        ["the store has not confirmed the data for over 15 s"]
    );
    snapshot.store_problem = Some("no leader".to_owned());
    snapshot.hypervisor = HypervisorSight::Lost("connection refused".to_owned());
    let reasons = snapshot.not_ready(now);
    assert_eq!(
        reasons,
        ["the store cannot be read: no leader", "the hypervisor cannot be seen: connection refused"]
    );
}

#[test]
fn metrics_are_prometheus_text_in_a_stable_order() {
    let now = Moment::from_millis(100_000);
    let metrics = Metrics::default();
    metrics.passed();
    metrics.passed();
    metrics.stepped("StartPaused");
    metrics.failed("store", "unavailable");
    metrics.failed("hypervisor", "unanswered");
    metrics.set_store_requests("watch", 7);
    let snapshot = Snapshot {
        status: Some(failing()),
        confirmed: Some(Moment::from_millis(99_250)),
        store_problem: None,
        hypervisor: HypervisorSight::Seen,
        lease_valid_until: Some(Moment::from_millis(107_500)),
        vm_running_here: Some(true),
    };
    insta::assert_snapshot!(metrics.render(&snapshot, now));
}

#[test]
fn what_is_not_known_is_absent_from_the_metrics_and_not_zero() {
    let text = Metrics::default().render(&Snapshot::default(), Moment::from_millis(1));
    for absent in
        ["zsha_data_age_seconds", "zsha_lease_valid_seconds", "zsha_vm_running_here", "zsha_protected"]
    {
        assert!(!text.contains(absent), "{absent}");
    }
    assert!(text.contains("zsha_ready 0\n"), "{text}");
}
