//! The guest's configuration for images without cloud-init: a script that the guest's agent runs after each boot, and
//! the answers it gives. It has values only; [`telling`](super::telling) has the script run.
//!
//! The script asks the guest itself whether anything is to be done. cloud-init leaves a directory in `/run` in every
//! boot, and so does the script, so that a guest is told once a boot, and one that was moved live keeps what it has. A
//! guest that has run for a while when it is first asked (its agent was just installed, or zsha upgraded) is left as it
//! is.

use std::fmt::Write;
use std::time::Duration;

use zsha_crds::records::EventType;
use zsha_crds::{ConditionStatus, EventReason, VmName};

use super::seed::{self, GUEST_FILE};
use super::{GuestConfig, NicConfig};
use crate::hypervisor::{GuestRan, HypervisorError};

const SCRIPT: &str = include_str!("agent.sh");

/// The first word of what the script prints.
const CLOUD_INIT: &str = "cloud-init";
const ALREADY: &str = "already";
const APPLIED: &str = "applied";
const LATER: &str = "later";
/// The network of this boot is not set up yet.
const BOOTING: &str = "booting";
/// An earlier run of the script goes on.
const BUSY: &str = "busy";

/// The time after its boot in which a guest is told; after that it is told at its next boot. A guest that checks its
/// disks takes minutes to boot.
const BOOT: Duration = Duration::from_secs(900);

/// The script for `/bin/sh` in the guest, whatever the image is made of. No value holds a quote: they are addresses and
/// host names.
pub fn script(vm: &VmName, config: &GuestConfig) -> String {
    let id = seed::id(vm, config);
    let boot = BOOT.as_secs();
    let mut values = format!(
        "boot_secs={boot}\nfile={GUEST_FILE}\nid={id}\nenvironment='{}'\n",
        seed::guest_file(config, &id)
    );
    let table = |nic: &NicConfig| config.ways_back().find(|way| way.nic == nic).map(|way| way.table);
    let nics: Vec<_> = config.nics.iter().map(|one| nic(one, table(one))).collect();
    let dns: Vec<_> = config.dns.iter().map(ToString::to_string).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(values, "nics='{}'", nics.join(" "));
    let _ = writeln!(values, "dns='{}'", dns.join(" "));
    let _ = writeln!(values, "time_servers='{}'", config.time_servers.join(" "));
    values + SCRIPT
}

/// `MAC,ADDRESS/PREFIX,SUBNET,GATEWAY,TABLE`, the last of which is empty where the gateway is the guest's default route.
fn nic(nic: &NicConfig, table: Option<usize>) -> String {
    let table = table.map(|table| table.to_string()).unwrap_or_default();
    format!("{},{},{},{},{table}", nic.mac, nic.address, nic.address.trunc(), nic.gateway)
}

/// The result of having the script run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The guest reads the configuration by itself, from the seed disk.
    CloudInit,
    /// The configuration is applied in this boot; `anew`: by this very run. `but`: what could not be applied.
    Applied { id: String, anew: bool, but: String },
    /// The guest has run for long. It is told at its next boot.
    NextBoot,
    /// The script was run, and failed.
    Failed(String),
    /// The guest's agent may run nothing.
    NotAllowed(String),
    /// The agent has answered that it is not time yet, and why.
    NotYet(&'static str),
    /// Nobody in the guest has answered.
    Unknown(String),
}

impl Told {
    pub fn of(ran: Result<GuestRan, HypervisorError>) -> Self {
        let said = match ran {
            Ok(GuestRan::Printed(said)) => said,
            Ok(GuestRan::Failed(why)) => return Self::Failed(why),
            Ok(GuestRan::NotAllowed(why)) => return Self::NotAllowed(why),
            Err(error) => return Self::Unknown(error.to_string()),
        };
        let (word, rest) = said.trim().split_once(' ').unwrap_or((said.trim(), ""));
        let (id, but) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            CLOUD_INIT => Self::CloudInit,
            LATER => Self::NextBoot,
            ALREADY | APPLIED => {
                Self::Applied { id: id.to_owned(), anew: word == APPLIED, but: but.to_owned() }
            }
            BOOTING => Self::NotYet("it is still booting"),
            BUSY => Self::NotYet("an earlier run of the script goes on"),
            _ => Self::Failed(format!("the guest answered {said:?}")),
        }
    }

    /// True if there is nothing more to be done before something happens to the VM.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::CloudInit | Self::Applied { .. } | Self::NextBoot)
    }

    /// The event's type and reason, where the result is one.
    pub fn event(&self) -> Option<(EventType, EventReason)> {
        match self {
            Self::Applied { anew: true, .. } => Some((EventType::Normal, EventReason::GuestTold)),
            Self::NextBoot | Self::NotAllowed(_) => Some((EventType::Normal, EventReason::GuestNotTold)),
            Self::Failed(_) => Some((EventType::Warning, EventReason::GuestNotTold)),
            Self::CloudInit | Self::Applied { .. } | Self::NotYet(_) | Self::Unknown(_) => None,
        }
    }

    /// The condition's status, reason and message.
    pub fn verdict(&self) -> (ConditionStatus, &'static str, String) {
        match self {
            Self::CloudInit => (
                ConditionStatus::True,
                "CloudInit",
                "cloud-init in the guest applies what the document says".to_owned(),
            ),
            Self::Applied { id, but, .. } => {
                let but = if but.is_empty() { String::new() } else { format!(", {but}") };
                let message = format!("the guest was told through its agent after it booted ({id}){but}");
                (ConditionStatus::True, "Applied", message)
            }
            Self::NextBoot => (
                ConditionStatus::Unknown,
                "NextBoot",
                "the guest, where no cloud-init reads the seed disk, runs as it is and is told through its agent at its next boot".to_owned(),
            ),
            Self::Failed(why) => (
                ConditionStatus::False,
                "Failed",
                format!("the guest, where no cloud-init reads the seed disk, could not be told its addresses through its agent: {why}"),
            ),
            Self::NotAllowed(why) => (
                ConditionStatus::Unknown,
                "NotAllowed",
                format!("whether the guest has what the document says is not known: its agent is not allowed to run commands ({why}); \
                         with cloud-init it need not"),
            ),
            Self::NotYet(why) => (
                ConditionStatus::Unknown,
                "NotYet",
                format!("the guest, where no cloud-init reads the seed disk, is about to be told through its agent: {why}"),
            ),
            Self::Unknown(why) => (
                ConditionStatus::Unknown,
                "NotAnswering",
                format!("no agent in the guest answers; with cloud-init it needs none: {why}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
