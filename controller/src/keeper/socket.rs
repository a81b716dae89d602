//! The line between a node's controller and its keeper: a Unix socket, with one JSON object on each line.
//!
//! The keeper's side serves what it is asked and no more. Every line is bounded, every wait has a deadline, and a
//! caller that misbehaves loses its connection and disturbs no other.

mod client;
mod server;

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zsha_crds::records::LeaseTimings;
use zsha_runtime::lease::Expectation;

use super::Verdict;
pub use client::SocketLease;
pub use server::{bind, serve};

/// The longest line that is read. A verdict is a few hundred bytes.
const LINE_LIMIT: u64 = 16 << 10;

/// A subscriber says something this often, so that either side notices when the other is gone without a word.
const PING_EVERY: Duration = Duration::from_secs(2);

/// The silence after which a line is lost: three pings missed.
const SILENCE: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "camelCase", deny_unknown_fields)]
enum Request {
    Verdict,
    SetTimings {
        timings: LeaseTimings,
    },
    /// Says whether a watchdog is wanted.
    SetWatchdog {
        wanted: bool,
    },
    /// Says which copy is to be found here.
    Expect {
        what: Expectation,
    },
    Release,
    /// Asks for an [`Answer::Changed`] with every change from now on, and for one with every ping.
    Subscribe,
    Ping,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "camelCase")]
enum Answer {
    Verdict { verdict: Box<Verdict> },
    Done,
    Refused { reason: String },
    Changed { count: u64 },
}

async fn send<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    to.write_all(&line).await
}

/// Reads the next line; `None` when the other side has closed. A line that is too long or cut short is an error.
///
/// It must not be dropped half-way: what it has read would be lost.
async fn receive<T: for<'de> Deserialize<'de>>(
    from: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = from.take(LINE_LIMIT).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let reason = format!("a line longer than {LINE_LIMIT} bytes, or cut short");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    serde_json::from_slice(&line).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Waits for `what`. If it does not end in time, that is an error like any other.
async fn within<T>(limit: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late =
        || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", limit.as_millis()));
    tokio::time::timeout(limit, what).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests;
