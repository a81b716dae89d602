//! Rules on where the image lives: which fields go with which `Type`.
//!
//! Never here: whether the image is there.

use std::collections::BTreeSet;

use serde_json::Value;

use super::draft::Draft;
use super::nodes::unusable_host;
use crate::diagnostic::{Code, Finding, quoted};
use crate::document::{FolderText, ImageType, MonAddress, Mount};
use crate::path::Path;

pub(super) fn check(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    match draft.field::<ImageType>("Type") {
        Some(ImageType::FileConf) => file_conf(draft, found),
        Some(ImageType::CephConf) => ceph_conf(draft, found),
        None => {}
    }
    mon_addrs(draft, found);
    if let Some(folder) = draft.field::<FolderText>("ImageFolder") {
        if let Some(finding) = climbing(Path::spec().key("ImageFolder"), folder.as_str()) {
            found.push(finding);
        }
        on_mount(draft, folder.as_str(), found);
    }
}

fn file_conf(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let given = |key| draft.value(key).is_some_and(is_filled);
    if given("MonAddrs") {
        found.push(
            Finding::new(
                Code::MonAddrsAndType,
                Path::spec().key("MonAddrs"),
                "must be null where `Type` is 'FileConf'",
            )
            .allowed("null")
            .hint("write null or leave it out; or set `Type` to 'CephConf'")
            .at_key(),
        );
    }
    if given("PoolName") {
        found.push(
            Finding::new(
                Code::PoolNameAndType,
                Path::spec().key("PoolName"),
                "must be empty where `Type` is 'FileConf'",
            )
            .allowed("''")
            .hint("write '' or leave it out; or set `Type` to 'CephConf'"),
        );
    }
    if draft.value("ImageFolder").is_none_or(|value| value.as_str() == Some("")) {
        found.push(
            Finding::new(
                Code::ImageFolderAndType,
                Path::spec().key("ImageFolder"),
                "is required where `Type` is 'FileConf'",
            )
            .allowed("an absolute path, such as '/opt/smp/mngt/'")
            .hint("give the folder of 'mnvm.img', on the share every node has mounted"),
        );
    }
}

fn ceph_conf(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    if draft.value("ImageFolder").is_some_and(is_filled) {
        found.push(
            Finding::new(
                Code::ImageFolderAndType,
                Path::spec().key("ImageFolder"),
                "must be empty where `Type` is 'CephConf'",
            )
            .allowed("''")
            .hint("write '' or leave it out; or set `Type` to 'FileConf'"),
        );
    }
    if draft.value("ImageFormat").is_some_and(is_filled) {
        found.push(
            Finding::new(
                Code::ImageFormatAndType,
                Path::spec().key("ImageFormat"),
                "must be left out where `Type` is 'CephConf'",
            )
            .hint("an image in Ceph is always raw: take the line out; or set `Type` to 'FileConf'")
            .at_key(),
        );
    }
    let missing = |key| draft.value(key).is_none_or(is_empty);
    if missing("MonAddrs") {
        found.push(
            Finding::new(
                Code::MonAddrsAndType,
                Path::spec().key("MonAddrs"),
                "must have at least one entry where `Type` is 'CephConf'",
            )
            .allowed("a list of monitors, each as 'HOST' or 'HOST:PORT'")
            .hint("give the addresses of the Ceph monitors"),
        );
    }
    if missing("PoolName") {
        found.push(
            Finding::new(
                Code::PoolNameAndType,
                Path::spec().key("PoolName"),
                "is required where `Type` is 'CephConf'",
            )
            .allowed("the name of a Ceph pool")
            .hint("give the pool the image is in"),
        );
    }
}

/// True if the field has a value. A value of another type is neither filled nor empty: that is for the schema to say.
fn is_filled(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
        || value.as_array().is_some_and(|items| !items.is_empty())
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty)
}

fn mon_addrs(draft: &Draft<'_>, found: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (path, monitor) in draft.entries::<MonAddress>("MonAddrs") {
        found.extend(unusable_host(path.clone(), monitor.host()));
        if monitor.port().is_some_and(|port| port.parse::<u16>().is_err()) {
            let message = format!("must have a port from 1 to 65535, not {}", quoted(monitor.as_str()));
            found.push(
                Finding::new(Code::BadPort, path.clone(), message)
                    .allowed("1 to 65535")
                    .hint("Ceph monitors listen on 3300 and 6789"),
            );
        }
        if !seen.insert(monitor.as_str().to_owned()) {
            found.push(entry_twice(path, monitor.as_str()));
        }
    }
}

pub(super) fn entry_twice(path: Path, entry: &str) -> Finding {
    Finding::new(Code::EntryTwice, path, format!("must not be in the list twice: {}", quoted(entry)))
        .hint("remove one of the two")
}

/// A path with `..` in it means another place after a mount or a link has changed.
pub(super) fn climbing(path: Path, folder: &str) -> Option<Finding> {
    folder.split('/').any(|part| part == "..").then(|| {
        Finding::new(Code::BadPath, path, format!("must not contain '..': {}", quoted(folder)))
            .hint("write the path out")
    })
}

fn on_mount(draft: &Draft<'_>, folder: &str, found: &mut Vec<Finding>) {
    let mounts = draft.entries::<Mount>("Mounts");
    let holds = |mount: &Mount| std::path::Path::new(folder).starts_with(mount.target.as_str());
    if !folder.is_empty() && !mounts.is_empty() && !mounts.iter().any(|(_, mount)| holds(mount)) {
        let message = format!("is on none of the `Mounts`: {}", quoted(folder));
        found.push(
            Finding::new(Code::ImageNotOnMount, Path::spec().key("ImageFolder"), message)
                .hint("if it is not mounted by other means, add its share to `Mounts`: the image must be one file, seen by every node"),
        );
    }
}
