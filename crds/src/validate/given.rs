//! Rules that came after documents were in force. They are held against what a person gives, and not against what the store
//! has: a document in force that breaks one stays readable, on every node.
//!
//! Never here: a rule that the VM's safety rests on.

use std::path::Path as FsPath;

use super::draft::Draft;
use crate::diagnostic::{Code, Finding, quoted};
use crate::document::{FolderText, FsType, MountOptions};
use crate::path::Path;

/// File systems of which only one host may have a disk mounted at a time, or which each host has for itself.
const LOCAL: [&str; 25] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs", "bcachefs", "zfs", "nilfs2", "vfat",
    "msdos", "exfat", "ntfs", "ntfs3", "hfsplus", "udf", "iso9660", "squashfs", "erofs", "tmpfs", "ramfs",
    "overlay", "aufs",
];
/// Endings of what is an image and no folder.
const IMAGES: [&str; 5] = ["img", "qcow2", "raw", "iso", "vmdk"];

/// Every violation in a document that was given anew.
pub(crate) fn violations(document: &serde_json::Value) -> Vec<Finding> {
    let draft = Draft::of(document);
    let mut found = Vec::new();
    local_file_systems(&draft, &mut found);
    folder_like_a_file(&draft, &mut found);
    found
}

fn local_file_systems(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    for (path, fs_type) in draft.column::<FsType>("Mounts", "FsType") {
        if LOCAL.contains(&fs_type.as_str()) {
            let message = format!(
                "must be a file system that several hosts may mount at once, not {}",
                quoted(fs_type.as_str())
            );
            found.push(
                Finding::new(Code::LocalFileSystem, path, message)
                    .allowed("nfs4, nfs, ceph, glusterfs, gfs2, ocfs2 and others of that kind")
                    .hint(
                        "every node mounts it: on one disk that several hosts see, each destroys what the others write; on disks \
                         of their own, the image is not one file",
                    ),
            );
        }
    }
    for (path, options) in draft.column::<MountOptions>("Mounts", "Options") {
        if let Some(bind) = options.as_str().split(',').find(|option| ["bind", "rbind"].contains(option)) {
            let message = format!("mounts a folder of the host's own ({bind}): {}", quoted(options.as_str()));
            found.push(
                Finding::new(Code::LocalFolder, path, message)
                    .hint("if that folder is not on a share, name the share itself: the image must be one file, seen by every node"),
            );
        }
    }
}

fn folder_like_a_file(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let Some(folder) = draft.field::<FolderText>("ImageFolder") else { return };
    let path = FsPath::new(folder.as_str());
    let is_image =
        path.extension().is_some_and(|ending| IMAGES.iter().any(|image| ending.eq_ignore_ascii_case(image)));
    if let (true, Some(parent)) = (is_image, path.parent()) {
        let message = format!("is called as a file is: {}", quoted(folder.as_str()));
        found.push(Finding::new(Code::FolderLikeAFile, Path::spec().key("ImageFolder"), message).hint(
            format!(
                "give the folder that 'mnvm.img' lies in, perhaps {}",
                quoted(&format!("{}/", parent.display().to_string().trim_end_matches('/')))
            ),
        ));
    }
}
