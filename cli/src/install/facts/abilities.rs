//! What a host is able to do for the VM, and by what one host is told from another.

use std::collections::{BTreeMap, BTreeSet};

/// What a host has said of itself. What it has not said is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Abilities {
    /// An error says why KVM cannot be used there.
    pub(crate) kvm: Option<Result<(), String>>,
    /// Of `/etc/machine-id`: a copy of a host has that of the host.
    pub(crate) machine_id: Option<String>,
    /// The kernel's, another with each boot.
    pub(crate) boot_id: Option<String>,
    /// The UUID by which libvirt tells hosts apart in a live migration.
    pub(crate) host_uuid: Option<String>,
    pub(crate) cpu: Option<Cpu>,
    pub(crate) cpus: Option<u32>,
    pub(crate) memory_kib: Option<u64>,
    /// By bridge, in bytes.
    pub(crate) mtus: BTreeMap<String, u32>,
    /// Those on ports that zsha or Consul is to have; none where that was not found out.
    pub(crate) listeners: Option<Vec<Listener>>,
    pub(crate) barriers: Vec<Barrier>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cpu {
    pub(crate) model: String,
    /// Its features, by Linux's names.
    pub(crate) flags: BTreeSet<String>,
}

/// A program that listens on a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listener {
    pub(crate) port: u16,
    /// As `ss` prints it: `0.0.0.0:8500`.
    pub(crate) at: String,
    /// Empty where it was not told.
    pub(crate) program: String,
}

/// What is between QEMU and the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Barrier {
    /// A folder above the image that QEMU's user may not enter.
    Folder {
        user: String,
        folder: String,
        mode: String,
    },
    /// Neither root reads it, nor QEMU's user.
    Unreadable(String),
    ReadOnly(String),
    /// SELinux forbids it, until this boolean of it is on.
    SeLinux(String),
}

/// Takes in a line about them. False: the line is about something else.
pub(super) fn take_in(abilities: &mut Abilities, line: &[&str]) -> bool {
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match line {
        ["kvm", "yes"] => abilities.kvm = Some(Ok(())),
        ["kvm", "no", why] => abilities.kvm = Some(Err((*why).to_owned())),
        ["machine-id", id] => abilities.machine_id = filled(id),
        ["boot-id", id] => abilities.boot_id = filled(id),
        ["host-uuid", uuid] => abilities.host_uuid = filled(uuid),
        ["cpu", model, flags] if !flags.is_empty() => {
            let flags = flags.split_ascii_whitespace().map(str::to_owned).collect();
            abilities.cpu = Some(Cpu { model: (*model).to_owned(), flags });
        }
        ["cpus", count] => abilities.cpus = count.parse().ok(),
        ["memory", kib] => abilities.memory_kib = kib.parse().ok(),
        ["mtu", bridge, bytes] => {
            if let Ok(bytes) = bytes.parse() {
                abilities.mtus.insert((*bridge).to_owned(), bytes);
            }
        }
        ["listens-known", _] => {
            abilities.listeners.get_or_insert_default();
        }
        ["listens", port, at, program] => {
            if let Ok(port) = port.parse() {
                let (at, program) = ((*at).to_owned(), (*program).to_owned());
                abilities.listeners.get_or_insert_default().push(Listener { port, at, program });
            }
        }
        ["barrier", "folder", user, folder, mode] => {
            let [user, folder, mode] = [user, folder, mode].map(|word| (*word).to_owned());
            abilities.barriers.push(Barrier::Folder { user, folder, mode });
        }
        ["barrier", "unreadable", why] => abilities.barriers.push(Barrier::Unreadable((*why).to_owned())),
        ["barrier", "read-only", why] => abilities.barriers.push(Barrier::ReadOnly((*why).to_owned())),
        ["barrier", "selinux", boolean] => abilities.barriers.push(Barrier::SeLinux((*boolean).to_owned())),
        _ => return false,
    }
    true
}
