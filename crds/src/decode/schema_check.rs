//! Checks a document against the JSON Schema, and tells the violations in our own words.
//!
//! Never here: a rule that the schema does not have.

use std::net::Ipv4Addr;
use std::sync::LazyLock;

use ipnet::Ipv4Net;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::parts;
use crate::diagnostic::{Code, Diagnostics, Finding, quoted};
use crate::nearest::nearest;
use crate::path::{Path, Step};
use crate::schema::json_schema;

fn validator() -> &'static Validator {
    static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| {
        let options = jsonschema::draft7::options().with_pattern_options(PatternOptions::regex());
        options.build(json_schema()).expect("the schema is a schema")
    });
    &VALIDATOR
}

/// Every violation of the schema in `document`.
pub(super) fn violations(document: &Value) -> Vec<Finding> {
    let errors = validator().iter_errors(document).take(Diagnostics::MOST);
    let mut found: Vec<Finding> = errors.flat_map(|error| findings(&error)).collect();
    // A text may miss both of its patterns, and that is one fault.
    found.dedup();
    found
}

fn findings(error: &ValidationError<'_>) -> Vec<Finding> {
    let path = path_of(error.instance_path());
    let given = error.instance();
    let keyword = error.schema_path().as_str();
    let schema = keyword.rsplit_once('/').and_then(|(parent, _)| json_schema().pointer(whole(parent)));
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.iter().take(Diagnostics::MOST).map(|key| unknown_key(&path, key, schema)).collect()
        }
        ValidationErrorKind::Required { property } => vec![missing_key(&path, property, schema)],
        ValidationErrorKind::Type { kind } => vec![wrong_type(path, given, kind, schema)],
        ValidationErrorKind::Pattern { .. } => vec![malformed(path, given, schema)],
        ValidationErrorKind::Minimum { limit } => {
            vec![out_of_range(path, given, schema, &format!("greater than or equal to {limit}"))]
        }
        ValidationErrorKind::Maximum { limit } => {
            vec![out_of_range(path, given, schema, &format!("less than or equal to {limit}"))]
        }
        ValidationErrorKind::MinItems { limit } => vec![too_few(path, given, *limit)],
        ValidationErrorKind::Enum { .. }
        | ValidationErrorKind::Constant { .. }
        | ValidationErrorKind::OneOfNotValid { .. } => vec![not_allowed(path, given, schema)],
        _ => vec![Finding::new(Code::NotAllowed, path, format!("is not allowed: {}", error.masked()))],
    }
}

/// The place in the schema that describes the value. For a text with a second pattern, it is the place that has both.
fn whole(parent: &str) -> &str {
    parent.split_once("/allOf/").map_or(parent, |(whole, _)| whole)
}

fn path_of(location: &Location) -> Path {
    let step = |segment: LocationSegment<'_>| match segment {
        LocationSegment::Property(key) => Step::Key(key.into_owned()),
        LocationSegment::Index(index) => Step::Index(index),
    };
    location.segments().map(step).collect()
}

/// The properties that a person may write.
fn properties(schema: Option<&Value>) -> Vec<&str> {
    let properties = schema.and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let is_theirs = |(_, schema): &(&String, &Value)| schema.get("readOnly") != Some(&Value::Bool(true));
    properties.into_iter().flatten().filter(is_theirs).map(|(key, _)| key.as_str()).collect()
}

fn unknown_key(parent: &Path, key: &str, schema: Option<&Value>) -> Finding {
    let known = properties(schema);
    let allowed = known.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    let finding =
        Finding::new(Code::UnknownKey, parent.key(key), "is not a known key").allowed(allowed).at_key();
    let at_top_of_spec =
        parent.steps().is_empty() && crate::schema::spec_fields().iter().any(|field| field == key);
    match nearest(key, known) {
        _ if key == "<<" => {
            finding.hint("merging of keys may not be used; write the values out in each place")
        }
        _ if at_top_of_spec => finding.hint(format!("`{key}` stands below `spec`; indent it")),
        Some(near) => finding.hint(format!("did you mean `{near}`?")),
        None => finding.hint("remove it; `zsha config-sample FileConf` shows every key"),
    }
}

fn missing_key(parent: &Path, property: &Value, schema: Option<&Value>) -> Finding {
    let key = property.as_str().unwrap_or_default();
    let field = schema.and_then(|schema| schema.get("properties")).and_then(|properties| properties.get(key));
    let finding = Finding::new(Code::MissingKey, parent.key(key), "is required and is missing");
    let finding = match allowed_values(field) {
        Some(allowed) => finding.allowed(allowed),
        None => finding,
    };
    match field.and_then(|field| field.get("description")).and_then(Value::as_str) {
        Some(description) => finding.hint(format!("add `{key}`: {}", first_sentence(description))),
        None => finding.hint(format!("add `{key}`")),
    }
}

fn first_sentence(description: &str) -> String {
    let text = description.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.split_once(". ") {
        Some((first, _)) => first.to_owned(),
        None => text.trim_end_matches('.').to_owned(),
    }
}

/// Returns the values that a schema allows, in words.
fn allowed_values(schema: Option<&Value>) -> Option<String> {
    let schema = schema?;
    let constants = match (schema.get("enum"), schema.get("oneOf")) {
        (Some(Value::Array(values)), _) => values.iter().collect(),
        (_, Some(Value::Array(branches))) => {
            branches.iter().filter_map(|branch| branch.get("const")).collect()
        }
        _ => schema.get("const").into_iter().collect::<Vec<_>>(),
    };
    if !constants.is_empty() {
        let words = constants.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), quoted));
        return Some(words.collect::<Vec<_>>().join(", "));
    }
    if let Some(must) = schema.get("patternErrorMessage").and_then(Value::as_str) {
        return Some(must.trim_start_matches("must be ").to_owned());
    }
    match (schema.get("type").and_then(Value::as_str), schema.get("minimum"), schema.get("maximum")) {
        (Some("integer"), Some(min), Some(max)) => Some(format!("a whole number from {min} to {max}")),
        (Some("number"), Some(min), Some(max)) => Some(format!("a number from {min} to {max}")),
        (Some("boolean"), ..) => Some("true, false".to_owned()),
        _ => None,
    }
}

fn with_allowed(finding: Finding, schema: Option<&Value>) -> Finding {
    match allowed_values(schema) {
        Some(allowed) => finding.allowed(allowed),
        None => finding,
    }
}

/// A value in a few words.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}

fn wrong_type(path: Path, given: &Value, kind: &TypeKind, schema: Option<&Value>) -> Finding {
    let names: Vec<String> = match kind {
        TypeKind::Single(kind) => vec![kind.to_string()],
        TypeKind::Multiple(kinds) => kinds.iter().map(|kind| kind.to_string()).collect(),
    };
    let words = names.iter().map(|name| type_words(name)).collect::<Vec<_>>().join(" or ");
    let hint = netmask_hint(&path, given).unwrap_or_else(|| type_hint(&names, given));
    let finding = Finding::new(Code::WrongType, path, format!("must be {words}, not {}", shown(given)));
    with_allowed(finding, schema).hint(hint)
}

fn type_words(name: &str) -> &str {
    match name {
        "null" => "null",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "a text",
        "array" => "a list",
        "object" => "a mapping of keys to values",
        other => other,
    }
}

fn type_hint(wanted: &[String], given: &Value) -> String {
    let wants = |name: &str| wanted.iter().any(|wanted| wanted == name);
    match given {
        Value::Null => "give it a value, or leave the key out where it is not required".to_owned(),
        Value::String(text) if wants("boolean") => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" | "1" => "write true, without quotation marks".to_owned(),
            "no" | "off" | "n" | "false" | "0" => "write false, without quotation marks".to_owned(),
            _ => "write true or false, without quotation marks".to_owned(),
        },
        Value::String(text)
            if (wants("integer") || wants("number")) && text.trim().parse().is_ok_and(f64::is_infinite) =>
        {
            "no number is so large; write one that is allowed".to_owned()
        }
        Value::String(text)
            if (wants("integer") || wants("number")) && text.trim().parse::<f64>().is_ok() =>
        {
            format!("write {} without quotation marks and leading zeros", text.trim())
        }
        Value::String(_) if wants("integer") || wants("number") => "write digits, without a unit".to_owned(),
        Value::String(text) if wants("array") && text.starts_with('-') => {
            "put a blank after the '-' of each entry".to_owned()
        }
        Value::String(_) if wants("array") => {
            "put it in a list: '- ...' on a line of its own, or in '[' and ']'".to_owned()
        }
        Value::Number(_) if wants("integer") => "leave out the fraction".to_owned(),
        Value::Bool(_) | Value::Number(_) if wants("string") => "put it in quotation marks".to_owned(),
        Value::Object(_) if wants("array") => {
            "put a '-' before each entry, or '[' and ']' around them".to_owned()
        }
        Value::Array(_) if wants("string") => "give one value, not a list".to_owned(),
        Value::Array(_) if wants("object") => "give keys with values, without '-' before them".to_owned(),
        _ => "`zsha config-sample FileConf` shows the form of every field".to_owned(),
    }
}

fn malformed(path: Path, given: &Value, schema: Option<&Value>) -> Finding {
    let must = schema.and_then(|schema| schema.get("patternErrorMessage")).and_then(Value::as_str);
    let must = must.unwrap_or("must be of another form");
    let text = given.as_str().unwrap_or_default();
    let examples = schema.and_then(|schema| schema.get("examples")).and_then(Value::as_array);
    let example =
        examples.into_iter().flatten().filter_map(Value::as_str).find(|example| !example.is_empty());
    let part = parts::broken(must, text);
    let hint = netmask_hint(&path, given);
    let hint =
        hint.or_else(|| part.as_ref().map(|part| part.hint.clone())).or_else(|| text_hint(text, schema));
    let why = part.as_ref().map_or_else(String::new, |part| format!(": {}", part.wrong));
    let mut finding = Finding::new(Code::Malformed, path, format!("{must}, not {}{why}", quoted(text)));
    finding.part = part.as_ref().map(|part| part.at.clone());
    let finding = with_allowed(finding, schema);
    match hint {
        Some(hint) => finding.hint(hint),
        None => match example {
            Some(example) => finding.hint(format!("write for instance {}", quoted(example))),
            None => finding.hint("leave out the characters that are not allowed"),
        },
    }
}

/// Names the netmask where its prefix length was given in its place.
fn netmask_hint(path: &Path, given: &Value) -> Option<String> {
    let text = match given {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let length = text.rsplit_once('/').map_or(text.as_str(), |(_, length)| length).parse().ok()?;
    let net = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, length).ok()?;
    (path.last_key() == Some("Netmask"))
        .then(|| format!("a prefix length of {length} is the netmask '{}'", net.netmask()))
}

/// Names the most common fault of a text.
fn text_hint(text: &str, schema: Option<&Value>) -> Option<String> {
    let is = |name: &str| schema.and_then(|s| s.get("title")).and_then(Value::as_str) == Some(name);
    if text.trim() != text {
        return Some("remove the blanks around it".to_owned());
    }
    if is("MacAddress") && (text.contains('-') || text.contains('.')) {
        return Some("separate the pairs with ':'".to_owned());
    }
    None
}

fn out_of_range(path: Path, given: &Value, schema: Option<&Value>, bound: &str) -> Finding {
    let field = path.last_key().unwrap_or_default().to_owned();
    let finding = Finding::new(Code::OutOfRange, path, format!("must be {bound}, not {given}"));
    let finding = with_allowed(finding, schema);
    match field.as_str() {
        "MemorySizeInGB" if given.as_f64().is_some_and(|given| given > 4096.0) => {
            finding.hint("the unit is GB, not MB")
        }
        "MemorySizeInGB" => finding.hint("8 GB serve up to 100 hosts and 1,000 VMs"),
        "CPU" => finding.hint("4 CPUs serve up to 100 hosts and 1,000 VMs"),
        field if field.ends_with("Seconds") => {
            finding.hint("the unit is seconds; leave it out for the profile's value")
        }
        _ => finding,
    }
}

fn too_few(path: Path, given: &Value, limit: u64) -> Finding {
    let count = given.as_array().map_or(0, Vec::len);
    let entries = if limit == 1 { "entry" } else { "entries" };
    let field = path.last_key().unwrap_or_default().to_owned();
    let finding =
        Finding::new(Code::TooFew, path, format!("must have at least {limit} {entries}, not {count}"))
            .at_key();
    match field.as_str() {
        "Node" => finding
            .allowed(crate::validate::NODE_COUNTS)
            .hint("a majority must be left when a node fails: 3 nodes survive 1 failure, 5 survive 2"),
        "Network" => finding.hint("give at least the management NIC"),
        _ => finding,
    }
}

fn not_allowed(path: Path, given: &Value, schema: Option<&Value>) -> Finding {
    let allowed = allowed_values(schema);
    let finding = match &allowed {
        Some(allowed) if !allowed.contains(',') => {
            Finding::new(Code::NotAllowed, path, format!("must be {allowed}, not {}", shown(given)))
        }
        _ => Finding::new(
            Code::NotAllowed,
            path,
            format!("must be one of the values allowed, not {}", shown(given)),
        ),
    };
    let near = given.as_str().and_then(|given| {
        let words: Vec<&str> =
            allowed.as_deref().unwrap_or_default().split(", ").map(|w| w.trim_matches('\'')).collect();
        nearest(given, words).map(str::to_owned)
    });
    let finding = with_allowed(finding, schema);
    match (near, given) {
        (Some(near), _) => finding.hint(format!("did you mean '{near}'?")),
        (None, Value::Bool(_)) => finding.hint("put the word in quotation marks"),
        (None, _) => finding.hint("write one of the values allowed, exactly as it is spelled"),
    }
}
