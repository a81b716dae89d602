//! Cases on the share that is mounted. Never here: what lies on it.

use super::{HostFacts, MountFact, Observed};
use super::{Rig, brings, is_mounted, mount, nothing_mounted, share};

pub(crate) async fn where_nothing_is_mounted_is_told(rig: &dyn Rig) {
    assert_eq!(share(rig).await, nothing_mounted());
}

pub(crate) async fn a_mount_is_seen_once_it_is_made_and_is_an_event(rig: &dyn Rig) {
    let target = rig.share().target;
    let mounting = async { mount(rig).await.unwrap() };
    brings(rig, mounting, "a mount", |facts| is_mounted(&facts.mounts[&target])).await;
    let Observed::Known(MountFact::Mounted { fs_type, options }) = share(rig).await else { panic!("gone") };
    assert_eq!(fs_type, rig.share().fs_type);
    assert!(options.split(',').any(|option| option == "ro"), "asked for, and not told: {options}");
}

pub(crate) async fn mounting_what_is_mounted_is_no_error_and_makes_no_second_one(rig: &dyn Rig) {
    for _ in 0..3 {
        mount(rig).await.unwrap();
    }
    rig.unmount_by_hand().await;
    assert_eq!(share(rig).await, nothing_mounted(), "one was made, and it was taken away");
}

pub(crate) async fn a_mount_by_somebody_else_counts_with_the_options_it_has(rig: &dyn Rig) {
    rig.mount_by_hand(&rig.share().source, "rw").await;
    let Observed::Known(MountFact::Mounted { options, .. }) = share(rig).await else { panic!("unseen") };
    assert!(options.split(',').any(|option| option == "rw"), "{options}");
    assert!(options.split(',').all(|option| option != "ro"), "wanted, and not there: {options}");
    mount(rig).await.unwrap();
    rig.unmount_by_hand().await;
    assert_eq!(share(rig).await, nothing_mounted());
}

pub(crate) async fn a_mount_that_is_taken_away_is_an_event_and_can_be_made_again(rig: &dyn Rig) {
    let target = rig.share().target;
    for _ in 0..2 {
        mount(rig).await.unwrap();
        assert!(is_mounted(&share(rig).await));
        let gone = |facts: &HostFacts| facts.mounts[&target] == nothing_mounted();
        brings(rig, rig.unmount_by_hand(), "its end", gone).await;
    }
}

pub(crate) async fn something_else_mounted_is_told_and_not_covered(rig: &dyn Rig) {
    rig.mount_by_hand("something-else", "rw").await;
    let other = MountFact::Other { source: "something-else".to_owned(), fs_type: rig.share().fs_type };
    assert_eq!(share(rig).await, Observed::Known(other.clone()));
    let refused = mount(rig).await.unwrap_err().to_string();
    assert!(refused.contains("something-else"), "{refused}");
    assert!(refused.contains(rig.share().target.to_str().unwrap()), "{refused}");
    assert_eq!(share(rig).await, Observed::Known(other));
    rig.unmount_by_hand().await;
    assert_eq!(share(rig).await, nothing_mounted());
}

pub(crate) async fn a_mount_that_is_refused_says_where_and_leaves_nothing(rig: &dyn Rig) {
    rig.refuse_mounts().await;
    for _ in 0..2 {
        let refused = mount(rig).await.unwrap_err().to_string();
        assert!(refused.contains(rig.share().target.to_str().unwrap()), "{refused}");
        assert_eq!(share(rig).await, nothing_mounted());
    }
    rig.allow_mounts().await;
    mount(rig).await.unwrap();
    assert!(is_mounted(&share(rig).await));
}
