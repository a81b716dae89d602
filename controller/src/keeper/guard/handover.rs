//! Hands a keeper's memory from the guard to the next keeper, over a socket that no full disk and no wiped directory
//! can take away. The guard goes when that keeper says that it enforces.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use zsha_runtime::lease::Memory;

use crate::keeper::names::{self, Holder};

/// The longest line that is read. A memory is a few hundred bytes.
const LINE_LIMIT: u64 = 16 << 10;

/// The time from the hand-over until the new keeper enforces and its start cannot fail any more. A keeper that takes
/// longer relieves the guard by what it writes into the state file.
const RELIEVED_WITHIN: Duration = Duration::from_secs(10);

const RELIEVED: &str = "relieved\n";

/// The word of a keeper that it enforces, if it has come, and the bell that wakes the guard for it.
#[derive(Debug)]
pub(super) struct Relief {
    said: AtomicBool,
    pub(super) bell: OwnedFd,
}

impl Relief {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { said: AtomicBool::new(false), bell }))
    }

    pub(super) fn has_come(&self) -> bool {
        self.said.load(Ordering::SeqCst)
    }

    fn comes(&self) {
        self.said.store(true, Ordering::SeqCst);
        // Fails only when the bell is ringing already.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

/// The guard's side: once this returns, a keeper of the same directory finds the guard.
pub(super) fn offer(directory: &Path, memory: Option<Memory>, relief: Arc<Relief>) -> io::Result<()> {
    let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(names::guard(directory))?)?;
    listener.set_nonblocking(true)?;
    let runtime = runtime()?;
    std::thread::Builder::new().name("hand over".to_owned()).stack_size(256 << 10).spawn(move || {
        runtime.block_on(async {
            let Ok(listener) = UnixListener::from_std(listener) else { return };
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let handed = tokio::time::timeout(RELIEVED_WITHIN, hand_over(stream, memory.as_ref())).await;
                match handed {
                    Ok(Ok(true)) => return relief.comes(),
                    Ok(Ok(false)) | Err(_) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "nothing was handed over"),
                }
            }
        });
    })?;
    Ok(())
}

/// Hands the memory over. Returns true if the other side has said that it enforces.
async fn hand_over(stream: UnixStream, memory: Option<&Memory>) -> io::Result<bool> {
    if !Holder::of(&stream)?.is_ours() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(&memory).map_err(io::Error::other)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    let mut said = String::new();
    BufReader::new(read.take(LINE_LIMIT)).read_line(&mut said).await?;
    Ok(said == RELIEVED)
}

/// A guard that obeys a deadline, as the next keeper finds it.
#[derive(Debug)]
pub(in crate::keeper) struct Standing {
    runtime: Runtime,
    stream: UnixStream,
    /// The memory of the keeper before, when it left.
    pub(in crate::keeper) memory: Option<Memory>,
}

impl Standing {
    /// Finds the guard of this directory. None: there is no guard, or none that is to be believed. Do not call it
    /// inside a runtime.
    pub(in crate::keeper) fn find(directory: &Path) -> Option<Self> {
        let runtime = runtime().ok()?;
        let found =
            runtime.block_on(async { tokio::time::timeout(names::ANSWER_WITHIN, ask(directory)).await });
        match found {
            Ok(Ok((stream, memory))) => Some(Self { runtime, stream, memory }),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => None,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a guard left by another keeper was not heard");
                None
            }
            Err(_) => {
                tracing::warn!("a guard left by another keeper did not answer");
                None
            }
        }
    }

    /// Tells the guard that it is not needed from now on: this keeper enforces what it was told, and its start cannot
    /// fail any more. A `Standing` that is dropped instead leaves the guard where it is. Do not call it inside a
    /// runtime.
    pub(in crate::keeper) fn relieve(mut self) {
        let said = self.runtime.block_on(async { self.stream.write_all(RELIEVED.as_bytes()).await });
        if let Err(error) = said {
            tracing::warn!(%error, "the guard was not told that it is relieved; it goes when its deadline has passed");
        }
    }
}

async fn ask(directory: &Path) -> io::Result<(UnixStream, Option<Memory>)> {
    let mut stream = names::connect(&names::guard(directory)).await?;
    let holder = Holder::of(&stream)?;
    if !holder.is_ours() {
        return Err(io::Error::other(format!("user {} has taken its name", holder.user)));
    }
    let mut line = Vec::new();
    BufReader::new((&mut stream).take(LINE_LIMIT)).read_until(b'\n', &mut line).await?;
    let memory: Option<Memory> = serde_json::from_slice(&line).map_err(io::Error::other)?;
    Ok((stream, memory.filter(|memory| memory.timings.is_safe())))
}

fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
