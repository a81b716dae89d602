//! Runs children that may hang. Each has a deadline, is killed when it passes, and is left behind when even that does
//! not end it (a process waiting for dead storage cannot be killed). Only so many may lie about.

use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// The number of children at once: enough to look at a few mounts, few enough that hanging ones do no harm.
const AT_ONCE: usize = 8;

/// The most that is read of a child's output, which is a line or two.
const OUTPUT_LIMIT: u64 = 64 << 10;

#[derive(Debug, Clone)]
pub(super) struct Children {
    places: Arc<Semaphore>,
}

/// How a child ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) success: bool,
    pub(super) output: String,
    pub(super) errors: String,
}

/// The reason why a child did not end by itself.
#[derive(Debug)]
pub(super) enum NotEnded {
    NotStarted(String),
    Hangs(Hung),
    /// No more children are started, since so many earlier ones hang.
    TooMany,
}

/// A child that was not done in time.
#[derive(Debug)]
pub(super) struct Hung {
    pub(super) limit: Duration,
    /// The output that the child had written by then.
    pub(super) said: String,
    /// True if the child was waiting in a call to the kernel then; otherwise it was only not let run.
    pub(super) in_a_call: bool,
    /// The task that is finished once the child is really gone, which may be never.
    pub(super) gone: JoinHandle<()>,
}

impl fmt::Display for NotEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(reason) => write!(f, "cannot start: {reason}"),
            Self::Hangs(hung) => write!(f, "no answer within {} s", hung.limit.as_secs_f64()),
            Self::TooMany => write!(f, "{AT_ONCE} earlier attempts still hang"),
        }
    }
}

impl Children {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Runs the command to its end, or to the deadline.
    pub(super) async fn run(&self, mut command: Command, limit: Duration) -> Result<Ended, NotEnded> {
        let taken = tokio::time::timeout(limit, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(place)) = taken else { return Err(NotEnded::TooMany) };
        let mut child = command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| NotEnded::NotStarted(error.to_string()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let ending = async {
            tokio::join!(read(stdout, &mut output), read(stderr, &mut errors));
            child.wait().await
        };
        match tokio::time::timeout(limit, ending).await {
            Ok(Ok(status)) => {
                Ok(Ended { success: status.success(), output: text(&output), errors: text(&errors) })
            }
            Ok(Err(error)) => Err(NotEnded::NotStarted(error.to_string())),
            Err(_) => {
                let in_a_call = child.id().is_some_and(waits_in_a_call);
                let gone = tokio::spawn(async move {
                    // Its place is free when it is really gone, which may be never.
                    if let Err(error) = child.kill().await {
                        tracing::debug!(error = %error, "child that hangs");
                    }
                    drop(place);
                });
                Err(NotEnded::Hangs(Hung { limit, said: text(&output), in_a_call, gone }))
            }
        }
    }
}

/// Reads the output of a child. What was read before an error, or before the reader is dropped, is all there is to
/// tell.
async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(from) = from else { return };
    let mut from = from.take(OUTPUT_LIMIT);
    while matches!(from.read_buf(into).await, Ok(1..)) {}
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// True if the process waits in a call to the kernel. For one that runs, or would if it were let, the kernel says
/// "running" in the place of a call. For one that waits outside of any call, for a page of its own program for
/// instance, it says a negative number. A process that was stopped is where it was.
fn waits_in_a_call(process: u32) -> bool {
    let read = |what: &str| std::fs::read_to_string(format!("/proc/{process}/{what}")).unwrap_or_default();
    let (call, stat) = (read("syscall"), read("stat"));
    let waits = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['D', 'S']));
    waits && call.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_child_that_ends_is_told_with_what_it_said() {
        let ended = Children::new().run(shell("echo out; echo err >&2; exit 3"), LONG).await.unwrap();
        assert_eq!(ended, Ended { success: false, output: "out\n".to_owned(), errors: "err\n".to_owned() });
    }

    #[tokio::test]
    async fn a_child_that_hangs_is_given_up_and_its_place_comes_back_once_it_is_dead() {
        let children = Children::new();
        let limit = Duration::from_millis(50);
        for _ in 0..AT_ONCE {
            let hangs = children.run(shell("exec cat /dev/zero >/dev/null"), limit).await;
            assert!(matches!(hangs, Err(NotEnded::Hangs(_))), "{hangs:?}");
        }
        assert!(children.run(shell("true"), LONG).await.unwrap().success);
    }

    #[tokio::test]
    async fn of_a_child_that_hangs_is_told_what_it_said_and_whether_it_waits_for_the_kernel() {
        for (script, waits) in
            [("echo begun; exec sleep 1000", true), ("echo begun; while :; do :; done", false)]
        {
            let hangs = Children::new().run(shell(script), Duration::from_millis(500)).await;
            let Err(NotEnded::Hangs(hung)) = hangs else { panic!("{hangs:?}") };
            assert_eq!((hung.said.as_str(), hung.in_a_call), ("begun\n", waits), "{script}");
            tokio::time::timeout(LONG, hung.gone).await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn when_every_place_is_taken_nothing_more_is_started() {
        let children = Children::new();
        let _stuck = Arc::clone(&children.places).acquire_many_owned(8).await.unwrap();
        let refused = children.run(shell("true"), Duration::from_millis(10)).await;
        assert!(matches!(refused, Err(NotEnded::TooMany)), "{refused:?}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_not_started() {
        let outcome = Children::new().run(Command::new("/nonexistent"), LONG).await;
        assert!(matches!(outcome, Err(NotEnded::NotStarted(_))));
    }
}
