//! Broken documents and what is said of them, one file each; and documents that must be taken.
//!
//! The words are in `snapshots/`; after a change of words, look at each of them again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use zsha_crds::decode::{Options, decode_bytes};
use zsha_crds::diagnostic::{Code, Look, Severity};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn every_broken_document_is_refused_with_a_line_a_column_and_the_words_agreed() {
    let files = files("tests/bad");
    assert!(files.len() >= 60, "only {} broken documents", files.len());
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        for file in files {
            let name = name(&file);
            let faults = decode_bytes(&std::fs::read(&file).unwrap(), &name, &Options::default())
                .expect_err(&format!("{name} must be refused"));
            assert!(faults.has_errors(), "{name}");
            for item in faults.items() {
                assert!(item.line > Some(0) && item.column > Some(0), "{name}: {item:?}");
                assert!(item.hint.is_some(), "{name}: no hint: {item:?}");
            }
            insta::assert_snapshot!(name.clone(), faults.render(Look::Plain));
        }
    });
}

#[test]
fn every_code_of_an_error_is_shown_by_a_broken_document() {
    let mut seen = BTreeSet::new();
    for file in files("tests/bad") {
        if let Err(faults) = decode_bytes(&std::fs::read(&file).unwrap(), &name(&file), &Options::default()) {
            seen.extend(faults.items().iter().map(|item| item.code));
        }
    }
    // `Undecodable` is a fault of zsha itself; `TooLarge` has a test of its own, not a file.
    seen.extend([Code::Undecodable, Code::TooLarge]);
    let missing: Vec<_> =
        Code::ALL.iter().filter(|code| code.severity() == Severity::Error && !seen.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_good_document_is_taken() {
    let good = files("tests/good");
    let examples = files("../manifests/examples");
    assert!(good.len() >= 8 && examples.len() >= 4);
    for file in good.iter().chain(&examples) {
        let name = name(file);
        let decoded = decode_bytes(&std::fs::read(file).unwrap(), &name, &Options::default())
            .unwrap_or_else(|faults| panic!("{name} must be taken:\n{}", faults.render(Look::Plain)));
        let expect_warning = name.contains("warning");
        assert_eq!(!decoded.warnings.is_empty(), expect_warning, "{name}: {}", decoded.warnings);
    }
}

#[test]
fn the_two_forms_of_the_example_mean_the_same() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
    let read = |name: &str| {
        decode_bytes(&std::fs::read(examples.join(name)).unwrap(), name, &Options::default()).unwrap().cluster
    };
    let changes = zsha_crds::diff::diff(Some(&read("config.json")), &read("cluster.yaml"));
    let paths: Vec<_> = changes.iter().map(|change| change.path.to_string()).collect();
    // The old form gives the netmask by node too.
    assert_eq!(paths, ["spec.Network[0].Netmask"]);
}

#[test]
fn a_document_larger_than_the_limit_is_refused_unread() {
    let huge = "a: b\n".repeat(60_000);
    let faults = decode_bytes(huge.as_bytes(), "huge.yaml", &Options::default()).unwrap_err();
    assert_eq!(faults.items()[0].code, Code::TooLarge);
    assert_eq!(faults.items()[0].message, "the document must not be larger than 100 KiB, and it is larger");
}

#[test]
fn a_document_that_would_be_larger_than_the_limit_as_it_is_stored_is_refused() {
    let mut document = zsha_crds::testing::document(3);
    document["spec"]["ChronyServers"] = "HERE".into();
    // Without the quotation marks that each of them has in JSON.
    let servers = (0..14_000).map(|at| format!("{at:x}h")).collect::<Vec<_>>().join(",");
    let text = document.to_string().replace("\"HERE\"", &format!("[{servers}]"));
    assert!(text.len() < zsha_crds::decode::LARGEST, "{}", text.len());
    let faults = zsha_crds::decode(&text, "a.yaml").unwrap_err();
    assert_eq!(faults.items()[0].code, Code::TooLarge, "{faults}");
}

#[test]
fn faults_as_json_are_a_diagnostic_list() {
    let faults = zsha_crds::decode("apiVersion: zsha.io/v1\nkind: HaCluser\n", "a.yaml").unwrap_err();
    insta::assert_json_snapshot!(faults.to_list());
}

#[test]
fn colour_is_only_there_where_it_is_asked_for() {
    let faults = zsha_crds::decode("kind: \u{1b}[31mHaCluster\n", "a.yaml").unwrap_err();
    assert!(faults.render(Look::Coloured).contains("\u{1b}["));
    assert!(!faults.render(Look::Plain).contains('\u{1b}'), "{}", faults.render(Look::Plain));
}

#[test]
fn a_document_made_of_nothing_but_faults_is_answered_with_the_first_hundred() {
    let aliases = format!("a: &a x\nb: [{}]\n", "*a, ".repeat(20_000));
    let unknown: String = (0..9_000).map(|at| format!("k{at}: 1\n")).collect();
    let twice = "k: 1\n".repeat(20_000);
    let nodes = format!("{{\"Node\": [{}\"\"]}}", "\"10.0.0.1 a\",".repeat(7_000));
    for text in [aliases, unknown, twice, nodes] {
        let faults = zsha_crds::decode(&text, "-").unwrap_err();
        assert!((1..=100).contains(&faults.items().len()), "{}", faults.items().len());
        assert!(faults.items().iter().all(|item| item.code != Code::TooLarge), "{} bytes", text.len());
    }
}

#[test]
fn a_stored_document_is_held_to_the_same_schema_and_rules_without_lines() {
    let mut document = zsha_crds::testing::document(3);
    document["spec"]["CPU"] = 1.into();
    document["spec"]["Node"][1] = document["spec"]["Node"][0].clone();
    document["spec"]["Color"] = "red".into();
    let faults = zsha_crds::decode_value(&document).unwrap_err();
    let codes: BTreeSet<_> = faults.items().iter().map(|item| item.code).collect();
    for code in [Code::OutOfRange, Code::NodeNameTwice, Code::NodeAddressTwice, Code::UnknownKey] {
        assert!(codes.contains(&code), "{faults}");
    }
    assert!(faults.items().iter().all(|item| item.line.is_none() && item.path.starts_with("spec.")));
}

#[test]
fn a_mac_address_that_an_older_libvirt_refuses_is_warned_of() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good/warning-mac-like-a-tap.yaml");
    let decoded = decode_bytes(&std::fs::read(file).unwrap(), "a.yaml", &Options::default()).unwrap();
    let warning = &decoded.warnings.items()[0];
    assert_eq!((warning.code, warning.path.as_str()), (Code::MacLikeATap, "spec.Network[0].MacAddress"));
    assert!(warning.hint.as_deref().unwrap().contains("'02:98:54:4b:a5:c0'"), "{warning:?}");
}

#[test]
fn an_old_config_json_is_known_by_its_comments_whatever_it_is_called() {
    use zsha_crds::decode::Format;
    let format = |text: &str| zsha_crds::decode(text, "a.yaml").map(|decoded| decoded.format);
    let old = include_str!("good/config-json-named-yaml.yaml");
    assert_eq!(format(old), Ok(Format::ConfigJson));
    let flow = include_str!("good/flow-style.yaml");
    assert_eq!(format(flow), Ok(Format::Yaml));
    let share = flow.replacen("\"apiVersion\"", "apiVersion", 1).trim_end().trim_end_matches('}').to_owned()
        + ", Mounts: [{Source: //10.0.0.9/share, Target: /opt/smp/mngt, FsType: cifs}]}}\n";
    assert_eq!(format(&share), Ok(Format::Yaml), "a text with '//' is no comment");
    let faults = zsha_crds::decode(&old.replace("true", "yes"), "a.yaml").unwrap_err();
    assert!(faults.items().iter().all(|item| item.code == Code::Syntax), "{faults}");
}
