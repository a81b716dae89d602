//! Gives a host its own files in the place of the machine's. All of it is in the host's own mount namespace and ends
//! with it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_bind, mount_bind_recursive, mount_move};

use super::HostConfig;

/// Directories that outlive a power loss, each from `DIR/disk/...`.
const ON_DISK: [&str; 4] = ["/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"];

pub(super) const MACHINE_ID: &str = "/etc/machine-id";

/// The directory at which the product expects the share.
const SHARE: &str = "/opt/smp/mngt";

pub(super) fn set_up(host: &HostConfig) -> Result<()> {
    fresh("proc", "/proc", "")?;
    fresh("sysfs", "/sys", "")?;
    bind(&host.dir.join("boot_id"), "/proc/sys/kernel/random/boot_id")?;
    bind(&host.dir.join("hosts"), "/etc/hosts")?;
    // A machine that systemd has never run on has none to put it over. A host with a systemd has it on its own disk.
    if !host.bare && Path::new(MACHINE_ID).exists() {
        bind(&host.dir.join("machine-id"), MACHINE_ID)?;
    }
    for directory in ON_DISK {
        let source = on_disk(&host.dir, directory);
        fs::create_dir_all(&source).with_context(|| format!("create {}", source.display()))?;
        bind(&source, directory)?;
    }
    // Names in there hold pids, and those come again on every host.
    fresh("tmpfs", "/dev/shm", "mode=1777")?;
    fresh("tmpfs", "/run", "mode=0755")?;
    for directory in ["/run/lock", "/run/libvirt"] {
        fs::create_dir(directory).with_context(|| format!("create {directory}"))?;
    }
    make_directory(Path::new(SHARE))?;
    bind(&host.share, SHARE)
}

/// The path at which the host's own `directory` is kept.
pub(crate) fn on_disk(host: &Path, directory: &str) -> PathBuf {
    host.join("disk").join(directory.trim_start_matches('/').replace('/', "-"))
}

/// Makes a directory appear without writing to the machine's disk: its first component is replaced by a tmpfs which
/// holds all that was there before.
fn make_directory(wanted: &Path) -> Result<()> {
    if wanted.is_dir() {
        return Ok(());
    }
    let mut components = wanted.components();
    let top: PathBuf = components.by_ref().take(2).collect();
    let staging = Path::new("/run/.graft");
    fs::create_dir_all(staging).context("create /run/.graft")?;
    fresh("tmpfs", "/run/.graft", "mode=0755")?;
    for entry in fs::read_dir(&top).with_context(|| format!("list {}", top.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let copy = staging.join(entry.file_name());
            fs::create_dir(&copy)?;
            mount_bind_recursive(entry.path(), &copy)
                .with_context(|| format!("bind {}", entry.path().display()))?;
        }
    }
    mount_move(staging, &top).with_context(|| format!("put a tmpfs over {}", top.display()))?;
    fs::remove_dir(staging).ok();
    if let Err(error) = fs::create_dir_all(wanted) {
        // A directory on the way exists on the machine, behind a bind mount: made there, it would outlive the lab.
        return Err(error).with_context(|| format!("create {}", wanted.display()));
    }
    Ok(())
}

fn fresh(kind: &str, target: &str, options: &str) -> Result<()> {
    let options = std::ffi::CString::new(options)?;
    mount(kind, target, kind, MountFlags::empty(), Some(options.as_c_str()))
        .with_context(|| format!("mount a {kind} on {target}"))
}

fn bind(source: &Path, target: &str) -> Result<()> {
    mount_bind(source, target).with_context(|| format!("bind {} on {target}", source.display()))
}
