//! Measures the time from the loss of the owner's power to the VM running on another node, beside the bound that the
//! product computes, and where the time goes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Host, wait};

use crate::http::{self, RECORD};
use crate::report::Report;
use crate::restart::{Back, Sessions};

pub(crate) fn measure(lab: &Cluster, profile: &str, rounds: u64, report: &mut Report) -> Result<()> {
    for round in 1..=rounds {
        let owner = lab.settled(SETTLE_LIMIT)?;
        let bound = lab.failover_bound()?;
        let leads = lab.consul_leader()?.name == owner.name;
        let (claimed, back) = one(lab, owner)?;
        let aim = format!("at most {:.2} s, the bound in status", bound.as_secs_f64());
        report.took(&format!("failover, {profile}: power loss to running"), &aim, back.running);
        report.took(&format!("  {profile}: power loss to claimed by another"), "", claimed);
        let asked = back.process.saturating_sub(claimed);
        report.took(&format!("  {profile}: claimed to new process"), "", asked);
        let start = back.running.saturating_sub(back.process);
        report.took(&format!("  {profile}: new process to running"), "", start);
        let leader = if leads { "Consul's leader" } else { "not Consul's leader" };
        let (from, to, took) = (&owner.name, &back.host, back.running);
        report.note(format!("{profile}, round {round}: from {from}, {leader}, to {to} in {took:.2?}"));
        owner.power_on()?;
        lab.settled(SETTLE_LIMIT)?;
    }
    Ok(())
}

/// Measures one failover. The owner is off after it.
fn one(lab: &Cluster, owner: &Host) -> Result<(Duration, Back)> {
    let witnesses: Vec<&Host> = lab.others(owner).collect();
    let mut sessions = Sessions::open(lab)?;
    thread::scope(|scope| {
        let watches: Vec<_> = witnesses
            .into_iter()
            .map(|witness| scope.spawn(|| claimed_by_another(witness, &owner.name)))
            .collect();
        let cut = owner.power_off()?;
        let back = sessions.back(lab, cut);
        let seen = watches.into_iter().map(|watch| {
            watch.join().map_err(|_| anyhow!("the watch on the record of ownership panicked"))?
        });
        let first = seen.collect::<Result<Vec<_>>>()?.into_iter().min().context("no other host is on")?;
        Ok((first.saturating_duration_since(cut), back?))
    })
}

/// The moment when the ownership record named another owner in the agent's own copy of it, to about 20 ms. Asked any
/// other way, the agent would pass the question on to a leader that may be the host which is off.
fn claimed_by_another(witness: &Host, owner: &str) -> Result<Instant> {
    let mut index = 0;
    wait::until("another node claims the VM", FAILOVER_LIMIT, || {
        let sight = http::stale_key(witness, RECORD, index, http::QUERY)?;
        index = sight.index;
        let record: Value = serde_json::from_str(&sight.value.context("there is no record of ownership")?)?;
        let now = record["owner"]["node"].as_str();
        Ok(now.filter(|now| *now != owner).map(|_| Instant::now()))
    })
}
