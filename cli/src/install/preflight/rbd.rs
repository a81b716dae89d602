//! The image in Ceph: whether a node can read it, and whether somebody can make the user that does.

use std::collections::BTreeMap;

use zsha_crds::document::Node;
use zsha_crds::{HaCluster, NodeName};

use super::{Checked, Objection, Wish, is_older};
use crate::install::ceph::CephLogin;
use crate::install::facts::{Facts, Image};
use crate::install::layout::Choice;
use crate::install::plan::{ceph_admin, ceph_login, lacks_ceph_key};

/// The first whose `virsh secret-set-value` has `--file`.
const LIBVIRT_WITH_KEYS_FROM_FILES: (u32, u32, u32) = (6, 2, 0);

/// Judges the image in Ceph. What only an administrator sees is said by one node alone.
pub(super) fn image(wish: &Wish<'_>, node: &Node, facts: &Facts, checked: &mut Checked) {
    let Some(login) = CephLogin::of(wish.document) else { return };
    let mut wrong = |what: String, hint: String| {
        checked.objections.push(Objection { node: node.name.clone(), what, hint });
    };
    let Some(ceph) = &facts.ceph else {
        return wrong("what it has of Ceph was not said".into(), "run it again".into());
    };
    let image = login.image();
    let old = facts.libvirt.as_deref().filter(|version| is_older(version, LIBVIRT_WITH_KEYS_FROM_FILES));
    if let (Some(version), Some(_)) =
        (old, ceph_login(wish.document, wish.choice, facts).filter(|_| ceph.held.is_none()))
    {
        let hint = "older ones take a key only by their command line, where everybody can read it: give libvirt there the \
                    key yourself, and name user and secret: cephUser and cephSecret in --settings FILE";
        wrong(format!("its libvirt is {version}, and keys are given to one from 6.2 on"), hint.into());
    }
    if ceph.driver == Some(false) {
        let hint = "install qemu-block-extra (Debian) or qemu-kvm-block-rbd";
        wrong("its QEMU has no driver for Ceph".into(), hint.into());
    }
    if !ceph.locks {
        checked.remarks.push(format!(
            "rbd:{image} has no exclusive-lock, by which Ceph shuts out late writes of a client that has died: \
             rbd feature enable {image} exclusive-lock"
        ));
    }
    match &ceph.image {
        None => {}
        Some(Image::There) => checked.lines.push(format!("Image rbd:{image} exists")),
        Some(Image::Missing) => wrong(
            format!("image rbd:{image} does not exist"),
            format!("bring it there: qemu-img convert -p -O raw mnvm.img rbd:{image}"),
        ),
        Some(Image::Unknown(why)) => {
            wrong(
                format!("whether rbd:{image} exists is not known: {why}"),
                "does `ceph -s` answer there?".into(),
            );
        }
    }
}

/// Somebody has to be able to make the cluster's user there, unless the nodes are told another.
pub(crate) fn ceph(document: &HaCluster, all: &BTreeMap<NodeName, Facts>, choice: &Choice) -> Vec<Objection> {
    let needed = |facts: &Facts| lacks_ceph_key(document, choice, all, facts);
    if ceph_admin(document, all).is_some() || !all.values().any(needed) {
        return Vec::new();
    }
    let why = |facts: &Facts| facts.ceph.as_ref().and_then(|ceph| ceph.no_admin.clone()).unwrap_or_default();
    let objection = |(name, facts): (&NodeName, &Facts)| {
        Objection {
        node: name.clone(),
        what: format!("it cannot make a user in Ceph, and no other node can: {}", why(facts)),
        hint: "let one node have ceph.conf and the keyring of client.admin; or make the user yourself, give libvirt on \
               every node its key, and name both: cephUser and cephSecret in --settings FILE"
            .into(),
    }
    };
    all.iter().map(objection).collect()
}
