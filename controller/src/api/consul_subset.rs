//! The part of Consul's HTTP API that zsha itself speaks, over any [`Store`]: so that the `zsha` command works
//! unchanged against `zsha-controller dev` and its embedded store.
//!
//! Keys are read (one, below a prefix, blocking), and transactions of `cas`, `delete-cas`, `check-index` and
//! `check-not-exists` are applied. There is no unconditional write here, as there is none in the store. It refuses what
//! it does not know, and never pretends. It is for loopback only, since it has no tokens.

mod transaction;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use zsha_runtime::Store;
use zsha_runtime::store::{Entry, Listing, Read, StoreError};

use super::guard::{self, OwnNames};

/// The time that a blocking read waits when it does not say, and at most: Consul's own.
const DEFAULT_WAIT: Duration = Duration::from_secs(300);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Consul's `txn_max_req_len`.
const LARGEST_BODY: usize = 512 * 1024;

type SharedStore = Arc<dyn Store>;

/// Serves the store until `shutdown`. Refuses an address that others can reach.
pub async fn serve(
    listener: TcpListener,
    store: SharedStore,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        let reason = format!(
            "the embedded store has no access control and is served on loopback only, not on {address}"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    super::serve_until(listener, router(store), shutdown).await
}

pub fn router(store: SharedStore) -> Router {
    let routes = Router::new()
        .route("/v1/kv/{*key}", get(read))
        .route("/v1/txn", put(transaction::apply))
        .route("/v1/status/leader", get(async || axum::Json("127.0.0.1:8300")))
        .route("/v1/agent/self", get(async || axum::Json(agent())))
        .route("/v1/agent/members", get(async || axum::Json(members())))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(store);
    guard::against_rebinding(routes, OwnNames::default())
}

/// The agent. Without an election nothing can be slow, so the shortest of Consul's settings is the true one.
fn agent() -> Value {
    json!({
        "Config": { "Datacenter": "dev", "NodeName": "embedded", "Version": "embedded", "Server": true },
        "DebugConfig": {
            "ConsulRaftHeartbeatTimeout": "1s",
            "AutopilotCleanupDeadServers": false,
            "LeaveOnTerm": false,
            "RPCHoldTimeout": "2s",
        },
    })
}

/// The only member, with the port that an agent's gossip would have.
fn members() -> Value {
    let tags = json!({ "role": "consul", "dc": "dev", "build": "embedded" });
    json!([{ "Name": "embedded", "Addr": "127.0.0.1", "Port": 8301, "Status": 1, "Tags": tags }])
}

/// The question of one read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    recurse: bool,
    raw: bool,
    keys: bool,
    separator: Option<String>,
    read: Read,
    /// The read is answered only once the index is above this, or after the wait.
    block: Option<(u64, Duration)>,
}

impl Question {
    fn parse(pairs: &[(String, String)]) -> Result<Self, String> {
        let value = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        // As in Consul, being there is what counts: `recurse=false` recurses.
        let flag = |name: &str| value(name).is_some();
        let read = match (flag("consistent"), flag("stale")) {
            (true, true) => return Err("a read cannot be both stale and consistent".to_owned()),
            (true, false) => Read::Consistent,
            (false, true) => Read::Stale,
            (false, false) => Read::Default,
        };
        let wait = match value("wait") {
            Some(text) => {
                duration(text).ok_or_else(|| format!("'{text}' is not a wait such as '30s' or '5m'"))?
            }
            None => DEFAULT_WAIT,
        };
        let block = match value("index") {
            Some(text) => {
                let index: u64 = text.parse().map_err(|_| format!("'{text}' is not an index"))?;
                // As in Consul, an index of 0 does not block.
                (index > 0).then_some((index, wait.min(LONGEST_WAIT)))
            }
            None => None,
        };
        Ok(Self {
            recurse: flag("recurse"),
            raw: flag("raw"),
            keys: flag("keys"),
            separator: value("separator").filter(|text| !text.is_empty()).map(str::to_owned),
            read,
            block,
        })
    }

    fn wants_prefix(&self) -> bool {
        self.recurse || self.keys
    }
}

/// Reads `500ms`, `30s`, `5m`, `1h`; zero means the default.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let amount: u64 = text[..digits].parse().ok()?;
    let millis = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(amount.checked_mul(millis)?))
        .map(|wait| if wait.is_zero() { DEFAULT_WAIT } else { wait })
}

async fn read(
    State(store): State<SharedStore>,
    Path(key): Path<String>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let question = Question::parse(&pairs).map_err(|reason| Refusal(StatusCode::BAD_REQUEST, reason))?;
    let target = if question.wants_prefix() { directory(&key).unwrap_or(&key) } else { &key };
    if let Some((after, wait)) = question.block {
        // Only to wait: what there is then is read in the way that was asked for.
        store.watch(target, after, wait).await?;
    }
    let listing = if target.ends_with('/') {
        let mut listing = store.list(target, question.read).await?;
        listing.entries.retain(|entry| entry.key.starts_with(&key));
        listing
    } else {
        read_one(&*store, target, question.read).await?
    };
    Ok(answer(&question, &key, &listing))
}

/// The directory above the prefix. Consul compares strings and not directories, so `a/n1` is also the prefix of
/// `a/n10`. The store lists directories, and keys that do not match are left out afterwards.
fn directory(prefix: &str) -> Option<&str> {
    prefix.rfind('/').map(|at| &prefix[..=at])
}

/// Reads one key as a listing, which has an index also where the key is absent.
async fn read_one(store: &dyn Store, key: &str, read: Read) -> Result<Listing, StoreError> {
    match store.get(key, read).await? {
        Some(entry) => Ok(Listing { index: entry.modify_index, entries: vec![entry] }),
        None => store.watch(key, 1, Duration::ZERO).await,
    }
}

fn answer(question: &Question, prefix: &str, listing: &Listing) -> Response {
    let body = match listing.entries.as_slice() {
        [] => StatusCode::NOT_FOUND.into_response(),
        [only, ..] if question.raw && !question.wants_prefix() => only.value.clone().into_response(),
        entries if question.keys => {
            axum::Json(keys(entries, prefix, question.separator.as_deref())).into_response()
        }
        entries => axum::Json(entries.iter().map(Pair::with_value).collect::<Vec<_>>()).into_response(),
    };
    let mut response = body;
    let headers = response.headers_mut();
    headers.insert("X-Consul-Index", HeaderValue::from(listing.index.max(1)));
    headers.insert("X-Consul-KnownLeader", HeaderValue::from_static("true"));
    headers.insert("X-Consul-LastContact", HeaderValue::from_static("0"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The keys, each cut after the first separator beyond the prefix, once.
fn keys(entries: &[Entry], prefix: &str, separator: Option<&str>) -> Vec<String> {
    let mut keys: Vec<String> = entries
        .iter()
        .map(|entry| {
            let beyond = entry.key.get(prefix.len()..).unwrap_or_default();
            let cut = separator.and_then(|mark| beyond.find(mark).map(|at| prefix.len() + at + mark.len()));
            entry.key[..cut.unwrap_or(entry.key.len())].to_owned()
        })
        .collect();
    keys.dedup();
    keys
}

/// A key in Consul's JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Pair<'a> {
    lock_index: u64,
    key: &'a str,
    flags: u64,
    /// The value in Base64; null where it is empty, as Consul has it, and in the answer to a transaction.
    value: Option<String>,
    /// The store keeps no such index.
    create_index: u64,
    modify_index: u64,
}

impl<'a> Pair<'a> {
    fn without_value(key: &'a str, modify_index: u64) -> Self {
        Self { lock_index: 0, key, flags: 0, value: None, create_index: 0, modify_index }
    }

    fn with_value(entry: &'a Entry) -> Self {
        let value = (!entry.value.is_empty()).then(|| transaction::encode(&entry.value));
        Self { value, ..Self::without_value(&entry.key, entry.modify_index) }
    }
}

/// Anything but an answer, in plain text like Consul's.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl From<StoreError> for Refusal {
    /// Makes a refusal by which a client comes to the same conclusions as the store's own caller would.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { reason, .. } => {
                Self(StatusCode::INTERNAL_SERVER_ERROR, format!("No cluster leader: {reason}"))
            }
            StoreError::Denied { reason, .. } => {
                Self(StatusCode::FORBIDDEN, format!("Permission denied: {reason}"))
            }
            StoreError::Invalid { reason, .. } => Self(StatusCode::BAD_REQUEST, reason),
            StoreError::Unknown { reason, .. } | StoreError::Malformed { reason, .. } => {
                Self(StatusCode::INTERNAL_SERVER_ERROR, reason)
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Bytes::from(self.1)).into_response()
    }
}
