//! The lab as a test sees it: `Cluster::builder().nodes(3).profile("Fast").build()`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::check::{Check, Copy, Violation};
use crate::host::Host;
use crate::leftovers::{self, Beside, Territory};
use crate::net::Switch;
use crate::product::Document;
use crate::scenario;
use crate::services::{self, Plan, Programs, Unkind};
use crate::wait;

/// The time for Consul and libvirt of every host to be there after a cold start of the whole lab.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    hosts: usize,
    bridges: Vec<String>,
    profile: String,
    product: bool,
    uplink: bool,
    raft_multiplier: Option<u32>,
    own_wall_clocks: bool,
    bare: bool,
    beside: Beside,
    unkind: Unkind,
}

impl ClusterBuilder {
    pub fn nodes(mut self, hosts: usize) -> Self {
        self.hosts = hosts;
        self
    }

    /// Sets the document's `Availability.Profile`.
    pub fn profile(mut self, profile: &str) -> Self {
        self.profile = profile.into();
        self
    }

    /// Sets the bridges, with one network for each; Consul uses the first.
    pub fn bridges(mut self, bridges: &[&str]) -> Self {
        self.bridges = bridges.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts Consul and libvirt only, without zsha's keeper and controller.
    pub fn without_product(mut self) -> Self {
        self.product = false;
        self
    }

    /// Makes hosts as `zsha install` finds them: real systemd, sshd and libvirtd, the share and the bridges; no Consul,
    /// no zsha.
    pub fn bare(mut self) -> Self {
        (self.bare, self.product) = (true, false);
        self
    }

    /// Gives the machine itself an address in the lab's first network, for a person's browser.
    pub fn uplink(mut self) -> Self {
        self.uplink = true;
        self
    }

    /// Lets no other lab run on this machine meanwhile, for a test that measures.
    pub fn alone(mut self) -> Self {
        self.beside = Beside::Nobody;
        self
    }

    pub fn raft_multiplier(mut self, multiplier: u32) -> Self {
        self.raft_multiplier = Some(multiplier);
        self
    }

    /// Gives zsha's processes on each host a wall clock that [`Host::step_wall_clock`] sets.
    pub fn own_wall_clocks(mut self) -> Self {
        self.own_wall_clocks = true;
        self
    }

    /// Lets no host know the name of another: only the document's addresses lead there.
    pub fn names_unknown(mut self) -> Self {
        self.unkind.names_unknown = true;
        self
    }

    /// Boots all hosts at once and waits until Consul has a leader and every libvirtd answers.
    pub fn build(self) -> Result<Cluster> {
        let programs = Programs::find(self.product)?;
        let territory = Territory::claim(self.beside)?;
        match self.raise(&programs, territory.dir.clone()) {
            Ok(parts) => Ok(Cluster {
                parts: Some(parts),
                document: Mutex::new(Document::new(&self.profile, self.hosts)),
                territory,
            }),
            Err(error) => {
                territory.leave(true);
                Err(error.context(format!("raise lab {}", territory.id)))
            }
        }
    }

    fn raise(&self, programs: &Programs, dir: PathBuf) -> Result<Parts> {
        let share = dir.join("share");
        fs::create_dir(&share).with_context(|| format!("create {}", share.display()))?;
        install_image(&share)?;
        let switch = Arc::new(Switch::start(&programs.init, self.bridges.len(), &dir.join("switch.log"))?);
        if self.uplink {
            switch.uplink()?;
        }
        let namespaces = Arc::new(Mutex::new(BTreeMap::new()));
        let plan = Plan {
            programs,
            dir: &dir,
            share: &share,
            bridges: &self.bridges,
            hosts: self.hosts,
            raft_multiplier: self.raft_multiplier,
            own_wall_clocks: self.own_wall_clocks,
            bare: self.bare,
            unkind: self.unkind,
        };
        let host = |number| -> Result<Host> {
            let config = services::lay_out(&plan, number)?;
            Ok(Host::new(number, config, programs.clone(), switch.clone(), namespaces.clone()))
        };
        let hosts = (1..=self.hosts).map(host).collect::<Result<Vec<_>>>()?;
        let check = Check::start(namespaces);
        let parts = Parts { hosts, check, switch };
        in_parallel(&parts.hosts, Host::power_on)?;
        if !self.bare {
            parts.wait_until_up(BOOT_LIMIT)?;
        }
        Ok(parts)
    }
}

/// A running lab. It ends, with everything in it, when it is dropped; a violation seen by the independent check panics
/// then.
#[derive(Debug)]
pub struct Cluster {
    parts: Option<Parts>,
    document: Mutex<Document>,
    territory: Territory,
}

#[derive(Debug)]
struct Parts {
    hosts: Vec<Host>,
    check: Check,
    switch: Arc<Switch>,
}

impl Cluster {
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            hosts: 3,
            bridges: vec!["br_mgmt".into()],
            profile: "Balanced".into(),
            product: true,
            uplink: false,
            raft_multiplier: None,
            own_wall_clocks: false,
            bare: false,
            unkind: Unkind::default(),
            beside: if scenario::figures_are_judged() { Beside::Nobody } else { Beside::Others },
        }
    }

    pub fn hosts(&self) -> &[Host] {
        &self.parts().hosts
    }

    /// The host with this number, from 1.
    pub fn host(&self, number: usize) -> &Host {
        &self.parts().hosts[number - 1]
    }

    pub fn named(&self, name: &str) -> Result<&Host> {
        self.hosts()
            .iter()
            .find(|host| host.name == name)
            .ok_or_else(|| anyhow!("the lab has no host {name:?}"))
    }

    /// The hosts that are on and not `host`.
    pub fn others<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a Host> {
        self.hosts().iter().filter(move |other| other.name != host.name && other.is_on())
    }

    pub fn check(&self) -> &Check {
        &self.parts().check
    }

    pub fn switch(&self) -> &Switch {
        &self.parts().switch
    }

    /// The lab's directory, with all logs below it.
    pub fn dir(&self) -> &Path {
        &self.territory.dir
    }

    /// The document this lab works with; change it and `apply` it.
    pub fn document(&self) -> Document {
        self.document.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Takes over the document that was put in force past [`Cluster::apply`].
    pub fn remember(&self, document: &Document) {
        *self.document.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = document.clone();
    }

    /// The host that a majority of all hosts' agents names as Consul's leader.
    pub fn consul_leader(&self) -> Result<&Host> {
        self.parts().consul_leader()
    }

    /// Waits for a state; a violation of the promise ends the wait at once.
    pub fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let seen = wait::until(what, limit, || match self.check().violations().first() {
            Some(violation) => Ok(Some(Err(violation.clone()))),
            None => Ok(look()?.map(Ok)),
        })?;
        seen.map_err(|violation: Violation| anyhow!("while waiting for: {what}: {violation}"))
    }

    /// Waits for a copy of the VM that was first seen after `since`. The copy says where the VM runs, and with `since`
    /// how long that took.
    pub fn new_copy(&self, since: Instant, limit: Duration) -> Result<Copy> {
        self.until("a new copy of the VM", limit, || {
            Ok(self.check().alive().into_iter().find(|copy| copy.first_seen > since))
        })
    }

    /// Waits until Consul has a leader that all hosts which are on follow, and their libvirtd answers.
    pub fn wait_until_up(&self, limit: Duration) -> Result<()> {
        self.parts().wait_until_up(limit)
    }

    pub fn power_on_all(&self) -> Result<()> {
        let off: Vec<&Host> = self.hosts().iter().filter(|host| !host.is_on()).collect();
        in_parallel(off, Host::power_on)
    }

    /// Ends the lab. The findings of the independent check are an error here, and a panic where the lab is only
    /// dropped.
    pub fn finish(mut self) -> Result<()> {
        let violations = self.end(false);
        match violations.first() {
            Some(_) => bail!("{}", report(&violations)),
            None => Ok(()),
        }
    }

    fn parts(&self) -> &Parts {
        self.parts.as_ref().expect("parts are taken only by the end of the lab")
    }

    fn end(&mut self, failed: bool) -> Vec<Violation> {
        let Some(mut parts) = self.parts.take() else { return Vec::new() };
        parts.check.stop();
        let violations = parts.check.violations();
        if let Err(error) = in_parallel(&parts.hosts, |host| host.power_off().map(drop)) {
            eprintln!("lab: {error:#}");
        }
        drop(parts);
        self.territory.leave(failed || !violations.is_empty());
        violations
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A test that succeeds calls `finish`; one that fails leaves by `?` or by a panic, and its logs are wanted.
        let violations = self.end(true);
        if violations.is_empty() {
            return;
        }
        if thread::panicking() {
            eprintln!("{}", report(&violations));
        } else {
            panic!("{}", report(&violations));
        }
    }
}

impl Parts {
    fn consul_leader(&self) -> Result<&Host> {
        let on: Vec<&Host> = self.hosts.iter().filter(|host| host.is_on()).collect();
        let votes = in_parallel_map(&on, |host| host.consul("/v1/status/leader"));
        let mut by_address: BTreeMap<String, usize> = BTreeMap::new();
        for vote in votes.iter().flatten() {
            *by_address.entry(vote.trim().trim_matches('"').to_owned()).or_default() += 1;
        }
        let elected = by_address
            .into_iter()
            .find(|(address, votes)| !address.is_empty() && votes * 2 > self.hosts.len());
        let (address, _) =
            elected.ok_or_else(|| anyhow!("no majority names a leader of Consul: {votes:?}"))?;
        let ip = address.split(':').next().unwrap_or_default();
        let leader = self.hosts.iter().find(|host| host.address().to_string() == ip);
        leader.ok_or_else(|| anyhow!("Consul's leader {address} is no host of the lab"))
    }

    fn wait_until_up(&self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        wait::until("Consul has a leader", limit, || self.consul_leader().map(Some))?;
        let on: Vec<&Host> = self.hosts.iter().filter(|host| host.is_on()).collect();
        in_parallel(on, |host| {
            let left = limit.saturating_sub(start.elapsed());
            wait::until("its Consul follows the leader", left, || {
                let leader = self.consul_leader()?.address().to_string();
                Ok(host.consul("/v1/status/leader")?.contains(&leader).then_some(()))
            })
            .with_context(|| host.name.clone())?;
            let left = limit.saturating_sub(start.elapsed());
            wait::until("libvirtd answers", left, || host.virsh(&["uri"]).map(Some))
                .map(drop)
                .with_context(|| host.name.clone())
        })
    }
}

/// Puts a fresh copy of the guest image on the share.
fn install_image(share: &Path) -> Result<()> {
    let source = leftovers::cache().join("mnvm.img");
    let target = share.join("mnvm.img");
    fs::copy(&source, &target)
        .map(drop)
        .with_context(|| format!("copy {}: run e2e/setup.sh", source.display()))
}

fn in_parallel<'a>(
    hosts: impl IntoIterator<Item = &'a Host>,
    act: impl Fn(&Host) -> Result<()> + Sync,
) -> Result<()> {
    let hosts: Vec<&Host> = hosts.into_iter().collect();
    in_parallel_map(&hosts, act).into_iter().collect()
}

fn in_parallel_map<T: Send>(hosts: &[&Host], act: impl Fn(&Host) -> Result<T> + Sync) -> Vec<Result<T>> {
    thread::scope(|scope| {
        let handles: Vec<_> = hosts.iter().map(|host| scope.spawn(|| act(host))).collect();
        handles
            .into_iter()
            .map(|handle| handle.join().unwrap_or_else(|_| Err(anyhow!("a thread of the lab panicked"))))
            .collect()
    })
}

fn report(violations: &[Violation]) -> String {
    let all: String = violations.iter().map(ToString::to_string).collect();
    format!("THE PROMISE IS BROKEN, seen {} time(s) by the independent check\n{all}", violations.len())
}
