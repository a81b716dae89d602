//! `zsha resume`: takes a freeze back. What has gone wrong meanwhile is put right at once.

use zsha_crds::records::Intent;

use crate::order::{self, Order};
use crate::session::{Reach, Session};
use crate::{Exit, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub order: order::Common,
}

pub async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let mut order = Order::begin("resume", &args.order, reach, session).await?;
    order.put(Intent::FREEZE, &Intent::None, order::nothing).await?;
    let message = if order.changed() {
        "the cluster goes on"
    } else {
        "the cluster was not frozen; nothing was changed"
    };
    order.end(true, message, session)
}
