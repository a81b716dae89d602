//! The difference as people read it: a unified diff of YAML, each changed line with what it does to the VM.
//!
//! Never here: a difference that [`super::diff`] does not see.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use similar::{ChangeTag, TextDiff};

use super::{Change, Impact, Op, diff, summary};
use crate::HaCluster;
use crate::decode::lines_of;
use crate::normalise::{canonical, to_yaml};

/// How the text is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffLook {
    Plain,
    Coloured,
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const CYAN: &str = "\x1b[36m";
const OFF: &str = "\x1b[0m";

/// Lines around a change.
const CONTEXT: usize = 3;

/// Returns the unified diff; empty if the two documents mean the same. `old_name` and `new_name` head the diff.
pub fn unified(
    old: Option<&HaCluster>,
    new: &HaCluster,
    old_name: &str,
    new_name: &str,
    look: DiffLook,
) -> String {
    let changes = diff(old, new);
    if changes.is_empty() {
        return String::new();
    }
    let old_text = old.map_or_else(String::new, |old| to_yaml(&canonical(old)));
    let new_text = to_yaml(&canonical(new));
    let lines = TextDiff::from_lines(old_text.as_str(), new_text.as_str());
    let notes = Notes::of(&changes, &lines, &old_text, &new_text);
    let paint = |colour: &str, line: &str| match look {
        DiffLook::Plain => format!("{line}\n"),
        DiffLook::Coloured => format!("{colour}{line}{OFF}\n"),
    };
    let mut out = format!("--- {old_name}\n+++ {new_name}\n");
    for hunk in lines.unified_diff().context_radius(CONTEXT).iter_hunks() {
        out += &paint(CYAN, &hunk.header().to_string());
        for line in hunk.iter_changes() {
            let text = line.value().trim_end_matches('\n');
            out += &match line.tag() {
                ChangeTag::Equal => format!(" {text}\n"),
                ChangeTag::Delete => {
                    paint(RED, &format!("-{text}{}", Notes::at(&notes.old, line.old_index())))
                }
                ChangeTag::Insert => {
                    paint(GREEN, &format!("+{text}{}", Notes::at(&notes.new, line.new_index())))
                }
            };
        }
    }
    out.push('\n');
    if old.is_some() {
        changes.iter().for_each(|change| out += &sentence(change));
    }
    out + &summary(&changes) + "\n"
}

/// The effect on the VM of each changed line, by its number from 0.
#[derive(Default)]
struct Notes {
    old: BTreeMap<usize, Impact>,
    new: BTreeMap<usize, Impact>,
}

impl Notes {
    /// Notes each change on its first line that is new, or on its first line that is gone where none is new.
    fn of(changes: &[Change], lines: &TextDiff<'_, '_, str>, old_text: &str, new_text: &str) -> Self {
        let (mut gone, mut came) = (BTreeSet::new(), BTreeSet::new());
        for line in lines.iter_all_changes() {
            gone.extend(line.old_index().filter(|_| line.tag() == ChangeTag::Delete));
            came.extend(line.new_index().filter(|_| line.tag() == ChangeTag::Insert));
        }
        let paths = || changes.iter().map(|change| &change.path);
        let places = lines_of(old_text, paths()).into_iter().zip(lines_of(new_text, paths()));
        let mut notes = Self::default();
        for (change, (in_old, in_new)) in changes.iter().zip(places) {
            let first =
                |lines: &BTreeSet<usize>, place: Option<Range<usize>>| lines.range(place?).next().copied();
            let new_line = first(&came, in_new).filter(|_| change.op != Op::Removed);
            let (noted, line) = match new_line {
                Some(line) => (&mut notes.new, Some(line)),
                None => (&mut notes.old, first(&gone, in_old)),
            };
            if let Some(line) = line {
                let weight = noted.entry(line).or_insert(change.impact);
                *weight = change.impact.max(*weight);
            }
        }
        notes
    }

    fn at(lines: &BTreeMap<usize, Impact>, line: Option<usize>) -> String {
        match line.and_then(|line| lines.get(&line)) {
            Some(impact) => format!("  # effect on the VM: {impact}"),
            None => String::new(),
        }
    }
}

fn sentence(change: &Change) -> String {
    let value =
        |value: &Option<serde_json::Value>| value.as_ref().map(ToString::to_string).unwrap_or_default();
    let what = match change.op {
        Op::Added => format!("added {}", value(&change.new)),
        Op::Removed => format!("removed {}", value(&change.old)),
        Op::Changed => format!("{} -> {}", value(&change.old), value(&change.new)),
    };
    format!("{}: {what}\n    {}: {}\n", change.path, change.impact, change.reason)
}
