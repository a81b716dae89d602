//! Decides when a host may go down, and what `leave` does itself before that: a function of what was seen, of what is
//! remembered and of the time.

use std::time::Duration;

use zsha_crds::{HaCluster, NodeName};
use zsha_runtime::Moment;

use crate::hypervisor::{LocalVm, PauseReason};
use crate::keeper::Verdict;
use crate::observed::Observed;
use crate::plan::shutdown::SHUTDOWN_AGAIN;

/// The part of the whole limit that is kept beside the guest's own time: for the kill, and for what the record has to
/// say.
const SPARE: Duration = Duration::from_secs(20);
/// The time for which a host that goes down as the second waits for the one with the VM to say that it goes down as
/// well: hosts that are shut down together are not asked in the same second.
const TOGETHER: Duration = Duration::from_secs(5);
/// The time beyond the guest's own for which a node that goes down waits for the guest of another.
const MORE_THAN_THE_GUEST: Duration = Duration::from_secs(60);
/// The time after which a host that has not renewed its lease does not shut anything down any more.
const OWNER_SILENT: Duration = Duration::from_secs(30);
/// The time within which a controller that is only restarted is back.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(15);
/// The time of silence after which the store counts as gone without the keeper's verdict: longer than Consul elects a
/// leader, shorter than a lease.
const STORE_PATIENCE: Duration = Duration::from_secs(4);
/// The time after the end of the lease at which a copy that is still there cannot be killed (it hangs in the kernel).
const KEEPER_PATIENCE: Duration = Duration::from_secs(30);
/// The time after which a host goes down on which nothing of the VM is seen, while the store is silent.
const NOTHING_HERE: Duration = Duration::from_secs(10);

/// The time within which a copy that the record does not name this node for is named, or ended, unless the cluster is
/// frozen.
const UNNAMED_FOR: Duration = Duration::from_secs(15);

/// One look at everything.
#[derive(Debug)]
pub(super) struct Seen {
    pub cluster: Observed<Cluster>,
    /// The keeper's verdict, which is asked for where the cluster is unknown.
    pub lease: Observed<Verdict>,
    pub local: Observed<LocalVm>,
}

/// The cluster, as the store shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    pub place: Place,
    /// The other node that has the VM, where its host shuts down as well.
    pub owner_goes_down: Option<GoesDown>,
    /// True if any other host shuts down.
    pub others_go_down: bool,
    /// True if anybody has the VM.
    pub somebody_has_it: bool,
    pub controller_alive: bool,
}

/// The place of the VM, by the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Here,
    OnItsWayHere,
    NotHere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GoesDown {
    pub node: NodeName,
    /// The number of its lease's renewal.
    pub seq: u64,
}

/// The memory between looks.
#[derive(Debug, Clone)]
pub(super) struct SoFar {
    began: Moment,
    limit: Duration,
    pub guest_time: Duration,
    pub knows_the_document: bool,
    /// The time in which the VM could leave live is over.
    pub no_time_to_move: bool,
    store_silent_since: Option<Moment>,
    controller_silent_since: Option<Moment>,
    gone_since: Option<Moment>,
    /// The time since which a guest executes here that the record has elsewhere.
    unnamed_since: Option<Moment>,
    /// The times when this very process first asked the guest to power off, and last.
    asked: Option<(Moment, Moment)>,
    /// The other node that goes down with the VM, and since when its lease is seen as it is.
    owner: Option<(GoesDown, Moment)>,
}

/// The thing to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    Done(String),
    Wait(String),
    /// The controllers are to be told that nothing is moved any more.
    SayNoTimeToMove,
    /// Ask the guest, past the controller.
    PowerOff(String),
    /// End the guest, past the controller.
    End(String),
    GiveUp(String),
}

impl SoFar {
    pub(super) fn begin(now: Moment, limit: Duration) -> Self {
        Self {
            began: now,
            limit,
            guest_time: Duration::from_secs(HaCluster::DEFAULT_GUEST_SHUTDOWN_SECONDS.into()),
            knows_the_document: false,
            no_time_to_move: false,
            store_silent_since: None,
            controller_silent_since: None,
            gone_since: None,
            unnamed_since: None,
            asked: None,
            owner: None,
        }
    }

    /// The time until which the VM may leave live: from then on the guest needs what is left. A limit that is shorter
    /// than what the document lets a guest have is halved: moving costs the guest nothing, so that comes first all the
    /// same.
    fn move_until(&self) -> Moment {
        self.began + self.limit.saturating_sub(self.guest_time + SPARE).max(self.limit / 2)
    }

    fn is_over(&self, now: Moment) -> bool {
        now >= self.began + self.limit
    }
}

pub(super) fn decide(seen: &Seen, so_far: &mut SoFar, now: Moment) -> Next {
    let cluster = match &seen.cluster {
        Observed::Unknown(why) => return alone(why, seen, so_far, now),
        Observed::Known(cluster) => cluster,
    };
    so_far.store_silent_since = None;
    match cluster.place {
        Place::NotHere => match seen.local.known() {
            Some(LocalVm::Running { .. } | LocalVm::ShuttingDown { .. }) => unnamed(seen, so_far, now),
            _ => bystander(cluster, so_far, now),
        },
        Place::Here | Place::OnItsWayHere => with_the_vm(cluster, seen, so_far, now),
    }
}

/// Decides where the VM is elsewhere. This node's Consul is part of the quorum that the owner needs until its guest is
/// off.
fn bystander(cluster: &Cluster, so_far: &mut SoFar, now: Moment) -> Next {
    let Some(owner) = &cluster.owner_goes_down else {
        let soon = so_far.began + TOGETHER;
        if cluster.others_go_down && cluster.somebody_has_it && now < soon {
            return Next::Wait(
                "another host goes down as well: the one with the VM may be about to".to_owned(),
            );
        }
        return Next::Done("the VM is not on this node".to_owned());
    };
    let since = match &so_far.owner {
        Some((before, since)) if before == owner => *since,
        _ => now,
    };
    so_far.owner = Some((owner.clone(), since));
    let longest = so_far.began + so_far.guest_time + MORE_THAN_THE_GUEST;
    if now >= longest || now >= since + OWNER_SILENT || so_far.is_over(now) {
        return Next::Done(format!("{} shuts down with the VM, and has had its time", owner.node));
    }
    Next::Wait(format!("{} shuts down as well, and needs the quorum until the VM is off there", owner.node))
}

/// Decides where a guest executes here that the record has elsewhere, or nowhere; somebody has moved it here by hand
/// while the cluster is frozen, for one. It goes down with the host, so it is asked to power off like one that nobody
/// may move.
fn unnamed(seen: &Seen, so_far: &mut SoFar, now: Moment) -> Next {
    let since = *so_far.unnamed_since.get_or_insert(now);
    if so_far.is_over(now) {
        let why =
            "a guest of the VM that the record does not name this node for is still on it, and ends with it";
        return Next::GiveUp(why.to_owned());
    }
    let why = "the VM executes here, and the record does not name this node for it";
    if now < since + UNNAMED_FOR {
        return Next::Wait(format!("{why}: it is seen what becomes of it"));
    }
    powers_off(why, seen, so_far, now)
}

/// Decides where the VM is here, or on its way here.
fn with_the_vm(cluster: &Cluster, seen: &Seen, so_far: &mut SoFar, now: Moment) -> Next {
    let gone = seen.local.known().is_some_and(|local| !local.has_process());
    if gone && cluster.place == Place::Here {
        let since = *so_far.gone_since.get_or_insert(now);
        if now >= since + NOTHING_HERE {
            return Next::Done("nothing of the VM runs here any more".to_owned());
        }
        return Next::Wait("the VM is off here, and the record is about to say so".to_owned());
    }
    so_far.gone_since = None;
    if cluster.controller_alive {
        so_far.controller_silent_since = None;
    } else {
        so_far.controller_silent_since.get_or_insert(now);
    }
    let silent = so_far.controller_silent_since;
    let on_its_own = so_far.asked.is_some() || silent.is_some_and(|at| now >= at + CONTROLLER_PATIENCE);
    if so_far.is_over(now) {
        let why = "the VM is still on it, ends with it, and is started elsewhere then. `zsha events` says what was tried";
        return Next::GiveUp(why.to_owned());
    }
    if !so_far.no_time_to_move && (on_its_own || now >= so_far.move_until()) {
        so_far.no_time_to_move = true;
        return Next::SayNoTimeToMove;
    }
    if on_its_own {
        return powers_off("this node's controller is down", seen, so_far, now);
    }
    Next::Wait("no other node has taken it yet: `zsha status` says what each of them lacks".to_owned())
}

/// Decides without the store. Nobody can fence this node or start the VM meanwhile; and once the lease runs out, its
/// keeper kills.
fn alone(why: &str, seen: &Seen, so_far: &mut SoFar, now: Moment) -> Next {
    let silent_since = *so_far.store_silent_since.get_or_insert(now);
    let lease = seen.lease.known();
    let there = seen.local.known().map(LocalVm::has_process);
    let gone = there == Some(false);
    // Its keeper has ended what was here, unless something is seen here still; and what it cannot end, nobody here can.
    let over_since = lease.filter(|verdict| !verdict.valid(now));
    let over_since = over_since.map(|verdict| verdict.valid_until.unwrap_or(silent_since));
    let lapsed = over_since.is_some_and(|since| there != Some(true) || now >= since + KEEPER_PATIENCE);
    let over = so_far.is_over(now);
    if gone && so_far.asked.is_some() && lease.is_some() && !lapsed && !over {
        // Its controller would start it again if it saw the store now, or take it for a guest that wanted to be off.
        return Next::Wait("the guest is off; its lease is waited for".to_owned());
    }
    if (gone || lapsed) && (so_far.asked.is_some() || now >= silent_since + NOTHING_HERE) {
        let what = match there {
            Some(false) => "nothing of the VM runs here",
            Some(true) => "this node's lease has run out, and its keeper cannot end what is here",
            None => "this node's lease has run out, and its keeper ends what is here",
        };
        return Next::Done(format!("{what}. {why}"));
    }
    if over {
        let what = match there {
            Some(true) => "a copy of the VM is still on it, and ends with it",
            Some(false) => "nothing of the VM is on it",
            None => "whether the VM is still on it is not known; if it is, it ends with it",
        };
        return Next::GiveUp(format!("{what}. {why}"));
    }
    let runs_out = match lease {
        Some(verdict) => verdict.valid_until.is_none_or(|until| now + verdict.timings.ttl() / 2 >= until),
        None => now >= silent_since + STORE_PATIENCE,
    };
    if !gone && (runs_out || so_far.asked.is_some() || now >= so_far.move_until()) {
        return powers_off(why, seen, so_far, now);
    }
    Next::Wait(why.to_owned())
}

/// Asks the guest, and asks again; after its time it is ended.
fn powers_off(why: &str, seen: &Seen, so_far: &mut SoFar, now: Moment) -> Next {
    match seen.local.known() {
        Some(LocalVm::Paused { reason: PauseReason::Incoming, .. }) => {
            return Next::Wait("a copy arrives here, and is its sender's".to_owned());
        }
        Some(LocalVm::Paused { reason: PauseReason::Leaving, .. }) => {
            return Next::Wait("the guest is leaving by a migration that is under way".to_owned());
        }
        Some(LocalVm::Paused { .. } | LocalVm::Crashed | LocalVm::Unmanaged) => {
            so_far.asked.get_or_insert((now, now));
            return Next::End(format!("nothing that could be asked executes here. {why}"));
        }
        Some(LocalVm::Absent | LocalVm::Off { .. }) => return Next::Wait(why.to_owned()),
        Some(LocalVm::Running { .. } | LocalVm::ShuttingDown { .. }) | None => {}
    }
    match so_far.asked {
        Some((first, _)) if now >= first + so_far.guest_time => {
            let secs = so_far.guest_time.as_secs();
            Next::End(format!("the guest did not power off within {secs} s. {why}"))
        }
        Some((_, last)) if now < last + SHUTDOWN_AGAIN => Next::Wait(why.to_owned()),
        asked => {
            so_far.asked = Some((asked.map_or(now, |(first, _)| first), now));
            Next::PowerOff(why.to_owned())
        }
    }
}

#[cfg(test)]
mod tests;
