//! Looks at this very host. Every look is bounded: links by the kernel's answer, whatever lies on storage by a child
//! that can be left behind.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::child::Children;
use super::opened::{self, Opened};
use super::probe::{Leads, NotSeen, Probe, Seen};
use super::seed_file::SeedFile;
use super::{
    BridgeFact, BridgeWant, Host, HostError, HostFacts, HostWants, ImageFact, ImageWant, MountFact,
    MountWant, links, monitors, mounts, probe,
};
use crate::guest::Seed;
use crate::keeper::copies::Copies;
use crate::observed::Observed;
use crate::one_thread::OneThread;

/// The time for the mount table, which is read without touching any file system.
const TABLE_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct LinuxHost {
    children: Children,
    probe: Probe,
    seed: SeedFile,
    table: OneThread,
    open_files: OneThread,
    /// The VM's processes here, where they are known.
    copies: Option<Arc<dyn Copies>>,
    changes: watch::Sender<u64>,
    following: [AbortHandle; 2],
}

/// The most files below an image that are looked at. QEMU itself opens no endless chain.
const MOST_BELOW: usize = 8;

impl LinuxHost {
    /// Begins to follow links and mounts at once, and keeps the guest's seed disk at this path. It needs a tokio
    /// runtime, and a program that understands [`probe::COMMAND`].
    pub fn new(seed: PathBuf) -> Self {
        Self::probing(Probe::new(), seed)
    }

    /// Does the same, with another program that understands [`probe::COMMAND`].
    pub fn looking_by(program: &Path, seed: PathBuf) -> Self {
        Self::probing(Probe::by(program), seed)
    }

    /// Lets an image whose path hangs be looked at as these processes have it open, too.
    pub fn of_vm(mut self, copies: Arc<dyn Copies>) -> Self {
        self.copies = Some(copies);
        self
    }

    fn probing(probe: Probe, seed: PathBuf) -> Self {
        let changes = watch::Sender::new(0);
        let following = [
            tokio::spawn(links::follow(changes.clone())).abort_handle(),
            tokio::spawn(mounts::follow(changes.clone())).abort_handle(),
        ];
        Self {
            children: Children::new(),
            probe,
            seed: SeedFile::at(seed),
            table: OneThread::default(),
            open_files: OneThread::default(),
            copies: None,
            changes,
            following,
        }
    }

    async fn bridge(&self, want: &BridgeWant) -> (String, Observed<BridgeFact>) {
        (want.name.clone(), links::bridge(&want.name).await)
    }

    /// Looks at the image. The way to it leads over other file systems than its own, and one of those may hang. Then
    /// the file itself is looked at, as the VM has it open; without a VM there is none to look at.
    async fn image(&self, path: &Path) -> Observed<ImageFact> {
        let fact = self.with_what_it_rests_on(path).await;
        let (Observed::Known(ImageFact::NotAnswering { reason }), Some(copies)) = (&fact, &self.copies)
        else {
            return fact;
        };
        let opened = match opened::by(Arc::clone(copies), path, &self.open_files).await {
            Ok(Opened::By(opened)) => opened,
            Ok(Opened::NoProcess) => return fact,
            Ok(Opened::NotFound) => {
                let name = path.file_name().unwrap_or_default().display();
                return Observed::Unknown(format!(
                    "{reason}; and the VM's process here has no file of the name {name} open, so it is not known whether \
                     it reaches its image by another"
                ));
            }
            Err(why) => return Observed::Unknown(format!("{reason}; and what the VM has open: {why}")),
        };
        match probe::image_to_read(self.probe.see(&self.children, &opened).await) {
            Observed::Known(ImageFact::Present(_)) => {
                Observed::Known(ImageFact::Hidden { reason: reason.clone() })
            }
            Observed::Known(ImageFact::NotAnswering { .. }) => fact,
            Observed::Known(_) => Observed::Unknown(format!("{reason}; and the VM has just closed it")),
            unknown @ Observed::Unknown(_) => unknown,
        }
    }

    /// Looks at the image, and at each file that it rests on. A name there that is no plain path is QEMU's to open.
    async fn with_what_it_rests_on(&self, path: &Path) -> Observed<ImageFact> {
        let fact = probe::image(self.probe.see(&self.children, path).await);
        let (mut below, mut seen) = (path.to_owned(), fact.clone());
        for _ in 0..MOST_BELOW {
            let next = match &seen {
                Observed::Known(ImageFact::Present(content)) => content.rests_on(&below),
                _ => None,
            };
            let Some(next) = next else { break };
            below = next;
            seen = probe::image_to_read(self.probe.see(&self.children, &below).await);
        }
        if below == path {
            return fact;
        }
        let missing = |reason: String| {
            Observed::Known(ImageFact::BackingMissing { path: below.display().to_string(), reason })
        };
        match seen {
            Observed::Known(ImageFact::Present(_)) => fact,
            Observed::Known(ImageFact::Missing) => missing("it is not there".to_owned()),
            Observed::Known(ImageFact::NotAFile) => missing("it is no file".to_owned()),
            Observed::Known(ImageFact::NotReadable { reason }) => missing(reason),
            other => other,
        }
    }

    async fn mounted(&self, want: &MountWant) -> (PathBuf, Observed<MountFact>) {
        let fact = match self.in_table(want).await {
            Observed::Known(fact @ MountFact::Mounted { .. }) => self.answering(want, fact).await,
            fact => fact,
        };
        (want.target.clone(), fact)
    }

    async fn read_table(&self, want: &MountWant, target: PathBuf) -> Observed<MountFact> {
        let want = want.clone();
        match self.table.run(TABLE_WITHIN, move || mounts::fact(&want, &target)).await {
            Ok(Ok(fact)) => Observed::Known(fact),
            Ok(Err(error)) => Observed::Unknown(format!("cannot read the mount table: {error}")),
            Err(why) => Observed::Unknown(format!("cannot read the mount table: {why}")),
        }
    }

    /// The entry of the table for the target, or for where the target leads by links: the kernel writes down only the
    /// latter.
    async fn in_table(&self, want: &MountWant) -> Observed<MountFact> {
        match self.read_table(want, want.target.clone()).await {
            Observed::Known(MountFact::NotMounted) => {}
            Observed::Known(MountFact::Other { fs_type, .. }) if fs_type == mounts::AUTOMOUNT => {
                return self.mounted_by_itself(want).await;
            }
            there => return there,
        }
        match self.probe.resolve(&self.children, &want.target).await {
            Ok(Leads::To { real }) if real != want.target => self.read_table(want, real).await,
            Ok(Leads::To { .. } | Leads::Nowhere) => Observed::Known(MountFact::NotMounted),
            Ok(Leads::Failed { reason }) | Err(NotSeen::Hangs(reason)) => {
                Observed::Known(MountFact::NotAnswering { reason })
            }
            Ok(Leads::NotLooked { reason }) | Err(NotSeen::NotLooked(reason)) => Observed::Unknown(reason),
        }
    }

    /// The mount of an automount, which is made when somebody enters it.
    async fn mounted_by_itself(&self, want: &MountWant) -> Observed<MountFact> {
        let entered = self.probe.see(&self.children, &want.target.join(".")).await;
        match (self.read_table(want, want.target.clone()).await, entered) {
            (Observed::Known(MountFact::Other { fs_type, .. }), Err(NotSeen::Hangs(reason)))
                if fs_type == mounts::AUTOMOUNT =>
            {
                Observed::Known(MountFact::NotAnswering { reason })
            }
            (there, _) => there,
        }
    }

    /// The mount as it is found: one that is in the table and does not answer is not there for any program.
    async fn answering(&self, want: &MountWant, fact: MountFact) -> Observed<MountFact> {
        match self.probe.see(&self.children, &want.target).await {
            Ok(Seen::Directory | Seen::File { .. } | Seen::NotAFile) => Observed::Known(fact),
            Ok(Seen::Missing) => Observed::unknown("the mount point vanished while it was looked at"),
            Ok(Seen::Failed { reason }) | Err(NotSeen::Hangs(reason)) => {
                Observed::Known(MountFact::NotAnswering { reason })
            }
            Ok(Seen::NotReadable { reason } | Seen::NotLooked { reason })
            | Err(NotSeen::NotLooked(reason)) => Observed::Unknown(reason),
        }
    }
}

impl Drop for LinuxHost {
    fn drop(&mut self) {
        self.following.iter().for_each(AbortHandle::abort);
    }
}

#[async_trait]
impl Host for LinuxHost {
    async fn look(&self, wants: &HostWants) -> HostFacts {
        let image = async {
            match &wants.image {
                Some(ImageWant::File(path)) => Some(self.image(path).await),
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
        match self.in_table(want).await {
            Observed::Known(MountFact::NotMounted) => mounts::mount(&self.children, want).await,
            Observed::Known(MountFact::Mounted { .. }) => Ok(()),
            Observed::Known(MountFact::Other { source, .. }) => {
                Err(refused(format!("{source} is mounted there")))
            }
            Observed::Known(MountFact::NotAnswering { reason }) | Observed::Unknown(reason) => {
                Err(refused(reason))
            }
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

    /// Answers as the real child does for paths that are there.
    const ANSWERS: &str = r#"if [ "$1" = --resolve ]; then printf '{"leads":"to","real":"%s"}' "$(readlink -f "$2")"; else echo '{"seen":"directory"}'; fi"#;

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
    async fn where_a_path_leads_that_hangs_is_told_and_nothing_is_mounted_there() {
        let directory = tempfile::tempdir().unwrap();
        let hanging = probe::scripted("echo looking; exec sleep 1000", Duration::from_millis(500));
        let host = LinuxHost::probing(hanging, directory.path().join("seed.img"));
        let want = proc_at(directory.path().to_owned());
        let (_, fact) = host.mounted(&want).await;
        assert!(matches!(fact, Observed::Known(MountFact::NotAnswering { .. })), "{fact:?}");
        assert!(host.mount(&want).await.is_err());
    }
}
