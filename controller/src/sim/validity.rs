//! The judge's own account of the leases: until when each node may execute anything, reckoned from what was sent and
//! answered, on the node's own clock. It asks nothing of the keepers, so that a keeper that reckons wrongly shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::NodeName;
use zsha_crds::records::{LeaseRecord, LeaseState};
use zsha_runtime::{Clock, Moment};

/// With a working way to the store for this long, a keeper has renewed: one request that was under way when the way
/// was mended, one pause, one read, one write.
const ENOUGH: Duration = Duration::from_secs(3);
/// Where replies are lost and requests late, what it waits for in vain does not count, up to this for each: as long as
/// it may wait for an answer by both its ways.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// A process that was killed is gone within this.
const GONE: Duration = Duration::from_millis(50);

/// One node's lease as its last answered renewal left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub epoch: u64,
    /// When that renewal was sent: on the node's clock, and truly.
    sent: Moment,
    sent_at: Instant,
    ttl: Duration,
    /// The shortest F sent since, whether or not it arrived: the node obeys it from the sending on.
    announced: Duration,
    /// K: what still executes this much after [`Grant::until`] is too late.
    pub kill: Duration,
    /// R.
    pub renew: Duration,
}

impl Grant {
    pub fn until(&self) -> Moment {
        self.sent + self.ttl
    }

    /// Whether it is valid by a clock that runs as it should: for what need not be known to the moment.
    pub fn lives_at(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.sent_at) < self.ttl
    }

    /// A copy that ends before this is harmed.
    pub fn surely_until(&self) -> Moment {
        self.sent + self.ttl.min(self.announced)
    }
}

/// A renewal on its way.
#[derive(Debug, Clone)]
pub struct Renewal {
    record: LeaseRecord,
    sent: Moment,
    sent_at: Instant,
}

#[derive(Debug)]
struct Account {
    clock: Clock,
    grant: Option<Grant>,
    /// What is between the node and the store now, or wrong with its keeper.
    troubles: BTreeSet<&'static str>,
    /// When there was any, in order; the last one may not be over.
    troubled: Vec<(Instant, Option<Instant>)>,
    lossy: Option<Instant>,
    /// Requests for the node's own lease that are under way, and the time of those that came to nothing since the last
    /// one that did not.
    asking: Vec<Instant>,
    in_vain: Duration,
    /// When the last renewal was answered after the one before it had run out.
    renewed_late: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Validity {
    nodes: BTreeMap<NodeName, Account>,
}

impl Validity {
    pub fn know(&mut self, node: NodeName, clock: Clock) {
        let account = Account {
            clock,
            grant: None,
            troubles: BTreeSet::new(),
            troubled: Vec::new(),
            lossy: None,
            asking: Vec::new(),
            in_vain: Duration::ZERO,
            renewed_late: None,
        };
        self.nodes.insert(node, account);
    }

    pub fn now(&self, node: &NodeName) -> Moment {
        self.nodes.get(node).map_or_else(Moment::default, |account| account.clock.now())
    }

    pub fn grant(&self, node: &NodeName) -> Option<&Grant> {
        self.nodes.get(node)?.grant.as_ref()
    }

    /// F of the longest lease that was granted to any node.
    pub fn longest(&self) -> Duration {
        let grants = self.nodes.values().filter_map(|account| account.grant.as_ref());
        grants.map(|grant| grant.ttl).max().unwrap_or_default()
    }

    /// The node begins to send this.
    pub fn sending(&mut self, node: &NodeName, record: LeaseRecord) -> Renewal {
        if let Some(grant) = self.nodes.get_mut(node).and_then(|account| account.grant.as_mut()) {
            grant.announced = grant.announced.min(record.timings.ttl());
        }
        Renewal { record, sent: self.now(node), sent_at: Instant::now() }
    }

    /// It is in force, whether or not the node will ever hear of it. Others go by it from here on: what it announces
    /// shortens what was granted before, and a new life ends the old one.
    pub fn committed(&mut self, record: &LeaseRecord) {
        let Some(account) = self.nodes.get_mut(&record.node) else { return };
        let same_life = record.state == LeaseState::Held
            && account.grant.as_ref().is_some_and(|grant| grant.epoch == record.epoch);
        match &mut account.grant {
            Some(grant) if same_life => {
                grant.ttl = grant.ttl.min(record.timings.ttl());
                grant.kill = grant.kill.min(record.timings.kill());
            }
            other => *other = None,
        }
    }

    /// The node was told that it succeeded.
    pub fn answered(&mut self, renewal: &Renewal) {
        let record = &renewal.record;
        let Some(account) = self.nodes.get_mut(&record.node) else { return };
        account.in_vain = Duration::ZERO;
        if record.state == LeaseState::Held {
            let before = account.grant.as_ref().filter(|grant| grant.epoch == record.epoch);
            if before.is_some_and(|before| before.until() <= account.clock.now()) {
                account.renewed_late = Some(Instant::now());
            }
            account.grant = Some(Grant {
                epoch: record.epoch,
                sent: renewal.sent,
                sent_at: renewal.sent_at,
                ttl: record.timings.ttl(),
                announced: record.timings.ttl(),
                kill: record.timings.kill(),
                renew: record.timings.renew(),
            });
        }
    }

    /// Its keeper asks for its lease.
    pub fn asking(&mut self, node: &NodeName, since: Instant) {
        if let Some(account) = self.nodes.get_mut(node) {
            account.asking.push(since);
        }
    }

    /// What it asked for is answered, or has come to nothing for all that the keeper knows.
    pub fn asked(&mut self, node: &NodeName, since: Instant, in_vain: bool) {
        let Some(account) = self.nodes.get_mut(node) else { return };
        account.asking.retain(|other| *other != since);
        if in_vain {
            account.in_vain += since.elapsed().min(LONGEST_WAIT);
        }
    }

    /// Whether a copy that ends now may have been killed before the answer that made its lease valid again.
    pub fn was_renewed_too_late(&self, node: &NodeName) -> bool {
        let late = self.nodes.get(node).and_then(|account| account.renewed_late);
        late.is_some_and(|at| at.elapsed() <= GONE)
    }

    /// No process of that life is left to go by it.
    pub fn void(&mut self, node: &NodeName) {
        if let Some(account) = self.nodes.get_mut(node) {
            account.grant = None;
        }
    }

    /// Something that keeps a node from renewing begins or ends.
    pub fn troubled(&mut self, node: &NodeName, trouble: &'static str, on: bool) {
        let Some(account) = self.nodes.get_mut(node) else { return };
        let before = account.troubles.is_empty();
        if on {
            account.troubles.insert(trouble);
        } else {
            account.troubles.remove(trouble);
        }
        match (before, account.troubles.is_empty()) {
            (true, false) => account.troubled.push((Instant::now(), None)),
            (false, true) => {
                if let Some((_, end)) = account.troubled.last_mut() {
                    *end = Some(Instant::now());
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    pub fn lossy(&mut self) {
        for account in self.nodes.values_mut() {
            account.lossy = Some(Instant::now());
        }
    }

    /// Whether a lease that has lapsed now did so for a reason; if not, for how long it could have been renewed.
    pub fn lapsed_in_vain(&self, node: &NodeName) -> Option<Duration> {
        let account = self.nodes.get(node)?;
        let sent_at = account.grant.as_ref()?.sent_at;
        let quiet = longest_quiet(&account.troubled, sent_at, Instant::now());
        let under_way = account.asking.iter().map(|since| since.elapsed().min(LONGEST_WAIT)).max();
        let waited = account.in_vain + under_way.unwrap_or_default();
        let bad_luck = if account.lossy.is_some() { waited } else { Duration::ZERO };
        (quiet >= ENOUGH + bad_luck).then_some(quiet)
    }
}

/// The longest time without trouble between two moments.
fn longest_quiet(troubled: &[(Instant, Option<Instant>)], from: Instant, to: Instant) -> Duration {
    let mut quiet_since = from;
    let mut longest = Duration::ZERO;
    for (begin, end) in troubled {
        longest = longest.max((*begin).min(to).saturating_duration_since(quiet_since));
        quiet_since = quiet_since.max(end.unwrap_or(to));
    }
    longest.max(to.saturating_duration_since(quiet_since))
}
