//! A document as it was read: every key and value with the bytes it was read from.
//!
//! Never here: what the values mean.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Number, Value};

use crate::characters;
use crate::diagnostic::{Code, Diagnostics, Finding, quoted};
use crate::path::{Path, Step};

/// The deepest nesting that is read. No document of ours is nested deeper than five.
pub(super) const DEEPEST: usize = 32;

/// A fault with its place.
pub(super) type Placed = (Finding, Option<Range<usize>>);

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    pub(super) span: Range<usize>,
    pub(super) shape: Shape,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Range<usize>,
    pub(super) value: Tree,
}

impl Tree {
    /// The values alone. If a key is there twice, the first counts.
    pub(super) fn to_value(&self) -> Value {
        match &self.shape {
            Shape::Null => Value::Null,
            Shape::Bool(value) => Value::Bool(*value),
            Shape::Number(value) => Value::Number(value.clone()),
            Shape::Text(text) => Value::String(text.clone()),
            Shape::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Shape::Map(entries) => {
                let values = entries.iter().rev().map(|entry| (entry.key.clone(), entry.value.to_value()));
                Value::Object(values.collect::<Map<_, _>>())
            }
        }
    }

    pub(super) fn has_key(&self, key: &str) -> bool {
        matches!(&self.shape, Shape::Map(entries) if entries.iter().any(|entry| entry.key == key))
    }

    /// The bytes to mark for a fault at `path`: the value, if it fits a line; the key it stands under, if it is larger;
    /// the nearest thing above it, if it is not there.
    pub(super) fn locate(&self, path: &Path, at_key: bool, source: &str) -> Range<usize> {
        let (mut here, mut key) = (self, None);
        let mut complete = true;
        for step in path.steps() {
            match (step, &here.shape) {
                (Step::Key(name), Shape::Map(entries)) => {
                    match entries.iter().find(|entry| entry.key == *name) {
                        Some(entry) => (here, key) = (&entry.value, Some(entry.key_span.clone())),
                        None => complete = false,
                    }
                }
                (Step::Index(index), Shape::List(items)) => match items.get(*index) {
                    Some(item) => (here, key) = (item, None),
                    None => complete = false,
                },
                _ => complete = false,
            }
            if !complete {
                break;
            }
        }
        let scalar = !matches!(here.shape, Shape::List(_) | Shape::Map(_)) && !here.span.is_empty();
        match key {
            Some(key) if at_key || !complete || !scalar => key,
            _ if scalar => here.span.clone(),
            _ => first_line(&here.span, source),
        }
    }

    /// The bytes of a part of the text at `path`. None where the text does not stand in the source as it is: with escapes,
    /// or over more than one line.
    pub(super) fn part_of(&self, path: &Path, part: &Range<usize>, source: &str) -> Option<Range<usize>> {
        let here = path.steps().iter().try_fold(self, |here, step| match (step, &here.shape) {
            (Step::Key(name), Shape::Map(entries)) => {
                entries.iter().find(|entry| entry.key == *name).map(|entry| &entry.value)
            }
            (Step::Index(index), Shape::List(items)) => items.get(*index),
            _ => None,
        })?;
        let Shape::Text(text) = &here.shape else { return None };
        within(&here.span, text, part, source)
    }

    /// Every key and text with a character that is not seen. Nobody writes one on purpose, and a path that has one is
    /// another path.
    pub(super) fn unseen_characters(&self, path: &Path, source: &str, found: &mut Vec<Placed>) {
        match &self.shape {
            Shape::Text(text) => found.extend(unseen(text, &self.span, path, source)),
            Shape::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    item.unseen_characters(&path.index(at), source, found);
                }
            }
            Shape::Map(entries) => {
                for entry in entries {
                    let path = path.key(&entry.key);
                    found.extend(unseen(&entry.key, &entry.key_span, &path, source));
                    entry.value.unseen_characters(&path, source, found);
                }
            }
            Shape::Null | Shape::Bool(_) | Shape::Number(_) => {}
        }
    }

    /// The bytes of the value at `path`, its key included; none where it is not there.
    pub(super) fn find(&self, path: &Path) -> Option<Range<usize>> {
        let (mut here, mut start) = (self, self.span.start);
        for step in path.steps() {
            (here, start) = match (step, &here.shape) {
                (Step::Key(name), Shape::Map(entries)) => {
                    let entry = entries.iter().find(|entry| entry.key == *name)?;
                    (&entry.value, entry.key_span.start)
                }
                (Step::Index(index), Shape::List(items)) => {
                    let item = items.get(*index)?;
                    (item, item.span.start)
                }
                _ => return None,
            };
        }
        Some(start..here.span.end)
    }

    /// Every key that is there twice.
    pub(super) fn duplicate_keys(&self, path: &Path, source: &str, found: &mut Vec<Placed>) {
        match &self.shape {
            Shape::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    item.duplicate_keys(&path.index(at), source, found);
                }
            }
            Shape::Map(entries) => {
                let mut first: BTreeMap<&str, usize> = BTreeMap::new();
                for entry in entries {
                    let path = path.key(&entry.key);
                    let start = *first.entry(&entry.key).or_insert(entry.key_span.start);
                    if start != entry.key_span.start && found.len() < Diagnostics::MOST {
                        let line = source[..start].matches('\n').count() + 1;
                        let finding = Finding::new(
                            Code::DuplicateKey,
                            path.clone(),
                            format!("must not be given twice; it is on line {line} already"),
                        );
                        found.push((finding.hint("remove one of the two"), Some(entry.key_span.clone())));
                    }
                    entry.value.duplicate_keys(&path, source, found);
                }
            }
            Shape::Null | Shape::Bool(_) | Shape::Number(_) | Shape::Text(_) => {}
        }
    }
}

/// The bytes in the source of a part of a text that was read from `span`.
fn within(span: &Range<usize>, text: &str, part: &Range<usize>, source: &str) -> Option<Range<usize>> {
    let start = span.start + source.get(span.clone())?.find(text)?;
    Some(start + part.start..start + part.end)
}

/// A character of a text that is not seen, with its place.
fn unseen(text: &str, span: &Range<usize>, path: &Path, source: &str) -> Option<Placed> {
    let (at, c) = text.char_indices().find(|(_, c)| characters::is_unseen(*c))?;
    let (name, meant) = characters::disguise(c)?;
    let message = format!("must not have {} in it, {name}: {}", characters::code_point(c), quoted(text));
    let hint = if meant.is_some() { "write a blank, or remove it" } else { "remove it" };
    let place = within(span, text, &(at..at + c.len_utf8()), source).unwrap_or_else(|| span.clone());
    Some((Finding::new(Code::Unseen, path.clone(), message).hint(hint), Some(place)))
}

/// The part of `span` that is on its first line, and at least one character where there is one.
fn first_line(span: &Range<usize>, source: &str) -> Range<usize> {
    let text = source.get(span.clone()).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default().trim_end();
    span.start..span.start + line.len()
}
