//! The faults of a document, for people and as JSON. Each has its code, its place, what is so, what is allowed and what
//! to do.
//!
//! Never here: finding out what is wrong.

mod code;
mod render;

use std::ops::Range;

use schemars::JsonSchema;
use serde::Serialize;

pub use code::Code;
pub use render::Look;

use crate::characters;
use crate::path::Path;

/// How grave a fault is. With warnings alone the document can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum Severity {
    Error,
    Warning,
}

/// One fault in the words of the check that found it, not yet placed in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub code: Code,
    pub path: Path,
    /// The sentence after the name of the field: "must be ...".
    pub message: String,
    pub allowed: Option<String>,
    pub hint: Option<String>,
    /// True if the key is at fault and not its value.
    pub at_key: bool,
    /// The bytes of the value's text that are at fault, where it is not all of it.
    pub part: Option<Range<usize>>,
}

impl Finding {
    pub fn new(code: Code, path: Path, message: impl Into<String>) -> Self {
        Self { code, path, message: message.into(), allowed: None, hint: None, at_key: false, part: None }
    }

    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub fn part(mut self, part: Range<usize>) -> Self {
        self.part = Some(part);
        self
    }

    #[must_use]
    pub fn at_key(mut self) -> Self {
        self.at_key = true;
        self
    }
}

/// A finding in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    /// The field, as the document names it; empty for faults of syntax.
    pub path: String,
    /// The line, counted from 1. None where the document was not read from a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column, counted from 1 in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// A sentence, field included.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Bytes of the text it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
}

/// Bytes of a text, the end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// Everything wrong with one document, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diagnostics {
    file: Option<String>,
    source: String,
    items: Vec<Diagnostic>,
}

impl Diagnostics {
    /// No more faults than this are kept: a person mends the first ones first, and a file made to have a million is not
    /// worth the time.
    pub const MOST: usize = 100;

    /// Places the findings in the text that the document was read from.
    pub(crate) fn placed(file: &str, source: &str, mut items: Vec<(Finding, Option<Range<usize>>)>) -> Self {
        items.sort_by_key(|(finding, span)| {
            (
                finding.code.severity(),
                span.as_ref().map(|span| span.start),
                finding.code,
                finding.path.clone(),
            )
        });
        items.truncate(Self::MOST);
        let mut items: Vec<Diagnostic> =
            items.into_iter().map(|(finding, span)| Diagnostic::placed(finding, source, span)).collect();
        items.sort_by(|a, b| (a.line, a.column, a.code, &a.path).cmp(&(b.line, b.column, b.code, &b.path)));
        items.dedup();
        Self { file: Some(file.to_owned()), source: source.to_owned(), items }
    }

    /// The findings of a document that was not read from a text: they have paths, but no lines.
    pub(crate) fn unplaced(findings: Vec<Finding>) -> Self {
        let items = findings.into_iter().map(|finding| Diagnostic::placed(finding, "", None)).collect();
        Self { file: None, source: String::new(), items }
    }

    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter().filter(|item| item.severity == Severity::Error)
    }

    /// `kind: DiagnosticList`, for `-o json`.
    pub fn to_list(&self) -> DiagnosticList<'_> {
        let count = |severity| self.items.iter().filter(|item| item.severity == severity).count();
        DiagnosticList {
            api_version: crate::API_VERSION,
            kind: "DiagnosticList",
            valid: !self.has_errors(),
            error_count: count(Severity::Error),
            warning_count: count(Severity::Warning),
            file: self.file.as_deref(),
            items: &self.items,
        }
    }
}

impl std::fmt::Display for Diagnostics {
    /// One line each, without the source.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            if let (Some(file), Some(line), Some(column)) = (&self.file, item.line, item.column) {
                write!(f, "{}:{line}:{column}: ", file.escape_debug())?;
            }
            write!(f, "{}: {}", item.code, item.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// [`Diagnostics`] in the shape of the other documents of the command line.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiagnosticList<'a> {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub valid: bool,
    pub error_count: usize,
    pub warning_count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<&'a str>,
    pub items: &'a [Diagnostic],
}

impl Diagnostic {
    fn placed(finding: Finding, source: &str, span: Option<Range<usize>>) -> Self {
        let path = finding.path.to_string();
        let (line, column) = match &span {
            Some(span) => {
                let (line, column) = line_and_column(source, span.start);
                (Some(line), Some(column))
            }
            None => (None, None),
        };
        let message = match path.as_str() {
            "" => finding.message,
            path => format!("`{}` {}", printable(path), finding.message),
        };
        Self {
            severity: finding.code.severity(),
            code: finding.code,
            path,
            line,
            column,
            message,
            allowed: finding.allowed,
            hint: finding.hint,
            span: span.map(Span::from),
        }
    }
}

/// Line and column, both from 1, of a byte of the text.
fn line_and_column(source: &str, byte: usize) -> (usize, usize) {
    let before = source.get(..byte).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A value of the user's in single quotes, short enough for a sentence and with nothing a terminal would obey.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", printable(text))
}

fn printable(text: &str) -> String {
    const LONGEST: usize = 80;
    let cut: String = text.chars().take(LONGEST).collect();
    let mut escaped = String::new();
    for c in characters::shown(&cut).chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    if text.chars().nth(LONGEST).is_some() { format!("{escaped}...") } else { escaped }
}
