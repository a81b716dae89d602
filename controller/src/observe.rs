//! Looks at everything once, and decides nothing. What could not be looked at is unknown, with the reason.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use zsha_crds::NodeName;
use zsha_crds::records::HistoryRecord;
use zsha_runtime::Moment;
use zsha_runtime::store::Read;

use crate::act::Edges;
use crate::desired::Desired;
use crate::host::{HostFacts, HostWants};
use crate::hypervisor::{DomainFacts, DomainSpec, HypervisorError, LocalVm, OffReason, Offer};
use crate::keeper::{KeeperError, Verdict};
use crate::observed::Observed;
use crate::plan::blindness::Blindness;
use crate::planted::{self, Bug};
use crate::views::Views;
use crate::world::{self, World};

/// The pause between two looks at the host. Links and mounts tell when they change; a share that stopped answering does
/// not.
pub const HOST_LOOK: Duration = Duration::from_secs(10);

/// The last look at the host, taken beside the passes: a share that hangs delays nobody.
#[derive(Debug, Clone)]
pub struct HostSight {
    last: Arc<Mutex<Look>>,
    mounts: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Look {
    wants: HostWants,
    facts: Observed<HostFacts>,
    /// The moment when the look was begun; None also where something was being mounted since.
    began: Option<Moment>,
    /// The moment when something was last mounted, or could not be.
    mounted: Option<Moment>,
}

impl Default for HostSight {
    fn default() -> Self {
        let facts = Observed::unknown("the host has not been looked at yet");
        let nothing = Look { wants: HostWants::default(), facts, began: None, mounted: None };
        Self { last: Arc::new(Mutex::new(nothing)), mounts: Arc::default() }
    }
}

impl HostSight {
    /// The facts, if they answer these questions.
    pub fn facts(&self, wants: Option<&HostWants>) -> Observed<HostFacts> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match wants {
            Some(wants) if *wants != last.wants => {
                Observed::unknown("the host has not been looked at since what is asked of it changed")
            }
            _ => last.facts.clone(),
        }
    }

    /// Puts a look in place that was begun at `began`. Returns true if it differs from the one before.
    pub fn put(&self, wants: HostWants, facts: HostFacts, began: Moment) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let facts = Observed::Known(facts);
        let changed = last.wants != wants || last.facts != facts;
        // A look that was begun before the end of a mount may not have seen it.
        let began = Some(began).filter(|began| last.mounted.is_none_or(|mounted| *began >= mounted));
        *last = Look { wants, facts, began, mounted: last.mounted };
        changed
    }

    /// The moment when the last look was begun, if that was not before the end of a mount. None also where there was no
    /// look.
    pub fn looked(&self) -> Option<Moment> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).began
    }

    /// Something is being mounted from now on.
    pub fn mounting(&self) {
        self.mounts.store(true, Ordering::SeqCst);
    }

    /// The mount is over, whatever came of it.
    pub fn mounted(&self, at: Moment) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (last.began, last.mounted) = (None, Some(at));
        self.mounts.store(false, Ordering::SeqCst);
    }

    pub fn is_mounting(&self) -> bool {
        self.mounts.load(Ordering::SeqCst)
    }
}

/// The age at which a verdict is asked for again: a look at the hypervisor may take as long as its deadline, and the
/// verdict that was asked for beside it must not be older than what is done by it.
const VERDICT_HOLDS: Duration = Duration::from_millis(50);

/// The state of the VM by the hypervisor, what that keeps of it, and what is there to run it on.
type Here =
    (Result<LocalVm, HypervisorError>, Result<DomainFacts, HypervisorError>, Result<Offer, HypervisorError>);

/// Looks at the hypervisor, and asks the keeper for its verdict after that. The keeper is asked before as well, as a
/// sign of life to it.
async fn look_here(edges: &Edges) -> (Result<Verdict, KeeperError>, Here) {
    let began = edges.clock.now();
    let (lease, here) = tokio::join!(edges.lease.verdict(), ask_hypervisor(edges));
    if edges.clock.now().since(began) <= VERDICT_HOLDS {
        return (lease, here);
    }
    (edges.lease.verdict().await, here)
}

/// Asks the hypervisor. One that did not answer is not asked again: it would cost the pass its deadline twice.
async fn ask_hypervisor(edges: &Edges) -> Here {
    match edges.hypervisor.look().await {
        Ok(local) => {
            let domain = edges.hypervisor.domain().await;
            let offer = match &domain {
                Ok(_) => edges.hypervisor.offer().await,
                Err(error) => Err(error.clone()),
            };
            (Ok(local), domain, offer)
        }
        Err(error) => (Err(error.clone()), Err(error.clone()), Err(error)),
    }
}

/// Looks at everything once.
pub async fn observe(edges: &Edges, views: &Views, host: &HostSight, blindness: &mut Blindness) -> World {
    recover_document(edges, views).await;
    confirm_own_record(edges, views).await;
    // The leases are read before the keeper is asked. A keeper that has written its lease anew into a store that was
    // emptied knows by then that it was; a list that shows that lease beside what the keeper said before would look
    // like that of a new cluster.
    let seen = views.sights();
    let (lease, (local, domain, offer)) = look_here(edges).await;
    let local = match local {
        Err(_) if planted::is_planted(Bug::UnknownIsAbsent) => Ok(LocalVm::Absent),
        local => local,
    };
    let (local, desired) = (Observed::from_result(local), views.desired());
    // The order matters: were a look put in place in between, its time would be said of older facts.
    let mounting = host.is_mounting();
    let host_looked = host.looked();
    let lease = Observed::from_result(lease).and_then(|verdict| of_this_node(verdict, &edges.me));
    let went_back = world::went_back(views.went_back(), edges.clock.now(), &lease);
    let keeper_blind = blindness.see(edges.clock.now(), &local, &lease);
    let last_end = last_end(edges, views, &local).await;
    let mut world = World {
        now: edges.clock.now(),
        wall: edges.clock.wall(),
        me: edges.me.clone(),
        vm_id: edges.keys.vm_id().clone(),
        spec_problem: views.spec_problem(),
        intents: views.intents(&lease),
        shutdowns: views.shutdowns(),
        migrate: views.migrate(&lease),
        job: edges.hypervisor.migration(),
        went_back,
        sights: world::sights(seen, edges.clock.now(), &lease),
        lease,
        unreadable_leases: views.unreadable_leases(),
        vanished_leases: views.vanished_leases(went_back),
        vm: views.vm(),
        departed_before: views.departed_before(),
        vm_before: views.vm_before(),
        vm_overwritten: views.vm_overwritten(),
        nodes: views.nodes(),
        running_domain: running_domain(edges, views, &local, &desired).await,
        last_end,
        local,
        domain: Observed::from_result(domain),
        offer: Observed::from_result(offer),
        // The questions to it follow from the rest.
        host: Observed::unknown("nothing has been asked yet"),
        host_looked,
        mounting,
        orders: views.newest_order(),
        desired,
        keeper_blind,
    };
    world.doubt_what_is_gone_without_a_word();
    world.host = host.facts(world.questions().as_ref());
    // Taken last: what was looked at before is older, never newer, than `now`.
    world.now = edges.clock.now();
    world
}

async fn last_end(edges: &Edges, views: &Views, local: &Observed<LocalVm>) -> Observed<Option<OffReason>> {
    let is_to_be_here = || world::runs_on(&views.vm(), &edges.me).is_some();
    let asked = match local {
        Observed::Known(local) => local.is_gone_without_a_word() && is_to_be_here(),
        Observed::Unknown(_) => true,
    };
    match asked {
        true => Observed::from_result(edges.hypervisor.last_end().await),
        false => Observed::unknown("it was not asked for"),
    }
}

/// Looks up the record that this process wrote and does not see.
async fn confirm_own_record(edges: &Edges, views: &Views) {
    if !views.own_is_unconfirmed() {
        return;
    }
    match edges.store.get(&edges.keys.kept_vm(), Read::Consistent).await {
        Ok(entry) => views.own_was_looked_up(entry.map(|entry| entry.modify_index)),
        Err(error) => tracing::debug!(%error, "the ownership record was not looked up"),
    }
}

/// Goes on with the last document that could be used, where the controller was started beside one that cannot.
async fn recover_document(edges: &Edges, views: &Views) {
    let Some(index) = views.needs_history() else { return };
    // The history is read consistently: a server that lags would have an older one. If it cannot be read now, the next
    // pass reads it.
    match edges.store.list(&edges.keys.history(), Read::Consistent).await {
        Ok(history) => views.recover(index, &history.entries),
        Err(error) => tracing::debug!(%error, "history not read"),
    }
}

/// The domain of the generation that runs here, from the history. It is looked up once for each generation.
async fn running_domain(
    edges: &Edges,
    views: &Views,
    local: &Observed<LocalVm>,
    desired: &Observed<Option<Arc<Desired>>>,
) -> Option<Arc<DomainSpec>> {
    let running = local.known()?.generation()?;
    let in_force = desired.known()?.as_ref()?.generation;
    if running == in_force || running == 0 {
        return None;
    }
    if let Some(known) = views.past_domain(running) {
        return known;
    }
    let key = edges.keys.history_of(running);
    let entry = edges.store.get(&key, Read::Stale).await.ok()?;
    let domain = entry.and_then(|entry| {
        let past: HistoryRecord = serde_json::from_str(&entry.value).ok()?;
        let document = zsha_crds::decode_value(&past.document).ok()?;
        Some(Arc::new(Desired::from_document(&document, running).domain))
    });
    views.remember_domain(running, domain.clone());
    domain
}

/// Refuses the verdict of a keeper that was started for another node.
fn of_this_node(verdict: Verdict, me: &NodeName) -> Observed<Verdict> {
    if verdict.node == *me {
        return Observed::Known(verdict);
    }
    Observed::Unknown(format!(
        "the keeper here was started for {} and this controller for {me}: give both the same --node",
        verdict.node
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_was_begun_before_the_end_of_a_mount_is_no_look_at_it() {
        let at = Moment::from_millis;
        let (sight, facts) = (HostSight::default(), HostFacts::default);
        assert_eq!((sight.looked(), sight.is_mounting()), (None, false));
        assert!(sight.put(HostWants::default(), facts(), at(10)), "the first");
        assert!(!sight.put(HostWants::default(), facts(), at(20)), "it shows the same");
        assert_eq!(sight.looked(), Some(at(20)));
        sight.mounting();
        sight.put(HostWants::default(), facts(), at(30));
        sight.mounted(at(40));
        assert_eq!((sight.looked(), sight.is_mounting()), (None, false));
        sight.put(HostWants::default(), facts(), at(39));
        assert_eq!(sight.looked(), None, "it was under way as that ended");
        sight.put(HostWants::default(), facts(), at(40));
        assert_eq!(sight.looked(), Some(at(40)));
    }
}
