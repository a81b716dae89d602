//! Says what each difference does to the VM, as the controllers act on it.
//!
//! Never here: whether there is a difference.

use super::compare::Difference;
use super::{Change, Impact, Op};
use crate::HaCluster;
use crate::document::Failback;
use crate::path::{Path, Step};

pub(super) fn judged(difference: Difference, new: &HaCluster) -> Change {
    let (impact, reason) = effect(&difference, new);
    let Difference { path, op, old, new } = difference;
    Change { path, op, old, new, impact, reason: reason.to_owned() }
}

/// The key below `spec` that the path goes through.
fn field(path: &Path) -> &str {
    match path.steps() {
        [Step::Key(spec), Step::Key(field), ..] if spec == "spec" => field,
        _ => "",
    }
}

fn effect(difference: &Difference, new: &HaCluster) -> (Impact, &'static str) {
    let fails_back = new.placement().failback() == Failback::Auto;
    match (field(&difference.path), difference.op) {
        ("Node", Op::Added) => (Impact::None, "the node joins, and may be given the VM once it is ready"),
        ("Node", Op::Removed) => {
            (Impact::Migration, "the node leaves; if the VM runs there, it is migrated away first")
        }
        ("Node", Op::Changed) => (Impact::None, "the VM stays where it is"),
        ("MemorySizeInGB", _) => (Impact::AtNextBoot, "the VM has the new memory from its next boot"),
        ("CPU", _) => (Impact::AtNextBoot, "the VM has the new number of CPUs from its next boot"),
        ("Type" | "MonAddrs" | "PoolName" | "ImageFolder", _) => (
            Impact::AtNextBoot,
            "the VM runs on with the image it has, and boots from the new place next time",
        ),
        ("ImageFormat", _) => (
            Impact::AtNextBoot,
            "the VM runs on with the image it has, which is opened in the new format next time",
        ),
        ("ChronyServers", _) => (Impact::AtNextBoot, "the guest is handed its time sources when it boots"),
        ("DNS", _) => (Impact::AtNextBoot, "the guest is handed its name servers when it boots"),
        ("Network", _) => (Impact::AtNextBoot, "the guest is handed its NICs when it boots"),
        ("ConsoleProxyOverriddenIP", _) => {
            (Impact::AtNextBoot, "the guest is handed the address of its console proxy when it boots")
        }
        ("AllowResetRootPassword", _) => (Impact::None, "in force at once"),
        ("Mounts", Op::Added) => (Impact::None, "the nodes mount it where it is missing"),
        ("Mounts", Op::Removed) => {
            (Impact::None, "the nodes no longer check it; where it is mounted it stays so")
        }
        ("Mounts", Op::Changed) => {
            (Impact::None, "what is mounted stays so; the change is in force from the next mount")
        }
        ("Bridges", _) => (Impact::None, "checked at once; a node that does not pass is not given the VM"),
        ("Placement", _) if fails_back => {
            (Impact::Migration, "if another node is preferred now, the VM is migrated to it live")
        }
        ("Placement", _) => (Impact::None, "the VM stays where it is; in force when it is next placed"),
        ("Availability", _) => (Impact::None, "in force at once, with the next renewal of each lease"),
        ("Fencing", _) => (Impact::None, "in force at once"),
        ("GuestShutdownSeconds", _) => (Impact::None, "in force the next time its host shuts down"),
        ("Servers", _) => (
            Impact::None,
            "the VM is not touched; Consul's agents stay as they are until `zsha install` is given this document",
        ),
        ("GuestPowerOff", _) => (Impact::None, "in force the next time the guest powers itself off"),
        _ => (Impact::Restart, "another name is another cluster, with a VM of its own"),
    }
}
