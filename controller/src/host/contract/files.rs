//! Cases on the image and the seed disk. Never here: what is mounted.

use std::sync::Arc;

use super::{Content, HostFacts, HostWants, ImageFact, ImageWant, Observed, Seed, SeedFact};
use super::{Image, LOOK, PROMPT, Rig, brings, look, seed, wants, within};

/// The beginning of a qcow2 image, which ends before its tables do.
const QCOW2: &[u8] = b"QFI\xfb\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\x03\0\0";

async fn seed_fact(rig: &dyn Rig, wanted: Seed) -> Observed<SeedFact> {
    let wants = HostWants { seed: Some(Arc::new(wanted)), ..wants(rig) };
    within(LOOK, "a look", rig.host().look(&wants)).await.seed.unwrap()
}

pub(crate) async fn an_image_is_told_as_what_is_there(rig: &dyn Rig) {
    for (image, fact) in [
        (Image::None, ImageFact::Missing),
        (Image::Directory, ImageFact::NotAFile),
        (Image::File(b""), ImageFact::Present(Content::Empty)),
        (Image::File(b"an image"), ImageFact::Present(Content::of(b"an image", 8))),
        (Image::File(QCOW2), ImageFact::Present(Content::of(QCOW2, 48))),
        (Image::None, ImageFact::Missing),
    ] {
        rig.set_image(image).await;
        assert_eq!(look(rig).await.image, Some(Observed::Known(fact)));
    }
}

pub(crate) async fn an_image_in_ceph_is_told_by_its_monitors(rig: &dyn Rig) {
    let wants = HostWants { image: Some(ImageWant::Ceph(vec![rig.monitor()])), ..HostWants::default() };
    for listens in [false, true, false] {
        rig.set_monitor(listens).await;
        let seen = within(PROMPT, "a look", rig.host().look(&wants)).await.image;
        let reached = ImageFact::Reached { monitor: rig.monitor() };
        match seen {
            Some(Observed::Known(fact)) if listens => assert_eq!(fact, reached),
            Some(Observed::Known(ImageFact::NotReached { .. })) if !listens => {}
            seen => panic!("listens: {listens}, and seen is {seen:?}"),
        }
    }
}

pub(crate) async fn a_seed_is_seen_once_it_is_written_and_is_an_event(rig: &dyn Rig) {
    assert_eq!(seed_fact(rig, seed("one")).await, Observed::Known(SeedFact::NotWritten));
    let writing = async { rig.host().write_seed(&seed("one")).await.unwrap() };
    let written = |facts: &HostFacts| facts.seed == Some(Observed::Known(SeedFact::Written));
    brings(rig, writing, "a seed", written).await;
    rig.host().write_seed(&seed("one")).await.unwrap();
    assert_eq!(seed_fact(rig, seed("one")).await, Observed::Known(SeedFact::Written));
}

pub(crate) async fn a_seed_of_before_is_not_the_one_that_is_wanted(rig: &dyn Rig) {
    for (before, wanted) in [("one", "another"), ("another", "one")] {
        rig.host().write_seed(&seed(before)).await.unwrap();
        assert_eq!(seed_fact(rig, seed(wanted)).await, Observed::Known(SeedFact::NotWritten));
        assert_eq!(seed_fact(rig, seed(before)).await, Observed::Known(SeedFact::Written));
    }
}

pub(crate) async fn a_seed_that_is_refused_says_why_until_it_is_written(rig: &dyn Rig) {
    rig.refuse_seeds().await;
    for _ in 0..2 {
        let refused = rig.host().write_seed(&seed("one")).await.unwrap_err().to_string();
        let Observed::Known(SeedFact::Refused { reason }) = seed_fact(rig, seed("one")).await else {
            panic!("not told")
        };
        assert!(refused.contains(&reason), "{refused}; {reason}");
        // Of another it is not known yet.
        assert_eq!(seed_fact(rig, seed("another")).await, Observed::Known(SeedFact::NotWritten));
    }
    rig.allow_seeds().await;
    rig.host().write_seed(&seed("one")).await.unwrap();
    assert_eq!(seed_fact(rig, seed("one")).await, Observed::Known(SeedFact::Written));
}
