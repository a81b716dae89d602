//! Whether a host is able to run the VM: its size, the ports that are to be had, and what is between QEMU and the image.

use zsha_crds::{HaCluster, PAGE_PORT};

use super::{Checked, Wish, Wrong};
use crate::install::facts::{Barrier, Facts, Listener};
use crate::install::layout::CONSULS_PORTS;
use crate::install::plan::{Consul, consul_of, is_replaced};

/// The ports of which a node is asked who listens on them.
pub(crate) fn ports(wish: &Wish<'_>) -> Vec<u16> {
    CONSULS_PORTS.into_iter().chain([page_port(wish)]).collect()
}

/// The port of the page by the settings that are given.
fn page_port(wish: &Wish<'_>) -> u16 {
    let listen = wish.choice.settings.get("listen").and_then(|listen| listen.as_str());
    listen.and_then(|listen| listen.rsplit_once(':')?.1.parse().ok()).unwrap_or(PAGE_PORT)
}

pub(super) fn size(document: &HaCluster, facts: &Facts, checked: &mut Checked) -> Option<Wrong> {
    let (abilities, wanted) = (&facts.abilities, document.memory_gib());
    if let Some(cpus) = abilities.cpus.filter(|cpus| *cpus < document.cpus()) {
        checked.remarks.push(format!("it has {cpus} CPUs, and the VM is given {}", document.cpus()));
    }
    let memory = abilities.memory_kib.filter(|memory| *memory < u64::from(wanted) << 20)?;
    let what = format!("it has {} GiB of memory, and the VM needs {wanted}", memory >> 20);
    Some((what, "give it more, or lower `MemorySizeInGB` in the document".into()))
}

/// Objects to whoever has a port of Consul's where zsha is to bring a Consul. Without its page a node does its work.
pub(super) fn taken(wish: &Wish<'_>, facts: &Facts, checked: &mut Checked) -> Vec<Wrong> {
    let Some(listeners) = &facts.abilities.listeners else {
        checked.remarks.push("which ports are taken there is not known: it has no `ss`".into());
        return Vec::new();
    };
    let page = page_port(wish);
    let by = |one: &Listener| match one.program.as_str() {
        "" => format!("something that listens at {}", one.at),
        program => format!("{program}, which listens at {}", one.at),
    };
    if let Some(one) = listeners.iter().find(|one| one.port == page && one.program != "zsha-controller") {
        checked.remarks.push(format!(
            "port {page} is taken by {}, so the node's page will not be served: `listen: 127.0.0.1:PORT` in a file given \
             with --settings names another",
            by(one)
        ));
    }
    let has_its_own = facts.installed.as_ref().is_some_and(|installed| installed.consul);
    if has_its_own || is_replaced(facts) || consul_of(facts) == Consul::Theirs {
        return Vec::new();
    }
    let taken = listeners.iter().filter(|one| CONSULS_PORTS.contains(&one.port));
    let wrong = |one: &Listener| {
        let what = format!("port {}, which Consul needs, is taken by {}", one.port, by(one));
        (what, "let it listen elsewhere, or stop it".into())
    };
    taken.map(wrong).collect()
}

/// Says what keeps QEMU, or the controller, from the image.
pub(super) fn barrier(barrier: &Barrier) -> Wrong {
    match barrier {
        Barrier::Folder { user, folder, mode } => (
            format!("QEMU's user there ({user}) may not enter {folder} ({mode})"),
            format!("`chmod o+x {folder}` there, or give that folder to the user"),
        ),
        Barrier::Unreadable(why) => (
            format!("neither root nor QEMU's user reads the image there: {why}"),
            "give the image to QEMU's user, on the server where that makes root nobody (root_squash)".into(),
        ),
        Barrier::ReadOnly(why) => (
            format!("the image cannot be written there: {why}"),
            "mount the share writable there; on the NFS server it is exported with rw".into(),
        ),
        Barrier::SeLinux(boolean) => (
            format!("SELinux keeps QEMU from the share there ({boolean} is off)"),
            format!("`setsebool -P {boolean} on` there"),
        ),
    }
}
