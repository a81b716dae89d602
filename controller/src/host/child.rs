//! Children that may hang: each has a deadline, is killed when it passes, and is left behind when even that does
//! not end it (a process waiting for dead storage cannot be killed). Only so many may lie about.

use std::fmt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

/// Enough to look at a few mounts at once; few enough that hanging ones do no harm.
const AT_ONCE: usize = 8;

/// What a child says is a line or two.
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

/// Why there is no such thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotEnded {
    NotStarted(String),
    Hangs {
        limit: Duration,
    },
    /// So many earlier ones hang that no more are started.
    TooMany,
}

impl fmt::Display for NotEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(reason) => write!(f, "cannot start: {reason}"),
            Self::Hangs { limit } => write!(f, "no answer within {} s", limit.as_secs_f64()),
            Self::TooMany => write!(f, "{AT_ONCE} earlier attempts still hang"),
        }
    }
}

impl Children {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Runs it to its end, or to the deadline.
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
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let ending = async {
            let (output, errors) = tokio::join!(text(output), text(errors));
            (child.wait().await, output, errors)
        };
        match tokio::time::timeout(limit, ending).await {
            Ok((Ok(status), output, errors)) => Ok(Ended { success: status.success(), output, errors }),
            Ok((Err(error), ..)) => Err(NotEnded::NotStarted(error.to_string())),
            Err(_) => {
                tokio::spawn(async move {
                    // Its place is free when it is really gone, which may be never.
                    if let Err(error) = child.kill().await {
                        tracing::debug!(error = %error, "child that hangs");
                    }
                    drop(place);
                });
                Err(NotEnded::Hangs { limit })
            }
        }
    }
}

async fn text(from: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // What was read before an error is all there is to tell.
        let _ = from.take(OUTPUT_LIMIT).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
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
            assert_eq!(hangs, Err(NotEnded::Hangs { limit }));
        }
        assert!(children.run(shell("true"), LONG).await.unwrap().success);
    }

    #[tokio::test]
    async fn when_every_place_is_taken_nothing_more_is_started() {
        let children = Children::new();
        let _stuck = Arc::clone(&children.places).acquire_many_owned(8).await.unwrap();
        let refused = children.run(shell("true"), Duration::from_millis(10)).await;
        assert_eq!(refused, Err(NotEnded::TooMany));
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_not_started() {
        let outcome = Children::new().run(Command::new("/nonexistent"), LONG).await;
        assert!(matches!(outcome, Err(NotEnded::NotStarted(_))));
    }
}
