//! The keeper's side of the line.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};

use super::{Answer, Request, SILENCE, receive, send, within};
use crate::keeper::{KeeperError, Lease, LocalLease};

/// The number of connections; one controller needs two or three.
const CONNECTIONS: usize = 16;

/// The pause before another try, when a connection could not be taken (out of descriptors, for instance).
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Binds the socket in its directory, for root alone. A socket left behind by a keeper that died is replaced: the
/// socket need not ensure that there is only one keeper.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the line. It never returns; dropping it closes every connection.
pub async fn serve(listener: UnixListener, lease: LocalLease) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(error = %error, "a connection to the keeper could not be taken");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(limit = CONNECTIONS, "too many connections to the keeper; the new one is closed");
            continue;
        };
        let lease = lease.clone();
        connections.spawn(async move {
            let _place = place;
            if let Err(error) = converse(stream, lease).await {
                tracing::debug!(error = %error, "connection to the keeper ended");
            }
        });
    }
}

async fn converse(stream: UnixStream, lease: LocalLease) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut requests = read_requests(read);
    let mut changes = lease.changes();
    let mut subscribed = false;
    loop {
        tokio::select! {
            biased;
            changed = changes.changed(), if subscribed => {
                changed.map_err(io::Error::other)?;
                send_changed(&mut write, &mut changes).await?;
            }
            request = requests.recv() => match request {
                None => return Ok(()),
                Some(Err(error)) => {
                    let refused = Answer::Refused { reason: error.to_string() };
                    within(SILENCE, send(&mut write, &refused)).await?;
                    return Err(error);
                }
                Some(Ok(Request::Subscribe)) => {
                    subscribed = true;
                    send_changed(&mut write, &mut changes).await?;
                }
                Some(Ok(Request::Ping)) => send_changed(&mut write, &mut changes).await?,
                Some(Ok(request)) => within(SILENCE, send(&mut write, &answer(&lease, request).await)).await?,
            },
        }
    }
}

async fn send_changed(write: &mut OwnedWriteHalf, changes: &mut watch::Receiver<u64>) -> io::Result<()> {
    let count = *changes.borrow_and_update();
    within(SILENCE, send(write, &Answer::Changed { count })).await
}

/// Reads on a task of its own: half a line must not be lost because something else happened meanwhile.
fn read_requests(read: OwnedReadHalf) -> mpsc::Receiver<io::Result<Request>> {
    let (say, requests) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut read = BufReader::new(read);
        loop {
            let request = tokio::select! {
                biased;
                () = say.closed() => return,
                request = within(SILENCE, receive(&mut read)) => request,
            };
            let last = request.is_err();
            let Some(request) = request.transpose() else { return };
            if say.send(request).await.is_err() || last {
                return;
            }
        }
    });
    requests
}

async fn answer(lease: &LocalLease, request: Request) -> Answer {
    let outcome = match request {
        Request::Verdict => match lease.verdict().await {
            Ok(verdict) => return Answer::Verdict { verdict: Box::new(verdict) },
            Err(error) => Err(error),
        },
        Request::SetTimings { timings } => lease.set_timings(timings).await,
        Request::SetWatchdog { wanted } => lease.set_watchdog(wanted).await,
        Request::Expect { what } => lease.expect(what).await,
        Request::Release => lease.release().await,
        Request::Subscribe | Request::Ping => Ok(()),
    };
    match outcome {
        Ok(()) => Answer::Done,
        Err(
            KeeperError::Refused { reason, .. }
            | KeeperError::Unreachable { reason, .. }
            | KeeperError::NotAsked { reason, .. },
        ) => Answer::Refused { reason },
    }
}
