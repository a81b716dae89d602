//! zsha's end-to-end lab: hosts made of namespaces on one machine, with real Consul, libvirt, QEMU and a real guest.
//!
//! ```text
//! machine (root)
//! ├─ test process: Cluster ── Check, reads the machine's /proc 20 times a second
//! ├─ switch: a network namespace, one bridge a network
//! └─ nfs-1, nfs-2, nfs-3: network + mount + UTS + PID namespace each, PID 1 is `zsha-lab-init`
//!      ├─ eth0 ─ br_mgmt 10.93.0.1N, a cable to the switch
//!      ├─ consul, libvirtd, zsha-controller keeper, zsha-controller run
//!      └─ /opt/smp/mngt: one directory of the machine, the same on every host
//! ```
//!
//! Nothing here is a mock, and nothing outlives the test process: namespaces have no names and end with their last
//! process, every init ends with the pipe to the test process.
//!
//! A test reads: build a [`Cluster`], do something to a [`Host`], wait for a state with a deadline, look at the
//! independent [`check`]. What a test must never do is sleep.

// The lab is an edge: it measures real time on a real machine, where nothing is simulated.
#![allow(clippy::disallowed_methods)]

pub mod administrator;
pub mod ceph;
pub mod check;
mod cluster;
pub mod command;
pub mod guest;
mod host;
pub mod init;
mod leftovers;
pub mod net;
pub mod operator;
mod proc;
mod product;
pub mod said;
pub mod scenario;
mod services;
pub mod stand_in;
pub mod wait;

pub use cluster::{Cluster, ClusterBuilder};
pub use host::Host;
pub use leftovers::cache;
pub use product::{Document, NodeStatus, Recovery, Status, VmStatus};
pub use services::{CLUSTER, SEED, consul, product_directory};

/// The VM's image as every host sees it.
pub const IMAGE: &str = "/opt/smp/mngt/mnvm.img";
/// The marks of a QEMU of the VM on its command line, however the image's path is written there, and as libvirt writes
/// a block device of this name in Ceph.
const MARKS: [&str; 2] = ["mnvm.img", "\"image\":\"mnvm\""];

pub(crate) fn is_of_the_vm(command_line: &[String]) -> bool {
    command_line.iter().any(|word| MARKS.iter().any(|mark| word.contains(mark)))
}
