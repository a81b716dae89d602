//! Measures the time from the very first document to the first change of the ownership record, seen by a blocking query
//! on that record: the transaction that puts the document in force creates it without an owner, and the first node to
//! act writes one in.

use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Host};

use crate::http::{self, QUERY, RECORD};
use crate::report::Report;

const AIM: &str = "under 200 ms";

/// Applies the lab's document, for the first time in its life, and waits until the VM runs.
pub(crate) fn measure(lab: &Cluster, report: &mut Report) -> Result<()> {
    ready(lab)?;
    let witness = lab.host(1);
    let before = http::key(witness, RECORD, 0, QUERY)?;
    if before.value.is_some() {
        bail!("there is a record of ownership before the first document");
    }
    let (asked, seen) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(witness, before.index));
        let asked = Instant::now();
        let applied = lab.apply(&lab.document(), "bench: the first document");
        // Joined whatever came of the command; the watch gives up by itself.
        let seen = watch.join().map_err(|_| anyhow!("the watch on the record of ownership panicked"));
        applied.and_then(|_| Ok((asked, seen??)))
    })?;
    report.took("first document in force to first change of ownership", AIM, seen.owned - seen.in_force);
    report.took("  start of `zsha apply` to first change of ownership", "", seen.owned - asked);
    lab.running_host(FAILOVER_LIMIT)?;
    report.took("  start of `zsha apply` to VM running, by status", "", asked.elapsed());
    Ok(())
}

/// Waits until every node could act: its lease is held, its controller sees store and hypervisor.
fn ready(lab: &Cluster) -> Result<()> {
    lab.until("every node holds its lease and is ready", SETTLE_LIMIT, || {
        for host in lab.hosts() {
            http::controller(host, "/readyz")?;
            let lease = http::key(host, &format!("leases/{}", host.name), 0, QUERY)?;
            let lease = lease.value.with_context(|| format!("{} has no lease", host.name))?;
            let lease: Value = serde_json::from_str(&lease).context("decode a lease")?;
            if lease["state"] != "Held" || lease["controllerAlive"] != true {
                bail!("the lease of {} is {lease}", host.name);
            }
        }
        Ok(Some(()))
    })
}

struct Seen {
    in_force: Instant,
    owned: Instant,
}

fn watch(witness: &Host, mut index: u64) -> Result<Seen> {
    let start = Instant::now();
    let mut in_force = None;
    while start.elapsed() < FAILOVER_LIMIT {
        let sight = http::key(witness, RECORD, index, QUERY)?;
        let at = Instant::now();
        index = sight.index;
        let Some(text) = sight.value else { continue };
        let record: Value = serde_json::from_str(&text).context("decode the record of ownership")?;
        match (in_force, record["owner"].is_object()) {
            (None, false) => in_force = Some(at),
            (Some(_), false) => {}
            (Some(in_force), true) => return Ok(Seen { in_force, owned: at }),
            (None, true) => bail!("the record had an owner before it was seen without one"),
        }
    }
    bail!("nobody has claimed the VM within {FAILOVER_LIMIT:?}")
}
