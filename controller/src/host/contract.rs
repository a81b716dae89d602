//! The contract of [`Host`] as cases. The same cases run on the simulated host, below, and on this very kernel, in
//! namespaces of each case's own, in `tests/host_contract.rs`, which takes this file in as it is. A case asserts what
//! the prose of the trait promises, and waits for states through [`Host::changes`] alone: without the event it never
//! ends.

// By their paths, since whoever takes this file in as it is would look for them beside it.
#[path = "contract/bridges.rs"]
mod bridges;
#[path = "contract/files.rs"]
mod files;
#[path = "contract/mounts.rs"]
mod mounts;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{
    BridgeFact, BridgeWant, Content, Host, HostFacts, HostWants, ImageFact, ImageWant, MountFact, MountWant,
    Observed, Seed, SeedFact,
};

pub(crate) use bridges::*;
pub(crate) use files::*;
pub(crate) use mounts::*;

/// A host with no link of the names below, nothing mounted and no image, and the means to do to it what no caller can.
#[async_trait]
pub(crate) trait Rig: Send + Sync {
    fn host(&self) -> &dyn Host;
    /// A file system that can be mounted, read-only, where nothing is mounted yet.
    fn share(&self) -> MountWant;
    fn image(&self) -> PathBuf;
    /// Makes this link under this name, whatever there was before.
    async fn set_link(&self, name: &str, link: Link);
    /// Mounts this where [`Rig::share`] is wanted, as another program would.
    async fn mount_by_hand(&self, source: &str, options: &str);
    /// Takes away what was mounted there last, as another program would.
    async fn unmount_by_hand(&self);
    /// Lets every mount that is asked for there fail.
    async fn refuse_mounts(&self);
    async fn allow_mounts(&self);
    /// Refuses every seed disk that is written from now on; none is there.
    async fn refuse_seeds(&self);
    async fn allow_seeds(&self);
    async fn set_image(&self, image: Image);
    /// Says whether a server listens at [`Rig::monitor`].
    async fn set_monitor(&self, listens: bool);
    /// The address of a monitor, as a document names one of Ceph's.
    fn monitor(&self) -> String;
    /// Lets the storage neither answer nor fail; the kernel does answer.
    async fn hang_storage(&self);
    async fn go_on(&self);
    /// Lets every look fail.
    async fn blind(&self);
    async fn see_again(&self);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    None,
    /// A bridge that is down.
    Down,
    /// A bridge that is up, and the cable in it leads nowhere.
    Dead,
    /// A bridge that is up, and so is the far end of its cable.
    Carrying,
    /// The same as `Dead`, with a running guest in it.
    DeadWithGuest,
    /// One end of a cable: no bridge.
    Veth,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Image {
    None,
    Directory,
    /// A file that holds this.
    File(&'static [u8]),
}

/// Hands the name of every case to a macro.
macro_rules! every_case {
    ($tests:ident) => {
        $tests! {
            each_question_is_answered_once_and_nothing_else_is,
            a_link_nobody_has_is_missing,
            a_bridge_is_told_with_whether_it_is_up_and_has_a_carrier,
            a_link_that_is_no_bridge_is_told_with_its_kind,
            a_bridge_that_comes_and_goes_is_an_event,
            a_bridge_that_goes_down_is_an_event,
            where_nothing_is_mounted_is_told,
            a_mount_is_seen_once_it_is_made_and_is_an_event,
            mounting_what_is_mounted_is_no_error_and_makes_no_second_one,
            a_mount_by_somebody_else_counts_with_the_options_it_has,
            a_mount_that_is_taken_away_is_an_event_and_can_be_made_again,
            something_else_mounted_is_told_and_not_covered,
            a_mount_that_is_refused_says_where_and_leaves_nothing,
            an_image_is_told_as_what_is_there,
            an_image_in_ceph_is_told_by_its_monitors,
            a_seed_is_seen_once_it_is_written_and_is_an_event,
            a_seed_of_before_is_not_the_one_that_is_wanted,
            a_seed_that_is_refused_says_why_until_it_is_written,
            storage_that_hangs_is_told_so_in_bounded_time_and_hides_no_bridge,
            what_cannot_be_looked_at_is_unknown_and_never_absent,
            looking_twice_changes_nothing,
        }
    };
}
#[allow(unused_imports, reason = "whoever takes the file in needs it, or is it")]
pub(crate) use every_case;

const BRIDGE: &str = "zbr0";
const ANOTHER: &str = "zbr1";

/// The time within which an event is prompt: well before a caller would look by itself.
const PROMPT: Duration = Duration::from_secs(5);
/// The longest time for a look, whatever hangs.
const LOOK: Duration = Duration::from_secs(10);

async fn within<T>(time: Duration, what: &str, doing: impl Future<Output = T>) -> T {
    match tokio::time::timeout(time, doing).await {
        Ok(value) => value,
        Err(_) => panic!("not within {} s: {what}", time.as_secs()),
    }
}

pub(crate) fn wants(rig: &dyn Rig) -> HostWants {
    let bridge = |name: &str| BridgeWant { name: name.to_owned(), require_carrier: true };
    HostWants {
        bridges: vec![bridge(BRIDGE), bridge(ANOTHER)],
        mounts: vec![rig.share()],
        image: Some(ImageWant::File(rig.image())),
        seed: Some(Arc::new(seed("one"))),
    }
}

fn seed(what: &str) -> Seed {
    let text = || what.to_owned();
    Seed { meta_data: text(), user_data: text(), network_config: text() }
}

async fn look(rig: &dyn Rig) -> HostFacts {
    within(LOOK, "a look", rig.host().look(&wants(rig))).await
}

async fn bridge(rig: &dyn Rig) -> Observed<BridgeFact> {
    look(rig).await.bridges[BRIDGE].clone()
}

async fn share(rig: &dyn Rig) -> Observed<MountFact> {
    look(rig).await.mounts[&rig.share().target].clone()
}

async fn mount(rig: &dyn Rig) -> Result<(), super::HostError> {
    within(LOOK, "a mount", rig.host().mount(&rig.share())).await
}

/// Looks whenever told that something changed, until `so` holds.
async fn comes_to(rig: &dyn Rig, what: &str, so: impl Fn(&HostFacts) -> bool + Send + Sync) {
    let mut changes = rig.host().changes();
    within(PROMPT, what, async {
        loop {
            changes.borrow_and_update();
            if so(&look(rig).await) {
                return;
            }
            changes.changed().await.unwrap();
        }
    })
    .await;
}

/// Does something while another task waits for the event of it, until `so` holds.
async fn brings(
    rig: &dyn Rig,
    doing: impl Future<Output = ()>,
    what: &str,
    so: impl Fn(&HostFacts) -> bool + Send + Sync,
) {
    assert!(!so(&look(rig).await), "{what}: already");
    tokio::join!(comes_to(rig, what, so), doing);
}

fn is_mounted(fact: &Observed<MountFact>) -> bool {
    matches!(fact, Observed::Known(MountFact::Mounted { .. }))
}

fn nothing_mounted() -> Observed<MountFact> {
    Observed::Known(MountFact::NotMounted)
}

pub(crate) async fn each_question_is_answered_once_and_nothing_else_is(rig: &dyn Rig) {
    rig.set_link(ANOTHER, Link::Dead).await;
    let nothing = rig.host().look(&HostWants::default()).await;
    assert_eq!(nothing, HostFacts::default());
    let facts = look(rig).await;
    assert_eq!(facts.bridges.keys().collect::<Vec<_>>(), [BRIDGE, ANOTHER]);
    assert_eq!(facts.mounts.keys().collect::<Vec<_>>(), [&rig.share().target]);
    assert!(facts.image.is_some());
    let all = wants(rig);
    let twice = HostWants { bridges: [all.bridges.clone(), all.bridges.clone()].concat(), ..all };
    assert_eq!(rig.host().look(&twice).await, facts);
}

pub(crate) async fn storage_that_hangs_is_told_so_in_bounded_time_and_hides_no_bridge(rig: &dyn Rig) {
    rig.set_link(BRIDGE, Link::Dead).await;
    mount(rig).await.unwrap();
    rig.set_image(Image::File(b"1")).await;
    rig.hang_storage().await;
    for _ in 0..2 {
        let facts = look(rig).await;
        let mount = &facts.mounts[&rig.share().target];
        assert!(matches!(mount, Observed::Known(MountFact::NotAnswering { .. })), "{facts:?}");
        assert!(matches!(facts.image, Some(Observed::Known(ImageFact::NotAnswering { .. }))), "{facts:?}");
        assert!(matches!(facts.bridges[BRIDGE], Observed::Known(BridgeFact::Bridge { up: true, .. })));
    }
    rig.go_on().await;
    let facts = look(rig).await;
    assert!(is_mounted(&facts.mounts[&rig.share().target]), "{facts:?}");
    assert_eq!(facts.image, Some(Observed::Known(ImageFact::Present(Content::of(b"1", 1)))));
}

pub(crate) async fn what_cannot_be_looked_at_is_unknown_and_never_absent(rig: &dyn Rig) {
    rig.blind().await;
    let facts = look(rig).await;
    assert!(facts.bridges.values().all(|fact| matches!(fact, Observed::Unknown(_))), "{facts:?}");
    assert!(facts.mounts.values().all(|fact| matches!(fact, Observed::Unknown(_))), "{facts:?}");
    assert!(matches!(facts.image, Some(Observed::Unknown(_))), "{facts:?}");
    assert!(matches!(facts.seed, Some(Observed::Unknown(_))), "{facts:?}");
    assert!(mount(rig).await.is_err(), "what is there is not known");
    rig.see_again().await;
    let facts = look(rig).await;
    assert_eq!(facts.bridges[BRIDGE], Observed::Known(BridgeFact::Missing));
    assert_eq!(facts.mounts[&rig.share().target], nothing_mounted());
    assert_eq!(facts.image, Some(Observed::Known(ImageFact::Missing)));
}

pub(crate) async fn looking_twice_changes_nothing(rig: &dyn Rig) {
    rig.set_link(BRIDGE, Link::Dead).await;
    mount(rig).await.unwrap();
    rig.set_image(Image::File(b"an image")).await;
    let before = look(rig).await;
    let mut changes = rig.host().changes();
    // The events of what was done may still come; those of looks would never end.
    while tokio::time::timeout(Duration::from_millis(500), changes.changed()).await.is_ok() {
        changes.borrow_and_update();
    }
    for _ in 0..3 {
        assert_eq!(look(rig).await, before);
    }
    let moved = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
    assert!(moved.is_err(), "a look is no event");
}
