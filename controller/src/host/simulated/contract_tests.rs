//! Tests that the simulated host keeps the contract.

use std::path::PathBuf;

use async_trait::async_trait;

use super::SimulatedHost;
use crate::host::contract::{self, Image, Link, Rig, every_case};
use crate::host::{BridgeFact, Content, Host, ImageFact, MountFact, MountWant};
use crate::observed::Observed;

struct SimulatedRig {
    host: SimulatedHost,
}

impl SimulatedRig {
    /// Makes a host as the contract wants it: everything of a simulated host is well at first, and nothing is there on
    /// the contract's.
    async fn new() -> Self {
        let rig = Self { host: SimulatedHost::new() };
        rig.see_again().await;
        rig
    }

    fn links(&self) -> Vec<String> {
        contract::wants(self).bridges.into_iter().map(|want| want.name).collect()
    }

    fn set_share(&self, fact: Observed<MountFact>) {
        self.host.set_mount(&self.share().target, fact);
    }
}

#[async_trait]
impl Rig for SimulatedRig {
    fn host(&self) -> &dyn Host {
        &self.host
    }

    fn share(&self) -> MountWant {
        MountWant {
            source: "10.0.0.9:/share".to_owned(),
            target: PathBuf::from("/share"),
            fs_type: "nfs".to_owned(),
            options: "ro,hard".to_owned(),
        }
    }

    fn image(&self) -> PathBuf {
        PathBuf::from("/share/mnvm.img")
    }

    async fn set_link(&self, name: &str, link: Link) {
        let fact = match link {
            Link::None => BridgeFact::Missing,
            Link::Down => BridgeFact::Bridge { up: false, carrier: false },
            Link::Dead | Link::DeadWithGuest => BridgeFact::Bridge { up: true, carrier: false },
            Link::Carrying => BridgeFact::Bridge { up: true, carrier: true },
            Link::Veth => BridgeFact::NotABridge { kind: "veth".to_owned() },
        };
        self.host.set_bridge(name, Observed::Known(fact));
    }

    async fn mount_by_hand(&self, source: &str, options: &str) {
        let fs_type = self.share().fs_type;
        self.set_share(Observed::Known(if source == self.share().source {
            MountFact::Mounted { fs_type, options: options.to_owned() }
        } else {
            MountFact::Other { source: source.to_owned(), fs_type }
        }));
    }

    async fn unmount_by_hand(&self) {
        self.set_share(Observed::Known(MountFact::NotMounted));
    }

    async fn refuse_mounts(&self) {
        self.host.refuse_mounts(Some("no route to host"));
    }

    async fn allow_mounts(&self) {
        self.host.refuse_mounts(None);
    }

    async fn refuse_seeds(&self) {
        self.host.refuse_seeds(Some("no space left on device"));
    }

    async fn allow_seeds(&self) {
        self.host.refuse_seeds(None);
    }

    async fn set_image(&self, image: Image) {
        self.host.set_image(Observed::Known(match image {
            Image::None => ImageFact::Missing,
            Image::Directory => ImageFact::NotAFile,
            Image::File(holds) => ImageFact::Present(Content::of(holds, holds.len() as u64)),
        }));
    }

    fn monitor(&self) -> String {
        "10.0.0.1:6789".to_owned()
    }

    async fn set_monitor(&self, listens: bool) {
        self.host.set_image(Observed::Known(if listens {
            ImageFact::Reached { monitor: self.monitor() }
        } else {
            ImageFact::NotReached { reason: "connection refused".to_owned() }
        }));
    }

    async fn hang_storage(&self) {
        let reason = || "it hangs".to_owned();
        self.set_share(Observed::Known(MountFact::NotAnswering { reason: reason() }));
        self.host.set_image(Observed::Known(ImageFact::NotAnswering { reason: reason() }));
    }

    async fn go_on(&self) {
        self.mount_by_hand(&self.share().source, &self.share().options).await;
        self.set_image(Image::File(b"1")).await;
    }

    async fn blind(&self) {
        for name in self.links() {
            self.host.set_bridge(&name, Observed::unknown("no answer"));
        }
        self.set_share(Observed::unknown("too many open files"));
        self.host.set_image(Observed::unknown("too many open files"));
        self.host.hide_seed(Some("no answer"));
    }

    async fn see_again(&self) {
        for name in self.links() {
            self.set_link(&name, Link::None).await;
        }
        self.unmount_by_hand().await;
        self.set_image(Image::None).await;
        self.host.hide_seed(None);
        self.host.refuse_seeds(None);
    }
}

macro_rules! tests {
    ($($case:ident,)*) => {
        $(#[tokio::test(start_paused = true)]
        async fn $case() {
            contract::$case(&SimulatedRig::new().await).await;
        })*
    };
}
every_case!(tests);
