//! All nodes of a document at once: connected to, looked at and judged before anything is done on any.

use std::collections::BTreeMap;

use futures::future::join_all;
use zsha_crds::document::Node;
use zsha_crds::{HaCluster, NodeName};
use zsha_runtime::Clock;

use super::facts::{self, Facts};
use super::login::{self, Remotes};
use super::preflight::{self, Objection, Wish};
use super::ssh::SshError;
use super::told::Told;
use super::waits::SHORT;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::session::Session;

/// Each of them, and what it says of itself.
pub(crate) struct Nodes {
    pub(crate) remotes: Remotes,
    pub(crate) facts: BTreeMap<NodeName, Facts>,
}

impl Nodes {
    pub(crate) async fn open(
        document: &HaCluster,
        ports: &[u16],
        login: &login::Args,
        told: Told,
        session: &mut Session<'_>,
    ) -> Result<Self, Failure> {
        let login = login.login(told, session)?;
        let remotes = login::connect(document, &login).await?;
        told.line(session, None, "All nodes connect success.")?;
        let facts = look(document, &remotes, ports, session.clock).await?;
        Ok(Self { remotes, facts })
    }

    /// Tells what was found of each node; an error where one of them cannot be in the cluster.
    pub(crate) fn judge(
        &self,
        wish: &Wish<'_>,
        told: Told,
        session: &mut Session<'_>,
    ) -> Result<(), Failure> {
        let document = wish.document;
        let mut objections = Vec::new();
        let compared = preflight::compare(document, wish.choice, &self.facts);
        for node in document.nodes() {
            let Some(facts) = self.facts.get(&node.name) else { continue };
            let checked = preflight::check(wish, node, facts);
            for line in &checked.lines {
                told.line(session, Some(node), line)?;
            }
            for remark in checked.remarks.iter().chain(compared.remarks.get(&node.name).into_iter().flatten())
            {
                told.remark(session, Some(node), remark)?;
            }
            told.gap(session)?;
            objections.extend(checked.objections);
        }
        objections.extend(compared.objections);
        objections.extend(preflight::one_consul(&self.facts));
        objections.extend(preflight::strange_servers(document, &self.facts));
        objections.extend(preflight::ceph(document, &self.facts, wish.choice));
        refused(document, &objections, "not every node is fit, and nothing was done on any")
    }
}

/// An error with each of these, if there are any.
fn refused(document: &HaCluster, objections: &[Objection], message: &str) -> Result<(), Failure> {
    let Some(first) = objections.first() else { return Ok(()) };
    let one_hint = objections.iter().all(|one| one.hint == first.hint);
    let shown = |one: &Objection| {
        let address = document.node(&one.node).map(|node| node.address.to_string()).unwrap_or_default();
        let hint = if one_hint { String::new() } else { format!(". To do: {}", one.hint) };
        format!("{address} {}: {}{hint}", one.node, one.what)
    };
    let failure = Failure::new(Exit::General, "NotFit", message);
    let failure = objections.iter().fold(failure, |failure, one| failure.cause(shown(one)));
    Err(failure.hint(if one_hint {
        &first.hint
    } else {
        "do what is said with each, and run this once more"
    }))
}

/// Looks at every node once more: what was stopped meanwhile may have started a VM, or left one running.
pub(crate) async fn no_second_copy(
    document: &HaCluster,
    remotes: &Remotes,
    clock: Clock,
) -> Result<(), Failure> {
    let facts = look(document, remotes, &[], clock).await?;
    let of = |node: &Node| facts.get(&node.name).map(|facts| preflight::second_copies(document, node, facts));
    let objections: Vec<_> = document.nodes().iter().filter_map(of).flatten().collect();
    refused(
        document,
        &objections,
        "the services of zsha 2.5.1 are stopped, and zsha's own were not started on any node",
    )
}

async fn look(
    document: &HaCluster,
    remotes: &Remotes,
    ports: &[u16],
    clock: Clock,
) -> Result<BTreeMap<NodeName, Facts>, Failure> {
    let script = facts::script(document, ports);
    let one = |node: &Node| {
        let (node, script) = (node.clone(), script.as_str());
        async move {
            let Some(remote) = remotes.get(&node.name) else {
                return (node, Err(SshError::Lost.to_string()));
            };
            let from = clock.wall().as_second();
            let printed = remote.run(script, &[], SHORT).await.map_err(|error| error.to_string());
            let facts = printed.and_then(|all| facts::parse(&all.text()).map_err(|error| error.to_string()));
            let asked = Some(from..=clock.wall().as_second());
            (node, facts.map(|facts| Facts { asked, ..facts }))
        }
    };
    let mut all = BTreeMap::new();
    for (node, facts) in join_all(document.nodes().iter().map(one)).await {
        let facts = facts.map_err(|why| {
            let message = format!("{} {} cannot be looked at", node.address, node.name);
            Failure::new(Exit::General, "NotSeen", message).cause(why)
        })?;
        all.insert(node.name, facts);
    }
    Ok(all)
}
