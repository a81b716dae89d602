//! Looks for the copies of the VM on this node, and ends those that the lease does not stand for. Never here: what is
//! done without a valid lease, which is the business of the thread that enforces.

use std::io;

use zsha_runtime::Moment;
use zsha_runtime::lease::{self, Expectation, Expected};

use super::Renewal;
use crate::errors::Whose;
use crate::hypervisor::OffReason;
use crate::hypervisor::libvirt_log::UNREAD_PATIENCE;
use crate::keeper::Ended;
use crate::keeper::copies::VmCopy;
use crate::keeper::killing::{self, Report};
use crate::keeper::unexpected::{self, Instead};
use crate::planted::{self, Bug};

/// One look at the process table: when it began, and what was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub(super) at: Moment,
    /// The number of copies. None: the table could not be read.
    pub(super) count: Option<u32>,
    /// True if one of them was made to take in a guest from elsewhere.
    pub(super) incoming: bool,
}

impl Renewal {
    /// Says whether the VM that this node was to have is somewhere else now, as far as is known. It is asked before
    /// what the node owned is set free for want of a controller, which would know. None: not known yet.
    pub(super) async fn may_have_moved(&mut self) -> Option<bool> {
        let asked = self.holder.wants_how_it_ended(self.settings.clock.now())
            && self.owned == Some(self.holder.incarnation());
        if !asked || planted::is_planted(Bug::MovedAwayIsDead) {
            self.unread_since = None;
            return Some(false);
        }
        let now = self.settings.clock.now();
        match self.settings.looking.last_end().await {
            Ok(ended) => Some(ended == Some(OffReason::Migrated)),
            // What was never here has left no log.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.own.was_seen() => Some(false),
            // A disk that dies may take its time to say so.
            Err(error)
                if error.kind() == io::ErrorKind::TimedOut
                    && Whose::is(&error) != Whose::Storage
                    && now < *self.unread_since.get_or_insert(now) + UNREAD_PATIENCE =>
            {
                None
            }
            // A dead disk takes libvirt and the guest with it, and only the storage itself can say that it is
            // dead. No answer in time has many causes, as has every other error: then nothing is believed.
            Err(error) => {
                let is_of_the_disk = Whose::is(&error) == Whose::Storage;
                tracing::warn!(%error, is_of_the_disk, "libvirt's log does not say how the VM has ended");
                Some(!is_of_the_disk)
            }
        }
    }

    pub(super) async fn look(&mut self) -> lease::Copies {
        let begun = self.settings.clock.now();
        let found = self.settings.looking.look().await;
        let (count, copies) = match &found {
            Ok(found) if found.is_empty() => (Some(0), lease::Copies::None),
            Ok(found) => (Some(u32::try_from(found.len()).unwrap_or(u32::MAX)), lease::Copies::Some),
            Err(_) if planted::is_planted(Bug::BlindIsNoCopy) => (Some(0), lease::Copies::None),
            Err(error) => {
                tracing::debug!(error = %error, "cannot look for copies of the VM");
                (None, lease::Copies::Unknown)
            }
        };
        let incoming = found.as_ref().is_ok_and(|found| found.iter().any(|copy| copy.incoming));
        self.looked = Some(Looked { at: begun, count, incoming });
        // What could not be looked at is not gone.
        if let Ok(found) = found {
            self.end_the_unexpected(found).await;
        }
        copies
    }

    /// Ends the copies that the lease does not stand for. Without a valid lease the thread that enforces ends every
    /// copy.
    async fn end_the_unexpected(&mut self, mut found: Vec<VmCopy>) {
        let now = self.settings.clock.now();
        if !self.holder.valid(now) || planted::is_planted(Bug::KeepsTheUnexpected) {
            return;
        }
        let life = self.holder.incarnation();
        if self.expected.in_life(life) == Expectation::Own && self.own_has_left(&found).await {
            tracing::warn!(
                "the VM was moved away from this node by a command that was not zsha's, as libvirt's log says; what is started \
                 here in its place is ended until this node's controller says that the VM is to be here"
            );
            self.expected = Expected { incarnation: life, what: Expectation::Nothing };
        }
        let expects = self.expected.in_life(life);
        if expects == Expectation::Own {
            // For a moment, what a QEMU forks to run a helper looks like a second one: it takes two looks.
            let beside = unexpected::beside_the_own(&found);
            let before = std::mem::replace(&mut self.beside, beside.clone());
            found = beside;
            found.retain(|copy| before.iter().any(|seen| seen.is_same_as(copy)));
        } else {
            self.beside.clear();
            found.retain(|copy| expects.forbids(copy.incoming));
        }
        let copies = self.settings.looking.copies();
        for report in self.killing.these(copies, found, now, self.holder.kill_within()) {
            if matches!(report, Report::Killed { .. }) {
                let count = self.unexpected.map_or(0, |ended| ended.count) + 1;
                self.unexpected = Some(Ended { count, at: now });
            }
            killing::log_because(&report, "this node was not to run the VM, though its lease is valid");
        }
    }

    /// True if the own copy was moved away by hand, as libvirt's log says. A controller sees that itself; a controller
    /// that has been silent for a while is taken to be down. Where the log does not say it, nothing speaks against the
    /// copy that runs.
    async fn own_has_left(&mut self, found: &[VmCopy]) -> bool {
        let instead = self.own.instead_of_it(found);
        if self.desk.controller_alive() || planted::is_planted(Bug::AnyCopyIsTheOwn) {
            self.own.see(found);
            return false;
        }
        let ended = match instead {
            Instead::Nothing => {
                self.own.see(found);
                return false;
            }
            Instead::Nobody => self.settings.looking.last_end().await,
            Instead::Another => self.settings.looking.end_before_this().await,
        };
        match (ended, instead) {
            (Ok(Some(OffReason::Migrated)), _) => return true,
            // It is asked again.
            (Err(_), Instead::Nobody) => {}
            (Ok(_), Instead::Nobody) => self.own.forget_which(),
            (Ok(_), _) => self.own.see(found),
            (Err(error), _) => {
                tracing::warn!(%error, "libvirt's log does not say how the VM has ended that was here before");
                self.own.see(found);
            }
        }
        false
    }
}
