//! Kills copies in one round after the other, while the lease is not valid or where a copy is not to be here though it
//! is. It remembers which copies were killed, which are gone, and which will not go.
//!
//! It waits for nothing and logs nothing: the thread that runs it may do neither. It returns what is worth telling.

use std::collections::BTreeMap;
use std::time::Duration;

use zsha_runtime::Moment;

use super::copies::{Copies, VmCopy};

/// A change since the round before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The copy was killed for the first time.
    Killed {
        process: u64,
    },
    /// The copy was seen to be gone after it was killed.
    Gone {
        process: u64,
    },
    /// The copy was killed more than K ago, and is still there: only a reset of the host keeps the promise now.
    Stuck {
        process: u64,
    },
    CannotKill {
        process: u64,
        reason: String,
    },
    CannotLook {
        reason: String,
    },
    CanLookAgain,
}

/// The findings of one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// True if the process table could be read, and no copy is alive.
    pub clear: bool,
    pub reports: Vec<Report>,
}

/// The memory between rounds.
#[derive(Debug, Default)]
pub struct Killing {
    /// The copies that another thread found while the lease was valid.
    told: Vec<VmCopy>,
    killed: BTreeMap<u64, Killed>,
    blind: bool,
}

#[derive(Debug)]
struct Killed {
    copy: VmCopy,
    since: Moment,
    stuck: bool,
    refused: bool,
    /// True if the signal was ever sent.
    sent: bool,
}

impl Killing {
    /// Takes in copies that another thread found, so that they die at once even if looking for them should hang.
    pub fn told(&mut self, copies: Vec<VmCopy>) {
        self.told = copies;
    }

    /// Kills every copy there is. `kill_within` is K.
    pub fn round(&mut self, copies: &dyn Copies, now: Moment, kill_within: Duration) -> Round {
        let mut reports = Vec::new();
        let again: Vec<VmCopy> = self.killed.values().map(|killed| killed.copy.clone()).collect();
        for copy in again.into_iter().chain(std::mem::take(&mut self.told)) {
            self.kill(copies, copy, now, &mut reports);
        }
        let found = match copies.alive() {
            Ok(found) => found,
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    reports.push(Report::CannotLook { reason: error.to_string() });
                }
                self.note_stuck(now, kill_within, &mut reports);
                return Round { clear: false, reports };
            }
        };
        if std::mem::replace(&mut self.blind, false) {
            reports.push(Report::CanLookAgain);
        }
        let clear = found.is_empty();
        reports.extend(self.these(copies, found, now, kill_within));
        Round { clear, reports }
    }

    /// Kills all of these copies. They are all that are to be killed.
    pub fn these(
        &mut self,
        copies: &dyn Copies,
        found: Vec<VmCopy>,
        now: Moment,
        kill_within: Duration,
    ) -> Vec<Report> {
        let mut reports = Vec::new();
        self.forget_all_but(&found, &mut reports);
        for copy in found {
            self.kill(copies, copy, now, &mut reports);
        }
        self.note_stuck(now, kill_within, &mut reports);
        reports
    }

    fn kill(&mut self, copies: &dyn Copies, copy: VmCopy, now: Moment, reports: &mut Vec<Report>) {
        let process = copy.process;
        let outcome = copies.kill(&copy);
        let new = || Killed { copy: copy.clone(), since: now, stuck: false, refused: false, sent: false };
        let known = self.killed.entry(process).or_insert_with(new);
        known.copy = copy;
        if outcome.is_ok() && !std::mem::replace(&mut known.sent, true) {
            reports.push(Report::Killed { process });
        }
        if let Err(error) = outcome
            && !std::mem::replace(&mut known.refused, true)
        {
            reports.push(Report::CannotKill { process, reason: error.to_string() });
        }
    }

    fn forget_all_but(&mut self, found: &[VmCopy], reports: &mut Vec<Report>) {
        self.killed.retain(|process, killed| {
            let there = found.iter().any(|copy| copy.is_same_as(&killed.copy));
            if !there {
                reports.push(Report::Gone { process: *process });
            }
            there
        });
    }

    fn note_stuck(&mut self, now: Moment, kill_within: Duration, reports: &mut Vec<Report>) {
        for (process, killed) in &mut self.killed {
            if !killed.stuck && now.since(killed.since) >= kill_within {
                killed.stuck = true;
                reports.push(Report::Stuck { process: *process });
            }
        }
    }
}

/// Logs a report of a copy that is killed for want of a lease. Not for the thread that kills: a log may block.
pub fn log(report: &Report) {
    log_because(report, "the lease is not valid");
}

/// Logs a report of a copy that is killed for another reason.
pub fn log_because(report: &Report, because: &str) {
    match report {
        Report::Killed { process } => tracing::warn!(process, "copy of the VM killed: {because}"),
        Report::Gone { process } => tracing::info!(process, "killed copy of the VM is gone"),
        Report::Stuck { process } => tracing::error!(process, "killed copy of the VM will not die"),
        Report::CannotKill { process, reason } => {
            tracing::error!(process, reason, "cannot kill a copy of the VM")
        }
        Report::CannotLook { reason } => tracing::error!(reason, "cannot look for copies of the VM"),
        Report::CanLookAgain => tracing::info!("copies of the VM can be looked for again"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const K: Duration = Duration::from_millis(500);

    /// A process table set by hand: `alive` is what a look finds, and killing takes from it unless `immortal`.
    #[derive(Debug)]
    struct Table {
        alive: Mutex<Result<Vec<u64>, String>>,
        killed: Mutex<Vec<u64>>,
        immortal: bool,
        /// True if no signal can be sent.
        refuses: AtomicBool,
    }

    impl Table {
        fn of(alive: &[u64]) -> Self {
            Self {
                alive: Mutex::new(Ok(alive.to_vec())),
                killed: Mutex::default(),
                immortal: false,
                refuses: AtomicBool::new(false),
            }
        }
    }

    impl Copies for Table {
        fn alive(&self) -> io::Result<Vec<VmCopy>> {
            let alive = self.alive.lock().unwrap().clone().map_err(io::Error::other)?;
            Ok(alive.into_iter().map(VmCopy::numbered).collect())
        }

        fn kill(&self, copy: &VmCopy) -> io::Result<()> {
            if self.refuses.load(Ordering::SeqCst) {
                return Err(io::Error::other("not permitted"));
            }
            self.killed.lock().unwrap().push(copy.process);
            if let (false, Ok(alive)) = (self.immortal, self.alive.lock().unwrap().as_mut()) {
                alive.retain(|process| *process != copy.process);
            }
            Ok(())
        }
    }

    fn at(millis: u64) -> Moment {
        Moment::from_millis(millis)
    }

    #[test]
    fn a_copy_is_killed_told_once_and_seen_to_be_gone() {
        let table = Table::of(&[7]);
        let mut killing = Killing::default();
        let first = killing.round(&table, at(0), K);
        assert_eq!(first, Round { clear: false, reports: vec![Report::Killed { process: 7 }] });
        let second = killing.round(&table, at(50), K);
        assert_eq!(second, Round { clear: true, reports: vec![Report::Gone { process: 7 }] });
        assert_eq!(killing.round(&table, at(100), K), Round { clear: true, reports: vec![] });
    }

    #[test]
    fn a_signal_that_could_not_be_sent_is_not_told_as_one_that_was() {
        let table = Table { refuses: AtomicBool::new(true), ..Table::of(&[7]) };
        let mut killing = Killing::default();
        let reason = "not permitted".to_owned();
        assert_eq!(killing.round(&table, at(0), K).reports, vec![Report::CannotKill { process: 7, reason }]);
        table.refuses.store(false, Ordering::SeqCst);
        let sent = vec![Report::Killed { process: 7 }, Report::Gone { process: 7 }];
        assert_eq!(killing.round(&table, at(50), K).reports, sent);
    }

    #[test]
    fn a_copy_that_will_not_die_is_killed_in_every_round_and_told_stuck_once_after_k() {
        let table = Table { immortal: true, ..Table::of(&[7]) };
        let mut killing = Killing::default();
        killing.round(&table, at(0), K);
        assert_eq!(killing.round(&table, at(499), K).reports, vec![]);
        assert_eq!(killing.round(&table, at(500), K).reports, vec![Report::Stuck { process: 7 }]);
        assert_eq!(killing.round(&table, at(550), K).reports, vec![]);
        assert!(table.killed.lock().unwrap().len() >= 4);
    }

    #[test]
    fn a_copy_told_of_before_dies_even_if_nobody_can_look_and_blindness_is_never_clear() {
        let table = Table { alive: Mutex::new(Err("/proc is gone".to_owned())), ..Table::of(&[]) };
        let mut killing = Killing::default();
        killing.told(vec![VmCopy::numbered(9)]);
        let round = killing.round(&table, at(0), K);
        assert!(!round.clear);
        assert!(round.reports.contains(&Report::Killed { process: 9 }));
        assert!(matches!(round.reports[1], Report::CannotLook { .. }));
        assert_eq!(*table.killed.lock().unwrap(), vec![9]);
        assert_eq!(killing.round(&table, at(500), K).reports, vec![Report::Stuck { process: 9 }]);
        *table.alive.lock().unwrap() = Ok(vec![]);
        let seen = killing.round(&table, at(550), K);
        assert_eq!(
            seen,
            Round { clear: true, reports: vec![Report::CanLookAgain, Report::Gone { process: 9 }] }
        );
    }
}
