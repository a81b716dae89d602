//! The VM's disk: whether a node reaches the image as a file, and who else there has it, or could start what has it.

use zsha_crds::document::Node;
use zsha_crds::{HaCluster, VmId};

use super::{Checked, Objection, Wish, rbd};
use crate::install::ceph::CephLogin;
use crate::install::facts::{DiskUser, Facts, Image};

/// Judges the domains that libvirt could start past zsha, by hand or with the boot. The VM's own definition goes once
/// zsha runs there, and one of an earlier version is no fault; what only has its name would stand in its way, and may
/// have its disk.
pub(super) fn domain(document: &HaCluster, node: &Node, facts: &Facts, checked: &mut Checked) {
    let VmId { name, uuid } = document.vm();
    let domain = match &facts.domain {
        Ok(Some(domain)) => domain,
        Ok(None) => return,
        Err(why) => {
            checked.remarks.push(format!(
                "libvirt there does not say whether it has a domain named {name} ({why}); one of another kind would keep \
                 the VM from starting there"
            ));
            return;
        }
    };
    let boots = if domain.autostart { ", to be started with the host" } else { "" };
    if domain.uuid != uuid.to_string() {
        checked.objections.push(Objection {
            node: node.name.clone(),
            what: format!("libvirt there has another domain named {name}, {}{boots}", domain.uuid),
            hint: format!(
                "if it is the VM of an earlier installation, shut it down, and `virsh undefine {name}` there: its image \
                 stays"
            ),
        });
    } else if domain.defined {
        checked.remarks.push(format!(
            "libvirt there has {name} on its disk{boots}; zsha removes it, whether or not it runs"
        ));
    }
}

/// Objects to whatever has the VM's disk and is not the VM as zsha knows it: the VM of an earlier installation above
/// all. zsha would start its own copy beside it, and not every QEMU locks its image.
pub(crate) fn second_copies(document: &HaCluster, node: &Node, facts: &Facts) -> Vec<Objection> {
    let ours = document.vm().uuid.to_string();
    let disk = match document.image_path() {
        Some(path) => path.display().to_string(),
        None => CephLogin::of(document).map(|login| format!("rbd:{}", login.image())).unwrap_or_default(),
    };
    let objection = |user: &DiskUser| {
        let (what, hint) = match user {
            DiskUser::Process { uuid, .. } if *uuid == ours => return None,
            DiskUser::Process { pid, program, .. } => (
                format!("process {pid} ({program}) there has {disk} open, and is not zsha's VM"),
                "a second copy beside it would destroy the disk: shut that VM down on every node, see that nothing starts \
                 it again, and run this once more"
                    .to_owned(),
            ),
            DiskUser::Domain { name, state } => (
                format!("libvirt there has the domain {name:?} ({state}) with {disk}"),
                format!(
                    "it would be a second copy: shut it down, and `virsh undefine '{name}'` there (or move its file away): its image stays"
                ),
            ),
            DiskUser::Unknown(why) => (
                format!("whether another domain there has {disk} is not known: {why}"),
                "see that `virsh dumpxml` of each domain answers there, and that each file in /etc/libvirt/qemu can be read and \
                 is a domain's, and run this once more"
                    .to_owned(),
            ),
        };
        Some(Objection { node: node.name.clone(), what, hint })
    };
    facts.disk_users.iter().filter_map(objection).collect()
}

pub(super) fn image(wish: &Wish<'_>, node: &Node, facts: &Facts, checked: &mut Checked) {
    let document = wish.document;
    let Some(path) = document.image_path() else {
        return rbd::image(wish, node, facts, checked);
    };
    let shown = path.display();
    let (what, hint) = match &facts.image {
        Some(Image::There) => {
            checked.lines.push(format!("File {shown} exists"));
            return;
        }
        // zsha mounts the share itself.
        Some(Image::Missing) if !document.mounts().is_empty() => {
            checked.remarks.push(format!("File {shown} is not there yet: the document has mounts"));
            return;
        }
        Some(Image::Missing) => {
            (format!("File {shown} does not exist"), "mount the share there, and put the image on it")
        }
        Some(Image::Unknown(why)) => {
            (format!("whether {shown} exists is not known: {why}"), "is the share mounted?")
        }
        None => (format!("whether {shown} exists was not said"), "run it again"),
    };
    checked.objections.push(Objection { node: node.name.clone(), what, hint: hint.into() });
}
