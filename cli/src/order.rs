//! What `stop`, `start`, `drain`, `uncordon`, `freeze`, `resume`, `migrate` and `reset-MNVM-password` have in common for
//! whoever types them: flags, lines and the result. What an order is stands in `zsha_runtime::client`.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use zsha_crds::records::Intent;
use zsha_crds::status::{Asked, ClusterStatus, ClusterView};
use zsha_crds::{Keys, NodeName};
use zsha_runtime::client::order as client;
pub(crate) use zsha_runtime::client::until::{Is, waits_for};
use zsha_runtime::client::until::{Progress, Until, UntilError};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::failure::client::{STAYS, of_begin, of_intent};
use crate::output::Output;
use crate::output::escape::plain;
use crate::output::form::{self, Form};
use crate::session::{Reach, Session};

/// The flags that every order takes.
#[derive(Debug, clap::Args)]
pub struct Common {
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    #[arg(value_parser = form::text_or_json("One object at the end"))]
    pub output: Form,
}

/// The reason of an order that is kept. What takes an order back keeps nothing.
#[derive(Debug, clap::Args)]
pub struct Why {
    /// Why, for those who read the status and the events
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
}

/// The flags of those orders that wait until what they ask for has come true.
#[derive(Debug, clap::Args)]
pub struct Waiting {
    #[command(flatten)]
    pub why: Why,
    #[command(flatten)]
    pub common: Common,
    /// Ask, and do not wait
    #[arg(long)]
    pub detach: bool,
}

impl Common {
    pub(crate) fn json(&self) -> bool {
        self.output.is_json()
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
    /// True if something is asked for that was not asked for before.
    changed: bool,
    /// True if what is asked for has come true.
    done: bool,
    message: &'a str,
}

/// A command that gives an order.
pub(crate) struct Order<'a> {
    command: &'a str,
    args: &'a Common,
    node: Option<NodeName>,
    order: client::Order,
}

impl<'a> Order<'a> {
    /// Reads the cluster. Nothing is asked of one that no quorum speaks for.
    pub(crate) async fn begin(
        command: &'a str,
        args: &'a Common,
        reach: &'a Reach,
        session: &Session<'_>,
    ) -> Result<Self, Failure> {
        let cluster = reach.cluster().await?;
        let keys = Keys::new(&cluster);
        let begun = client::Order::begin(reach.store.clone(), cluster, session.clock).await;
        let order = begun.map_err(|error| of_begin(error, command, &keys))?;
        Ok(Self { command, args, node: None, order })
    }

    /// The cluster as it was last seen.
    pub(crate) fn view(&self) -> &ClusterView {
        &self.order.view
    }

    /// The status of what was last seen.
    pub(crate) fn status(&self) -> &ClusterStatus {
        &self.order.status
    }

    /// True if something is asked for that was not asked for before.
    pub(crate) fn changed(&self) -> bool {
        self.order.changed
    }

    /// True if a node says that it does not know what is asked for.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.order.is_in_doubt()
    }

    /// Refused while the cluster is frozen: it would wait for something that is not to be.
    pub(crate) fn not_frozen(&self) -> Result<(), Failure> {
        self.view().frozen().map_or(Ok(()), |asked| Err(frozen(&asked)))
    }

    /// The node of this name or address, which the document must name.
    pub(crate) fn of_node(&mut self, word: &str) -> Result<NodeName, Failure> {
        let Some(node) = self.order.member(word).cloned() else {
            return Err(not_a_member(self.status(), word));
        };
        self.node = Some(node.clone());
        Ok(node)
    }

    /// Writes the intent under this name, unless what is there is the same already; see [`client::Order::put`].
    pub(crate) async fn put(
        &mut self,
        name: &str,
        intent: &Intent,
        is_same: impl Fn(&Intent) -> bool,
    ) -> Result<(), Failure> {
        self.order.put(name, intent, is_same).await.map_err(|error| of_intent(error, self.command))
    }

    /// Writes the intent also where it is there already; see [`client::Order::say_again`].
    pub(crate) async fn say_again(&mut self, name: &str, intent: &Intent) -> Result<(), Failure> {
        self.order.say_again(name, intent).await.map_err(|error| of_intent(error, self.command))
    }

    /// Writes what `wanted` makes of what is there; see [`client::Order::put_over`].
    pub(crate) async fn put_over(
        &mut self,
        name: &str,
        wanted: impl Fn(Option<&Intent>) -> Option<Intent>,
    ) -> Result<(), Failure> {
        self.order.put_over(name, wanted).await.map_err(|error| of_intent(error, self.command))
    }

    /// The manual's line for each node.
    pub(crate) fn do_for_each_node(&self, session: &mut Session<'_>) -> Result<(), Failure> {
        let mut addresses = self.status().nodes.iter().filter_map(|node| node.address.as_ref());
        addresses.try_for_each(|address| self.line(session, &format!("Do for {address}")))
    }

    /// A line of the result, where it is for people.
    pub(crate) fn line(&self, session: &mut Session<'_>, text: &str) -> Result<(), Failure> {
        if !self.args.json() {
            session.output.line(text)?;
        }
        Ok(())
    }

    /// Prints something that is good to know beside the result.
    pub(crate) fn tell(&self, session: &mut Session<'_>, text: &str) -> Result<(), Failure> {
        if !self.args.json() {
            session.output.tell(text)?;
        }
        Ok(())
    }

    /// Goes on looking until it has come true, and says what it waits for: in place on a terminal, by a line for each
    /// change elsewhere.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        session: &mut Session<'_>,
        mut judge: impl FnMut(&ClusterStatus) -> Is,
    ) -> Result<String, Failure> {
        self.until_seen(limit, session, |_, status| judge(status)).await
    }

    /// Does the same, and judges by the stored records as well as by the status.
    pub(crate) async fn until_seen(
        &mut self,
        limit: Duration,
        session: &mut Session<'_>,
        judge: impl FnMut(&ClusterView, &ClusterStatus) -> Is,
    ) -> Result<String, Failure> {
        let until = self.order.until(limit, judge);
        let progress = Shown { json: self.args.json(), text: String::new() };
        let done = unless_interrupted(progress.until(until, &mut session.output)).await;
        interrupted_line(&done, session)?;
        done
    }

    /// Ends the command with its result. `done`: what was asked for has come true.
    pub(crate) fn end(&self, done: bool, message: &str, session: &mut Session<'_>) -> Result<Exit, Failure> {
        if let Some(mended) = &self.order.mended {
            self.tell(session, &plain(&format!("WARNING: {mended}")))?;
        }
        if self.args.json() {
            session.output.json(&Told {
                api_version: zsha_crds::API_VERSION,
                kind: "Order",
                command: self.command,
                node: self.node.as_ref(),
                changed: self.changed(),
                done,
                message,
            })?;
        } else {
            session.output.line(message)?;
        }
        Ok(Exit::Success)
    }
}

/// The progress of an order as it was last shown to the person who waits for it.
struct Shown {
    /// True where the result is for a machine: nothing is shown meanwhile.
    json: bool,
    /// The last line; empty where there is none.
    text: String,
}

impl Shown {
    async fn until<J>(mut self, mut until: Until<'_, J>, output: &mut Output<'_>) -> Result<String, Failure>
    where
        J: FnMut(&ClusterView, &ClusterStatus) -> Is,
    {
        loop {
            match until.next().await {
                Ok(Progress::Done(how)) => {
                    self.erase(output)?;
                    return Ok(how);
                }
                Ok(Progress::Going(line)) => self.going(line, output)?,
                Ok(Progress::NotYet(waits)) => self.waits(plain(&waits).into_owned(), output)?,
                Err(error) => {
                    if matches!(error, UntilError::TimedOut { .. }) {
                        self.erase(output)?;
                    }
                    return Err(error.into());
                }
            }
        }
    }

    fn waits(&mut self, waits: String, output: &mut Output<'_>) -> Result<(), Failure> {
        if !self.json && waits != self.text {
            if output.err_look.terminal {
                write!(output.err, "\r\x1b[Kwaiting: {waits}")?;
                output.err.flush()?;
            } else {
                output.tell(&format!("waiting: {waits}"))?;
            }
        }
        self.text = waits;
        Ok(())
    }

    fn going(&mut self, line: String, output: &mut Output<'_>) -> Result<(), Failure> {
        if !self.json && line != self.text {
            self.erase(output)?;
            if output.out_look.terminal && output.err_look.terminal {
                write!(output.out, "\r{line}")?;
                output.out.flush()?;
            } else {
                output.line(&line)?;
            }
        }
        self.text = line;
        Ok(())
    }

    fn erase(&self, output: &mut Output<'_>) -> Result<(), Failure> {
        if output.err_look.terminal && !self.text.is_empty() && !self.json {
            write!(output.err, "\r\x1b[K")?;
        }
        Ok(())
    }
}

/// Looking on at what was asked for ends with Ctrl-C; what was asked for does not.
async fn unless_interrupted<T>(looking: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        done = looking => done,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            Err(Failure::new(Exit::Interrupted, "Interrupted", "interrupted")
                .hint(STAYS))
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

pub(crate) fn frozen(asked: &Asked<'_>) -> Failure {
    let message = format!("the cluster is frozen ({}), so this was not begun", plain(&asked.to_string()));
    Failure::new(Exit::Refused, "Frozen", message).hint("zsha resume")
}

/// The refusal of a word that names no node; its hint names every node that could have been meant.
pub(crate) fn not_a_member(status: &ClusterStatus, word: &str) -> Failure {
    let nodes =
        status.nodes.iter().filter_map(|node| Some(format!("{} ({})", node.name, node.address.as_ref()?)));
    let nodes: Vec<_> = nodes.collect();
    Failure::new(Exit::Usage, "NotAMember", format!("'{}' is not a node of this cluster", plain(word)))
        .hint(format!("name one of {}", nodes.join(", ")))
}

/// True if there is nothing to take back.
pub(crate) fn nothing(intent: &Intent) -> bool {
    matches!(intent, Intent::None)
}
