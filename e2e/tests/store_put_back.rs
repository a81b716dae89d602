//! A store that goes back in time, or is emptied, while no controller looks: what everybody does who restores a snapshot.
//! The copy that runs was started under a record that is no more, and its keeper has renewed all along: it runs on, and
//! the record is written anew.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zsha_e2e::administrator::Starts;
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Host};

/// Longer than every deadline of the lease in `Fast`, and than two looks of everybody at everybody.
const LONG_ENOUGH: Duration = Duration::from_secs(15);
const COMMAND: Duration = Duration::from_secs(90);

/// A VM that a snapshot of the store, in the file, says to be elsewhere: where that is, where it is, and its process.
fn moved_since_a_snapshot<'a>(lab: &'a Cluster, file: &str) -> Result<(&'a Host, &'a Host, i32)> {
    let first = lab.settled(SETTLE_LIMIT)?;
    first.saves_the_store(file)?;
    let target = lab.others(first).next().context("no other host")?;
    lab.until("the VM is moved", SETTLE_LIMIT, || {
        first.exec_with(&["zsha", "migrate", &target.name], "", COMMAND)?.success().map(Some)
    })?;
    let now_on = lab.settled(SETTLE_LIMIT)?;
    ensure!(now_on.name == target.name, "it runs on {}", now_on.name);
    Ok((first, now_on, now_on.pid_of_qemu()?.context("no QEMU")?))
}

/// Its process is the same, and the record names its node.
fn is_claimed_where_it_runs(starts: &Starts<'_>, lab: &Cluster, owner: &Host, process: i32) -> Result<()> {
    starts.only(process, LONG_ENOUGH)?;
    lab.recorded(owner, SETTLE_LIMIT)?;
    let runs_on = lab.settled(SETTLE_LIMIT)?;
    ensure!(runs_on.name == owner.name, "status says that it runs on {}", runs_on.name);
    starts.only(process, LONG_ENOUGH)
}

fn running_lab() -> Result<Cluster> {
    let lab = Cluster::builder().nodes(3).profile("Fast").build()?;
    lab.start_vm()?;
    lab.settled(SETTLE_LIMIT)?;
    Ok(lab)
}

#[test]
fn a_snapshot_restored_while_the_controllers_are_down_ends_no_vm_that_runs_elsewhere_by_now() -> Result<()> {
    let lab = running_lab()?;
    for order in ["all at once", "first the node that the old record names"] {
        let file = lab.dir().join("store.snapshot").display().to_string();
        let (named, owner, process) = moved_since_a_snapshot(&lab, &file)?;
        let starts = Starts::so_far(&lab)?;
        lab.stop_controllers()?;
        owner.restores_the_store(&file)?;
        lab.wait_until_up(FAILOVER_LIMIT)?;
        let recorded = owner.recorded_owner()?;
        ensure!(recorded.as_ref() == Some(&named.name), "the snapshot names {recorded:?}");
        starts.only(process, LONG_ENOUGH)?;
        let what =
            format!("{order}: the record names {}, process {process} runs on {}", named.name, owner.name);
        if order != "all at once" {
            named.start("controller")?;
            starts.only(process, LONG_ENOUGH).with_context(|| what.clone())?;
        }
        lab.start_controllers()?;
        is_claimed_where_it_runs(&starts, &lab, owner, process).with_context(|| what.clone())?;
        println!("{what}, and does afterwards");
    }
    lab.finish()
}

#[test]
fn a_store_that_is_emptied_while_the_controllers_are_down_ends_no_vm_that_runs() -> Result<()> {
    let lab = running_lab()?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let process = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    let starts = Starts::so_far(&lab)?;
    lab.stop_controllers()?;
    owner.wipes_the_store()?;
    starts.only(process, LONG_ENOUGH)?;
    lab.apply(&lab.document(), "the store was emptied")?;
    let recorded = owner.recorded_owner()?;
    ensure!(recorded.is_none(), "a record of a new cluster names nobody, and this one {recorded:?}");
    lab.start_controllers()?;
    is_claimed_where_it_runs(&starts, &lab, owner, process)?;
    println!("the store emptied and the document applied again: process {process} runs on {}", owner.name);
    lab.finish()
}
