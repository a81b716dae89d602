//! Consul behind [`Store`]: several endpoints, a deadline on every request, and an honest word on what is unknown.
//! It never retries a write that may have happened, never takes a failure for an absence, and logs nothing.
//!
//! A read is asked of one endpoint after the other until one answers. A write goes to the next endpoint only where
//! it surely did not happen. The endpoint that answered is asked first from then on; the first, the local agent, is
//! tried again every 5 s. One request may take `request_timeout`, one call that much for each endpoint.
//!
//! A call that is denied is tried once more where the token's file holds another token by now: tokens are rotated, and
//! no administrator restarts every process for it. A call that was denied surely did not happen.
//!
//! Pitfalls of Consul (and of its client library) and the test that holds each:
//!
//! | pitfall | test |
//! | --- | --- |
//! | an index of 0 does not block | `contract::a_watch_from_index_0_blocks_like_one_from_1` |
//! | an index may go back (restored snapshot) | `watcher::tests::an_index_lower_than_before_starts_over_from_a_full_list`, `consul_contract::a_restored_snapshot_makes_the_watcher_start_over` |
//! | a restored snapshot ends a wait with the content from before | `consul_contract::a_restored_snapshot_makes_the_watcher_start_over` |
//! | a return of a watch proves no change | `watcher::tests::a_return_without_a_change_emits_nothing_but_a_bookmark` |
//! | an absent key wakes on every write | `contract::an_absent_key_can_be_watched_into_being`, `contract::a_wake_up_by_a_neighbour_shows_an_unchanged_listing` |
//! | so whatever is watched must exist: `zsha apply` creates it | `cli/tests/apply.rs`: `the_first_apply_creates_everything_that_others_watch_and_a_second_one_changes_nothing` |
//! | client timeout is wait + wait/16 + margin; a wait below one second would mean five minutes | `connection::tests::a_blocking_read_is_given_its_wait_a_sixteenth_of_it_and_one_request_more`, `contract::a_watch_returns_at_the_end_of_its_wait`, `connection::tests::a_wait_below_a_second_is_rounded_up_and_never_left_out` |
//! | an identical value changes no index and wakes nobody | `contract::a_write_of_an_identical_value_keeps_its_index`, `contract::a_write_of_an_identical_value_wakes_nobody` |
//! | recurse is a string prefix | `contract::a_prefix_without_a_slash_is_refused`, `contract::a_listing_holds_its_prefix_and_no_neighbour` |
//! | 404 is an answer, a lost connection is not an empty list | `contract::an_absent_key_and_an_empty_prefix_are_answers`, `consul_contract::no_endpoint_is_an_error_and_never_an_empty_list`, `failure::tests::no_failed_read_is_ever_an_empty_answer_and_none_is_unknown` |
//! | `cas` tells no index | `contract::a_commit_tells_the_index_of_every_key` |
//! | deleting an absent key reports success | `contract::deleting_what_is_not_there_is_a_conflict` |
//! | limits: 64 operations, 256 KiB | `contract::a_transaction_over_its_budget_is_refused_before_it_is_sent`, `contract::a_transaction_of_64_operations_and_256_kib_commits` |
//! | an error on a write is unknown | `failure::tests::a_write_whose_leader_was_lost_while_committing_is_unknown`, `consul_contract::a_write_cut_off_in_flight_is_unknown_and_is_sent_nowhere_else` |
//! | a short timeout, then the next endpoint | `consul_contract::a_hanging_endpoint_costs_one_timeout_and_the_next_one_answers` |
//! | a token that was rotated is refused from then on | `consul_contract::a_token_that_was_rotated_is_read_again_and_the_call_is_done` |
//! | a missing right reads as an empty list, and as 409 in a transaction | `consul_contract::a_token_without_rights_reads_an_empty_list_and_is_denied_the_rest`, `watcher::tests::a_list_that_became_empty_is_believed_only_after_a_consistent_read` |
//! | the path mangles some keys | `contract::keys_with_any_characters_are_kept_apart`, `contract::a_key_that_the_path_would_mangle_is_refused` |
//! | rs-consul reads one key by string prefix | `contract::a_key_is_read_without_its_longer_neighbours`, `contract::a_watch_of_one_key_shows_that_key_alone` |
//! | one binary value fails a whole listing | `consul_contract::one_value_that_is_not_text_blinds_nobody_to_the_rest` |
//! | without a client of ours rs-consul keeps no connection alive | `consul_contract::reads_and_writes_one_after_the_other_share_one_connection` |
//! | the leader dies | `consul_contract::reads_and_writes_go_on_when_the_leader_is_killed` |

mod access;
mod agent;
mod client;
mod connection;
mod endpoint;
mod failure;
mod hedge;
mod settings;
mod transaction;
mod variables;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::time::Instant;

use super::{Entry, Listing, Op, Read, Store, StoreError, Txn, limits};
use access::Access;
use connection::{Block, Connection, Query, parse, refused};
use endpoint::Preference;
use failure::Failure;
use hedge::{Fate, Tally};
use transaction::Request;

pub use agent::{Agent, Member, MemberStatus};
pub use client::{Identity, InvalidTlsName, Tls, TlsName};
pub use endpoint::{Endpoint, InvalidEndpoint};
pub use settings::{ConnectError, ConsulSettings, DEFAULT_REQUEST_TIMEOUT, Token};
pub use variables::{NotObeyed, asked as variables_not_obeyed, not_obeyed};

/// Requests sent since the store was made, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requests {
    pub reads: u64,
    pub watches: u64,
    pub transactions: u64,
    /// Requests to the agent and the status endpoints.
    pub others: u64,
}

impl Requests {
    pub fn total(&self) -> u64 {
        self.reads + self.watches + self.transactions + self.others
    }
}

#[derive(Debug, Default)]
struct Counts {
    reads: AtomicU64,
    watches: AtomicU64,
    transactions: AtomicU64,
    others: AtomicU64,
}

/// Consul as a [`Store`].
#[derive(Debug)]
pub struct ConsulStore {
    connections: Vec<Connection>,
    access: Arc<Access>,
    preference: Preference,
    counts: Counts,
}

impl ConsulStore {
    /// Makes the client; nothing is sent before the first call.
    pub fn connect(settings: ConsulSettings) -> Result<Self, ConnectError> {
        if settings.endpoints.is_empty() {
            return Err(ConnectError::NoEndpoint);
        }
        let client = client::build(&settings)?;
        let ConsulSettings { endpoints, token, tls: _, request_timeout } = settings;
        let access = Arc::new(Access::new(token));
        let connections: Vec<_> = endpoints
            .into_iter()
            .map(|endpoint| Connection::new(endpoint, client.clone(), Arc::clone(&access), request_timeout))
            .collect();
        let preference = Preference::new(connections.len(), Instant::now());
        Ok(Self { connections, access, preference, counts: Counts::default() })
    }

    /// The number of requests sent so far, by kind.
    pub fn requests(&self) -> Requests {
        Requests {
            reads: self.counts.reads.load(Ordering::Relaxed),
            watches: self.counts.watches.load(Ordering::Relaxed),
            transactions: self.counts.transactions.load(Ordering::Relaxed),
            others: self.counts.others.load(Ordering::Relaxed),
        }
    }

    /// The address of Consul's leader, if there is one, as the first endpoint that answers sees it.
    pub async fn leader(&self) -> Result<Option<String>, StoreError> {
        let leader: String = self
            .anywhere("leader", |connection| async move {
                self.counts.others.fetch_add(1, Ordering::Relaxed);
                parse(&connection.get("/v1/status/leader").await?)
            })
            .await?;
        Ok(Some(leader).filter(|leader| !leader.is_empty()))
    }

    /// The agent behind the first endpoint that answers.
    pub async fn agent(&self) -> Result<Agent, StoreError> {
        self.anywhere("agent", |connection| async move {
            self.counts.others.fetch_add(1, Ordering::Relaxed);
            Agent::parse(&connection.get("/v1/agent/self").await?)
        })
        .await
    }

    /// Consul's members, as the agent behind the first endpoint that answers knows them. Those that the token may not
    /// see are left out by Consul without a word.
    pub async fn members(&self) -> Result<Vec<Member>, StoreError> {
        self.anywhere("members", |connection| async move {
            self.counts.others.fetch_add(1, Ordering::Relaxed);
            Member::parse(&connection.get("/v1/agent/members").await?)
        })
        .await
    }

    /// Makes the call, and makes it once more if it was denied and there is another token by now.
    async fn with_rotation<T, F>(&self, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let used = self.access.token();
        match call().await {
            Err(StoreError::Denied { .. }) if self.access.renewed(used.as_ref()).await => call().await,
            outcome => outcome,
        }
    }

    /// Makes a read: asks one endpoint after the other, until one answers or says that no other would answer
    /// differently.
    async fn anywhere<'s, T, F>(
        &'s self,
        operation: &str,
        ask: impl Fn(&'s Connection) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let in_turn = async || {
            let mut reasons = Vec::new();
            for (failures, place) in self.preference.order(Instant::now()).into_iter().enumerate() {
                let connection = &self.connections[place];
                let answer = ask(connection).await;
                // Its election is everybody's; another agent, perhaps one that is gone, only takes longer to say so.
                let leaderless = matches!(answer, Err(Failure::NoLeader));
                match answer.map_err(|failure| failure.of_read(operation)) {
                    Err(error) if leaderless => return Err(error),
                    Ok(answer) => {
                        self.preference.answered(place, failures > 0, Instant::now());
                        return Ok(answer);
                    }
                    Err(error @ (StoreError::Denied { .. } | StoreError::Invalid { .. })) => {
                        return Err(error);
                    }
                    Err(
                        StoreError::Unavailable { reason, .. }
                        | StoreError::Unknown { reason, .. }
                        | StoreError::Malformed { reason, .. },
                    ) => reasons.push(format!("{}: {reason}", connection.endpoint)),
                }
            }
            Err(StoreError::Unavailable { operation: operation.to_owned(), reason: reasons.join("; ") })
        };
        self.with_rotation(in_turn).await
    }

    /// Sends a write to one endpoint after the other, as long as it surely did not happen.
    async fn send_in_turn(&self, request: &Request) -> Result<Txn, StoreError> {
        let mut tally = Tally::default();
        for (failures, place) in self.preference.order(Instant::now()).into_iter().enumerate() {
            let (_, answer) = self.send(place, request).await;
            if answer.is_ok() {
                self.preference.answered(place, failures > 0, Instant::now());
            }
            if tally.note(&answer) != Fate::SurelyNot {
                return answer;
            }
        }
        tally.verdict()
    }

    /// Does the same, and also sends to a second endpoint when the first has not answered within `after`.
    async fn send_hedged(&self, request: &Request, after: Duration) -> Result<Txn, StoreError> {
        let mut places = self.preference.order(Instant::now()).into_iter();
        let mut flights: FuturesUnordered<_> =
            places.next().map(|place| self.send(place, request)).into_iter().collect();
        let mut tally = Tally::default();
        let mut hedged = false;
        let hedge_at = Instant::now() + after;
        loop {
            tokio::select! {
                biased;
                Some((_, answer)) = flights.next() => match tally.note(&answer) {
                    Fate::Committed => return answer,
                    Fate::SurelyNot => flights.extend(places.next().map(|place| self.send(place, request))),
                    Fate::Unknown if !hedged => {
                        hedged = true;
                        flights.extend(places.next().map(|place| self.send(place, request)));
                    }
                    Fate::Unknown | Fate::Answered => {}
                },
                () = tokio::time::sleep_until(hedge_at), if !hedged => {
                    hedged = true;
                    flights.extend(places.next().map(|place| self.send(place, request)));
                }
            }
            if flights.is_empty() {
                return tally.verdict();
            }
        }
    }

    /// Tries a write once, at one endpoint.
    async fn send(&self, place: usize, request: &Request) -> (usize, Result<Txn, StoreError>) {
        const OPERATION: &str = "transaction";
        self.counts.transactions.fetch_add(1, Ordering::Relaxed);
        let connection = &self.connections[place];
        let result = match connection.put("/v1/txn", Bytes::from(request.body.clone())).await {
            Ok(answer) => match answer.status {
                StatusCode::OK => {
                    request.committed(&answer.body).map_err(|failure| failure.of_write(OPERATION))
                }
                StatusCode::CONFLICT => request.rolled_back(&answer.body),
                status => Err(refused(status, &answer.body).of_write(OPERATION)),
            },
            Err(failure) => Err(failure.of_write(OPERATION)),
        };
        (place, result.map_err(|error| at(error, &connection.endpoint)))
    }
}

/// The same error, naming the endpoint it came from.
fn at(error: StoreError, endpoint: &Endpoint) -> StoreError {
    match error {
        StoreError::Unavailable { operation, reason } => {
            StoreError::Unavailable { operation, reason: format!("{endpoint}: {reason}") }
        }
        StoreError::Unknown { operation, reason } => {
            StoreError::Unknown { operation, reason: format!("{endpoint}: {reason}") }
        }
        other @ (StoreError::Denied { .. } | StoreError::Invalid { .. } | StoreError::Malformed { .. }) => {
            other
        }
    }
}

#[async_trait]
impl Store for ConsulStore {
    async fn get(&self, key: &str, read: Read) -> Result<Option<Entry>, StoreError> {
        limits::key("read", key)?;
        self.anywhere(&format!("read {key}"), |connection| {
            self.counts.reads.fetch_add(1, Ordering::Relaxed);
            connection.read_key(key, read)
        })
        .await
    }

    async fn list(&self, prefix: &str, read: Read) -> Result<Listing, StoreError> {
        limits::prefix("list", prefix)?;
        self.anywhere(&format!("list {prefix}"), |connection| {
            self.counts.reads.fetch_add(1, Ordering::Relaxed);
            connection.read(Query { target: prefix, read, block: None })
        })
        .await
    }

    async fn watch(&self, prefix: &str, after: u64, wait: Duration) -> Result<Listing, StoreError> {
        limits::prefix_or_key("watch", prefix)?;
        let started = Instant::now();
        self.anywhere(&format!("watch {prefix}"), |connection| {
            self.counts.watches.fetch_add(1, Ordering::Relaxed);
            // The endpoint before may have used up the wait: then this one is only asked how things are.
            let left = wait.saturating_sub(started.elapsed());
            let block = (!left.is_zero()).then_some(Block { after, wait: left });
            // Stale: answered by the agent that was asked. Anything else it would forward to the leader, and
            // one forwarded just after the leader's cable was pulled hangs for half a minute.
            connection.read(Query { target: prefix, read: Read::Stale, block })
        })
        .await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<Txn, StoreError> {
        limits::transaction(&ops)?;
        if ops.is_empty() {
            return Ok(Txn::Committed { indices: Vec::new() });
        }
        let request = Request::new(&ops)?;
        self.with_rotation(|| self.send_in_turn(&request)).await
    }

    async fn txn_hedged(&self, ops: Vec<Op>, after: Duration) -> Result<Txn, StoreError> {
        limits::transaction(&ops)?;
        if ops.is_empty() {
            return Ok(Txn::Committed { indices: Vec::new() });
        }
        let request = Request::new(&ops)?;
        self.with_rotation(|| self.send_hedged(&request, after)).await
    }
}
