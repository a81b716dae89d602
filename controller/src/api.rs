//! The read-only window of a controller: it serves health, metrics, status and one page to people and programs, from
//! what the controller already knows.
//!
//! It never asks Consul or the hypervisor anything, changes nothing, and never shows old data as if it were
//! present: everything it says comes with its age.

pub mod connections;
pub mod consul_subset;
mod guard;
mod metrics;
mod stream;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::sse::Sse;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use zsha_crds::records::EventType;
use zsha_crds::status::{ClusterStatus, ControllerState, LeaseWord};
use zsha_crds::{ConditionStatus, VmState, tone};
use zsha_runtime::{Clock, Moment};

pub use connections::Limits;
pub use guard::OwnNames;
use guard::refusal;
pub use metrics::Metrics;

/// A controller looks at its store every few seconds even when nothing changes; after three times that, what it
/// shows is old.
pub const STALE_AFTER: Duration = Duration::from_secs(15);
/// Event streams at a time. Each is a connection held open; a room of screens has fewer.
pub const MAX_STREAMS: usize = 64;
/// Answers under way at a shutdown may take so long; then they are cut.
const DRAIN: Duration = Duration::from_secs(1);

/// The data that is served: the controller's newest word, replaced as a whole after every pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// None before the store was first read.
    pub status: Option<ClusterStatus>,
    /// The moment when the store last confirmed it, also where the store said nothing new.
    pub confirmed: Option<Moment>,
    /// The reason why the store cannot be read just now, if it cannot.
    pub store_problem: Option<String>,
    /// The word of the hypervisor, or why it says nothing.
    pub hypervisor: HypervisorSight,
    /// The moment until which this node may run the VM.
    pub lease_valid_until: Option<Moment>,
    /// True if the VM runs here. None: not known.
    pub vm_running_here: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HypervisorSight {
    #[default]
    NotYetSeen,
    Seen,
    Lost(String),
}

impl Snapshot {
    /// The age of the data; none if there is none.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        self.confirmed.map(|confirmed| now.since(confirmed))
    }

    /// The reasons why this controller is not of use just now, a sentence each; empty where it is.
    pub fn not_ready(&self, now: Moment) -> Vec<String> {
        let mut reasons = Vec::new();
        match (&self.store_problem, self.age(now)) {
            (Some(problem), _) => reasons.push(format!("the store cannot be read: {problem}")),
            (None, None) => reasons.push("the store has not been read yet".to_owned()),
            (None, Some(age)) if age > STALE_AFTER => {
                // Without the age, which changes: who reads this aloud should hear it once.
                reasons.push(format!(
                    "the store has not confirmed the data for over {} s",
                    STALE_AFTER.as_secs()
                ));
            }
            (None, Some(_)) => {}
        }
        match &self.hypervisor {
            HypervisorSight::Seen => {}
            HypervisorSight::NotYetSeen => {
                reasons.push("the hypervisor has not been looked at yet".to_owned())
            }
            HypervisorSight::Lost(problem) => {
                reasons.push(format!("the hypervisor cannot be seen: {problem}"))
            }
        }
        reasons
    }
}

/// The things that the server needs of the controller.
#[derive(Debug, Clone)]
pub struct Window {
    pub feed: watch::Receiver<Arc<Snapshot>>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    /// The host names under which browsers may ask, beside `localhost` and addresses.
    pub own_names: OwnNames,
}

#[derive(Debug, Clone)]
struct Shared {
    window: Window,
    places: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

/// Serves until `shutdown`; open event streams end then. It takes no more of this process than its share.
pub async fn serve(
    listener: TcpListener,
    window: Window,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    serve_within(Limits::of_process(), listener, window, shutdown).await
}

/// Does the same within other limits.
pub async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    window: Window,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (close, closing) = watch::channel(false);
    let closed = async move {
        shutdown.await;
        // Nobody listens where there is no stream.
        let _ = close.send(true);
    };
    let metrics = Arc::clone(&window.metrics);
    connections::serve(listener, router(window, closing), limits, metrics, closed).await;
    Ok(())
}

fn router(window: Window, closing: watch::Receiver<bool>) -> Router {
    let own_names = window.own_names.clone();
    let shared = Shared { window, places: Arc::new(Semaphore::new(MAX_STREAMS)), closing };
    let routes = Router::new()
        .route("/", get(async || file("text/html; charset=utf-8", include_str!("api/page.html"))))
        .route("/page.css", get(async || file("text/css; charset=utf-8", include_str!("api/page.css"))))
        .route("/page.js", get(async || file("text/javascript; charset=utf-8", SCRIPT.as_str())))
        .route("/icon.svg", get(async || file("image/svg+xml", include_str!("api/icon.svg"))))
        .route(
            "/schema/v1.json",
            get(async || file("application/schema+json", zsha_crds::schema::json_schema_text())),
        )
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/api/v1/status", get(status))
        .route("/api/v1/events", get(events))
        .fallback(async || {
            refusal(StatusCode::NOT_FOUND, "NotFound", "there is nothing here; the page is at '/'")
        })
        .with_state(shared);
    guard::read_only(guard::against_rebinding(routes, own_names))
}

/// Serves without limits, for the store of the development mode, which is on loopback alone.
async fn serve_until(
    listener: TcpListener,
    routes: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "small answers may be late");
        }
    });
    let (begin, begun) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, routes).with_graceful_shutdown(async move {
        // A sender that is gone means the same.
        let _ = begun.await;
    });
    tokio::select! {
        biased;
        result = server.into_future() => result,
        () = async move {
            shutdown.await;
            let _ = begin.send(());
            tokio::time::sleep(DRAIN).await;
        } => Ok(()),
    }
}

fn file(kind: &'static str, text: impl IntoResponse) -> Response {
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// The page's script. It has the tones of all words from the types that have them.
static SCRIPT: LazyLock<String> = LazyLock::new(|| {
    let tones = serde_json::json!({
        "state": tone::of_all(VmState::ALL, VmState::tone),
        "lease": tone::of_all(LeaseWord::ALL, LeaseWord::tone),
        "controller": tone::of_all(ControllerState::ALL, ControllerState::tone),
        "status": tone::of_all(ConditionStatus::ALL, ConditionStatus::tone),
        "event": tone::of_all(EventType::ALL, EventType::tone),
    });
    include_str!("api/page.js").replace("__TONES__", &tones.to_string())
});

async fn readyz(State(shared): State<Shared>) -> Response {
    let Window { feed, clock, .. } = &shared.window;
    let reasons = feed.borrow().not_ready(clock.now());
    match reasons.as_slice() {
        [] => "ready\n".into_response(),
        reasons => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response(),
    }
}

async fn metrics_text(State(shared): State<Shared>) -> Response {
    let Window { feed, metrics, clock, .. } = &shared.window;
    let open = MAX_STREAMS - shared.places.available_permits();
    metrics.set_streams(u64::try_from(open).unwrap_or(u64::MAX));
    let snapshot = feed.borrow().clone();
    file("text/plain; version=0.0.4; charset=utf-8", metrics.render(&snapshot, clock.now()))
}

/// Milliseconds since the store last confirmed the body.
const DATA_AGE: HeaderName = HeaderName::from_static("x-zsha-data-age-millis");

async fn status(State(shared): State<Shared>) -> Response {
    let Window { feed, clock, .. } = &shared.window;
    let snapshot = feed.borrow().clone();
    let now = clock.now();
    match (&snapshot.status, snapshot.age(now)) {
        (Some(status), Some(age)) => {
            ([(DATA_AGE, age.as_millis().to_string())], axum::Json(status)).into_response()
        }
        _ => refusal(StatusCode::SERVICE_UNAVAILABLE, "NotReady", snapshot.not_ready(now).join("; ")),
    }
}

async fn events(State(shared): State<Shared>) -> Response {
    let Ok(place) = shared.places.clone().try_acquire_owned() else {
        let message =
            format!("{MAX_STREAMS} event streams are open already; close a tab or ask '/api/v1/status'");
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "TooManyStreams", message);
    };
    let Window { feed, clock, .. } = shared.window;
    Sse::new(stream::Reader::new(feed, shared.closing, clock, place).into_events()).into_response()
}
