//! The hands of the contract on this kernel. Each test runs itself once more, in a process in namespaces of its own:
//! `/proc/self/mountinfo` is the whole process's, so a thread in them would not do.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::contract::{Image, Link, Rig};
use super::{Host, LinuxHost, MountWant};

/// Set for the process inside; its directory.
const DIRECTORY: &str = "ZSHA_HOST_CONTRACT";

/// Does the case in namespaces of its own. `name` is the calling test's.
pub(crate) fn inside(name: &str, case: impl AsyncFnOnce(LinuxRig)) {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(async { case(LinuxRig::new(Path::new(&directory))).await });
    }
    assert!(rustix::process::geteuid().is_root(), "namespaces need root");
    let directory = tempfile::Builder::new()
        .prefix("zsha-host-")
        // As of a share: QEMU's user comes to the image.
        .permissions(PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let ended = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(DIRECTORY, directory.path())
        .output()
        .expect("unshare, of util-linux");
    let Output { status, stdout, stderr } = ended;
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    print!("{said}");
    assert!(status.success() && said.contains("1 passed"), "{name} has failed in its namespaces");
}

/// Runs a program to its good end.
pub(crate) fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) {
    let ended = Command::new(program).args(arguments).output().unwrap();
    assert!(ended.status.success(), "{program}: {ended:?}");
}

pub(crate) struct LinuxRig {
    directory: PathBuf,
    host: LinuxHost,
    files: Mutex<Option<Rlimit>>,
    /// A QEMU that holds a tap open, as a running guest does.
    guest: Mutex<Option<Child>>,
    monitor: Mutex<Option<TcpListener>>,
}

impl Drop for LinuxRig {
    fn drop(&mut self) {
        self.end_guest();
    }
}

impl LinuxRig {
    fn new(directory: &Path) -> Self {
        // This process is no zsha-controller, and so is asked for its looks in that one's place; it hangs in them when told to.
        let prober = directory.join("prober");
        let hangs = directory.join("hangs");
        let script = format!(
            "#!/bin/sh\nif [ -e {} ]; then echo looking; exec sleep 1000; fi\nexec {} \"$@\"\n",
            hangs.display(),
            env!("CARGO_BIN_EXE_zsha-controller"),
        );
        std::fs::write(&prober, script).unwrap();
        std::fs::set_permissions(&prober, PermissionsExt::from_mode(0o755)).unwrap();
        let host = LinuxHost::looking_by(&prober, seed_in(directory));
        Self {
            directory: directory.to_owned(),
            host,
            files: Mutex::new(None),
            guest: Mutex::new(None),
            monitor: Mutex::new(None),
        }
    }

    /// Takes from whoever looks what root may and others may not, as a share does that makes root nobody.
    pub(crate) fn squash_root(&self) {
        let script = format!(
            "#!/bin/sh\nexec setpriv --bounding-set=-dac_override,-dac_read_search,-fowner -- {} \"$@\"\n",
            env!("CARGO_BIN_EXE_zsha-controller"),
        );
        std::fs::write(self.directory.join("prober"), script).unwrap();
    }

    pub(crate) fn another_host(&self) -> LinuxHost {
        LinuxHost::looking_by(&self.directory.join("prober"), seed_in(&self.directory))
    }

    fn start_guest(&self, tap: &str) {
        let netdev = format!("tap,id=n,ifname={tap},script=no,downscript=no");
        let guest = Command::new("qemu-system-x86_64")
            .args(["-M", "none", "-nodefaults", "-display", "none", "-netdev", &netdev])
            .spawn()
            .expect("QEMU, of `make setup`");
        *self.guest.lock().unwrap() = Some(guest);
    }

    /// The kernel gives the bridge one as soon as the guest is plugged in: without that, nothing would be tested.
    async fn waits_for_carrier(&self, name: &str) {
        let carries = async {
            loop {
                let shown = Command::new("ip").args(["-o", "link", "show", name]).output().unwrap();
                if String::from_utf8_lossy(&shown.stdout).contains("LOWER_UP") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), carries).await.expect("the guest's tap has no carrier");
    }

    fn end_guest(&self) {
        if let Some(mut guest) = self.guest.lock().unwrap().take() {
            guest.kill().unwrap();
            guest.wait().unwrap();
        }
    }

    fn hangs(&self) -> PathBuf {
        self.directory.join("hangs")
    }
}

fn seed_in(directory: &Path) -> PathBuf {
    directory.join("guest/seed.img")
}

fn ip(script: &str) {
    for line in script.lines() {
        run("ip", line.split_ascii_whitespace());
    }
}

#[async_trait]
impl Rig for LinuxRig {
    fn host(&self) -> &dyn Host {
        &self.host
    }

    fn share(&self) -> MountWant {
        MountWant {
            source: "zsha-share".to_owned(),
            target: self.directory.join("share"),
            fs_type: "tmpfs".to_owned(),
            options: "ro,size=1m".to_owned(),
        }
    }

    fn image(&self) -> PathBuf {
        self.directory.join("mnvm.img")
    }

    async fn set_link(&self, name: &str, link: Link) {
        let (port, tap) = (format!("{name}p"), format!("{name}t"));
        self.end_guest();
        for old in [tap.as_str(), &port, name] {
            // There may be none.
            Command::new("ip").args(["link", "delete", old]).output().unwrap();
        }
        match link {
            Link::None => {}
            Link::Down => ip(&format!("link add {name} type bridge")),
            Link::Dead | Link::DeadWithGuest | Link::Carrying => {
                let far = if link == Link::Carrying { "up" } else { "down" };
                ip(&format!(
                    "link add {name} type bridge\nlink add {port} type veth peer name {name}x\n\
                     link set {port} master {name}\nlink set {port} up\nlink set {name}x {far}\n\
                     link set {name} up"
                ));
                if link == Link::DeadWithGuest {
                    ip(&format!(
                        "tuntap add {tap} mode tap\nlink set {tap} master {name}\nlink set {tap} up"
                    ));
                    self.start_guest(&tap);
                    self.waits_for_carrier(&tap).await;
                }
            }
            Link::Veth => ip(&format!("link add {name} type veth peer name {port}")),
        }
    }

    async fn mount_by_hand(&self, source: &str, options: &str) {
        let MountWant { target, fs_type, .. } = self.share();
        std::fs::create_dir_all(&target).unwrap();
        run("mount", ["-t", &fs_type, "-o", options, "--", source, target.to_str().unwrap()]);
    }

    async fn unmount_by_hand(&self) {
        run("umount", [self.share().target]);
    }

    async fn refuse_mounts(&self) {
        std::fs::write(self.share().target, "no directory").unwrap();
    }

    async fn allow_mounts(&self) {
        std::fs::remove_file(self.share().target).unwrap();
    }

    /// A directory stands in its place.
    async fn refuse_seeds(&self) {
        std::fs::create_dir_all(seed_in(&self.directory)).unwrap();
    }

    async fn allow_seeds(&self) {
        std::fs::remove_dir(seed_in(&self.directory)).unwrap();
    }

    async fn set_image(&self, image: Image) {
        let path = self.image();
        if path.is_dir() {
            std::fs::remove_dir(&path).unwrap();
        } else if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        match image {
            Image::None => {}
            Image::Directory => std::fs::create_dir(path).unwrap(),
            Image::File(holds) => std::fs::write(path, holds).unwrap(),
        }
    }

    fn monitor(&self) -> String {
        "127.0.0.1:6789".to_owned()
    }

    async fn set_monitor(&self, listens: bool) {
        // There is no other network in the namespace, and even this one is down at first.
        run("ip", ["link", "set", "lo", "up"]);
        let listener = listens.then(|| TcpListener::bind(self.monitor()).unwrap());
        *self.monitor.lock().unwrap() = listener;
    }

    async fn hang_storage(&self) {
        std::fs::write(self.hangs(), "").unwrap();
    }

    async fn go_on(&self) {
        std::fs::remove_file(self.hangs()).unwrap();
    }

    /// No file may be opened any more, no socket, no pipe.
    async fn blind(&self) {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), maximum: limit.maximum }).unwrap();
        *self.files.lock().unwrap() = Some(limit);
    }

    async fn see_again(&self) {
        let limit = self.files.lock().unwrap().take().unwrap();
        setrlimit(Resource::Nofile, limit).unwrap();
    }
}
