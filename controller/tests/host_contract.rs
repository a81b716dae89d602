//! A Linux host keeps the contract: the same cases as the simulated one, each in a process in network and mount
//! namespaces of its own, so that its links and mounts are gone with it and nothing of the machine is touched. Root is
//! needed: without it this fails and says so.

#![allow(clippy::unwrap_used, reason = "these are tests")]

/// Taken in rather than linked: the library carries its tests only when it is itself under test.
#[path = "../src/host/contract.rs"]
mod contract;
#[path = "host_contract/rig.rs"]
mod rig;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::{Image, Link, Rig, every_case};
use rig::{LinuxRig, inside, run};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zsha_controller::guest::Seed;
use zsha_controller::host::{
    Barred, BridgeFact, BridgeWant, Content, Host, HostError, HostFacts, HostWants, ImageFact, ImageWant,
    LinuxHost, MountFact, MountWant, SeedFact,
};
use zsha_controller::keeper::copies::{Copies, VmCopy};
use zsha_controller::observed::Observed;

macro_rules! tests {
    ($($case:ident,)*) => {
        $(#[test]
        fn $case() {
            inside(stringify!($case), async |rig| contract::$case(&rig).await);
        })*
    };
}
every_case!(tests);

/// The questions that are put to the host: what is wanted of it, and nothing else.
fn wants(rig: &LinuxRig) -> HostWants {
    HostWants {
        bridges: vec![BridgeWant { name: "zbr0".to_owned(), require_carrier: false }],
        mounts: vec![rig.share()],
        image: None,
        seed: None,
    }
}

async fn share(rig: &LinuxRig) -> Observed<MountFact> {
    rig.host().look(&wants(rig)).await.mounts[&rig.share().target].clone()
}

#[test]
fn without_proc_no_mount_is_known_and_bridges_still_are() {
    inside("without_proc_no_mount_is_known_and_bridges_still_are", async |rig| {
        rig.set_link("zbr0", Link::Dead).await;
        rig.host().mount(&rig.share()).await.unwrap();
        unmount("/proc", UnmountFlags::DETACH).unwrap();
        let facts = rig.host().look(&wants(&rig)).await;
        assert!(matches!(facts.mounts[&rig.share().target], Observed::Unknown(_)), "{facts:?}");
        assert!(matches!(facts.bridges["zbr0"], Observed::Known(BridgeFact::Bridge { up: true, .. })));
        assert!(rig.host().mount(&rig.share()).await.is_err());
        run("mount", ["-t", "proc", "proc", "/proc"]);
        assert!(matches!(share(&rig).await, Observed::Known(MountFact::Mounted { .. })));
    });
}

/// Whatever happened to mounts while nobody could follow them is looked at once somebody can.
#[test]
fn a_table_that_can_be_followed_again_is_an_event() {
    inside("a_table_that_can_be_followed_again_is_an_event", async |rig| {
        unmount("/proc", UnmountFlags::DETACH).unwrap();
        let late = rig.another_host();
        let mut changes = late.changes();
        // Links can be followed at once, which is an event too.
        while tokio::time::timeout(Duration::from_secs(1), changes.changed()).await.is_ok() {}
        rig.mount_by_hand("zsha-share", "ro").await;
        run("mount", ["-t", "proc", "proc", "/proc"]);
        tokio::time::timeout(Duration::from_secs(20), changes.changed()).await.unwrap().unwrap();
        let facts = late.look(&wants(&rig)).await;
        assert!(matches!(facts.mounts[&rig.share().target], Observed::Known(MountFact::Mounted { .. })));
    });
}

/// A FUSE that nobody serves is like NFS whose server is away: a process that touches it waits.
#[test]
fn a_mount_whose_server_never_answers_or_is_gone_is_told_so_and_hides_no_image_elsewhere() {
    inside(
        "a_mount_whose_server_never_answers_or_is_gone_is_told_so_and_hides_no_image_elsewhere",
        async |rig| {
            let Ok(server) = File::options().read(true).write(true).open("/dev/fuse") else {
                println!("left out: the kernel lends no /dev/fuse");
                return;
            };
            let want = MountWant { fs_type: "fuse".to_owned(), ..rig.share() };
            std::fs::create_dir(&want.target).unwrap();
            let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
            let options = std::ffi::CString::new(options).unwrap();
            mount(&want.source, &want.target, "fuse", MountFlags::empty(), Some(options.as_c_str())).unwrap();
            let on_it = HostWants {
                mounts: vec![want.clone()],
                image: Some(ImageWant::File(want.target.join("mnvm.img"))),
                ..wants(&rig)
            };
            let silent = |looked: &HostFacts| {
                let mount = &looked.mounts[&want.target];
                assert!(matches!(mount, Observed::Known(MountFact::NotAnswering { .. })), "{looked:?}");
            };
            let looked =
                tokio::time::timeout(Duration::from_secs(10), rig.host().look(&on_it)).await.unwrap();
            silent(&looked);
            assert!(
                matches!(looked.image, Some(Observed::Known(ImageFact::NotAnswering { .. }))),
                "{looked:?}"
            );
            assert_eq!(looked.bridges["zbr0"], Observed::Known(BridgeFact::Missing));

            rig.set_image(Image::File(b"an image")).await;
            let beside = HostWants { image: Some(ImageWant::File(rig.image())), ..on_it.clone() };
            // More often than there are places for what hangs.
            for _ in 0..3 {
                let looked = rig.host().look(&beside).await;
                silent(&looked);
                assert_eq!(
                    looked.image,
                    Some(Observed::Known(ImageFact::Present(Content::of(b"an image", 8))))
                );
            }
            drop(server);
            let looked = rig.host().look(&on_it).await;
            silent(&looked);
            assert!(
                matches!(looked.image, Some(Observed::Known(ImageFact::NotAnswering { .. }))),
                "{looked:?}"
            );
        },
    );
}

fn qemu_img<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) {
    run("qemu-img", arguments);
}

/// An image on an image on an image, as two snapshots leave it, made by the real `qemu-img`.
#[test]
fn an_image_of_which_a_lower_file_is_missing_is_told_with_that_file() {
    inside("an_image_of_which_a_lower_file_is_missing_is_told_with_that_file", async |rig| {
        let top = rig.image();
        let beside = |name: &str| top.with_file_name(name);
        let (base, middle) = (beside("base.img"), beside("middle.img"));
        let base_at = base.display().to_string();
        qemu_img(["create", "-q", "-f", "qcow2", &base_at, "8M"]);
        qemu_img(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", &base_at, middle.to_str().unwrap()]);
        // By a relative name, which is meant beside the image and not where somebody looks from.
        qemu_img(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "middle.img", top.to_str().unwrap()]);
        let look = async || {
            let wants = HostWants { image: Some(ImageWant::File(rig.image())), ..HostWants::default() };
            rig.host().look(&wants).await.image
        };
        let whole = look().await;
        let Some(Observed::Known(ImageFact::Present(Content::Qcow2(header)))) = &whole else {
            panic!("{whole:?}")
        };
        assert_eq!(header.backing.as_deref(), Some("middle.img"));
        for lower in [&middle, &base] {
            let away = lower.with_extension("away");
            std::fs::rename(lower, &away).unwrap();
            let seen = look().await;
            let Some(Observed::Known(ImageFact::BackingMissing { path, .. })) = &seen else {
                panic!("{seen:?}")
            };
            assert_eq!(path, &lower.display().to_string());
            std::fs::rename(&away, lower).unwrap();
        }
        assert_eq!(look().await, whole);
    });
}

/// Of what bars QEMU from the image nothing is seen by root's eyes alone.
#[test]
fn whether_qemu_may_come_to_the_image_is_asked_as_the_user_that_libvirt_runs_it_as() {
    inside("whether_qemu_may_come_to_the_image_is_asked_as_the_user_that_libvirt_runs_it_as", async |rig| {
        use std::os::unix::fs::{PermissionsExt, chown};
        let folder = rig.share().target.join("smp");
        std::fs::create_dir_all(&folder).unwrap();
        mount("none", &rig.share().target, "tmpfs", MountFlags::empty(), None).unwrap();
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("mnvm.img");
        std::fs::write(&path, "an image").unwrap();
        let mode = |path: &std::path::Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let wants = HostWants { image: Some(ImageWant::File(path.clone())), ..HostWants::default() };
        let look = async || rig.host().look(&wants).await.image.unwrap();
        let there = || Observed::Known(ImageFact::Present(Content::of(b"an image", 8)));
        mode(&path, 0o600);
        assert_eq!(look().await, there(), "libvirt hands it over");

        mode(&folder, 0o700);
        let Observed::Known(ImageFact::Barred(Barred::Folder { user, folder: closed })) = look().await else {
            panic!("{:?}", look().await)
        };
        assert_eq!((user.contains("qemu"), closed), (true, folder.display().to_string()));
        mode(&folder, 0o711);
        assert_eq!(look().await, there());

        rustix::mount::mount_remount(&rig.share().target, MountFlags::RDONLY, "").unwrap();
        assert_eq!(look().await, Observed::Known(ImageFact::Barred(Barred::ReadOnly)));
        rustix::mount::mount_remount(&rig.share().target, MountFlags::empty(), "").unwrap();
        assert_eq!(look().await, there());

        rig.squash_root();
        chown(&path, Some(1), None).unwrap();
        assert!(matches!(look().await, Observed::Known(ImageFact::NotReadable { .. })));
        mode(&path, 0o644);
        assert!(matches!(look().await, Observed::Known(ImageFact::Barred(Barred::File { .. }))));
        mode(&path, 0o600);
        let number = Command::new("id").args(["-u", &user]).output().unwrap().stdout;
        let number = String::from_utf8(number).unwrap().trim().parse().unwrap();
        chown(&path, Some(number), None).unwrap();
        assert_eq!(look().await, there(), "root does not read it, and QEMU does");
    });
}

/// This very process, in the place of a QEMU; or none.
#[derive(Debug)]
struct Us(AtomicBool);

impl Copies for Us {
    fn alive(&self) -> std::io::Result<Vec<VmCopy>> {
        let us = VmCopy::numbered(std::process::id().into());
        Ok(self.0.load(Ordering::SeqCst).then_some(us).into_iter().collect())
    }

    fn kill(&self, _: &VmCopy) -> std::io::Result<()> {
        panic!("a look kills nobody")
    }
}

/// The way to the image leads into a FUSE that nobody serves, which was mounted over its directory.
#[test]
fn an_image_whose_path_hangs_is_seen_to_be_reached_by_the_vm_that_has_it_open() {
    inside("an_image_whose_path_hangs_is_seen_to_be_reached_by_the_vm_that_has_it_open", async |rig| {
        let Ok(server) = File::options().read(true).write(true).open("/dev/fuse") else {
            println!("left out: the kernel lends no /dev/fuse");
            return;
        };
        let directory = rig.share().target;
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("mnvm.img");
        std::fs::write(&path, "an image").unwrap();
        let open = File::open(&path).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        mount("nobody", &directory, "fuse", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        let us = Arc::new(Us(AtomicBool::new(true)));
        let host = rig.another_host().of_vm(Arc::<Us>::clone(&us));
        let wants = HostWants { image: Some(ImageWant::File(path)), ..HostWants::default() };
        let seen = async || host.look(&wants).await.image;
        assert!(matches!(seen().await, Some(Observed::Known(ImageFact::Hidden { .. }))));
        drop(open);
        let by_another_name = seen().await;
        let Some(Observed::Unknown(why)) = &by_another_name else {
            panic!("it may have it open over a link: {by_another_name:?}")
        };
        assert!(why.contains("has no file of the name mnvm.img open"), "{why}");
        us.0.store(false, Ordering::SeqCst);
        assert!(matches!(seen().await, Some(Observed::Known(ImageFact::NotAnswering { .. }))));
    });
}

/// Room for the one or other file, and for no child: its line alone takes more.
#[test]
fn a_look_for_which_no_child_can_be_made_says_nothing_about_the_image_or_a_mount() {
    inside("a_look_for_which_no_child_can_be_made_says_nothing_about_the_image_or_a_mount", async |rig| {
        rig.host().mount(&rig.share()).await.unwrap();
        rig.set_image(Image::File(b"an image")).await;
        let wants = HostWants { image: Some(ImageWant::File(rig.image())), ..wants(&rig) };
        let look = async || rig.host().look(&wants).await;
        let well = look().await;
        assert_eq!(well.image, Some(Observed::Known(ImageFact::Present(Content::of(b"an image", 8)))));
        let limit = getrlimit(Resource::Nofile);
        let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        for spare in 0..3 {
            setrlimit(Resource::Nofile, Rlimit { current: Some(open + spare), maximum: limit.maximum })
                .unwrap();
            let looked = look().await;
            setrlimit(Resource::Nofile, limit).unwrap();
            let Some(Observed::Unknown(why)) = &looked.image else { panic!("{spare} to spare: {looked:?}") };
            assert!(why.contains("Too many open files"), "{why}");
            assert!(matches!(looked.mounts[&rig.share().target], Observed::Unknown(_)), "{looked:?}");
        }
        assert_eq!(look().await, well);
    });
}
