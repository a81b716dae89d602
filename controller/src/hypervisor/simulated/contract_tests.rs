//! Tests that the simulated hypervisor keeps the contract.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;
use zsha_crds::records::DiskSource;
use zsha_crds::{NodeName, VmId, VmName};

use super::{Fault, SimulatedHosts, SimulatedHypervisor};
use crate::hypervisor::contract::{self, Rig, every_case};
use crate::hypervisor::{DomainImage, DomainSpec, Hypervisor};

struct SimulatedRig {
    hosts: Arc<SimulatedHosts>,
    node: NodeName,
    hypervisor: SimulatedHypervisor,
    driver: JoinHandle<()>,
}

const UUID: Uuid = Uuid::from_u128(7);

impl SimulatedRig {
    fn new() -> Self {
        let hosts = SimulatedHosts::new(VmId { name: VmName::management(), uuid: UUID });
        let node = NodeName::new("n1").unwrap();
        let hypervisor = hosts.hypervisor(&node);
        let driver = tokio::spawn({
            let hosts = Arc::clone(&hosts);
            async move { hosts.run().await }
        });
        Self { hosts, node, hypervisor, driver }
    }
}

impl Drop for SimulatedRig {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[async_trait]
impl Rig for SimulatedRig {
    fn hypervisor(&self) -> &dyn Hypervisor {
        &self.hypervisor
    }

    fn domain(&self, generation: u64) -> DomainSpec {
        DomainSpec {
            name: VmName::management(),
            uuid: UUID,
            generation,
            memory_mib: 64,
            vcpus: 1,
            image: DomainImage::qcow2(PathBuf::from("/share/mnvm.img")),
            nics: Vec::new(),
            guest: Default::default(),
        }
    }

    fn process_numbers(&self) -> Vec<u64> {
        self.hosts.copies().iter().map(|copy| copy.process).collect()
    }

    async fn kill_qemu(&self) {
        assert_eq!(self.hosts.kill_now(&self.node), 1);
    }

    async fn cut(&self) {
        self.hosts.set_fault(&self.node, Some(Fault::Unreachable));
    }

    async fn mend(&self) {
        self.hosts.set_fault(&self.node, None);
    }

    async fn hang(&self) {
        self.hosts.set_fault(&self.node, Some(Fault::Hangs));
    }

    async fn go_on(&self) {
        self.hosts.set_fault(&self.node, None);
    }

    async fn lock_image(&self) {
        self.hosts.leave_image_locked(Instant::now() + Duration::from_secs(3600));
    }

    async fn unlock_image(&self) {
        self.hosts.leave_image_locked(Instant::now());
    }

    async fn snapshot(&self) -> DiskSource {
        let overlay = "/share/mnvm.overlay";
        assert!(self.hosts.snapshot_by_hand(&self.node, overlay));
        DiskSource::File(overlay.to_owned())
    }

    async fn merge(&self) {
        assert!(self.hosts.merge_by_hand(&self.node));
    }

    async fn define_namesake(&self) -> Uuid {
        let uuid = Uuid::from_u128(17);
        self.hosts.define_namesake(&self.node, Some(uuid));
        uuid
    }

    async fn undefine_namesake(&self) {
        self.hosts.define_namesake(&self.node, None);
    }

    async fn define_by_hand(&self, autostart: bool) {
        self.hosts.define_by_hand(&self.node, autostart);
    }
}

macro_rules! tests {
    ($($case:ident,)*) => {
        $(#[tokio::test(start_paused = true)]
        async fn $case() {
            contract::$case(&SimulatedRig::new()).await;
        })*
    };
}
every_case!(tests);
