//! What releases have written to the store is read by this one, and what this one writes back loses nothing of it; and
//! the other way round, since nodes are upgraded one after the other: what this one writes is read by those before it,
//! and what they write back is read here.
//! Each release has a folder with records as it wrote them, and a file of its shapes in `frozen`; none is ever changed. The
//! last folder, `next`, is what this build writes. With the next release it gets that release's number, and its shapes a
//! file.

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
    ByVm, DiskSource, EventRecord, HistoryRecord, Intent, LeaseRecord, NodeStatus, StoredSpec, VmHere,
    VmRecord, VmStatus,
};
use zsha_crds::{LocalState, VmName};

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
const RELEASES: [(&str, Old); 2] =
    [("0.1.0", v0_1_0::read_and_written), ("next", |kind, text| Some(read_and_written(kind, text)))];

const KINDS: [&str; 8] = ["lease", "vm", "intent", "node-status", "vm-status", "event", "spec", "history"];

/// A document has fields of its own.
const OPAQUE: &str = "document";
/// These have one entry for each node, or for each VM.
const BY_NAME: [&str; 2] = ["failures", "vms"];

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
                    let name = if BY_NAME.iter().any(|by_name| way.ends_with(by_name)) { "*" } else { name };
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
                    (by_name, Value::Object(entries)) if BY_NAME.contains(&by_name) => {
                        entries.iter().map(|(name, of)| (name.clone(), of_the_future(of))).collect()
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
        (
            "vm",
            "vm.running.json",
            "disk",
            json!({
                "source": { "kind": "File", "at": "/share/mnvm.overlay" },
                "format": "qcow2",
                "backing": [{ "kind": "Rbd", "at": "zsha/mnvm" }, { "kind": "Nothing" }],
                "insteadOf": { "kind": "Other", "at": "nbd:backup" },
            }),
        ),
        ("intent", "intent.start.json", "fromImage", json!(true)),
        ("lease", "lease.held.json", "cluster", json!("prod")),
        ("lease", "lease.held.json", "movedAwayIn", json!(2)),
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

/// The fields of before VMs were named are the management-node VM's.
#[test]
fn a_record_that_names_no_vm_is_of_the_management_node_vm() {
    let mnvm = VmName::management();
    let lease = LeaseRecord { vms: ByVm::default(), ..held("0.1.0", "copies") };
    assert_eq!(lease.copies(&mnvm), None, "where nothing is said, nothing is known");
    assert_eq!(held("0.1.0", "fieldOfTheFuture").copies(&mnvm), Some(1));
    assert_eq!(held("0.1.0", "copies").copies(&mnvm), None);
    let status: NodeStatus = serde_json::from_str(include_str!("records/0.1.0/node-status.json")).unwrap();
    let said = VmHere { local_vm: LocalState::Off, runs_unnamed: false, migrated_percent: Some(42) };
    assert_eq!(status.vms.of(&mnvm), said);
    for order in ["start", "stop", "migrate", "reset-password"] {
        let text = std::fs::read_to_string(format!("tests/records/0.1.0/intent.{order}.json")).unwrap();
        assert_eq!(serde_json::from_str::<Intent>(&text).unwrap().vm(), Some(&mnvm), "{order}");
    }
}

/// A record that names its VMs is read by them; what stands beside for earlier builds says nothing.
#[test]
fn a_record_that_names_its_vms_is_read_by_their_names_alone() {
    let (mnvm, other): (VmName, VmName) = (VmName::management(), "other".parse().unwrap());
    let mut said: Value = serde_json::from_str(include_str!("records/next/lease.held.json")).unwrap();
    said["vms"] = json!({ "other": { "copies": 3 } });
    let lease: LeaseRecord = serde_json::from_value(said.clone()).unwrap();
    assert_eq!((lease.copies(&mnvm), lease.copies(&other)), (None, Some(3)), "beside it `copies` says 1");
    let written = serde_json::to_value(&lease).unwrap();
    assert_eq!(
        written["copies"],
        Value::Null,
        "an earlier build must not take another VM's count for its own"
    );
    said["vms"] = json!({ "mnvm": { "copies": 0 }, "other": { "copies": null } });
    let lease: LeaseRecord = serde_json::from_value(said).unwrap();
    assert_eq!(
        (lease.copies(&mnvm), lease.copies(&other)),
        (Some(0), None),
        "it could not look for one of them"
    );
}

#[test]
fn a_disk_of_a_kind_that_only_a_later_build_knows_is_one_to_start_nothing_from() {
    let source: DiskSource = serde_json::from_value(json!({ "kind": "Nvme", "at": "tcp:10.0.0.9" })).unwrap();
    assert_eq!(source, DiskSource::Other("Nvme tcp:10.0.0.9".to_owned()));
}

#[test]
fn a_status_that_says_nothing_of_any_vm_is_no_status() {
    let mut status: Value = serde_json::from_str(include_str!("records/next/node-status.json")).unwrap();
    let without = |status: &mut Value, field| drop(status.as_object_mut().unwrap().remove(field));
    without(&mut status, "localVm");
    assert_eq!(again::<NodeStatus>(&status.to_string()).unwrap()["localVm"], "Off", "as `vms` says");
    without(&mut status, "vms");
    let error = again::<NodeStatus>(&status.to_string()).unwrap_err().to_string();
    assert!(error.contains("nothing of any VM"), "{error}");
}

#[test]
fn an_order_for_another_vm_or_of_another_kind_is_unreadable() {
    let mnvm = VmName::management();
    let stop = include_str!("records/next/intent.stop.json");
    assert!(Intent::read(Intent::POWER, stop, &mnvm).is_ok());
    let of_other = stop.replace("mnvm", "other");
    let error = Intent::read(Intent::POWER, &of_other, &mnvm).unwrap_err();
    assert_eq!(error, "it is an order for the VM 'other'");
    assert!(Intent::read(Intent::POWER, &of_other, &"other".parse().unwrap()).is_ok());
    assert!(Intent::read(Intent::FREEZE, stop, &mnvm).unwrap_err().contains("another kind"));
}

/// The lease that a release held, without this field.
fn held(release: &str, without: &str) -> LeaseRecord {
    let text = std::fs::read_to_string(format!("tests/records/{release}/lease.held.json")).unwrap();
    let mut said: Value = serde_json::from_str(&text).unwrap();
    said.as_object_mut().unwrap().remove(without);
    serde_json::from_value(said).unwrap()
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
            "lease" => &["cluster", "vms", "copies", "movedAwayIn", "sentMillis", "fencedBy"],
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
                "departed",
                "disk",
            ],
            "node-status" => &[
                "vms",
                // Needed where there is no `vms`, see `a_status_that_says_nothing_of_any_vm_is_no_status`.
                "localVm",
                "runsUnnamed",
                "migratedPercent",
                "documentFormat",
                "lostLeases",
                "virtualHost",
                "lookedAfter",
                "waiting",
            ],
            "spec" | "history" => &["format", "message"],
            "intent" => &["vm", "timeoutSeconds", "shutdown", "fromImage"],
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
