//! `zsha stop`: asks for the VM to be shut down and to stay so, and looks on until it is. Consul and zsha go on.

use std::time::Duration;

use async_trait::async_trait;
use zsha_crds::VmState;
use zsha_crds::records::Intent;
use zsha_crds::status::ClusterStatus;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::order::{self, Is, Order};
use crate::session::{Reach, Session};

/// The time that the controllers give the guest where the document sets none.
const GUEST: Duration = Duration::from_secs(120);
/// The time to end the VM after that, and to see that it has ended.
const BESIDE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The guest is asked to power off, and ended when --timeout is over (120s where it is not given; 0 ends it \
                  at once). The VM stays stopped until `zsha start`, also over a power cycle of all nodes."
)]
pub struct Args {
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
    let mut order = Order::begin("stop", &args.order.common, reach, session).await?;
    order.not_frozen()?;
    let timeout_seconds = global.timeout.map(whole_seconds);
    let stop = Intent::Stop {
        vm: order.view().vm_id().name,
        by: session.who.clone(),
        at: session.clock.wall(),
        message: args.order.why.message.clone(),
        timeout_seconds,
    };
    let is_same = |there: &Intent| match there {
        Intent::Stop { timeout_seconds: before, .. } => {
            timeout_seconds.is_none() || *before == timeout_seconds
        }
        _ => false,
    };
    order.put(Intent::POWER, &stop, is_same).await?;
    if !order.changed() {
        order.tell(session, "The VM was to be stopped already; nothing was changed.")?;
    }
    order.line(session, "start shutdown cluster")?;
    order.do_for_each_node(session)?;
    if args.order.detach {
        return order.end(false, "the VM is being shut down", session);
    }
    let limit = global.timeout.unwrap_or(GUEST) + BESIDE;
    order.until(limit, session, is_stopped).await?;
    order.tell(session, "The VM stays stopped until `zsha start`; Consul and zsha go on running.")?;
    order.end(true, "shutdown cluster finished", session)
}

/// Rounds up: the guest is never given less than was asked for.
fn whole_seconds(limit: Duration) -> u64 {
    limit.as_secs() + u64::from(limit.subsec_nanos() > 0)
}

fn is_stopped(status: &ClusterStatus) -> Is {
    let vm = &status.vm;
    match (vm.state, &vm.node) {
        (VmState::Stopped | VmState::PoweredOff | VmState::Failed, None) => Is::So(vm.state.to_string()),
        (state, Some(node)) => {
            let why = order::waits_for(status).unwrap_or_else(|| format!("{} is {state} on {node}", vm.name));
            Is::NotYet(why)
        }
        (state, None) => Is::NotYet(format!("{} is {state}", vm.name)),
    }
}
