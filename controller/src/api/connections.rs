//! Takes the page's connections: only so many, from one address only so many, and none that is of no use to its peer.
//! Half a request, a peer that does not read and a flood of them cost a place for a while, and cost other readers
//! nothing.
//!
//! A connection too many is told so in one write and closed, before anything is read from it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

use super::{DRAIN, Metrics};
use crate::limits;

/// The most that is read of a request. A browser and a script send less.
const REQUEST_BYTES: usize = 16 << 10;
/// The pause before another try, when a connection could not be taken (out of descriptors, for instance).
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);
/// The answer to a connection too many, as it is written.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Content-Length: 37\r\nRetry-After: 5\r\nConnection: close\r\n\r\ntoo many connections are open already";

/// The share of this process that the page may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The number of connections at a time.
    pub in_all: usize,
    /// The number of connections from one address (of IPv6: from one network of 64 bits, which one host may well have
    /// to itself).
    pub each: usize,
    /// The time for the whole of a request's headers, also of the next one on the same connection.
    pub headers_within: Duration,
    /// A connection ends when its peer takes nothing of what was sent for so long.
    pub unread_for: Duration,
}

impl Limits {
    /// The number of all connections: more than a room of screens and every script beside them.
    const IN_ALL: usize = 256;
    /// The number from one address: every event stream there may be, with the requests of the same tabs, since a proxy
    /// is one address.
    const EACH: usize = 96;

    /// The limits by the descriptors that this process may have: three quarters of those are never the page's.
    pub fn of_process() -> Self {
        let quarter = usize::try_from(limits::descriptors() / 4).unwrap_or(usize::MAX);
        let in_all = Self::IN_ALL.min(quarter);
        Self {
            in_all,
            each: Self::EACH.min(in_all.div_ceil(2)),
            headers_within: Duration::from_secs(5),
            unread_for: Duration::from_secs(30),
        }
    }
}

/// Serves until `shutdown`. Answers under way get a moment then; a stream that does not end is cut.
pub(super) async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: Limits,
    metrics: Arc<Metrics>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (close, closing) = watch::channel(false);
    let places = Places::new(limits, Arc::clone(&metrics));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => tell_of_a_panic(ended, &metrics),
            taken = listener.accept() => match taken {
                Ok((stream, peer)) => match places.take(peer.ip()) {
                    Some(place) => {
                        let routes = routes.clone();
                        connections.spawn(converse(stream, routes, limits, closing.clone(), place));
                    }
                    None => refuse(stream),
                },
                Err(error) if is_only_the_peers(&error) => {}
                Err(error) => {
                    metrics.failed("page", "accept");
                    tracing::debug!(%error, "a connection to the page could not be taken");
                    if tokio::time::timeout(ACCEPT_AGAIN, &mut shutdown).await.is_ok() {
                        break;
                    }
                }
            },
        }
    }
    drop(listener);
    // Nobody listens where there is no connection.
    let _ = close.send(true);
    let ending = async { while connections.join_next().await.is_some() {} };
    // What is left then is cut by being dropped.
    let _ = tokio::time::timeout(DRAIN, ending).await;
}

async fn converse(
    stream: TcpStream,
    routes: Router,
    limits: Limits,
    mut closing: watch::Receiver<bool>,
    _place: Place,
) {
    if let Err(error) = set_up(&stream, limits) {
        tracing::debug!(%error, "a connection to the page is served as it is");
    }
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.headers_within).max_buf_size(REQUEST_BYTES);
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    let closing = async move {
        // A sender that is gone means the same.
        let _ = closing.wait_for(|closing| *closing).await;
    };
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => ended,
        () = closing => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the page ended");
    }
}

fn set_up(stream: &TcpStream, limits: Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // The kernel counts the time: also that of a peer which answers its probes and takes nothing.
    let millis = u32::try_from(limits.unread_for.as_millis()).unwrap_or(u32::MAX);
    Ok(rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?)
}

/// Writes the refusal at once or not at all. Nothing was written to the connection yet, so there is room; and a peer
/// that does not read it loses nothing.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(TOO_MANY);
    }
}

/// True if the connection was gone before it was taken.
fn is_only_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn tell_of_a_panic(ended: Result<(), JoinError>, metrics: &Metrics) {
    if let Err(error) = ended {
        metrics.failed("page", "panic");
        tracing::error!(%error, "an answer of the page broke off");
    }
}

/// The places, and the addresses that hold them.
#[derive(Debug, Clone)]
struct Places {
    limits: Limits,
    metrics: Arc<Metrics>,
    taken: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
struct Place {
    of: IpAddr,
    places: Places,
}

impl Places {
    fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        Self { limits, metrics, taken: Arc::default() }
    }

    /// Takes a place. None, and counted, where there is none left.
    fn take(&self, peer: IpAddr) -> Option<Place> {
        let of = counted_as(peer);
        let mut taken = self.taken();
        let in_all: usize = taken.values().sum();
        let here = taken.get(&of).copied().unwrap_or_default();
        let full = match (in_all >= self.limits.in_all, here >= self.limits.each) {
            (true, _) => Some("all"),
            (false, true) => Some("address"),
            (false, false) => None,
        };
        if let Some(because) = full {
            self.metrics.refused_connection(because);
            return None;
        }
        taken.insert(of, here + 1);
        self.metrics.set_connections(in_all + 1);
        Some(Place { of, places: self.clone() })
    }

    /// Locks the numbers. They are only numbers: a panic elsewhere leaves none of them half written.
    fn taken(&self) -> MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        match taken.get_mut(&self.of) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(taken.remove(&self.of)),
        }
        self.places.metrics.set_connections(taken.values().sum());
    }
}

fn counted_as(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(in_all: usize, each: usize) -> Limits {
        Limits { in_all, each, ..Limits::of_process() }
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_its_share_and_all_together_theirs_and_what_is_left_is_free_again() {
        let places = Places::new(limits(3, 2), Arc::default());
        let first = places.take(peer("10.0.0.1")).unwrap();
        let _second = places.take(peer("::ffff:10.0.0.1")).unwrap();
        assert!(places.take(peer("10.0.0.1")).is_none(), "its share");
        let _third = places.take(peer("10.0.0.2")).unwrap();
        assert!(places.take(peer("10.0.0.3")).is_none(), "all together");
        drop(first);
        assert!(places.take(peer("10.0.0.1")).is_some());
    }

    #[test]
    fn a_host_with_a_network_of_ipv6_to_itself_is_one_address() {
        let places = Places::new(limits(9, 1), Arc::default());
        let _first = places.take(peer("fd00:1:2:3::1")).unwrap();
        assert!(places.take(peer("fd00:1:2:3:ffff::2")).is_none());
        assert!(places.take(peer("fd00:1:2:4::1")).is_some());
    }

    #[test]
    fn the_refusal_is_a_whole_answer_of_http() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{}", body.len());
    }
}
