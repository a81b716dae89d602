//! Looks for copies from an async loop that may not hang, whatever /proc does.

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::hypervisor::OffReason;
use crate::keeper::copies::{Copies, VmCopy};
use crate::one_thread::OneThread;

/// The longest time for a scan, which takes a millisecond or two. A scan that takes longer hangs (a process's command
/// line can be unreadable while it sits in a page fault on dead storage), and renewing must not wait for it.
const LOOK_LIMIT: Duration = Duration::from_millis(500);

/// The place where the looking is done.
#[derive(Debug)]
pub enum Looking {
    /// Look here and now: nothing can hang in a simulation, and order must not depend on threads.
    Inline(Arc<dyn Copies>),
    /// Look on a thread, of which at most one is ever stuck.
    Apart(Apart),
}

#[derive(Debug)]
pub struct Apart {
    copies: Arc<dyn Copies>,
    /// The line to the thread that kills.
    tell: mpsc::Sender<Vec<VmCopy>>,
    stuck: Option<JoinHandle<io::Result<Vec<VmCopy>>>>,
    /// The thread that reads libvirt's log.
    at_log: OneThread,
    /// The processes that were found last.
    who: Option<String>,
}

type AskLog = fn(&dyn Copies) -> io::Result<Option<OffReason>>;

/// The number of processes that are named; there should be one at most.
const NAMED: usize = 3;

impl Apart {
    pub fn new(copies: Arc<dyn Copies>, tell: mpsc::Sender<Vec<VmCopy>>) -> Self {
        Self { copies, tell, stuck: None, at_log: OneThread::default(), who: None }
    }

    async fn ask_log(&self, ask: AskLog) -> io::Result<Option<OffReason>> {
        let copies = Arc::clone(&self.copies);
        let read = self.at_log.run(LOOK_LIMIT, move || ask(copies.as_ref())).await;
        read.unwrap_or_else(|why| Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }

    async fn look(&mut self) -> io::Result<Vec<VmCopy>> {
        if let Some(stuck) = &mut self.stuck {
            // Its answer is of a time before the question.
            tokio::time::timeout(LOOK_LIMIT, stuck)
                .await
                .map_err(|_| hangs())?
                .map_err(io::Error::other)?
                .ok();
            self.stuck = None;
        }
        let copies = Arc::clone(&self.copies);
        let mut scan = tokio::task::spawn_blocking(move || copies.alive());
        let Ok(done) = tokio::time::timeout(LOOK_LIMIT, &mut scan).await else {
            self.stuck = Some(scan);
            return Err(hangs());
        };
        let found = done.map_err(io::Error::other)??;
        let named: Vec<String> = found.iter().take(NAMED).map(ToString::to_string).collect();
        self.who = (!named.is_empty()).then(|| named.join(", "));
        // Nobody listening means no thread that kills: the process is ending.
        let _ = self.tell.send(found.clone());
        Ok(found)
    }
}

impl Looking {
    /// Reads how the last copy has ended. An error: that could not be read in time.
    pub async fn last_end(&self) -> io::Result<Option<OffReason>> {
        self.ask_log(|copies| copies.last_end()).await
    }

    /// Reads how the copy before the one that is here now has ended.
    pub async fn end_before_this(&self) -> io::Result<Option<OffReason>> {
        self.ask_log(|copies| copies.end_before_this()).await
    }

    async fn ask_log(&self, ask: AskLog) -> io::Result<Option<OffReason>> {
        match self {
            Self::Inline(copies) => ask(copies.as_ref()),
            Self::Apart(apart) => apart.ask_log(ask).await,
        }
    }

    /// Finds the copies that are alive, by a look that begins after this was called.
    pub async fn look(&mut self) -> io::Result<Vec<VmCopy>> {
        match self {
            Self::Inline(copies) => copies.alive(),
            Self::Apart(apart) => apart.look().await,
        }
    }

    /// The processes that were found last, for people. None: there was none, or none that has a name.
    pub fn who(&self) -> Option<&str> {
        match self {
            Self::Inline(_) => None,
            Self::Apart(apart) => apart.who.as_deref(),
        }
    }

    /// The copies as the loop kills them, which waits for nothing.
    pub fn copies(&self) -> &dyn Copies {
        match self {
            Self::Inline(copies) => copies.as_ref(),
            Self::Apart(apart) => apart.copies.as_ref(),
        }
    }
}

fn hangs() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "reading the process table hangs")
}
