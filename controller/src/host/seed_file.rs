//! The guest's seed disk as a file of this host. It is written whole or not at all, since it is renamed into its place.
//! A QEMU that runs keeps the one it was started with.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::SeedFact;
use crate::guest::Seed;
use crate::observed::Observed;
use crate::one_thread::OneThread;

/// The time for writing it. A local disk takes milliseconds, and the start of the VM waits for it.
const WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct SeedFile {
    path: PathBuf,
    at_it: OneThread,
    /// The last seed disk that could not be written, and why.
    refused: Arc<Mutex<Option<(Seed, String)>>>,
}

impl SeedFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, at_it: OneThread::default(), refused: Arc::default() }
    }

    pub(super) async fn look(&self, want: &Seed) -> Observed<SeedFact> {
        let (path, seed) = (self.path.clone(), want.clone());
        match self.at_it.run(WITHIN, move || is_there(&path, &seed)).await {
            Ok(Ok(true)) => Observed::Known(SeedFact::Written),
            Ok(Ok(false)) => Observed::Known(match self.why_refused(want) {
                Some(reason) => SeedFact::Refused { reason },
                None => SeedFact::NotWritten,
            }),
            Ok(Err(error)) => Observed::Unknown(self.told(&error)),
            Err(reason) => Observed::Unknown(self.told(&reason)),
        }
    }

    pub(super) async fn write(&self, seed: &Seed) -> Result<(), String> {
        let (path, wanted) = (self.path.clone(), seed.clone());
        let written = match self.at_it.run(WITHIN, move || put(&path, &wanted)).await {
            Ok(outcome) => outcome.map_err(|error| self.told(&error)),
            Err(reason) => Err(self.told(&reason)),
        };
        let refused = written.as_ref().err().map(|reason| (seed.clone(), reason.clone()));
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = refused;
        written
    }

    fn why_refused(&self, seed: &Seed) -> Option<String> {
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.as_ref().filter(|(of, _)| of == seed).map(|(_, reason)| reason.clone())
    }

    fn told(&self, what: &dyn std::fmt::Display) -> String {
        format!("{}: {what}", self.path.display())
    }
}

/// True if the file is this very seed disk.
fn is_there(path: &Path, seed: &Seed) -> io::Result<bool> {
    match fs::read(path) {
        // A seed that cannot be made is surely not there; why it cannot is for the write to say.
        Ok(there) => Ok(seed.image().is_ok_and(|image| image == there)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Puts the seed disk in its place. It need not be on the disk when this returns, since it is looked at before every
/// start.
fn put(path: &Path, seed: &Seed) -> io::Result<()> {
    if is_there(path, seed).is_ok_and(|there| there) {
        return Ok(());
    }
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let next = path.with_extension("img.next");
    let outcome = write_readable(&next, &seed.image()?).and_then(|()| fs::rename(&next, path));
    if outcome.is_err() {
        // Half of one helps nobody. Where even that fails, what is told is why it could not be written.
        let _ = fs::remove_file(&next);
    }
    outcome
}

/// Writes a file that QEMU's user may read too, whatever this process's mask.
fn write_readable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(bytes)
}
