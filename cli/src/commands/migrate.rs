//! `zsha migrate NODE`: asks the owner to move the VM live to another node, and waits for its answer. It moves nothing
//! itself; ended early, it leaves the migration under way.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;
use zsha_crds::NodeName;
use zsha_crds::records::{Answer, Intent, Outcome, VmRecord};
use zsha_crds::status::{ClusterView, Observed};

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::order::{self, Is, Order};
use crate::session::{Reach, Session};

/// A guest with much memory and a slow network takes minutes; the owner itself gives one up that does not end.
const PATIENCE: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The VM goes on all the while, and stays where it is if the move fails. Ended early, by Ctrl-C too, the move goes \
                  on. 124: --timeout (1h where it is not given) passed."
)]
pub struct Args {
    /// Where the VM is to go: a node's host name or address
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
    let mut order = Order::begin("migrate", &args.order.common, reach, session).await?;
    let to = order.of_node(&args.node)?;
    let record = owned(order.view())?;
    let Some(from) = record.owner.as_ref().map(|owner| owner.node.clone()) else {
        let message = format!("the VM runs nowhere: {}", record.note);
        return Err(Failure::new(Exit::Refused, "NotRunning", message)
            .hint("`zsha status` says what it waits for; it is started where it can be"));
    };
    if from == to {
        let name = &record.name;
        let told = format!("Requested operation is not valid: domain {name} is already active on {to}");
        order.tell(session, &format!("{told}; nothing to do"))?;
        return if args.order.common.json() { order.end(true, &told, session) } else { Ok(Exit::Success) };
    }
    order.not_frozen()?;
    let id = Uuid::new_v4();
    let migrate = Intent::Migrate {
        id,
        vm: record.name.clone(),
        to: to.clone(),
        by: session.who.clone(),
        at: session.clock.wall(),
        message: args.order.why.message.clone(),
    };
    // Each is a request of its own, and known by its id.
    order.put(Intent::MIGRATE, &migrate, |_| false).await?;
    order.line(session, &format!("Migrate from {from} to {to}"))?;
    if args.order.detach {
        order.tell(session, "It is not waited for; `zsha status -w` shows how it goes.")?;
        let told = format!("the VM is to move from {from} to {to}");
        return if args.order.common.json() { order.end(false, &told, session) } else { Ok(Exit::Success) };
    }
    let limit = global.timeout.unwrap_or(PATIENCE);
    order
        .until_seen(limit, session, |view, status| match answer(view, id) {
            Some(answer) => Is::Answered(answer.message.clone()),
            None => match (percent(view, &from), order::waits_for(status)) {
                (None, Some(waits)) => Is::NotYet(waits),
                (percent, _) => Is::Going(progress(percent.unwrap_or_default())),
            },
        })
        .await?;
    match answer(order.view(), id).map(|answer| (answer.outcome, answer.message.clone())) {
        Some((Outcome::Done, _)) => {
            order.line(session, &progress(100))?;
            order.end(true, &format!("The VM runs on {to}."), session)
        }
        Some((Outcome::Refused, why)) => {
            Err(Failure::new(Exit::Refused, "Refused", why).hint("`zsha status` says what each node lacks"))
        }
        Some((Outcome::Failed, why)) => Err(Failure::new(Exit::General, "MigrationFailed", why)
            .hint("the VM runs on, or was started afresh: `zsha status`; `zsha events` has the history")),
        None => Err(Failure::new(
            Exit::General,
            "NotAnswered",
            "the answer is gone again: look with `zsha status`",
        )),
    }
}

fn owned(view: &ClusterView) -> Result<&VmRecord, Failure> {
    match view.ownership() {
        Observed::Present(record) => Ok(record),
        Observed::Absent => {
            Err(Failure::new(Exit::General, "NotFound", "there is no record of who owns the VM")
                .hint("see 'The ownership record is missing' in docs/3am.md"))
        }
        Observed::Unreadable(why) => {
            let message = "the record of who owns the VM cannot be read";
            Err(Failure::new(Exit::General, "LiveUnreadable", message)
                .cause(why.to_owned())
                .hint(
                    "a newer zsha may have written it: `zsha -v` on the nodes. If none has, see 'The ownership record \
                     cannot be read' in docs/3am.md",
                ))
        }
    }
}

/// The owner's answer to this request.
fn answer(view: &ClusterView, id: Uuid) -> Option<&Answer> {
    view.vm.as_ref()?.answered.as_ref().filter(|answer| answer.id == id)
}

/// The progress that the source tells in its status; None where it tells none.
fn percent(view: &ClusterView, from: &NodeName) -> Option<u8> {
    view.here(from).migrated_percent
}

/// The manual's line.
fn progress(percent: u8) -> String {
    format!("Migration: [{percent:3} %]")
}
