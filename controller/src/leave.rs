//! A host that shuts down is drained by itself: `zsha-controller leave` asks for that and waits, as the unit
//! `zsha-host` has it done before anything the VM needs is stopped; the controller takes it back once the host has
//! booted again. What operators asked for is left as it is. It moves nothing: the controllers carry the drain out.

use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use zsha_crds::records::{Intent, VmRecord};
use zsha_crds::{Keys, NodeName, VmName};
use zsha_runtime::Clock;
use zsha_runtime::store::{ConsulStore, Entry, Op, Read, Store, StoreError, Txn};

use crate::settings::Settings;

const LOOK: Duration = Duration::from_secs(1);
/// Consul comes after the network, and on all nodes of a cluster that is switched on at once only with the second.
const BACK_LOOK: Duration = Duration::from_secs(5);

/// A node that asks for its own drain, in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub node: NodeName,
    /// The kernel's.
    pub boot_id: String,
}

/// What stands under the node's own drain, as the node itself sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Nothing,
    /// By an operator: not ours to take back.
    ByOthers,
    /// By this host, as it shuts down.
    ByUs,
    /// By this host, before it booted.
    BeforeBoot,
    /// Something that cannot be read is not ours either.
    Unreadable,
}

impl Host {
    pub fn of(settings: &Settings) -> anyhow::Result<Self> {
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        let boot_id = std::fs::read_to_string(BOOT_ID).context(BOOT_ID)?;
        Ok(Self { node: settings.node.clone(), boot_id: boot_id.trim().to_owned() })
    }

    /// By whom a drain is that it asks for. Nobody else is called so: a command names `user@host`.
    fn name(&self, boot_id: &str) -> String {
        format!("{} itself (boot {boot_id})", self.node)
    }

    fn drain(&self, at: Timestamp) -> Intent {
        let message = "the host shuts down; taken back once it has booted".to_owned();
        Intent::Drain { by: self.name(&self.boot_id), at, message }
    }

    fn asked(&self, there: Option<&Entry>) -> Asked {
        let Some(entry) = there else { return Asked::Nothing };
        match serde_json::from_str(&entry.value) {
            Ok(Intent::Drain { by, .. }) if by == self.name(&self.boot_id) => Asked::ByUs,
            Ok(Intent::Drain { by, .. }) if by.starts_with(&format!("{} itself (boot ", self.node)) => {
                Asked::BeforeBoot
            }
            Ok(Intent::None) => Asked::Nothing,
            Ok(Intent::Drain { .. }) => Asked::ByOthers,
            Ok(_) | Err(_) => Asked::Unreadable,
        }
    }

    /// Whether the VM is neither here nor on its way here.
    fn has_left(&self, vm: &VmRecord) -> bool {
        let owned = vm.owner.as_ref().is_some_and(|owner| owner.node == self.node);
        let arriving = vm.migration.as_ref().is_some_and(|migration| migration.to.node == self.node);
        !owned && !arriving
    }
}

/// Whether systemd is taking the host down. Where it does not say, nothing is begun.
pub fn host_shuts_down() -> bool {
    let asked = std::process::Command::new("systemctl").arg("is-system-running").output();
    asked.is_ok_and(|said| said.stdout.trim_ascii() == b"stopping")
}

/// `zsha-controller leave`: until the VM has left this node, or `limit` has passed, which is an error.
pub fn run(settings: &Settings, limit: Duration) -> anyhow::Result<()> {
    let host = Host::of(settings)?;
    let store = ConsulStore::connect(settings.consul.for_store()?)?;
    let keys = Keys::new(&settings.cluster);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(leave(&host, &keys, &store, limit, Clock::Boottime))
}

async fn leave(
    host: &Host,
    keys: &Keys,
    store: &dyn Store,
    limit: Duration,
    clock: Clock,
) -> anyhow::Result<()> {
    let until = clock.now() + limit;
    let mut asked = false;
    let mut why;
    loop {
        let looked = async {
            asked = asked || ask(host, keys, store, clock.wall()).await?;
            left(host, keys, store).await
        };
        why = match looked.await {
            Ok(true) if asked => {
                tracing::info!(node = %host.node, "the VM has left this node");
                return Ok(());
            }
            Ok(_) => "no other node has taken it yet: `zsha status` says what each of them lacks".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if clock.now() >= until {
            anyhow::bail!(
                "the VM is still on {} after {} s: it ends with the host, and is started elsewhere then. {why}",
                host.node,
                limit.as_secs()
            );
        }
        tracing::debug!(why, "the VM has not left yet");
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the drain is in force, by whomever.
async fn ask(host: &Host, keys: &Keys, store: &dyn Store, now: Timestamp) -> anyhow::Result<bool> {
    let key = keys.intent(&Intent::drain_of(&host.node));
    let there = store.get(&key, Read::Consistent).await?;
    match host.asked(there.as_ref()) {
        Asked::ByUs | Asked::ByOthers => return Ok(true),
        Asked::Nothing | Asked::BeforeBoot => {}
        Asked::Unreadable => anyhow::bail!(
            "{key} cannot be read, and is not written over: `zsha uncordon {}` clears it",
            host.node
        ),
    }
    let value = serde_json::to_string(&host.drain(now))?;
    // Sent twice it is one: what is found there the next time is this.
    Ok(put(store, key, value, there).await?)
}

async fn left(host: &Host, keys: &Keys, store: &dyn Store) -> anyhow::Result<bool> {
    let key = keys.vm(&VmName::management());
    let Some(entry) = store.get(&key, Read::Consistent).await? else {
        anyhow::bail!("{key} is missing: nobody knows where the VM is");
    };
    let vm = serde_json::from_str(&entry.value).with_context(|| format!("{key} cannot be read"))?;
    Ok(host.has_left(&vm))
}

/// By the controller: takes back what this host asked for before it booted. Ends once nothing of that is there.
pub async fn back(host: &Host, keys: &Keys, store: &dyn Store) {
    loop {
        match take_back(host, keys, store).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "whether this host was drained as it shut down is not known yet")
            }
        }
        tokio::time::sleep(BACK_LOOK).await;
    }
}

async fn take_back(host: &Host, keys: &Keys, store: &dyn Store) -> anyhow::Result<bool> {
    let key = keys.intent(&Intent::drain_of(&host.node));
    let there = store.get(&key, Read::Consistent).await?;
    match host.asked(there.as_ref()) {
        Asked::BeforeBoot => {}
        Asked::Nothing | Asked::ByUs | Asked::ByOthers | Asked::Unreadable => return Ok(true),
    }
    if put(store, key, serde_json::to_string(&Intent::None)?, there).await? {
        tracing::info!(node = %host.node, "the host has booted: it is not drained any more");
        return Ok(true);
    }
    Ok(false)
}

/// False: somebody else was quicker.
async fn put(
    store: &dyn Store,
    key: String,
    value: String,
    there: Option<Entry>,
) -> Result<bool, StoreError> {
    let op = match there {
        Some(entry) => Op::Cas { key, value, index: entry.modify_index },
        None => Op::Create { key, value },
    };
    Ok(matches!(store.txn(vec![op]).await?, Txn::Committed { .. }))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;
    use zsha_crds::ClusterName;
    use zsha_crds::records::{Migration, Owner};
    use zsha_runtime::store::MemoryStore;

    use super::*;

    fn host(boot_id: &str) -> Host {
        Host { node: NodeName::new("nfs-1").unwrap(), boot_id: boot_id.to_owned() }
    }

    fn keys() -> Keys {
        Keys::new(&ClusterName::new("prod").unwrap())
    }

    fn owner(node: &str) -> Owner {
        Owner { node: NodeName::new(node).unwrap(), epoch: 1 }
    }

    fn vm_of(node: &str) -> VmRecord {
        VmRecord { owner: Some(owner(node)), ..VmRecord::unplaced(VmName::management(), Uuid::nil()) }
    }

    async fn write<T: serde::Serialize>(store: &MemoryStore, key: String, value: &T) {
        let there = store.get(&key, Read::Consistent).await.unwrap();
        assert!(put(store, key, serde_json::to_string(value).unwrap(), there).await.unwrap());
    }

    async fn drain_in(store: &MemoryStore) -> Intent {
        let key = keys().intent(&Intent::drain_of(&host("a").node));
        serde_json::from_str(&store.get(&key, Read::Consistent).await.unwrap().unwrap().value).unwrap()
    }

    fn clock() -> Clock {
        Clock::Tokio { start: tokio::time::Instant::now(), rate_ppm: 0 }
    }

    #[test]
    fn a_vm_that_is_owned_here_or_on_its_way_here_has_not_left() {
        let host = host("a");
        assert!(!host.has_left(&vm_of("nfs-1")));
        assert!(host.has_left(&vm_of("nfs-2")));
        let arriving =
            VmRecord { migration: Some(Migration { to: owner("nfs-1"), id: Uuid::nil() }), ..vm_of("nfs-2") };
        assert!(!host.has_left(&arriving));
        assert!(host.has_left(&VmRecord { owner: None, ..vm_of("nfs-1") }), "it runs nowhere");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_is_drained_until_it_has_booted_again() {
        let store = MemoryStore::new();
        write(&store, keys().vm(&VmName::management()), &vm_of("nfs-1")).await;
        let (host_now, names) = (host("a"), keys());
        let leaving = leave(&host_now, &names, &store, Duration::from_secs(60), clock());
        let moved = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert!(matches!(drain_in(&store).await, Intent::Drain { .. }));
            write(&store, keys().vm(&VmName::management()), &vm_of("nfs-2")).await;
        };
        let (done, ()) = tokio::join!(leaving, moved);
        done.unwrap();

        back(&host("a"), &keys(), &store).await;
        assert!(
            matches!(drain_in(&store).await, Intent::Drain { .. }),
            "a controller that was only restarted"
        );
        back(&host("b"), &keys(), &store).await;
        assert_eq!(drain_in(&store).await, Intent::None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_operator_asked_for_is_neither_written_over_nor_taken_back() {
        let store = MemoryStore::new();
        write(&store, keys().vm(&VmName::management()), &vm_of("nfs-2")).await;
        let asked = Intent::Drain {
            by: "ann@desk".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            message: "new memory".to_owned(),
        };
        write(&store, keys().intent(&Intent::drain_of(&host("a").node)), &asked).await;
        leave(&host("a"), &keys(), &store, Duration::from_secs(60), clock()).await.unwrap();
        back(&host("b"), &keys(), &store).await;
        assert_eq!(drain_in(&store).await, asked);
    }

    #[tokio::test(start_paused = true)]
    async fn a_vm_that_cannot_leave_is_said_so_in_time() {
        let store = MemoryStore::new();
        write(&store, keys().vm(&VmName::management()), &vm_of("nfs-1")).await;
        let clock = clock();
        let began = clock.now();
        let error = leave(&host("a"), &keys(), &store, Duration::from_secs(60), clock).await.unwrap_err();
        assert!(error.to_string().starts_with("the VM is still on nfs-1 after 60 s"), "{error}");
        assert!(began.until(clock.now()) < Duration::from_secs(62));
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_cannot_be_read_is_not_written_over() {
        let store = MemoryStore::new();
        write(&store, keys().vm(&VmName::management()), &vm_of("nfs-2")).await;
        write(&store, keys().intent(&Intent::drain_of(&host("a").node)), &"soon").await;
        let error = leave(&host("a"), &keys(), &store, Duration::from_secs(3), clock())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("zsha/prod/intent/drain.nfs-1 cannot be read"), "{error}");
    }
}
