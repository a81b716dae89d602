//! The judge's own account of the leases: until when each node may execute anything, reckoned on the node's own clock
//! from what was sent and answered. It asks the keepers nothing, so that a keeper that reckons wrongly is found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use zsha_crds::NodeName;
use zsha_crds::records::{LeaseRecord, LeaseState};
use zsha_runtime::{Clock, Moment};

/// The time of a working way to the store after which a keeper must have renewed: one request that was under way when
/// the way was mended, one pause, one read, one write.
const ENOUGH: Duration = Duration::from_secs(3);
/// The time for each vain wait that does not count where replies are lost and requests are late: as long as the keeper
/// may wait for an answer by both its ways.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The time within which a process that was killed is gone.
const GONE: Duration = Duration::from_millis(50);

/// One node's lease as its last answered renewal left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub epoch: u64,
    /// The time when that renewal was sent: on the node's clock, and truly.
    sent: Moment,
    sent_at: Instant,
    ttl: Duration,
    /// The shortest F sent since, even if it never arrived: the node obeys it from the sending on.
    announced: Duration,
    /// K: what still executes this much after [`Grant::until`] is too late.
    pub kill: Duration,
    /// R of that lease.
    pub renew: Duration,
}

impl Grant {
    pub fn until(&self) -> Moment {
        self.sent + self.ttl
    }

    /// True if the lease is valid by a clock that runs as it should: for what need not be known to the moment.
    pub fn lives_at(&self, at: Instant) -> bool {
        at.saturating_duration_since(self.sent_at) < self.ttl
    }

    /// The time before which a copy that ends has been harmed.
    pub fn surely_until(&self) -> Moment {
        self.sent + self.ttl.min(self.announced)
    }
}

/// A renewal that is on its way.
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
    /// The troubles between the node and the store now, or in its keeper.
    troubles: BTreeSet<&'static str>,
    /// The times of trouble, in order; the last may not be over.
    troubled: Vec<(Instant, Option<Instant>)>,
    lossy: Option<Instant>,
    /// The requests for the node's own lease that are under way, and the time lost in vain since the last one that was
    /// answered.
    asking: Vec<Instant>,
    in_vain: Duration,
    /// The last time that a renewal was answered after the one before it had run out.
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

    /// The F of the longest lease that was granted to any node.
    pub fn longest(&self) -> Duration {
        let grants = self.nodes.values().filter_map(|account| account.grant.as_ref());
        grants.map(|grant| grant.ttl).max().unwrap_or_default()
    }

    /// The node begins to send this record.
    pub fn sending(&mut self, node: &NodeName, record: LeaseRecord) -> Renewal {
        if let Some(grant) = self.nodes.get_mut(node).and_then(|account| account.grant.as_mut()) {
            grant.announced = grant.announced.min(record.timings.ttl());
        }
        Renewal { record, sent: self.now(node), sent_at: Instant::now() }
    }

    /// The renewal is in force, even if the node never learns of it. Others go by it from here on: what it announces
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

    /// The node was told that the renewal succeeded.
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

    /// The node's keeper asks for its lease.
    pub fn asking(&mut self, node: &NodeName, since: Instant) {
        if let Some(account) = self.nodes.get_mut(node) {
            account.asking.push(since);
        }
    }

    /// A request of the keeper was answered, or came to nothing as far as the keeper knows.
    pub fn asked(&mut self, node: &NodeName, since: Instant, in_vain: bool) {
        let Some(account) = self.nodes.get_mut(node) else { return };
        account.asking.retain(|other| *other != since);
        if in_vain {
            account.in_vain += since.elapsed().min(LONGEST_WAIT);
        }
    }

    /// True if a copy that ends now may have been killed before the answer that made its lease valid again.
    pub fn was_renewed_too_late(&self, node: &NodeName) -> bool {
        let late = self.nodes.get(node).and_then(|account| account.renewed_late);
        late.is_some_and(|at| at.elapsed() <= GONE)
    }

    /// Forgets the grant: no process of that life is left to go by it.
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

    /// Finds a lease that has lapsed without a reason; returns for how long it could have been renewed.
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
