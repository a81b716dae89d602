//! `zsha uncordon NODE`: takes a drain back. The VM does not move by that.

use async_trait::async_trait;
use zsha_crds::records::Intent;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::order::{self, Order};
use crate::session::{Reach, Session};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which node: its host name or address
    #[arg(value_name = "NODE")]
    pub node: String,
    #[command(flatten)]
    pub order: order::Common,
}

#[async_trait(?Send)]
impl Run for Args {
    fn wants_json(&self) -> bool {
        self.order.json()
    }

    async fn run(&self, beside: Beside<'_>, session: &mut Session<'_>) -> Result<Exit, Failure> {
        run(self, beside.store()?, session).await
    }
}

async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
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
