//! Keeps the lease's memory for the next life of the keeper.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use zsha_runtime::Moment;
use zsha_runtime::lease::Memory;

use crate::keeper::StateFile;

#[derive(Debug)]
pub enum Notebook {
    /// The memory is kept nowhere: a keeper that begins anew is not valid until it has renewed.
    Forgetful,
    File(Box<Pages>),
    /// The memory is kept in this process, for a simulated keeper that is restarted on a host that is not. Empty it to
    /// simulate a reboot.
    Shared(Arc<Mutex<Option<Memory>>>),
}

impl Notebook {
    pub fn file(file: StateFile) -> Self {
        Self::file_or(file, None)
    }

    /// A state file, and the memory that the keeper before has handed over beside it: the later of the two counts.
    pub fn file_or(file: StateFile, handed: Option<Memory>) -> Self {
        Self::File(Box::new(Pages { file, held: None, handed, trouble: None }))
    }

    pub(in crate::keeper) fn read(&mut self) -> Option<Memory> {
        match self {
            Self::Forgetful => None,
            Self::Shared(memory) => memory.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Self::File(pages) => pages.read(),
        }
    }

    /// The reason why nothing can be written down, while that is so.
    pub(super) fn trouble(&self) -> Option<&str> {
        match self {
            Self::Forgetful | Self::Shared(_) => None,
            Self::File(pages) => pages.trouble.as_deref(),
        }
    }

    /// Writes the memory. True if a keeper started anew would believe in no later deadline than this one: because it is
    /// written, because nothing is left to be read, or because what is left ends earlier.
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
    handed: Option<Memory>,
    trouble: Option<String>,
}

impl Pages {
    fn read(&mut self) -> Option<Memory> {
        self.held = self.file.read().unwrap_or_else(|error| {
            tracing::warn!(error = format!("{error:#}"), "no memory of an earlier lease is used");
            None
        });
        later(self.held.clone(), self.handed.clone())
    }

    fn write(&mut self, memory: Memory) -> bool {
        if self.held.as_ref() == Some(&memory) && self.file.exists() {
            return true;
        }
        let believed = memory.deadline;
        match self.file.write(&memory) {
            Ok(()) => {
                self.held = Some(memory);
                if self.trouble.take().is_some() {
                    tracing::info!("the keeper's state file can be written again");
                }
            }
            Err(error) => self.not_written(believed, &error),
        }
        self.held.as_ref().and_then(|held| held.deadline) <= believed
    }

    /// Deals with a memory that could not be written. The next keeper may believe what is left in the file. The file
    /// goes if it says more than is so, and stays if it says less, which is better than nothing.
    fn not_written(&mut self, believed: Option<Moment>, error: &io::Error) {
        if self.trouble.replace(error.to_string()).is_none() {
            tracing::warn!(%error, "the keeper's state file cannot be written");
        }
        if self.held.as_ref().is_some_and(|held| held.deadline > believed) && self.file.remove().is_ok() {
            self.held = None;
        }
    }
}

/// The memory of the later renewal. Where both are of one renewal, it is the one that was handed over, since that was
/// told last.
fn later(held: Option<Memory>, handed: Option<Memory>) -> Option<Memory> {
    match (held, handed) {
        (Some(held), Some(handed)) if (held.epoch, held.seq) > (handed.epoch, handed.seq) => Some(held),
        (held, handed) => handed.or(held),
    }
}
