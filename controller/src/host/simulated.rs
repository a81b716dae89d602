//! A host of values, for the simulator, the development mode and tests. It never looks at the machine it runs on.
//!
//! Everything that was not set is in good order: every bridge exists with carrier, every mount is there, and so are the
//! image and whatever seed disk is wanted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    BridgeFact, Content, Host, HostError, HostFacts, HostWants, ImageFact, ImageWant, MountFact, MountWant,
    SeedFact,
};
use crate::guest::Seed;
use crate::observed::Observed;

#[derive(Debug)]
pub struct SimulatedHost {
    set: Mutex<Set>,
    changes: watch::Sender<u64>,
}

/// The facts that were set by hand; everything else is well.
#[derive(Debug, Default)]
struct Set {
    bridges: BTreeMap<String, Observed<BridgeFact>>,
    mounts: BTreeMap<PathBuf, Observed<MountFact>>,
    image: Option<Observed<ImageFact>>,
    seed: SeedSet,
    refused_seed: Option<Seed>,
    refuse_seeds: Option<String>,
    hidden_seed: Option<String>,
    refuse_mounts: Option<String>,
    hang_mounts: bool,
    mounts_begun: u32,
}

/// The seed disk that is there.
#[derive(Debug, Default)]
enum SeedSet {
    /// It is always the one that is wanted.
    #[default]
    Wanted,
    /// It is the one that was written last.
    Last(Option<Seed>),
}

impl Default for SimulatedHost {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedHost {
    pub fn new() -> Self {
        Self { set: Mutex::default(), changes: watch::Sender::new(0) }
    }

    pub fn set_bridge(&self, name: &str, fact: Observed<BridgeFact>) {
        self.lock().bridges.insert(name.to_owned(), fact);
        self.bump();
    }

    pub fn set_mount(&self, target: &Path, fact: Observed<MountFact>) {
        self.lock().mounts.insert(target.to_owned(), fact);
        self.bump();
    }

    pub fn set_image(&self, fact: Observed<ImageFact>) {
        self.lock().image = Some(fact);
        self.bump();
    }

    /// Lets no mount return from now on. That is worse than the contract allows, so a caller that copes with it copes
    /// with a deadline.
    pub fn hang_mounts(&self) {
        self.lock().hang_mounts = true;
    }

    /// The number of mounts that were asked for so far.
    pub fn mounts_begun(&self) -> u32 {
        self.lock().mounts_begun
    }

    /// Lets every mount fail with this reason from now on; `None` lets them succeed again.
    pub fn refuse_mounts(&self, reason: Option<&str>) {
        self.lock().refuse_mounts = reason.map(str::to_owned);
    }

    /// Lets no seed disk be written from now on, for this reason, and takes away the one there; `None` lets them be
    /// written again.
    pub fn refuse_seeds(&self, reason: Option<&str>) {
        let mut set = self.lock();
        (set.seed, set.refused_seed) = (SeedSet::Last(None), None);
        set.refuse_seeds = reason.map(str::to_owned);
        drop(set);
        self.bump();
    }

    /// Lets it be unknown from now on whether there is a seed disk, for this reason; `None` lets it be known again.
    pub fn hide_seed(&self, reason: Option<&str>) {
        self.lock().hidden_seed = reason.map(str::to_owned);
        self.bump();
    }

    /// Puts everything in good order again.
    pub fn repair(&self) {
        *self.lock() = Set::default();
        self.bump();
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.changes.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Host for SimulatedHost {
    async fn look(&self, wants: &HostWants) -> HostFacts {
        let set = self.lock();
        let bridge = |name: &String| set.bridges.get(name).cloned().unwrap_or_else(well_bridge);
        let mount = |want: &MountWant| set.mounts.get(&want.target).cloned().unwrap_or_else(|| mounted(want));
        HostFacts {
            bridges: wants.bridges.iter().map(|want| (want.name.clone(), bridge(&want.name))).collect(),
            mounts: wants.mounts.iter().map(|want| (want.target.clone(), mount(want))).collect(),
            image: wants.image.as_ref().map(|want| set.image.clone().unwrap_or_else(|| well_image(want))),
            seed: wants.seed.as_ref().map(|want| set.seed_fact(want)),
        }
    }

    async fn mount(&self, want: &MountWant) -> Result<(), HostError> {
        let hangs = {
            let mut set = self.lock();
            set.mounts_begun += 1;
            set.hang_mounts
        };
        if hangs {
            std::future::pending::<()>().await;
        }
        let refused = |reason| Err(HostError::Mount { target: want.target.display().to_string(), reason });
        let mut set = self.lock();
        match set.mounts.get(&want.target).cloned().unwrap_or_else(|| mounted(want)) {
            Observed::Known(MountFact::NotMounted) => {}
            Observed::Known(MountFact::Mounted { .. }) => return Ok(()),
            Observed::Known(MountFact::Other { source, .. }) => {
                return refused(format!("{source} is mounted there"));
            }
            Observed::Known(MountFact::NotAnswering { reason }) | Observed::Unknown(reason) => {
                return refused(reason);
            }
        }
        if let Some(reason) = &set.refuse_mounts {
            return refused(reason.clone());
        }
        set.mounts.insert(want.target.clone(), mounted(want));
        drop(set);
        self.bump();
        Ok(())
    }

    async fn write_seed(&self, seed: &Seed) -> Result<(), HostError> {
        let (refused, was_there) = {
            let mut set = self.lock();
            let was_there = set.has(seed);
            (set.write_seed(seed), was_there)
        };
        if !was_there {
            self.bump();
        }
        refused.map_or(Ok(()), |reason| Err(HostError::Seed { reason }))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Set {
    fn seed_fact(&self, want: &Seed) -> Observed<SeedFact> {
        if let Some(reason) = &self.hidden_seed {
            return Observed::unknown(reason.clone());
        }
        Observed::Known(match &self.refuse_seeds {
            _ if self.has(want) => SeedFact::Written,
            Some(reason) if self.refused_seed.as_ref() == Some(want) => {
                SeedFact::Refused { reason: reason.clone() }
            }
            Some(_) | None => SeedFact::NotWritten,
        })
    }

    /// Writes the seed disk. Returns why not, if it cannot be written.
    fn write_seed(&mut self, seed: &Seed) -> Option<String> {
        let refused = self.refuse_seeds.clone();
        match (&refused, &mut self.seed) {
            (Some(_), _) => self.refused_seed = Some(seed.clone()),
            (None, SeedSet::Wanted) => {}
            (None, SeedSet::Last(last)) => *last = Some(seed.clone()),
        }
        refused
    }

    fn has(&self, seed: &Seed) -> bool {
        match &self.seed {
            SeedSet::Wanted => true,
            SeedSet::Last(last) => last.as_ref() == Some(seed),
        }
    }
}

fn well_bridge() -> Observed<BridgeFact> {
    Observed::Known(BridgeFact::Bridge { up: true, carrier: true })
}

fn well_image(want: &ImageWant) -> Observed<ImageFact> {
    Observed::Known(match want {
        ImageWant::File(_) => ImageFact::Present(Content::default()),
        ImageWant::Ceph(monitors) => {
            ImageFact::Reached { monitor: monitors.first().cloned().unwrap_or_default() }
        }
    })
}

fn mounted(want: &MountWant) -> Observed<MountFact> {
    Observed::Known(MountFact::Mounted { fs_type: want.fs_type.clone(), options: want.options.clone() })
}

#[cfg(test)]
mod contract_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::BridgeWant;

    fn wants() -> HostWants {
        HostWants {
            bridges: vec![BridgeWant { name: "br0".to_owned(), require_carrier: true }],
            mounts: vec![MountWant {
                source: "10.0.0.9:/share".to_owned(),
                target: PathBuf::from("/share"),
                fs_type: "nfs".to_owned(),
                options: "rw".to_owned(),
            }],
            image: Some("/share/mnvm.img".into()),
            seed: None,
        }
    }

    #[tokio::test]
    async fn what_nobody_has_set_is_in_good_order() {
        let facts = SimulatedHost::new().look(&wants()).await;
        assert_eq!(facts.bridges["br0"], well_bridge());
        assert_eq!(facts.mounts[Path::new("/share")], mounted(&wants().mounts[0]));
        assert_eq!(facts.image, Some(well_image(&"/share/mnvm.img".into())));
    }

    #[tokio::test]
    async fn what_was_set_is_seen_and_announced() {
        let host = SimulatedHost::new();
        let mut changes = host.changes();
        host.set_bridge("br0", Observed::Known(BridgeFact::Missing));
        host.set_image(Observed::unknown("the share hangs"));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let facts = host.look(&wants()).await;
        assert_eq!(facts.bridges["br0"], Observed::Known(BridgeFact::Missing));
        assert_eq!(facts.image, Some(Observed::unknown("the share hangs")));
        host.repair();
        assert_eq!(host.look(&wants()).await.image, Some(well_image(&"/share/mnvm.img".into())));
    }

    #[tokio::test]
    async fn a_mount_that_is_missing_can_be_made_unless_refused() {
        let host = SimulatedHost::new();
        let want = &wants().mounts[0];
        host.set_mount(&want.target, Observed::Known(MountFact::NotMounted));
        host.refuse_mounts(Some("no route to host"));
        assert!(host.mount(want).await.unwrap_err().to_string().contains("no route to host"));
        host.refuse_mounts(None);
        host.mount(want).await.unwrap();
        assert_eq!(host.look(&wants()).await.mounts[&want.target], mounted(want));
    }
}
