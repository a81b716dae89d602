//! Keys that an administrator has written nonsense over, with Consul's own tools: a healthy VM is not touched, what is
//! wrong is told, and what can be mended is.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Host, wait};

/// F + K of `Balanced`, and more.
const PAST_THE_DEADLINE: Duration = Duration::from_secs(12);

/// The values that are written: text, half a MiB of it (Consul's limit), and what some other program or a newer zsha
/// might keep there.
fn nonsense() -> Vec<(&'static str, String)> {
    vec![
        ("text", "garbage".to_owned()),
        ("512 KiB", "x".repeat(512 * 1024)),
        ("of a later format", r#"{"format":2,"node":"nfs-1","lives":[]}"#.to_owned()),
        ("nothing", String::new()),
    ]
}

/// Writes each kind of nonsense under a key of this owner and a bystander: the VM's process stays, and the key is
/// mended.
fn is_mended(key: impl Fn(&Host, &Host) -> String, told: Option<&str>) -> Result<()> {
    let lab = Cluster::builder().nodes(3).profile("Balanced").build()?;
    lab.start_vm()?;
    let owner = lab.settled(SETTLE_LIMIT)?;
    let bystander = lab.others(owner).next().context("no bystander")?;
    let qemu = owner.pid_of_qemu()?.context("no QEMU on the owner")?;
    let key = key(owner, bystander);
    for (kind, value) in nonsense() {
        owner.put_key(&key, &value)?;
        if let Some(event) = told {
            lab.until("it is told", FAILOVER_LIMIT, || {
                let events = owner.zsha(&["events"], "")?.success()?;
                Ok(events.contains(event).then_some(()))
            })?;
        }
        lab.until("the key is mended", FAILOVER_LIMIT, || {
            let now = owner.key(&key)?;
            Ok(now.is_some_and(|now| now != value && now.starts_with('{')).then_some(()))
        })?;
        wait::stays("the VM's process", PAST_THE_DEADLINE, || {
            let now = owner.pid_of_qemu()?;
            ensure!(now == Some(qemu), "{kind}: it was {qemu}, it is {now:?}");
            Ok(())
        })?;
        println!("{key}, {kind}: mended, and QEMU is {qemu} still");
    }
    lab.settled(SETTLE_LIMIT)?;
    let copies = lab.check().history();
    ensure!(copies.len() == 1, "another QEMU was there meanwhile: {copies:?}");
    lab.finish()
}

#[test]
fn the_lease_of_the_owner_overwritten_with_nonsense_costs_the_vm_nothing() -> Result<()> {
    is_mended(|owner, _| format!("zsha/lab/leases/{}", owner.name), None)
}

#[test]
fn the_lease_of_a_bystander_overwritten_with_nonsense_costs_the_vm_nothing() -> Result<()> {
    is_mended(|_, bystander| format!("zsha/lab/leases/{}", bystander.name), None)
}

#[test]
fn the_ownership_record_overwritten_with_nonsense_is_written_again_by_the_owner() -> Result<()> {
    is_mended(|_, _| "zsha/lab/vms/mnvm".to_owned(), Some("Reclaimed"))
}
