//! What holds for every document: nothing panics, what is read back is what was written, and an applied document
//! differs from itself in nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use proptest::prelude::*;
use zsha_crds::decode::{Format, Options, decode_bytes, decode_with};
use zsha_crds::diagnostic::Look;
use zsha_crds::diff::{DiffLook, diff, unified};
use zsha_crds::normalise::{canonical, digest, effective, normalised, same, to_yaml};
use zsha_crds::{ClusterName, decode, decode_value, testing};

/// Reads bytes as a file of each kind and renders what is said of them.
fn read_every_way(bytes: &[u8]) {
    for name in ["a.yaml", "a.json", "-"] {
        if let Err(faults) = decode_bytes(bytes, name, &Options::default()) {
            assert!(faults.has_errors());
            assert!(
                faults.items().iter().all(|item| item.line > Some(0) && item.column > Some(0)),
                "{faults:?}"
            );
            faults.render(Look::Plain);
            faults.render(Look::Coloured);
            serde_json::to_string(&faults.to_list()).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        read_every_way(&bytes);
    }

    #[test]
    fn arbitrary_text_with_the_characters_that_matter_is_refused_without_a_panic(
        text in "[\\[\\]{}:,#&*!|>'\"%@`\\-? \t\r\na-c0-9~/\\\\\u{e9}\u{feff}\u{85}\u{1f600}]{0,80}"
    ) {
        read_every_way(text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_document_with_bytes_changed_is_judged_without_a_panic(
        seed: u64,
        json: bool,
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let cluster = testing::cluster(seed);
        let mut bytes = if json { serde_json::to_vec_pretty(&cluster).unwrap() } else { to_yaml(&cluster).into_bytes() };
        for (at, byte, mode) in edits {
            let at = at.index(bytes.len());
            match mode {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => { bytes.remove(at); }
            }
        }
        read_every_way(&bytes);
    }

    #[test]
    fn apply_then_diff_of_the_same_document_is_empty(seed: u64) {
        let text = to_yaml(&testing::cluster(seed));
        let applied = decode(&text, "a.yaml").unwrap().cluster;
        let stored = decode_value(&normalised(&applied)).unwrap();
        let again = decode(&text, "a.yaml").unwrap().cluster;
        prop_assert_eq!(diff(Some(&stored), &again), vec![]);
        prop_assert_eq!(unified(Some(&stored), &again, "a", "b", DiffLook::Plain), "");
        prop_assert_eq!(digest(&stored), digest(&again));
    }

    #[test]
    fn what_the_person_wrote_is_what_is_stored(seed: u64) {
        let document = testing::document(seed);
        let stored = normalised(&testing::cluster(seed));
        // A null is the same as nothing, 16.0 as 16, and blanks between address and name as one.
        let mut written = document.clone();
        let spec = written["spec"].as_object_mut().unwrap();
        spec.retain(|_, value| !value.is_null());
        if spec["MemorySizeInGB"].is_f64() {
            spec["MemorySizeInGB"] = 16.into();
        }
        for node in spec["Node"].as_array_mut().unwrap() {
            *node = node.as_str().unwrap().split_whitespace().collect::<Vec<_>>().join(" ").into();
        }
        prop_assert_eq!(stored, written);
    }

    #[test]
    fn defaults_written_out_and_defaults_left_out_mean_the_same(seed: u64) {
        let cluster = testing::cluster(seed);
        for form in [effective(&cluster), canonical(&cluster)] {
            prop_assert!(same(&cluster, &form));
            prop_assert_eq!(diff(Some(&cluster), &form), vec![]);
            let faults = zsha_crds::validate::check(&form);
            prop_assert!(!faults.has_errors(), "{}", faults);
        }
    }

    #[test]
    fn two_documents_differ_in_their_diff_exactly_when_their_digests_do(a in 0..200u64, b in 0..200u64) {
        let (a, b) = (testing::cluster(a), testing::cluster(b));
        let changes = diff(Some(&a), &b);
        prop_assert_eq!(changes.is_empty(), digest(&a) == digest(&b));
        prop_assert_eq!(changes.is_empty(), unified(Some(&a), &b, "a", "b", DiffLook::Plain).is_empty());
        prop_assert!(changes.iter().all(|change| !change.reason.is_empty() && change.old != change.new));
    }

    #[test]
    fn yaml_json_and_the_old_form_of_one_document_read_alike(seed: u64) {
        let mut cluster = testing::cluster(seed);
        // The old form needs both lists.
        cluster.spec.dns.get_or_insert_default();
        cluster.spec.chrony_servers.get_or_insert_default();
        let (yaml, json) = (to_yaml(&cluster), serde_json::to_string_pretty(&cluster).unwrap());
        let flat = serde_json::to_string(&cluster.spec).unwrap();
        let options = Options { cluster_name: Some(ClusterName::new(cluster.name().as_str()).unwrap()) };
        for (text, name, format) in [
            (&yaml, "-", Format::Yaml),
            (&json, "-", Format::Json),
            (&json, "a.yaml", Format::Yaml),
            (&flat, "-", Format::ConfigJson),
        ] {
            let decoded = decode_with(text, name, &options).unwrap_or_else(|faults| panic!("{faults}\n{text}"));
            prop_assert_eq!(&decoded.cluster, &cluster);
            prop_assert_eq!(decoded.format, format);
        }
    }

    #[test]
    fn our_reading_of_yaml_is_that_of_the_yaml_library(seed: u64) {
        let cluster = testing::cluster(seed);
        let theirs: zsha_crds::HaCluster = serde_yaml::from_str(&to_yaml(&cluster)).unwrap();
        prop_assert_eq!(theirs, cluster);
    }
}
