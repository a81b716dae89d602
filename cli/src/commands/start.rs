//! `zsha start`: takes a stop back, forgets failed starts, and looks on until the VM runs. With a document, it first
//! starts the services of every node over SSH.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;
use zsha_crds::VmState;
use zsha_crds::records::Intent;
use zsha_crds::status::{ClusterStatus, ClusterView};

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::input;
use crate::install::told::Told;
use crate::install::{layout, login};
use crate::order::{self, Is, Order};
use crate::session::{Reach, Session};

/// A start is a matter of seconds; one that has to wait for a lease or a share takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The time for services to start. A keeper and a Consul are up at once.
const SERVICES: Duration = Duration::from_secs(60);
/// The time that Consul, started on all nodes at once, may take until it has a leader.
const LEADER: Duration = Duration::from_secs(90);
/// The pause before the store is asked again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Where Consul, keepers or controllers are down (all nodes were off, say, or their services stopped): \
                  `zsha start -c FILE` starts them over SSH on the nodes of the document, those that run staying as they \
                  are, and goes on from there."
)]
pub struct Args {
    #[command(flatten)]
    pub order: order::Waiting,
    /// Start the services over SSH first, on the nodes of this document
    #[arg(short, long = "config", value_name = "FILE")]
    pub config: Option<String>,
    /// Start from the image of the document, though the VM has last written to another disk (a snapshot, say)
    #[arg(long)]
    pub from_image: bool,
    #[command(flatten)]
    pub login: login::Args,
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
    if let Some(config) = &args.config {
        start_services(args, config, global, session).await?;
    }
    let mut order = begin(args, reach, session).await?;
    order.not_frozen()?;
    let is_settled = is_to_run(order.view()) && !order.is_in_doubt();
    if let (Is::So(how), true) = (is_running(order.status()), is_settled) {
        order.tell(session, "Nothing was changed.")?;
        return order.end(true, &how, session);
    }
    let start = Intent::Start {
        id: Uuid::new_v4(),
        vm: order.view().vm_id().name,
        by: session.who.clone(),
        at: session.clock.wall(),
        message: args.order.why.message.clone(),
        from_image: args.from_image,
    };
    order.put(Intent::POWER, &start, |_| false).await?;
    if args.config.is_none() {
        order.do_for_each_node(session)?;
    }
    if args.order.detach {
        return order.end(false, "the VM is to run", session);
    }
    let how = order.until(global.timeout.unwrap_or(PATIENCE), session, is_running).await?;
    order.end(true, &how, session)
}

/// Begins the order. After services were started just now, it waits until Consul has a leader and has read its log.
async fn begin<'a>(
    args: &'a Args,
    reach: &'a Reach,
    session: &mut Session<'_>,
) -> Result<Order<'a>, Failure> {
    let until = session.clock.now() + LEADER;
    loop {
        match Order::begin("start", &args.order.common, reach, session).await {
            Err(failure) if args.config.is_some() && may_be_starting(&failure) => {
                if session.clock.now() >= until {
                    return Err(failure);
                }
                session.clock.sleep_until(session.clock.now() + AGAIN).await;
            }
            Err(failure) if failure.exit == Exit::Unavailable => {
                return Err(failure.hint(
                    "is Consul down on the nodes? `zsha start -c FILE` starts it, and zsha's services, over SSH",
                ));
            }
            other => return other,
        }
    }
}

/// True if Consul may still be starting: a server that has not read its log yet knows no token.
fn may_be_starting(failure: &Failure) -> bool {
    failure.exit == Exit::Unavailable || failure.is_of_an_unknown_token()
}

/// Starts the services of all nodes. Where one cannot be reached nothing is started, as with `install`.
async fn start_services(
    args: &Args,
    config: &str,
    global: &Global,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let json = args.order.common.json();
    let told = Told { json };
    let document = input::document(config, global.cluster.as_ref(), None, session).await?.cluster;
    let login = args.login.login(told, session)?;
    let remotes = login::connect(&document, &login).await?;
    for node in document.nodes() {
        let Some(remote) = remotes.get(&node.name) else { continue };
        if !json {
            session.output.line(&format!("Do for {}", node.address))?;
        }
        remote.run(&start_script(), &[], SERVICES).await.map_err(|error| {
            Failure::new(
                Exit::General,
                "NodeFailed",
                format!("{} {}: its services do not start", node.address, node.name),
            )
            .cause(error.to_string())
            .hint("`systemctl status consul zsha-keeper zsha-controller` there; then run this again")
        })?;
    }
    Ok(())
}

/// The script that starts a node's services. It leaves alone what runs. A Consul that is not a unit of this name is
/// somebody else's to start.
fn start_script() -> String {
    let [keeper, controller] = layout::SERVICES;
    let (consul, host) = (layout::CONSUL_SERVICE, layout::HOST_SERVICE);
    format!(
        "set -e\n! systemctl cat {consul} >/dev/null 2>&1 || systemctl start {consul}\n\
         systemctl start {keeper}\nsystemctl start {controller}\nsystemctl start {host}"
    )
}

/// True if the store says that the VM is to run. Where the order cannot be read, the controllers begin nothing, even
/// after the VM has ended; so it is false then, and a start is written although the VM runs.
fn is_to_run(view: &ClusterView) -> bool {
    matches!(view.intents.get(Intent::POWER), Some(Intent::Start { .. } | Intent::None))
}

fn is_running(status: &ClusterStatus) -> Is {
    let vm = &status.vm;
    match (vm.state, &vm.node) {
        (VmState::Running, Some(node)) => Is::So(format!("{} runs on {node}", vm.name)),
        (state, _) => {
            Is::NotYet(order::waits_for(status).unwrap_or_else(|| format!("{} is {state}", vm.name)))
        }
    }
}

#[cfg(test)]
mod tests {
    use zsha_runtime::store::StoreError;

    use super::*;

    #[test]
    fn a_consul_that_was_started_just_now_may_have_no_leader_and_know_no_token_yet() {
        let denied = |reason: &str| {
            let denied =
                StoreError::Denied { operation: "read zsha/c/spec".to_owned(), reason: reason.to_owned() };
            Failure::store("reading the status", &denied)
        };
        let leaderless =
            StoreError::Unavailable { operation: "read".to_owned(), reason: "No cluster leader".to_owned() };
        assert!(may_be_starting(&Failure::store("reading the status", &leaderless)));
        let unknown = denied("ACL not found");
        assert!(
            may_be_starting(&unknown) && unknown.hint.as_ref().is_some_and(|hint| hint.contains("ask again"))
        );
        assert!(!may_be_starting(&denied("Permission denied: token with AccessorID 'x' lacks permission")));
        assert!(!may_be_starting(&Failure::usage("no such node")));
    }
}
