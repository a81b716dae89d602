//! `zsha migrate NODE`: asks the owner to move the VM live to another node, and waits for its answer. It moves nothing
//! itself; ended early, it leaves the migration under way.

use std::time::Duration;

use uuid::Uuid;
use zsha_crds::records::{Answer, Intent, NodeStatus, Outcome, VmRecord};
use zsha_crds::status::Asked;
use zsha_crds::{HaCluster, Keys, NodeName, VmName};
use zsha_runtime::Store;
use zsha_runtime::store::{Op, Read, StoreError, Txn};

use crate::live::Live;
use crate::order;
use crate::output::escape::plain;
use crate::session::{Reach, Session};
use crate::{Exit, Failure};

/// Progress is looked at this often; the end of it wakes at once.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the VM is to go: a node's host name or address
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Why, for those who read the events
    #[arg(short, long, value_name = "TEXT", default_value = "")]
    pub message: String,
    /// Ask, and do not wait for what becomes of it
    #[arg(long)]
    pub detach: bool,
}

pub async fn run(args: &Args, reach: &Reach, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let (_, keys) = reach.keys().await?;
    let store = reach.store.as_ref();
    let document = Live::read(store, &keys).await?.needed()?;
    let to = member(&document, &args.node)?;
    let (record, index) = owned(store, &keys).await?;
    let Some(from) = record.owner.as_ref().map(|owner| owner.node.clone()) else {
        let message = format!("the VM runs nowhere: {}", record.note);
        return Err(Failure::new(Exit::Refused, "NotRunning", message)
            .hint("`zsha status` says what it waits for; it is started where it can be"));
    };
    if from == to {
        session.output.tell(&format!(
            "Requested operation is not valid: domain {} is already active on {to}; nothing to do",
            VmName::management()
        ))?;
        return Ok(Exit::Success);
    }
    not_frozen(store, &keys).await?;
    let id = ask(store, &keys, &to, args, session).await?;
    session.output.line(&format!("Migrate from {from} to {to}"))?;
    if args.detach {
        session.output.tell("It is not waited for; `zsha status -w` shows how it goes.")?;
        return Ok(Exit::Success);
    }
    let answer = order::unless_interrupted(answered(store, &keys, id, index, &from, session)).await;
    order::interrupted_line(&answer, session)?;
    let answer = answer?;
    match answer.outcome {
        Outcome::Done => {
            progress(session, 100, true)?;
            session.output.line(&format!("The VM runs on {to}."))?;
            Ok(Exit::Success)
        }
        Outcome::Refused => Err(Failure::new(Exit::Refused, "Refused", answer.message)
            .hint("`zsha status` says what each node lacks")),
        Outcome::Failed => Err(Failure::new(Exit::General, "MigrationFailed", answer.message)
            .hint("the VM runs on, or was started afresh: `zsha status`; `zsha events` has the history")),
    }
}

/// The node of this name or address.
fn member(document: &HaCluster, word: &str) -> Result<NodeName, Failure> {
    let is =
        |name: &NodeName, address: std::net::Ipv4Addr| name.as_str() == word || address.to_string() == word;
    let found = document.nodes().iter().find(|node| is(&node.name, node.address));
    found.map(|node| node.name.clone()).ok_or_else(|| {
        let nodes: Vec<_> =
            document.nodes().iter().map(|node| format!("{} ({})", node.name, node.address)).collect();
        Failure::new(Exit::Usage, "NotAMember", format!("'{}' is no node of this cluster", plain(word)))
            .hint(format!("name one of {}", nodes.join(", ")))
    })
}

async fn owned(store: &dyn Store, keys: &Keys) -> Result<(VmRecord, u64), Failure> {
    let doing = "reading who owns the VM";
    let entry = store.get(&keys.vm(&VmName::management()), Read::Consistent).await;
    let entry = entry.map_err(|error| Failure::store(doing, &error))?.ok_or_else(|| {
        Failure::new(Exit::General, "NotFound", "there is no record of who owns the VM")
            .hint("see 'The ownership record is missing' in the README")
    })?;
    let record = serde_json::from_str(&entry.value).map_err(|error| {
        Failure::new(Exit::General, "LiveUnreadable", "the record of who owns the VM cannot be read")
            .cause(error.to_string())
            .hint("a newer zsha may have written it: `zsha -v` on the nodes")
    })?;
    Ok((record, entry.modify_index))
}

async fn not_frozen(store: &dyn Store, keys: &Keys) -> Result<(), Failure> {
    let entry = store.get(&keys.intent(Intent::FREEZE), Read::Consistent).await;
    let entry = entry.map_err(|error| Failure::store("reading whether the cluster is frozen", &error))?;
    match entry.map(|entry| serde_json::from_str(&entry.value)) {
        Some(Ok(Intent::Freeze { by, at, message })) => {
            Err(order::frozen(&Asked { by: &by, at, message: &message }))
        }
        _ => Ok(()),
    }
}

/// Writes the request. Sent twice it is one: it is known by its id.
async fn ask(
    store: &dyn Store,
    keys: &Keys,
    to: &NodeName,
    args: &Args,
    session: &Session<'_>,
) -> Result<Uuid, Failure> {
    let doing = "asking for the migration";
    let key = keys.intent(Intent::MIGRATE);
    let id = Uuid::new_v4();
    let intent = Intent::Migrate {
        id,
        to: to.clone(),
        by: session.who.clone(),
        at: session.clock.wall(),
        message: args.message.clone(),
    };
    let value = serde_json::to_string(&intent)
        .map_err(|error| Failure::new(Exit::General, "Unwritable", error.to_string()))?;
    loop {
        let there = store.get(&key, Read::Consistent).await.map_err(|error| Failure::store(doing, &error))?;
        let op = match there {
            Some(entry) if entry.value == value => return Ok(id),
            Some(entry) => Op::Cas { key: key.clone(), value: value.clone(), index: entry.modify_index },
            None => Op::Create { key: key.clone(), value: value.clone() },
        };
        match store.txn(vec![op]).await {
            Ok(Txn::Committed { .. }) => return Ok(id),
            Ok(Txn::Conflict { .. }) => {
                return Err(Failure::new(
                    Exit::Conflict,
                    "Conflict",
                    "somebody else asked for a migration just now",
                )
                .hint("look with `zsha status`, and ask again"));
            }
            // It may be in force: look, and send it again if not.
            Err(StoreError::Unknown { .. }) => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(Failure::store(doing, &error)),
        }
    }
}

/// Waits for the owner's word on the request, and shows how far it is.
async fn answered(
    store: &dyn Store,
    keys: &Keys,
    id: Uuid,
    mut index: u64,
    from: &NodeName,
    session: &mut Session<'_>,
) -> Result<Answer, Failure> {
    let key = keys.vm(&VmName::management());
    let mut shown = None;
    loop {
        match store.watch(&key, index, LOOK).await {
            Ok(listing) => {
                index = listing.index;
                let record =
                    listing.entries.first().map(|entry| serde_json::from_str::<VmRecord>(&entry.value));
                if let Some(Ok(record)) = record
                    && let Some(answer) = record.answered.filter(|answer| answer.id == id)
                {
                    return Ok(answer);
                }
            }
            Err(error) if error.is_transient() => tokio::time::sleep(LOOK).await,
            Err(error) => return Err(Failure::store("waiting for the migration", &error)),
        }
        let percent = percent(store, keys, from).await;
        if percent.is_some() && percent != shown {
            shown = percent;
            progress(session, percent.unwrap_or_default(), false)?;
        }
    }
}

/// As the source tells it in its status; None where it does not.
async fn percent(store: &dyn Store, keys: &Keys, from: &NodeName) -> Option<u8> {
    let entry = store.get(&keys.node_status(from), Read::Stale).await.ok()??;
    let status: NodeStatus = serde_json::from_str(&entry.value).ok()?;
    status.migrated_percent
}

/// In place on a terminal; a line each elsewhere.
fn progress(session: &mut Session<'_>, percent: u8, last: bool) -> Result<(), Failure> {
    use std::io::Write;
    let line = format!("Migration: [{percent:3} %]");
    if session.output.out_look.terminal {
        let end = if last { "\n" } else { "" };
        write!(session.output.out, "\r{line}{end}")?;
        session.output.out.flush()?;
    } else {
        session.output.line(&line)?;
    }
    Ok(())
}
