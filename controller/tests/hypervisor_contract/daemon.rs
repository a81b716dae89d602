//! A libvirtd in mount, PID, network and UTS namespaces of its own, below a directory of its own. It and all that it
//! started are gone when this is dropped, or when the test dies: PID 1 ends with its standard input.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

/// PID 1: sets up what libvirtd sees, then does as its standard input says, a word a line, each answered. A shell
/// reaps what dies, without which a killed QEMU stays a zombie that libvirt waits 40 s for.
const INIT: &str = r#"
set -eu
cd "$1"
for place in run:/run etc:/etc/libvirt lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log/libvirt; do
    mkdir -p "${place%%:*}" "${place#*:}"
    mount --bind "${place%%:*}" "${place#*:}"
done
mkdir -p /run/lock
ip link set lo up
ip link add br0 type bridge
ip link set br0 up
start() {
    libvirtd --config "$1/libvirtd.conf" --pid-file /run/libvirtd.pid >> "$1/libvirtd.out" 2>&1 &
    daemon=$!
}
daemon=
while read -r word; do
    case $word in
    start) start "$1" ;;
    die) kill -KILL "$daemon"; wait "$daemon" || true ;;
    stop) kill -STOP "$daemon" ;;
    continue) kill -CONT "$daemon" ;;
    esac
    echo "$word"
done
"#;

const LIBVIRTD_CONF: &str = r#"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
"#;

const QEMU_CONF: &str = r#"
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
remember_owner = 0
stdio_handler = "file"
"#;

#[derive(Debug)]
pub(crate) struct Daemon {
    directory: PathBuf,
    line: Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
    _init: Child,
}

impl Daemon {
    /// Returns when it answers.
    pub(crate) async fn start(directory: &Path) -> Self {
        std::fs::create_dir_all(directory.join("etc")).unwrap();
        std::fs::write(directory.join("libvirtd.conf"), LIBVIRTD_CONF).unwrap();
        std::fs::write(directory.join("etc/qemu.conf"), QEMU_CONF).unwrap();
        let mut init = Command::new("unshare")
            .args(["--mount", "--uts", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "--", "bash", "-c", INIT, "init"])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("unshare, of util-linux");
        let (stdin, stdout) = (init.stdin.take().unwrap(), init.stdout.take().unwrap());
        let line = Mutex::new((stdin, BufReader::new(stdout).lines()));
        let daemon = Self { directory: directory.to_owned(), line, _init: init };
        daemon.tell("start").await;
        daemon.listens().await;
        daemon
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("run/libvirt/libvirt-sock")
    }

    /// The directory where libvirt writes how each domain ended.
    pub(crate) fn logs(&self) -> PathBuf {
        self.directory.join("log/qemu")
    }

    pub(crate) async fn tell(&self, word: &str) {
        let mut line = self.line.lock().await;
        line.0.write_all(format!("{word}\n").as_bytes()).await.unwrap();
        let answer = line.1.next_line().await.unwrap();
        assert_eq!(answer.as_deref(), Some(word), "init of {}", self.directory.display());
    }

    /// Waits until it takes connections. Its socket may be there before, from a life before.
    async fn listens(&self) {
        let uri = super::rig::uri(&self.socket());
        let mut tries = tokio::time::interval(std::time::Duration::from_millis(50));
        for _ in 0..400 {
            tries.tick().await;
            let version = Command::new("virsh").args(["-c", &uri, "version"]).output().await.unwrap();
            if version.status.success() {
                return;
            }
        }
        let said = std::fs::read_to_string(self.directory.join("libvirtd.out")).unwrap_or_default();
        panic!("libvirtd does not answer: {said}");
    }
}
