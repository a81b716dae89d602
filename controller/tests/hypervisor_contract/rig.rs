//! The hands of the contract on a real libvirt: QEMU, daemon and image of one test.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use uuid::Uuid;
use zsha_controller::keeper::copies::{Copies, ProcCopies};
use zsha_crds::records::DiskSource;
use zsha_crds::{ClusterName, VmId, VmName};

use super::contract::Rig;
use super::daemon::Daemon;
use super::{
    DomainImage, DomainNic, DomainSettings, DomainSpec, DomainType, Hypervisor, LibvirtHypervisor,
    LibvirtSettings, domain_xml,
};

const HINT: &str = "run `make setup` as root first";

pub(crate) fn uri(socket: &Path) -> String {
    format!("qemu+unix:///system?socket={}", socket.display())
}

pub(crate) fn cluster() -> ClusterName {
    ClusterName::new("contract").unwrap()
}

pub(crate) fn copies(uuid: Uuid) -> Arc<dyn Copies> {
    Arc::new(ProcCopies::new(uuid).patient())
}

pub(crate) struct LibvirtRig {
    uuid: Uuid,
    image: PathBuf,
    daemon: Daemon,
    hypervisor: LibvirtHypervisor,
    image_user: Mutex<Option<Child>>,
    _directory: TempDir,
}

impl LibvirtRig {
    pub(crate) async fn start() -> Self {
        assert!(rustix::process::geteuid().is_root(), "namespaces need root; {HINT}");
        for program in ["libvirtd", "virsh", "virt-admin", "qemu-system-x86_64", "unshare", "ip"] {
            assert!(is_installed(program), "{program} is not installed; {HINT}");
        }
        let directory = tempfile::Builder::new().prefix("zsha-hv-").tempdir().unwrap();
        let image = directory.path().join("mnvm.img");
        std::fs::copy(guest_image(), &image)
            .unwrap_or_else(|error| panic!("no guest image ({error}); {HINT}"));
        let daemon = Daemon::start(directory.path()).await;
        let uuid = Uuid::new_v4();
        let hypervisor = connect(&daemon, uuid, Some(DomainType::Qemu));
        Self { uuid, image, daemon, hypervisor, image_user: Mutex::new(None), _directory: directory }
    }

    pub(crate) fn another_hypervisor(&self, domain_type: Option<DomainType>) -> LibvirtHypervisor {
        connect(&self.daemon, self.uuid, domain_type)
    }

    /// Bound to a VM of the same name under the same libvirt.
    pub(crate) fn hypervisor_of_another_cluster(&self, uuid: Uuid) -> LibvirtHypervisor {
        connect(&self.daemon, uuid, Some(DomainType::Qemu))
    }

    pub(crate) async fn virsh(&self, arguments: &[&str]) -> String {
        let uri = uri(&self.daemon.socket());
        let output = Command::new("virsh").args(["-c", &uri]).args(arguments).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// How many connections the daemon has.
    pub(crate) async fn clients(&self) -> usize {
        let socket = self.daemon.socket().with_file_name("libvirt-admin-sock");
        let uri = format!("libvirtd:///system?socket={}", socket.display());
        let list = Command::new("virt-admin").args(["-c", &uri, "client-list", "libvirtd"]).output();
        let list = list.await.unwrap();
        assert!(list.status.success(), "{list:?}");
        String::from_utf8(list.stdout).unwrap().lines().filter(|line| line.contains("unix")).count()
    }

    /// A QEMU of the VM that libvirt has not started. Returns when it is seen.
    pub(crate) async fn stray_qemu(&self) -> Child {
        let stray = self.qemu().args(["-uuid", &self.uuid.to_string()]).spawn().unwrap();
        until(|| async { self.processes() == 1 }).await;
        stray
    }

    /// Stops the process of the VM, which then answers nothing.
    pub(crate) fn stop_qemu(&self) {
        let process = i32::try_from(self.process_numbers()[0]).unwrap();
        rustix::process::kill_process(Pid::from_raw(process).unwrap(), Signal::STOP).unwrap();
    }

    fn qemu(&self) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "q35,accel=tcg", "-S", "-display", "none", "-nodefaults", "-drive"])
            .arg(format!("file={},format=qcow2,if=virtio,cache=none", self.image.display()))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        qemu
    }

    /// Asks the kernel. A program that opens the image takes a lock for a moment, and a QEMU that begins in that very moment
    /// ends.
    async fn image_is_locked(&self) -> bool {
        /// The byte on which QEMU has a lock while it lets nobody else write.
        const NO_OTHER_WRITER: u64 = 201;
        let inode = format!(":{}", std::fs::metadata(&self.image).unwrap().ino());
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, "OFDLCK", .., file, from, to] = words.as_slice() else { return false };
            let (from, to) = (from.parse::<u64>(), to.parse::<u64>());
            let range = from.unwrap_or(0)..=to.unwrap_or(u64::MAX);
            file.ends_with(&inode) && range.contains(&NO_OTHER_WRITER)
        })
    }
}

fn connect(daemon: &Daemon, uuid: Uuid, domain_type: Option<DomainType>) -> LibvirtHypervisor {
    let settings = LibvirtSettings {
        domain_type,
        logs: daemon.logs(),
        ..LibvirtSettings::new(uri(&daemon.socket()), cluster())
    };
    LibvirtHypervisor::new(settings, VmId { name: VmName::management(), uuid }, copies(uuid)).unwrap()
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    places.iter().any(|place| place.join(program).is_file())
}

/// The lab's guest: it boots in seconds without KVM, and follows the power button and its agent.
fn guest_image() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/lab/mnvm.img")
}

pub(crate) async fn until<F: Future<Output = bool>>(so: impl Fn() -> F) {
    let mut looks = tokio::time::interval(std::time::Duration::from_millis(20));
    for _ in 0..1000 {
        looks.tick().await;
        if so().await {
            return;
        }
    }
    panic!("waited in vain");
}

#[async_trait]
impl Rig for LibvirtRig {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.hypervisor
    }

    fn domain(&self, generation: u64) -> DomainSpec {
        DomainSpec {
            name: VmName::management(),
            uuid: self.uuid,
            generation,
            memory_mib: 256,
            vcpus: 1,
            image: DomainImage::qcow2(self.image.clone()),
            nics: vec![DomainNic { bridge: "br0".to_owned(), mac: "02:98:54:4b:a5:c0".to_owned() }],
            guest: Default::default(),
        }
    }

    fn process_numbers(&self) -> Vec<u64> {
        copies(self.uuid).alive().unwrap().iter().map(|copy| copy.process).collect()
    }

    async fn kill_qemu(&self) {
        let copies = copies(self.uuid);
        let alive = copies.alive().unwrap();
        assert_eq!(alive.len(), 1);
        copies.kill(&alive[0]).unwrap();
    }

    async fn cut(&self) {
        self.daemon.tell("die").await;
    }

    async fn mend(&self) {
        self.daemon.tell("start").await;
    }

    async fn hang(&self) {
        self.daemon.tell("stop").await;
    }

    async fn go_on(&self) {
        self.daemon.tell("continue").await;
    }

    async fn lock_image(&self) {
        let user = self.qemu().spawn().unwrap();
        until(|| self.image_is_locked()).await;
        *self.image_user.lock().await = Some(user);
    }

    async fn unlock_image(&self) {
        let user = self.image_user.lock().await.take();
        user.unwrap().kill().await.unwrap();
    }

    async fn snapshot(&self) -> DiskSource {
        let overlay = self.image.with_extension("overlay");
        let of_the_disk = format!("vda,file={}", overlay.display());
        let kind = ["--disk-only", "--atomic", "--no-metadata", "--diskspec"];
        let made = [&["snapshot-create-as", "mnvm", "backup"][..], &kind, &[of_the_disk.as_str()]].concat();
        self.virsh(&made).await;
        DiskSource::File(overlay.display().to_string())
    }

    async fn merge(&self) {
        self.virsh(&["blockcommit", "mnvm", "vda", "--active", "--pivot", "--wait"]).await;
    }

    async fn define_namesake(&self) -> Uuid {
        let uuid = Uuid::new_v4();
        let settings = DomainSettings::new(cluster(), DomainType::Qemu);
        let xml = domain_xml::write(&DomainSpec { uuid, ..self.domain(1) }, &settings).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &xml).unwrap();
        self.virsh(&["define", file.path().to_str().unwrap()]).await;
        uuid
    }

    async fn undefine_namesake(&self) {
        self.virsh(&["undefine", "mnvm"]).await;
    }

    async fn define_by_hand(&self, autostart: bool) {
        let settings = DomainSettings::new(cluster(), DomainType::Qemu);
        let xml = domain_xml::write(&self.domain(9), &settings).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &xml).unwrap();
        self.virsh(&["define", file.path().to_str().unwrap()]).await;
        if autostart {
            self.virsh(&["autostart", "mnvm"]).await;
        }
    }
}
