//! What the owner does as its host shuts down: the VM leaves live, as from any node that is drained. Where it cannot,
//! its guest is shut down and the VM given up, so that the first node that is fit starts it again. That is no stop:
//! nobody has to say `zsha start`, and it was not the guest that wanted to be off.

use std::time::Duration;

use zsha_crds::EventReason;
use zsha_crds::records::{HostShutdown, VmPhase};

use super::decision::Plan;
use super::notes::{HostDownNotes, Notes};
use super::owner::Upkeep;
use super::placement;
use super::shutdown::SHUTDOWN_PATIENCE;
use super::step::{Step, Still};
use crate::hypervisor::{LocalVm, OffReason, PauseReason};
use crate::intents::Cordon;
use crate::observed::Observed;

/// The time for which the VM waits for another node that could take it: a controller may restart, a host may come up.
/// Where all of them are drained or shut down as well, nothing is waited for.
pub const NOWHERE_PATIENCE: Duration = Duration::from_secs(30);

impl Upkeep<'_> {
    /// Deals with a host that shuts down. Returns false if the host stays up, or if the VM may still leave live.
    pub(super) fn goes_down(&self, local: LocalVm, notes: &mut Notes, plan: &mut Plan) -> bool {
        let Some(shutdown) = self.world.shutdown_of(&self.world.me) else {
            // The shutdown cannot be told just now; that takes nothing back.
            let said = self.world.shutdowns.known();
            if said.is_some_and(|said| !said.contains_key(&self.world.me)) {
                notes.seen.host_down = HostDownNotes::default();
            }
            return false;
        };
        // An operator's stop shuts the guest down, too, in its own time and for longer.
        if self.world.stop().is_some() {
            return false;
        }
        match local {
            // The guest has left past zsha: nobody knows where it is.
            LocalVm::Off { reason: OffReason::Migrated | OffReason::Unread } => return false,
            LocalVm::Absent | LocalVm::Off { .. } => {
                plan.step(self.shut_down_with_host(notes.seen.host_down.powering_off.is_some()));
            }
            LocalVm::Paused { reason: PauseReason::Leaving, .. } if !shutdown.no_time_to_move => {
                return false;
            }
            LocalVm::Paused { .. } | LocalVm::Crashed => plan.step(Step::KillCopy {
                because: format!("{} shuts down, and it executes nothing that could leave", self.world.me),
                if_still: Some(Still::HostGoesDown),
            }),
            LocalVm::Unmanaged if shutdown.no_time_to_move => plan.step(Step::KillCopy {
                because: format!("{} shuts down, and libvirt does not know it", self.world.me),
                if_still: Some(Still::HostGoesDown),
            }),
            LocalVm::Unmanaged => return false,
            LocalVm::Running { .. } | LocalVm::ShuttingDown { .. } => {
                return self.powers_off(shutdown, notes, plan);
            }
        }
        true
    }

    fn powers_off(&self, shutdown: &HostShutdown, notes: &mut Notes, plan: &mut Plan) -> bool {
        let why = match notes.seen.host_down.powering_off.clone() {
            Some(why) => why,
            None => {
                let Some(why) = self.cannot_leave(shutdown, notes, plan) else { return false };
                // A guest that was asked to power off for something else has its own time.
                notes.tried.shutdown_asked = None;
                notes.seen.host_down.powering_off = Some(why.clone());
                why
            }
        };
        let limit = self.world.document().map_or(SHUTDOWN_PATIENCE, |it| it.guest_shutdown);
        let because = format!("{} shuts down, and the VM can go nowhere else: {why}", self.world.me);
        self.shut_down(limit, (&because, Still::HostGoesDown), notes, plan);
        true
    }

    /// The reason why the VM does not leave live; None while it may.
    fn cannot_leave(&self, shutdown: &HostShutdown, notes: &mut Notes, plan: &mut Plan) -> Option<String> {
        if shutdown.no_time_to_move {
            return Some("the time for a move is over".to_owned());
        }
        if let Some(asked) = self.world.frozen() {
            return Some(format!("nothing is moved: frozen {asked}"));
        }
        if let Observed::Unknown(why) = &self.world.intents {
            return Some(format!("nothing is moved: it is not known what operators want: {why}"));
        }
        let desired = self.world.document()?;
        let me = &self.world.me;
        let line = placement::candidates(self.world, desired, self.record());
        if line.fit.iter().any(|node| node != me) {
            notes.seen.host_down.nowhere_since = None;
            return None;
        }
        let mut others = desired.order.iter().filter(|node| *node != me);
        let for_good = others.all(|node| matches!(self.world.cordon(node), Some(Cordon::Drained(_))));
        let since = *notes.seen.host_down.nowhere_since.get_or_insert(self.world.now);
        if for_good || self.world.now >= since + NOWHERE_PATIENCE {
            return Some(line.why_not());
        }
        plan.recheck_at(since + NOWHERE_PATIENCE);
        None
    }

    fn shut_down_with_host(&self, asked: bool) -> Step {
        let how = if asked { "its guest was shut down with its host" } else { "its host shuts down" };
        let message =
            format!("the VM is off on {}: {how}; the first node that is fit starts it", self.world.me);
        self.change(EventReason::HostShutDown, message, |record| {
            record.owner = None;
            record.phase = VmPhase::Stopped;
        })
    }
}
