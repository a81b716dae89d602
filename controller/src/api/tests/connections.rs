//! Tests peers that mean no good, or nothing: half a request, a stream that is not read, more connections than there is
//! room.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::asking::{LONG, Server};
use super::*;
use crate::api::connections::{Limits, serve as take_connections};

fn few() -> Limits {
    Limits {
        in_all: 8,
        each: 4,
        headers_within: Duration::from_millis(500),
        unread_for: Duration::from_secs(1),
    }
}

async fn serving_within(limits: Limits) -> (watch::Sender<Arc<Snapshot>>, Server) {
    let (sender, window) = window(showing(healthy(), Clock::Boottime), Clock::Boottime);
    (sender, Server::start(|listener| serve_within(limits, listener, window, pending())).await)
}

/// Connects from another address of loopback, so that no place of ours is taken.
async fn connect_from(last: u8, server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, last], 0).into()).unwrap();
    socket.connect(server.address).await.unwrap()
}

/// Reads what comes until the server closes.
async fn rest(connection: &mut TcpStream) -> String {
    let mut said = Vec::new();
    // A reset is an end too.
    let _ = timeout(LONG, connection.read_to_end(&mut said)).await.expect("it is not closed");
    String::from_utf8_lossy(&said).into_owned()
}

/// Waits until the metrics have this line; asks from a place of its own.
async fn counted(server: &Server, line: &str) {
    let counts = async {
        while !server.get("/metrics").await.body.contains(line) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, counts).await.unwrap_or_else(|_| panic!("never counted: {line}"));
}

#[tokio::test]
async fn half_open_requests_of_one_address_are_refused_beyond_its_share_and_others_are_answered() {
    let (_feed, server) = serving_within(few()).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut half = connect_from(2, &server).await;
        half.write_all(b"GET / HTTP/1.1\r\nHost: local").await.unwrap();
        held.push(half);
    }
    let mut refused = connect_from(2, &server).await;
    let said = rest(&mut refused).await;
    assert!(
        said.starts_with("HTTP/1.1 503") && said.ends_with("too many connections are open already"),
        "{said}"
    );
    assert_eq!(server.get("/healthz").await.status, 200);
    counted(&server, "zsha_page_connections_refused_total{limit=\"address\"} 1\n").await;
}

#[tokio::test]
async fn beyond_what_all_may_have_together_everybody_is_refused_until_the_half_open_ones_are_closed() {
    let (_feed, server) = serving_within(few()).await;
    let mut held = Vec::new();
    for at in 0..8 {
        held.push(connect_from(2 + at / 4, &server).await);
    }
    let mut refused = connect_from(9, &server).await;
    assert!(rest(&mut refused).await.starts_with("HTTP/1.1 503"));
    for connection in &mut held {
        assert_eq!(rest(connection).await, "", "no word, and closed after its time");
    }
    assert_eq!(server.get("/healthz").await.status, 200);
    counted(&server, "zsha_page_connections_refused_total{limit=\"all\"} 1\n").await;
    counted(&server, "zsha_page_connections 1\n").await;
}

#[tokio::test]
async fn headers_that_come_slowly_are_not_waited_for() {
    let (_feed, server) = serving_within(few()).await;
    let mut slow = connect_from(2, &server).await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let (mut reads, mut writes) = slow.split();
    let dripping = async {
        while writes.write_all(b"X-More: 1\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut said = Vec::new();
    tokio::select! {
        () = dripping => {}
        _ = timeout(LONG, reads.read_to_end(&mut said)) => {}
    }
    counted(&server, "zsha_page_connections 1\n").await;
    assert!(!String::from_utf8_lossy(&said).contains("200 OK"), "{said:?}");
}

#[tokio::test]
async fn a_request_of_more_than_a_browser_sends_is_refused() {
    let (_feed, server) = serving_within(few()).await;
    let mut endless = connect_from(2, &server).await;
    let _ = endless.write_all(format!("GET /{} HTTP/1.1\r\n", "a".repeat(64 << 10)).as_bytes()).await;
    let said = rest(&mut endless).await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
}

#[tokio::test]
async fn a_body_that_never_comes_holds_nobody_up() {
    let (_feed, server) = serving_within(few()).await;
    let mut half = connect_from(2, &server).await;
    half.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
    assert!(rest(&mut half).await.starts_with("HTTP/1.1 405"));
}

/// Its kernel takes what fits and then nothing more, and goes on answering the probes of ours.
#[tokio::test]
async fn a_stream_that_nobody_reads_is_ended_and_one_that_is_read_goes_on() {
    let (feed, server) = serving_within(few()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = socket.connect(server.address).await.unwrap();
    stalled.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut read = server.open("/api/v1/events").await;
    read.until("event: pulse").await;
    counted(&server, "zsha_event_streams 2\n").await;
    // News without end, each of them another.
    let said = AtomicUsize::new(0);
    let news = async {
        loop {
            let mut status = healthy();
            status.cluster =
                zsha_crds::ClusterName::new(format!("lab-{}", said.fetch_add(1, Ordering::Relaxed))).unwrap();
            feed.send_replace(showing(status, Clock::Boottime));
            read.until("event: status").await;
        }
    };
    tokio::select! {
        () = news => {}
        () = counted(&server, "zsha_event_streams 1\n") => {}
    }
    assert!(said.load(Ordering::Relaxed) > 0);
    drop(stalled);
}

#[tokio::test]
async fn an_answer_that_panics_costs_its_own_connection_alone() {
    let metrics = Arc::new(Metrics::default());
    let counts = Arc::clone(&metrics);
    let routes = Router::new()
        .route("/", get(async || "ok\n"))
        .route("/broken", get(async || -> Response { panic!("told by the test") }));
    let server = Server::start(|listener| async move {
        take_connections(listener, routes, few(), counts, pending()).await;
        Ok(())
    })
    .await;
    let mut broken = connect_from(2, &server).await;
    broken.write_all(b"GET /broken HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut broken).await, "");
    assert_eq!(server.get("/").await.status, 200);
    let text = metrics.render(&Snapshot::default(), Moment::from_millis(1));
    assert!(text.contains("zsha_errors_total{edge=\"page\",kind=\"panic\"} 1\n"), "{text}");
}
