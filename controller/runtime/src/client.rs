//! A cluster for whoever is no node of it: a command, a dashboard, a page. Such a client looks on (`view`, `watch`),
//! looks back (`past`), puts a document in force (`document`, `apply`, `commit`), and gives an order and waits until it
//! has come true (`order`, `intent`, `until`).
//!
//! A client changes desired state and nothing else, each time by one compare-and-set transaction. It prints nothing and
//! asks nobody: an error says what failed as a type, and the words for people are found where people are.

pub mod clusters;
pub mod past;
pub mod view;
pub mod watch;

pub mod apply;
pub mod commit;
pub mod document;

pub mod intent;
pub mod order;
pub mod until;

#[cfg(test)]
mod tests;

use crate::store::StoreError;

/// A read that the store did not answer, and what it was for, such as `reading the history`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing} failed")]
pub struct ReadError {
    pub doing: &'static str,
    pub source: StoreError,
}

impl ReadError {
    /// Turns the store's error into one that says what the read was for.
    fn while_doing(doing: &'static str) -> impl Fn(StoreError) -> Self {
        move |source| Self { doing, source }
    }

    /// True if the same read may well succeed in a moment.
    pub fn is_transient(&self) -> bool {
        self.source.is_transient()
    }
}
