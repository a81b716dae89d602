//! `zsha uncordon NODE`: takes a drain back. The VM does not move by that.

use zsha_crds::records::Intent;

use crate::order::{self, Order};
use crate::session::{Reach, Session};
use crate::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which node: its host name or address
    #[arg(value_name = "NODE")]
    pub node: String,
    #[command(flatten)]
    pub order: order::Common,
}

pub async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let mut order = Order::begin("uncordon", &args.order, reach, session).await?;
    let node = order.of_node(&args.node)?;
    // Also where nothing is there: the nodes that saw a drain go with a restored store wait until somebody says so.
    order.say_again(&Intent::drain_of(&node), &Intent::None).await?;
    let message = if order.changed() {
        format!("{node} may be given the VM again")
    } else {
        format!("{node} was not drained; nothing was changed")
    };
    order.end(true, &message, session)
}
