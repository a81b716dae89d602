//! The migration that this process began last, as far as it has got. The thread that waits for its end shares it with
//! those that look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::events::Bell;
use crate::hypervisor::MigrationJob;

#[derive(Debug, Clone, Default)]
pub(super) struct Job {
    state: Arc<Mutex<MigrationJob>>,
}

/// The end of one migration, for the thread that waits: it is told once. Dropped without, the migration has failed.
#[derive(Debug)]
pub(super) struct Ending {
    job: Job,
    id: Uuid,
    bell: Arc<Bell>,
    told: bool,
}

impl Job {
    pub(super) fn begin(&self, id: Uuid, bell: &Arc<Bell>) -> Ending {
        *self.lock() = MigrationJob::Going { id, percent: None };
        Ending { job: self.clone(), id, bell: Arc::clone(bell), told: false }
    }

    pub(super) fn state(&self) -> MigrationJob {
        self.lock().clone()
    }

    pub(super) fn progressed(&self, now: Option<u8>) {
        if let (MigrationJob::Going { percent, .. }, Some(_)) = (&mut *self.lock(), now) {
            *percent = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, MigrationJob> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ending {
    pub(super) fn over(mut self, outcome: Result<(), String>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<(), String>) {
        self.told = true;
        let id = self.id;
        {
            let mut state = self.job.lock();
            // A later one may have begun: a thread that hung for long speaks of its own only.
            if state.id() == Some(id) {
                *state = match outcome {
                    Ok(()) => MigrationJob::Done { id },
                    Err(reason) => MigrationJob::Failed { id, reason },
                };
            }
        }
        self.bell.ring();
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.told {
            self.tell(Err("the thread that waited for it has died".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_end_is_told_once_and_not_of_another() {
        let (job, bell) = (Job::default(), Arc::new(Bell::new(Uuid::nil())));
        assert_eq!(job.state(), MigrationJob::None);
        let first = job.begin(Uuid::from_u128(1), &bell);
        job.progressed(Some(40));
        assert_eq!(job.state(), MigrationJob::Going { id: Uuid::from_u128(1), percent: Some(40) });
        let second = job.begin(Uuid::from_u128(2), &bell);
        first.over(Ok(()));
        assert_eq!(job.state(), MigrationJob::Going { id: Uuid::from_u128(2), percent: None });
        second.over(Ok(()));
        job.progressed(Some(50));
        assert_eq!(job.state(), MigrationJob::Done { id: Uuid::from_u128(2) });
        assert_eq!(*bell.changes().borrow(), 2);
    }

    #[test]
    fn one_whose_thread_died_has_failed() {
        let (job, bell) = (Job::default(), Arc::new(Bell::new(Uuid::nil())));
        drop(job.begin(Uuid::from_u128(1), &bell));
        assert!(matches!(job.state(), MigrationJob::Failed { .. }));
    }
}
