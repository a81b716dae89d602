//! `zsha freeze`: asks for nothing to be begun. What is under way is finished; leases are kept and obeyed as ever.

use async_trait::async_trait;
use zsha_crds::records::{Intent, VmPhase};

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::order::{self, Order};
use crate::session::{Reach, Session};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "While frozen the VM is not started, stopped, moved or taken over, whatever happens to it: it is not \
                  protected. A node that loses its lease still ends its copy, since others may not be frozen for ever."
)]
pub struct Args {
    #[command(flatten)]
    pub why: order::Why,
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
    let mut order = Order::begin("freeze", &args.order, reach, session).await?;
    let freeze = Intent::Freeze {
        by: session.who.clone(),
        at: session.clock.wall(),
        message: args.why.message.clone(),
    };
    order.put(Intent::FREEZE, &freeze, |there| matches!(there, Intent::Freeze { .. })).await?;
    let vm = &order.status().vm;
    let under_way = match (&vm.migrating_to, vm.phase) {
        (Some(to), _) => Some(format!("{} is being moved to {to}", vm.name)),
        (None, Some(VmPhase::Starting)) => Some(format!("{} is being started", vm.name)),
        (None, _) => None,
    };
    if let Some(what) = under_way {
        order.tell(session, &format!("{what}: that is finished first."))?;
    }
    let message = if order.changed() {
        "the cluster is frozen: the VM is not protected until `zsha resume`"
    } else {
        "the cluster was frozen already; nothing was changed"
    };
    order.end(true, message, session)
}
