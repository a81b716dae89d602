//! This very host. Every look is bounded: links by the kernel's answer, whatever lies on storage by a child that
//! can be left behind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::child::Children;
use super::probe::{Probe, Seen};
use super::seed_file::SeedFile;
use super::{
    BridgeFact, BridgeWant, Host, HostError, HostFacts, HostWants, ImageWant, MountFact, MountWant, links,
    monitors, mounts, probe,
};
use crate::guest::Seed;
use crate::observed::Observed;

/// The mount table is read without touching any file system.
const TABLE_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct LinuxHost {
    children: Children,
    probe: Probe,
    seed: SeedFile,
    changes: watch::Sender<u64>,
    following: [AbortHandle; 2],
}

impl LinuxHost {
    /// Begins to follow links and mounts at once, and keeps the guest's seed at this path. Needs a tokio runtime, and the
    /// program it is in to understand [`probe::COMMAND`].
    pub fn new(seed: PathBuf) -> Self {
        Self::probing(Probe::new(), seed)
    }

    /// Another program that understands [`probe::COMMAND`], in the place of the one it is in.
    pub fn looking_by(program: &Path, seed: PathBuf) -> Self {
        Self::probing(Probe::by(program), seed)
    }

    fn probing(probe: Probe, seed: PathBuf) -> Self {
        let changes = watch::Sender::new(0);
        let following = [
            tokio::spawn(links::follow(changes.clone())).abort_handle(),
            tokio::spawn(mounts::follow(changes.clone())).abort_handle(),
        ];
        Self { children: Children::new(), probe, seed: SeedFile::at(seed), changes, following }
    }

    async fn bridge(&self, want: &BridgeWant) -> (String, Observed<BridgeFact>) {
        (want.name.clone(), links::bridge(&want.name).await)
    }

    async fn mounted(&self, want: &MountWant) -> (PathBuf, Observed<MountFact>) {
        let fact = match self.in_table(want).await {
            Err(reason) => Observed::Unknown(reason),
            Ok(fact @ MountFact::Mounted { .. }) => self.answering(want, fact).await,
            Ok(fact) => Observed::Known(fact),
        };
        (want.target.clone(), fact)
    }

    /// What the table has at the target, or at where the target leads by links: the kernel writes down only the latter.
    async fn in_table(&self, want: &MountWant) -> Result<MountFact, String> {
        match read_table(want, want.target.clone()).await? {
            MountFact::NotMounted => {}
            there => return Ok(there),
        }
        match self.probe.resolve(&self.children, &want.target).await? {
            Some(real) if real != want.target => read_table(want, real).await,
            Some(_) | None => Ok(MountFact::NotMounted),
        }
    }

    /// A mount that is in the table but does not answer is not known to be there.
    async fn answering(&self, want: &MountWant, fact: MountFact) -> Observed<MountFact> {
        match self.probe.see(&self.children, &want.target).await {
            Ok(Seen::Directory | Seen::File { .. } | Seen::NotAFile) => Observed::Known(fact),
            Ok(Seen::Missing) => Observed::unknown("the mount point vanished while it was looked at"),
            Ok(Seen::Failed { reason } | Seen::NotReadable { reason }) | Err(reason) => {
                Observed::unknown(format!("mounted, and does not answer: {reason}"))
            }
        }
    }
}

impl Drop for LinuxHost {
    fn drop(&mut self) {
        self.following.iter().for_each(AbortHandle::abort);
    }
}

async fn read_table(want: &MountWant, target: PathBuf) -> Result<MountFact, String> {
    let want = want.clone();
    let read = tokio::task::spawn_blocking(move || mounts::fact(&want, &target));
    match tokio::time::timeout(TABLE_WITHIN, read).await {
        Ok(Ok(Ok(fact))) => Ok(fact),
        Ok(Ok(Err(error))) => Err(format!("cannot read the mount table: {error}")),
        Ok(Err(error)) => Err(format!("cannot read the mount table: {error}")),
        Err(_) => Err("reading the mount table hangs".to_owned()),
    }
}

#[async_trait]
impl Host for LinuxHost {
    async fn look(&self, wants: &HostWants) -> HostFacts {
        let image = async {
            match &wants.image {
                Some(ImageWant::File(path)) => Some(probe::image(self.probe.see(&self.children, path).await)),
                Some(ImageWant::Ceph(named)) => Some(monitors::fact(named).await),
                None => None,
            }
        };
        let seed = async {
            match &wants.seed {
                Some(seed) => Some(self.seed.look(seed).await),
                None => None,
            }
        };
        let (bridges, mounts, image, seed) = tokio::join!(
            join_all(wants.bridges.iter().map(|want| self.bridge(want))),
            join_all(wants.mounts.iter().map(|want| self.mounted(want))),
            image,
            seed,
        );
        HostFacts {
            bridges: bridges.into_iter().collect(),
            mounts: mounts.into_iter().collect(),
            image,
            seed,
        }
    }

    async fn mount(&self, want: &MountWant) -> Result<(), HostError> {
        let refused = |reason| HostError::Mount { target: want.target.display().to_string(), reason };
        match self.in_table(want).await.map_err(refused)? {
            MountFact::NotMounted => mounts::mount(&self.children, want).await,
            MountFact::Mounted { .. } => Ok(()),
            MountFact::Other { source, .. } => Err(refused(format!("{source} is mounted there"))),
        }
    }

    async fn write_seed(&self, seed: &Seed) -> Result<(), HostError> {
        let written = self.seed.write(seed).await;
        self.changes.send_modify(|count| *count += 1);
        written.map_err(|reason| HostError::Seed { reason })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// As the real child answers, of paths that are there.
    const ANSWERS: &str = r#"if [ "$1" = --resolve ]; then printf '"%s"' "$(readlink -f "$2")"; else echo '{"seen":"directory"}'; fi"#;

    fn proc_at(target: PathBuf) -> MountWant {
        let proc = || "proc".to_owned();
        MountWant { source: proc(), target, fs_type: proc(), options: String::new() }
    }

    #[tokio::test]
    async fn a_mount_point_behind_a_link_is_seen_where_the_link_leads_and_not_mounted_twice() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("to-root");
        symlink("/", &link).unwrap();
        let host = LinuxHost::probing(
            probe::scripted(ANSWERS, Duration::from_secs(60)),
            directory.path().join("seed.img"),
        );
        let want = proc_at(link.join("proc"));
        let (_, fact) = host.mounted(&want).await;
        assert!(matches!(fact, Observed::Known(MountFact::Mounted { .. })), "{fact:?}");
        let before = std::fs::read("/proc/self/mountinfo").unwrap();
        host.mount(&want).await.unwrap();
        assert_eq!(std::fs::read("/proc/self/mountinfo").unwrap(), before);

        let (_, fact) = host.mounted(&proc_at(directory.path().to_owned())).await;
        assert_eq!(fact, Observed::Known(MountFact::NotMounted));
    }

    #[tokio::test]
    async fn where_a_path_leads_that_hangs_is_not_known_and_nothing_is_mounted_there() {
        let directory = tempfile::tempdir().unwrap();
        let hanging = probe::scripted("exec cat /dev/zero >/dev/null", Duration::from_millis(50));
        let host = LinuxHost::probing(hanging, directory.path().join("seed.img"));
        let want = proc_at(directory.path().to_owned());
        let (_, fact) = host.mounted(&want).await;
        assert!(matches!(fact, Observed::Unknown(_)), "{fact:?}");
        assert!(host.mount(&want).await.is_err());
    }
}
