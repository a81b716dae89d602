//! `zsha reset-MNVM-password`: asks the owner to give root in the guest the default password again, and waits for its
//! answer. Hidden, as in zsha 2.5.1, and refused unless the document allows it.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;
use zsha_crds::VmState;
use zsha_crds::records::{Answer, Intent, Outcome};
use zsha_crds::status::{ClusterStatus, ClusterView};
use zsha_runtime::client::document::Live;

use super::{Beside, Run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::global::Global;
use crate::order::{self, Is, Order};
use crate::session::{Reach, Session};

/// The time for an answer: the owner asks the guest's agent within a second or two, and gives up after eight.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The password is `password`, which everybody knows: change it in the guest at once. Allowed only where the \
                  document says AllowResetRootPassword. The guest's agent sets it; where that does not answer, nothing is \
                  changed. 124: --timeout (30s where it is not given) passed, and it is taken back."
)]
pub struct Args {
    #[command(flatten)]
    pub why: order::Why,
    #[command(flatten)]
    pub common: order::Common,
}

#[async_trait(?Send)]
impl Run for Args {
    fn wants_json(&self) -> bool {
        self.common.json()
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
    let mut order = Order::begin("reset-MNVM-password", &args.common, reach, session).await?;
    let document = Live::seen(order.view().spec.clone()).needed()?;
    if !document.allow_reset_root_password() {
        let message = "the document does not allow it: AllowResetRootPassword is false";
        return Err(Failure::new(Exit::Refused, "NotAllowed", message)
            .hint("set it to true with `zsha apply`, and back again afterwards"));
    }
    order.not_frozen()?;
    let node = order.of_node(owner(order.status())?.as_str())?;
    let address = order.status().node(&node).and_then(|summary| summary.address.clone()).unwrap_or_default();
    let id = Uuid::new_v4();
    let reset = Intent::ResetPassword {
        id,
        vm: order.view().vm_id().name,
        by: session.who.clone(),
        at: session.clock.wall(),
        message: args.why.message.clone(),
    };
    order.put(Intent::RESET_PASSWORD, &reset, |_| false).await?;
    order.line(session, &format!("Reset MNVM root password on {node} {address}"))?;
    let limit = global.timeout.unwrap_or(PATIENCE);
    let answered = order.until_seen(limit, session, |view, status| match answer(view, id) {
        Some(answer) => Is::So(answer.message.clone()),
        None => {
            Is::NotYet(order::waits_for(status).unwrap_or_else(|| format!("{node} has not answered yet")))
        }
    });
    if let Err(failure) = answered.await {
        let taken_back = order.put(Intent::RESET_PASSWORD, &Intent::None, order::nothing).await;
        let hint = match taken_back {
            Ok(()) => {
                "it is not asked for any more; `zsha events` says whether it was done all the same".to_owned()
            }
            Err(why) => format!("and it could not be taken back ({}): it may still be done", why.message),
        };
        return Err(Failure { hint: Some(hint), ..failure });
    }
    match answer(order.view(), id).map(|answer| (answer.outcome, answer.message.clone())) {
        Some((Outcome::Done, _)) => {
            let uuid = order.view().vm.as_ref().map(|record| record.uuid).unwrap_or_default();
            order.tell(session, "It is the default, which everybody knows: change it in the guest now.")?;
            order.end(true, &format!("Password set successfully for root in {uuid}"), session)
        }
        Some((Outcome::Refused, why)) => Err(Failure::new(Exit::Refused, "Refused", why)),
        Some((Outcome::Failed, why)) => Err(Failure::new(Exit::General, "NotSet", why)
            .hint("the guest needs qemu-guest-agent running; one that boots does not answer yet: ask again")),
        None => Err(Failure::new(Exit::General, "NotAnswered", "the answer is gone again: ask once more")),
    }
}

fn answer(view: &ClusterView, id: Uuid) -> Option<&Answer> {
    view.vm.as_ref()?.password_reset.as_ref().filter(|answer| answer.id == id)
}

fn owner(status: &ClusterStatus) -> Result<zsha_crds::NodeName, Failure> {
    let runs = status.vm.node.clone().filter(|_| status.vm.state == VmState::Running);
    runs.ok_or_else(|| {
        let message = format!("{} does not run: it is {}", status.vm.name, status.vm.state);
        Failure::new(Exit::Refused, "NotRunning", message).hint("`zsha status` says what it waits for")
    })
}
