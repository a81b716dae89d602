//! One endpoint of Consul: requests to it, each with a deadline, through one pooled client. It tries no other
//! endpoint and repeats nothing.
//!
//! Listings and blocking listings go through rs-consul, on the client made here. Beside it, on the same client,
//! stand the endpoints it lacks (transactions, agent, status) and the reads it cannot do:
//!
//! - One key: it sends `recurse=false`, and to Consul the mere presence of `recurse` means a listing by string prefix.
//!   A read of the absent `leases/n1` would bring the lease of `n10`, and a missing right would read as absent.
//! - An empty prefix: it makes the 404 an error and drops `X-Consul-Index`, without which nothing can be watched into
//!   being.
//! - A listing with a value that is not UTF-8: it refuses the whole listing.
//!
//! It does not encode keys, so they are encoded here.

use std::convert::Infallible;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, StatusCode};
use rs_consul::{
    Config, ConsistencyMode, Consul, ConsulBuilder, HttpsClient, ReadKeyRequest, ReadKeyResponse,
};
use serde::Deserialize;

use super::super::{Entry, Listing, Read};
use super::Endpoint;
use super::access::Access;
use super::failure::{Failure, chain};

/// The key or prefix to read, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a> {
    /// A key, or a prefix if it ends in `/`.
    pub(super) target: &'a str,
    pub(super) read: Read,
    pub(super) block: Option<Block>,
}

impl Query<'_> {
    fn is_listing(&self) -> bool {
        self.target.ends_with('/')
    }
}

/// Answer only once the index is above `after`, or after `wait`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub(super) after: u64,
    pub(super) wait: Duration,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// One endpoint.
pub(super) struct Connection {
    pub(super) endpoint: Endpoint,
    client: HttpsClient,
    access: Arc<Access>,
    request_timeout: Duration,
}

impl fmt::Debug for Connection {
    /// Leaves rs-consul's own text out, since it would print the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawEntry {
    key: String,
    value: Option<String>,
    modify_index: u64,
}

impl Connection {
    pub(super) fn new(
        endpoint: Endpoint,
        client: HttpsClient,
        access: Arc<Access>,
        request_timeout: Duration,
    ) -> Self {
        Self { endpoint, client, access, request_timeout }
    }

    /// rs-consul on this client. It keeps the token it was made with, so it is made for one call.
    fn consul(&self) -> Consul {
        let config = Config {
            address: self.endpoint.as_str().to_owned(),
            token: self.access.token().map(|token| token.reveal().to_owned()),
            ..Config::default()
        };
        ConsulBuilder::new(config).with_https_client(self.client.clone()).build()
    }

    /// A listing of what the query asks for. Absent is an empty listing, with an index.
    pub(super) async fn read(&self, query: Query<'_>) -> Result<Listing, Failure> {
        // rs-consul does not hand over whether the agent knows a leader, which a watch must know.
        if !query.is_listing() || query.block.is_some() {
            return self.read_plainly(query).await;
        }
        match self.list_by_rs_consul(query).await {
            Err(Failure::Status(StatusCode::NOT_FOUND, _) | Failure::NotText) => {
                self.read_plainly(Query { block: None, ..query }).await
            }
            other => other,
        }
    }

    /// One key.
    pub(super) async fn read_key(&self, key: &str, read: Read) -> Result<Option<Entry>, Failure> {
        let listing = self.read_plainly(Query { target: key, read, block: None }).await?;
        Ok(listing.entries.into_iter().next())
    }

    async fn list_by_rs_consul(&self, query: Query<'_>) -> Result<Listing, Failure> {
        let key = encode(query.target);
        let request = ReadKeyRequest {
            key: &key,
            recurse: true,
            consistency: match query.read {
                Read::Consistent => ConsistencyMode::Consistent,
                Read::Default => ConsistencyMode::Default,
                Read::Stale => ConsistencyMode::Stale,
            },
            // With 0 Consul would not block, and the caller would spin.
            index: query.block.map(|block| block.after.max(1)),
            wait: query.block.map(|block| whole_seconds(block.wait)).unwrap_or_default(),
            ..ReadKeyRequest::default()
        };
        let deadline = self.deadline(query.block);
        let consul = self.consul();
        let meta = within(deadline, async { Ok(consul.read_key(request).await?) }).await?;
        let entries = meta.response.into_iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Listing { index: meta.index.max(1), entries })
    }

    async fn read_plainly(&self, query: Query<'_>) -> Result<Listing, Failure> {
        let mut path = format!("/v1/kv/{}?", encode(query.target));
        if query.is_listing() {
            path.push_str("recurse&");
        }
        match query.read {
            Read::Consistent => path.push_str("consistent"),
            Read::Default => {}
            Read::Stale => path.push_str("stale"),
        }
        if let Some(Block { after, wait }) = query.block {
            path.push_str(&format!("&index={}&wait={}s", after.max(1), whole_seconds(wait).as_secs()));
        }
        let answer = self.request(Method::GET, &path, None, self.deadline(query.block)).await?;
        let index = index_of(&answer.headers);
        if query.block.is_some() && knows_no_leader(&answer.headers) {
            return Err(Failure::NoLeader);
        }
        match answer.status {
            StatusCode::OK => {
                let raw: Vec<RawEntry> = parse(&answer.body)?;
                let entries = raw.into_iter().map(raw_entry).collect::<Result<_, _>>()?;
                Ok(Listing { index: index.unwrap_or(1).max(1), entries })
            }
            // Absent, in Consul's words: it says up to which index. A 404 without is somebody else's.
            StatusCode::NOT_FOUND if index.is_some() => {
                Ok(Listing { index: index.unwrap_or(1).max(1), entries: Vec::new() })
            }
            status => Err(refused(status, &answer.body)),
        }
    }

    /// `PUT` of a JSON body.
    pub(super) async fn put(&self, path: &str, body: Bytes) -> Result<Answer, Failure> {
        self.request(Method::PUT, path, Some(body), self.request_timeout).await
    }

    /// `GET` of something whose absence is a failure.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, Failure> {
        let answer = self.request(Method::GET, path, None, self.request_timeout).await?;
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            status => Err(refused(status, &answer.body)),
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        deadline: Duration,
    ) -> Result<Answer, Failure> {
        let mut request =
            hyper::Request::builder().method(method).uri(format!("{}{path}", self.endpoint.as_str()));
        if let Some(token) = self.access.token() {
            request = request.header("X-Consul-Token", token.reveal());
        }
        let body: BoxBody<Bytes, Infallible> = match body {
            Some(body) => BoxBody::new(Full::new(body)),
            None => BoxBody::new(Empty::new()),
        };
        // Never sent, so `NotSent`: what stands in the request is at fault, not the way.
        let request = request.body(body).map_err(|error| Failure::NotSent(error.to_string()))?;
        within(deadline, async {
            let response = self.client.request(request).await.map_err(|error| Failure::transport(&error))?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| Failure::NoAnswer(chain(&error)))?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        })
        .await
    }

    fn deadline(&self, block: Option<Block>) -> Duration {
        block.map_or(self.request_timeout, |block| longest_wait(block.wait) + self.request_timeout)
    }
}

/// How long Consul may hold a blocking read back: its wait, and the sixteenth that it adds at random.
fn longest_wait(wait: Duration) -> Duration {
    let wait = whole_seconds(wait);
    wait + wait / 16
}

/// Rounds up to whole seconds. rs-consul passes only those, and leaves a wait of less than one second out, which means
/// five minutes.
fn whole_seconds(wait: Duration) -> Duration {
    Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(Duration::from_secs(1))
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(Failure::NoAnswer(format!("no answer within {deadline:?}"))),
    }
}

pub(super) fn refused(status: StatusCode, body: &[u8]) -> Failure {
    Failure::Status(status, String::from_utf8_lossy(body).into_owned())
}

pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::Garbled(error.to_string()))
}

/// True if the server has no leader. Such a server answers stale reads all the same, and its data grows old unseen.
fn knows_no_leader(headers: &HeaderMap) -> bool {
    headers.get("X-Consul-KnownLeader").is_some_and(|known| known.as_bytes() == b"false")
}

fn index_of(headers: &HeaderMap) -> Option<u64> {
    headers.get("X-Consul-Index")?.to_str().ok()?.parse().ok()
}

fn entry(read: ReadKeyResponse) -> Result<Entry, Failure> {
    let modify_index = u64::try_from(read.modify_index)
        .map_err(|_| Failure::Garbled(format!("'{}' has the index {}", read.key, read.modify_index)))?;
    Ok(Entry { key: read.key, value: read.value.unwrap_or_default(), modify_index })
}

/// Makes an entry of a raw one. A value that is not text becomes one that decodes to nothing, so that one stray key
/// hides no other.
fn raw_entry(raw: RawEntry) -> Result<Entry, Failure> {
    let bytes = STANDARD
        .decode(raw.value.unwrap_or_default())
        .map_err(|error| Failure::Garbled(format!("'{}': {error}", raw.key)))?;
    let value = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Entry { key: raw.key, value, modify_index: raw.modify_index })
}

/// Percent-encodes all but what a path may hold; `/` separates and stays.
fn encode(key: &str) -> String {
    let mut encoded = String::with_capacity(key.len() + 8);
    for byte in key.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                encoded.push(char::from(byte));
            }
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::ConsulSettings;
    use super::*;

    #[test]
    fn keys_are_percent_encoded_but_for_the_slash() {
        assert_eq!(encode("zsha/c 1/ä?&#%"), "zsha/c%201/%C3%A4%3F%26%23%25");
        assert_eq!(encode("zsha/a-b.c_d~e/"), "zsha/a-b.c_d~e/");
    }

    #[test]
    fn a_wait_below_a_second_is_rounded_up_and_never_left_out() {
        assert_eq!(whole_seconds(Duration::from_millis(20)), Duration::from_secs(1));
        assert_eq!(whole_seconds(Duration::ZERO), Duration::from_secs(1));
        assert_eq!(whole_seconds(Duration::from_millis(30_001)), Duration::from_secs(31));
        assert_eq!(whole_seconds(Duration::from_secs(30)), Duration::from_secs(30));
    }

    #[test]
    fn a_blocking_read_is_given_its_wait_a_sixteenth_of_it_and_one_request_more() {
        let endpoint: Endpoint = "http://127.0.0.1:8500".parse().unwrap();
        let client = super::super::client::build(&ConsulSettings::new(vec![endpoint.clone()])).unwrap();
        let connection =
            Connection::new(endpoint, client, Arc::new(Access::new(None)), Duration::from_secs(2));
        let block = |wait| Some(Block { after: 1, wait });
        assert_eq!(connection.deadline(block(Duration::from_secs(30))), Duration::from_millis(33_875));
        assert_eq!(connection.deadline(block(Duration::from_secs(16))), Duration::from_secs(19));
        assert_eq!(connection.deadline(block(Duration::from_millis(1))), Duration::from_micros(3_062_500));
        assert_eq!(connection.deadline(None), Duration::from_secs(2));
    }
}
