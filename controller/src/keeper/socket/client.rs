//! The controller's side of the line.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use zsha_crds::records::LeaseTimings;
use zsha_runtime::lease::Expectation;

use super::{Answer, PING_EVERY, Request, SILENCE, receive, send, within};
use crate::keeper::{KeeperError, Lease, Verdict};
use crate::limits;

/// The time for an answer. The keeper answers from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// The time for a release, which ends with a write to the store.
const RELEASED_WITHIN: Duration = Duration::from_secs(5);

/// The pause after a connection was lost or refused.
const CONNECT_AGAIN: Duration = Duration::from_millis(250);

/// A keeper in another process. Every call has a connection of its own; changes come over one that is kept.
#[derive(Debug)]
pub struct SocketLease {
    path: Arc<Path>,
    changes: watch::Sender<u64>,
    following: AbortHandle,
}

impl SocketLease {
    /// Begins to follow the keeper at once, whether the keeper is there yet or not. Needs a tokio runtime.
    pub fn new(path: PathBuf) -> Self {
        let path: Arc<Path> = path.into();
        let changes = watch::Sender::new(0);
        let following = tokio::spawn(follow(Arc::clone(&path), changes.clone())).abort_handle();
        Self { path, changes, following }
    }

    async fn call(&self, request: Request, limit: Duration) -> io::Result<Answer> {
        within(limit, async {
            let (read, mut write) = UnixStream::connect(&self.path).await?.into_split();
            send(&mut write, &request).await?;
            receive(&mut BufReader::new(read)).await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        })
        .await
    }

    async fn ask(
        &self,
        operation: &'static str,
        request: Request,
        limit: Duration,
    ) -> Result<Answer, KeeperError> {
        match self.call(request, limit).await {
            Ok(Answer::Refused { reason }) => Err(KeeperError::Refused { operation, reason }),
            Ok(answer) => Ok(answer),
            Err(error) => Err(unreachable(operation, &error)),
        }
    }

    async fn ask_done(
        &self,
        operation: &'static str,
        request: Request,
        limit: Duration,
    ) -> Result<(), KeeperError> {
        match self.ask(operation, request, limit).await? {
            Answer::Done => Ok(()),
            other => Err(senseless(operation, &other)),
        }
    }
}

impl Drop for SocketLease {
    fn drop(&mut self) {
        self.following.abort();
    }
}

fn unreachable(operation: &'static str, error: &io::Error) -> KeeperError {
    let reason = error.to_string();
    // Whoever may not ask learns as little of who listens there as one who has nothing to ask with.
    match limits::is_a_lack(error) || error.kind() == io::ErrorKind::PermissionDenied {
        true => KeeperError::NotAsked { operation, reason },
        false => KeeperError::Unreachable { operation, reason },
    }
}

fn senseless(operation: &'static str, answer: &Answer) -> KeeperError {
    KeeperError::Unreachable { operation, reason: format!("an answer that makes no sense: {answer:?}") }
}

#[async_trait]
impl Lease for SocketLease {
    async fn verdict(&self) -> Result<Verdict, KeeperError> {
        match self.ask("verdict", Request::Verdict, ANSWER_WITHIN).await {
            // A refusal is the keeper's shell saying that its loop has ended.
            Err(KeeperError::Refused { operation, reason }) => {
                Err(KeeperError::Unreachable { operation, reason })
            }
            Err(error) => Err(error),
            Ok(Answer::Verdict { verdict }) => Ok(*verdict),
            Ok(other) => Err(senseless("verdict", &other)),
        }
    }

    async fn set_timings(&self, timings: LeaseTimings) -> Result<(), KeeperError> {
        // Answered between two writes of the lease, so it may take as long as one.
        self.ask_done("setTimings", Request::SetTimings { timings }, RELEASED_WITHIN).await
    }

    async fn set_watchdog(&self, wanted: bool) -> Result<(), KeeperError> {
        self.ask_done("setWatchdog", Request::SetWatchdog { wanted }, RELEASED_WITHIN).await
    }

    async fn expect(&self, what: Expectation) -> Result<(), KeeperError> {
        self.ask_done("expect", Request::Expect { what }, RELEASED_WITHIN).await
    }

    async fn release(&self) -> Result<(), KeeperError> {
        self.ask_done("release", Request::Release, RELEASED_WITHIN).await
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Follows the keeper: connects, passes changes on, and says when the line was made or lost. It never returns.
async fn follow(path: Arc<Path>, changes: watch::Sender<u64>) {
    loop {
        if let Ok(stream) = UnixStream::connect(&path).await {
            let mut seen = None;
            let error = subscribed(stream, &changes, &mut seen).await;
            if seen.is_some() {
                tracing::debug!(error = ?error, "line to the keeper lost");
                changes.send_modify(|count| *count += 1);
            }
        }
        tokio::time::sleep(CONNECT_AGAIN).await;
    }
}

async fn subscribed(
    stream: UnixStream,
    changes: &watch::Sender<u64>,
    seen: &mut Option<u64>,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    within(ANSWER_WITHIN, send(&mut write, &Request::Subscribe)).await?;
    let pinging = async {
        loop {
            tokio::time::sleep(PING_EVERY).await;
            within(ANSWER_WITHIN, send(&mut write, &Request::Ping)).await?;
        }
    };
    let hearing = async {
        loop {
            match within(SILENCE, receive(&mut read)).await? {
                None => return Ok(()),
                Some(Answer::Changed { count }) => {
                    // The first says that the line is made.
                    if seen.replace(count) != Some(count) {
                        changes.send_modify(|count| *count += 1);
                    }
                }
                Some(Answer::Verdict { .. } | Answer::Done | Answer::Refused { .. }) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
    };
    tokio::select! {
        biased;
        outcome = hearing => outcome,
        outcome = pinging => outcome,
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_keeper_that_this_process_has_not_the_means_or_the_right_to_ask_is_not_one_that_is_gone() {
        let of = |errno: Errno| unreachable("verdict", &errno.into());
        for errno in [Errno::MFILE, Errno::ACCESS, Errno::PERM] {
            assert!(matches!(of(errno), KeeperError::NotAsked { .. }), "{errno}");
        }
        for errno in [Errno::NOENT, Errno::CONNREFUSED, Errno::AGAIN] {
            assert!(matches!(of(errno), KeeperError::Unreachable { .. }), "{errno}");
        }
        let late = io::Error::new(io::ErrorKind::TimedOut, "no answer within 1000 ms");
        assert!(matches!(unreachable("verdict", &late), KeeperError::Unreachable { .. }), "it hangs");
    }
}
