//! The fields of each format of the document, so that none is added without thinking of the builds that do not know it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use serde_json::Value;
use zsha_crds::records::{HistoryRecord, NodeStatus, StoredSpec};
use zsha_crds::{NodeName, format, schema};

fn fields(at: &str, schema: &Value, found: &mut Vec<String>) {
    for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = format!("{at}.{key}");
        fields(&path, property, found);
        found.push(path);
    }
    if let Some(items) = schema.get("items") {
        fields(&format!("{at}[]"), items, found);
    }
    for any in ["anyOf", "oneOf", "allOf"] {
        for part in schema.get(any).and_then(Value::as_array).into_iter().flatten() {
            fields(at, part, found);
        }
    }
}

/// A new field belongs to a new format: see the head of `src/format.rs`.
#[test]
fn the_fields_are_those_of_the_format_this_build_reads() {
    let mut found = Vec::new();
    fields("", schema::json_schema(), &mut found);
    found.sort();
    found.dedup();
    insta::assert_snapshot!(format!("format_{}", format::READS), found.join("\n"));
}

fn status(version: &str, reads: u32) -> NodeStatus {
    let written = include_str!("records/0.1.0/node-status.json");
    let status: NodeStatus = serde_json::from_str(written).unwrap();
    assert_eq!(status.document_format, format::FIRST, "a node that does not say reads the first");
    NodeStatus { document_format: reads, controller_version: version.to_owned(), ..status }
}

#[test]
fn a_record_that_does_not_say_is_of_the_first_format_and_says_so_no_more_than_before() {
    let text = include_str!("records/0.1.0/spec.json");
    let spec: StoredSpec = serde_json::from_str(text).unwrap();
    assert_eq!(spec.format, format::FIRST);
    assert_eq!(serde_json::to_string(&spec).unwrap(), text.trim_end());
    let record: HistoryRecord = serde_json::from_str(include_str!("records/0.1.0/history.json")).unwrap();
    assert_eq!(record.format, format::FIRST);
    let newer = StoredSpec { format: 2, ..spec };
    let text = serde_json::to_string(&newer).unwrap();
    assert_eq!(serde_json::from_str::<StoredSpec>(&text).unwrap(), newer);
}

#[test]
fn a_newer_format_is_not_read_by_who_reads_less_or_has_not_said() {
    let [one, two, three] = ["n1", "n2", "n3"].map(|name| NodeName::new(name).unwrap());
    let (old, new) = (status("0.1.0", 1), status("0.2.0", 2));
    let nodes = [(&one, Some(&old)), (&two, Some(&new)), (&three, None)];
    assert_eq!(format::not_reading(format::FIRST, nodes), []);
    let not = format::not_reading(2, nodes);
    assert_eq!(format::listed(&not), "n1, which runs 0.1.0; n3, which has not said what it runs");
}

/// A document that uses nothing new goes on being read by earlier builds.
#[test]
fn a_document_carries_the_lowest_format_that_has_what_it_uses() {
    let needed = |text: &str| format::needed(&zsha_crds::decode(text, "a.yaml").unwrap().cluster);
    assert_eq!(needed(include_str!("good/base.yaml")), format::FIRST);
    assert_eq!(needed(include_str!("good/sections.yaml")), 2);
    assert_eq!(needed(include_str!("good/servers-of-four-nodes.yaml")), 3);
    assert_eq!(needed(include_str!("good/raw-image.yaml")), 4);
}
