//! Keeps the connection to libvirt's daemon: makes it, and makes it again when it is lost. It asks nothing about
//! domains.
//!
//! It does without libvirt's keepalive: its pings come from the event loop, and one that meets a call that hangs ends
//! the process (see `worker`). The deadlines of the calls tell that a daemon hangs, and the socket tells that it died.
//!
//! One task opens it, one attempt at a time, because opening may block for as long as a daemon hangs and a second
//! attempt would only hang beside the first.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use virt::connect::Connect;

use super::events::{self, Bell, Closed, Listening};
use super::refusal::Refusal;
use super::worker::on_own_thread;

/// The time for opening a connection, which takes milliseconds. After this it is said that the daemon does not answer,
/// and it is still waited for.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// The pause before the second try. A daemon that is being restarted is back within a second or so. It is a local
/// socket: trying costs nothing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The state of the connection.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// The connection was never yet tried to the end.
    Opening,
    Up(Arc<Session>),
    Down {
        reason: String,
    },
}

/// The descriptors that a connection takes, and more: its socket, and what it wakes its thread by.
const DESCRIPTORS: usize = 8;

/// Makes a connection, where there is room for one. Without descriptors libvirt's client does not refuse, it ends this
/// process.
pub(super) fn connect_to(uri: &str) -> Result<Connect, Refusal> {
    let spare: io::Result<Vec<File>> = (0..DESCRIPTORS).map(|_| File::open("/dev/null")).collect();
    match spare {
        Ok(spare) => drop(spare),
        Err(error) => {
            return Err(Refusal::NotLooked(format!("no room for a connection to libvirt: {error}")));
        }
    }
    Ok(Connect::open(Some(uri))?)
}

/// One connection, from opening to loss.
#[derive(Debug)]
pub(super) struct Session {
    listening: Option<Listening>,
    closed: watch::Sender<Option<Closed>>,
}

impl Session {
    fn open(uri: &str, bell: &Arc<Bell>) -> Result<Self, String> {
        let failed = |error: virt::error::Error| error.message().trim().to_owned();
        let connect = connect_to(uri).map_err(|refusal| match refusal {
            Refusal::Libvirt(error) => failed(error),
            Refusal::Plain(reason) | Refusal::NotLooked(reason) => reason,
        })?;
        let closed = watch::Sender::new(None);
        let listening = events::listen(connect, bell, &closed).map_err(failed)?;
        Ok(Self { listening: Some(listening), closed })
    }

    /// None only while it is being dropped.
    pub(super) fn connect(&self) -> Option<&Connect> {
        self.listening.as_ref().map(Listening::connect)
    }

    /// True if the connection is still one. If not, it is given up as if libvirt had told so.
    pub(super) fn is_alive(&self) -> bool {
        let alive = self.connect().is_some_and(|connect| connect.is_alive().unwrap_or(false));
        if !alive {
            self.closed.send_if_modified(|closed| match closed {
                Some(_) => false,
                None => closed.replace(Closed::Failed).is_none(),
            });
        }
        alive
    }
}

impl Drop for Session {
    /// Closes on a thread of its own: closing calls the daemon, and any thread may be the last to hold a session.
    fn drop(&mut self) {
        let listening = self.listening.take();
        if let Err(error) = on_own_thread("zsha-close", move || drop(listening)) {
            tracing::warn!(%error, "no thread to close a connection to libvirt; closed in place");
        }
    }
}

/// Keeps a connection, for ever.
pub(super) async fn keep(uri: String, bell: Arc<Bell>, link: watch::Sender<Link>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let began = Instant::now();
        let reason = match open(&uri, &bell, &link).await {
            Ok(session) => {
                tracing::info!(%uri, "connected to libvirt");
                let mut closed = session.closed.subscribe();
                link.send_replace(Link::Up(session));
                bell.ring();
                closed_reason(&mut closed).await
            }
            Err(reason) => reason,
        };
        go_down(&link, &bell, &uri, reason);
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn closed_reason(closed: &mut watch::Receiver<Option<Closed>>) -> String {
    match closed.wait_for(Option::is_some).await {
        Ok(reason) => reason.unwrap_or(Closed::Failed).as_str().to_owned(),
        // The session is gone altogether, and with it the connection.
        Err(_) => Closed::Failed.as_str().to_owned(),
    }
}

async fn open(uri: &str, bell: &Arc<Bell>, link: &watch::Sender<Link>) -> Result<Arc<Session>, String> {
    let (to, rings) = (uri.to_owned(), Arc::clone(bell));
    let mut attempt = on_own_thread("zsha-open", move || Session::open(&to, &rings).map(Arc::new))
        .map_err(|error| format!("no thread to open a connection: {error}"))?;
    let opened = match tokio::time::timeout(OPEN_DEADLINE, &mut attempt).await {
        Ok(opened) => opened,
        Err(_) => {
            let reason = format!("libvirt's daemon has not answered for {} s", OPEN_DEADLINE.as_secs());
            go_down(link, bell, uri, reason);
            attempt.await
        }
    };
    opened.unwrap_or_else(|_| Err("opening a connection to libvirt panicked".to_owned()))
}

/// Notes that the connection is down. It logs that once, however often it is tried.
fn go_down(link: &watch::Sender<Link>, bell: &Bell, uri: &str, reason: String) {
    let news = link.send_if_modified(|link| {
        let news = !matches!(link, Link::Down { reason: known } if *known == reason);
        *link = Link::Down { reason: reason.clone() };
        news
    });
    if news {
        tracing::warn!(%uri, %reason, "not connected to libvirt");
        bell.ring();
    }
}
