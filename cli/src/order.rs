//! What `stop`, `start`, `drain`, `uncordon`, `freeze`, `resume`, `migrate` and `reset-MNVM-password` have in common: each writes one intent, by
//! compare-and-set, and may then look on until it has come true. The controllers carry it out.

use std::io::Write;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use zsha_crds::records::{self, Intent};
use zsha_crds::status::{Asked, ClusterStatus, ClusterView, DataAge, summarise};
use zsha_crds::{ClusterName, Keys, NodeName};
use zsha_runtime::Clock;
use zsha_runtime::store::{Op, Read, StoreError, Txn};

use crate::commands::status::look;
use crate::live;
use crate::output::escape::plain;
use crate::session::{Reach, Session};
use crate::{Exit, Failure};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// An election that cut a write off takes 2.4 to 3.9 s.
const TRIES: u32 = 6;

/// What each of them takes.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Why, for those who read the status and the events
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Form,
}

/// What those take that wait until it has come true.
#[derive(Debug, clap::Args)]
pub struct Waiting {
    #[command(flatten)]
    pub common: Common,
    /// Ask, and do not wait
    #[arg(long)]
    pub detach: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    Text,
    /// One object at the end
    Json,
}

impl Common {
    pub(crate) fn json(&self) -> bool {
        self.output == Form::Json
    }
}

/// `kind: Order`. Fields are only ever added to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    api_version: &'static str,
    kind: &'static str,
    command: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a NodeName>,
    /// Whether something is asked for that was not before.
    changed: bool,
    /// Whether it has come true already.
    done: bool,
    message: &'a str,
}

/// A command on its way, and the cluster as it was found.
pub(crate) struct Order<'a> {
    command: &'a str,
    pub(crate) keys: Keys,
    cluster: ClusterName,
    pub(crate) view: ClusterView,
    pub(crate) status: ClusterStatus,
    pub(crate) changed: bool,
    /// What was missing or could not be read, and was written all the same: a sentence.
    mended: Option<String>,
    node: Option<NodeName>,
    reach: &'a Reach,
    args: &'a Common,
}

/// How far something is that was asked for.
pub(crate) enum Is {
    /// With a sentence.
    So(String),
    /// The same by an answer to this very request, which no second look makes surer.
    Answered(String),
    /// How far it has come: a line of the result, in place on a terminal.
    Going(String),
    /// What it waits for.
    NotYet(String),
}

impl<'a> Order<'a> {
    /// Reads the cluster. Nothing is asked of one that no quorum speaks for.
    pub(crate) async fn begin(
        command: &'a str,
        args: &'a Common,
        reach: &'a Reach,
        session: &Session<'_>,
    ) -> Result<Self, Failure> {
        let (cluster, keys) = reach.keys().await?;
        let view = confirmed(command, reach, &cluster, session.clock).await?;
        if let Some(why) = view.unreadable.get(&keys.spec()) {
            return Err(live::unreadable(&keys, why.clone()));
        }
        if view.spec.is_none() {
            return Err(Failure::new(Exit::General, "NotFound", "no document has been applied")
                .hint("zsha apply -f FILE"));
        }
        let status = summarise(&view);
        Ok(Self {
            command,
            keys,
            cluster,
            view,
            status,
            changed: false,
            mended: None,
            node: None,
            reach,
            args,
        })
    }

    /// Refused while the cluster is frozen: it would wait for something that is not to be.
    pub(crate) fn not_frozen(&self) -> Result<(), Failure> {
        self.view.frozen().map_or(Ok(()), |asked| Err(frozen(&asked)))
    }

    /// Whether a node says that it does not know what is asked for: what has come back with an older state of the
    /// store counts only once it is asked for again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        let speaks = |node: &NodeName| self.status.node(node).is_some_and(|summary| summary.speaks());
        let mut statuses = self.view.node_statuses.values().filter(|status| speaks(&status.node));
        statuses.any(|status| status.orders_in_doubt().next().is_some())
    }

    /// The node of this name or address, which the document must name.
    pub(crate) fn of_node(&mut self, word: &str) -> Result<NodeName, Failure> {
        let found = self
            .status
            .nodes
            .iter()
            .filter(|node| node.address.is_some())
            .find(|node| node.name.as_str() == word || node.address.as_deref() == Some(word));
        let Some(found) = found else { return Err(not_a_member(&self.status, word)) };
        self.node = Some(found.name.clone());
        Ok(found.name.clone())
    }

    /// Writes the intent under this name, unless what is there is the same already. Sent twice it is one. Where a node is in
    /// doubt, what is there counts for nothing.
    pub(crate) async fn put(
        &mut self,
        name: &str,
        intent: &Intent,
        is_same: impl Fn(&Intent) -> bool,
    ) -> Result<(), Failure> {
        let in_doubt = self.is_in_doubt();
        let is_there = |before: Option<&Intent>| !in_doubt && before.is_some_and(&is_same);
        self.put_over(name, |before| (!is_there(before)).then(|| intent.clone())).await
    }

    /// The same, written also where it is there already: for nodes that may be in doubt, and do not say so.
    pub(crate) async fn say_again(&mut self, name: &str, intent: &Intent) -> Result<(), Failure> {
        self.write(name, |_| Some(intent.clone()), true).await
    }

    /// The same, where what is written depends on what is there, which is none where that cannot be read. Nothing is written
    /// where nothing is wanted.
    pub(crate) async fn put_over(
        &mut self,
        name: &str,
        wanted: impl Fn(Option<&Intent>) -> Option<Intent>,
    ) -> Result<(), Failure> {
        let in_doubt = self.is_in_doubt();
        self.write(name, wanted, in_doubt).await
    }

    /// `again`: also where the same is there.
    async fn write(
        &mut self,
        name: &str,
        wanted: impl Fn(Option<&Intent>) -> Option<Intent>,
        again: bool,
    ) -> Result<(), Failure> {
        let doing = format!("asking for `{}`", self.command);
        let store = self.reach.store.as_ref();
        let key = self.keys.intent(name);
        let mut in_doubt = false;
        let mut sent = false;
        for tries in 1.. {
            let there = match store.get(&key, Read::Consistent).await {
                Ok(there) => there,
                Err(error) if error.is_transient() && tries < TRIES => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Err(error) => return Err(failed(&doing, &error, in_doubt)),
            };
            let before = there.as_ref().map(|entry| stands_there(name, &entry.value));
            let wanted = match &before {
                Some(Ok(before)) => wanted(Some(before)),
                // Nobody has ever asked for anything: that is the same as what takes something back.
                None => wanted(Some(&Intent::None)),
                Some(Err(_)) => wanted(None),
            };
            let Some(intent) = wanted else { return Ok(()) };
            let is_new = match &before {
                Some(Ok(before)) => *before != intent,
                Some(Err(_)) => true,
                None => intent != Intent::None,
            };
            let mut value = serde_json::to_string(&intent)
                .map_err(|error| Failure::new(Exit::General, "Unwritable", error.to_string()))?;
            if there.as_ref().is_some_and(|entry| entry.value == value) {
                // Sent twice it is one. Said again it is another: a write of the same is none to those who watch.
                if sent || !again {
                    return Ok(());
                }
                value.push('\n');
            }
            match before {
                Some(Err(why)) => {
                    self.mended = Some(format!("{key} could not be read, and was written over: {why}"));
                }
                // It came with the first document, and no command deletes it.
                None if name == Intent::POWER => {
                    self.mended = Some(format!("{key} was missing, and was written anew"));
                }
                Some(Ok(_)) | None => {}
            }
            let op = match there {
                Some(entry) => Op::Cas { key: key.clone(), value: value.clone(), index: entry.modify_index },
                None => Op::Create { key: key.clone(), value: value.clone() },
            };
            // Before the answer: where it is lost, the next look finds it there.
            self.changed |= is_new || self.is_in_doubt();
            sent = true;
            let done = store.txn(vec![op]).await;
            in_doubt |= matches!(done, Err(StoreError::Unknown { .. }));
            match done {
                Ok(Txn::Committed { .. }) => return Ok(()),
                // It was not written, and perhaps by now there is nothing to mend.
                Ok(Txn::Conflict { .. }) if tries < TRIES => self.mended = None,
                Err(error) if error.is_transient() && tries < TRIES => tokio::time::sleep(LOOK).await,
                Ok(Txn::Conflict { .. }) => {
                    return Err(Failure::new(
                        Exit::Conflict,
                        "Conflict",
                        format!("{doing}: somebody else asks for the same or the contrary just now"),
                    )
                    .hint("look with `zsha status`, and ask again"));
                }
                Err(error) => return Err(failed(&doing, &error, in_doubt)),
            }
        }
        Ok(())
    }

    /// The manual's line for each node.
    pub(crate) fn do_for_each_node(&self, session: &mut Session<'_>) -> Result<(), Failure> {
        let addresses = self.status.nodes.iter().filter_map(|node| node.address.as_ref());
        addresses.into_iter().try_for_each(|address| self.line(session, &format!("Do for {address}")))
    }

    /// A line of the result, where it is for people.
    pub(crate) fn line(&self, session: &mut Session<'_>, text: &str) -> Result<(), Failure> {
        if !self.args.json() {
            session.output.line(text)?;
        }
        Ok(())
    }

    /// What is good to know beside the result.
    pub(crate) fn tell(&self, session: &mut Session<'_>, text: &str) -> Result<(), Failure> {
        if !self.args.json() {
            session.output.tell(text)?;
        }
        Ok(())
    }

    /// Looks on until it is so, and says what it waits for: in place on a terminal, a line for each change elsewhere.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        session: &mut Session<'_>,
        mut judge: impl FnMut(&ClusterStatus) -> Is,
    ) -> Result<String, Failure> {
        self.until_seen(limit, session, |_, status| judge(status)).await
    }

    /// The same by what lies in the store as well.
    pub(crate) async fn until_seen(
        &mut self,
        limit: Duration,
        session: &mut Session<'_>,
        judge: impl FnMut(&ClusterView, &ClusterStatus) -> Is,
    ) -> Result<String, Failure> {
        let done = unless_interrupted(self.look_until(limit, session, judge)).await;
        interrupted_line(&done, session)?;
        done
    }

    async fn look_until(
        &mut self,
        limit: Duration,
        session: &mut Session<'_>,
        mut judge: impl FnMut(&ClusterView, &ClusterStatus) -> Is,
    ) -> Result<String, Failure> {
        let until = session.clock.now() + limit;
        let mut shown = String::new();
        let mut seen_so = false;
        loop {
            let seen = look::once(self.reach.store.as_ref(), &self.cluster, session.clock).await;
            let is = match seen {
                Ok(view) if view.data_age.is_current() => {
                    self.status = summarise(&view);
                    self.view = view;
                    match (judge(&self.view, &self.status), self.view.frozen()) {
                        (Is::NotYet(_), Some(asked)) => Is::NotYet(format!("the cluster was frozen {asked}")),
                        (is, _) => is,
                    }
                }
                Ok(_) => Is::NotYet("Consul has no quorum".to_owned()),
                Err(failure) if failure.exit == Exit::Unavailable => {
                    Is::NotYet("Consul does not answer".to_owned())
                }
                Err(failure) => return Err(failure),
            };
            let waits = match is {
                // A node that has not heard of the order yet may still be about to do the contrary.
                Is::So(_) if !std::mem::replace(&mut seen_so, true) && session.clock.now() < until => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Is::So(how) | Is::Answered(how) => {
                    self.erase(session, &shown)?;
                    return Ok(how);
                }
                Is::Going(line) => {
                    self.going(session, &shown, &line)?;
                    line
                }
                Is::NotYet(waits) => {
                    let waits = plain(&waits).into_owned();
                    if waits != shown {
                        self.show(session, &waits)?;
                    }
                    waits
                }
            };
            seen_so = false;
            if session.clock.now() >= until {
                self.erase(session, &shown)?;
                let message = format!("not so within {} s: {waits}", limit.as_secs_f64());
                let hint = "it stays asked for; `zsha status -w` shows how it goes";
                return Err(Failure::new(Exit::TimedOut, "TimedOut", message).hint(hint));
            }
            shown = waits;
            tokio::time::sleep(LOOK.min(session.clock.now().until(until))).await;
        }
    }

    fn show(&self, session: &mut Session<'_>, waits: &str) -> Result<(), Failure> {
        let output = &mut session.output;
        if self.args.json() {
            return Ok(());
        }
        if output.err_look.terminal {
            write!(output.err, "\r\x1b[Kwaiting: {waits}")?;
            output.err.flush()?;
        } else {
            output.tell(&format!("waiting: {waits}"))?;
        }
        Ok(())
    }

    fn going(&self, session: &mut Session<'_>, shown: &str, line: &str) -> Result<(), Failure> {
        if line == shown {
            return Ok(());
        }
        self.erase(session, shown)?;
        let in_place = session.output.out_look.terminal && session.output.err_look.terminal;
        if in_place && !self.args.json() {
            write!(session.output.out, "\r{line}")?;
            return Ok(session.output.out.flush()?);
        }
        self.line(session, line)
    }

    fn erase(&self, session: &mut Session<'_>, shown: &str) -> Result<(), Failure> {
        if session.output.err_look.terminal && !shown.is_empty() && !self.args.json() {
            write!(session.output.err, "\r\x1b[K")?;
        }
        Ok(())
    }

    /// The end of it. `done`: it has come true.
    pub(crate) fn end(&self, done: bool, message: &str, session: &mut Session<'_>) -> Result<Exit, Failure> {
        if let Some(mended) = &self.mended {
            self.tell(session, &plain(&format!("WARNING: {mended}")))?;
        }
        if self.args.json() {
            session.output.json(&Told {
                api_version: zsha_crds::API_VERSION,
                kind: "Order",
                command: self.command,
                node: self.node.as_ref(),
                changed: self.changed,
                done,
                message,
            })?;
        } else {
            session.output.line(message)?;
        }
        Ok(Exit::Success)
    }
}

/// What is asked for under this name, as the controllers read it.
fn stands_there(name: &str, value: &str) -> Result<Intent, String> {
    let intent: Intent = records::read(value)?;
    if intent.belongs_under(name) { Ok(intent) } else { Err(Intent::MISPLACED.to_owned()) }
}

/// Looking on at what was asked for ends with Ctrl-C; what was asked for does not.
async fn unless_interrupted<T>(looking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = looking => done,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(Failure::new(Exit::Interrupted, "Interrupted", "interrupted")
                .hint("it stays asked for; `zsha status -w` shows how it goes"))
        }
    }
}

/// A line that is written over in place ends where the terminal shows `^C`.
fn interrupted_line<T>(done: &Result<T, Failure>, session: &mut Session<'_>) -> Result<(), Failure> {
    let interrupted = done.as_ref().is_err_and(|failure| failure.exit == Exit::Interrupted);
    if interrupted && session.output.err_look.terminal {
        writeln!(session.output.err)?;
    }
    Ok(())
}

/// `in_doubt`: a write went unanswered, and may be in force.
fn failed(doing: &str, error: &StoreError, in_doubt: bool) -> Failure {
    let failure = Failure::store(doing, error);
    if !in_doubt {
        return failure;
    }
    failure
        .cause("an earlier try went unanswered: it may be in force, now or in a moment")
        .hint("look with `zsha status`, then ask again: what is in force already is not written twice")
}

/// What a quorum says, as soon as one does: an election is over in a few seconds.
async fn confirmed(
    command: &str,
    reach: &Reach,
    cluster: &ClusterName,
    clock: Clock,
) -> Result<ClusterView, Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match look::once(reach.store.as_ref(), cluster, clock).await {
            Ok(view) => match &view.data_age {
                DataAge::Consistent => return Ok(view),
                DataAge::Stale { why, .. } => {
                    let message = format!("`{command}` asks nothing of a store without its quorum");
                    Failure::new(Exit::Unavailable, "StoreUnavailable", message)
                        .cause(plain(why).into_owned())
                        .hint("look at `consul operator raft list-peers`")
                }
            },
            Err(failure) => failure,
        };
        if failure.exit != Exit::Unavailable || tries == TRIES {
            return Err(failure);
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(crate) fn frozen(asked: &Asked<'_>) -> Failure {
    let message = format!("nothing is begun: the cluster was frozen {}", plain(&asked.to_string()));
    Failure::new(Exit::Refused, "Frozen", message).hint("zsha resume")
}

/// With every node that could have been meant.
pub(crate) fn not_a_member(status: &ClusterStatus, word: &str) -> Failure {
    let nodes =
        status.nodes.iter().filter_map(|node| Some(format!("{} ({})", node.name, node.address.as_ref()?)));
    let nodes: Vec<_> = nodes.collect();
    Failure::new(Exit::Usage, "NotAMember", format!("'{}' is no node of this cluster", plain(word)))
        .hint(format!("name one of {}", nodes.join(", ")))
}

/// For those who take something back: there is nothing to take back.
pub(crate) fn nothing(intent: &Intent) -> bool {
    matches!(intent, Intent::None)
}

/// What the nodes say they wait for, in one sentence; not what an order that was taken back just now still makes them
/// say.
pub(crate) fn waits_for(status: &ClusterStatus) -> Option<String> {
    let of_before = |reason: &str| ["Stopped", "Frozen"].contains(&reason);
    let first = status.waiting.iter().find(|waiting| !of_before(&waiting.reason))?;
    let nodes: Vec<_> = first.nodes.iter().map(NodeName::as_str).collect();
    Some(format!("{}: {}", nodes.join(", "), first.message))
}
