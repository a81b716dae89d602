//! Reads YAML 1.2 into a tree, by the events of the parser. Anchors, tags and a second document are refused, so nothing
//! in the text can grow.
//!
//! Never here: YAML 1.1. `yes` and `off` are texts, and `010` is no number.

use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};
use serde_json::Number;

use super::tree::{DEEPEST, Entry, Placed, Shape, Tree};
use crate::characters;
use crate::diagnostic::{Code, Diagnostics, Finding};
use crate::path::Path;

/// Returns the tree, as far as `source` could be read, and every fault met on the way.
pub(super) fn read(source: &str) -> (Option<Tree>, Vec<Placed>) {
    let mut reader = Reader::new(source);
    let mut parser = Parser::new_from_str(source);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if reader.take(event, span).is_break() || reader.found.len() >= Diagnostics::MOST {
                    break;
                }
            }
            Err(error) => {
                reader.scan_error(&error);
                return (None, reader.found);
            }
        }
    }
    let root = reader.root.take();
    (root, reader.found)
}

/// A list or mapping that is not closed yet.
enum Open {
    List { start: usize, items: Vec<Tree> },
    Map { start: usize, entries: Vec<Entry>, key: Option<(String, Range<usize>)> },
}

struct Reader<'a> {
    source: &'a str,
    /// The byte each character begins at: the parser counts characters.
    bytes: Vec<usize>,
    open: Vec<Open>,
    root: Option<Tree>,
    documents: usize,
    found: Vec<Placed>,
}

type Flow = std::ops::ControlFlow<()>;

impl<'a> Reader<'a> {
    fn new(source: &'a str) -> Self {
        let bytes = source.char_indices().map(|(at, _)| at).chain([source.len()]).collect();
        Self { source, bytes, open: Vec::new(), root: None, documents: 0, found: Vec::new() }
    }

    fn byte(&self, character: usize) -> usize {
        self.bytes.get(character).copied().unwrap_or(self.source.len())
    }

    fn range(&self, span: &Span) -> Range<usize> {
        let (start, end) = (self.byte(span.start.index()), self.byte(span.end.index()));
        start..end.max(start)
    }

    fn fault(&mut self, code: Code, span: &Span, message: &str, hint: &str) {
        let range = self.range(span);
        self.found.push((Finding::new(code, Path::root(), message).hint(hint), Some(range)));
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Flow {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.fault(
                        Code::ManyDocuments,
                        &span,
                        "a file must hold one document; another begins here",
                        "put each cluster in its own file",
                    );
                    return Flow::Break(());
                }
            }
            Event::Alias(_) => {
                self.no_anchors(&span, "an alias ('*NAME')");
                self.put(Tree { span: self.range(&span), shape: Shape::Null });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.check_properties(&span, anchor, tag.is_some());
                let range = self.range(&span);
                let shape = if style == ScalarStyle::Plain && tag.is_none() {
                    resolve(&text)
                } else {
                    Shape::Text(text.into_owned())
                };
                self.put_scalar(Tree { span: range, shape });
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_properties(&span, anchor, tag.is_some());
                let open = Open::List { start: self.range(&span).start, items: Vec::new() };
                return self.push(open, &span);
            }
            Event::MappingStart(anchor, tag) => {
                self.check_properties(&span, anchor, tag.is_some());
                let open = Open::Map { start: self.range(&span).start, entries: Vec::new(), key: None };
                return self.push(open, &span);
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&span),
        }
        Flow::Continue(())
    }

    fn push(&mut self, open: Open, span: &Span) -> Flow {
        if self.open.len() >= DEEPEST {
            self.fault(
                Code::TooDeep,
                span,
                &format!("must not be nested deeper than {DEEPEST} levels"),
                "see `zsha config-sample FileConf` for the form of a document",
            );
            return Flow::Break(());
        }
        self.open.push(open);
        Flow::Continue(())
    }

    fn close(&mut self, span: &Span) {
        let end = self.range(span).end;
        let tree = match self.open.pop() {
            Some(Open::List { start, items }) => {
                Tree { span: start..end.max(start), shape: Shape::List(items) }
            }
            Some(Open::Map { start, entries, .. }) => {
                Tree { span: start..end.max(start), shape: Shape::Map(entries) }
            }
            None => return,
        };
        self.put(tree);
    }

    /// Puts a scalar into the list or mapping that is open. Where the scalar is a key, its text counts.
    fn put_scalar(&mut self, tree: Tree) {
        if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut() {
            let text = match tree.shape {
                Shape::Text(text) => text,
                _ => self.source.get(tree.span.clone()).unwrap_or_default().to_owned(),
            };
            *key = Some((text, tree.span));
            return;
        }
        self.put(tree);
    }

    fn put(&mut self, tree: Tree) {
        match self.open.last_mut() {
            None => self.root = Some(tree),
            Some(Open::List { items, .. }) => items.push(tree),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                Some((key, key_span)) => entries.push(Entry { key, key_span, value: tree }),
                None => {
                    let finding = Finding::new(Code::Syntax, Path::root(), "a key must be a text");
                    self.found.push((
                        finding.hint("a list or a mapping may not be a key"),
                        Some(tree.span.clone()),
                    ));
                    *key = Some((String::new(), tree.span));
                }
            },
        }
    }

    fn check_properties(&mut self, span: &Span, anchor: usize, tagged: bool) {
        if anchor > 0 {
            self.no_anchors(span, "an anchor ('&NAME')");
        }
        if tagged {
            self.fault(
                Code::AnchorOrTag,
                span,
                "a tag ('!TAG') may not be used",
                "write the value alone; its type is known from its key",
            );
        }
    }

    fn no_anchors(&mut self, span: &Span, what: &str) {
        let message = format!("{what} may not be used");
        self.fault(Code::AnchorOrTag, span, &message, "write the value out in each place");
    }

    fn scan_error(&mut self, error: &ScanError) {
        let tabs = self.tab_indents();
        if !tabs.is_empty() {
            for range in tabs {
                let finding = Finding::new(Code::Tab, Path::root(), "a line must not be indented with a tab");
                self.found.push((finding.hint("indent with spaces, two per level"), Some(range)));
            }
            return;
        }
        let misread = self.misread_lines();
        if !misread.is_empty() {
            self.found.extend(misread);
            return;
        }
        let at = self.byte(error.marker().index());
        let at = self.last_character_up_to(at);
        let finding = Finding::new(Code::Syntax, Path::root(), format!("this is not YAML: {}", error.info()));
        self.found.push((finding.hint(scan_hint(error.info())), Some(at)));
    }

    /// The character at `byte`. At the end of the text it is the last character that is not blank, so that there is a
    /// line to show.
    fn last_character_up_to(&self, byte: usize) -> Range<usize> {
        let is_blank = self.source[byte..].trim().is_empty();
        let at = if is_blank {
            self.source[..byte].trim_end().char_indices().next_back().map_or(0, |(at, _)| at)
        } else {
            byte
        };
        let length = self.source[at..].chars().next().map_or(0, char::len_utf8);
        at..at + length
    }

    /// Finds the mistakes by which the parser takes a line for a part of its neighbour and then complains of the next
    /// line.
    fn misread_lines(&self) -> Vec<Placed> {
        let mut start = 0;
        let mut found = Vec::new();
        for line in self.source.split_inclusive('\n') {
            let misread = disguised_indent(line, start).or_else(|| glued_entry(line, start));
            found.extend(misread.or_else(|| misread_key(line, start)));
            start += line.len();
        }
        found
    }

    fn tab_indents(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let mut tabs = Vec::new();
        for line in self.source.split_inclusive('\n') {
            let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
            let content = line[indent..].trim_end();
            if let (Some(tab), false) =
                (line[..indent].find('\t'), content.is_empty() || content.starts_with('#'))
            {
                tabs.push(start + tab..start + tab + 1);
            }
            start += line.len();
        }
        tabs
    }
}

/// Finds what is no blank, though nothing is seen, before the first character of a line at byte `start`.
fn disguised_indent(line: &str, start: usize) -> Option<Placed> {
    let (at, c) = line.char_indices().find(|(_, c)| !matches!(c, ' ' | '\t'))?;
    if !characters::is_unseen(c) {
        return None;
    }
    let (name, _) = characters::disguise(c)?;
    let code_point = characters::code_point(c);
    let message = format!("a line must be indented with blanks, and not with {code_point}, {name}");
    let finding = Finding::new(Code::Syntax, Path::root(), message).hint("indent with blanks, two per level");
    Some((finding, Some(start + at..start + at + c.len_utf8())))
}

/// Finds the '-' of an entry that has its value right behind it, in a line at byte `start`.
fn glued_entry(line: &str, start: usize) -> Option<Placed> {
    let content = line.trim_start_matches(' ');
    let rest = content.strip_prefix('-')?;
    // '---' begins a document.
    if !rest.starts_with(|c: char| !c.is_whitespace() && c != '-') {
        return None;
    }
    let dash = start + line.len() - content.len();
    let finding = Finding::new(Code::Syntax, Path::root(), "a blank is missing after this '-'");
    Some((finding.hint("write '- VALUE'"), Some(dash..dash + 1)))
}

/// Finds a known field whose colon is a full-width one, or is not followed by a blank, in a line at byte `start`.
fn misread_key(line: &str, start: usize) -> Option<Placed> {
    const FULL_WIDTH_COLON: char = '\u{ff1a}';
    let content = line.trim_start_matches([' ', '-']);
    let at = content.find([':', FULL_WIDTH_COLON])?;
    if !crate::schema::field_names().contains(&content[..at]) {
        return None;
    }
    let mut rest = content[at..].chars();
    let (code, message, marked) = match (rest.next()?, rest.next()?) {
        (FULL_WIDTH_COLON, _) => {
            (Code::Syntax, "this is a full-width colon, which YAML takes for a letter".to_owned(), at)
        }
        (_, ' ' | '\r' | '\n') => return None,
        (_, '\t') => (Code::Tab, "this is a tab, where a blank must be".to_owned(), at + 1),
        (_, blank) if blank.is_whitespace() || characters::is_unseen(blank) => {
            let message =
                format!("this is no blank, though it looks like one ({})", characters::code_point(blank));
            (Code::Syntax, message, at + 1)
        }
        _ => (Code::Syntax, "a blank is missing after this ':'".to_owned(), at),
    };
    let length = content[marked..].chars().next().map_or(0, char::len_utf8);
    let marked = start + line.len() - content.len() + marked;
    let finding = Finding::new(code, Path::root(), message).hint("write 'KEY: VALUE'");
    Some((finding, Some(marked..marked + length)))
}

/// Returns what a person should look for, by the parser's own words.
fn scan_hint(info: &str) -> &'static str {
    if info.contains("mapping values are not allowed")
        || info.contains("simple key")
        || info.contains("could not find")
    {
        "a key needs ': ' after it, and every key of a mapping the same indentation; quote a text that holds ': '"
    } else if info.contains("quoted") || info.contains("escape") || info.contains("quote") {
        "close the quotation mark; in double quotes, write a backslash as '\\\\'"
    } else if info.contains("flow")
        || info.contains("illegal placement")
        || info.contains('\'') && (info.contains(']') || info.contains('}'))
    {
        "close every '[' and '{' on this line and above, and put a ',' between entries"
    } else {
        "check the indentation and the characters on this line and the one before it"
    }
}

/// The core schema of YAML 1.2 for a plain scalar.
fn resolve(text: &str) -> Shape {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Shape::Null,
        "true" | "True" | "TRUE" => Shape::Bool(true),
        "false" | "False" | "FALSE" => Shape::Bool(false),
        _ => number(text).map_or_else(|| Shape::Text(text.to_owned()), Shape::Number),
    }
}

/// Reads decimal numbers as JSON writes them. Leading zeros, hexadecimal and octal forms stay texts, since the versions
/// of YAML disagree about them.
fn number(text: &str) -> Option<Number> {
    serde_json::from_str::<Number>(text).ok()
}
