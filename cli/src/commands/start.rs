//! `zsha start`: takes a stop back, forgets failed starts, and looks on until the VM runs.

use std::time::Duration;

use uuid::Uuid;
use zsha_crds::records::Intent;
use zsha_crds::status::ClusterStatus;

use crate::args::Global;
use crate::order::{self, Is, Order};
use crate::session::{Reach, Session};
use crate::{Exit, Failure};

/// A start is a matter of seconds; one that has to wait for a lease or a share takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub order: order::Waiting,
}

pub async fn run(
    args: &Args,
    global: &Global,
    reach: &Reach,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let mut order = Order::begin("start", &args.order.common, reach, session).await?;
    order.not_frozen()?;
    if let (Is::So(how), None) = (is_running(&order.status), order.view.stop_wanted()) {
        order.tell(session, "Nothing was changed.")?;
        return order.end(true, &how, session);
    }
    let start = Intent::Start {
        id: Uuid::new_v4(),
        by: session.who.clone(),
        at: session.clock.wall(),
        message: args.order.common.message.clone(),
    };
    order.put(Intent::POWER, &start, |_| false).await?;
    order.do_for_each_node(session)?;
    if args.order.detach {
        return order.end(false, "the VM is to run", session);
    }
    let how = order.until(global.timeout.unwrap_or(PATIENCE), session, is_running).await?;
    order.end(true, &how, session)
}

fn is_running(status: &ClusterStatus) -> Is {
    let vm = &status.vm;
    match (vm.state.as_str(), &vm.node) {
        ("Running", Some(node)) => Is::So(format!("{} runs on {node}", vm.name)),
        (state, _) => {
            Is::NotYet(order::waits_for(status).unwrap_or_else(|| format!("{} is {state}", vm.name)))
        }
    }
}
