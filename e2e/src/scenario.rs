//! The limits of waiting that scenarios share, and the line that holds a measured time beside its bound.

use std::time::{Duration, Instant};

use crate::{Cluster, Host};
use anyhow::{Result, bail, ensure};

pub const SECOND: Duration = Duration::from_secs(1);
/// The time for which a failover is waited for before a test gives up. It is far above every profile's bound, so that a
/// late failover is reported with its time.
pub const FAILOVER_LIMIT: Duration = Duration::from_secs(60);
/// The time from power on, Consul's first election included, to a running QEMU.
pub const RESTART_LIMIT: Duration = Duration::from_secs(90);
/// The time until every node that is on is ready again.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// The time within which a guest under emulation boots, and answers its agent.
pub const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// A lab of three nodes, with the VM on one of them and a guest that answers.
pub fn booted_lab() -> Result<Cluster> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    let owner = lab.start_vm()?;
    lab.until("the guest's agent answers", BOOT_LIMIT, || owner.guest_up().map(Some))?;
    lab.settled(SETTLE_LIMIT)?;
    Ok(lab)
}

/// The instant from which something is measured.
pub fn now() -> Instant {
    Instant::now()
}

/// The number of times that each scenario is measured: `ZSHA_E2E_ROUNDS`, by default 5.
pub fn rounds() -> usize {
    std::env::var("ZSHA_E2E_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

/// True if `ZSHA_E2E_FIGURES` is `judge`, as `make e2e` has it: a scenario that is measured has the machine for itself,
/// and its bound is held against it.
pub fn figures_are_judged() -> bool {
    std::env::var("ZSHA_E2E_FIGURES").is_ok_and(|figures| figures == "judge")
}

/// Prints the measured time beside the bound. A time over it is an error where figures are judged, and a line to read
/// where they are not: how fast a busy machine starts QEMU is no fault of what is tested. That a recovery happens at
/// all, once and in the right place, is judged everywhere.
pub fn within_bound(profile: &str, what: &str, took: Duration, bound: Duration) -> Result<()> {
    let over = if took <= bound { "" } else { ", OVER THE BOUND" };
    println!("{profile}: {what}: runs again after {took:.2?} (bound {bound:.2?}){over}");
    ensure!(!figures_are_judged() || took <= bound, "{what} took {took:?}, the product promises {bound:?}");
    Ok(())
}

/// Takes Consul's leadership from hosts that are not `wanted` until it has it.
pub fn consul_leader_becomes(lab: &Cluster, wanted: &Host) -> Result<()> {
    const TRIES: usize = 20;
    for _ in 0..TRIES {
        let leader = lab.until("Consul has a leader", FAILOVER_LIMIT, || lab.consul_leader().map(Some))?;
        if leader.name == wanted.name {
            return Ok(());
        }
        leader.stop("consul")?;
        let next = lab.until("Consul has another leader", FAILOVER_LIMIT, || {
            Ok(Some(lab.consul_leader()?).filter(|next| next.name != leader.name))
        });
        leader.start("consul")?;
        next?;
        lab.wait_until_up(FAILOVER_LIMIT)?;
    }
    bail!("{} did not become Consul's leader in {TRIES} elections", wanted.name)
}
