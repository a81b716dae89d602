//! What releases have written to the store is read by this one, and what this one writes back loses nothing of it; and
//! the other way round, since nodes are upgraded one after the other: what this one writes is read by those before it,
//! and what they write back is read here.
//! A folder a release, as it wrote them, and a file of its shapes in `frozen`; none is ever changed. The last folder is
//! what this release writes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

#[path = "frozen/today.rs"]
mod today;
#[path = "frozen/v0_1_0.rs"]
mod v0_1_0;

use std::collections::BTreeSet;
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

/// Read and written back by a release.
type Old = fn(&str, &str) -> Option<serde_json::Result<Value>>;

/// The releases with a folder.
const RELEASES: [(&str, Old); 1] = [("0.1.0", v0_1_0::read_and_written)];

const KINDS: [&str; 8] = ["lease", "vm", "intent", "node-status", "vm-status", "event", "spec", "history"];

/// The field of records whose own fields are not looked into: a document, and one entry for each node.
const OPAQUE: &str = "document";
const BY_NODE: &str = "failures";

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
    for (release, _) in RELEASES {
        let kinds: BTreeSet<&str> =
            records.iter().filter(|(of, ..)| of == release).map(|(_, kind, ..)| kind.as_str()).collect();
        assert_eq!(kinds, BTreeSet::from(KINDS), "{release}");
    }
    assert!(records.iter().all(|(of, ..)| RELEASES.iter().any(|(release, _)| release == of)));
    records
}

/// Every field there is, by its way from the top.
fn fields(record: &Value) -> BTreeSet<String> {
    fn walk(way: &str, value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let name = if way.ends_with(BY_NODE) { "*" } else { name };
                    let way = format!("{way}.{name}");
                    if name != OPAQUE {
                        walk(&way, value, found);
                    }
                    found.insert(way);
                }
            }
            Value::Array(values) => values.iter().for_each(|value| walk(&format!("{way}[]"), value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = BTreeSet::new();
    walk("", record, &mut found);
    found
}

/// The same with a field more wherever there can be one.
fn of_the_future(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let grown = fields.iter().map(|(name, value)| {
                let value = match (name.as_str(), value) {
                    (OPAQUE, document) => document.clone(),
                    (BY_NODE, Value::Object(nodes)) => {
                        nodes.iter().map(|(node, of)| (node.clone(), of_the_future(of))).collect()
                    }
                    (_, value) => of_the_future(value),
                };
                (name.clone(), value)
            });
            let more = ("fieldOfTheFuture".to_owned(), json!({ "any": ["thing"] }));
            grown.chain([more]).collect()
        }
        Value::Array(values) => values.iter().map(of_the_future).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[test]
fn every_field_that_this_release_writes_is_in_its_folder() {
    let (last, _) = RELEASES[RELEASES.len() - 1];
    for kind in KINDS {
        let all = |records: Vec<Value>| -> BTreeSet<String> { records.iter().flat_map(fields).collect() };
        let written = today::records().into_iter().filter(|(of, _)| *of == kind).map(|(_, record)| record);
        let written = all(written.collect());
        assert!(!written.is_empty(), "{kind}");
        let shown = records().into_iter().filter(|(release, of, ..)| release == last && of == kind);
        let shown = all(shown.map(|(.., text)| serde_json::from_str(&text).unwrap()).collect());
        assert_eq!(shown, written, "{last}: {kind}");
    }
}

#[test]
fn what_this_release_writes_is_read_by_those_before_it_and_what_they_write_back_is_read_here() {
    for (release, old) in RELEASES {
        for (kind, written) in today::records() {
            let by_old = old(kind, &written.to_string()).unwrap();
            let by_old =
                by_old.unwrap_or_else(|error| panic!("{release} cannot read {kind} {written}: {error}"));
            assert_kept(&by_old, &written, release);
            let back = read_and_written(kind, &by_old.to_string());
            let back =
                back.unwrap_or_else(|error| panic!("{kind} as {release} writes it, {by_old}: {error}"));
            assert_kept(&by_old, &back, release);
        }
    }
}

/// A release that does not know what a host says beside a drain does not write it back: to that release the node is
/// drained, and no more.
#[test]
fn a_host_that_shuts_down_is_drained_for_a_release_that_knows_no_more() {
    let drain = include_str!("records/0.1.0/intent.drain.json");
    let mut said: Value = serde_json::from_str(drain).unwrap();
    said["shutdown"] = json!({ "bootId": "b" });
    let back = again::<Intent>(&said.to_string()).unwrap();
    assert_eq!(back["shutdown"], json!({ "bootId": "b", "noTimeToMove": false }));
    let by_old = v0_1_0::read_and_written("intent", &said.to_string()).unwrap().unwrap();
    assert_eq!(by_old, serde_json::from_str::<Value>(drain).unwrap());
}

/// A field that is added to a record is read here, may be missing, and is passed over by earlier releases.
#[test]
fn what_was_added_since_the_last_release_may_be_missing_and_is_passed_over_by_it() {
    let added = [
        (
            "vm",
            "vm.running.json",
            "departed",
            json!({ "from": "nfs-1", "at": "2026-11-29T15:00:00Z", "seenOn": ["nfs-2"] }),
        ),
        ("node-status", "node-status.json", "runsUnnamed", json!(true)),
        ("node-status", "node-status.json", "virtualHost", json!("a virtual machine (QEMU)")),
        ("node-status", "node-status.json", "lookedAfter", json!(77)),
        (
            "node-status",
            "node-status.json",
            "lostLeases",
            json!([{ "epoch": 3, "at": "2026-11-29T15:00:00Z" }]),
        ),
    ];
    for (kind, name, field, value) in added {
        let before = std::fs::read_to_string(Path::new("tests/records/0.1.0").join(name)).unwrap();
        let before: Value = serde_json::from_str(&before).unwrap();
        let mut said = before.clone();
        said[field] = value.clone();
        assert_eq!(read_and_written(kind, &said.to_string()).unwrap()[field], value, "{field}");
        let without = read_and_written(kind, &before.to_string()).unwrap();
        assert!(without.get(field).is_none(), "{field}");
        let by_old = v0_1_0::read_and_written(kind, &said.to_string()).unwrap().unwrap();
        assert_eq!(by_old, v0_1_0::read_and_written(kind, &before.to_string()).unwrap().unwrap(), "{field}");
    }
}

/// Whatever `part` has, `whole` has too, and the same.
fn assert_kept(part: &Value, whole: &Value, release: &str) {
    match (part, whole) {
        (Value::Object(part), Value::Object(whole)) => {
            for (name, value) in part {
                let kept = whole.get(name).unwrap_or_else(|| panic!("{release}: {name} is not in {whole:?}"));
                assert_kept(value, kept, release);
            }
        }
        (Value::Array(part), Value::Array(whole)) => {
            assert_eq!(part.len(), whole.len(), "{release}");
            part.iter().zip(whole).for_each(|(part, whole)| assert_kept(part, whole, release));
        }
        (part, whole) => assert_eq!(part, whole, "{release}"),
    }
}

/// The shapes that a release itself had read what it wrote, and lose nothing of it.
#[test]
fn a_release_reads_its_own_records() {
    for (release, kind, name, text) in records() {
        let (_, old) = RELEASES.iter().find(|(of, _)| *of == release).unwrap();
        let back = old(&kind, &text).unwrap().unwrap_or_else(|error| panic!("{release}/{name}: {error}"));
        assert_eq!(fields(&back), fields(&serde_json::from_str(&text).unwrap()), "{release}/{name}");
    }
}

/// The fields that an older record may lack. A field that is added later comes to stand here: one that does not would
/// make every older record, and every record that an older node writes back, unreadable.
#[test]
fn exactly_these_fields_may_be_missing() {
    let may_lack = |kind| -> &[&str] {
        match kind {
            "lease" => &["copies", "sentMillis", "fencedBy"],
            "vm" => &[
                "owner",
                "migration",
                "failures",
                "failuresGeneration",
                "lastStart",
                "note",
                "revision",
                "answered",
                "startTakenUp",
                "passwordReset",
            ],
            "node-status" => &["waiting", "migratedPercent"],
            "spec" | "history" => &["message"],
            "intent" => &["timeoutSeconds"],
            "vm-status" | "event" => &[],
            other => panic!("no record is called '{other}'"),
        }
    };
    for (kind, written) in today::records() {
        for field in written.as_object().unwrap().keys() {
            let mut without = written.clone();
            without.as_object_mut().unwrap().remove(field);
            let read = read_and_written(kind, &without.to_string());
            assert_eq!(
                read.is_ok(),
                may_lack(kind).contains(&field.as_str()),
                "{kind} without {field}: {read:?}"
            );
        }
    }
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
fn fields_of_a_newer_release_are_passed_over_at_every_depth() {
    let of_files = records().into_iter().map(|(release, kind, name, text)| {
        (kind, serde_json::from_str(&text).unwrap(), format!("{release}/{name}"))
    });
    let of_today =
        today::records().into_iter().map(|(kind, record)| (kind.to_owned(), record, "today's".to_owned()));
    for (kind, record, name) in of_files.chain(of_today) {
        let newer = of_the_future(&record);
        assert_ne!(newer, record, "{name}");
        let read = read_and_written(&kind, &newer.to_string());
        let read = read.unwrap_or_else(|error| panic!("{name}, {kind}: {error}"));
        assert_eq!(read, read_and_written(&kind, &record.to_string()).unwrap(), "{name}, {kind}");
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
