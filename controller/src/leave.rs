//! Deals with a host that shuts down. `zsha-controller leave` says so in the store and waits; the unit `zsha-host` runs
//! it before anything is stopped that the VM needs. The controllers do the rest: the VM leaves live, or, where no node
//! could take it, its guest is shut down and the VM given up. Once the host has booted again its controller takes back
//! what was said. What operators asked for stays as it is.
//!
//! `leave` does two things itself. It keeps this host, and with it this node's Consul, up while the guest is shut down
//! on another that goes down as well: otherwise the quorum goes first, and the guest is killed with the lease. And
//! where nobody else can (Consul is silent and the lease runs out; the controller here is dead) it has the guest power
//! off. That is safe without asking anybody: it starts nothing, so there are never more copies by it, and the host goes
//! down.

mod decide;
mod host;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use zsha_crds::records::{HostShutdown, Intent, LeaseRecord, StoredSpec, VmRecord};
use zsha_crds::{ClusterName, Keys, NodeName, VmId};
use zsha_runtime::Clock;
use zsha_runtime::store::{ConsulStore, Entry, Op, Read, Store, StoreError, Txn};

use crate::hypervisor::Hypervisor;
use crate::keeper::copies::ProcCopies;
use crate::keeper::{Lease, SocketLease};
use crate::observed::Observed;
use crate::plan::ownership;
use crate::settings::Settings;
use decide::{Cluster, GoesDown, Next, Seen, SoFar};

pub use host::Host;

const LOOK: Duration = Duration::from_secs(1);
/// The pause between looks while the store is silent, and the lease may be running out.
const LOOK_SOON: Duration = Duration::from_millis(250);
/// The time that one answer of the store, and a whole look at it, is waited for: far less than a lease.
const ANSWER: Duration = Duration::from_secs(1);
const WHOLE_LOOK: Duration = Duration::from_secs(3);
/// The time for giving the lease up: it is one write, and an election may be in its way.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// The pause between tries to take the shutdown back. Consul comes after the network, and on a cluster that is switched
/// on at once only with the second node.
const BACK_LOOK: Duration = Duration::from_secs(5);

/// True if systemd is taking the host down. Where systemd does not say, nothing is begun.
pub fn host_shuts_down() -> bool {
    systemd_says(&["is-system-running"]) == "stopping"
}

/// True if systemd has the host up, and with it the unit that says that the host shuts down. Where systemd does not
/// say, what was said in this boot stands.
pub fn host_goes_on() -> bool {
    matches!(systemd_says(&["is-system-running"]).as_str(), "running" | "degraded" | "starting")
        && systemd_says(&["is-active", "zsha-host.service"]) == "active"
}

/// The answer of systemd; empty where it could not be asked.
fn systemd_says(words: &[&str]) -> String {
    let said = std::process::Command::new("systemctl").args(words).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}

/// The edges and settings by which `leave` looks and acts.
#[derive(Debug)]
pub struct Leaving {
    pub host: Host,
    pub cluster: ClusterName,
    pub keys: Keys,
    pub clock: Clock,
    pub store: Arc<dyn Store>,
    pub lease: Arc<dyn Lease>,
    /// None: this host's hypervisor cannot be used.
    pub hypervisor: Option<Arc<dyn Hypervisor>>,
}

/// `zsha-controller leave`: runs until this node has nothing of the VM any more. It is an error if `limit` passes
/// before.
pub fn run(settings: &Settings, limit: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let uuid = VmId::of(&settings.cluster).uuid;
        let hypervisor = crate::run::hypervisor(settings, Arc::new(ProcCopies::new(uuid).patient()));
        if let Err(error) = &hypervisor {
            tracing::warn!(error = format!("{error:#}"), "nothing can be asked of the guest from here");
        }
        let leaving = Leaving {
            host: Host::of(settings)?,
            cluster: settings.cluster.clone(),
            keys: Keys::new(&settings.cluster),
            clock: Clock::Boottime,
            store: Arc::new(ConsulStore::connect(settings.consul.for_store()?)?),
            lease: Arc::new(SocketLease::new(settings.keeper_socket())),
            hypervisor: hypervisor.ok(),
        };
        leaving.until_it_may_go_down(limit).await?;
        if host_shuts_down() {
            leaving.give_up_the_lease().await;
        }
        Ok(())
    });
    // A call to libvirt may hang for ever; the host does not wait for it.
    runtime.shutdown_background();
    done
}

impl Leaving {
    pub async fn until_it_may_go_down(&self, limit: Duration) -> anyhow::Result<()> {
        let mut so_far = SoFar::begin(self.clock.now(), limit);
        loop {
            let seen = self.look(&mut so_far).await;
            let next = decide::decide(&seen, &mut so_far, self.clock.now());
            let node = &self.host.node;
            match next {
                Next::Done(why) => {
                    tracing::info!(%node, why, "the host may go down");
                    return Ok(());
                }
                Next::GiveUp(why) => anyhow::bail!("{node} goes down after {} s: {why}", limit.as_secs()),
                // The next look, which comes at once, says so.
                Next::SayNoTimeToMove => continue,
                Next::PowerOff(why) => {
                    tracing::warn!(%node, why, "the guest is asked to power off");
                    self.ask_the_hypervisor(|hypervisor| async move { hypervisor.shutdown().await }).await;
                }
                Next::End(why) => {
                    tracing::warn!(%node, why, "the guest is ended");
                    self.ask_the_hypervisor(|hypervisor| async move { hypervisor.kill().await }).await;
                }
                Next::Wait(why) => tracing::debug!(%node, why, "the host may not go down yet"),
            }
            tokio::time::sleep(if seen.cluster.known().is_some() { LOOK } else { LOOK_SOON }).await;
        }
    }

    /// Gives the lease up, once nothing of the VM is here and the host does go down: others are told that it was
    /// switched off in order, and wait for nothing. The keeper looks once more for a copy, and refuses where there is
    /// one. A lease that is not given up runs out.
    pub async fn give_up_the_lease(&self) {
        let node = &self.host.node;
        let key = self.keys.lease(node);
        if !matches!(tokio::time::timeout(ANSWER, self.store.get(&key, Read::Consistent)).await, Ok(Ok(_))) {
            tracing::info!(%node, "Consul does not answer: the lease is not given up, and runs out");
            return;
        }
        match tokio::time::timeout(GIVEN_UP, self.lease.release()).await {
            Ok(Ok(())) => tracing::info!(%node, "the lease is given up"),
            Ok(Err(error)) => tracing::warn!(%node, %error, "the lease is not given up, and runs out"),
            Err(_) => tracing::warn!(%node, "the lease is not given up in time, and runs out"),
        }
    }

    async fn ask_the_hypervisor<F>(&self, ask: impl FnOnce(Arc<dyn Hypervisor>) -> F)
    where
        F: Future<Output = Result<(), crate::hypervisor::HypervisorError>>,
    {
        let Some(hypervisor) = &self.hypervisor else { return };
        if let Err(error) = ask(Arc::clone(hypervisor)).await {
            tracing::warn!(%error, "not done");
        }
    }

    async fn look(&self, so_far: &mut SoFar) -> Seen {
        let cluster = match tokio::time::timeout(WHOLE_LOOK, self.look_at_cluster(so_far)).await {
            Ok(Ok(cluster)) => Observed::Known(cluster),
            Ok(Err(error)) => Observed::Unknown(format!("{error:#}")),
            Err(_) => Observed::unknown("Consul does not answer in time"),
        };
        // A question to the keeper tells it that the controller lives. So it is asked only where the store does not say
        // whether the controller does.
        let lease = match &cluster {
            Observed::Known(_) => Observed::unknown("not asked"),
            Observed::Unknown(_) => Observed::from_result(self.lease.verdict().await),
        };
        let local = match &self.hypervisor {
            Some(hypervisor) => Observed::from_result(hypervisor.look().await),
            None => Observed::unknown("this host's hypervisor cannot be used"),
        };
        Seen { cluster, lease, local }
    }

    /// Looks at the cluster in the store, once that says that this host shuts down.
    async fn look_at_cluster(&self, so_far: &mut SoFar) -> anyhow::Result<Cluster> {
        self.say(so_far.no_time_to_move).await?;
        if !so_far.knows_the_document
            && let Some(seconds) = self.guest_shutdown_seconds().await?
        {
            so_far.knows_the_document = true;
            so_far.guest_time = Duration::from_secs(seconds.into());
        }
        let key = self.keys.kept_vm();
        let Some(entry) = self.store.get(&key, Read::Consistent).await? else {
            anyhow::bail!("{key} is missing: nobody knows where the VM is");
        };
        let vm = VmRecord::read(&entry.value, self.keys.vm_id())
            .map_err(|why| anyhow::anyhow!("{key} cannot be read: {why}"))?;
        let leases = self.leases().await?;
        let going_down = self.going_down(&leases).await?;
        let other = |node: &NodeName| *node != self.host.node;
        let goes_down = |node: &NodeName| {
            let seq = leases.get(node)?.seq;
            (other(node) && going_down.contains_key(node)).then(|| GoesDown { node: node.clone(), seq })
        };
        Ok(Cluster {
            place: self.host.place(&vm),
            owner_goes_down: ownership::named(&vm).find_map(|owner| goes_down(&owner.node)),
            others_go_down: going_down.keys().any(other),
            somebody_has_it: ownership::named(&vm).next().is_some(),
            controller_alive: leases.get(&self.host.node).is_none_or(|lease| lease.controller_alive),
        })
    }

    /// Says in the store that this host shuts down. Sent twice it is one order: the next time it is found there.
    async fn say(&self, no_time_to_move: bool) -> anyhow::Result<()> {
        let key = self.keys.intent(&Intent::drain_of(&self.host.node));
        let asked = tokio::time::timeout(ANSWER, self.store.get(&key, Read::Consistent)).await;
        let there = asked.context("Consul does not answer in time")??;
        let Some(drain) = self.host.shuts_down(there.as_ref(), no_time_to_move, self.clock.wall()) else {
            return Ok(());
        };
        if let Some(before) = there.as_ref().filter(|there| self.host.drain(there).is_none()) {
            let before: String = before.value.chars().take(200).collect();
            tracing::warn!(key, before, "an order cannot be read: a drain is written in its place");
        }
        let value = serde_json::to_string(&drain)?;
        anyhow::ensure!(
            put(self.store.as_ref(), key, value, there).await?,
            "somebody else wrote there at this moment"
        );
        Ok(())
    }

    /// The time that the stored document gives the guest to power off. None: there is no document, or none that can be
    /// used.
    async fn guest_shutdown_seconds(&self) -> anyhow::Result<Option<u32>> {
        let Some(entry) = self.store.get(&self.keys.spec(), Read::Consistent).await? else { return Ok(None) };
        let Ok(stored) = StoredSpec::read(&entry.value) else { return Ok(None) };
        Ok(zsha_crds::decode_value(&stored.document).ok().map(|document| document.guest_shutdown_seconds()))
    }

    async fn leases(&self) -> anyhow::Result<BTreeMap<NodeName, LeaseRecord>> {
        let prefix = self.keys.leases();
        let listing = self.store.list(&prefix, Read::Consistent).await?;
        let read = |entry: &Entry| LeaseRecord::under(&entry.key, &entry.value, &prefix, &self.cluster).ok();
        let leases = listing.entries.iter().filter_map(read);
        Ok(leases.map(|lease| (lease.node.clone(), lease)).collect())
    }

    /// The nodes whose hosts say that they shut down, in the boot that their leases name.
    async fn going_down(
        &self,
        leases: &BTreeMap<NodeName, LeaseRecord>,
    ) -> anyhow::Result<BTreeMap<NodeName, HostShutdown>> {
        let intents = self.keys.intents();
        let listing = self.store.list(&intents, Read::Consistent).await?;
        let said = listing.entries.iter().filter_map(|entry| {
            let node = Intent::drained(entry.key.strip_prefix(&intents)?)?;
            match serde_json::from_str(&entry.value).ok()? {
                Intent::Drain { shutdown: Some(shutdown), .. } => Some((node, shutdown)),
                _ => None,
            }
        });
        let present = |(node, shutdown): &(NodeName, HostShutdown)| {
            leases.get(node).is_some_and(|lease| lease.boot_id == shutdown.boot_id)
        };
        Ok(said.filter(present).collect())
    }
}

/// Takes back what this host said before it booted. The controller does so as it starts, and ends once nothing of that
/// is there. `goes_on`: asks whether the host is up; none where there is nobody to ask.
pub async fn back(host: &Host, keys: &Keys, store: &dyn Store, goes_on: Option<fn() -> bool>) {
    loop {
        match take_back(host, keys, store, goes_on).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(%error, "whether this host was drained as it shut down is not known yet")
            }
        }
        tokio::time::sleep(BACK_LOOK).await;
    }
}

async fn take_back(
    host: &Host,
    keys: &Keys,
    store: &dyn Store,
    goes_on: Option<fn() -> bool>,
) -> anyhow::Result<bool> {
    let key = keys.intent(&Intent::drain_of(&host.node));
    let there = store.get(&key, Read::Consistent).await?;
    // systemd is asked only where that matters.
    let asks = goes_on.filter(|_| host.is_back(there.as_ref(), true).is_some());
    let is_up = match asks {
        Some(goes_on) => tokio::task::spawn_blocking(goes_on).await?,
        None => false,
    };
    // It may still come up, as far as systemd goes.
    let Some(wanted) = host.is_back(there.as_ref(), is_up) else { return Ok(asks.is_none()) };
    if put(store, key, serde_json::to_string(&wanted)?, there).await? {
        tracing::info!(node = %host.node, "the host is up: what it said as it shut down is taken back");
        return Ok(true);
    }
    Ok(false)
}

/// Writes the order; returns false if somebody else was quicker.
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
