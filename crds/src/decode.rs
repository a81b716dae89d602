//! Reads a document from text: syntax, schema, rules, in that order. Every fault of all three is told at once and in
//! its place.
//!
//! Never here: reading files, or a document half accepted.

mod json;
mod parts;
mod schema_check;
mod tree;
mod yaml;

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Map, Value, json};

use crate::diagnostic::{Code, Diagnostics, Finding, quoted};
use crate::normalise::normalised;
use crate::path::Path;
use crate::{API_VERSION, ClusterName, HaCluster, validate};

use tree::{Placed, Shape, Tree};

/// The largest document that is taken, in bytes. It must fit into the store: `apply` writes the document twice in one
/// transaction of 256 KiB, as the one in force and into the history. What remains is for its message, its keys and old
/// records that go. A document of ten nodes and ten NICs has 10 KiB.
pub const LARGEST: usize = 100 * 1024;

/// The lists that every config.json has, also where they are empty: the original's manual wants them (3.4).
pub const LISTS_OF_CONFIG_JSON: [&str; 2] = ["DNS", "ChronyServers"];

/// The form in which the text was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
    /// The flat config.json of zsha 2.5.1, without an envelope.
    ConfigJson,
}

/// The values that a text leaves open, given by the caller.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The cluster's name for a flat config.json, which has none; `zsha` unless given.
    pub cluster_name: Option<ClusterName>,
}

/// A document that is right.
#[derive(Debug, Clone)]
pub struct Decoded {
    pub cluster: HaCluster,
    /// Faults that should be looked at, though the document is right.
    pub warnings: Diagnostics,
    pub format: Format,
}

/// Reads a document. `file_name` is for messages, and its ending, where it has a known one, decides between YAML and
/// JSON.
pub fn decode(text: &str, file_name: &str) -> Result<Decoded, Diagnostics> {
    decode_with(text, file_name, &Options::default())
}

/// Does the same as [`decode`], from bytes that may not even be text.
pub fn decode_bytes(bytes: &[u8], file_name: &str, options: &Options) -> Result<Decoded, Diagnostics> {
    if bytes.len() > LARGEST {
        return Err(too_large(file_name));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => decode_with(text, file_name, options),
        Err(error) => {
            let text = String::from_utf8_lossy(&bytes[..error.valid_up_to() + 1]);
            let hint = not_utf8_hint(bytes);
            let finding =
                Finding::new(Code::NotUtf8, Path::root(), "the file must be text in UTF-8; this byte is not")
                    .hint(hint);
            let at = error.valid_up_to();
            let end = text.len();
            Err(Diagnostics::placed(file_name, &text, vec![(finding, Some(at..end))]))
        }
    }
}

/// Names the encoding that a text is in, where it can be told, and how it is converted.
fn not_utf8_hint(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        "this is UTF-16; save the file as UTF-8, or convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"
    } else if is_gbk(bytes) {
        "this may be GBK, as Chinese Windows writes it; save the file as UTF-8, or convert it: iconv -f GBK -t UTF-8 FILE > NEW"
    } else {
        "save the file as UTF-8, or convert it: iconv -f ENCODING -t UTF-8 FILE > NEW"
    }
}

/// True if every byte above ASCII belongs to a pair of GBK.
fn is_gbk(bytes: &[u8]) -> bool {
    let mut rest = bytes.iter();
    while let Some(byte) = rest.next() {
        let is_pair = match byte {
            0x00..=0x7f => continue,
            0x81..=0xfe => rest.next().is_some_and(|second| matches!(second, 0x40..=0x7e | 0x80..=0xfe)),
            _ => false,
        };
        if !is_pair {
            return false;
        }
    }
    true
}

/// Does the same as [`decode`]. `options` say what a flat config.json leaves open.
pub fn decode_with(text: &str, file_name: &str, options: &Options) -> Result<Decoded, Diagnostics> {
    let source = text.strip_prefix('\u{feff}').unwrap_or(text);
    if source.len() > LARGEST {
        return Err(too_large(file_name));
    }
    if source.trim().is_empty() {
        return Err(empty(source, file_name));
    }
    let is_json = is_json(source, file_name);
    let (tree, mut found) = if is_json { json::read(source) } else { yaml::read(source) };
    let Some(tree) = tree else {
        if found.is_empty() {
            return Err(empty(source, file_name));
        }
        return Err(Diagnostics::placed(file_name, source, found));
    };
    if tree.shape == Shape::Null && found.is_empty() {
        return Err(empty(source, file_name));
    }
    tree.duplicate_keys(&Path::root(), source, &mut found);
    tree.unseen_characters(&Path::root(), source, &mut found);
    let is_flat = is_flat(&tree);
    let format = match (is_json, is_flat) {
        (true, true) => Format::ConfigJson,
        (true, false) => Format::Json,
        (false, _) => Format::Yaml,
    };
    let document = if is_flat { in_envelope(tree.to_value(), options) } else { tree.to_value() };
    let (cluster, mut findings) = check(&document);
    findings.extend(validate::given::violations(&document));
    if format == Format::ConfigJson {
        findings.extend(left_out(&tree));
    }
    let misread: BTreeSet<usize> = found.iter().filter_map(|(_, span)| Some(span.as_ref()?.start)).collect();
    let placed =
        findings.into_iter().take(Diagnostics::MOST).map(|finding| place(finding, &tree, source, is_flat));
    // What was not written as it must be has been told already, and its value is anybody's guess.
    found.extend(placed.filter(|(_, span)| span.as_ref().is_none_or(|span| !misread.contains(&span.start))));
    if format == Format::Yaml && is_flat {
        found.push(needs_envelope(&tree, source));
    }
    let diagnostics = Diagnostics::placed(file_name, source, found);
    match cluster.filter(|_| !diagnostics.has_errors()) {
        // In the form that is stored, with its quotation marks, it may be larger than in the form that was written.
        Some(cluster) if normalised(&cluster).to_string().len() > LARGEST => Err(too_large(file_name)),
        Some(cluster) => Ok(Decoded { cluster, warnings: diagnostics, format }),
        None => Err(diagnostics),
    }
}

/// Checks a document that is values already, as the store keeps it. Warnings are left out: the person who applied the
/// document was given them.
pub fn decode_value(document: &Value) -> Result<HaCluster, Diagnostics> {
    let (cluster, findings) = check(document);
    let errors: Vec<_> =
        findings.into_iter().filter(|f| f.code.severity() == crate::diagnostic::Severity::Error).collect();
    match cluster {
        Some(cluster) if errors.is_empty() => Ok(cluster),
        _ => Err(Diagnostics::unplaced(errors)),
    }
}

/// Applies the schema, then the rules, to whatever of the document can be read; then reads the types.
fn check(document: &Value) -> (Option<HaCluster>, Vec<Finding>) {
    let mut findings = schema_check::violations(document);
    let schema_holds = findings.is_empty();
    findings.extend(validate::violations(document));
    if !schema_holds {
        return (None, findings);
    }
    match serde_json::from_value::<HaCluster>(document.clone()) {
        Ok(cluster) => (Some(cluster), findings),
        Err(error) => {
            let message = format!("the schema takes this document and the decoder does not: {error}");
            let hint = "this is a fault of zsha; please report it with the document";
            findings.push(Finding::new(Code::Undecodable, Path::root(), message).hint(hint));
            (None, findings)
        }
    }
}

/// Returns the lines, counted from 0, that the values at `paths` take in a text of ours; none for a value that is not
/// there.
pub(crate) fn lines_of<'a>(yaml: &str, paths: impl Iterator<Item = &'a Path>) -> Vec<Option<Range<usize>>> {
    let (tree, _) = yaml::read(yaml);
    let line = |byte: usize| yaml.get(..byte).unwrap_or(yaml).matches('\n').count();
    let lines = |path: &Path| {
        let bytes = tree.as_ref()?.find(path)?;
        let last = bytes.start + yaml.get(bytes.clone())?.trim_end().len();
        Some(line(bytes.start)..line(last) + 1)
    };
    paths.map(lines).collect()
}

/// True if the text is JSON: by the file's ending where it has a known one, else by the first character that is no
/// comment. An old config.json that is renamed stays what it is: its comments, or its braces without an envelope, say more
/// than the name.
fn is_json(source: &str, file_name: &str) -> bool {
    let ending = file_name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("yaml" | "yml") => json::has_comments(source) || is_flat_json(source),
        Some("json" | "jsonc") => true,
        _ => {
            let start = source.trim_start();
            start.starts_with('{') || start.starts_with("//") || start.starts_with("/*")
        }
    }
}

fn is_flat_json(source: &str) -> bool {
    if !source.trim_start().starts_with('{') {
        return false;
    }
    let (tree, faults) = json::read(source);
    faults.is_empty() && tree.is_some_and(|tree| is_flat(&tree))
}

/// True if the fields of the spec stand at the top, without an envelope.
fn is_flat(tree: &Tree) -> bool {
    let Shape::Map(entries) = &tree.shape else { return false };
    let enveloped = ["apiVersion", "kind", "metadata", "spec"].iter().any(|key| tree.has_key(key));
    !enveloped && entries.iter().any(|entry| crate::schema::spec_fields().contains(&entry.key))
}

fn in_envelope(spec: Value, options: &Options) -> Value {
    let name = options.cluster_name.as_ref().map_or("zsha", ClusterName::as_str);
    let envelope = [
        ("apiVersion", json!(API_VERSION)),
        ("kind", json!("HaCluster")),
        ("metadata", json!({ "name": name })),
        ("spec", spec),
    ];
    Value::Object(envelope.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>())
}

fn place(mut finding: Finding, tree: &Tree, source: &str, is_flat: bool) -> Placed {
    if is_flat {
        finding.path = finding.path.without_first("spec");
    }
    let whole = tree.locate(&finding.path, finding.at_key, source);
    let span =
        finding.part.as_ref().and_then(|part| tree.part_of(&finding.path, part, source)).unwrap_or(whole);
    if finding.path.steps().is_empty() {
        finding.message = format!("the document {}", finding.message);
    }
    (finding, Some(span))
}

/// Finds the lists that a config.json does not have.
fn left_out(tree: &Tree) -> impl Iterator<Item = Finding> {
    LISTS_OF_CONFIG_JSON.into_iter().filter(|key| !tree.has_key(key)).map(|key| {
        Finding::new(Code::MissingKey, Path::spec().key(key), "is required in a config.json and is missing")
            .allowed("a list, which may be empty: []")
            .hint(format!("add \"{key}\": [], if there are none"))
    })
}

fn needs_envelope(tree: &Tree, source: &str) -> Placed {
    let finding = Finding::new(Code::MissingKey, Path::root(), "the fields of the cluster must stand below `spec`")
        .allowed("the keys `apiVersion`, `kind`, `metadata` and `spec` at the top")
        .hint(format!(
            "put 'apiVersion: {API_VERSION}', 'kind: HaCluster', 'metadata: {{name: NAME}}' and 'spec:' above, and indent the rest"
        ));
    (finding, Some(tree.locate(&Path::root(), false, source)))
}

fn empty(source: &str, file_name: &str) -> Diagnostics {
    let finding = Finding::new(Code::Empty, Path::root(), "the document must not be empty")
        .hint("begin with what `zsha config-sample FileConf` prints");
    Diagnostics::placed(file_name, source, vec![(finding, Some(0..0))])
}

fn too_large(file_name: &str) -> Diagnostics {
    let message = format!("the document must not be larger than {} KiB, and it is larger", LARGEST / 1024);
    let finding = Finding::new(Code::TooLarge, Path::root(), message)
        .hint(format!("check that {} is the file that was meant", quoted(file_name)));
    Diagnostics::placed(file_name, "", vec![(finding, Some(0..0))])
}
