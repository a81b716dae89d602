//! A real Ceph for the lab: one monitor and one OSD on a bare host, of packages that `setup.sh` has unpacked; and hosts
//! as its clients, as if its packages were installed there.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::Host;
use crate::leftovers::cache;

/// The pool that the lab's VM is in.
pub const POOL: &str = "zsha";
/// The time for a Ceph that is made from nothing.
const START: Duration = Duration::from_secs(120);

fn root() -> String {
    cache().join("ceph/root").display().to_string()
}

/// A Ceph that runs.
#[derive(Debug)]
pub struct Ceph {
    pub monitor: String,
    dir: PathBuf,
}

impl Ceph {
    /// Starts one on a bare host of the lab; it ends with that host's power.
    pub fn start(host: &Host) -> Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/ceph/one-node.sh");
        let (dir, monitor) = (host.log_dir().join("ceph"), host.address().to_string());
        let (pool, shown) = (format!("POOL={POOL}"), dir.display().to_string());
        let words = ["env", &pool, script, &root(), &shown, &monitor];
        host.exec_with(&words, "", START)?.success().context("start Ceph")?;
        Ok(Self { monitor, dir })
    }

    /// Installs a client there, so that QEMU can read what is in Ceph. It brings no key and no settings: those are for
    /// the operator who installs zsha.
    pub fn client(&self, host: &Host) -> Result<()> {
        let script = format!(
            "set -e\nroot={}\nlib=$root/usr/lib/x86_64-linux-gnu\n\
             printf '%s\\n' $lib $lib/ceph $root/lib/x86_64-linux-gnu >/etc/ld.so.conf.d/lab-ceph.conf\nldconfig\n\
             mkdir -p /usr/lib/x86_64-linux-gnu/qemu\n\
             ln -s $lib/qemu/block-rbd.so /usr/lib/x86_64-linux-gnu/qemu/block-rbd.so",
            root()
        );
        host.ok(&["sh", "-c", &script]).map(drop)
    }

    /// Installs a client that may do everything: `ceph` and `rbd`, and the keyring of client.admin.
    pub fn administrator(&self, host: &Host) -> Result<()> {
        let script = format!(
            "set -e\nroot={root}\nmkdir -p /etc/ceph\nprintf '[global]\\nmon host = {monitor}\\n' >/etc/ceph/ceph.conf\n\
             install -m 600 {dir}/admin.keyring /etc/ceph/ceph.client.admin.keyring\n\
             printf '#!/bin/sh\\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH=%s exec python3 %s \"$@\"\\n' \
             $root/usr/lib/python3/dist-packages $root/usr/bin/ceph >/usr/bin/ceph\nchmod 755 /usr/bin/ceph\n\
             ln -s $root/usr/bin/rbd /usr/bin/rbd",
            root = root(),
            monitor = self.monitor,
            dir = self.dir.display(),
        );
        host.ok(&["sh", "-c", &script]).map(drop)
    }
}
