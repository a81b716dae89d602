//! What a host says in the store as it shuts down, and takes back once it has booted: a drain of its own node, which leaves
//! an operator's as it is.
//!
//! Never here: reading or writing the store.

use anyhow::Context;
use jiff::Timestamp;
use zsha_crds::NodeName;
use zsha_crds::records::{HostShutdown, Intent, VmRecord};
use zsha_runtime::store::Entry;

use super::decide::Place;
use crate::settings::Settings;

/// A node that says that it shuts down, in one of its boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub node: NodeName,
    /// The kernel's id of the boot.
    pub boot_id: String,
}

/// The name that stands in a drain in the place of one that nobody could read. The node was to be given nothing by that
/// one, and is not by this, also after it has booted.
pub(super) const UNREAD: &str = "an order that cannot be read";

impl Host {
    pub fn of(settings: &Settings) -> anyhow::Result<Self> {
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        let boot_id = std::fs::read_to_string(BOOT_ID).context(BOOT_ID)?;
        Ok(Self { node: settings.node.clone(), boot_id: boot_id.trim().to_owned() })
    }

    /// The name that stands in a drain that this host asks for.
    pub(super) fn name(&self) -> String {
        Intent::host_itself(&self.node, &self.boot_id)
    }

    /// True if this host asked for the drain, in some boot.
    pub(super) fn is_own(&self, by: &str) -> bool {
        Intent::is_host_itself(&self.node, by)
    }

    /// The order under the node's drain. None: nothing that could be read.
    pub(super) fn drain(&self, there: &Entry) -> Option<Intent> {
        Intent::under(&Intent::drain_of(&self.node), &there.value).ok()
    }

    /// The order that is to stand under the node's drain, where it differs from the present one: the host's own, or an
    /// operator's and beside it that the host shuts down.
    pub(super) fn shuts_down(
        &self,
        there: Option<&Entry>,
        no_time_to_move: bool,
        now: Timestamp,
    ) -> Option<Intent> {
        let shutdown = |before: Option<&HostShutdown>| {
            let before = before.is_some_and(|it| it.boot_id == self.boot_id && it.no_time_to_move);
            HostShutdown { boot_id: self.boot_id.clone(), no_time_to_move: no_time_to_move || before }
        };
        let own = |shutdown, at| Intent::Drain {
            by: self.name(),
            at,
            message: "the host shuts down; taken back once it has booted".to_owned(),
            shutdown: Some(shutdown),
        };
        let before = match there.map(|there| self.drain(there)) {
            None | Some(Some(Intent::None)) => return Some(own(shutdown(None), now)),
            Some(Some(before)) => before,
            // No controller could act on the unreadable order, and only a controller that reads this drain shuts the
            // guest down in order.
            Some(None) => Intent::Drain {
                by: UNREAD.to_owned(),
                at: now,
                message: format!("`zsha uncordon {}` clears it", self.node),
                shutdown: None,
            },
        };
        let wanted = match &before {
            Intent::Drain { by, at, shutdown: said, .. } if self.is_own(by) => {
                let of_this_boot = *by == self.name();
                own(shutdown(said.as_ref()), if of_this_boot { *at } else { now })
            }
            Intent::Drain { by, at, message, shutdown: said } => Intent::Drain {
                by: by.clone(),
                at: *at,
                message: message.clone(),
                shutdown: Some(shutdown(said.as_ref())),
            },
            before => before.clone(),
        };
        (wanted != before).then_some(wanted)
    }

    /// The order without what the host said before it booted, where it said anything. `goes_on`: the host is up, so
    /// what it said in this very boot is over as well (systemd alone was restarted, or the shutdown called off).
    pub(super) fn is_back(&self, there: Option<&Entry>, goes_on: bool) -> Option<Intent> {
        match there.and_then(|there| self.drain(there)) {
            Some(Intent::Drain { by, .. }) if self.is_own(&by) && (goes_on || by != self.name()) => {
                Some(Intent::None)
            }
            Some(Intent::Drain { by, at, message, shutdown: Some(shutdown) })
                if !self.is_own(&by) && (goes_on || shutdown.boot_id != self.boot_id) =>
            {
                Some(Intent::Drain { by, at, message, shutdown: None })
            }
            _ => None,
        }
    }

    pub(super) fn place(&self, vm: &VmRecord) -> Place {
        let owned = vm.owner.as_ref().is_some_and(|owner| owner.node == self.node);
        let arriving = vm.migration.as_ref().is_some_and(|migration| migration.to.node == self.node);
        match (owned, arriving) {
            (true, _) => Place::Here,
            (false, true) => Place::OnItsWayHere,
            (false, false) => Place::NotHere,
        }
    }
}
