//! `zsha drain NODE`: asks for the VM to leave a node and to keep away, and looks on until it has left.

use std::time::Duration;

use async_trait::async_trait;
use zsha_crds::records::Intent;
use zsha_crds::status::{ClusterStatus, Role};
use zsha_crds::{LocalState, NodeName};

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::order::{self, Is, Order};
use crate::session::{Reach, Session};

/// The time that a drain may take: a guest with much memory and a slow network takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The VM leaves live, for the first node in line that is fit; where none is, it stays and leaves once one \
                  is. The node stays drained until `zsha uncordon NODE`, also when it is switched off and on. 124: \
                  --timeout (600s where it is not given) passed, and the drain stays asked for."
)]
pub struct Args {
    /// Which node: its host name or address
    #[arg(value_name = "NODE")]
    pub node: String,
    #[command(flatten)]
    pub order: order::Waiting,
}

#[async_trait(?Send)]
impl Run for Args {
    fn wants_json(&self) -> bool {
        self.order.common.json()
    }

    fn is_endless(&self) -> bool {
        true
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.global, beside.store()?, session).await
    }
}

async fn run(
    args: &Args,
    global: &Global,
    reach: &Reach,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let mut order = Order::begin("drain", &args.order.common, reach, session).await?;
    let node = order.of_node(&args.node)?;
    order.not_frozen()?;
    reachable(order.status(), &node)?;
    let (by, at) = (session.who.clone(), session.clock.wall());
    let drain =
        |shutdown| Intent::Drain { by: by.clone(), at, message: args.order.why.message.clone(), shutdown };
    let in_doubt = order.is_in_doubt();
    let wanted = |there: Option<&Intent>| match there {
        // What a host asks for as it shuts down ends once it has booted, and this does not. A drain that the nodes
        // are in doubt of is asked for again.
        Some(Intent::Drain { by, shutdown, .. }) if in_doubt || Intent::is_host_itself(&node, by) => {
            Some(drain(shutdown.clone()))
        }
        Some(Intent::Drain { .. }) => None,
        Some(_) | None => Some(drain(None)),
    };
    order.put_over(&Intent::drain_of(&node), wanted).await?;
    if !order.changed() {
        order.tell(session, &format!("{node} was drained already; nothing was changed."))?;
    }
    if args.order.detach {
        return order.end(false, &format!("{node} is being drained"), session);
    }
    let limit = global.timeout.unwrap_or(PATIENCE);
    let how = order.until(limit, session, |status| has_left(status, &node)).await?;
    if !order.status().protected {
        let told = format!("WARNING: {}", order.status().protection);
        order.tell(session, &told)?;
    }
    order.tell(session, &format!("`zsha uncordon {node}` lets the VM come back."))?;
    order.end(true, &how, session)
}

/// The failure for a node that does not renew its lease: there is nothing to drain, and failover decides what becomes
/// of the VM.
fn reachable(status: &ClusterStatus, node: &NodeName) -> Result<(), Failure> {
    let there = status.nodes.iter().find(|summary| summary.name == *node);
    match there {
        Some(summary) if summary.alive() => Ok(()),
        Some(summary) => {
            let why = summary.reasons.first().map_or("it does not renew its lease", String::as_str);
            Err(Failure::new(Exit::Refused, "NotReachable", format!("{node} cannot be drained now: {why}"))
                .hint("nothing was changed; a node that is down is given nothing, and `zsha status` says what it lacks"))
        }
        None => Err(order::not_a_member(status, node.as_str())),
    }
}

fn has_left(status: &ClusterStatus, node: &NodeName) -> Is {
    let vm = &status.vm;
    let here = status.node(node);
    let involved = here.is_some_and(|summary| {
        matches!(summary.role, Role::Owner | Role::MigrationTarget)
            || !matches!(summary.local_vm, LocalState::Absent | LocalState::Off | LocalState::Unknown)
    });
    if involved {
        let waiting = order::waits_for(status);
        return Is::NotYet(waiting.unwrap_or_else(|| format!("{} is still on {node}", vm.name)));
    }
    Is::So(match &vm.node {
        Some(other) => format!("{node} is drained; {} is on {other}", vm.name),
        None => format!("{node} is drained; {} runs nowhere", vm.name),
    })
}
