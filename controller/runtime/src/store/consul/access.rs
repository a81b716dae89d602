//! The token that requests carry, and the file it came from. A token that was rotated is read again when the old one is
//! refused. It sends nothing.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use super::Token;

/// The time for reading a file on this machine. A read that takes longer hangs, and a renewal that waits for it would
/// wait too long.
const READ_WITHIN: Duration = Duration::from_millis(250);

/// The token of one store, for all its endpoints.
#[derive(Debug)]
pub(super) struct Access {
    token: RwLock<Option<Token>>,
}

impl Access {
    pub(super) fn new(token: Option<Token>) -> Self {
        Self { token: RwLock::new(token) }
    }

    /// The token to send now.
    pub(super) fn token(&self) -> Option<Token> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for another token than the one that was refused, and says whether there is one: because the file holds
    /// another by now, or because another call has read it already. A file that cannot be read changes nothing.
    pub(super) async fn renewed(&self, refused: Option<&Token>) -> bool {
        let Some(refused) = refused else { return false };
        let file = refused.file.clone();
        let reading = tokio::task::spawn_blocking(move || Token::from_file(&file));
        if let Ok(Ok(Ok(read))) = tokio::time::timeout(READ_WITHIN, reading).await
            && read != *refused
        {
            *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(read);
        }
        self.token().as_ref() != Some(refused)
    }
}
