//! What releases have written to the store is read by this one, and what this one writes back loses nothing of it.
//! A folder a release, as it wrote them; none is ever changed. The last one is what this release writes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zsha_crds::records::{
    EventRecord, HistoryRecord, Intent, LeaseRecord, NodeStatus, StoredSpec, VmRecord, VmStatus,
};

/// Read and written back.
fn again<T: DeserializeOwned + Serialize>(text: &str) -> serde_json::Result<Value> {
    serde_json::to_value(serde_json::from_str::<T>(text)?)
}

fn read_and_written(kind: &str, text: &str) -> serde_json::Result<Value> {
    match kind {
        "lease" => again::<LeaseRecord>(text),
        "vm" => again::<VmRecord>(text),
        "intent" => again::<Intent>(text),
        "node-status" => again::<NodeStatus>(text),
        "vm-status" => again::<VmStatus>(text),
        "event" => again::<EventRecord>(text),
        "spec" => again::<StoredSpec>(text),
        "history" => again::<HistoryRecord>(text),
        other => panic!("no record is called '{other}'"),
    }
}

/// Release, kind, name of the file, content.
fn records() -> Vec<(String, String, String, String)> {
    let mut records = Vec::new();
    for release in std::fs::read_dir(Path::new("tests/records")).unwrap() {
        let release = release.unwrap();
        for file in std::fs::read_dir(release.path()).unwrap() {
            let file = file.unwrap();
            let name = file.file_name().into_string().unwrap();
            let kind = name.split('.').next().unwrap().to_owned();
            let text = std::fs::read_to_string(file.path()).unwrap();
            records.push((release.file_name().into_string().unwrap(), kind, name, text));
        }
    }
    assert!(records.len() >= 13, "only {} records", records.len());
    records
}

#[test]
fn what_a_release_has_written_is_read_and_written_back_whole() {
    for (release, kind, name, text) in records() {
        let written: Value = serde_json::from_str(&text).unwrap();
        let back = read_and_written(&kind, &text).unwrap_or_else(|error| panic!("{release}/{name}: {error}"));
        for (field, value) in written.as_object().unwrap() {
            assert_eq!(back.get(field), Some(value), "{release}/{name}: {field}");
        }
    }
}

#[test]
fn a_field_of_a_newer_release_is_passed_over() {
    for (release, kind, name, text) in records() {
        let mut newer: Value = serde_json::from_str(&text).unwrap();
        newer["fieldOfTheFuture"] = json!({ "any": ["thing"] });
        let read = read_and_written(&kind, &newer.to_string());
        assert!(read.is_ok(), "{release}/{name}: {}", read.unwrap_err());
    }
}

#[test]
fn a_word_of_a_newer_release_is_unknown_and_never_another() {
    let lease = include_str!("records/0.1.0/lease.held.json").replace("\"Held\"", "\"Lent\"");
    assert!(again::<LeaseRecord>(&lease).is_err());
    let vm = include_str!("records/0.1.0/vm.running.json").replace("\"Running\"", "\"Hibernated\"");
    assert!(again::<VmRecord>(&vm).is_err());
    assert!(again::<Intent>(r#"{"kind":"freeze"}"#).is_err());
}

#[test]
fn a_record_cut_short_or_garbled_is_an_error() {
    for (release, kind, name, text) in records() {
        let text = text.trim_end();
        for end in 0..text.len() {
            if let Some(part) = text.get(..end) {
                assert!(read_and_written(&kind, part).is_err(), "{release}/{name} up to {end}");
            }
        }
    }
}
