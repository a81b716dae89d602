//! The JSON Schema: committed as it is made, and of one mind with the decoder.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on")]

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};
use zsha_crds::{HaCluster, schema, testing};

fn validator() -> jsonschema::Validator {
    jsonschema::draft7::options()
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema::json_schema())
        .unwrap()
}

/// The validator that editors use: the dialect of JavaScript, as far as it is to be had here.
fn editors_validator() -> jsonschema::Validator {
    jsonschema::draft7::options().build(schema::json_schema()).unwrap()
}

#[test]
fn the_committed_schema_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/zsha.schema.json");
    let current = schema::json_schema_text();
    if std::env::var_os("ZSHA_BLESS").is_some() {
        std::fs::write(&file, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == current,
        "run `ZSHA_BLESS=1 cargo test -p zsha-crds --test schema` and look at the difference"
    );
}

#[test]
fn the_schema_is_one_of_draft_07_and_refers_to_nothing() {
    let text = schema::json_schema_text();
    assert!(jsonschema::draft7::meta::is_valid(schema::json_schema()));
    assert!(!text.contains("$ref"), "editors show what stands beside a $ref in draft-07 badly");
}

/// Every object of the schema, with its path.
fn objects<'a>(at: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    if schema.get("properties").is_some() {
        found.push((at.to_owned(), schema));
    }
    for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        objects(&format!("{at}.{key}"), property, found);
    }
    if let Some(items) = schema.get("items") {
        objects(&format!("{at}[]"), items, found);
    }
}

#[test]
fn every_property_is_described_and_no_object_takes_an_unknown_key() {
    let mut found = Vec::new();
    objects("", schema::json_schema(), &mut found);
    assert!(found.len() >= 9, "{found:?}");
    for (path, object) in found {
        assert_eq!(object.get("additionalProperties"), Some(&json!(false)), "{path}");
        for (key, property) in object["properties"].as_object().unwrap() {
            for word in ["description", "title"] {
                assert!(property.get(word).is_some_and(Value::is_string), "{path}.{key} has no {word}");
            }
        }
    }
}

#[test]
fn every_default_the_schema_names_is_what_leaving_the_field_out_means() {
    let spec = &schema::json_schema()["properties"]["spec"]["properties"];
    for seed in 0..50 {
        let document = testing::document(seed);
        for (key, property) in spec.as_object().unwrap() {
            let Some(default) = property.get("default") else { continue };
            let is_given = document["spec"].get(key).is_some();
            // An explicit empty value where `Type` asks for one is no default in force.
            if is_given {
                continue;
            }
            let mut explicit = document.clone();
            explicit["spec"][key] = default.clone();
            let (left_out, explicit): (HaCluster, HaCluster) = (
                serde_json::from_value(document.clone()).unwrap(),
                serde_json::from_value(explicit).unwrap(),
            );
            assert!(zsha_crds::normalise::same(&left_out, &explicit), "{key} of document {seed}");
        }
    }
}

fn agree(document: &Value) -> Result<(), String> {
    let (ours, editors) = (validator().is_valid(document), editors_validator().is_valid(document));
    let decoded = serde_json::from_value::<HaCluster>(document.clone());
    match (ours, editors, &decoded) {
        (true, true, Ok(_)) | (false, false, Err(_)) => Ok(()),
        _ => Err(format!("schema {ours}, for editors {editors}, decoder {decoded:?}: {document}")),
    }
}

/// Texts, numbers and shapes that are near to being right for one field or another.
fn replacements() -> Vec<Value> {
    let texts = [
        "",
        " ",
        "10.0.0.1",
        "10.0.0.01",
        "10.0.0.256",
        "10.0.0.1 ",
        "10.0.0",
        "10.0.0.1\n",
        "10.0.0.1 nfs-1",
        "10.0.0.1\tnfs-1",
        "10.0.0.1 nfs-1 ",
        "10.0.0.1  -nfs",
        "nfs-1",
        "nfs-",
        ".nfs",
        "nfs_1",
        "10.0.0.1@nfs-1",
        "10.0.0.1@nfs-1,10.0.0.2@nfs-2",
        "10.0.0.1@nfs-1,",
        "10.0.0.1@nfs-1 , 10.0.0.2@nfs-2",
        "10.0.0.1@ nfs-1",
        " 10.0.0.1@nfs-1",
        "10.0.0.1@nfs-1,10.0.0.2",
        "10.0.0.1,10.0.0.2",
        "@nfs-1",
        "10.0.0.1@",
        "02:98:54:4b:a5:c0",
        "2:98:54:4b:a5:c0",
        "02-98-54-4b-a5-c0",
        "02:98:54:4b:a5:c0:00",
        "+2:98:54:4b:a5:c0",
        "/a",
        "/a/../b",
        "a/b",
        "/a\u{7f}",
        "/\u{e9}",
        "br0",
        "br:0",
        "a-name-that-is-too-long",
        "FileConf",
        "fileconf",
        "CephConf",
        "auto",
        "off",
        "Off",
        "Fast",
        "required",
        "Restart",
        "zsha.io/v1",
        "zsha.io/v2",
        "HaCluster",
        "host:6789",
        "10.0.0.1 10.0.0.2",
        "10.0.0.1 a..b",
        "10.0.0.1 a-.b",
        "10.0.0.1 1-2.3",
        "10.0.0.1@a..b",
        "10.0.0.1@1.2",
        "999.999.999.999",
        "1.2.3",
        "1.2.3:6789",
        "1.2.3a",
        "1-2",
        "1--2.3",
        "a..b",
        "foo.-x",
        "a-.b",
        "7",
        "localhost",
        "a-label-that-is-sixty-three-characters-long-and-not-one-longer1",
        "a-label-that-is-sixty-four-characters-long-and-so-is-too-long-xy",
        "host:0",
        "host:99999",
        " time ",
        "\ttime",
        "nfs4",
        "NFS4",
        "-o",
        "hard,timeo=50",
        "a b",
        "\u{661}0.0.0.1",
        "true",
    ];
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(3),
        json!(4),
        json!(8),
        json!(8.0),
        json!(8.5),
        json!(-1),
        json!(255),
        json!(256),
        json!(4096),
        json!(4097),
        json!(0.05),
        json!(0.049),
        json!(300),
        json!(300.5),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!([]),
        json!({}),
        json!([[]]),
        json!([null]),
        json!([{}]),
        json!(["10.0.0.1"]),
        json!(["10.0.0.1 a", "10.0.0.2 b", "10.0.0.3 c"]),
        json!({ "Profile": "Fast" }),
        json!({ "Failback": "auto" }),
        json!({ "name": "a" }),
        json!({ "name": "" }),
        json!({ "Name": "br0" }),
    ];
    texts.into_iter().map(Value::from).chain(values).collect()
}

/// The pointers of every value in the document.
fn pointers(at: &str, value: &Value, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            pointers(&format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), value, found);
        }),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, value)| pointers(&format!("{at}/{index}"), value, found));
        }
        _ => {}
    }
}

fn remove(document: &mut Value, pointer: &str) {
    let Some((parent, last)) = pointer.rsplit_once('/') else { return };
    match document.pointer_mut(parent) {
        Some(Value::Object(map)) => {
            map.remove(last);
        }
        Some(Value::Array(items)) => {
            items.remove(last.parse().unwrap());
        }
        _ => {}
    }
}

#[test]
fn schema_and_decoder_agree_on_the_corpus_of_broken_and_good_documents() {
    let mut count = 0;
    for folder in ["tests/bad", "tests/good", "../manifests/examples"] {
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) else { continue };
            let Ok(document) = serde_yaml::from_str::<Value>(&text) else { continue };
            count += 1;
            agree(&document).unwrap();
        }
    }
    assert!(count > 40, "only {count} of the corpus could be read");
}

#[test]
fn schema_and_decoder_agree_whatever_a_field_is_replaced_with() {
    let (validator, editors) = (validator(), editors_validator());
    let document = serde_json::to_value(zsha_crds::normalise::effective(&testing::cluster(11))).unwrap();
    let mut places = Vec::new();
    pointers("", &document, &mut places);
    for place in places {
        for replacement in replacements() {
            let mut changed = document.clone();
            *changed.pointer_mut(&place).unwrap() = replacement.clone();
            let decoded = serde_json::from_value::<HaCluster>(changed.clone());
            let (ours, theirs) = (validator.is_valid(&changed), editors.is_valid(&changed));
            assert!(
                ours == decoded.is_ok() && theirs == ours,
                "{place} = {replacement}: schema {ours}, for editors {theirs}, decoder {decoded:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn schema_and_decoder_agree_on_every_valid_document(seed: u64) {
        let document = testing::document(seed);
        prop_assert!(validator().is_valid(&document));
        prop_assert_eq!(agree(&document), Ok(()));
    }

    #[test]
    fn schema_and_decoder_agree_on_valid_documents_with_things_taken_out_and_put_in(
        seed: u64,
        at: proptest::sample::Index,
        what: proptest::sample::Index,
        text in "[0-9a-f.@:, /nfs\t-]{0,20}",
        mode in 0..4u8,
    ) {
        let mut document = testing::document(seed);
        let mut places = Vec::new();
        pointers("", &document, &mut places);
        let place = at.get(&places).clone();
        match mode {
            0 => remove(&mut document, &place),
            1 => *document.pointer_mut(&place).unwrap() = what.get(&replacements()).clone(),
            2 => *document.pointer_mut(&place).unwrap() = Value::from(text),
            _ => if let Some(Value::Object(map)) = document.pointer_mut(&place) {
                map.insert(text, json!(1));
            },
        }
        prop_assert_eq!(agree(&document), Ok(()));
    }
}
