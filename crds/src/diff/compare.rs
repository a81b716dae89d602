//! Compares two values, field by field. Entries of a list that have a name of their own are compared with their
//! namesakes, wherever they stand.
//!
//! Never here: what a difference means.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Op;
use crate::path::Path;

/// A difference, not yet judged.
pub(super) struct Difference {
    pub(super) path: Path,
    pub(super) op: Op,
    pub(super) old: Option<Value>,
    pub(super) new: Option<Value>,
}

pub(super) fn compare(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    values(&Path::root(), old, new, &mut found);
    found
}

/// How entries of a list are told apart, if not by their place.
fn identity(path: &Path) -> Option<fn(&Value) -> Option<&str>> {
    match path.last_key()? {
        "Node" => Some(|node| node.as_str()?.split_whitespace().nth(1)),
        "Network" => Some(|nic| nic.get("MacAddress")?.as_str()),
        "Mounts" => Some(|mount| mount.get("Target")?.as_str()),
        "Bridges" => Some(|bridge| bridge.get("Name")?.as_str()),
        _ => None,
    }
}

fn values(path: &Path, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, new) in new {
                match old.get(key) {
                    Some(old) => values(&path.key(key), old, new, found),
                    None => found.push(Difference {
                        path: path.key(key),
                        op: Op::Added,
                        old: None,
                        new: Some(new.clone()),
                    }),
                }
            }
            for (key, old) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                found.push(Difference {
                    path: path.key(key),
                    op: Op::Removed,
                    old: Some(old.clone()),
                    new: None,
                });
            }
        }
        (Value::Array(old_items), Value::Array(new_items)) => match identity(path) {
            Some(identity) => lists(path, old_items, new_items, identity, found),
            None => scalar(path, old, new, found),
        },
        _ => scalar(path, old, new, found),
    }
}

fn scalar(path: &Path, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    if old != new {
        let (old, new) = (Some(old.clone()), Some(new.clone()));
        found.push(Difference { path: path.clone(), op: Op::Changed, old, new });
    }
}

fn lists(
    path: &Path,
    old: &[Value],
    new: &[Value],
    identity: fn(&Value) -> Option<&str>,
    found: &mut Vec<Difference>,
) {
    let pairs = pair_up(old, new, identity);
    for (new_at, entry) in new.iter().enumerate() {
        match pairs.get(&new_at) {
            Some(old_at) => values(&path.index(new_at), &old[*old_at], entry, found),
            None => found.push(Difference {
                path: path.index(new_at),
                op: Op::Added,
                old: None,
                new: Some(entry.clone()),
            }),
        }
    }
    for (old_at, entry) in old.iter().enumerate().filter(|(at, _)| !pairs.values().any(|paired| paired == at))
    {
        found.push(Difference {
            path: path.index(old_at),
            op: Op::Removed,
            old: Some(entry.clone()),
            new: None,
        });
    }
    let kept: Vec<usize> = pairs.values().copied().collect();
    if !kept.is_sorted() {
        let names =
            |items: &[Value]| items.iter().filter_map(|item| identity(item).map(Value::from)).collect();
        found.push(Difference {
            path: path.clone(),
            op: Op::Changed,
            old: Some(names(old)),
            new: Some(names(new)),
        });
    }
}

/// The old place of an entry, by its new place: namesakes first, then the entries left over in the same place.
fn pair_up(old: &[Value], new: &[Value], identity: fn(&Value) -> Option<&str>) -> BTreeMap<usize, usize> {
    let mut pairs = BTreeMap::new();
    for (new_at, entry) in new.iter().enumerate() {
        let namesake = old.iter().position(|old| identity(old).is_some() && identity(old) == identity(entry));
        if let Some(old_at) = namesake {
            pairs.insert(new_at, old_at);
        }
    }
    for (at, entry) in new.iter().enumerate().take(old.len()) {
        let is_free = !pairs.contains_key(&at) && !pairs.values().any(|paired| *paired == at);
        // A node of another name in the same place is another node; a NIC of another address is the same NIC, changed.
        if is_free && entry.is_object() {
            pairs.insert(at, at);
        }
    }
    pairs
}
