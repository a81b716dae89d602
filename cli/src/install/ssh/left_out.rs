//! What stands in the place of a connection in a build without SSH.

use std::time::Duration;

use super::{Login, Printed, SshError};

/// There is none.
#[derive(Debug)]
pub(crate) enum Remote {}

#[allow(clippy::unused_async, reason = "as in `session`")]
impl Remote {
    pub(crate) async fn connect(_: &str, _: &Login) -> Result<Self, SshError> {
        Err(SshError::LeftOut)
    }

    pub(crate) async fn run(&self, _: &str, _: &[u8], _: Duration) -> Result<Printed, SshError> {
        match *self {}
    }

    pub(crate) async fn attempt(&self, _: &str, _: &[u8], _: Duration) -> Result<Printed, SshError> {
        match *self {}
    }
}
