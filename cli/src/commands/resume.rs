//! `zsha resume`: takes a freeze back. What has gone wrong meanwhile is put right at once.

use async_trait::async_trait;
use zsha_crds::records::Intent;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::order::{self, Order};
use crate::session::{Reach, Session};

#[derive(Debug, clap::Args)]
pub struct Args {
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
    let mut order = Order::begin("resume", &args.order, reach, session).await?;
    order.put(Intent::FREEZE, &Intent::None, order::nothing).await?;
    let message = if order.changed() {
        "the cluster goes on"
    } else {
        "the cluster was not frozen; nothing was changed"
    };
    order.end(true, message, session)
}
