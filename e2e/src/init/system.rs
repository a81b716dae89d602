//! A host whose PID 1 is the machine's real systemd, with real sshd and libvirtd as its units: for what installs units.
//!
//! /etc, /usr and /var are the machine's below a layer of the host's own, which outlives a power loss. So a file that
//! is put there is put on this host alone, and its layer lists it. systemd has a cgroup namespace of its own in the
//! unified hierarchy. Units that reach past the host's namespaces (sysctl, modules, /dev, what cleans /tmp) are masked.

use std::fs;
use std::io::BufRead;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::system::{RebootCommand, reboot};

use super::HostConfig;
use super::mounts::MACHINE_ID;
use crate::command;

const NOTHING: Option<&std::ffi::CStr> = None;
const SYSTEMD: &str = "/lib/systemd/systemd";
const CGROUPS: &str = "/sys/fs/cgroup";
const UNITS: &str = "/etc/systemd/system";
/// The word by which systemd tells containers apart. By it the end of the lab knows that it ends a host of the lab.
const CONTAINER: &str = "zsha-lab";
/// The directories that have a layer of the host's own.
pub(super) const LAYERED: [&str; 3] = ["/etc", "/usr", "/var"];
/// The password of root on every such host.
pub const PASSWORD: &str = "lab password: it's \"quoted\"";

const MASKED: [&str; 22] = [
    "systemd-tmpfiles-setup.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-binfmt.service",
    "systemd-remount-fs.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-random-seed.service",
    "systemd-logind.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-timesyncd.service",
    "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "getty.target",
];

const LIBVIRTD: &str = "[Unit]\nDescription=libvirt\n\n[Service]\nType=notify\nExecStart=/usr/sbin/libvirtd -l\n\
    KillMode=process\nRestart=on-failure\n\n[Install]\nWantedBy=multi-user.target\n";

const SSHD: &str = "HostKey /etc/ssh/ssh_host_ed25519_key\nPasswordAuthentication yes\nPermitRootLogin yes\n\
    UsePAM no\nUseDNS no\nPidFile none\n";

/// Mounts the layers, before the rest of the host's mounts.
pub(super) fn layer(host: &Path) -> Result<()> {
    for directory in LAYERED {
        let layer = layer_of(host, directory);
        let work = layer.with_extension("work");
        for needed in [&layer, &work] {
            fs::create_dir_all(needed).with_context(|| format!("create {}", needed.display()))?;
        }
        let options = format!("lowerdir={directory},upperdir={},workdir={}", layer.display(), work.display());
        let options = std::ffi::CString::new(options)?;
        mount("overlay", directory, "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .with_context(|| format!("a layer over {directory}"))?;
    }
    Ok(())
}

/// The files that the host has put below `directory` by itself.
pub(crate) fn layer_of(host: &Path, directory: &str) -> PathBuf {
    host.join("disk/layer").join(directory.trim_start_matches('/'))
}

/// Furnishes a disk that is new: its own units, sshd, root's password. None of the machine's own units are there.
pub(super) fn furnish(host: &HostConfig) -> Result<()> {
    let done = Path::new("/etc/zsha-lab-host");
    if done.exists() {
        return Ok(());
    }
    fs::remove_dir_all(UNITS).with_context(|| format!("empty {UNITS}"))?;
    let wants = format!("{UNITS}/multi-user.target.wants");
    fs::create_dir_all(&wants).with_context(|| format!("create {wants}"))?;
    symlink("/lib/systemd/system/multi-user.target", format!("{UNITS}/default.target"))?;
    for unit in MASKED {
        symlink("/dev/null", format!("{UNITS}/{unit}")).with_context(|| format!("mask {unit}"))?;
    }
    fs::write(format!("{UNITS}/libvirtd.service"), LIBVIRTD)?;
    symlink(format!("{UNITS}/libvirtd.service"), format!("{wants}/libvirtd.service"))?;
    for unit in ["ssh.service", "libvirt-guests.service"] {
        symlink(format!("/lib/systemd/system/{unit}"), format!("{wants}/{unit}"))?;
    }
    fs::write("/etc/fstab", "")?;
    fs::write("/etc/hostname", &host.name)?;
    if Path::new(MACHINE_ID).exists() {
        fs::remove_file(MACHINE_ID).context("remove the machine's id")?;
    }
    fs::copy(host.dir.join("machine-id"), MACHINE_ID).context("write the host's own machine id")?;
    for entry in fs::read_dir("/etc/ssh").context("list /etc/ssh")? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ssh_host_")) {
            fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
        }
    }
    fs::write("/etc/ssh/sshd_config", SSHD)?;
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key"]);
    run(&mut keygen, "")?;
    run(&mut Command::new("chpasswd"), &format!("root:{PASSWORD}\n"))?;
    fs::write(done, "").context("note that it is done")
}

fn run(command: &mut Command, input: &str) -> Result<()> {
    command::run(command, input, Duration::from_secs(20))?.success().map(drop)
}

/// Becomes systemd. It returns only where that failed. The process that holds standard input's other end holds the
/// host.
pub(super) fn become_systemd(host: &HostConfig) -> Result<()> {
    mount("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), NOTHING)
        .context("mount the unified cgroups")?;
    let group = Path::new(CGROUPS).join(group_of(&host.dir));
    remove_group(&group);
    fs::create_dir(&group).with_context(|| format!("create {}", group.display()))?;
    fs::write(group.join("cgroup.procs"), "0").with_context(|| format!("join {}", group.display()))?;
    unmount(CGROUPS, UnmountFlags::empty()).context("unmount the machine's cgroups")?;
    let us = std::env::current_exe().context("find this program")?;
    Command::new(&us).arg("lifeline").spawn().context("start the lifeline")?;
    let error = Command::new("unshare").args(["--cgroup", "--ipc", "--"]).arg(us).arg("systemd").exec();
    Err(error).context("start `unshare`")
}

/// Starts systemd, in the new cgroup namespace.
pub fn systemd() -> Result<()> {
    mount("cgroup2", CGROUPS, "cgroup2", MountFlags::empty(), NOTHING).context("mount the host's cgroups")?;
    let error = Command::new(SYSTEMD)
        .env_clear()
        .env("container", CONTAINER)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["--log-target=journal", "--show-status=no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .exec();
    Err(error).context("start systemd")
}

/// Says `ready` once systemd has booted, and ends the host with the lab.
pub fn lifeline() -> Result<()> {
    const BOOT: Duration = Duration::from_secs(60);
    crate::wait::until("systemd is PID 1", BOOT, || Ok(is_of_the_lab().then_some(())))?;
    crate::wait::until("systemd has booted", BOOT, || {
        let finished =
            command::run(Command::new("systemctl").args(["is-system-running", "--wait"]), "", BOOT)?;
        match finished.stdout.trim() {
            "running" => Ok(Some(())),
            other => Err(anyhow!("it is {other:?}: {}", failed_units())),
        }
    })?;
    super::say("ready")?;
    for line in std::io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
    }
    if !is_of_the_lab() {
        bail!("PID 1 is no host of the lab");
    }
    // Inside a PID namespace this ends its init, and with it everything in it.
    reboot(RebootCommand::PowerOff).context("power off")
}

fn is_of_the_lab() -> bool {
    let environment = fs::read("/proc/1/environ").unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|word| word == format!("container={CONTAINER}").as_bytes())
}

fn failed_units() -> String {
    let listed = command::run(
        Command::new("systemctl").args(["--failed", "--no-pager", "--plain", "--no-legend"]),
        "",
        Duration::from_secs(10),
    );
    listed.map(|listed| listed.stdout).unwrap_or_else(|error| format!("{error:#}"))
}

/// The cgroup of the host with this directory, among those of every lab on this machine.
fn group_of(dir: &Path) -> String {
    let name = |path: Option<&Path>| {
        path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
    };
    format!("{CONTAINER}-{}-{}", name(dir.parent()), name(Some(dir)))
}

/// Takes away the cgroups of a host that is off, by its directory: they outlive its namespaces.
pub(crate) fn remove_groups_of(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let unified = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let unified =
        unified.filter(|words| words.get(2) == Some(&"cgroup2")).find_map(|words| words.get(1).copied());
    if let Some(root) = unified {
        remove_group(&Path::new(root).join(group_of(dir)));
    }
}

/// Takes away a cgroup. It goes by rmdir alone, its children first.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_group(&entry.path());
        }
    }
    fs::remove_dir(group).ok();
}
