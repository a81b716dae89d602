//! The JSON Schema of the document, made from the types: for editors, for `zsha schema`, and to check every document.
//!
//! Never here: rules about two values at once.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::HaCluster;

/// The address that the schema gives for itself; its version is that of `apiVersion`.
pub const SCHEMA_ID: &str = "https://zsha.io/schema/v1/hacluster.json";

/// The schema in draft-07, the draft every editor knows; nothing in it refers to another place.
pub fn json_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<HaCluster>().to_value();
        schema["$id"] = json!(SCHEMA_ID);
        schema["title"] = json!("HaCluster of zsha");
        add_titles(&mut schema);
        // In one order, whatever features of serde_json another crate of the build turns on.
        schema.sort_all_objects();
        schema
    });
    &SCHEMA
}

/// The schema as a file: `manifests/zsha.schema.json`.
pub fn json_schema_text() -> String {
    format!("{:#}\n", json_schema())
}

/// The names of the spec's fields: config.json's, and ours.
pub fn spec_fields() -> &'static [String] {
    static FIELDS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let fields = json_schema().pointer("/properties/spec/properties").and_then(Value::as_object);
        fields.into_iter().flat_map(|fields| fields.keys().cloned()).collect()
    });
    &FIELDS
}

/// The names of all fields, wherever they stand.
pub(crate) fn field_names() -> &'static BTreeSet<String> {
    static NAMES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let mut names = BTreeSet::new();
        let mut schemas = vec![json_schema()];
        while let Some(schema) = schemas.pop() {
            let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
            for (name, property) in properties {
                names.insert(name.clone());
                schemas.push(property);
            }
            schemas.extend(schema.get("items"));
        }
        names
    });
    &NAMES
}

/// Every property gets its own name for a title: editors show it above the description.
fn add_titles(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get_mut("properties") {
                for (name, property) in properties {
                    if let Value::Object(property) = property {
                        property.entry("title").or_insert_with(|| json!(name));
                    }
                }
            }
            map.values_mut().for_each(add_titles);
        }
        Value::Array(items) => items.iter_mut().for_each(add_titles),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
