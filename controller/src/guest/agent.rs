//! The same configuration for images without cloud-init: a script that the guest's agent runs after each boot, and what
//! it answers. Values only; who has it run is [`telling`](super::telling).
//!
//! The script asks the guest itself whether anything is to be done: cloud-init leaves a directory in `/run` in every boot, and
//! so does the script, so that a guest is told once a boot, and one that was moved live keeps what it has.

use std::fmt::Write;

use zsha_crds::{ConditionStatus, VmName};

use super::seed::{self, GUEST_FILE};
use super::{GuestConfig, NicConfig};
use crate::hypervisor::{GuestRan, HypervisorError};

const SCRIPT: &str = include_str!("agent.sh");

/// The first word of what the script prints.
const CLOUD_INIT: &str = "cloud-init";
const ALREADY: &str = "already";
const APPLIED: &str = "applied";

/// For `/bin/sh` in the guest, whatever the image is made of. No value holds a quote: they are addresses and host names.
pub fn script(vm: &VmName, config: &GuestConfig) -> String {
    let id = seed::id(vm, config);
    let mut values = format!("file={GUEST_FILE}\nid={id}\nenvironment='{}'\n", seed::guest_file(config, &id));
    let nics: Vec<_> = config.nics.iter().map(nic).collect();
    let dns: Vec<_> = config.dns.iter().map(ToString::to_string).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(values, "nics='{}'", nics.join(" "));
    let _ = writeln!(values, "dns='{}'", dns.join(" "));
    let _ = writeln!(values, "time_servers='{}'", config.time_servers.join(" "));
    values + SCRIPT
}

/// `MAC,ADDRESS/PREFIX,GATEWAY`.
fn nic(nic: &NicConfig) -> String {
    let gateway = nic.default_gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
    format!("{},{},{gateway}", nic.mac, nic.address)
}

/// What came of having it run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It sees to it by itself, from the seed.
    CloudInit,
    /// In this boot; `anew`: by this very run.
    Applied { id: String, anew: bool },
    /// The agent answers, and it was not done.
    Refused(String),
    /// Nobody in the guest has answered.
    Unknown(String),
}

impl Told {
    pub fn of(ran: Result<GuestRan, HypervisorError>) -> Self {
        let said = match ran {
            Ok(GuestRan::Printed(said)) => said,
            Ok(GuestRan::Refused(why)) => return Self::Refused(why),
            Err(error) => return Self::Unknown(error.to_string()),
        };
        let (word, rest) = said.trim().split_once(' ').unwrap_or((said.trim(), ""));
        match word {
            CLOUD_INIT => Self::CloudInit,
            ALREADY | APPLIED => Self::Applied { id: rest.to_owned(), anew: word == APPLIED },
            _ => Self::Refused(format!("the guest answered {said:?}")),
        }
    }

    /// Whether there is nothing more to be done before something happens to the VM.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::CloudInit | Self::Applied { .. })
    }

    /// As a condition has it: status, reason, message.
    pub fn verdict(&self) -> (ConditionStatus, &'static str, String) {
        match self {
            Self::CloudInit => (
                ConditionStatus::True,
                "CloudInit",
                "cloud-init in the guest applies what the document says".to_owned(),
            ),
            Self::Applied { id, .. } => (
                ConditionStatus::True,
                "Applied",
                format!("the guest was told through its agent after it booted ({id})"),
            ),
            Self::Refused(why) => (
                ConditionStatus::False,
                "Refused",
                format!(
                    "the guest could not be told its addresses through its agent, and it has no cloud-init: {why}"
                ),
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
