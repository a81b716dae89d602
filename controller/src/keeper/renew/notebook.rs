//! Where the lease's memory is kept for the next life of the keeper.

use std::sync::{Arc, Mutex, PoisonError};

use zsha_runtime::lease::Memory;

use crate::keeper::StateFile;

#[derive(Debug)]
pub enum Notebook {
    /// Nowhere: a keeper that begins anew is not valid until it has renewed.
    Forgetful,
    File(Pages),
    /// In memory, for a simulated keeper that is restarted on a host that is not. Empty it to simulate a reboot.
    Shared(Arc<Mutex<Option<Memory>>>),
}

impl Notebook {
    pub fn file(file: StateFile) -> Self {
        Self::File(Pages { file, held: None, failing: false })
    }

    pub(super) fn read(&mut self) -> Option<Memory> {
        match self {
            Self::Forgetful => None,
            Self::Shared(memory) => memory.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Self::File(pages) => pages.read(),
        }
    }

    /// Whether a keeper started anew would believe in no later deadline than this one: because it is written,
    /// because nothing is left to be read, or because what is left ends earlier.
    pub(super) fn write(&mut self, memory: Memory) -> bool {
        match self {
            Self::Forgetful => true,
            Self::Shared(shared) => {
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
                true
            }
            Self::File(pages) => pages.write(memory),
        }
    }
}

/// A state file, and what it may hold.
#[derive(Debug)]
pub struct Pages {
    file: StateFile,
    held: Option<Memory>,
    failing: bool,
}

impl Pages {
    fn read(&mut self) -> Option<Memory> {
        self.held = self.file.read().unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "no memory of an earlier lease is used");
            None
        });
        self.held.clone()
    }

    fn write(&mut self, memory: Memory) -> bool {
        if self.held.as_ref() == Some(&memory) {
            return true;
        }
        let believed = memory.deadline;
        let outcome = self.file.write(&memory);
        let failing = outcome.is_err();
        match outcome {
            Ok(()) => self.held = Some(memory),
            Err(error) => {
                if !self.failing {
                    tracing::warn!(error = %error, "the keeper's state file cannot be written");
                }
                if self.file.remove().is_ok() {
                    self.held = None;
                }
            }
        }
        if self.failing && !failing {
            tracing::info!("the keeper's state file can be written again");
        }
        self.failing = failing;
        self.held.as_ref().and_then(|held| held.deadline) <= believed
    }
}
