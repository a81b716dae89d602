//! Measures the time from the death of QEMU to the VM running again, and the means to measure the copy that comes after
//! a killed or lost one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use zsha_e2e::scenario::{FAILOVER_LIMIT, SETTLE_LIMIT};
use zsha_e2e::{Cluster, Host};

use crate::report::Report;
use crate::virsh::Virsh;
use crate::{http, process};

/// Measures a kill -9 of a QEMU that has not died lately.
pub(crate) fn measure(lab: &Cluster, rounds: u64, report: &mut Report) -> Result<()> {
    for _ in 0..rounds {
        let owner = lab.settled(SETTLE_LIMIT)?;
        forget_earlier_deaths(lab, owner)?;
        lab.settled(SETTLE_LIMIT)?;
        let mut sessions = Sessions::open(lab)?;
        let killed = owner.kill9("qemu")?;
        let back = sessions.back(lab, killed)?;
        let elsewhere = if back.host == owner.name { "" } else { ", on another node" };
        let name = |what: &str| format!("{what}{elsewhere}");
        report.took(&name("QEMU killed: death to running"), "within 1 s, on the same node", back.running);
        report.took(&name("  death to new process"), "", back.process);
        report.took(&name("  new process to running"), "", back.running.saturating_sub(back.process));
    }
    Ok(())
}

/// Makes the controller forget earlier deaths. A VM that dies again and again is started ever more slowly. That is
/// meant, and is not measured here; a new controller knows of no earlier death.
fn forget_earlier_deaths(lab: &Cluster, owner: &Host) -> Result<()> {
    owner.restart("controller")?;
    lab.until("the owner's controller is ready", SETTLE_LIMIT, || {
        http::controller(owner, "/readyz").map(|_| Some(()))
    })
}

/// An open session of virsh on every host that is on, made before anything is broken.
pub(crate) struct Sessions<'a>(Vec<(&'a Host, Virsh)>);

/// A new copy of the VM. Each time counts from the fault that took the old one.
pub(crate) struct Back {
    pub host: String,
    pub process: Duration,
    pub running: Duration,
}

impl<'a> Sessions<'a> {
    pub(crate) fn open(lab: &'a Cluster) -> Result<Self> {
        let on = lab.hosts().iter().filter(|host| host.is_on());
        on.map(|host| Ok((host, Virsh::open(host)?))).collect::<Result<_>>().map(Self)
    }

    /// Waits until a new copy runs, as libvirt on its host says.
    pub(crate) fn back(&mut self, lab: &Cluster, since: Instant) -> Result<Back> {
        lab.until("the VM runs again", FAILOVER_LIMIT, || {
            let alive = lab.check().alive();
            let Some(copy) = alive.into_iter().find(|copy| copy.first_seen > since) else { return Ok(None) };
            let session = self.0.iter_mut().find(|(host, _)| host.name == copy.host);
            let (_, session) = session.with_context(|| format!("{} was off", copy.host))?;
            if !session.is_running()? {
                return Ok(None);
            }
            let running = since.elapsed();
            let began = process::began(copy.pid)?;
            Ok(Some(Back { host: copy.host, process: began.saturating_duration_since(since), running }))
        })
    }
}
